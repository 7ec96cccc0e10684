"""Operators whose own file has no CUDA test: the same on the device as on the CPU."""

import pytest
import torch

from tests.ops.clouds import bumpy, noise, rotation
from toolkit import ops
from toolkit.ops.icp import icp


def moved(cloud, device):
    start = torch.eye(4, dtype=torch.float64)
    start[:3, 3] = torch.tensor([0.2, -0.1, 0.1])
    return icp(cloud[:200].to(device), cloud.to(device), ops.normals(cloud).to(device), start, distance=2.0)


OPERATORS = {
    "morton_order": lambda cloud, device: ops.morton_order(cloud.to(device)),
    "fpfh": lambda cloud, device: ops.fpfh(cloud.to(device), ops.normals(cloud).to(device), radius=4.0),
    "fpfh rows": lambda cloud, device: ops.fpfh(
        cloud.to(device), ops.normals(cloud).to(device), radius=4.0, rows=torch.tensor([7, 3, 500]).to(device)
    ),
    "smooth": lambda cloud, device: ops.smooth(cloud[:, 0].to(device), cloud.to(device), k=8),
    "smooth_by_order": lambda cloud, device: ops.smooth_by_order(cloud[:, 0].to(device), 51),
    "diagonal": lambda cloud, device: torch.tensor(ops.diagonal(cloud.to(device))),
    "spacing": lambda cloud, device: torch.tensor(ops.spacing(cloud.to(device))),
    "transformed": lambda cloud, device: ops.transformed(cloud.to(device), torch.eye(4, dtype=torch.float64) * 2),
    "fit_rigid": lambda cloud, device: ops.fit_rigid(cloud.to(device), (cloud.double() @ rotation()).to(device)),
    "icp": moved,
    "bank_nearest": lambda cloud, device: ops.bank_nearest(
        noise(500, 300).to(device), noise(40, 300, seed=1).to(device), bf16=False
    )[0],
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPERATORS)
def test_equals_the_cpu(cuda, cloud, name):
    here, there = OPERATORS[name](cloud, "cpu"), OPERATORS[name](cloud, cuda)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_register(cuda):
    source, target = bumpy(4000, seed=1) @ rotation(3).float(), bumpy(4000)
    found = ops.register(source.to(cuda), target.to(cuda))
    assert found.fitness > 0.95
    assert found.fitness == pytest.approx(ops.register(source, target).fitness, abs=0.05)


@pytest.mark.parametrize("name", OPERATORS)
def test_runs_on_the_cpu(cloud, name):
    """So that a slip in this file shows where there is no CUDA device."""
    assert torch.isfinite(OPERATORS[name](cloud, "cpu").double()).all()
