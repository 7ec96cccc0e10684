import numpy as np
import pytest
import torch

from tests.ops.clouds import bumpy, rotation, shuffled
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import fpfh, normals

open3d = pytest.importorskip("open3d")
pytestmark = pytest.mark.usefixtures("loops")


def plain(pos, normal, radius, k):
    """Open3D on all points in file order, as the published code calls it."""
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(pos.double().numpy()))
    cloud.normals = open3d.utility.Vector3dVector(normal.double().numpy())
    search = open3d.geometry.KDTreeSearchParamHybrid(radius=radius, max_nn=k)
    feature = open3d.pipelines.registration.compute_fpfh_feature(cloud, search).data
    return torch.from_numpy(np.asarray(feature).T.astype(np.float32))


@pytest.fixture(scope="module")
def described():
    pos = bumpy(1500, seed=2)
    normal = normals(pos, k=20)
    return pos, normal, plain(pos, normal, 3.0, 50)


def same(feature, expected, loops):
    """Open3D's bytes from Open3D; from compiled loops, sums in another order."""
    return torch.equal(feature, expected) if loops == "plain" else torch.allclose(feature, expected, rtol=0, atol=1e-4)


def test_equals_a_plain_call_on_all_points(described, loops):
    pos, normal, expected = described
    feature = fpfh(pos, normal, radius=3.0, k=50)
    assert feature.shape == (1500, 33) and feature.dtype == torch.float32
    assert same(feature, expected, loops)


def test_rows_come_in_the_order_asked_for(described, loops):
    pos, normal, expected = described
    rows = shuffled(1500)[:100]
    rows = torch.cat([rows, rows[:7]])  # unsorted and with repeats
    assert same(fpfh(pos, normal, radius=3.0, k=50, rows=rows), expected[rows], loops)
    assert same(fpfh(pos, normal, radius=3.0, k=50, rows=torch.tensor([1499])), expected[1499:], loops)


def test_own_histogram_sums_to_one_hundred(described):
    thirds = described[2].view(-1, 3, 11).sum(2)
    torch.testing.assert_close(thirds, torch.full_like(thirds, 200.0), rtol=0, atol=0.1)


def test_default_normals_make_it_turn_with_the_cloud(described):
    pos = described[0]
    feature = fpfh(pos, radius=3.0)
    assert torch.equal(feature, fpfh(pos, normals(pos), radius=3.0, k=100))
    turned = fpfh((pos.double() @ rotation(1).t() + 20).float(), radius=3.0)
    # Values next to the border of a bin may change bins.
    assert (feature - turned).abs().sum() < 0.02 * feature.abs().sum()


def test_follows_the_order_of_points(described):
    pos, normal, expected = described
    order = shuffled(1500, seed=1)
    torch.testing.assert_close(fpfh(pos[order], normal[order], radius=3.0, k=50), expected[order], rtol=0, atol=1e-3)


def test_degenerate_clouds():
    line = torch.arange(20.0)[:, None] * torch.tensor([1.0, 0, 0])
    assert fpfh(line, radius=3.0).isfinite().all()
    assert fpfh(torch.ones(20, 3), radius=1.0).isfinite().all()
    lonely = torch.eye(3) * 100
    assert torch.equal(fpfh(lonely, radius=1.0), torch.zeros(3, 33))


def test_bad_input(described):
    pos, normal, _ = described
    with pytest.raises(HyperparameterError, match="radius"):
        fpfh(pos, normal, radius=0)
    with pytest.raises(HyperparameterError, match="k >= 2"):
        fpfh(pos, normal, radius=1.0, k=1)
    with pytest.raises(HyperparameterError, match=r"0\.\.1499"):
        fpfh(pos, normal, radius=1.0, rows=torch.tensor([1500]))
    with pytest.raises(HyperparameterError, match="non-empty"):
        fpfh(pos, normal, radius=1.0, rows=torch.tensor([], dtype=torch.long))
    with pytest.raises(CloudError, match="normals of shape"):
        fpfh(pos, normal[:5], radius=1.0)
    with pytest.raises(CloudError, match="at least 3"):
        fpfh(pos[:2], radius=1.0)
