"""Compiled loops against plain searches, and against the operators without them."""

import numpy as np
import pytest
import torch

from tests.ops.clouds import bumpy, noise
from tests.ops.test_register import part
from tests.ops.test_rigid import motion
from toolkit.ops import Template, compiled, fpfh, icp, knn, normals, ransac, register, transformed
from toolkit.ops.rigid import assemble, rotation_about

pytest.importorskip("numba")

from toolkit.ops.compiled.cells import cells_for, near, room
from toolkit.ops.compiled.neighbourhoods import covariances, histograms
from toolkit.ops.compiled.surface import surface_for


@pytest.fixture(autouse=True)
def on(monkeypatch):
    monkeypatch.setattr(compiled, "enabled", True)


@pytest.fixture
def both(monkeypatch):
    """A function's result without and with compiled loops."""

    def call(function):
        results = []
        for state in (False, True):
            monkeypatch.setattr(compiled, "enabled", state)
            results.append(function())
        return results

    return call


def lattice():
    axis = torch.arange(8.0)
    return torch.cartesian_prod(axis, axis, axis)


def uneven():
    """Ten times as dense on one side as on the other."""
    return torch.cat([bumpy(1500), 0.3 * bumpy(1500, seed=3) + 30])


@pytest.mark.parametrize("radius", [0.5, 3.0, np.inf])
@pytest.mark.parametrize("k", [1, 12, 700])
@pytest.mark.parametrize("kind", [lattice, uneven, lambda: bumpy(600), lambda: noise(300, 3)])
def test_the_nearest_within_a_radius(kind, k, radius):
    pos = kind().double().numpy()
    cells = cells_for(pos, k, radius)
    work = room()
    apart = ((pos[:, None] - pos[None]) ** 2).sum(2)
    for row in range(0, len(pos), 7):
        count, work = near(*cells.pos[:, row], k, radius**2, *cells.arguments, work)
        found, away = work[1][1][:count], work[0][3][:count]
        expected = np.sort(apart[cells.order[row]])
        expected = expected[expected < radius**2][:k]
        assert len(set(found.tolist())) == count == len(expected)
        np.testing.assert_allclose(np.sort(away), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(apart[cells.order[row], cells.order[found]], away, rtol=1e-9, atol=1e-12)


def test_points_that_do_not_fit_into_cells_are_left_to_the_trees(both):
    astray = torch.cat([bumpy(4000), torch.full((1, 3), 1e6)])
    assert cells_for(astray.numpy(), 20, np.inf) is None
    assert covariances(astray.numpy(), 20, np.inf) is None
    assert histograms(astray.numpy(), np.ones((4001, 3)), 20, 1.0, None) is None
    assert cells_for(np.ones((50, 3)), 20, np.inf) is None
    plain, fast = both(lambda: normals(astray, k=20))
    assert torch.equal(plain, fast)
    assert surface_for(astray.numpy(), np.ones((4001, 3)), 0.1, 1.0) is None


def test_neighbourhoods_far_from_the_origin_and_with_repeats(both):
    pos = torch.cat([bumpy(800), bumpy(800)[:100]]) + 1000
    plain, fast = both(lambda: normals(pos, k=15))
    assert ((plain * fast).sum(1) > 0.999).float().mean() > 0.99  # of repeats at the rim, either may be in
    plain, fast = both(lambda: fpfh(pos, plain, radius=3.0, k=40))
    assert (plain - fast).abs().amax(1).median() < 1e-3


@pytest.mark.parametrize("rows", [None, torch.arange(0, 20000, 3)])
def test_threads_change_nothing(rows):
    pos = bumpy(20000)
    normal = normals(pos)
    threads, results = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append((normals(pos), fpfh(pos, normal, radius=1.0, k=20, rows=rows)))
    torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_nearest_on_a_surface():
    target, query = bumpy(3000), torch.cat([bumpy(500, seed=1), bumpy(300, seed=2) * 1.3, noise(200, 3) * 30])
    surface = surface_for(target.numpy(), normals(target).numpy(), 0.7, 4.0)
    expected = knn(target, query, 1)[1][:, 0].double()
    pose = np.eye(4)
    for reach in (0.05, 1.0, 4.0):
        away = torch.from_numpy(surface.distances(query.numpy(), pose, reach))
        inside = expected <= reach
        assert 20 < int(inside.sum()) < 980 or reach == 0.05
        torch.testing.assert_close(away[inside], expected[inside], rtol=1e-4, atol=1e-5)
        assert away[~inside].isinf().all()
        misfit = surface.misfits(query.numpy(), pose[None], reach, 1)[0]
        assert misfit == pytest.approx(float(expected.clamp_max(reach).square().mean()), rel=1e-4)


def test_only_the_best_misfits_are_computed_to_the_end():
    target = bumpy(2000)
    surface = surface_for(target.numpy(), normals(target).numpy(), 0.7, 4.0)
    poses = np.stack([np.eye(4)] * 6)
    poses[:, 0, 3] = [0.5, 0.1, 0.8, 0.2, 0.0, 0.6]
    whole = surface.misfits(target.numpy(), poses, 4.0, 6)
    best = surface.misfits(target.numpy(), poses, 4.0, 2)
    assert np.isfinite(whole).all() and (np.argsort(whole)[:2] == [4, 1]).all()
    assert (np.argsort(best)[:2] == [4, 1]).all() and np.isinf(best[[2, 5]]).all()
    np.testing.assert_allclose(best[np.isfinite(best)], whole[np.isfinite(best)])


@pytest.mark.parametrize("kind", ["bumpy", "plane", "too far"])
def test_refines_as_the_plain_operator(kind):
    target, normal = bumpy(3000), normals(bumpy(3000))
    if kind == "plane":  # sliding along it is left out of the solution
        target = torch.cat([10 * noise(2000, 2), torch.zeros(2000, 1)], 1)
        normal = torch.tensor([0.0, 0, 1]).expand(2000, 3)
    surface = surface_for(target.numpy(), normal.numpy(), 0.7, 4.0)
    shift = torch.tensor([0.1, 0.05, -0.1 if kind != "too far" else 100.0]).double()
    start = assemble(rotation_about(torch.tensor([0.03, -0.02, 0.04]).double()), shift)
    source = target[::4].contiguous()
    expected = icp(source, target, normal, start, distance=3.0, iterations=8)
    found = surface.refined(source.numpy(), start[None].numpy(), 3.0, 8, 1e-5)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert kind != "too far" or np.array_equal(found, start.numpy())


def test_registration_is_the_same(both):
    template = Template(part(6000))
    for seed in range(3):
        source = transformed(part(3000, seed=seed + 5), motion(seed))
        plain, fast = both(lambda s=source: register(s, template))
        torch.testing.assert_close(plain.transform, fast.transform, rtol=0, atol=1e-4)
        assert fast.fitness == pytest.approx(plain.fitness, abs=1e-3)
        assert fast.rmse == pytest.approx(plain.rmse, rel=1e-3)


def test_ransac_is_the_same(both):
    source = bumpy(400).double()
    target = transformed(source, motion(1)) + 0.02 * noise(400, 3, seed=5)
    target[150:] = target[150:][torch.randperm(250, generator=torch.Generator().manual_seed(0))]
    plain, fast = both(lambda: ransac(source, target, distance=0.5))
    assert len(plain) == len(fast) > 0
    for one, other in zip(plain, fast):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
