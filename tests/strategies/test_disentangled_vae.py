import pytest
import torch

from strategies.disentangled_vae import DisentangledVAE
from tests.strategies.shapes import body
from toolkit import plots
from toolkit.cloud import CloudBatch
from toolkit.defects import Defect
from toolkit.errors import HyperparameterError
from toolkit.nn.grouped_vae import UNIT
from toolkit.plots.latent_traversal import latent_traversal

QUICK = dict(width=32, points=800, seen=64, asked=48, variants=6, pool=24, epochs=150, voxel=0.04, nearby=12,
             kinds=("bulge", "hole"))  # fmt: skip


def part(seed, bump=0.0, points=2500):
    return body(seed, bump, points=points, category="part", width=0.25)


def trained(clouds, **options):
    """Train without Avalanche's loop: the same steps on the same clouds."""
    strategy = DisentangledVAE(**{**QUICK, **options})
    strategy.meet(clouds)
    optimizer = torch.optim.AdamW(strategy.model.parameters(), strategy.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, strategy.epochs)
    strategy.model.train()
    for _ in range(strategy.epochs):
        batch = CloudBatch.collate([strategy.augment(strategy.prepared(c)) for c in clouds])
        loss = strategy.loss_of(strategy.model(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), strategy.grad_clip)
        optimizer.step()
        schedule.step()
    strategy.keep_normal(clouds)
    return strategy


@pytest.fixture(scope="module")
def clouds():
    return [part(seed)[0] for seed in range(3)]


@pytest.fixture(scope="module")
def strategy(clouds):
    return trained(clouds)


def test_a_bump_scores_higher_than_its_normal_twin(strategy):
    normal, (dented, where) = strategy.score(part(50)[0]), part(50, bump=0.2)
    found = strategy.score(dented).check(dented)
    assert found.object > 2 * normal.object
    assert found.point[where].mean() > 3 * found.point[~where].mean()


def test_defect_codes_notice_a_bump(strategy):
    near, far = (strategy.strangeness(strategy.prepared(c)) for c in (part(50)[0], part(50, bump=0.25)[0]))
    assert far > 1.5 * near


def test_every_parameter_learns_and_every_term_is_there(clouds):
    fresh = DisentangledVAE(**QUICK)
    fresh.meet(clouds)
    fresh.model.train()
    output = fresh.model(CloudBatch.collate([fresh.augment(fresh.prepared(c)) for c in clouds]))
    assert set(output.terms) == {"defect", "present", "shape", "pose", "chamfer", "kl", "tc", "hsic", "correlation",
                                 "class", "null", "swap"}  # fmt: skip
    assert output.features.shape == (3 * 6, 24)
    fresh.loss_of(output).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fresh.model.parameters())
    weights = {"kl": 0.003, "tc": 0.006, "hsic": 1, "correlation": 0.01, "class": 1, "null": 0.001, "swap": 0.5,
               "defect": 3, "present": 3, "chamfer": 0.1}  # fmt: skip
    expected = sum(weights.get(n, 1) * float(t.detach()) for n, t in output.terms.items())
    assert float(fresh.loss_of(output).detach()) == pytest.approx(expected, rel=1e-5)


def test_variations_are_made_once_and_differ_between_clouds(strategy, clouds):
    a, b = (strategy.prepared(c) for c in clouds[:2])
    first = strategy._variation(a, 7)
    assert strategy._variation(a, 7) is first and not torch.equal(strategy._variation(b, 7)["seen"], first["seen"])
    kinds = torch.cat([strategy._variation(a, n)["kind"] for n in range(24)])
    assert kinds[:6].sum() == 0 and set(kinds[6:].tolist()) == {1, 2}


def test_repair_undoes_a_small_turn(clouds, strategy):
    """Registration off for the cloud at hand: what it lies askew must be in the pose codes."""
    prepared = strategy.prepared(clouds[1]).clone_shallow()
    angle = torch.tensor(0.025)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    prepared.grid = prepared.grid @ turn.T
    with torch.no_grad():
        found = strategy.repairs(prepared)
    wanted = found["template"] @ turn.T
    askew = (found["template"] - wanted).norm(dim=1).mean()
    assert (found["turned"] - wanted).norm(dim=1).mean() < 0.75 * askew


def test_generated_defects_are_labelled_controlled_and_of_the_common_interface(strategy, clouds):
    maker = strategy.defects_of("bulge")
    assert isinstance(maker, Defect) and maker.kind == "bulge"
    place, code = torch.tensor([0.1, 0.2, -0.3]), maker.codes[0]
    moved = maker.placed(code, place, 0.8)
    with torch.no_grad():
        assert torch.allclose(maker.net.where(moved), place, atol=1e-4)
        assert float(maker.net.severity(moved)) == pytest.approx(0.8, abs=1e-4)
    made = strategy.pseudo_anomaly(clouds[0], "bulge", severity=1.0, seed=3)
    assert made.y == 1 and made.defect == "bulge" and made.group_id == clouds[0].group_id
    assert 0 < int(made.point_y.sum()) < len(made.pos)
    shift = (made.pos - clouds[0].pos).norm(dim=1)
    assert (shift[~made.point_y.bool()] < 1e-3).all() and shift[made.point_y.bool()].min() > 0
    again = strategy.pseudo_anomaly(clouds[0], "bulge", severity=1.0, seed=3)
    other = strategy.pseudo_anomaly(clouds[0], "bulge", severity=1.0, seed=4)
    assert torch.equal(again.pos, made.pos) and not torch.equal(other.pos, made.pos)
    with pytest.raises(HyperparameterError, match="crack"):
        strategy.defects_of("crack")
    with pytest.raises(HyperparameterError, match="before training"):
        DisentangledVAE(**QUICK).defects_of("bulge")


def test_traversal_shows_each_group_doing_its_own(strategy, tmp_path):
    """Pictures of one code of shape and pose, and of growing defects: saved, so that they can be looked at."""
    net, still = strategy.model.vae, strategy.template("part").pos
    place = still[(still - torch.tensor([0.2, 0.5, 0.4])).norm(dim=1).argmin()]

    def decode(row, value):
        code = torch.zeros(24)
        if row < 2:
            code[(0, 8)[row]] = 3 * value
        else:
            maker = strategy.defects_of(("bulge", "hole")[row - 2])
            code[12:] = maker.placed(maker.codes[0], place, value)
        return strategy.decoded("part", code)

    grid = latent_traversal(decode, range(4), (0, 0.3, 0.6, 1), ["shape 0", "pose 0", "bulge", "hole"])
    plots.save(grid[0, 0], tmp_path / "traversal.png")
    assert (tmp_path / "traversal.png").stat().st_size > 20_000
    turned, rest = decode(1, 1.0)[0], decode(1, 0.0)[0]
    assert len(turned) == len(rest) == len(still) and (turned - rest).norm(dim=1).max() > 1e-3
    assert torch.allclose(*(torch.pdist(p) for p in (turned, rest)), atol=1e-4)
    assert torch.allclose(rest, still, atol=0.1 * UNIT)  # codes of zero are the template
    bulged, moved = decode(2, 1.0)
    top = moved.argmax()
    assert moved[top] > 0.5 * UNIT and (bulged[top] - place).norm() < 0.15
    outward = torch.nn.functional.cosine_similarity(bulged[top] - still[top], strategy.template("part").normal[top], 0)
    assert outward > 0.5 and decode(3, 1.0)[1].max() < 0.5 * moved[top]  # a hole takes away, it does not push
    assert net.where.weight.shape == (3, 12)


@pytest.mark.slow
def test_codes_are_measured_against_known_factors(strategy, clouds):
    codes, table = strategy.known_factors(clouds, 90, seed=1)
    assert len(table) == 90 and codes["pose"].shape == (90, 4) and codes["defect"].shape == (90, 12)
    assert set(table["kind"]) == {0, 1, 2} and table["turn_x"].abs().max() <= strategy.turn * 3.1416 / 180
    told = strategy.disentanglement(clouds, 240, seed=1)
    assert set(told["metrics"]) >= {"mig", "sap", "irs", "completeness", "modularity", "factor_vae", "beta_vae"}
    groups = told["groups"]
    turns = [c for c in groups if c.startswith("turn")]
    assert groups.loc["pose", turns].mean() > groups.loc["defect", turns].mean() + 0.1
    assert groups.loc["defect", "kind"] > groups.loc["pose", "kind"] + 0.2


def test_one_cloud_is_calibrated_on_its_halves(clouds):
    alone = trained(clouds[:1], epochs=2)
    rows = alone.voters_["part"]
    assert rows.shape[1] == 3 + 4 and (rows[:, 3:].mean(0) > 0).all()
    assert alone.score(part(9)[0]).point.std() > 0


def test_ablation_leaves_the_vae_out(clouds, strategy):
    plain = DisentangledVAE(**{**QUICK, "repaired": "template"})
    plain.load_state(strategy.state())
    plain.model.load_state_dict(DisentangledVAE(**{**QUICK, "seed": 5}).model.state_dict())
    other = DisentangledVAE(**{**QUICK, "repaired": "template"})
    other.load_state(strategy.state())
    assert torch.equal(plain.score(part(9)[0]).point, other.score(part(9)[0]).point)


def test_wrong_hyperparameters():
    for options in ({"kinds": ()}, {"healthy": 1.5}, {"repaired": "x"}, {"variants": 1}, {"top_share": -1.0}):
        with pytest.raises(HyperparameterError):
            DisentangledVAE(**{**QUICK, **options})


def test_displacements_are_counted_in_the_unit():
    assert UNIT == 0.05  # weights of the loss and the encoder's clamp are tuned to it
