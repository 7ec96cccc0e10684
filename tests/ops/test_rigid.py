import pytest
import torch

from tests.ops.clouds import bumpy, noise, rotation
from toolkit.errors import HyperparameterError
from toolkit.ops import fit_rigid, icp, normals, ransac, transformed
from toolkit.ops.rigid import assemble, rotation_about

pytestmark = pytest.mark.usefixtures("loops")


def motion(seed=0, shift=20.0):
    return assemble(rotation(seed), shift * noise(3, seed=seed + 50).double())


def angle(a, b):
    """Degrees between the rotations of two transforms."""
    trace = (a[:3, :3].t() @ b[:3, :3]).trace()
    return float(torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos()))


def test_transformed_keeps_dtype_and_undoes_itself(cloud):
    move = motion()
    there = transformed(cloud, move)
    assert there.dtype == torch.float32
    torch.testing.assert_close(transformed(there, torch.linalg.inv(move)), cloud, rtol=0, atol=1e-4)
    by_hand = torch.stack([move[:3, :3] @ p.double() + move[:3, 3] for p in cloud[:5]])
    torch.testing.assert_close(there[:5].double(), by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [[0.0, 0, 0], [0, 0, 1e-9], [0.3, -1.2, 2.0], [torch.pi, 0, 0]])
def test_rotation_about_is_the_matrix_exponential(axis):
    x, y, z = axis
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    made = rotation_about(torch.tensor(axis, dtype=torch.float64))
    torch.testing.assert_close(made, torch.linalg.matrix_exp(skew), rtol=0, atol=1e-14)


def test_fit_rigid_recovers_a_motion_and_never_reflects():
    pos, move = noise(40, 3).double(), motion(1)
    torch.testing.assert_close(fit_rigid(pos, transformed(pos, move)), move)
    mirrored = pos * torch.tensor([1, 1, -1.0])
    assert torch.det(fit_rigid(pos, mirrored)[:3, :3]) == pytest.approx(1)
    flat = pos * torch.tensor([1, 1, 0.0])
    torch.testing.assert_close(transformed(flat, fit_rigid(flat, transformed(flat, move))), transformed(flat, move))


def test_ransac_among_many_wrong_pairs():
    pos, move = 30 * noise(200, 3), motion(2)
    target = transformed(pos, move) + 0.05 * noise(200, 3, seed=3)
    target[:140] = target[torch.randperm(140, generator=torch.Generator().manual_seed(1))]  # 70 % wrong
    found = ransac(pos, target, distance=0.5, seed=0)
    assert angle(found[0], move) < 0.1
    assert (transformed(pos, found[0]) - transformed(pos, move)).norm(dim=1).max() < 0.1
    assert torch.equal(found[0], ransac(pos, target, distance=0.5, seed=0)[0])


def test_ransac_lists_the_poses_of_a_symmetric_part():
    """Pairs of which half say one thing and half another: both come out, once each."""
    pos = 30 * noise(100, 3)
    one, other = motion(4), motion(5)
    target = torch.cat([transformed(pos[:60], one), transformed(pos[60:], other)])
    found = ransac(pos, target, distance=0.3)
    assert angle(found[0], one) < 0.01 and angle(found[1], other) < 0.01
    for i, a in enumerate(found):
        for b in found[:i]:  # fits to all agreeing pairs may come closer than the triples did
            assert (transformed(pos, a) - transformed(pos, b)).norm(dim=1).mean() > 0.3


def test_ransac_without_an_answer():
    assert ransac(noise(2, 3), noise(2, 3), distance=0.1) == []
    line = torch.arange(30.0)[:, None] * torch.tensor([1.0, 2, 2])
    assert ransac(line, line, distance=0.1) == []
    assert ransac(torch.ones(30, 3), torch.ones(30, 3), distance=0.1) == []


def test_icp_recovers_a_small_motion():
    target = bumpy(4000).double()
    small = assemble(rotation_about(torch.tensor([0.1, -0.06, 0.08]).double()), torch.tensor([0.6, -0.4, 0.5]).double())
    source = transformed(target[::3], torch.linalg.inv(small))
    found = icp(source, target, normals(target), torch.eye(4), distance=2.0)
    assert (transformed(source, found) - target[::3]).norm(dim=1).max() < 0.02
    assert found.dtype == torch.float64


def test_icp_of_another_sampling_agrees_with_open3d():
    open3d = pytest.importorskip("open3d")
    target, source = bumpy(4000).double(), bumpy(2000, seed=1).double()
    start = assemble(
        rotation_about(torch.tensor([0.05, 0.03, -0.04]).double()), torch.tensor([0.3, 0.2, -0.2]).double()
    )
    normal = normals(target)
    mine = icp(source, target, normal, start, distance=1.5)
    clouds = [open3d.geometry.PointCloud(open3d.utility.Vector3dVector(p.numpy())) for p in (source, target)]
    clouds[1].normals = open3d.utility.Vector3dVector(normal.numpy())
    registration = open3d.pipelines.registration
    theirs = registration.registration_icp(
        *clouds, 1.5, start.numpy(), registration.TransformationEstimationPointToPlane()
    ).transformation
    theirs = torch.from_numpy(theirs.copy())
    assert (transformed(source, mine) - transformed(source, theirs)).norm(dim=1).max() < 0.02
    assert angle(mine, torch.eye(4).double()) < 0.2


def test_icp_does_not_drift_along_what_the_surface_does_not_resist():
    plane = torch.cat([10 * noise(2000, 2), torch.zeros(2000, 1)], 1)
    lifted = plane[::4] + torch.tensor([0.0, 0, 0.3])
    found = icp(lifted, plane, torch.tensor([[0.0, 0, 1]]).expand(2000, 3), torch.eye(4), distance=5.0)
    torch.testing.assert_close(found[:3, :3], torch.eye(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:3, 3], torch.tensor([0, 0, -0.3]).double(), rtol=0, atol=1e-6)


def test_icp_without_near_pairs_returns_the_start():
    pos, start = noise(50, 3), motion(7)
    assert torch.equal(icp(pos, pos + 1e4, pos, start, distance=1.0), start)
    with pytest.raises(HyperparameterError, match="distance"):
        icp(pos, pos, pos, start, distance=0)
