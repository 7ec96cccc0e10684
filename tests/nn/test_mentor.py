import pytest
import torch
import torch.nn.functional as F

from toolkit.nn.mentor import Pair, fusion_loss, guidance_loss, info_nce, vote


def pair(mentor=5, dropout=0.0):
    torch.manual_seed(0)
    return Pair(6, 9, mentor, embed=7, hidden=8, dropout=dropout)


def views(count=20):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator), torch.randn(count, 9, generator=generator)


def test_info_nce_against_a_loop():
    a, b = (F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(s)), dim=1) for s in (0, 1))
    total = 0.0
    for i in range(6):
        for one, other in ((a, b), (b, a)):
            agreement = torch.stack([(one[i] * other[k]).sum() / 0.3 for k in range(6)]).exp()
            total -= float((agreement[i] / agreement.sum()).log()) / 12
    assert float(info_nce(a, b, 0.3)) == pytest.approx(total, rel=1e-5)


def test_info_nce_closed_forms():
    eye = torch.eye(8)
    alike = torch.ones(8, 4) / 2
    assert float(info_nce(eye, eye, 0.01)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce(alike, alike, 0.1)) == pytest.approx(torch.log(torch.tensor(8.0)).item(), rel=1e-5)


def test_guidance_loss_is_zero_for_exact_and_four_for_opposite_rebuilding():
    met = pair()(*views())
    met.rebuilt_first, met.rebuilt_second = 3 * met.first, 0.5 * met.second
    assert float(guidance_loss(met)) == pytest.approx(0, abs=1e-6)
    met.rebuilt_first, met.rebuilt_second = -met.first, -met.second
    assert float(guidance_loss(met)) == pytest.approx(4, rel=1e-5)


def test_guidance_does_not_train_the_mentor_and_fusion_trains_all_of_it():
    net = pair()
    guidance_loss(net(*views())).backward()
    theirs = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n.split(".")[0] for n in theirs} == {"to_first", "to_second"}
    net.zero_grad()
    fusion_loss(net(*views()), 0.1, pairs=20).backward()
    ours = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    every = {n for n, _ in net.named_parameters()}
    assert ours | theirs == every and {n.split(".")[0] for n in ours} == {"embed_first", "embed_second", "fuse",
                                                                         "unfold"}  # fmt: skip


def test_without_mentor_it_is_cfm():
    net, (first, second) = pair(mentor=0), views()
    assert {n.split(".")[0] for n, _ in net.named_parameters()} == {"to_first", "to_second"}
    voters = net.voters(first, second)
    expected = (F.normalize(net.to_first(second), dim=1) - F.normalize(first, dim=1)).norm(dim=1)
    assert voters.shape == (20, 2) and torch.allclose(voters[:, 0], expected)


def test_voters_rise_where_the_views_do_not_belong_together():
    torch.manual_seed(0)
    latent = torch.randn(600, 3)
    first, second = (0.5 * latent @ torch.randn(3, 6)).tanh(), (0.5 * latent @ torch.randn(3, 9)).tanh()
    net = Pair(6, 9, 4, embed=16, hidden=48, dropout=0.5)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(150):
        met = net(first[:500], second[:500])
        optimizer.zero_grad()
        (guidance_loss(met) + fusion_loss(met, 0.1, 200)).backward()
        optimizer.step()
    net.eval()
    matched, mixed = net.voters(first[500:], second[500:]), net.voters(first[500:], second[500:].roll(7, 0))
    assert (mixed.mean(0) > 1.5 * matched.mean(0)).all()


def test_vote_rules():
    voters = torch.tensor([[1.0, 2.0, 4.0], [-3.0, 2.0, 1.0]])
    assert vote(voters, "product").tolist() == [2, 0]
    assert vote(voters, "largest").tolist() == [4, 2]
    assert vote(voters, "mean").tolist() == pytest.approx([7 / 3, 1])
    assert vote(voters, "mixed").tolist() == pytest.approx([2 + 3, 0 + 1.5])
