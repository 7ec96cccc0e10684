import pytest
import torch

from tests.ops.clouds import noise, shuffled
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import smooth, smooth_by_order


def test_smooth_equals_the_naive_mean(cloud):
    value = noise(600)
    nearest = torch.cdist(cloud.double(), cloud.double()).argsort(1)[:, :9]
    torch.testing.assert_close(smooth(value, cloud, k=9), value[nearest].mean(1))


def test_smooth_follows_the_order_and_needs_none(cloud):
    value, order = noise(600), shuffled(600)
    torch.testing.assert_close(smooth(value[order], cloud[order], k=6), smooth(value, cloud, k=6)[order])


def test_smooth_extremes(cloud):
    value = noise(600)
    assert torch.equal(smooth(value, cloud, k=1), value)
    torch.testing.assert_close(smooth(value, cloud, k=10_000), value.mean().expand(600))
    assert smooth(torch.ones(1), torch.ones(1, 3), k=5).tolist() == [1]
    assert smooth(torch.ones(0), torch.ones(0, 3), k=5).shape == (0,)


@pytest.mark.parametrize("size", [1, 10, 511, 2000])
@pytest.mark.parametrize("window", [1, 5, 511])
def test_by_order_equals_average_pooling_with_zeros(size, window):
    value = noise(size)
    pooled = torch.nn.functional.avg_pool1d(value.double()[None, None], window, stride=1, padding=window // 2)
    out = smooth_by_order(value, window)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), pooled[0, 0], rtol=1e-6, atol=1e-6)


def test_by_order_attenuates_the_ends():
    out = smooth_by_order(torch.ones(1000))
    assert out[500] == 1 and out[0] == pytest.approx(256 / 511) and out[-1] == pytest.approx(256 / 511)


def test_by_order_keeps_digits_over_long_files():
    value = torch.cat([torch.full((300_000,), 1e4), torch.full((1000,), 1e-3)])
    assert smooth_by_order(value)[-400] == pytest.approx(1e-3, rel=1e-4)


def test_by_order_of_a_cloud_that_was_sorted_since():
    value, order = noise(700), shuffled(700)
    out = smooth_by_order(value[order], 51, file_order=order.int())
    assert torch.equal(out, smooth_by_order(value, 51)[order])


def test_bad_input(cloud):
    with pytest.raises(CloudError, match="600 points but values"):
        smooth(noise(599), cloud, k=3)
    with pytest.raises(HyperparameterError):
        smooth(noise(600), cloud, k=0)
    for window in (0, 10, -1):
        with pytest.raises(HyperparameterError, match="odd"):
            smooth_by_order(noise(600), window)
    with pytest.raises(CloudError, match="shape"):
        smooth_by_order(noise(6, 2))
