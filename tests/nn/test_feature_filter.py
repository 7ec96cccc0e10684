import pytest
import torch

from toolkit.errors import CloudError
from toolkit.nn.feature_filter import fit_filter


def features():
    """Channels 0-2 independent; 3 constant; 4 = -2 x channel 0; 5 = channel 1 with half as much noise again; 6 new."""
    x = torch.randn(4000, 7, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 5.0
    x[:, 4] = -2 * x[:, 0]
    x[:, 5] = x[:, 1] + 0.5 * x[:, 5]
    return x * torch.tensor([1, 1, 1, 1, 1, 1, 100.0])


def test_drops_what_is_constant_or_parallel_and_keeps_the_rest():
    found = fit_filter(features(), (4, 3))
    assert found.kept.tolist() == [0, 1, 2, 5, 6]  # correlation of 1 and 5 is 0.89
    assert fit_filter(features(), (4, 3), parallel=0.85).kept.tolist() == [0, 1, 2, 6]
    assert fit_filter(features(), (4, 3), least=0.0, parallel=1.0).kept.tolist() == list(range(7))


def test_blocks_get_equal_weight_or_keep_their_units():
    x = features()
    filtered = fit_filter(x, (4, 3))(x)
    first, second = filtered[:, :3], filtered[:, 3:]
    assert first.var(0).sum() == pytest.approx(1, rel=0.01) and second.var(0).sum() == pytest.approx(1, rel=0.01)
    plain = fit_filter(x, (4, 3), equal=False)
    assert torch.equal(plain(x), x[:, plain.kept])


def test_distances_do_not_change_when_only_parallel_channels_go():
    """A channel that repeats another one only counts it twice."""
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(1))
    twice = torch.cat([x, x], 1)
    found = fit_filter(twice, (6,), equal=False)(twice)
    exact = "donot_use_mm_for_euclid_dist"
    once, both = (torch.cdist(a, a, compute_mode=exact) for a in (found, twice))
    assert torch.allclose(once * 2**0.5, both, atol=1e-4)


def test_all_features_alike_and_wrong_blocks():
    same = torch.ones(10, 4)
    found = fit_filter(same, (2, 2))
    assert found(same).isfinite().all() and found(same).shape == (10, 4)
    with pytest.raises(CloudError, match="blocks"):
        fit_filter(same, (3, 2))
