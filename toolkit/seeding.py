"""Random numbers that depend on what is done, not on what was done before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def number_of(*parts: Any) -> int:
    """A number below 2^56 that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


@contextmanager
def seeded(*parts: Any) -> Iterator[None]:
    """Run a block under random numbers that depend on nothing but `parts`; the global state is put back afterwards.

    So a killed and resumed run, or clouds scored in another order, draw the same numbers.
    """
    number = number_of(*parts)
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(number)
        np.random.seed(number % 2**32)
        random.seed(number)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
