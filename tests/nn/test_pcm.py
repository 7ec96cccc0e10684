import numpy as np
import pytest
import torch

from toolkit.errors import CloudError, HyperparameterError
from toolkit.nn.pcm import pcm
from toolkit.nn.pcm_match import Template, frames, match
from toolkit.nn.shapes import random_rotation
from toolkit.ops.rigid import transformed


def body(points=2000, seed=0, noise=0.0):
    """A scan of an egg-like body without symmetry, two of whose axes are of clearly different length."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator, dtype=torch.float64), dim=1)
    x, y, z = unit.unbind(1)
    pos = unit * torch.tensor([1.0, 0.7, 0.4]) * (1 + 0.25 * x + 0.15 * y * x + 0.1 * z * y)[:, None]
    return pos + noise * torch.randn(pos.shape, generator=generator)


def turned(pos, seed):
    rng = np.random.default_rng(seed)
    return pos @ torch.from_numpy(random_rotation(rng)).to(pos) + torch.from_numpy(10 * rng.normal(size=3)).to(pos)


def literal(pos, tol):
    """Algorithm 1 step by step: scan, orthogonalise, test."""
    q = pos - pos.mean(0)
    order = sorted(range(len(q)), key=lambda i: -float(q[i].norm()))
    largest = float(q[order[0]].norm())
    axes = [q[order[0]] / q[order[0]].norm()]

    def rest(i):
        left = q[i].clone()
        for axis in axes:
            left = left - (q[i] @ axis) * axis
        return left

    for candidates in (order, order[::-1]):
        i = next(i for i in candidates if float(rest(i).norm()) >= tol * largest)
        axes.append(rest(i) / rest(i).norm())
    return q @ torch.stack(axes).t()


@pytest.mark.parametrize("tol", [1e-6, 0.1, 0.3])
def test_coordinates_are_those_of_the_algorithm(tol):
    pos = body(200)
    frame = pcm(pos, tol=tol)
    assert torch.allclose(frame.map(pos), literal(pos, tol), atol=1e-10)
    assert torch.allclose(frame.axes @ frame.axes.t(), torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(frame.back(frame.map(pos)), pos, atol=1e-12)


def test_closed_form_of_both_bases():
    pos = torch.tensor([[4.0, 0, 0], [-3, 1, 0], [-1, -2, 0], [0, 0.5, 2], [0, 0.5, -2]], dtype=torch.float64)
    pos = pos - pos.mean(0)
    frame = pcm(pos, tol=0.1)
    assert torch.allclose(frame.axes[0], pos[0] / pos[0].norm())
    # (-3, 1, 0) is the next farthest, so e2 lies in the plane z = 0; e3 is z, up or down
    assert abs(float(frame.axes[1][2])) < 1e-12 and abs(abs(float(frame.axes[2][2])) - 1) < 1e-12
    pos[3, 2] += 0.1
    pos = pos - pos.mean(0)
    near = pcm(pos, tol=0.1, basis="far-near-near")
    nearest = pos[1:][pos[1:].norm(dim=1).argmin()]
    assert abs(float(nearest @ near.axes[2])) < 1e-12  # u2 is the nearest, so nothing of it is left on e3
    assert float(nearest @ near.axes[1]) > 0


@pytest.mark.parametrize("tol", [1e-6, 0.1])
def test_invariance_at_machine_precision(tol):
    pos = body()
    own = pcm(pos, tol=tol).map(pos)
    for seed in range(10):
        moved = turned(pos, seed)
        assert float((pcm(moved, tol=tol).map(moved) - own).abs().max()) < 1e-11 / (tol**0.5)


def test_tolerance_makes_the_frame_bear_noise():
    """With the literal rank test a neighbour of the farthest point sets the second axis. (Signs are another matter.)"""
    angles = {}
    for tol in (1e-6, 0.3):
        reference = pcm(body(), tol=tol).axes
        between = []
        for seed in range(12):
            again = pcm(body(noise=0.002, seed=seed + 1), tol=tol).axes
            between.append(torch.rad2deg(torch.arccos((again[1] @ reference[1]).abs().clamp(max=1))))
        angles[tol] = float(torch.stack(between).median())
    assert angles[0.3] < 15 < 30 < angles[1e-6], angles


def test_degenerate_clouds():
    line = torch.linspace(-1, 2, 20, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, 3.0]).double()
    plane = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plane[:, 2] = 0
    for pos in (line, plane):
        axes = pcm(pos).axes
        assert torch.allclose(axes @ axes.t(), torch.eye(3).double(), atol=1e-9)
    with pytest.raises(CloudError, match="coincide"):
        pcm(torch.ones(5, 3))
    with pytest.raises(CloudError, match="shape"):
        pcm(torch.zeros(0, 3))
    with pytest.raises(HyperparameterError, match="tol"):
        pcm(body(), tol=0)
    with pytest.raises(HyperparameterError, match="basis"):
        pcm(body(), basis="near")


def test_matching_finds_the_pose_among_signs_and_stays_invariant():
    template = pcm(body(1500, 1)).map(body(1500, 1)).float()
    ready = Template(template)
    found = []
    for seed in (5, 6):
        cloud = turned(body(1500, 2), seed)
        points = pcm(cloud).map(cloud).float()
        axes = frames(points, 4, noise=0.005, generator=torch.Generator().manual_seed(0))
        pose = match(points, ready, axes)
        assert torch.allclose(pose[:3, :3] @ pose[:3, :3].t(), torch.eye(3).double(), atol=1e-9)
        assert ready.misfit(points, pose) < 0.05**2
        found.append(transformed(points, pose))
    assert torch.allclose(found[0], found[1], atol=1e-3)  # the same scan in two poses ends in one place
    flipped = template * torch.tensor([1.0, -1.0, -1.0])
    pose = match(flipped, ready, [torch.eye(3).double()])
    assert torch.allclose(transformed(flipped, pose), template, atol=1e-3)


def test_frames_of_other_scans_differ_and_start_with_the_own():
    points = pcm(body()).map(body()).float()
    axes = frames(points, 5, noise=0.01, tol=1e-6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(axes[0], torch.eye(3).double()) and len(axes) == 5
    assert all(torch.allclose(a @ a.t(), torch.eye(3).double(), atol=1e-9) for a in axes)
    assert not torch.allclose(axes[1], axes[2], atol=1e-3)
