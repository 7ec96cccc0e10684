import pytest
import torch

from toolkit.errors import CheckpointError, HyperparameterError
from toolkit.nn.slice_trunk import EfficientNetTrunk, SmallTrunk, load_slice_trunk
from toolkit.nn.slices import VIEWS, slices


def naive(pos, pixels, axis):
    """Point by point, as the released code draws, but the nearest to the plane wins."""
    low, high = pos.amin(0), pos.amax(0)
    a, b = (i for i in range(3) if i != axis)
    middle = (low[axis] + high[axis]) / 2
    planes = {"top": high[axis], "bottom": low[axis], "middle-top": middle, "middle-bottom": middle}
    images = []
    for view in VIEWS:
        plane = planes[view]
        seen = [p for p in pos if view in ("top", "bottom") or (p[axis] >= middle) == (view == "middle-top")]
        farthest = max(abs(float(p[axis] - plane)) for p in seen)
        image = torch.zeros(pixels, pixels)
        for p in seen:
            i = int((p[a] - low[a]) / (high[a] - low[a]) * (pixels - 1))
            j = int((p[b] - low[b]) / (high[b] - low[b]) * (pixels - 1))
            image[i, j] = max(float(image[i, j]), 1 - abs(float(p[axis] - plane)) / farthest)
        images.append(image)
    return torch.stack(images)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_views_equal_the_loop(axis):
    pos = torch.randn(300, 3, generator=torch.Generator().manual_seed(axis), dtype=torch.float64)
    assert torch.allclose(slices(pos, 12, axis=axis).float(), naive(pos, 12, axis), atol=1e-6)


def test_the_cut_shows_what_is_hidden_inside():
    """A closed box with and without a plate in its middle: the same from outside, not from within."""
    generator = torch.Generator().manual_seed(0)
    walls = torch.rand(30_000, 3, generator=generator)
    walls[torch.arange(30_000), torch.arange(30_000) % 3] = (torch.rand(30_000, generator=generator) < 0.5).float()
    plate = torch.rand(8000, 3, generator=generator) * 0.6 + 0.2
    plate[:, 2] = 0.6
    whole, empty = slices(torch.cat([walls, plate]), 24), slices(walls, 24)
    inner = (slice(7, 17), slice(7, 17))
    difference = (whole - empty).abs()[(slice(None), *inner)].mean((1, 2))
    assert difference[0] < 0.01 and difference[1] < 0.01 and difference[3] < 0.01
    assert difference[2] > 0.3  # the upper half, seen from the cut


def test_flat_and_single_points():
    flat = torch.rand(50, 3)
    flat[:, 2] = 1.0
    assert slices(flat, 8).isfinite().all()
    assert slices(torch.ones(1, 3), 8).sum() == 4  # one bright pixel in each view
    with pytest.raises(HyperparameterError):
        slices(flat, 0)
    with pytest.raises(HyperparameterError):
        slices(flat, 8, axis=3)


def test_trunk_is_the_mean_over_views_of_the_largest_answer():
    trunk = load_slice_trunk("random", seed=1)
    views = torch.rand(2, 4, 64, 64)
    found = trunk(views)
    assert found.shape == (2, 96)
    one = torch.stack([trunk.maps(views[1, v][None, None])[0].flatten(1).amax(1) for v in range(4)]).mean(0)
    assert torch.allclose(found[1], one, atol=1e-5)
    assert torch.equal(load_slice_trunk("random", seed=1)(views), found)
    assert not torch.equal(load_slice_trunk("random", seed=2)(views), found)


def test_grid_of_mean_grey_values():
    views = torch.rand(2, 4, 64, 64)
    found = load_slice_trunk("grid")(views)
    assert found.shape == (2, 256)
    assert found[1, 2 * 64 + 3 * 8 + 5] == pytest.approx(float(views[1, 2, 24:32, 40:48].mean()), rel=1e-5)


def test_efficientnet_from_a_users_file(tmp_path):
    import toolkit.compat

    toolkit.compat.fix_torchvision()
    from torchvision.models import efficientnet_b0

    torch.manual_seed(0)
    whole = efficientnet_b0(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "efficientnet_b0.pth")
    trunk = load_slice_trunk(tmp_path / "efficientnet_b0.pth")
    views = torch.rand(1, 2, 64, 64)
    with torch.no_grad():
        grey = whole.features[:-1](255 * views[0][:, None].expand(-1, 3, -1, -1)).amax((2, 3)).mean(0)
        assert torch.allclose(trunk(views)[0], grey, rtol=1e-3, atol=0) and grey.shape == (320,)
        trunk.normalize = True
        assert not torch.allclose(trunk(views)[0], grey, rtol=1e-2, atol=0)
    broken = whole.state_dict()
    broken["features.0.0.weight"] = broken["features.0.0.weight"][:8]
    del broken["features.1.0.block.0.0.weight"]
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"missing features.1.0.block.0.0.weight.*shape"):
        load_slice_trunk(tmp_path / "broken.pth")
    assert isinstance(trunk, EfficientNetTrunk)


def test_small_trunk_file_is_checked(tmp_path):
    from toolkit.nn.ctf_net import save

    torch.manual_seed(0)
    trunk = SmallTrunk().eval()
    save(trunk, tmp_path / "trunk.safetensors")
    again = load_slice_trunk(tmp_path / "trunk.safetensors")
    views = torch.rand(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.allclose(again(views), trunk(views), atol=1e-2)  # half precision
    with pytest.raises(CheckpointError, match="no such file"):
        load_slice_trunk(tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError):
        load_slice_trunk(tmp_path / "text.pth")
