from types import SimpleNamespace

import pytest
import torch

from toolkit.nn.grouped_vae import (
    MOMENTS,
    UNIT,
    GroupedVAE,
    evidence,
    explained,
    moments,
    reconstruction_errors,
    reencoded,
    rotation,
)
from toolkit.nn.variations import NONE, Amounts, damage, seen, variation

KINDS = (NONE, "bulge", "hole")


def ball(points=1500, seed=0):
    normal = torch.nn.functional.normalize(torch.randn(points, 3, generator=torch.Generator().manual_seed(seed)), dim=1)
    pos = normal * torch.tensor([1.0, 0.7, 0.5])
    return pos, torch.nn.functional.normalize(normal / torch.tensor([1.0, 0.7, 0.5]), dim=1)


def vae(width=32):
    torch.manual_seed(0)
    return GroupedVAE((4, 3, 6), len(KINDS), width)


def test_rotation_is_that_of_rodrigues():
    turn = rotation(torch.tensor([[0.0, 0.0, torch.pi / 2]]))[0]
    assert torch.allclose(turn @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)
    turn = rotation(torch.randn(1, 3, generator=torch.Generator().manual_seed(0)))[0]
    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-5) and float(turn.det()) == pytest.approx(1, rel=1e-5)


def test_zero_shape_code_is_the_template_and_points_are_there_by_default():
    net, (pos, normal) = vae(), ball(50)
    assert net.deform(pos[None], torch.zeros(1, 4)).abs().max() == 0
    assert net.deform(pos[None], torch.ones(1, 4)).abs().max() > 0
    _, there = net.damage(pos[None], normal[None], torch.zeros(1, 6))
    assert (there > 0).all()


def test_the_field_is_asked_point_by_point():
    net, (pos, normal) = vae(), ball(40)
    code = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    whole = net.damage(pos[None], normal[None], code)
    part = net.damage(pos[None, 7:9], normal[None, 7:9], code)
    assert torch.allclose(whole[0][:, 7:9], part[0], atol=1e-6) and torch.allclose(whole[1][:, 7:9], part[1], atol=1e-5)


def test_turn_stretch_and_shift_are_told_from_a_bump():
    pos, normal = ball(4000)
    turn, stretch, shift = torch.tensor([0.02, -0.01, 0.03]), torch.tensor([0.01, 0.0, -0.02]), torch.tensor(
        [0.0, 0.01, 0.005])  # fmt: skip
    height = torch.linalg.cross(turn.expand_as(pos), pos).mul(normal).sum(1)
    height = height + (stretch * pos * normal).sum(1) + normal @ shift
    bump = 0.04 * (-(pos - pos[0]).norm(dim=1).square() / 0.01).exp()
    seen_rows = torch.stack([evidence(pos, normal, h, True) for h in (height, height + bump)])
    found, left = explained(seen_rows)
    assert torch.allclose(UNIT * found[0], torch.cat([turn, stretch, shift]), atol=3e-3)
    assert left[0].abs().max() < 0.1 and left[1, 0] > 0.6
    place = moments(seen_rows, left)
    assert left.shape == (2, 4000) and found.shape[1] + place.shape[1] == MOMENTS
    assert (place[1, :3] - pos[0]).norm() < 0.05 and place[1, 3] < 0.1 and place[1, 4] > place[0, 4] + 1
    assert torch.allclose(place[1, 5:9], torch.cat([normal[0], torch.ones(1)]), atol=0.1)  # outward


def test_a_missing_half_is_seen_though_most_points_chosen_lack_it():
    pos, normal = ball(80)
    top = pos[:, 2] > 0
    away = torch.where(top, 0.2, 0.01)
    here = evidence(pos, normal, torch.zeros(80), True)
    rows = torch.stack([torch.cat([here, evidence(pos, normal, a, False)]) for a in (torch.full((80,), 0.01), away)])
    whole, broken = moments(rows, torch.zeros(2, 160))
    assert broken[-1] > whole[-1] + 1 and torch.allclose(broken[-5:-2], pos[top].mean(0), atol=1e-4)


def test_encoder_does_not_care_for_the_order_of_points():
    net, (pos, normal) = vae(), ball(60)
    rows = evidence(pos, normal, pos[:, 0] * 0.1, True)[None]
    turn = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for a, b in zip(net.encode(rows), net.encode(rows[:, turn])):
        assert torch.allclose(a.mean, b.mean, atol=1e-5)


def batch(count=6):
    pos, normal = ball()
    amounts, generator = Amounts(0.03, 0.05, 0.002, 96, 48), torch.Generator().manual_seed(0)
    made = [variation(pos, normal, damage(pos, normal, KINDS, i % 3, generator), pos, normal, amounts, generator)
            for i in range(count)]  # fmt: skip
    turned = torch.cat([m["turned"] for m in made])
    return {**{n: torch.stack([m[n] for m in made]) for n in made[0]}, "turned": turned}


def test_variations_tell_the_truth():
    facts = batch(3)
    assert facts["kind"].flatten().tolist() == [0, 1, 2]
    assert facts["moved"][0].abs().max() == 0 and bool(facts["present"][0].all())
    assert facts["moved"][1].norm(dim=1).max() > 0.02 and bool(facts["present"][1].all())
    assert facts["moved"][2].abs().max() == 0 and not bool(facts["present"][2].all())
    assert torch.allclose(facts["stretched"], facts["at"] * facts["stretch"])
    lacking = facts["seen"][:, 96:, 6].amax(1)
    assert lacking[2] > lacking[0] + 0.2  # template points in the hole find no cloud
    heights = facts["seen"][:, :96, 6].abs()
    assert heights[1].max() > 0.3


def test_errors_are_zero_for_the_answers_and_gradients_reach_all():
    facts = batch()
    oracle = SimpleNamespace(
        damage=lambda at, normal, code: (facts["moved"], 40 * (facts["present"].float() - 0.5)),
        deform=lambda at, code: facts["stretched"],
        pose=lambda code: facts["turned"] / UNIT,
    )
    errors = reconstruction_errors(oracle, (None, None, None), facts)
    assert all(float(e) == pytest.approx(0, abs=1e-6) for e in errors.values())

    net = vae()
    posteriors = net.encode(facts["seen"])
    codes = tuple(p.sample(True) for p in posteriors)
    total = torch.stack(list(reconstruction_errors(net, codes, facts).values())).sum()
    total = total + net.kind(codes[2]).square().sum() + net.severity(codes[2]).square().sum()
    total = total + net.adversary(torch.cat(codes[:2], 1)).square().sum()
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_reencoding_an_undamaged_undeformed_template_is_encoding_it():
    net, (pos, normal) = vae(), ball(80)
    with torch.no_grad():
        net.pose.weight.zero_()
        net.defect[-1].weight.zero_()
        net.defect[-1].bias.zero_()
    template = evidence(pos, normal, torch.zeros(80), False)[None]
    again = reencoded(net, (torch.zeros(1, 4), torch.zeros(1, 3), torch.zeros(1, 6)), template)
    straight = net.encode(torch.cat([evidence(pos, normal, torch.zeros(80), True)[None], template], 1))
    for a, b in zip(again, straight):
        assert torch.allclose(a.mean, b.mean, atol=1e-5)


def test_a_few_steps_learn_turn_and_place():
    """The pose code tells the turn, and a bulge is decoded where it is, on variations it was trained on."""
    facts, net = batch(18), vae(48)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    first = None
    for _ in range(120):
        errors = reconstruction_errors(net, tuple(p.sample(True) for p in net.encode(facts["seen"])), facts)
        optimizer.zero_grad()
        (10 * errors["defect"] + 3 * errors["present"] + errors["pose"] + errors["shape"]).backward()
        optimizer.step()
        first = first or {n: float(e.detach()) for n, e in errors.items()}
    with torch.no_grad():
        last = reconstruction_errors(net, tuple(p.mean for p in net.encode(facts["seen"])), facts)
    assert float(last["pose"]) < 0.3 * first["pose"] and float(last["defect"]) < 0.6 * first["defect"]
    assert float(last["present"]) < 0.95 * first["present"]


def test_seen_fills_up_small_clouds():
    pos, normal = ball(10)
    rows = seen(pos, pos, normal, 25, torch.Generator().manual_seed(0))
    assert rows.shape == (50, 8) and set(rows[:, 7].tolist()) == {1.0, -1.0}
    assert rows[25:, 6].max() < 1e-5  # every template point is in the cloud
