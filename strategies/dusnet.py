"""DUS-Net: down to centres without the anomaly, up to a dense normal cloud; what lies off it is anomalous.

Paper: Liang et al., "Taming Anomalies with Down-Up Sampling Networks" (DUS-Net), ACM MM 2025, arXiv 2507.03903.
Only its abstract and the pipeline figure could be read; there is no code.

Verified (abstract, figure): noise generation makes noisy patches around centres; Down-Net = PointNet per patch,
Transformer, MLP to the centre that the clean patch has; its loss compares predicted and true centres by Chamfer
distance, mean squared distance and cosine; features are aggregated at G, G/2 and G/4 centres, carried back to all G,
pass three layers each (widths of the figure), are fused in two steps and become r points per centre: Up-Net; its loss
compares them with the down-sampled clean cloud by earth mover's distance and repulsion; score of a point = distance to
the nearest reconstructed point, object score = the maximum. Published: Anomaly-ShapeNet objects .795, points .847.

Inferred, everything else: formula and ranges of the noise (`toolkit.defects.patch_noise`), G, K, r, depth and width,
loss weights (1; repulsion 0.1, lengths in units of 0.05 radii), what is trained when (the Down-Net alone first, the
Up-Net on its detached centres), no noise at test time (``noise_at_test="jitter"`` is the figure's). The nearest to a
literal reading is ``preset="paper"``: patches at points of the cloud itself, centres predicted relative to those, no
short cut, nothing smoothed or calibrated. It has not been trained by us.

Different by default (the preset "small", for a minute of a CPU core per class), each of them an argument:

* ``anchors="template"``: clouds are laid on the template of their class; patches are cut, and centres and points
  expected, where points of the template are, and the nets predict ways from there. Each patch is seen, and answered, in
  its own axes (normal of the template and what is across it), so that one thing learned holds at every place.
* ``distance="plane"``: to the plane of the six nearest reconstructed points; the spacing of 2,048 points is larger than
  most defects are high.
* ``calibrate``: the mean way of training clouds at the same place is subtracted. They were trained on, so what it holds
  is rather too small. Smoothing over 32 neighbours, object score = mean of the top 1 %.
* pushes from 0.02 radii on, not 0.06, up to four: real defects are flatter.

Measured, the defaults, one model per class of shared/data/scans, seed 0, objects / points: banana0 .923/.967, bolt0
.817/.717, bowl0 .837/.885, clamp0 .817/.914, hammer0 .875/.926, mug0 .779/.882, pitcher0 .846/.879, screwdriver0
.808/.954; mean .838/.890; 17 minutes for all eight on a busy core. Bulges, concavities, bendings and most cracks are
found; missed are, as everywhere where a distance is the score, holes, scratches and broken edges.

What of it the nets do: on these scans, nothing that could be measured. With both nets' last layers at 0, so that the
reconstruction is 2,048 points of the template, the same scores have .840/.889 (banana0 .885/.969, bolt0 .788/.705,
bowl0 .837/.883, clamp0 .798/.913, hammer0 .875/.924, mug0 .865/.885, pitcher0 .837/.877, screwdriver0 .837/.953). The
training clouds of a class seem to be samples of one shape: 0.002 to 0.006 radii are left between them and the template,
mostly noise, and the best centre is where the template has it. Registration, planes and calibration carry the result.

Tried, with single classes: without ``skip`` the error of the centres does not fall within 160 steps. With it it does,
from 0.0062 to 0.0025 radii at clean places and from 0.03 to 0.01 at pushed ones (bowl0, 45 epochs), but real defects,
which are flatter and wider than the pushes, are copied too: bowl0 .82/.85, against .84/.88 without it (before the
template's cloud was left out of the calibration); with eight pushes from 0.005 radii on, 40 epochs of the Down-Net
alone: mug0 .865/.880, clamp0 .808/.909, banana0 .904/.970. Not tried for lack of time: the literal preset, long
schedules, and classes whose normal objects differ in shape, where nets could be worth their while.

The learning rate falls along half a cosine.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import toolkit.ops
from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.defects.patch_noise import PatchNoise, jitter_groups
from toolkit.errors import HyperparameterError
from toolkit.nn.down_up import DownUpNet, DownUpSize, cosine_gap, repulsion
from toolkit.nn.grouping import local_frames
from toolkit.nn.offset_net import random_rotation
from toolkit.nn.placed import less_means, place_means, plane_gap, thinned
from toolkit.nn.registered import RegisteredStrategy
from toolkit.ops.emd import matching
from toolkit.prepared import content_hash
from toolkit.strategy import Output, at_least, one_of
from toolkit.tuning.space import Float, Int, Space

__all__ = ["DUSNet"]

LEAST = 16
"""Points of the smallest cloud that is scored."""
SCANS = 8
"""Training clouds per class whose own distances are averaged."""


class DUSOutput(Output):
    """Predictions for a batch of B clouds: `features` = dense points (B T, 3), and what they are compared with.

    Attributes:
        centre: (B, G, 3) predicted centres.
        dense: (B, T, 3) predicted points.
        true_centre: (B, G, 3).
        target: (B, T, 3) clean clouds.
    """

    def __init__(self, centre: Tensor, dense: Tensor, true_centre: Tensor, target: Tensor):
        super().__init__(dense.flatten(0, 1))
        self.centre, self.dense, self.true_centre, self.target = centre, dense, true_centre, target


class _Net(nn.Module):
    def __init__(self, net: DownUpNet):
        super().__init__()
        self.net = net

    def forward(self, batch: CloudBatch) -> DUSOutput:
        centre, dense = self.net(batch.patch, batch.middle, batch.start, batch.frame)
        return DUSOutput(centre, dense, batch.centre, batch.target)


class DUSNet(RegisteredStrategy):
    """Reconstruction by down- and up-sampling networks, scored by the distance to it (DUS-Net, ACM MM 2025).

    Args:
        network: sizes of both nets: small, tiny, or paper.
        anchors: where patches are cut and points expected. template = at points of the class's template, cloud = at
            points of the noisy cloud itself, as the paper seems to.
        groups: G, centres per cloud.
        group_size: K, points of a patch.
        expand: r, points that the Up-Net makes of a centre.
        unit: length that an output of the nets stands for, in radii of the object.
        points: denser clouds are thinned to the means of a grid of 0.0125 radii before anything else.
        amplitude_low: smallest push of a noisy patch, in radii.
        amplitude_high: largest push.
        patches: at most so many pushed patches per cloud.
        parts: a pushed patch holds one in so many points.
        jitter: standard deviation of the noise on the points of every second patch, in radii.
        noise_at_test: none, or jitter as in training.
        rotation: training clouds are turned by up to so many degrees, about any axis.
        shift: and shifted by up to so much along each axis, in radii.
        down_share: share of a task's epochs in which only the Down-Net learns.
        joint: the Up-Net's loss trains the Down-Net, too.
        skip: centres are predicted from the token of their patch as well as from what the transformer's decoder, which
            starts from positions, makes of all tokens.
        dense_loss: distance of the dense cloud to the clean one: emd, or chamfer.
        emd_block: clouds are matched in blocks of so many points.
        emd_sweeps: and so many times.
        repulsion: weight of the repulsion loss.
        distance: of a point to the dense cloud: plane = to the plane of the nearest points, point = to the nearest one.
        calibrate: subtract, from the way of a test point to the dense cloud, the mean of those of normal training
            clouds at the same place.
        smooth: mean of the scores of that many neighbouring points; 1 turns it off.
        top_share: the object score is the mean of this share of the highest point scores; 0 = the maximum.
    """

    paper = "Liang et al.: Taming Anomalies with Down-Up Sampling Networks. ACM MM 2025, arXiv 2507.03903"
    prepare_arguments = ("registration", "points")
    sizes: ClassVar[dict[str, DownUpSize]] = {
        "paper": DownUpSize(256, 1024, 4, 8, 1.0),
        "small": DownUpSize(64, 128, 2, 4, 0.5),
        "tiny": DownUpSize(16, 16, 1, 2, 0.1),
    }
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": dict(network="paper", anchors="cloud", skip=False, groups=1024, group_size=128, expand=4,
                      amplitude_low=0.06, patches=3, rotation=0.0, shift=0.0, emd_sweeps=12, emd_block=256,
                      down_share=0.5, distance="point", calibrate=False, smooth=1, top_share=0.0, epochs=100_000,
                      batch_size=4, lr=1e-4),
        "tiny": dict(network="tiny", registration=False, groups=24, group_size=8, expand=4, smooth=4, epochs=2,
                     batch_size=4),
    }  # fmt: skip
    search_space: ClassVar[dict[str, Space]] = {
        "lr": Float(1e-4, 5e-3, log=True, source="C3D-AD: 1e-4 over 1,000 epochs; ours: 2e-3 over 30"),
        "groups": Int(64, 1024, log=True, source="MC3D-AD: 1,024"),
        "group_size": Int(16, 128, log=True, source="MC3D-AD: 128"),
        "expand": Int(2, 16, log=True, source="card: 4 to 8"),
        "amplitude_low": Float(0.01, 0.06, log=True, source="MC4AD: 0.06; ours: 0.02, as real defects are flatter"),
        "amplitude_high": Float(0.06, 0.2, log=True, source="MC4AD: 0.12"),
        "jitter": Float(0.0, 0.01, source="card"),
        "repulsion": Float(0.0, 1.0, source="card"),
        "smooth": Int(1, 64, source="card: 24"),
        "top_share": Float(0.002, 0.1, log=True, source="ours; paper: the maximum"),
    }

    def __init__(self, *, network: Literal["small", "tiny", "paper"] = "small",
                 anchors: Literal["template", "cloud"] = "template", groups: int = 256, group_size: int = 32,
                 expand: int = 8, unit: float = 0.05, points: int = 20_000, amplitude_low: float = 0.02,
                 amplitude_high: float = 0.12, patches: int = 4, parts: int = 64, jitter: float = 0.005,
                 noise_at_test: Literal["none", "jitter"] = "none", rotation: float = 0.5, shift: float = 0.003,
                 down_share: float = 0.5, joint: bool = False, skip: bool = False,
                 dense_loss: Literal["emd", "chamfer"] = "emd", emd_block: int = 128, emd_sweeps: int = 2,
                 repulsion: float = 0.1, distance: Literal["plane", "point"] = "plane",
                 calibrate: bool = True, smooth: int = 32, top_share: float = 0.01, epochs: int = 30,
                 batch_size: int = 1, lr: float = 2e-3, **base: Any):  # fmt: skip
        if not 0 <= top_share <= 1 or not 0 <= down_share <= 1:
            raise HyperparameterError(f"DUSNet: top_share and down_share must lie in [0, 1], got {top_share} and "
                                      f"{down_share}.")  # fmt: skip
        self.network, self.anchors, self.groups, self.group_size = network, anchors, groups, group_size
        self.expand, self.unit, self.points = expand, unit, points
        self.amplitude_low, self.amplitude_high = amplitude_low, amplitude_high
        self.patches, self.parts = patches, parts
        self.jitter, self.noise_at_test, self.rotation, self.shift = jitter, noise_at_test, rotation, shift
        self.down_share, self.joint, self.skip, self.dense_loss = down_share, joint, skip, dense_loss
        self.emd_block, self.emd_sweeps, self.repulsion = emd_block, emd_sweeps, repulsion
        self.distance, self.calibrate, self.smooth, self.top_share = distance, calibrate, smooth, top_share
        one_of(self, network=tuple(self.sizes), anchors=("template", "cloud"), noise_at_test=("none", "jitter"),
               dense_loss=("emd", "chamfer"), distance=("plane", "point"))  # fmt: skip
        at_least(self, groups=4, group_size=1, expand=1, unit=1e-6, points=64, jitter=0, rotation=0, shift=0,
                 emd_block=2, emd_sweeps=0, repulsion=0, smooth=1)  # fmt: skip
        self._noise = PatchNoise(amplitude=(amplitude_low, amplitude_high), most=patches, parts=parts, jitter=0.0)
        self._kept: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        super().__init__(epochs=epochs, batch_size=batch_size, lr=lr, **base)

    def build(self) -> nn.Module:
        """Down-Net and Up-Net."""
        return _Net(DownUpNet(self.sizes[self.network], self.expand, self.unit, anchored=self.anchors == "template",
                              joint=self.joint, skip=self.skip))  # fmt: skip

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """The cloud on its class's template, thinned if it is dense: ``pos`` (M, 3) and ``normal`` (M, 3) there, and
        ``raw`` (M, 3), the same points where the cloud has them."""
        pos, raw = thinned(self.place(cloud.check(minimum=LEAST)), cloud.pos, self.points, 0.0125)
        return PointCloud(pos, normal=toolkit.ops.normals(pos, orient="outward"), raw=raw)

    # ---- what the nets see ------------------------------------------------------------------------------------------

    def expected(self, pos: Tensor, category: str) -> tuple[Tensor, Tensor, Tensor]:
        """Middles (G, 3) of the patches, points (G, r, 3) relative to them, and axes (G, 3, 3) of the patches.

        Of the class's template; if it has none or ``anchors="cloud"``, of the cloud (M, 3) itself, where all points
        start at the middle and the axes are the cloud's.
        """
        template = self.templates_.get(category) if self.anchors == "template" else None
        if template is None:
            middle = spread(pos, self.groups)
            return middle, torch.zeros(self.groups, self.expand, 3), torch.eye(3).expand(self.groups, 3, 3)
        key = f"{category} {len(template)}"
        found = self._kept.get(key)
        if found is None or not torch.equal(found[0], template):
            placed = template - template.mean(0)
            placed = placed / placed.norm(dim=1).max().clamp_min(1e-12)
            dense = spread(placed, self.groups * self.expand)
            middle = dense[: self.groups]
            # One to one, so that every point of the template is some centre's, and every centre has r.
            rows = matching(middle.repeat_interleave(self.expand, 0), dense)
            patch = placed[self._nearest(placed, middle)] - middle[:, None]
            axes = local_frames(patch, middle)
            found = (template, middle, dense[rows].view(self.groups, -1, 3) - middle[:, None], axes)
            self._keep(key, found)
        return found[1], found[2], found[3]

    def _keep(self, key: str, value: tuple[Tensor, ...]) -> None:
        self._kept[key] = value
        if len(self._kept) > 512:
            self._kept.popitem(last=False)

    def seen(self, pos: Tensor, category: str) -> dict[str, Any]:
        """Input of the nets for the points (M, 3) of one cloud in its template's frame, as a batch of one."""
        middle, start, frame = self.expected(pos, category)
        patch = pos[self._nearest(pos, middle)] - middle[:, None]
        return {"patch": patch[None], "middle": middle[None], "start": start[None], "frame": frame[None]}

    def _nearest(self, pos: Tensor, middle: Tensor) -> Tensor:
        """(G, K) rows of the points nearest to middles, repeated if there are fewer than K points."""
        near = toolkit.ops.knn(pos, middle, min(self.group_size, pos.shape[0]))[0]
        return near[:, torch.arange(self.group_size) % near.shape[1]]

    def augment(self, cloud: PointCloud) -> PointCloud:
        """A noisy version of a prepared training cloud with its clean centres and points, anew each time."""
        g = self.generator
        turn = random_rotation(self.rotation, g).t()
        move = (2 * torch.rand(3, generator=g) - 1) * self.shift
        clean, target = cloud.pos @ turn + move, self._target(cloud) @ turn + move
        normal = cloud.normal @ turn
        noisy = self._noise(clean, normal, g).pos
        seen = self.seen(noisy, cloud.category)
        if self.anchors == "template":
            centre = seen["middle"][0] - plane_gap(clean, normal, seen["middle"][0])
        else:  # which point of the noisy cloud it is says where it was before
            centre = clean[toolkit.ops.knn(noisy, seen["middle"][0], 1)[0][:, 0]]
        seen["patch"] = jitter_groups(seen["patch"][0], g, deviation=self.jitter)[None]
        return PointCloud(target, centre=centre[None], target=target[None], **seen).update_facts(cloud)

    def _target(self, cloud: PointCloud) -> Tensor:
        """(G r, 3) points of a prepared cloud, evenly spread."""
        key = content_hash(cloud)
        found = self._kept.get(key)
        if found is None:
            found = (spread(cloud.pos, self.groups * self.expand),)
            self._keep(key, found)
        return found[0]

    # ---- losses -----------------------------------------------------------------------------------------------------

    def loss_of(self, output: DUSOutput) -> Tensor:
        """The Down-Net's losses, and once its time alone is over the Up-Net's. Lengths in units of `unit`."""
        down = self.down_loss(output.centre, output.true_centre)
        net: Any = self.model
        if not net.net.growing:
            return down + 0 * sum(p.sum() for p in net.net.up.parameters())  # some plugins want a gradient everywhere
        return down + self.up_loss(output.dense, output.target)

    def _before_training_epoch(self, **kwargs: Any) -> None:
        net: Any = self.model
        done = self.clock.train_exp_epochs / max(1, self.train_epochs)
        net.net.growing = done >= self.down_share
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (0.001 + 0.999 * (1 + math.cos(math.pi * done)) / 2)
        super()._before_training_epoch(**kwargs)

    def down_loss(self, centre: Tensor, true: Tensor) -> Tensor:
        """Chamfer distance and mean squared distance of centres (B, G, 3), and the angle between their positions."""
        chamfer = torch.stack([toolkit.ops.chamfer(a, b) for a, b in zip(centre, true)]).mean()
        squared = (centre - true).square().sum(-1).mean()
        return (chamfer + squared) / self.unit**2 + cosine_gap(centre.flatten(0, 1), true.flatten(0, 1))

    def up_loss(self, dense: Tensor, target: Tensor) -> Tensor:
        """Earth mover's (or Chamfer) distance of points (B, T, 3), and their repulsion."""
        terms = []
        for points, wanted in zip(dense, target):
            if self.dense_loss == "emd":
                far = toolkit.ops.emd(points, wanted, exact_up_to=self.emd_block, block=self.emd_block,
                                      sweeps=self.emd_sweeps)  # fmt: skip
            else:
                far = toolkit.ops.chamfer(points, wanted)
            term = far / self.unit**2
            if self.repulsion and len(wanted) > 1:
                spacing = float(toolkit.ops.knn(wanted, wanted, 2)[1][:, 1].mean())
                term = term + self.repulsion * repulsion(points, max(spacing, 1e-6))
            terms.append(term)
        return torch.stack(terms).mean()

    # ---- scores -----------------------------------------------------------------------------------------------------

    def reconstruct(self, prepared: PointCloud) -> Tensor:
        """(G r, 3) normal version of a prepared cloud."""
        net: Any = self.model
        seen = self.seen(prepared.pos, prepared.category)
        if self.noise_at_test == "jitter":
            generator = torch.Generator().manual_seed(self.seed)
            seen["patch"] = jitter_groups(seen["patch"][0], generator, deviation=self.jitter)[None]
        with torch.no_grad():
            return net.net(*(value.to(self.device) for value in seen.values()))[1][0].float().cpu()

    def way_off(self, surface: Tensor, pos: Tensor) -> Tensor:
        """(M, 3) ways from a surface given by points (T, 3) to points (M, 3)."""
        if self.distance == "point":
            return pos - surface[toolkit.ops.knn(surface, pos, 1)[0][:, 0]]
        return plane_gap(surface, toolkit.ops.normals(surface, orient="outward"), pos)

    def ways(self, prepared: PointCloud) -> Tensor:
        """(M, 3) ways from the reconstruction to the points of a prepared cloud."""
        return self.way_off(self.reconstruct(prepared), prepared.pos)

    def _after_training_exp(self, **kwargs: Any) -> None:
        net: Any = self.model
        net.net.growing = True
        super()._after_training_exp(**kwargs)
        if not self.calibrate:
            return
        self.model.eval()
        self.baselines_ = {**self._baselines(), **self._new_baselines(self._raw)}

    def _baselines(self) -> dict[str, Tensor]:
        return vars(self).get("baselines_", {})  # there are none before training and after a restart

    def _new_baselines(self, clouds: Sequence[PointCloud]) -> dict[str, Tensor]:
        """Per class, the mean way of its first normal clouds at each place.

        Without the cloud that is the template, if there are others: it lies where points are expected.
        """
        of_class: dict[str, list[PointCloud]] = {}
        for cloud in clouds:
            of_class.setdefault(cloud.category, []).append(cloud)
        for category, own in of_class.items():
            template = self.templates_.get(category)
            others = [c for c in own if template is None or not torch.equal(c.pos, template)]
            of_class[category] = [self.prepared(c) for c in (others or own)[:SCANS]]
        return {category: place_means([p.pos for p in own], [self.ways(p) for p in own], 0.02)
                for category, own in of_class.items()}  # fmt: skip

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Distance of each point to the reconstruction."""
        prepared = self.prepared(cloud)
        way = less_means(self.ways(prepared), prepared.pos, self._baselines().get(prepared.category))
        point = way.norm(dim=1)
        if self.smooth > 1:
            point = toolkit.ops.smooth(point, prepared.pos, k=self.smooth)
        value = float(point.topk(max(1, math.ceil(self.top_share * len(point)))).values.mean())
        if point.shape[0] != cloud.pos.shape[0]:
            point = toolkit.ops.interpolate(point, prepared.raw, cloud.pos.cpu(), k=3)
        return AnomalyMap(point, value)


def spread(pos: Tensor, count: int) -> Tensor:
    """(count, 3) evenly spread points of (M, 3), farthest first; repeated if there are fewer.

    Sampling starts at the point farthest from the mean, so that the order of the points does not matter.
    """
    start = int((pos - pos.mean(0)).norm(dim=1).argmax())
    chosen = pos[toolkit.ops.fps(pos, min(count, len(pos)), start=start)]
    return chosen[torch.arange(count) % len(chosen)]
