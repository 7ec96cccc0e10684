"""What PO3AD and MC4AD share: losses, variants of clouds, scores."""

import math

import pytest
import torch

from strategies.po3ad import PO3AD
from toolkit.cloud import CloudBatch, PointCloud
from toolkit.nn.offset_net import OffsetNet, balanced_loss, offset_loss, random_rotation
from toolkit.nn.sparse_unet import UNetSize

TINY = UNetSize(4, 3, (4, 8), (1, 1), (8, 4), (1, 1), 8)


def sphere(count=1500, seed=0, noise=0.003):
    g = torch.Generator().manual_seed(seed)
    pos = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    return PointCloud(pos + noise * torch.randn(count, 3, generator=g), category="ball", sample_id=f"ball{seed}")


def some_offsets(count=50):
    g = torch.Generator().manual_seed(4)
    target = torch.randn(count, 3, generator=g)
    target[: count // 2] = 0
    return torch.randn(count, 3, generator=g), target


def test_published_loss_equals_a_loop():
    predicted, target = some_offsets()
    distance = direction = 0.0
    for p, t in zip(predicted.tolist(), target.tolist()):
        distance += sum(abs(a - b) for a, b in zip(p, t))
        lengths = [math.sqrt(sum(a * a for a in v)) + 1e-8 for v in (p, t)]
        direction -= sum(a / lengths[0] * b / lengths[1] for a, b in zip(p, t))
    assert math.isclose(float(offset_loss(predicted, target)), (distance + direction) / len(target), rel_tol=1e-5)


def test_balanced_loss_equals_a_loop():
    predicted, target = some_offsets()
    moved, still, cosines = [], [], []
    for p, t in zip(predicted.tolist(), target.tolist()):
        distance = sum(abs(a - b) for a, b in zip(p, t)) / 0.05
        (moved if any(t) else still).append(distance)
        if any(t):
            cosines.append(sum(a * b for a, b in zip(p, t)) / math.dist(p, (0, 0, 0)) / math.dist(t, (0, 0, 0)))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    wanted = mean(moved) + mean(still) - mean(cosines)
    assert math.isclose(float(balanced_loss(predicted, target, 0.05)), wanted, rel_tol=1e-5)
    assert float(balanced_loss(predicted, torch.zeros_like(target), 0.05)) > 0  # nothing moved: no division by zero


def test_losses_are_smallest_at_the_target():
    predicted, target = some_offsets()
    for loss in (offset_loss, lambda p, t: balanced_loss(p, t, 0.05)):
        assert loss(target, target) < loss(1.1 * target, target) < loss(predicted, target)


def test_offset_is_what_brings_points_back():
    strategy = PO3AD(network="tiny", jitter=0, keep=1, shift=0, rotation=0, defects=2)
    strategy.meet([sphere()])
    prepared = strategy.prepared(sphere())
    pos, offset, phase = strategy.version(prepared)
    assert torch.allclose(pos - offset, prepared.pos, atol=1e-6)
    moved = offset.norm(dim=1) > 0
    assert 0 < int(moved.sum()) <= 2 * 1500 // 64 and float(offset.norm(dim=1).max()) <= 2 * 0.12 + 1e-6
    assert (phase == phase[0]).all() and float(phase.min()) >= 0 and float(phase.max()) <= strategy.voxel
    turned = PO3AD(network="tiny", jitter=0, keep=1, shift=0, rotation=180)
    turned.templates_ = strategy.templates_
    pos, offset, _ = turned.version(turned.prepared(sphere()))
    assert torch.allclose((pos - offset).norm(dim=1), prepared.pos.norm(dim=1), atol=1e-5)
    assert not torch.allclose(pos - offset, prepared.pos, atol=0.01)


def test_versions_are_clouds_of_their_own():
    strategy = PO3AD(network="tiny", versions=3)
    strategy.meet([sphere()])
    cloud = strategy.augment(strategy.prepared(sphere()))
    assert cloud.version.unique().tolist() == [0, 1, 2] and cloud.category == "ball"
    strategy.model.eval()
    with torch.no_grad():
        together = strategy.model(CloudBatch.collate([cloud, cloud])).features
        own = cloud.version == 1
        alone = strategy.model.predict(cloud.pos[own], torch.zeros(int(own.sum()), dtype=torch.long), cloud.phase[own],
                                       cloud.residual[own])  # fmt: skip
    assert torch.allclose(together[: len(cloud.pos)][own], alone, atol=1e-5)
    assert torch.allclose(together[len(cloud.pos) :][own], alone, atol=1e-5)


def test_residual_is_the_way_off_the_surface():
    strategy = PO3AD(network="tiny", registration=False)
    halves = [sphere(3000, seed).pos for seed in range(2)]  # with their mirror images their means are 0
    strategy.meet([PointCloud(torch.cat([half, -half]), category="ball", sample_id="ball") for half in halves])
    radius = float(strategy.surfaces_["ball"][:, :3].norm(dim=1).mean())
    pos = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    for height in (-0.05, 0.0, 0.08):
        residual = strategy.residual(pos * (radius + height), "ball")
        assert float((residual - height * pos).norm(dim=1).mean()) < 0.006
    assert (strategy.residual(pos, "cube") == 0).all()


@pytest.mark.parametrize("inputs,channels", [("xyz", 3), ("local", 6), ("reference", 9)])
def test_inputs(inputs, channels):
    net = OffsetNet(TINY, 0.1, inputs, vectors=2)
    assert net.unet.stem.weight.shape[1] == channels
    pos, cloud = sphere(300).pos, torch.zeros(300, dtype=torch.long)
    forces = net.predict(pos, cloud, 0.0, 0.1 * pos if inputs == "reference" else None)
    assert forces.shape == (300, 6)
    forces.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_dense_clouds_are_thinned_and_scored_in_full():
    strategy = PO3AD(network="tiny", points=500, passes=1)
    cloud = sphere(3000)
    prepared = strategy.prepared(cloud)
    assert 16 <= len(prepared.pos) < 3000 and prepared.raw.shape == prepared.pos.shape
    strategy.model.eval()
    with torch.no_grad():
        assert strategy.score(cloud).check(cloud).point.std() > 0


def test_mixed_precision_stays_close():
    pos, cloud = sphere(300).pos, torch.zeros(300, dtype=torch.long)
    net = OffsetNet(TINY, 0.1, "xyz").eval()
    with torch.no_grad():
        full = net.predict(pos, cloud, 0.0, None)
        with torch.autocast("cpu", torch.bfloat16):  # as --precision bf16 trains
            half = net.predict(pos, cloud, 0.0, None)
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    assert float((full - half).norm() / full.norm()) < 0.1


def test_rotations_are_proper_and_bounded():
    g = torch.Generator().manual_seed(0)
    for degrees in (0.0, 10.0, 180.0):
        turns = torch.stack([random_rotation(degrees, g) for _ in range(50)])
        assert torch.allclose(turns @ turns.transpose(1, 2), torch.eye(3).expand_as(turns), atol=1e-5)
        assert torch.allclose(torch.linalg.det(turns), torch.ones(50), atol=1e-5)
        angle = torch.rad2deg(((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos())
        assert float(angle.max()) <= degrees + 0.1
    assert float(turns.mean(0).abs().max()) < 0.35  # of uniform ones, the mean is zero


def test_learning_rate_falls_after_the_warm_up():
    strategy = PO3AD(network="tiny", epochs=10, warmup=0.3, lr=0.01)
    strategy.make_optimizer()
    rates = []
    for epoch in range(10):
        strategy.clock.train_exp_epochs = epoch
        strategy._set_rate()
        rates.append(strategy.optimizer.param_groups[0]["lr"])
    assert rates[:4] == [0.01] * 4 and rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] < 0.001


def test_what_is_said_of_normal_clouds_is_subtracted():
    strategy = PO3AD(network="tiny", registration=False, passes=1)
    strategy.meet([sphere()])
    strategy.model.eval()
    normal = strategy.prepared(sphere())
    with torch.no_grad():
        raw = strategy.forces(normal)
        strategy.baselines_ = strategy._new_baselines([sphere()])
        left = strategy.forces(normal)
        assert torch.equal(strategy.predicted(normal), raw)
    # One voxel of the baseline holds few points, so nearly all of an error that is in place goes.
    assert float(left.norm(dim=1).mean()) < 0.3 * float(raw.norm(dim=1).mean())
    normal.category = "cube"
    with torch.no_grad():
        # A class without a baseline keeps its own error.
        assert torch.equal(strategy.forces(normal), strategy.predicted(normal))
