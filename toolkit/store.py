"""An on-disk cache of tensors: parsed clouds, and whatever frozen preprocessing computes once per cloud.

Every entry is one safetensors file named by a hash of everything that its content depends on, so entries never go
stale: other inputs make another key. Files are written beside their place and moved into it, so several processes may
fill one store at once and a killed one leaves nothing half-written. Reading maps the file into memory: no copy is made
until a tensor is used, and changing a tensor does not change the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import struct
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import OutputError

if TYPE_CHECKING:
    from toolkit.cloud import PointCloud
    from toolkit.data.base import CloudDataset, Sample

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
ABANDONED_SECONDS = 3600
"""A temporary file of this age belongs to a process that was killed."""


def key_of(*parts: Any) -> str:
    """Hash of plain values, arrays, tensors, and containers and dataclasses of them: 40 hexadecimal digits.

    Equal values of different type (1, 1.0, True, "1") give different keys; the order of a dict's items does not count.

    Raises:
        TypeError: a part is of another type, whose content cannot be told.
    """
    digest = hashlib.blake2b(digest_size=20)
    _feed(digest.update, parts)
    return digest.hexdigest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Hash a type tag, a length and the content, so that no two different values give the same bytes."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            raise TypeError("key_of: arrays of objects have no content to hash.")
        update(f"array {array.dtype.str} {np.shape(value)};".encode())
        update(array.tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed(update, (type(value).__name__, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}))
    elif isinstance(value, Mapping):
        update(f"dict {len(value)};".encode())
        for key, item in sorted(value.items(), key=lambda pair: (type(pair[0]).__name__, str(pair[0]))):
            _feed(update, (key, item))
    elif isinstance(value, (list, tuple)):
        update(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)};".encode())
        for item in value:
            _feed(update, item)
    elif isinstance(value, bytes):
        update(b"bytes %d;" % len(value) + value)
    elif isinstance(value, (str, Path)):
        data = str(value).encode()
        update(b"str %d;" % len(data) + data)
    elif isinstance(value, float):
        update(b"float " + struct.pack("<d", value))
    elif value is None or isinstance(value, (bool, int)):
        update(f"{type(value).__name__} {value!r};".encode())
    else:
        raise TypeError(f"key_of: expected plain values, arrays or dataclasses of them, got {type(value).__name__}.")


def default_folder() -> Path:
    """Where the cache lives: the environment variable CONTINUAL3D_CACHE, or the user's cache folder."""
    if place := os.environ.get("CONTINUAL3D_CACHE"):
        return Path(place).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "continual3d"


class Store:
    """A folder of dicts of tensors under content keys, limited in size.

    Args:
        folder: where to keep the entries; `default_folder` if None. Made when first written to.
        max_bytes: beyond this size the entries not used for the longest time are removed. Several processes may
            overshoot it by a twentieth each.
    """

    def __init__(self, folder: str | Path | None = None, *, max_bytes: int = 50 * 2**30) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else default_folder()
        self.max_bytes = max_bytes
        self._counted: int | None = None  # bytes in the folder when last counted
        self._added = 0  # bytes written by this process since

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / key[:2] / (key + SUFFIX)

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The entry as memory-mapped CPU tensors, or None. A damaged entry is logged, removed and counts as missing."""
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                entry = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no iteration protocol)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError) as error:
            # torch opens the file once more to map it, and has only RuntimeError to say that another process has
            # removed it in between: that is a missing entry like any other.
            if path.exists():
                log.warning("cache entry %s cannot be read (%s); it is computed again", path, error)
            return None
        except SafetensorError as error:
            log.warning("cache entry %s is damaged (%s); it is removed and computed again", path, error)
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # a cache shared read-only cannot note when it was used, and need not
            os.utime(path)
        return entry

    def put(self, key: str, entry: Mapping[str, Tensor | np.ndarray]) -> None:
        """Write an entry, replacing one of the same key.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self.path(key)
        scratch = path.with_name(f".{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(_tensors(entry), scratch)
            size = scratch.stat().st_size
            os.replace(scratch, path)
        except (OSError, SafetensorError) as error:
            scratch.unlink(missing_ok=True) if path.parent.is_dir() else None
            raise OutputError(
                f"{path}: the cache could not be written ({error}). Free some space, or set CONTINUAL3D_CACHE to a "
                "folder that can be written to."
            ) from error
        self._limit(size)

    def get_or_make(self, key: str, make: Callable[[], Mapping[str, Tensor | np.ndarray]]) -> dict[str, Tensor]:
        """The entry of a key, made and stored first if it is missing.

        A cache that cannot be written costs time, not results: that is logged as a warning and the run goes on.
        """
        entry = self.get(key)
        if entry is not None:
            return entry
        made = _tensors(make())
        try:
            self.put(key, made)
        except OutputError as error:
            log.warning("%s", error)
        return made

    def nbytes(self) -> int:
        """Size of all entries."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> None:
        """Remove all entries and abandoned temporary files."""
        self._evict(0)

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, size, file) of every entry that no other process removes meanwhile."""
        found = []
        for path in self.folder.glob(f"??/*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _limit(self, added: int) -> None:
        """Count the folder seldom: at first, after each twentieth of the limit, and when it may be exceeded."""
        self._added += added
        if self._counted is None or self._added > self.max_bytes / 20 or self._counted + self._added > self.max_bytes:
            self._evict(self.max_bytes)

    def _evict(self, limit: int) -> None:
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        if total > limit:
            target = limit * 0.9  # some room, so that not every further entry counts the folder again
            for _, size, path in sorted(entries):
                if total <= target:
                    break
                path.unlink(missing_ok=True)
                total -= size
        for scratch in self.folder.glob("??/.*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - scratch.stat().st_mtime > ABANDONED_SECONDS:
                    scratch.unlink()
        self._counted, self._added = total, 0


def _tensors(entry: Mapping[str, Tensor | np.ndarray]) -> dict[str, Tensor]:
    """CPU tensors, each contiguous and with memory of its own, as safetensors wants them."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in entry.items():
        if not isinstance(value, Tensor):
            value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        tensor = value.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        shared = tensor.numel() > 0 and (pointer in seen or tensor.untyped_storage().nbytes() != tensor.nbytes)
        seen.add(pointer)
        out[name] = tensor.clone() if shared else tensor
    return out


def cached_load(dataset: CloudDataset, sample: Sample, store: Store | None) -> PointCloud:
    """``dataset.load(sample)``, large clouds sorted (see `toolkit.zorder`), parsed once and then read from the store.

    Without a store it is parsed and sorted every time, so that a cache changes no result.

    The key holds the reader, its version and options, the sample, and path, size and modification time of every file
    that the reader names for it, so a changed file is noticed. Readers that are no `FileDataset` are known by their
    fingerprint.

    Raises:
        Continual3DError: whatever ``load`` raises.
    """
    from toolkit.cloud import PointCloud
    from toolkit.data.layout import FileDataset
    from toolkit.zorder import SORT_FROM, in_z_order

    if store is None:
        return in_z_order(dataset.load(sample))
    source: Any
    if isinstance(dataset, FileDataset):
        try:
            states = [(path.resolve(), path.stat()) for path in dataset.files(sample)]
        except FileNotFoundError:
            return dataset.load(sample)  # whose error says what is missing
        source = (dataset.version, dataset.options, [(str(p), s.st_size, s.st_mtime_ns) for p, s in states])
    else:
        source = dataset.fingerprint()
    facts = {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample) if f.name != "extra"}
    key = key_of("cloud", SORT_FROM, type(dataset).__name__, source, facts)

    def make() -> dict[str, Tensor]:
        values = in_z_order(dataset.load(sample)).to_dict()
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        plain = json.dumps({name: value for name, value in values.items() if name not in tensors})
        return {**tensors, "plain": torch.frombuffer(bytearray(plain.encode()), dtype=torch.uint8)}

    entry = store.get_or_make(key, make)
    cloud = PointCloud()
    for name, value in json.loads(bytes(entry.pop("plain").numpy())).items():
        cloud[name] = value
    for name, value in entry.items():
        cloud[name] = value
    return cloud
