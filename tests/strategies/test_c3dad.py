"""C3D-AD: what the contract suite does not see."""

import pytest
import torch

from strategies.c3dad import C3DAD
from toolkit.cloud import CloudBatch, PointCloud
from toolkit.continual import EWC, FeatureDistillation, Replay
from toolkit.data.synthetic import Synthetic
from toolkit.nn.kernel_attention import KernelAdvisorAttention
from toolkit.scenario import Task
from toolkit.stream import build

SMALL = dict(weights="random", groups=24, group_size=16, sample=16, dim=32, feedforward=32, inner=32, features=16,
             epochs=2, lr=1e-3)  # fmt: skip


@pytest.fixture(scope="module")
def stream():
    dataset = Synthetic(categories=["bolt", "bracket"], points=400, train=2, test_normal=1, test_defective=1)
    tasks = [
        Task(c, tuple(dataset.select(category=c, split="train")), tuple(dataset.select(category=c, split="test")))
        for c in dataset.categories
    ]
    return build(tasks, dataset)


def trained(stream, tasks=1, **arguments):
    strategy = C3DAD(**{**SMALL, **arguments})
    for experience in stream.train_stream[:tasks]:
        strategy.train(experience)
    strategy.model.eval()
    return strategy


def batch_of(strategy, stream):
    clouds = stream.train_stream[0].clouds.clouds()
    return CloudBatch.collate([strategy.prepared(c) for c in clouds])


def advisors(strategy):
    return [m for m in strategy.model.modules() if isinstance(m, KernelAdvisorAttention)]


def test_perturbation_is_ascended_bounded_and_has_gradients(stream):
    strategy = trained(stream, rpp_steps=3)
    before = [a.advisor.clone() for a in advisors(strategy)]
    strategy.model.train()
    torch.manual_seed(0)
    changes = strategy.perturbed_change(batch_of(strategy, stream))
    assert len(changes) == 4
    assert changes[-1] > 5 * changes[0]
    strategy.model.zero_grad()
    changes[-1].backward()
    sizes = [p.grad.norm() for p in strategy.model.parameters() if p.grad is not None]
    assert len(sizes) > 10 and max(sizes) > 0
    assert all(torch.equal(a.advisor, b) for a, b in zip(advisors(strategy), before))


def test_penalty_changes_what_is_learned_and_zero_weight_leaves_it_out(stream):
    with_penalty, without = trained(stream, rpp_weight=1.0), trained(stream, rpp_weight=0.0)
    a, b = (torch.cat([p.flatten() for p in s.model.parameters()]) for s in (with_penalty, without))
    assert not torch.allclose(a, b)
    assert without.penalty(batch_of(without, stream), None) == 0.0


def test_advisors_are_learned_kept_and_forgotten_on_restart(stream):
    strategy = trained(stream)
    assert all(a.initialised and a.advisor.abs().sum() > 0 for a in advisors(strategy))
    other = C3DAD(**SMALL)
    other.load_state(strategy.state())
    assert all(torch.equal(a.advisor, b.advisor) for a, b in zip(advisors(strategy), advisors(other)))
    strategy.restart()
    assert not any(a.initialised for a in advisors(strategy))
    assert set(strategy.templates_) == {"bolt"}


def test_frozen_inference_looks_at_positions_only_and_transient_at_tokens(stream):
    for inference, depends in (("frozen", False), ("transient", True)):
        strategy = trained(stream, advisor_inference=inference)
        batch = batch_of(strategy, stream)
        with torch.no_grad():
            first = strategy.model(batch).features
            batch.tokens = batch.tokens.flip(0)
            second = strategy.model(batch).features
        assert torch.allclose(first, second) != depends


@pytest.mark.parametrize("continual", [Replay(2), EWC(10.0), FeatureDistillation(1.0)], ids=lambda c: type(c).__name__)
def test_with_plugins_over_two_tasks(stream, continual):
    strategy = trained(stream, tasks=2, plugins=continual.plugins())
    with torch.no_grad():
        scored = strategy.score(stream.test_stream[0].clouds.clouds()[0])
    assert torch.isfinite(scored.point).all()


@pytest.mark.parametrize("arguments", [{"attention": "softmax"}, {"calibrate": "none"}, {"registration": False},
                                       {"as_released": True}, {"position": "mlp"}, {"whiten": False}, {"sample": 0},
                                       {"backbone_attention": "kal", "frame": "cloud"}], ids=str)  # fmt: skip
def test_variants_run(stream, arguments):
    strategy = trained(stream, **arguments)
    with torch.no_grad():
        scored = strategy.score(stream.test_stream[0].clouds.clouds()[0])
    assert scored.point.std() > 0


def test_both_branches_of_the_penalty_see_the_same_noise_and_dropout(stream):
    strategy = trained(stream, rpp_eps=0.0, dropout=0.3, jitter=50.0)
    strategy.model.train()
    assert strategy.perturbed_change(batch_of(strategy, stream)) == [0, 0]


def test_penalty_looks_at_some_clouds_of_the_batch(stream):
    strategy = trained(stream, rpp_clouds=1, rpp_weight=1.0, rpp_every=1)
    strategy.model.train()
    batch = batch_of(strategy, stream)
    assert batch.num_graphs == 2
    torch.manual_seed(3)
    whole = strategy.penalty(batch, None)
    torch.manual_seed(3)
    assert torch.equal(whole, strategy.penalty(batch[:1], None))


def test_penalty_is_taken_every_so_many_steps_with_so_many_times_the_weight(stream):
    taken = []

    class Spy(C3DAD):
        def penalty(self, batch, output):
            found = super().penalty(batch, output)
            taken.append(float(found) > 0)
            return found

    strategy = Spy(**{**SMALL, "batch_size": 1, "epochs": 3, "rpp_every": 3})
    strategy.train(stream.train_stream[0])
    assert taken == [True, False, False] * 2
    batch = batch_of(strategy, stream)
    torch.manual_seed(3)
    rare = strategy.penalty(batch, None)
    strategy.rpp_every = 1
    torch.manual_seed(3)
    assert float(rare) == pytest.approx(3 * float(strategy.penalty(batch, None)))


def test_a_training_step_sees_other_tokens_each_time_in_their_places(stream):
    strategy = trained(stream)
    whole = strategy.prepared(stream.train_stream[0].clouds.clouds()[0])
    first, second = strategy.augment(whole), strategy.augment(whole)
    assert first.tokens.shape == (16, 192) and not torch.equal(first.tokens, second.tokens)
    for pos, token, at in zip(first.pos, first.tokens, first.at):
        row = int((whole.pos - pos).norm(dim=1).argmin())
        assert torch.equal(whole.tokens[row], token) and torch.equal(whole.at[row], at)


@pytest.mark.parametrize("schedule, shares", [("cosine", [0.854, 0.5, 0.146, 0.0]), ("step", [1, 1, 1, 0.1])])
def test_learning_rate_falls_within_a_task_and_starts_afresh(stream, schedule, shares):
    seen = []

    class Spy(C3DAD):
        def _after_training_epoch(self, **kwargs):
            super()._after_training_epoch(**kwargs)
            seen.append(self.optimizer.param_groups[0]["lr"])

    strategy = Spy(**{**SMALL, "epochs": 4, "schedule": schedule})
    for experience in stream.train_stream:
        strategy.train(experience)
    assert seen == pytest.approx([1e-3 * share for share in shares] * 2, abs=1e-6)


def test_whitening_makes_residuals_of_normal_clouds_white():
    net = C3DAD(**SMALL).model
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(5000, 192, generator=generator) @ torch.randn(192, 192, generator=generator)
    assert torch.equal(net.whitening(), torch.eye(192))
    net.scatter += residual.t() @ residual
    net.counted += len(residual)
    white = residual @ net.whitening()
    covariance = white.t() @ white / len(white)
    spread = torch.linalg.eigvalsh(residual.t() @ residual / len(residual))
    assert spread[-1] / spread[0] > 1e4
    found = torch.linalg.eigvalsh(covariance)
    assert found[-1] == pytest.approx(1, abs=0.02)  # where the spread is far above the ridge
    assert found[96:].min() > 0.8


def test_residuals_of_each_task_are_counted_once_and_forgotten_on_restart(stream):
    strategy = trained(stream, tasks=2)
    assert int(strategy.model.counted) == 2 * 2 * 24
    strategy.restart()
    assert int(strategy.model.counted) == 0


def test_dense_clouds_are_thinned_and_scored_at_every_point(stream):
    strategy = trained(stream)
    cloud = stream.test_stream[0].clouds.clouds()[0]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(cloud.pos), (30_000,), generator=generator)
    spread = cloud.pos.std() * 0.02
    dense = PointCloud(cloud.pos[rows] + spread * torch.randn(30_000, 3, generator=generator), category=cloud.category)
    with torch.no_grad():
        scored = strategy.score(dense).check(dense)
    assert scored.point.shape == (30_000,) and scored.point.std() > 0


@pytest.mark.parametrize("calibrate", ["template", "vector"])
def test_calibration_follows_the_network(stream, calibrate):
    """The template's own residuals are kept between clouds, but not over a change of the network."""
    strategy = trained(stream, calibrate=calibrate)
    cloud = stream.test_stream[0].clouds.clouds()[0]
    before = strategy.score(cloud)
    assert torch.equal(strategy.score(cloud).point, before.point)
    strategy.train(stream.train_stream[1])
    strategy.model.eval()
    after = strategy.score(cloud)
    fresh = C3DAD(**SMALL, calibrate=calibrate)
    fresh.load_state(strategy.state())
    fresh.model.eval()
    assert torch.equal(fresh.score(cloud).point, after.point)
    assert not torch.equal(before.point, after.point)


@pytest.mark.parametrize("calibrate", ["template", "vector"])
def test_a_template_scores_zero_against_itself(stream, calibrate):
    strategy = trained(stream, calibrate=calibrate)
    template = stream.train_stream[0].clouds.clouds()[0]
    with torch.no_grad():
        assert strategy.score(template).point.abs().max() < 1e-4


def test_paper_sizes():
    paper = C3DAD.presets["paper"]
    with torch.device("meta"):
        from toolkit.nn.reconstruction import Reconstruction

        net = Reconstruction(384, paper["dim"], paper["feedforward"], paper["depth"], attention="kaa",
                             advisor=dict(inner=paper["inner"], features=paper["features"], form="paper"))  # fmt: skip
    count = sum(p.numel() for p in net.parameters())
    assert abs(count / 1e6 - 17.08) < 0.05  # the card's count of the released network
