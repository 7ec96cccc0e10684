"""Mentor3AD: two views of a place rebuild each other under the guidance of what they share.

Paper: "Mentor3AD: Feature Reconstruction-based 3D Anomaly Detection via Multi-modality Mentor Learning", 2025 (arXiv
2505.21420, whose full text was not at hand; there is no code). Built on CFM (Costanzino et al., CVPR 2024) and M3DM
(Wang et al., CVPR 2023), whose code was read.

Known
  [verified: abstract] RGB and points, trained on normals alone. A mentor of fusion merges both into a mentor feature; a
      mentor of guidance rebuilds each modality from the other and the mentor; a voting module makes the score.
  [secondary source] mentor = MLP(MLP(rgb) + MLP(xyz)), trained by InfoNCE over patches.
  [verified: code of CFM] frozen DINO and Point-MAE; three-layer GELU MLPs; 1 - cosine; distance of unit vectors.
Inferred, and so arguments: widths, temperature, dropout of the mentor (``mentor``, ``embed``, ``hidden``, ...), voters
  and their rule (``vote``), which statistics they are measured by (``statistics``), training all parts at once with
  no gradient from guidance to mentor. InfoNCE between the two views alone would leave the fusing layers untrained;
  here the mentor, too, must name the place of both views.

Differences
* A place is a neighbourhood of a cloud, not a pixel (`toolkit.nn.modalities`), so the method runs on any cloud. With
  ``first="dino", dino=PATH`` (organised clouds, preset "paper") or ``first="color"`` (any colours, no network) and
  ``second="tokens"`` it pairs colour with shape as published; the default pairs two geometric views where there is no
  colour: hand-made FPFH with learned Point-MAE tokens. That is an adaptation, not the published setting.
* Two networks, each trained without every second cloud of a class: the residuals of the clouds that a network has not
  seen are the statistics of normals that voters are standardised by, and the score is the mean of both networks.
* ``statistics="place"``: mean and deviation over the 24 held-out residuals nearest in the pose of the class template;
  edges and thin walls never rebuild well. "global": one mean and deviation per class.
* Point scores are smoothed and interpolated; the object's is the mean of the highest 1 % (CFM: the maximum of a map).

Tried and measured on real scans (Anomaly-ShapeNet layout, 8,192 points; object / point AUROC; views FPFH and tokens).
One model per class, defaults, eight classes: .895 / .931; banana 1.000/.961, bolt .760/.901, bowl .933/.910, clamp
.808/.943, hammer .952/.971, mug .808/.859, pitcher .913/.985, screwdriver .990/.918. Before that, in a sketch of the
method (512 steps, clamp and bowl): tokens rebuilt from FPFH alone, by place .760/.900 and .981/.943, by one statistic
of the class .779/.778 and .990/.932, the other way round .779/.875 and .904/.737, by place; the mentor's own
disagreement .654/.862 and .760/.654; votes mixed .750/.919 and .904/.866, mean .788/.920 and .894/.878. So the voters
agree on clamp and the better of them is alone better on bowl; mixed stayed. They were chosen with these test scans in
sight, so the figures are a little optimistic. The ablation without a mentor (``mentor=0``): bowl .933/.911, clamp
.788/.941, mug .798/.852, with it .933/.910, .808/.943, .808/.859: the mentor adds a hundredth at most.
Scoring took 14 s per cloud in that run on a machine shared by many; it is 1.3 s of processor time, half of it
registration, a third Point-MAE, and 0.1 s for a cloud that is prepared already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn import mentor as parts
from toolkit.nn import modalities
from toolkit.nn.dino import Dino, load_dino
from toolkit.nn.place_statistics import deviations
from toolkit.nn.point_mae import PointMAE, load_point_mae
from toolkit.nn.registered import RegisteredStrategy
from toolkit.ops import diagonal, interpolate, knn, smooth
from toolkit.store import key_of
from toolkit.strategy import Output, at_least, one_of
from toolkit.tuning.space import Categorical, Float, Int, Space

__all__ = ["Mentor3AD"]

NETWORKS = 2
"""One more would cost half as much again and train each on more of the clouds; two share four clouds evenly."""
VIEWS = ("fpfh", "tokens", "color", "dino")


class MeetingOutput(Output):
    """Rebuilt views side by side (rows, A + B) and the networks' meetings."""

    def __init__(self, meetings: list[parts.Meeting]):
        super().__init__(torch.cat([torch.cat([m.rebuilt_first, m.rebuilt_second], 1) for m in meetings]))
        self.meetings = meetings


class _Net(nn.Module):
    first_mean: Tensor
    first_std: Tensor
    second_mean: Tensor
    second_std: Tensor

    def __init__(self, first: int, second: int, **sizes: Any):
        super().__init__()
        self.pairs = nn.ModuleList([parts.Pair(first, second, **sizes) for _ in range(NETWORKS)])
        for name, channels in (("first", first), ("second", second)):
            self.register_buffer(f"{name}_mean", torch.zeros(channels))
            self.register_buffer(f"{name}_std", torch.ones(channels))

    def standardised(self, cloud: Any) -> tuple[Tensor, Tensor]:
        """Both views of a cloud or batch, each channel by its mean and deviation over the first task."""
        first, second = (cloud.first - self.first_mean) / self.first_std, cloud.second - self.second_mean
        return first, second / self.second_std

    def forward(self, batch: CloudBatch) -> MeetingOutput:
        first, second = self.standardised(batch)
        held_out = batch.held_out[batch.batch]
        meetings = []
        for number, pair in enumerate(self.pairs):  # type: ignore[arg-type]
            seen = held_out != number
            if bool(seen.any()):
                meetings.append(pair(first[seen], second[seen]))
        return MeetingOutput(meetings)

    def voters(self, cloud: PointCloud, number: int) -> Tensor:
        """(G, V) disagreements by one of the networks."""
        pair: Any = self.pairs[number]
        return pair.voters(*self.standardised(cloud))


class Mentor3AD(RegisteredStrategy):
    """Cross-modal reconstruction of frozen features under a fused mentor (Mentor3AD, 2025).

    Args:
        first: a view: fpfh, tokens (Point-MAE), color (statistics of the clouds' colours) or dino (needs `dino`).
        second: the other view.
        mentor: channels of the mentor feature; 0 turns the mentor off, which leaves CFM: the ablation that tells
            whether the mentor helps or hands the target over.
        embed: channels of the space in which the views are contrasted.
        hidden: width of the rebuilding MLPs; 0 = the mean of input and output, as in CFM.
        mentor_dropout: share of the mentor's channels hidden from the guidance.
        temperature: of InfoNCE.
        pairs: places contrasted per step and network.
        samples: places of a cloud per step.
        vote: rule of the voting module: mixed (product plus mean of the two largest), product, mean, largest.
        statistics: of normals by which voters are standardised: at the same place of the class, or all together.
        nearby: held-out residuals that make up a place.
        floor: added to a place's deviation, in deviations of the class: so few values may agree by chance.
        voxel: grid on which clouds are described, relative to the diagonal of the class.
        groups: described places per cloud.
        group_size: grid points per Point-MAE token.
        layers: Point-MAE's blocks whose tokens are put side by side; -1 is the token before any attention.
        preset: size of Point-MAE.
        weights: of Point-MAE: shipped, random or the file of a checkpoint.
        dino: file of a DINO checkpoint, for the view dino.
        smooth: mean of so many neighbouring places' scores.
        top_share: of the places' highest scores, whose mean is the object score.
        options: further arguments of `RegisteredStrategy` and `AnomalyStrategy`.
    """

    paper = "Mentor3AD: Feature Reconstruction-based 3D Anomaly Detection via Multi-modality Mentor Learning. 2025"
    prepare_arguments = ("first", "second", "voxel", "groups", "group_size", "layers", "registration")
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(first="dino", second="tokens", mentor=256, embed=256, hidden=0, pairs=1024, groups=1024,
                      samples=1024, group_size=128, preset="paper", layers=(3, 7, 11), epochs=55),
        "tiny": dict(groups=96, group_size=24, samples=64, pairs=32, hidden=24, embed=16, mentor=8, layers=(0,),
                     epochs=4, nearby=8),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "mentor": Categorical((0, 8, 32, 128), source="our choice; 0 is CFM"),
        "hidden": Int(64, 512, log=True, source="CFM: about 1000 on larger features"),
        "mentor_dropout": Float(0.0, 0.8, source="our choice"),
        "temperature": Float(0.05, 1.0, log=True, source="M3DM: 1"),
        "vote": Categorical(parts.VOTES, source="our choice"),
        "nearby": Int(8, 64, log=True, source="our choice"),
        "lr": Float(1e-4, 1e-2, log=True, source="CFM: 1e-3"),
    }

    def __init__(self, *, first: Literal["fpfh", "tokens", "color", "dino"] = "fpfh",
                 second: Literal["fpfh", "tokens", "color", "dino"] = "tokens", mentor: int = 32, embed: int = 128,
                 hidden: int = 256, mentor_dropout: float = 0.5, temperature: float = 0.1, pairs: int = 256,
                 samples: int = 512, vote: parts.Vote = "mixed", statistics: Literal["place", "global"] = "place",
                 nearby: int = 24, floor: float = 0.5, voxel: float = 0.015, groups: int = 1024, group_size: int = 64,
                 layers: tuple[int, ...] = (-1, 1, 3), preset: Literal["compact", "paper"] = "compact",
                 weights: str = "shipped", dino: str = "", smooth: int = 16, top_share: float = 0.01,
                 epochs: int = 200, batch_size: int = 4, lr: float = 1e-3, **options: Any):  # fmt: skip
        self.first, self.second, self.mentor, self.embed, self.hidden = first, second, mentor, embed, hidden
        self.mentor_dropout, self.temperature, self.pairs, self.samples = mentor_dropout, temperature, pairs, samples
        self.vote, self.statistics, self.nearby, self.floor = vote, statistics, nearby, floor
        self.voxel, self.groups, self.group_size, self.layers = voxel, groups, group_size, tuple(layers)
        self.preset, self.weights, self.dino, self.smooth, self.top_share = preset, weights, dino, smooth, top_share
        at_least(self, mentor=0, embed=1, hidden=0, mentor_dropout=0, temperature=1e-6, pairs=2, samples=2, nearby=2,
                 floor=1e-6, voxel=1e-6, groups=2, group_size=3, smooth=1, top_share=0)  # fmt: skip
        one_of(self, first=VIEWS, second=VIEWS, vote=parts.VOTES, statistics=("place", "global"))
        if first == second or mentor_dropout >= 1 or (dino == "" and "dino" in (first, second)):
            raise HyperparameterError(
                f"Mentor3AD: expected two different views, mentor_dropout below 1, and for the view dino the path of "
                f"its checkpoint; got first={first!r}, second={second!r}, mentor_dropout={mentor_dropout}, "
                f"dino={dino!r}."
            )
        wanted, seed = (first, second), int(options.get("seed", 0))
        self._points: PointMAE | None = load_point_mae(weights, preset, seed=seed) if "tokens" in wanted else None
        self._image: Dino | None = load_dino(dino) if "dino" in wanted else None
        self._frozen_key = key_of(*(None if m is None else m.state_dict() for m in (self._points, self._image)))
        super().__init__(epochs=epochs, batch_size=batch_size, lr=lr, **options)
        for frozen in (self._points, self._image):
            if frozen is not None:
                frozen.to(self.device)

    def build(self) -> nn.Module:
        """Both networks; sizes follow from the views."""
        size = {"fpfh": 33, "color": 21, "tokens": self._points.dim * len(self.layers) if self._points else 0,
                "dino": self._image.norm.normalized_shape[0] if self._image else 0}  # fmt: skip
        return _Net(size[self.first], size[self.second], mentor=self.mentor, embed=self.embed, hidden=self.hidden,
                    dropout=self.mentor_dropout)  # fmt: skip

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Keep templates, decide which network does without which cloud, standardise views by the first task."""
        super().meet(clouds)
        self.held_out_: dict[str, int] = vars(self).get("held_out_", {})
        for category in {c.category for c in clouds}:
            names = sorted({c.sample_id for c in clouds if c.category == category})
            for i, name in enumerate(names):  # a lone cloud is seen by both: its class has no held-out statistics
                self.held_out_[name] = i % NETWORKS if len(names) > 1 else NETWORKS
        if not hasattr(self, "standardised_"):
            net: Any = self.model
            for view in ("first", "second"):
                feature = torch.cat([self.prepared(cloud)[view] for cloud in clouds])
                getattr(net, f"{view}_mean").copy_(feature.mean(0))
                getattr(net, f"{view}_std").copy_(feature.std(0).clamp_min(1e-6))
            self.standardised_ = True

    def prepare_key(self, cloud: PointCloud) -> str:
        """The template, and the frozen networks."""
        return super().prepare_key(cloud) + self._frozen_key

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """``pos`` (G, 3) described places, ``placed`` (G, 3) in the template's pose, ``first``, ``second`` (G, C)."""
        template = self.templates_.get(cloud.category)
        size = diagonal(cloud.check(minimum=3).pos if template is None else template)
        at = modalities.places(cloud, size, self.voxel, self.groups, self.group_size)
        nearest = knn(cloud.pos, at.pos, 1)[0][:, 0]
        first, second = (self._view(name, at) for name in (self.first, self.second))
        return PointCloud(at.pos, placed=self.place(cloud)[nearest], first=first, second=second)

    def _view(self, name: str, at: modalities.Places) -> Tensor:
        if name == "fpfh":
            return modalities.histograms(at)
        if name == "color":
            return modalities.color(at)
        if name == "tokens":
            assert self._points is not None
            return modalities.tokens(at, self._points, self.layers, self.device)
        assert self._image is not None
        return modalities.image_tokens(at, self._image, device=self.device)

    def augment(self, cloud: PointCloud) -> PointCloud:
        """A random choice of the places, and which network must not see them."""
        rows = torch.randperm(cloud.pos.shape[0], generator=self.generator)[: self.samples]
        number = self.held_out_.get(cloud.sample_id, NETWORKS)
        return PointCloud(cloud.pos[rows], first=cloud.first[rows], second=cloud.second[rows],
                          held_out=torch.tensor([number])).update_facts(cloud)  # fmt: skip

    def loss_of(self, output: MeetingOutput) -> Tensor:
        """Guidance, and fusion where there is a mentor; mean over the networks."""
        losses = [parts.guidance_loss(met) for met in output.meetings]
        if self.mentor:
            losses += [parts.fusion_loss(met, self.temperature, self.pairs) for met in output.meetings]
        return torch.stack(losses).sum() / len(output.meetings)

    def optimizer_step(self) -> None:
        """Adam with a rate that falls to nothing over a task by a cosine: residuals stand still when measured."""
        done = (self.clock.train_exp_epochs + 0.5) / self.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * done)) / 2
        super().optimizer_step()

    def _after_training_exp(self, **kwargs: Any) -> None:
        super()._after_training_exp(**kwargs)
        self.keep_voters(self._raw)

    @torch.no_grad()
    def keep_voters(self, clouds: Sequence[PointCloud]) -> None:
        """Residuals of training clouds by the network that has not seen them; they replace those of their classes."""
        net: Any = self.model.eval()
        found: dict[str, list[Tensor]] = {}
        for cloud in clouds:
            described, held_out = self.prepared(cloud), self.held_out_[cloud.sample_id]
            at = described.clone_shallow().to(self.device)
            numbers = range(NETWORKS) if held_out == NETWORKS else [held_out]
            residual = torch.stack([net.voters(at, n) for n in numbers]).mean(0).cpu()
            found.setdefault(cloud.category, []).append(torch.cat([described.placed.cpu(), residual], 1))
        self.voters_ = {**self._voters(), **{c: torch.cat(rows) for c, rows in found.items()}}

    def _voters(self) -> dict[str, Tensor]:
        """Category -> (P, 3 + V): held-out places in the template's pose, and their residuals."""
        return vars(self).get("voters_", {})

    def standardised_voters(self, described: PointCloud, category: str) -> Tensor:
        """(G, V) voters of a prepared cloud in deviations from normal clouds of its class, of all classes if new."""
        net: Any = self.model
        at = described.clone_shallow().to(self.device)
        voters = torch.stack([net.voters(at, n) for n in range(NETWORKS)]).mean(0).cpu()
        known = self._voters().get(category)
        rows = torch.cat(list(self._voters().values())) if known is None else known
        place = self.statistics == "place" and known is not None
        return deviations(voters, described.placed.cpu(), rows, nearby=self.nearby if place else 0, floor=self.floor)

    @torch.no_grad()
    def score(self, cloud: PointCloud) -> AnomalyMap:
        """What the voters say of each place, smoothed and carried to all points; zeros before any training."""
        if not self._voters():
            return AnomalyMap(torch.zeros(cloud.check().pos.shape[0]), 0.0)
        described = self.prepared(cloud)
        place = parts.vote(self.standardised_voters(described, cloud.category), self.vote)
        place = smooth(place, described.pos, k=min(self.smooth, len(place)))
        count = max(1, round(self.top_share * len(place)))
        point = interpolate(place, described.pos, cloud.pos.cpu(), k=min(3, len(place)))
        return AnomalyMap(point.float(), float(place.topk(count).values.mean()))
