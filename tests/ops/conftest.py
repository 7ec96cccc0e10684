"""A check around every operator test that nothing draws from a global generator."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ops.clouds import bumpy
from toolkit.ops import compiled


@pytest.fixture
def cloud() -> Tensor:
    return bumpy(600)


@pytest.fixture(autouse=True)
def global_generators_untouched():
    """Operators are seeded by arguments alone."""
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    threads = torch.get_num_threads()
    yield
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == threads


@pytest.fixture(params=["plain", "compiled"])
def loops(request, monkeypatch) -> str:
    """Tests that ask for this run twice: without numba and with it."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "enabled", request.param == "compiled")
    return request.param


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")
