import torch

from tests.ops.clouds import bumpy, noise
from toolkit.nn.placed import less_means, place_means, plane_gap, thinned


def test_thinning_keeps_both_frames_together():
    pos = bumpy(2000) / 15
    raw = 30 * pos + 7
    thin, same = thinned(pos, raw, 500, 0.1)
    assert 100 < len(thin) < 2000 and torch.allclose(same, 30 * thin + 7, atol=1e-3)
    untouched = thinned(pos, raw, 2000, 0.1)
    assert untouched[0] is pos and untouched[1] is raw


def test_means_are_those_of_the_grid_cells():
    place = torch.tensor([[0.01, 0, 0], [0.03, 0, 0], [5.01, 0, 0]]), torch.tensor([[0.02, 0, 0]])
    value = torch.tensor([[1.0, 0], [2, 0], [7, 1]]), torch.tensor([[6.0, 3]])
    means = place_means(place, value, 1.0)
    means = means[means[:, 0].argsort()]
    assert torch.allclose(means, torch.tensor([[0.02, 0, 0, 3, 1], [5.01, 0, 0, 7, 1]]))


def test_what_all_clouds_share_goes_and_what_one_has_stays():
    place = [bumpy(800, seed=s) / 15 for s in range(3)]
    shared = lambda p: torch.stack([p[:, 0], 1 - p[:, 1]], 1)  # noqa: E731
    means = place_means(place, [shared(p) for p in place], 0.05)
    left = less_means(shared(place[0]), place[0], means)
    assert left.abs().mean() < 0.05 < 0.3 < shared(place[0]).abs().mean()
    odd = shared(place[0]) + noise(800, 2)
    assert torch.allclose(less_means(odd, place[0], means) - left, noise(800, 2), atol=1e-5)
    assert less_means(odd, place[0], None) is odd


def test_way_from_a_sphere_is_the_height_over_it():
    ball = torch.nn.functional.normalize(noise(6000, 3), dim=1)
    pos = torch.nn.functional.normalize(noise(200, 3, seed=1), dim=1)
    for height in (-0.05, 0.0, 0.08):
        assert float((plane_gap(ball, ball, pos * (1 + height)) - height * pos).norm(dim=1).mean()) < 0.006
