"""Signs of life: who works in a folder, and since when it has been silent.

The lock of a run (`toolkit.runs.runner.locked`) decides who may write; it goes with its process. A heartbeat is for
people and progress views: it says whose process holds a lock, also where that process is on another machine.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import OutputError

SECONDS = 15.0
"""Time between two beats."""
NAME = "heartbeat.json"


class BusyError(OutputError):
    """Another live process works on the same thing; waiting helps."""


def identity() -> dict[str, Any]:
    """Host, user, process id and start of this process: enough to tell later whether it still lives."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    pid = os.getpid()
    return {"host": socket.gethostname(), "space": _space(), "user": user, "pid": pid, "born": _born(pid)}


def lives(who: dict[str, Any]) -> bool | None:
    """Whether the process of an `identity` still runs; None if it is on another host, in another container or from
    before a reboot, where we cannot look."""
    import psutil

    if who.get("host") != socket.gethostname() or who.get("space") != _space():
        return None
    try:
        pid = int(who["pid"])
        return abs(_born(pid) - float(who["born"])) < 1.0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False


def _space() -> str:
    """What process numbers are relative to: the boot and the container (PID namespace); empty where not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> float:
    """When a process started: ticks since the boot on Linux, as the time of day would move when the clock is set."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return float(text.rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        import psutil

        return psutil.Process(pid).create_time()


@contextlib.contextmanager
def beating(folder: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Keep ``heartbeat.json`` in `folder` fresh during a block and take it away afterwards.

    A heartbeat that cannot be written (full disk) harms nobody: the work itself reports the disk.
    """
    path = folder / NAME
    done = threading.Event()
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(identity()) + "\n", encoding="utf-8")

    def beat() -> None:
        while not done.wait(seconds):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()


def describe(folder: Path) -> str:
    """``by anna on node3 (process 812), last sign of life 4 s ago``; empty if nobody left a sign."""
    path = folder / NAME
    try:
        who, age = json.loads(path.read_text(encoding="utf-8")), time.time() - path.stat().st_mtime
        return f"by {who['user']} on {who['host']} (process {who['pid']}), last sign of life {max(0, age):.0f} s ago"
    except (OSError, ValueError, KeyError):
        return ""
