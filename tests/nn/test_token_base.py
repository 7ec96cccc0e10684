import pytest
import torch

from strategies.devnet import DevNet
from tests.strategies.shapes import body
from toolkit.nn.token_base import KNOWN, NORMAL, PSEUDO, deviation_loss, mean_by_owner, top_mean, top_means


def test_deviation_loss_against_a_loop():
    score, anomalous = torch.tensor([0.3, -1.2, 4.0, 7.0]), torch.tensor([False, False, True, True])
    drawn = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for value, wrong in zip(score.tolist(), anomalous.tolist()):
        deviation = (value - drawn.mean().item()) / drawn.std().item()
        total += max(0.0, 5 - deviation) if wrong else abs(deviation)
    assert deviation_loss(score, anomalous).item() == pytest.approx(total / 4, rel=1e-5)


def test_means_of_the_highest():
    value = torch.tensor([[5.0, 1.0], [4.0, 9.0], [0.0, 2.0], [1.0, 0.0]])
    assert torch.equal(top_mean(value, 0.5), torch.tensor([4.5, 5.5]))
    assert torch.equal(top_means(value, torch.tensor([0, 1, 4]), 0.1), torch.tensor([[5.0, 1.0], [4.0, 9.0]]))


def test_mean_by_owner_leaves_zero_where_nothing_is_owned():
    found = mean_by_owner(torch.tensor([True, False, True]), torch.tensor([0, 0, 2]), 4)
    assert found.tolist() == [0.5, 0.0, 1.0, 0.0]


def test_a_training_cloud_comes_as_itself_as_a_pseudo_anomaly_or_as_a_known_defect():
    strategy = DevNet(groups=100, group_size=16, layers=(0,), pseudo=2, pseudo_rate=0.5)
    normal, (bent, where) = body(0)[0], body(1, bump=0.2)
    bent.y, bent.point_y = 1, where
    strategy.meet([normal, bent])
    drawn = [strategy.augment(strategy.prepared(normal)) for _ in range(40)]
    kinds = [int(d.kind) for d in drawn]
    assert set(kinds) == {NORMAL, PSEUDO} and 8 < kinds.count(PSEUDO) < 32
    assert all((d.share.max() > 0) == (int(d.kind) == PSEUDO) for d in drawn)
    known = strategy.augment(strategy.prepared(bent))
    assert int(known.kind) == KNOWN
    marked = where.float().mean()
    near = torch.cdist(body(1, bump=0.2)[0].pos, strategy.prepared(bent).pos).argmin(1)
    assert known.share[near][where].mean() > 3 * marked > 0  # the tokens at the bump own its points
    # standardised by the normal cloud only
    seen = strategy.ready(strategy.prepared(normal)).tokens
    assert seen.mean(0).abs().max() < 1e-3 and seen.std(0).median() > 0.9


def test_a_token_is_seen_as_its_difference_to_the_nearest_of_other_normal_clouds():
    strategy = DevNet(groups=60, group_size=16, layers=(0,))
    clouds = [body(seed)[0] for seed in range(3)]
    strategy.meet(clouds)
    tokens = [strategy.prepared(c).tokens for c in clouds]
    others = torch.cat(tokens[1:])
    expected = tokens[0] - others[torch.cdist(tokens[0], others).argmin(1)]
    assert torch.allclose(strategy._seen(tokens[0], "body", tokens[0]), expected, atol=1e-5)
    assert float(strategy._seen(tokens[0], "body").abs().max()) == 0  # a test cloud may meet itself


def test_tokens_do_not_depend_on_the_pose():
    strategy = DevNet(groups=100, group_size=16, layers=(0,))
    cloud = body(0)[0]
    turned = body(0, turned=True)[0]
    a, b = strategy.prepare(cloud), strategy.prepare(turned)
    gap = torch.cdist(a.tokens, b.tokens).amin(1)  # the voxel grid turns along with nothing, so centres differ a little
    assert gap.median() < 0.5 * torch.cdist(a.tokens, a.tokens).median()
