"""What a run ran on: versions, commit, hardware, memory."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("continual3d", "torch", "avalanche-lib", "torch-geometric", "open3d", "open3d-cpu", "numpy", "scipy",
            "fpsample", "pykdtree", "optuna", "numba")  # fmt: skip


def environment() -> dict[str, Any]:
    """Plain facts for ``result.json``; none of them enters the spec's hash."""
    import torch

    from toolkit.ops import compiled

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "packages": versions,
        "commit": commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "compiled_loops": compiled.enabled,  # numba is there and not turned off
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> str | None:
    """Commit of the source tree, with ``+`` where it has uncommitted changes; None outside a checkout."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return None
    try:
        said = subprocess.run(["git", "describe", "--always", "--abbrev=12", "--dirty=+"], cwd=top, check=True,
                              capture_output=True, text=True, timeout=10)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB. GPU memory is not in it."""
    from toolkit.metrics import process_peak_bytes

    return process_peak_bytes() / (1 << 20)
