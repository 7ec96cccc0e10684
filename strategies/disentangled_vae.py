"""DisentangledVAE: what a cloud is (shape), how it lies (pose) and what is wrong with it (defect), in separate codes.

No single paper. "DRL4Real: disentangled representation learning for real-world applications" (ICCV 2025 workshop
summary, arXiv 2509.10463) argues for such models and gives neither method nor metric; this is a working row for it,
made of published parts. [verified]: the summary; beta-TC-VAE (Chen et al., NeurIPS 2018), HSIC (Gretton et al., 2005),
definitions of the metrics (disentanglement_lib). [inferred, ours]: everything that puts them together.

The method
* Codes z = shape (8), pose (4), defect (12). The encoder sees points of the registered cloud with their height above
  the class template, and points of the template with their distance to the cloud: deviations, not coordinates.
* The decoder is a field on the template (`toolkit.nn.grouped_vae`): shape and defect codes move its points, defect
  codes also remove some, pose turns all. A decoder that writes coordinates blurs everything as small as a defect.
* Trained on variations of normal clouds with known factors (`toolkit.nn.variations`): generated defects, stretch, turn.
  Loss: Chamfer of what is decoded to what was seen, errors of each factor, KL, total correlation, HSIC and correlation
  between groups, defect type, severity and place from the defect codes only (the gradient reversed from the others),
  null (normal clouds: defect codes near 0) and swap (shape and pose of one, defect of another, encoded again).
* Score by repair: decode with defect = 0, and compare the cloud with that: distances at two scales, missing material,
  local descriptors (`toolkit.nn.repair`), each in deviations from what other normal clouds show at the same place.
  Of the template as it is, turned, deformed, and both, the one that lies nearest to the cloud is the repaired one: the
  codes of a defect that the encoder takes for a turn must not make the repair worse than no repair.
* Controllable generation: `defects_of(kind)` is a generator as in `toolkit.defects`, made of the learned field.

Tried and measured. Made-up body, seven kinds, on the variations trained on (kinds told right, error of place in radii):
500 steps at 3e-3 .49, .21; with more moments and bells in the decoder, 300 steps at 5e-3 .64, .18. Two kinds, fresh
variations: without `GroupedVAE.stretch` shape codes said nothing of stretches (with it .41, .37, .29 beyond chance),
MIG .04 (.12), FactorVAE .43 (.74), BetaVAE .63 (.91).
Real scans (Anomaly-ShapeNet layout, 8,192 points, one model per class, seed 0; object / point AUROC): banana 1.000 /
.986, bolt .760 / .917, bowl .894 / .944, clamp .962 / .956, hammer 1.000 / .977, mug .933 / .910, pitcher 1.000 / .961,
screwdriver .962 / .977; mean .939 / .953. Banana with ``repaired="template"`` 1.000 / .987: registered clouds differ so
little in shape and pose that there is nothing to repair, the residuals do the work.
Banana's codes, 300 fresh variations: shape tells stretches (.67, .37, .13
beyond chance), pose turns (.14, .49, .65), defect kinds .60 and severity .15, no group another's factor by more than
.06; MIG .09, SAP .03, modularity .90, FactorVAE .62, BetaVAE .81, IRS .34. Its traversal shows bulges, holes and breaks
at the asked place; cracks, scratches (below the noise of 2,048 points) and bends are not decoded, concavities are
shallow, and severity hardly changes anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from toolkit.cloud import AnomalyMap, PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn import repair, variations
from toolkit.nn.disentangled_net import DisentangledNet, VAEOutput
from toolkit.nn.grouped_vae import GROUPS, GroupedVAE, Posterior
from toolkit.nn.learned_defect import LearnedDefect
from toolkit.nn.place_statistics import deviations
from toolkit.nn.registered import RegisteredStrategy
from toolkit.ops import diagonal, fps, normals, voxel_downsample
from toolkit.seeding import seeded
from toolkit.strategy import at_least, one_of
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["DisentangledVAE"]

KINDS = ("bulge", "concavity", "hole", "crack", "scratch", "broken", "bending")
SAME = 0.02
"""Mean squared distance in voxels below which a cloud is the template; another scan's is ten times that."""
STORED = 200
"""Defect codes kept per kind, from which generation starts."""


class DisentangledVAE(RegisteredStrategy):
    """Grouped VAE on a template: score by repair, defects by decoding (our reading of DRL4Real).

    Args:
        shape: number of shape codes.
        pose: number of pose codes.
        defect: number of defect codes, of which the first three start as its place.
        width: of the networks.
        points: points of a training cloud that variations are made of.
        seen: observed points, and template points, that the encoder sees.
        asked: points at which the decoder is asked in training.
        variants: variations of each cloud in a step.
        pool: variations of a cloud that are made, once.
        kinds: generators of `toolkit.defects` to learn.
        healthy: share of variations without a defect.
        stretch: largest stretch of a variation along an axis.
        turn: largest turn of a variation about an axis, in degrees.
        noise: of a variation's coordinates, relative to the template's radius.
        field: weight of the defect's displacements and of which points it removes; those of shape and pose are 1.
        chamfer: weight of the Chamfer distance, whose floor is the spacing of the few points.
        beta: weight of the KL divergence.
        tc: weight of the total correlation, in beta.
        hsic: weight of HSIC between the groups.
        correlation: weight of the squared correlations between the groups.
        label: weight of telling type, severity and place from the defect codes.
        null: weight of the divergence of normal clouds' defect codes from N(0, 0.1^2).
        swap: weight of the exchange of defects.
        repaired: best of four repairs, always the decoded one, or the template as it is (no VAE: the ablation).
        voxel: grid on which clouds are compared, relative to the diagonal of the class.
        matches: repaired points among which a descriptor looks for its like.
        nearby: normal residuals that make up a place.
        floor: added to a place's deviation, in deviations of the class.
        top_share: of the highest grid scores, whose mean is the object score.
        code_weight: weight of the object's defect codes beside it, in deviations from those of normal clouds.
        options: further arguments of `RegisteredStrategy` and `AnomalyStrategy`.
    """

    paper = "DRL4Real: Disentangled Representation Learning for Real-world Applications. 2025 (our reading)"
    prepare_arguments = ("points", "voxel", "registration")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(width=256, points=4096, seen=1024, asked=512, variants=8, pool=256, epochs=2000),
        "tiny": dict(width=16, points=400, seen=64, asked=32, variants=3, pool=4, epochs=2, voxel=0.04, nearby=8,
                     registration=False),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "defect": Int(6, 24, source="proposal: 8"),
        "beta": Float(1e-3, 1.0, log=True, source="proposal: 1, on sums"),
        "tc": Float(0.0, 6.0, source="proposal: 2"),
        "swap": Float(0.0, 2.0, source="proposal: 0.5"),
        "matches": Int(4, 64, log=True, source="our choice"),
        "nearby": Int(8, 64, log=True, source="our choice"),
        "repaired": Categorical(("best", "decoded", "template"), source="our choice"),
    }

    def __init__(self, *, shape: int = 8, pose: int = 4, defect: int = 12, width: int = 64, points: int = 2048,
                 seen: int = 256, asked: int = 128, variants: int = 6, pool: int = 96,
                 kinds: tuple[str, ...] = KINDS, healthy: float = 0.25, stretch: float = 0.02, turn: float = 1.5,
                 noise: float = 0.004, field: float = 3.0, chamfer: float = 0.1, beta: float = 0.003,
                 tc: float = 2.0, hsic: float = 1.0, correlation: float = 0.01, label: float = 1.0, null: float = 0.001,
                 swap: float = 0.5,
                 repaired: Literal["best", "decoded", "template"] = "best", voxel: float = 0.015, matches: int = 16,
                 nearby: int = 24, floor: float = 0.5, top_share: float = 0.01, code_weight: float = 0.0,
                 epochs: int = 200, batch_size: int = 4, lr: float = 1e-2, grad_clip: float = 5.0,
                 **options: Any):  # fmt: skip
        self.shape, self.pose, self.defect, self.width = shape, pose, defect, width
        self.points, self.seen, self.asked, self.variants, self.pool = points, seen, asked, variants, pool
        self.kinds, self.healthy, self.stretch, self.turn, self.noise = tuple(kinds), healthy, stretch, turn, noise
        self.field, self.chamfer, self.beta, self.tc, self.hsic = field, chamfer, beta, tc, hsic
        self.correlation, self.floor, self.top_share, self.code_weight = correlation, floor, top_share, code_weight
        self.label, self.null, self.swap = label, null, swap
        self.repaired, self.voxel, self.matches, self.nearby = repaired, voxel, matches, nearby
        at_least(self, shape=1, pose=1, defect=4, width=4, points=64, seen=8, asked=8, variants=2, pool=1, healthy=0,
                 stretch=0, turn=0, noise=0, field=0, chamfer=0, beta=0, tc=0, hsic=0, correlation=0, label=0, null=0,
                 swap=0, voxel=1e-6, matches=1, nearby=2, floor=1e-6, top_share=0, code_weight=0)  # fmt: skip
        one_of(self, repaired=("best", "decoded", "template"))
        if not self.kinds or healthy > 1:
            raise HyperparameterError(f"DisentangledVAE: expected at least one kind and healthy in [0, 1], got "
                                      f"{self.kinds} and {healthy}.")  # fmt: skip
        super().__init__(epochs=epochs, batch_size=batch_size, lr=lr, grad_clip=grad_clip, **options)
        self._made: dict[tuple[str, str, int], dict[str, Tensor]] = {}
        self._surfaces: dict[str, tuple[Tensor, repair.Surface]] = {}

    def build(self) -> nn.Module:
        """The grouped VAE."""
        vae = GroupedVAE((self.shape, self.pose, self.defect), 1 + len(self.kinds), self.width)
        return DisentangledNet(vae, self.seen, self.asked)

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """In the template's pose: ``pos`` (P, 3) with ``normal``; ``grid`` (M, 3) means of the cells of all points."""
        placed = self.place(cloud.check(minimum=3))
        rows = fps(placed, min(self.points, len(placed)), exact=False)
        return PointCloud(placed[rows], normal=normals(placed[rows]), grid=voxel_downsample(placed, self._edge(cloud)))

    def _edge(self, cloud: PointCloud) -> float:
        """Edge of the grid in units of the template's radius; of the cloud's own without template."""
        target = self.templates_.get(cloud.category, cloud.pos)
        return self.voxel * diagonal(target) / float((target - target.mean(0)).norm(dim=1).max().clamp_min(1e-12))

    def template(self, category: str) -> repair.Surface:
        """The class template on its unit sphere, described."""
        target = self.templates_[category]
        kept = self._surfaces.get(category)
        if kept is None or kept[0] is not target:
            self._made = {key: made for key, made in self._made.items() if key[0] != category}
            own = PointCloud(target, category=category)
            kept = self._surfaces[category] = (target, repair.surface(self.place(own), self._edge(own)))
        return kept[1]

    def _amounts(self) -> variations.Amounts:
        return variations.Amounts(self.stretch, self.turn * torch.pi / 180, self.noise, self.seen, self.asked)

    def augment(self, cloud: PointCloud) -> PointCloud:
        """`variants` variations, side by side."""
        return self.varied(cloud, self.variants, self.generator)

    def varied(self, cloud: PointCloud, count: int, generator: torch.Generator) -> PointCloud:
        """Some of the pool of variations of a prepared cloud, with factors, see `toolkit.nn.variations.variation`."""
        numbers = torch.randperm(self.pool, generator=generator).repeat(-(-count // self.pool))[:count]
        found = [self._variation(cloud, number) for number in numbers.tolist()]
        facts = {name: torch.cat([f[name] for f in found]) for name in found[0]}
        result = PointCloud(facts.pop("at"))
        for name, value in facts.items():
            result[name] = value
        return result.update_facts(cloud)

    def _variation(self, cloud: PointCloud, number: int) -> dict[str, Tensor]:
        self.template(cloud.category)  # a new template makes variations anew
        key = (cloud.category, cloud.sample_id, number)
        if key not in self._made:
            with seeded(self.seed, cloud.sample_id, number):
                generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            kind = 0 if number < self.healthy * self.pool else 1 + number % len(self.kinds)
            self._made[key] = self._varied_anew(cloud, kind, generator)
        return self._made[key]

    def _varied_anew(self, cloud: PointCloud, kind: int, generator: torch.Generator) -> dict[str, Tensor]:
        template = self.template(cloud.category)
        made = variations.damage(cloud.pos, cloud.normal, (variations.NONE, *self.kinds), kind, generator)
        return variations.variation(cloud.pos, cloud.normal, made, template.pos, template.normal, self._amounts(),
                                    generator)  # fmt: skip

    def loss_of(self, output: VAEOutput) -> Tensor:
        """The weighted sum of all terms."""
        weight = {"defect": self.field, "present": self.field, "chamfer": self.chamfer, "kl": self.beta,
                  "tc": self.beta * self.tc, "hsic": self.hsic, "correlation": self.correlation,
                  "class": self.label, "null": self.null, "swap": self.swap}  # fmt: skip
        return torch.stack([weight.get(name, 1.0) * term for name, term in output.terms.items()]).sum()

    def optimizer_step(self) -> None:
        """Adam with a rate that falls to nothing over a task by a cosine."""
        done = (self.clock.train_exp_epochs + 0.5) / self.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * done)) / 2
        super().optimizer_step()

    def _after_training_exp(self, **kwargs: Any) -> None:
        super()._after_training_exp(**kwargs)
        self.keep_normal(self._raw)

    @torch.no_grad()
    def keep_normal(self, clouds: Sequence[PointCloud]) -> None:
        """Residuals and defect codes of normal clouds, and codes of learned defects to generate others from."""
        self.model.eval()
        learned: dict[str, Tensor] = dict(vars(self).get("codes_", {}))
        for category in sorted({c.category for c in clouds}):
            own = [self.prepared(c).update_facts(c) for c in clouds if c.category == category]
            rows = torch.cat([torch.cat([s.pos, d], 1) for s, d in self._normal(own)])
            self.voters_ = {**vars(self).get("voters_", {}), category: rows}
            kinds, mean = self._codes_of_pool(own[0])
            self.normal_codes_ = {**vars(self).get("normal_codes_", {}), category: mean[kinds == 0]}
            for kind, name in enumerate(self.kinds, 1):
                learned[name] = torch.cat([mean[kinds == kind], learned.get(name, mean[:0])])[:STORED]
        self.codes_ = {name: codes for name, codes in learned.items() if len(codes)}

    def _codes_of_pool(self, prepared: PointCloud) -> tuple[Tensor, Tensor]:
        """Kinds (V,) and means of defect codes (V, D) of a cloud's variations."""
        varied = self.varied(prepared, self.pool, torch.Generator().manual_seed(self.seed))
        return varied.kind, self.codes(varied.seen.unflatten(0, (-1, 2 * self.seen)))[2].mean

    def _normal(self, clouds: list[PointCloud]) -> list[tuple[repair.Surface, Tensor]]:
        """Normal clouds and their residuals. The template's own are 0 and left out.

        A template that is alone is compared with itself, every second point with the others.
        """
        template = self.template(clouds[0].category)
        if len(clouds) > 1:
            others = [c for c in clouds if repair.misfit(c.grid, template.pos, template.voxel) > SAME]
            return [self._compared(cloud) for cloud in others or clouds]
        own = self.place(PointCloud(self.templates_[clouds[0].category], category=clouds[0].category))
        halves = [repair.surface(own[i::2], template.voxel) for i in range(2)]
        return [(a, repair.differences(a, b, matches=self.matches)) for a, b in (halves, halves[::-1])]

    def codes(self, seen: Tensor) -> tuple[Posterior, ...]:
        """Posteriors of shape, pose and defect of (B, 2 * seen, 8) evidence."""
        net: Any = self.model
        return tuple(Posterior(p.mean.cpu(), p.logvar.cpu()) for p in net.vae.encode(seen.to(self.device)))

    def evidence(self, prepared: PointCloud) -> Tensor:
        """(2 * seen, 8) what the encoder sees of a prepared cloud; always the same for the same cloud."""
        template = self.template(prepared.category)
        generator = torch.Generator().manual_seed(self.seed)
        return variations.seen(prepared.grid, template.pos, template.normal, self.seen, generator)

    def repairs(self, prepared: PointCloud) -> dict[str, Tensor]:
        """(M, 3) template as it is, turned, deformed, and both, as the cloud's codes say, without its defect."""
        net: Any = self.model
        shape, pose, _ = (p.mean.to(self.device) for p in self.codes(self.evidence(prepared)[None]))
        still = self.template(prepared.category).pos
        moved = still + net.vae.deform(still[None].to(self.device), shape)[0].cpu()
        turn = net.vae.turn(pose)[0].cpu().mT
        return {"template": still, "turned": still @ turn, "deformed": moved, "decoded": moved @ turn}

    def _compared(self, prepared: PointCloud) -> tuple[repair.Surface, Tensor]:
        template = self.template(prepared.category)
        seen = repair.surface(prepared.grid, template.voxel, thin=False)
        found = self.repairs(prepared)
        name: str = self.repaired
        if name == "best":
            name = min(found, key=lambda n: repair.misfit(seen.pos, found[n], template.voxel))
        target = template if name == "template" else repair.surface(found[name], template.voxel, thin=False)
        return seen, repair.differences(seen, target, matches=self.matches)

    @torch.no_grad()
    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Difference from the repaired cloud; zeros before training and for a class without template."""
        cloud.check()
        rows = vars(self).get("voters_", {}).get(cloud.category)
        if rows is None:
            return AnomalyMap(torch.zeros(cloud.pos.shape[0]), 0.0)
        prepared = self.prepared(cloud)
        seen, voters = self._compared(prepared)
        voters = deviations(voters, seen.pos, rows, nearby=self.nearby, floor=self.floor).clamp_min(0)
        place = voters.topk(2, dim=1).values.mean(1)
        score = float(place.topk(max(1, round(self.top_share * len(place)))).values.mean())
        if self.code_weight:
            score += self.code_weight * self.strangeness(prepared)
        return AnomalyMap(repair.carried(place, seen, self.place(cloud)), score)

    @torch.no_grad()
    def strangeness(self, prepared: PointCloud) -> float:
        """Root mean square of the defect codes in deviations from those of normal clouds (a diagonal Mahalanobis)."""
        normal = self.normal_codes_[prepared.category]
        code = self.codes(self.evidence(prepared)[None])[2].mean[0]
        return float(((code - normal.mean(0)) / normal.std(0).clamp_min(1e-3)).square().mean().sqrt())

    @torch.no_grad()
    def known_factors(self, clouds: Sequence[PointCloud], count: int, seed: int = 0) -> tuple[dict[str, Any], Any]:
        """Codes (count, D) of each group, and the table of factors, of fresh variations of normal clouds.

        Args:
            clouds: raw normal clouds of classes that have a template.
            count: variations in all.
            seed: of the variations; those of training have others.
        """
        import pandas as pd

        generator, rows, seen = torch.Generator().manual_seed(seed), [], []
        for number in range(count):
            cloud = self.prepared(clouds[number % len(clouds)])
            kind = int(torch.randint(1 + len(self.kinds), (), generator=generator))
            facts = self._varied_anew(cloud, kind, generator)
            seen.append(facts["seen"])
            rows.append(variations.factors(facts))
        self.model.eval()
        found = self.codes(torch.stack(seen))
        return {name: p.mean.numpy() for name, p in zip(GROUPS, found, strict=True)}, pd.DataFrame(rows)

    def disentanglement(self, clouds: Sequence[PointCloud], count: int = 600, seed: int = 0) -> dict[str, Any]:
        """All disentanglement metrics of all codes, and how well each group tells each factor.

        Returns:
            ``metrics`` by name and the table ``groups``, see `toolkit.metrics.factors`.
        """
        from toolkit.metrics import factors

        codes, table = self.known_factors(clouds, count, seed)
        levels = factors.levels(table, 4)
        every = torch.cat([torch.from_numpy(c) for c in codes.values()], 1).numpy()
        return {"metrics": factors.disentanglement(every, levels, seed),
                "groups": factors.told_by_groups(codes, levels, list(table.columns), seed)}  # fmt: skip

    def defects_of(self, kind: str) -> LearnedDefect:
        """A generator of learned defects, with the interface of `toolkit.defects`.

        Raises:
            HyperparameterError: the method is not trained, or has not learned that kind.
        """
        stored: dict[str, Tensor] = vars(self).get("codes_", {})
        if kind not in stored:
            raise HyperparameterError(f"DisentangledVAE: no learned defect {kind!r}; there are "
                                      f"{', '.join(stored) or 'none before training'}.")  # fmt: skip
        return LearnedDefect(kind=kind, net=cast(Any, self.model).vae, codes=stored[kind])

    @torch.no_grad()
    def decoded(self, category: str, code: Tensor) -> tuple[Tensor, Tensor]:
        """The class template with a code, for `toolkit.plots.latent_traversal`.

        Args:
            category: a class that has a template.
            code: (shape + pose + defect,) codes.

        Returns:
            (M, 3) points that are there, on the template's unit sphere, and (M,) how far each moved.
        """
        net, still = cast(Any, self.model), self.template(category)
        codes = code[None].to(self.device).split((self.shape, self.pose, self.defect), 1)
        placed, there = net.vae.decode(still.pos[None].to(self.device), still.normal[None].to(self.device), codes)
        pos = placed[0].cpu()
        kept = there[0].cpu() > 0
        return pos[kept], (pos - still.pos).norm(dim=1)[kept]

    def pseudo_anomaly(self, cloud: PointCloud, kind: str, *, severity: float | None = None,
                       seed: int = 0) -> PointCloud:  # fmt: skip
        """A labelled copy of a normal cloud with a learned defect, for open-set methods to train on.

        Args:
            cloud: a normal cloud of a class that has a template.
            kind: one of `kinds`.
            severity: in [0, 1]; drawn if None.
            seed: of place and form.
        """
        generator = torch.Generator().manual_seed(seed)
        placed = self.place(cloud)
        made = self.defects_of(kind)(placed, None, generator, severity=severity)
        centre, radius = self._frame(cloud, placed)
        return PointCloud(made.pos * radius + centre, category=cloud.category, subcategory=cloud.subcategory,
                          sample_id=f"{cloud.sample_id}#{kind}{seed}", group_id=cloud.group_id, y=1,
                          point_y=made.point_y, defect=kind)  # fmt: skip

    def _frame(self, cloud: PointCloud, placed: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and radius that carry placed points into the template's unit, or the cloud's own without template."""
        target = self.templates_.get(cloud.category, cloud.pos)
        centre = target.mean(0)
        return centre, (target - centre).norm(dim=1).max()
