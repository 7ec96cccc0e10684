import sys

import numpy as np
import pytest
import torch

from tests.ops.clouds import bumpy, noise, rotation, shuffled
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import curvature, knn, normals

pytestmark = pytest.mark.usefixtures("loops")


def naive(pos, k, radius=None):
    """Smallest eigenvector and surface variation, point by point, by the iterative solver."""
    index, distance = knn(pos, pos, k)
    axes, variation = [], []
    for i in range(len(pos)):
        keep = torch.ones(k, dtype=torch.bool) if radius is None else distance[i] <= radius
        keep[:3] = True
        near = pos[index[i][keep]].double()
        value, vector = torch.linalg.eigh(torch.cov(near.t(), correction=0))
        axes.append(vector[:, 0])
        variation.append(value[0] / value.sum())
    return torch.stack(axes), torch.stack(variation)


@pytest.mark.parametrize("radius", [None, 2.0])
def test_equals_the_iterative_solver(cloud, radius):
    axes, variation = naive(cloud, 12, radius)
    normal = normals(cloud, k=12, radius=radius, orient="none").double()
    assert ((normal * axes).sum(1).abs() > 0.9999).all()
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(len(cloud)).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(curvature(cloud, k=12, radius=radius).double(), variation, rtol=1e-3, atol=1e-5)


def test_sphere():
    pos = 7 * torch.nn.functional.normalize(noise(4000, 3), dim=1)
    normal = normals(pos, k=12)
    assert (normal * pos / 7).sum(1).min() > 0.98  # outward, along the radius
    assert normal.dtype == torch.float32


def test_agrees_with_open3d(cloud):
    open3d = pytest.importorskip("open3d")
    other = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.double().numpy()))
    other.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(20))
    other = torch.from_numpy(np.asarray(other.normals))
    assert ((normals(cloud, k=20).double() * other).sum(1).abs() > 0.9999).all()


@pytest.mark.parametrize("orient", ["outward", "consistent"])
def test_turns_with_the_cloud_and_follows_its_order(cloud, orient):
    normal = normals(cloud, k=15, orient=orient).double()
    turn = rotation(3)
    turned = normals((cloud.double() @ turn.t()).float(), k=15, orient=orient).double()
    torch.testing.assert_close(turned, normal @ turn.t(), rtol=0, atol=1e-3)
    order = shuffled(len(cloud))
    torch.testing.assert_close(normals(cloud[order], k=15, orient=orient).double(), normal[order], rtol=0, atol=1e-4)


def test_far_from_the_origin():
    pos = (bumpy(500) * 256).round() / 256  # exact in float32 also after the shift
    torch.testing.assert_close(normals(pos + 4096, k=15), normals(pos, k=15), rtol=0, atol=1e-5)


def test_consistent_orientation_of_a_part_that_is_not_star_shaped():
    """On a torus half of the inner side looks towards the centroid: outward is wrong there, consistent is not."""
    u, v = (noise(2, 3000).double() * 7).remainder(2 * torch.pi)
    ring = torch.stack([u.cos(), u.sin(), torch.zeros_like(u)], 1)
    up = torch.tensor([0.0, 0, 1]).double()
    truth = v.cos()[:, None] * ring + v.sin()[:, None] * up
    pos = 10 * ring + 3 * truth
    right = (normals(pos, k=15, orient="consistent") * truth).sum(1) > 0.8
    assert right.double().mean() > 0.99
    assert ((normals(pos, k=15, orient="outward") * truth).sum(1) > 0.8).double().mean() < 0.8


def test_chunks_change_nothing(cloud, monkeypatch):
    whole = normals(cloud), curvature(cloud)
    monkeypatch.setattr(sys.modules["toolkit.ops.normals"], "_ROWS", 100)
    assert torch.equal(normals(cloud), whole[0]) and torch.equal(curvature(cloud), whole[1])


def test_plane_line_place_and_few_points():
    plane = torch.cat([noise(200, 2), torch.zeros(200, 1)], 1)
    normal = normals(plane, k=10, orient="none")
    assert (normal[:, 2].abs() > 1 - 1e-6).all()
    assert curvature(plane, k=10).max() < 1e-9
    line = torch.arange(50.0)[:, None] * torch.tensor([1.0, 2, 2]) / 3
    normal = normals(line, k=10)
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(50))
    assert (normal @ torch.tensor([1.0, 2, 2])).abs().max() < 1e-5
    assert curvature(line, k=10).max() < 1e-6
    same = torch.full((20, 3), 4.0)
    torch.testing.assert_close(normals(same).norm(dim=1), torch.ones(20))
    assert torch.equal(curvature(same), torch.zeros(20))
    triangle = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert (normals(triangle)[:, 2].abs() > 1 - 1e-6).all()


def test_curvature_bounds_and_order():
    ball = noise(3000, 3)
    assert curvature(ball, k=500).mean() > 0.15
    assert (curvature(bumpy(3000), k=20) <= 1 / 3).all()
    u = torch.linspace(0, 6.28, 400)
    sharp = torch.stack([u.cos(), u.sin(), 0.05 * noise(400)], 1)
    assert curvature(sharp, k=20).mean() < curvature(sharp * torch.tensor([1, 1, 20.0]), k=20).mean()


def test_bad_input(cloud):
    with pytest.raises(CloudError, match="at least 3 points"):
        normals(torch.zeros(2, 3))
    with pytest.raises(HyperparameterError, match="k >= 3"):
        normals(cloud, k=2)
    with pytest.raises(HyperparameterError, match="radius"):
        normals(cloud, radius=0)
    with pytest.raises(HyperparameterError, match="'inward'"):
        normals(cloud, orient="inward")
    with pytest.raises(CloudError, match="NaN"):
        curvature(torch.full((5, 3), torch.nan))


@pytest.mark.gpu
def test_on_cuda(cuda, cloud):
    torch.testing.assert_close(normals(cloud.to(cuda)).cpu(), normals(cloud), rtol=0, atol=1e-4)
    torch.testing.assert_close(curvature(cloud.to(cuda)).cpu(), curvature(cloud), rtol=0, atol=1e-5)
