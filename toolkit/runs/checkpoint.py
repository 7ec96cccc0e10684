"""Checkpoints between experiences, in our own format.

Two files per checkpoint: ``task_003.pt`` holds the strategy's learned state (tensors and plain values, read with
``weights_only=True``, all that scoring needs) and ``task_003.plugins`` the state of continual plugins (replay buffers,
importances, ...), needed only to go on training. Buffers refer to clouds by list name and row; no cloud is stored.

Avalanche's own ``save_checkpoint`` fails with any torch optimizer under today's dill. Random states need no storing:
each experience starts from a seed of its own (`toolkit.seeding.seeded`).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from toolkit.errors import CheckpointError
from toolkit.runs.files import write_atomically
from toolkit.runs.spec import FORMAT
from toolkit.stream import CloudList


def save(folder: Path, position: int, strategy: Any, plugins: list[Any], facts: dict[str, Any]) -> None:
    """Write the checkpoint after experience `position` and delete all but the last two.

    Args:
        folder: ``checkpoints/`` of the run.
        position: the experience that was just learned.
        strategy: an AnomalyStrategy.
        plugins: those whose state matters, in a fixed order.
        facts: plain values to keep beside (costs so far).
    """
    content = {"format": FORMAT, "position": position, "state": strategy.state(), "facts": facts}
    buffer = io.BytesIO()
    _Pickler(buffer).dump(plugins)
    write_atomically(_path(folder, position, "plugins"), lambda p: _write_bytes(p, buffer.getvalue()))
    write_atomically(_path(folder, position, "pt"), lambda p: torch.save(content, p))  # last: it marks completeness
    for position in _positions(folder)[:-2]:
        old = _path(folder, position, "pt")
        old.unlink()
        old.with_suffix(".plugins").unlink(missing_ok=True)


def latest(folder: Path) -> int | None:
    """Position of the newest checkpoint, or None."""
    found = _positions(folder)
    return found[-1] if found else None


def _positions(folder: Path) -> list[int]:
    """By number, not by name: task_1000 comes after task_999."""
    return sorted(int(path.stem.split("_")[1]) for path in folder.glob("task_*.pt"))


def load_state(folder: Path, position: int) -> dict[str, Any]:
    """Content of the ``.pt`` file.

    Raises:
        CheckpointError: truncated, unreadable, or of another format version.
    """
    path = _path(folder, position, "pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a broken file
        raise CheckpointError(f"Cannot read checkpoint {path} ({type(error).__name__}); it is truncated or not a "
                              "checkpoint. Delete this file and run the same command again: the run goes on from the "
                              "checkpoint before it.") from error  # fmt: skip
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {content.get('format')}, this version reads format {FORMAT}.")
    return content


def load_plugins(folder: Path, position: int, plugins: list[Any], resolve: Callable[[str], CloudList]) -> None:
    """Put stored state back into live plugins.

    Args:
        folder, position: as in `save`.
        plugins: freshly built, in the order of `save`.
        resolve: gives the CloudList of a stored name.

    Raises:
        CheckpointError: the file is missing, truncated, or of other plugins.
    """
    path = _path(folder, position, "plugins")
    try:
        stored = _Unpickler(io.BytesIO(path.read_bytes()), resolve).load()
    except Exception as error:
        raise CheckpointError(f"Cannot read plugin state {path} ({type(error).__name__}). Delete the checkpoint "
                              f"{path.stem} and run the same command again.") from error  # fmt: skip
    if [type(p) for p in stored] != [type(p) for p in plugins]:
        raise CheckpointError(f"{path} holds the state of other plugins than this run has.")
    for live, old in zip(plugins, stored):
        live.__dict__.update(old.__dict__)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.name if isinstance(value, CloudList) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, resolve: Callable[[str], CloudList]):
        super().__init__(file)
        self.resolve = resolve

    def persistent_load(self, name: Any) -> Any:
        return self.resolve(name)


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _path(folder: Path, position: int, suffix: str) -> Path:
    return folder / f"task_{position:03d}.{suffix}"
