import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ops.clouds import bumpy, noise, rotation
from tests.ops.test_rigid import angle, motion
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import Template, diagonal, knn, register, transformed

SCANS = Path(__file__).parents[2].parent / "shared" / "data" / "scans"

pytestmark = pytest.mark.usefixtures("loops")


def part(count, seed=0):
    """A bumpy body with a knob: no pose but one fits."""
    generator = torch.Generator().manual_seed(seed)
    body = bumpy(count, seed=seed, noise=0.02)
    knob = torch.nn.functional.normalize(torch.randn(count // 6, 3, generator=generator), dim=1)
    return torch.cat([body, 2.5 * knob + torch.tensor([9.0, 8.0, 3.0])])


def residual(pos, target):
    """Mean distance both ways, relative to the diagonal of ``target``."""
    return float(knn(target, pos, 1)[1].mean() + knn(pos, target, 1)[1].mean()) / 2 / diagonal(target)


@pytest.fixture
def template(loops):
    return Template(part(6000))


@pytest.mark.parametrize("method", ["ransac", "fgr"])
@pytest.mark.parametrize("seed", [0, 1])
def test_recovers_any_pose_of_another_sampling(template, method, seed):
    source, move = part(5000, seed=9), motion(seed)
    found = register(transformed(source, torch.linalg.inv(move)), template, method=method)
    assert angle(found.transform, move) < 1.0
    moved = found.apply(transformed(source, torch.linalg.inv(move)))
    assert moved.dtype == torch.float32
    assert (moved - source).norm(dim=1).max() < 0.01 * diagonal(source)
    assert found.fitness > 0.99 and found.rmse < 0.015 * diagonal(source)


def test_without_icp_it_is_coarser_but_right(template):
    source, move = part(5000, seed=9), motion(3)
    turned = transformed(source, torch.linalg.inv(move))
    coarse, fine = register(turned, template, icp=False), register(turned, template)
    assert angle(coarse.transform, move) < 10
    assert residual(fine.apply(turned), part(6000)) <= residual(coarse.apply(turned), part(6000))


def test_half_a_part_is_enough(template):
    source = part(8000, seed=4)
    source = source[source[:, 0] > 0]
    move = motion(2)
    found = register(transformed(source, torch.linalg.inv(move)), template)
    assert angle(found.transform, move) < 2.0


def test_same_seed_same_bytes_and_a_template_is_only_a_cache(template):
    source = transformed(part(3000, seed=2), motion(5))
    first = register(source, template, seed=3)
    assert torch.equal(first.transform, register(source, part(6000), seed=3).transform)
    assert torch.equal(first.transform, register(source, pickle.loads(pickle.dumps(template)), seed=3).transform)
    rotation = first.transform[:3, :3]
    torch.testing.assert_close(rotation @ rotation.t(), torch.eye(3).double())
    assert torch.det(rotation) == pytest.approx(1)


def test_a_cloud_in_place_stays_in_place(template):
    found = register(part(6000), template)
    assert angle(found.transform, torch.eye(4).double()) < 0.1
    assert found.rmse < 0.005 * diagonal(part(6000))


def test_independent_of_the_unit():
    source, target = transformed(part(2000, seed=1), motion(1)), part(2500)
    one, thousand = register(source, target), register(1000 * source, 1000 * target)
    assert thousand.fitness == pytest.approx(one.fitness, abs=0.01)
    assert angle(one.transform, thousand.transform) < 1.0


@pytest.mark.parametrize("kind", ["another shape", "plane", "line", "four points"])
def test_never_fits_worse_than_leaving_the_cloud_where_it_is(template, kind):
    target = part(6000)
    source = {
        "another shape": 10 * noise(1000, 3),
        "plane": torch.cat([8 * noise(800, 2), torch.zeros(800, 1)], 1),
        "line": torch.linspace(-10, 10, 300)[:, None] * torch.tensor([1.0, 0.5, 0]),
        "four points": target[:4],
    }[kind]
    found = register(source, template)

    def misfit(pos):
        return float(knn(template.fine, pos, 1)[1].clamp_max(template.voxel).square().mean())

    assert found.transform.isfinite().all()
    # Measured on thinned points inside, on all points here.
    assert misfit(found.apply(source)) <= misfit(source) * 1.1 + 1e-6


def test_degenerate_templates():
    line = torch.linspace(0, 1, 500)[:, None] * torch.tensor([1.0, 2, 2])
    assert register(line + 0.01, line).fitness == 1
    with pytest.raises(HyperparameterError, match="voxel"):
        Template(torch.ones(50, 3))
    with pytest.raises(CloudError, match="leaves 1 of 600 points"):
        Template(bumpy(600), voxel=1000.0)
    with pytest.raises(CloudError, match="at least 3"):
        Template(torch.zeros(2, 3))


def test_bad_input(template):
    with pytest.raises(HyperparameterError, match="'ransac' or 'fgr'"):
        register(bumpy(100), template, method="teaser")
    with pytest.raises(HyperparameterError, match="leave voxel out"):
        register(bumpy(100), template, voxel=1.0)
    with pytest.raises(CloudError, match="at least 3"):
        register(torch.zeros(2, 3), template)
    with pytest.raises(CloudError, match="NaN"):
        register(torch.full((9, 3), torch.nan), template)


@pytest.mark.skipif(not SCANS.is_dir(), reason="the scans are not beside the repository")
@pytest.mark.parametrize("category", ["mug0", "clamp0", "screwdriver0", "hammer0"])
def test_scans_come_to_lie_as_close_as_two_samplings_do(category):
    open3d = pytest.importorskip("open3d")

    def read(name):
        points = np.asarray(open3d.io.read_point_cloud(str(SCANS / category / name)).points)
        return torch.from_numpy(points.astype(np.float32))

    target = read(f"train/{category}_template0.pcd")
    prepared = Template(target)
    for i, name in enumerate((f"train/{category}_template1.pcd", f"test/{category}_positive1.pcd")):
        source = (read(name).double() @ rotation(i).t()).float()
        found = register(source, prepared)
        assert residual(found.apply(source), target) < 0.0075
        assert found.fitness > 0.99
