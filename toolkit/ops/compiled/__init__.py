"""Compiled inner loops of point operators: used where numba is installed (``pip install 'continual3d[fast]'``).

Every operator has a path without them, which is what they are tested against (`tests/ops/test_compiled.py`): the same
results but for rounding and for the order of equal distances. Compiled code is kept beside these files, or in the
user's cache directory where that is not writable, so that only the first call after an installation waits for the
compiler (10 to 20 s for a registration) and others a second at most. Set the environment variable
``CONTINUAL3D_COMPILED=0`` to leave them out.

Rounding is not nothing: normals come from double precision here and from single precision without, which moves single
neighbours across an edge of FPFH's bins, and a part that has a symmetry may come to lie in another of its equally good
poses. Measured on 192 scans of 8 classes and turned copies: 295 of 384 rotations the same within 1e-6, 22 more than
0.1 apart (bowl0 and bolt0; a template larger by 1e-7 does that to 15 of theirs without compiled loops); mean nearest
distance per class the same within 0.1 %, in bolt0 0.5 % smaller. Object / point AUROC of BTF .852 / .924 with and
.853 / .924 without, of Reg3DAD .946 / .977 and .945 / .978; up to 0.03 object AUROC in one class of 21 test clouds.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

enabled = os.environ.get("CONTINUAL3D_COMPILED", "1") != "0" and importlib.util.find_spec("numba") is not None
"""Whether compiled loops are used; tests turn this off."""

OPTIONS: dict[str, Any] = dict(cache=True, nogil=True, error_model="numpy")
"""Of all kernels: kept on disk, free of Python's lock, dividing by zero as numpy does."""

_ROWS = 4096  # rows per call in a thread


def usable(*tensors: Tensor) -> bool:
    """Whether compiled loops are there and all tensors are where they can be read."""
    return enabled and all(tensor.device.type == "cpu" for tensor in tensors)


def spread(kernel: Callable[[int, int], Any], rows: int) -> None:
    """Call ``kernel(first, last)`` for all of 0..rows, on as many threads as torch uses.

    Kernels write to rows of their own, so that the result does not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    if threads == 1 or rows <= _ROWS:
        kernel(0, rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        bounds = np.arange(0, rows, _ROWS)
        list(pool.map(lambda first: kernel(int(first), min(int(first) + _ROWS, rows)), bounds))
