import csv
import json

import pytest
import torch
from torch import nn

from toolkit.data.parts import PARTS
from toolkit.errors import CheckpointError, HyperparameterError
from toolkit.nn.ctf_net import SHIPPED, Block, CTFNet, filtered, load_ctf_net, save
from toolkit.nn.ctf_pretrain import judge, pretrain, same_place, without_neighbours
from toolkit.nn.ctf_samples import Parts, s3da


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 4.153), ({"feature_transform": False}, 1.726), ({"feature_transform": False, "merge": "concat"}, 2.595)],
)
def test_size_is_that_of_the_released_network(options, count):
    assert sum(p.numel() for p in CTFNet(40, **options).parameters()) / 1e6 == pytest.approx(count, abs=5e-4)


def test_filter_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    x, kernel, bias = (torch.randn(*s, generator=generator) for s in ((2, 9, 4), (4, 5), (4,)))
    expected = torch.zeros(2, 9, 4)
    for b, k, c in ((b, k, c) for b in range(2) for k in range(9) for c in range(4)):
        expected[b, k, c] = bias[c]
        for j in range(5):
            if 0 <= k + j - 2 < 9:
                expected[b, k, c] += kernel[c, j] * x[b, k + j - 2, c]
    assert torch.allclose(filtered(x, kernel, bias), expected, atol=1e-5)


@pytest.mark.parametrize("merge", ["sum", "concat"])
def test_block_equals_the_published_layers(merge):
    """Two convolutions in parallel, summed or side by side, mixed, ELU, batch norm (and ELU)."""
    torch.manual_seed(0)
    block, x = Block(6, 10, merge).train(), torch.randn(3, 7, 6)
    parts = [c.convolution(x.transpose(1, 2)) for c in (block.near, block.far)]
    joined = sum(parts) if merge == "sum" else torch.cat(parts, 1)
    y = nn.functional.elu(block.mix(joined.transpose(1, 2)))
    y = (y - y.mean((0, 1))) / (y.var((0, 1), unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(block(x), nn.functional.elu(y) if merge == "sum" else y, atol=1e-5)


def test_features_depend_on_order_but_not_on_other_groups_or_chunks():
    net = load_ctf_net("random", seed=3)
    groups = torch.randn(12, 20, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = net.features(groups)
        assert found.shape == (12, 1024) and not torch.allclose(net.features(groups.flip(1)), found, atol=1e-3)
        net.chunk = 45  # two groups at a time
        assert torch.allclose(net.features(groups), found, atol=1e-4)
        assert torch.allclose(net.features(groups[3:4])[0], found[3], atol=1e-4)


def test_transforms_start_as_the_identity():
    torch.manual_seed(0)
    net = CTFNet(5)
    assert torch.equal(net.transform(torch.randn(2, 8, 3)), torch.eye(3).expand(2, 3, 3))
    assert torch.equal(net.feature_transform(torch.randn(2, 8, 64)), torch.eye(64).expand(2, 64, 64))


def test_weights_are_checked_key_by_key(tmp_path):
    net = load_ctf_net("random")
    save(net, tmp_path / "net.safetensors")
    again = load_ctf_net(tmp_path / "net.safetensors", seed=5)
    for key, value in net.state_dict().items():
        assert torch.allclose(again.state_dict()[key].float(), value.float(), atol=2e-3)
    with pytest.raises(CheckpointError, match="unexpected feature_transform"):
        load_ctf_net(tmp_path / "net.safetensors", feature_transform=False)
    with pytest.raises(CheckpointError, match="no such file"):
        load_ctf_net(tmp_path / "none.safetensors")
    with pytest.raises(HyperparameterError, match="merge"):
        CTFNet(merge="both")


def test_shipped_weights_have_a_record_and_do_what_it_says():
    record = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert SHIPPED.stat().st_size < 10e6 and record["classes"] == list(PARTS)
    rows = list(csv.DictReader(SHIPPED.with_suffix(".csv").open()))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) - 0.1
    assert f"--steps {rows[-1]['step']} " in record["command"]
    claimed, found = record["held_out_variants"], judge(load_ctf_net(), seed=7, samples=64)
    assert found == pytest.approx(claimed, abs=0.25)
    untrained = judge(load_ctf_net("random"), seed=7, samples=64)
    assert found["noise"] < 0.75 * found["defects"] and untrained["noise"] > 0.85 * untrained["defects"]
    assert found["places"] > untrained["places"] + 0.15


def test_a_network_without_neighbours_does_not_see_the_order_of_points():
    net = load_ctf_net("random")
    points, order = torch.randn(4, 20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20).flip(0)
    with torch.no_grad():
        assert not torch.allclose(net.features(points), net.features(points[:, order]), atol=1e-2)
        without_neighbours(net)
        found = net.features(points)
        assert torch.allclose(found, net.features(points[:, order]), atol=1e-4) and found.std() > 0.1


def test_loss_of_the_same_place():
    """Two places, two apart; the other scan 0.2 off, the defect 1 off."""
    first = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    second, defect = first + torch.tensor([0.0, 0.2]), first + torch.tensor([0.0, 1.0])
    unit = 4.04  # mean squared distance of different places
    shares = torch.exp(-torch.tensor([0.04, 4.04, 1.0]) / unit / 0.5)
    loss, found = same_place(first, second, defect, temperature=0.5)
    assert float(loss) == pytest.approx(-float((shares[0] / shares.sum()).log()), rel=1e-4) and found == 1
    assert same_place(first, second, first + 0.1)[1] == 0


def test_pairs_are_the_same_places_in_two_scans_and_with_a_defect():
    pairs = Parts(False, torch.Generator().manual_seed(1), clouds=1).pairs(2, 8, 24)
    assert pairs.first.shape == pairs.second.shape == pairs.defect.shape == (16, 24, 3)
    for group in pairs[:3]:
        assert ((group - group[:, :1]).norm(dim=2).diff(dim=1) >= -1e-5).all()
    apart = (pairs.first[:, 0] - pairs.second[:, 0]).norm(dim=1)
    assert apart.max() < 0.12 and float(torch.cdist(pairs.first[:8, 0], pairs.first[:8, 0]).mean()) > 0.4
    moved = torch.cdist(pairs.defect.double(), pairs.second.double()).amin(2).amax(1)
    assert moved.median() > 0.008 and moved.max() < 0.101
    assert (pairs.target.view(2, 8) == pairs.target.view(2, 8)[:, :1]).all()


def test_s3da_ranges():
    pos = torch.ones(5000, 3) * torch.tensor([1.0, 2.0, 3.0])
    shares = []
    for seed in range(20):
        found = s3da(pos, torch.Generator().manual_seed(seed), jitter=0.0)
        gone = (found == 0).all(1)
        factor = found[~gone] / pos[~gone]
        assert torch.allclose(factor, factor[:1].expand_as(factor)) and len(set(factor[0].tolist())) == 3
        assert factor.min() >= 2 / 3 - 1e-6 and factor.max() <= 1.5 + 1e-6
        shares.append(float(gone.float().mean()))
    assert 0 <= min(shares) < 0.03 < 0.06 < max(shares) < 0.12
    noise = s3da(torch.zeros(5000, 3), torch.Generator().manual_seed(0), zeroed=0.0)
    assert noise.abs().max() <= 0.02 and noise.std() == pytest.approx(0.00959, abs=0.0001)  # clipped at two sigma


def test_samples_are_sorted_groups_of_allowed_variants():
    for held_out in (False, True):
        parts = Parts(held_out, torch.Generator().manual_seed(0), clouds=1)
        groups, target = parts.draw(6, 50, torch.arange(6) < 3)
        assert groups.shape == (6, 50, 3) and ((target >= 0) & (target < 20)).all()
        away = (groups - groups[:, :1]).norm(dim=2)[:3]
        assert (away.diff(dim=1) >= -1e-6).all() and away.max() < 1  # neighbourhoods: nearest to the centre first
        assert (groups[3:].norm(dim=2).diff(dim=1) >= -1e-6).all()  # whole clouds: nearest to the mean first
        for category, name, _ in parts.stock:
            last = list(PARTS.values())[category].subcategories[-1]
            assert (name == last) == held_out


@pytest.mark.slow
def test_training_learns_and_goes_on_after_a_kill_with_the_same_weights(tmp_path):
    arguments = dict(steps=50, batch=4, size=16)
    whole, curve = pretrain(0, **arguments)
    pretrain(0, **arguments, partial=tmp_path / "p", stop=25)
    again, other = pretrain(0, **arguments, partial=tmp_path / "p")
    assert [row["loss"] for row in curve] == [row["loss"] for row in other] and len(curve) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
