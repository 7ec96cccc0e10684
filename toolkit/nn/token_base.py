"""Base of the open-set baselines: heads trained on frozen tokens of normal, known defective and pseudo-defective ones.

As in the 3D versions of DRA and DevNet that the code of Open3D-AD compares with (verified there): frozen Point-MAE
tokens, Norm-AS pseudo anomalies drawn in place of some of the normal clouds, token scores carried to the points.

Different: tokens of neighbourhoods in their own frames, so that no registration is needed; tokens standardised by those
of the first task; pseudo anomalies on unit-scaled clouds, several copies of each normal cloud instead of one for good;
labels of the known defects' tokens, where a method asks for them, from the point labels. And, by default, a token is
seen as its difference to the nearest token of other normal clouds of its class (``residual``): residual features as in
ResAD (Yao et al., NeurIPS 2024). A head on the tokens themselves has to learn from four clouds what is normal at every
place of a part, and stayed near chance on real scans.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.defects.norm_as import NormAS
from toolkit.nn.grouping import group
from toolkit.nn.point_mae import load_point_mae
from toolkit.nn.registered import RegisteredStrategy
from toolkit.ops import bank_nearest, diagonal, interpolate, knn, smooth, voxel_downsample
from toolkit.prepared import content_hash
from toolkit.store import key_of
from toolkit.strategy import at_least

NORMAL, KNOWN, PSEUDO = 0, 1, 2
"""What a training cloud is: ``batch.kind`` (B,)."""


class TokenStrategy(RegisteredStrategy):
    """Gives the network batches of ``tokens`` (sum G, C), ``share`` (sum G,) of defective points, ``kind`` (B,).

    A method gives ``build`` and ``loss_of`` as any trained method, and ``token_scores(prepared)``.

    Args:
        weights: of the frozen Point-MAE: shipped, random, or a file.
        backbone: its size: compact or paper.
        layers: blocks whose tokens are put side by side; -1 is the token before any attention.
        groups: tokens per cloud, at most one per described point.
        group_size: described points per token.
        voxel: grid on which clouds are described, relative to the diagonal of the class.
        pseudo: Norm-AS copies made of each normal training cloud.
        pseudo_rate: share of the normal clouds of a step in whose place a copy is drawn.
        pseudo_defects: anomalies put into each copy.
        residual: see a token as its difference to the nearest of `references` normal tokens of its class.
        references: normal tokens kept per class for that, evenly spaced.
        smooth: mean of the scores of that many neighbouring tokens.
        spread: tokens from which a point takes its score.
        options: further arguments of `RegisteredStrategy` and `AnomalyStrategy`.
    """

    uses_known_defects = True
    survives_restart = (*RegisteredStrategy.survives_restart, "references_")
    prepare_arguments: ClassVar[tuple[str, ...]] = ("registration", "backbone", "layers", "groups", "group_size",
                                                    "voxel")  # fmt: skip

    def __init__(self, *, weights: str = "shipped", backbone: str = "compact", layers: tuple[int, ...] = (-1, 1, 3),
                 groups: int = 512, group_size: int = 64, voxel: float = 0.015, pseudo: int = 4,
                 pseudo_rate: float = 0.5, pseudo_defects: int = 1, residual: bool = True,
                 references: int = 2048, smooth: int = 8, spread: int = 3, registration: bool = False,
                 **options: Any):  # fmt: skip
        self.weights, self.backbone, self.layers = weights, backbone, tuple(layers)
        self.groups, self.group_size, self.voxel = groups, group_size, voxel
        self.pseudo, self.pseudo_rate, self.pseudo_defects = pseudo, pseudo_rate, pseudo_defects
        self.residual, self.references, self.smooth, self.spread = residual, references, smooth, spread
        at_least(self, groups=4, group_size=4, voxel=1e-6, pseudo=0, pseudo_rate=0, pseudo_defects=1, references=1,
                 smooth=1, spread=1)  # fmt: skip
        self._encoder = load_point_mae(weights, backbone, seed=options.get("seed", 0))
        self._encoder_key = key_of(self._encoder.state_dict())
        self._copies: OrderedDict[str, list[PointCloud]] = OrderedDict()
        super().__init__(registration=registration, **options)
        self.references_: dict[str, list[Tensor]] = {}

    @property
    def channels(self) -> int:
        """C, of the tokens."""
        return self._encoder.dim * len(self.layers)

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """Keep templates; standardise tokens by those of the first task's normal clouds."""
        normal = [c for c in clouds if not is_defective(c)] or list(clouds)
        super().meet(normal)
        found = {c: [self.prepared(x).tokens for x in normal if x.category == c] for c in {x.category for x in normal}}
        for category, parts in found.items() if self.residual else ():
            rows = max(1, self.references // len(parts))
            self.references_[category] = [part[:rows] for part in parts]  # farthest first: the first cover the cloud
        if not hasattr(self, "token_mean_"):
            tokens = torch.cat([self._seen(part, c, part) for c, parts in found.items() for part in parts])
            self.token_mean_, self.token_std_ = tokens.mean(0), tokens.std(0).clamp_min(1e-6)

    def _seen(self, tokens: Tensor, category: str, own: Tensor | None = None) -> Tensor:
        """(G, C) tokens as the network sees them, before standardising.

        Args:
            tokens: (G, C).
            category: of their cloud; one never trained on is compared with all classes.
            own: tokens of the training cloud that they come from, which is no reference for itself.
        """
        if not self.residual or not self.references_:
            return tokens
        kept = self.references_.get(category) or [part for parts in self.references_.values() for part in parts]
        others = [part for part in kept if own is None or not torch.equal(part, own[: part.shape[0]])]
        if not others:  # a class's only cloud: each token against the nearest other one
            return tokens - kept[0][bank_nearest(kept[0], tokens, k=2)[1][:, -1]]
        rows = torch.cat(others)
        return tokens - rows[bank_nearest(rows, tokens)[1][:, 0]]

    def prepare_key(self, cloud: PointCloud) -> str:
        """The template, which decides pose and scale, and the backbone's weights."""
        return super().prepare_key(cloud) + self._encoder_key

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """Tokens and where they are.

        ``pos`` (G, 3) centres in the cloud's frame, ``place`` (G, 3) the same in the template's; ``tokens`` (G, C);
        ``grid`` (M, 3) the described points in the template's frame; ``owner`` (N,) the token nearest to each point.
        """
        cloud.check(minimum=8)
        size = diagonal(self.templates_.get(cloud.category, cloud.pos)) or diagonal(cloud.pos)
        points = voxel_downsample(cloud.pos, self.voxel * size)
        grid = self.place(cloud, points)
        rows, made = self._encode(grid)
        made.pos, made.grid = points[rows], grid
        made.owner = knn(made.pos, cloud.pos, 1)[0][:, 0].int()
        return made

    def _encode(self, grid: Tensor) -> tuple[Tensor, PointCloud]:
        """Rows of the centres (G,) and a cloud of ``place``, ``tokens`` and each centre's ``patch`` (G, K)."""
        count = grid.shape[0]
        found = group(grid, min(self.groups, count), min(self.group_size, count), scale="none", frame="local")
        encoder = self._encoder.to(self.device)
        tokens = encoder(found.centre[None].to(self.device), found.neighbours[None].to(self.device), self.layers)
        place = grid[found.rows]
        return found.rows, PointCloud(place, place=place, tokens=torch.cat(tokens, 2)[0].float().cpu())

    def augment(self, cloud: PointCloud) -> PointCloud:
        """What the network trains on: the cloud's tokens, or those of one of its Norm-AS copies."""
        if is_defective(cloud):
            return self._example(cloud, KNOWN, token_share(cloud))
        if self.pseudo and float(torch.rand((), generator=self.generator)) < self.pseudo_rate:
            copies = self._copies_of(cloud)
            drawn = copies[int(torch.randint(len(copies), (), generator=self.generator))]
            return self._example(drawn, PSEUDO, drawn.share, cloud)
        return self._example(cloud, NORMAL, torch.zeros(cloud.tokens.shape[0]))

    def _example(self, cloud: PointCloud, kind: int, share: Tensor, named: PointCloud | None = None) -> PointCloud:
        """A prepared cloud, or a copy made of the normal one `named`, as the network sees it."""
        named = cloud if named is None else named
        seen = self._seen(cloud.tokens, named.category, named.tokens)
        tokens = (seen - self.token_mean_) / self.token_std_
        return PointCloud(cloud.place, tokens=tokens, share=share, kind=torch.tensor([kind]), category=named.category,
                          sample_id=named.sample_id, group_id=named.group_id)  # fmt: skip

    def _copies_of(self, cloud: PointCloud) -> list[PointCloud]:
        """Norm-AS copies of a prepared normal cloud, made once: encoding them is what takes time."""
        key = content_hash(cloud)
        if key not in self._copies:
            generator = torch.Generator().manual_seed(self.seed)
            defect = NormAS(parts=max(2, min(64, cloud.grid.shape[0] // 8)))
            made = []
            for _ in range(self.pseudo):
                grid, wrong = cloud.grid, torch.zeros(cloud.grid.shape[0], dtype=torch.bool)
                for _ in range(self.pseudo_defects):
                    result = defect(grid, None, generator)
                    grid, wrong = result.pos, wrong | result.point_y
                with torch.no_grad():
                    rows, copy = self._encode(grid)
                owner = knn(grid[rows], grid, 1)[0][:, 0]
                copy.share = mean_by_owner(wrong, owner, rows.shape[0])
                made.append(copy)
            self._copies[key] = made
            if len(self._copies) > 512:
                self._copies.popitem(last=False)
        return self._copies[key]

    def ready(self, cloud: PointCloud) -> Any:
        """A prepared cloud as a batch of one for the network, its tokens standardised."""
        shares = torch.zeros(cloud.tokens.shape[0])
        return CloudBatch.collate([self._example(cloud, NORMAL, shares)]).to(self.device)

    def token_scores(self, batch: CloudBatch, category: str) -> tuple[Tensor, float | None]:
        """(G,) scores of the tokens of one cloud, and the object's score; None: mean of the highest tenth of them."""
        raise NotImplementedError

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Token scores, smoothed and carried to the points; zeros before any training."""
        if not hasattr(self, "token_mean_"):
            return AnomalyMap(torch.zeros(cloud.check().pos.shape[0]), 0.0)
        prepared = self.prepared(cloud)
        with torch.no_grad():
            value, whole = self.token_scores(self.ready(prepared), cloud.category)
        value = smooth(value.float().cpu(), prepared.pos, k=min(self.smooth, value.shape[0]))
        if whole is None:
            whole = float(value.topk(max(1, math.ceil(0.1 * value.shape[0]))).values.mean())
        return AnomalyMap(interpolate(value, prepared.pos, cloud.pos, k=self.spread).float(), whole)


def is_defective(cloud: PointCloud) -> bool:
    """Whether a training cloud is a known defect."""
    return "y" in cloud and bool(cloud.y)


def token_share(cloud: PointCloud) -> Tensor:
    """(G,) share of defective points among those nearest to each token of a prepared, labelled cloud."""
    return mean_by_owner(cloud.point_y, cloud.owner.long(), cloud.tokens.shape[0])


def mean_by_owner(value: Tensor, owner: Tensor, count: int) -> Tensor:
    """(count,) means of (N,) values by owner; 0 for an owner of nothing."""
    total = torch.zeros(count).index_add_(0, owner, value.float())
    return total / owner.bincount(minlength=count).clamp_min(1)


def deviation_loss(score: Tensor, anomalous: Tensor, *, margin: float = 5.0, prior: int = 5000) -> Tensor:
    """Deviation loss (Pang et al., KDD 2019): normal scores at the mean of N(0, 1) draws, others `margin` above it.

    ``dev = (score - mean) / std`` of `prior` draws; the loss is ``|dev|`` for normal and ``max(0, margin - dev)`` for
    anomalous items, averaged.

    Args:
        score: (B,).
        anomalous: (B,) bool.
    """
    # the draws are the reference, not noise: always the same ones, so that the loss is a function of its arguments
    drawn = torch.randn(prior, generator=torch.Generator().manual_seed(0))
    deviation = (score - float(drawn.mean())) / float(drawn.std())
    return torch.where(anomalous, (margin - deviation).clamp_min(0), deviation.abs()).mean()


def token_deviation_loss(score: Tensor, share: Tensor, *, theta: float = 0.3, margin: float = 5.0) -> Tensor:
    """`deviation_loss` of single tokens (ours): normal and anomalous ones weigh alike, however few the latter are.

    Args:
        score: (G,) of the tokens.
        share: (G,) of defective points; tokens with none are normal, those above `theta` anomalous, others left out.
    """
    normal, wrong = share == 0, share > theta
    kinds = [(score[kept], kept is wrong) for kept in (normal, wrong) if bool(kept.any())]
    losses = [deviation_loss(part, torch.full(part.shape, bad, device=part.device), margin=margin)
              for part, bad in kinds]  # fmt: skip
    return torch.stack(losses).mean() if losses else score.sum() * 0


def top_mean(value: Tensor, share: float) -> Tensor:
    """(H,) means of the highest `share`, at least one, of each column of (G, H) values."""
    return value.topk(max(1, math.ceil(share * value.shape[0])), dim=0).values.mean(0)


def top_means(value: Tensor, ptr: Tensor, share: float) -> Tensor:
    """(B, H) `top_mean` of each cloud's part of (sum G, H) values; cloud b has rows ptr[b] to ptr[b + 1]."""
    return torch.stack([top_mean(part, share) for part in value.split(ptr.diff().tolist())])
