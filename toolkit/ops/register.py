"""Rigid registration of a cloud to a template, from any starting pose.

Features find candidate poses, iterative closest point refines them, and the best is kept - or none of them, if leaving
the cloud where it is fits better. The published code (Reg3D-AD, C3D-AD and their kin) stops after RANSAC on FPFH of
normals without a sign rule. The differences here: normals turned outward, without which FPFH changes with the pose; all
lengths relative to the template's size rather than fixed numbers of data units; the template's share of the work done
once; several candidates, the template's near symmetries among them; refinement; and a seed.

Sources: FPFH, Rusu et al., 2009; fast global registration (``"fgr"``), Zhou, Park, Koltun, 2016; the others in the
files of the operators used.

Measured on 8 household parts of 8,192 points, 11 clouds each (3 more templates, 4 normal, 4 defective), all turned at
random: with ``"ransac"`` all 56 normal clouds came to lie within 0.7 % of the template's diagonal (mean nearest
distance), which is what two samplings of one surface give, and so did halves of them, at 0.2 to 0.4 CPU seconds each.
``"fgr"`` was a quarter faster and placed one of 88 halves wrongly, which ``fitness`` showed. So RANSAC is the default.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops.bank import bank_nearest
from toolkit.ops.check import check_points, check_positive
from toolkit.ops.compiled import usable
from toolkit.ops.fpfh import fpfh
from toolkit.ops.icp import icp as refine
from toolkit.ops.knn import Neighbours
from toolkit.ops.normals import normals
from toolkit.ops.ransac import ransac
from toolkit.ops.rigid import assemble, transformed
from toolkit.ops.scale import diagonal
from toolkit.ops.voxel import voxel_downsample

VOXEL = 0.03
"""Edge of the feature grid, relative to the template's diagonal: a thousand cells or two on most parts."""

_FINE = 4  # the refinement's grid is so many times finer
_MOVING = 2000  # source points that are laid on the template in the last refinement
_TRYING = 600  # and in those before
_TURNED = 4  # of the template's 23 turned poses, look closer at so many
_FINAL = 2  # poses refined to the end
_REACH = 3  # voxels that the first refinements look far


class Template:
    """A target cloud with everything that `register` needs to know of it, computed once.

    Args:
        pos: (M, 3) points.
        voxel: edge of the grid on which features are computed, in the unit of ``pos``; ``VOXEL`` times the diagonal if
            None. Features see 5 cells far.

    Raises:
        CloudError: fewer than 3 points or occupied cells, NaN or infinite coordinates.
        HyperparameterError: ``voxel`` <= 0, or no extent to derive it from.
    """

    def __init__(self, pos: Tensor, *, voxel: float | None = None):
        pos = check_points(pos, "Template: pos", minimum=3, dim=3)
        self.voxel = VOXEL * diagonal(pos) if voxel is None else float(voxel)
        check_positive(self.voxel, "Template: voxel")
        self.coarse, self.feature = _described(pos, self.voxel, "Template")
        self.fine = voxel_downsample(pos, self.voxel / _FINE)
        self.search = Neighbours(self.fine)
        self.fine_normal = normals(self.fine, orient="none")
        self.turns = _turns(self.fine)
        self._surface: list[Any] = []

    def surface(self) -> Any:
        """The fine points in cells, for compiled searches (`toolkit.ops.compiled.surface`); None without those."""
        if not usable(self.fine):
            return None
        if not self._surface:
            from toolkit.ops.compiled.surface import surface_for

            spacing, reach = self.voxel / _FINE, _REACH * self.voxel
            self._surface = [surface_for(self.fine.numpy(), self.fine_normal.numpy(), spacing, reach)]
        return self._surface[0]


@dataclass(frozen=True, eq=False)
class Registration:
    """What `register` found.

    Attributes:
        transform: (4, 4) float64; carries the source into the template's frame.
        fitness: share of source points that end up within one voxel of the template, 0 to 1.
        rmse: root mean square distance of those points to the nearest template point (on a grid of a quarter voxel),
            in the unit of the points.
    """

    transform: Tensor
    fitness: float
    rmse: float

    def apply(self, pos: Tensor) -> Tensor:
        """(N, 3) points of the source carried into the template's frame; their order and dtype stay."""
        return transformed(pos, self.transform)


def register(
    source: Tensor,
    target: Tensor | Template,
    *,
    voxel: float | None = None,
    method: Literal["ransac", "fgr"] = "ransac",
    icp: bool = True,
    seed: int = 0,
) -> Registration:
    """Find the rigid motion that lays ``source`` on ``target``.

    A part with a symmetry lies equally well in several poses, and a nearly symmetric one nearly so: any of them may
    come out, whichever fits best for this very cloud. Leaving the source where it is, is always among the candidates:
    no result fits worse than that.

    Args:
        source: (N, 3) points; a part of the object's surface is enough.
        target: (M, 3) points, or a `Template` if more than one source is to be registered to it.
        voxel: as for `Template`; not with a `Template`, which has its own.
        method: how candidate poses are found: ``"ransac"`` or ``"fgr"`` (one candidate only).
        icp: refine the candidates by point-to-plane iterative closest point.
        seed: of RANSAC's samples or FGR's.

    Returns:
        The best candidate. Look at ``fitness`` before relying on it.

    Raises:
        CloudError: fewer than 3 points or occupied cells, NaN or infinite coordinates.
        HyperparameterError: an unknown ``method``, ``voxel`` <= 0 or given beside a `Template`.
    """
    if method not in ("ransac", "fgr"):
        raise HyperparameterError(f"register: method must be 'ransac' or 'fgr', not {method!r}.")
    if isinstance(target, Template):
        if voxel is not None:
            raise HyperparameterError("register: the template already has a voxel size; leave voxel out.")
        template = target
    else:
        template = Template(target, voxel=voxel)
    source = check_points(source, "register: source", minimum=3, dim=3).to(template.fine.device)
    size = template.voxel
    coarse, feature = _described(source, size, "register")
    find = _by_ransac if method == "ransac" else _by_fgr
    fine = voxel_downsample(source, size / _FINE)
    fine, few = _thinned(fine, _MOVING), _thinned(fine, _TRYING)

    def best(poses: list[Tensor], pos: Tensor, keep: int, reach: float = 1) -> list[Tensor]:
        misfit = _misfits(pos, template, poses, reach, keep)
        return [poses[i] for i in sorted(range(len(poses)), key=misfit.__getitem__)[:keep]]

    def refined(poses: list[Tensor]) -> list[Tensor]:
        return _refined(few, template, poses, _REACH * size, 10, 1e-3) if icp else []

    stay = torch.eye(4, dtype=torch.float64)
    poses = [stay, *find(coarse, feature, template, seed)]
    poses = best(poses + refined(poses), few, _FINAL)
    turned = best([turn @ poses[0] for turn in template.turns], few, _TURNED, reach=_REACH)
    poses = best(poses + turned + refined(turned), few, _FINAL)
    if icp:
        poses += _refined(fine, template, poses, size, 30, 1e-5)
    (found,) = best([stay, *poses], fine, 1)
    away = _distances(fine, template, found)
    near = away[away <= size]
    return Registration(
        transform=found,
        fitness=len(near) / len(away),
        rmse=float(near.square().mean().sqrt()) if len(near) else float("inf"),
    )


def _described(pos: Tensor, voxel: float, name: str) -> tuple[Tensor, Tensor]:
    """Grid points (M, 3) and their FPFH (M, 33)."""
    coarse = voxel_downsample(pos, voxel)
    if len(coarse) < 3:
        raise CloudError(
            f"{name}: a grid of {voxel:g} leaves {len(coarse)} of {len(pos)} points, fewer than 3. Use a smaller voxel."
        )
    return coarse, fpfh(coarse, radius=5 * voxel, k=100)


def _by_ransac(coarse: Tensor, feature: Tensor, template: Template, seed: int) -> list[Tensor]:
    forth = bank_nearest(template.feature, feature)[1][:, 0]
    back = bank_nearest(feature, template.feature)[1][:, 0]
    here = torch.arange(len(coarse), device=coarse.device)
    mutual = here[back[forth] == here]
    if len(mutual) < 3:
        mutual = here
    pairs = coarse[mutual], template.coarse[forth[mutual]]
    return [pose.cpu() for pose in ransac(*pairs, distance=1.5 * template.voxel, seed=seed)]


def _by_fgr(coarse: Tensor, feature: Tensor, template: Template, seed: int) -> list[Tensor]:
    import open3d

    registration = open3d.pipelines.registration

    def prepared(pos: Tensor, description: Tensor) -> tuple[Any, Any]:
        described = registration.Feature()
        described.data = description.double().t().contiguous().cpu().numpy()
        return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(pos.double().cpu().numpy())), described

    source, source_feature = prepared(coarse, feature)
    target, target_feature = prepared(template.coarse, template.feature)
    option = registration.FastGlobalRegistrationOption(maximum_correspondence_distance=1.5 * template.voxel)
    open3d.utility.random.seed(seed)
    found = registration.registration_fgr_based_on_feature_matching(
        source, target, source_feature, target_feature, option
    )
    return [torch.from_numpy(np.array(found.transformation))]


def _thinned(pos: Tensor, count: int) -> Tensor:
    """Every n-th point, so that at most ``count`` are left."""
    return pos[:: -(-len(pos) // count)]


def _refined(
    pos: Tensor, template: Template, poses: list[Tensor], distance: float, iterations: int, tolerance: float
) -> list[Tensor]:
    """Each pose after iterative closest point."""
    surface = template.surface()
    if surface is not None:
        return list(torch.from_numpy(surface.refined(pos.numpy(), _stacked(poses), distance, iterations, tolerance)))
    options: dict[str, Any] = dict(distance=distance, iterations=iterations, tolerance=tolerance)
    return [refine(pos, template.search, template.fine_normal, pose, **options).cpu() for pose in poses]


def _distances(pos: Tensor, template: Template, transform: Tensor) -> Tensor:
    """(N,) distance of each moved point to the template; what is beyond a voxel may be inf."""
    surface = template.surface()
    if surface is not None:
        return torch.from_numpy(surface.distances(pos.numpy(), transform.numpy(), template.voxel))
    return template.search.find(transformed(pos, transform), 1)[1][:, 0]


def _misfits(pos: Tensor, template: Template, poses: list[Tensor], reach: float, keep: int) -> list[float]:
    """Mean squared distance to the template under each pose; beyond ``reach`` voxels, how far does not matter.

    May be inf for poses that are not among the ``keep`` best.
    """
    surface, reach = template.surface(), reach * template.voxel
    if surface is not None:
        return surface.misfits(pos.numpy(), _stacked(poses), reach, keep).tolist()
    return [float(_distances(pos, template, pose).clamp_max(reach).square().mean()) for pose in poses]


def _stacked(poses: list[Tensor]) -> np.ndarray:
    return torch.stack(poses).numpy() if poses else np.empty((0, 4, 4))


def _turns(pos: Tensor) -> list[Tensor]:
    """The 23 rotations of a cube but for the identity, about the cloud's centroid and principal axes.

    A clamp lies nearly as well upside down: features find such poses by chance, these turns find them all.
    """
    pos = pos.double().cpu()
    centre = pos.mean(0)
    axes = torch.linalg.eigh((pos - centre).t() @ (pos - centre))[1]
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = torch.diag(torch.tensor(signs, dtype=torch.float64))[list(order)]
            if torch.det(turn) > 0 and not turn.equal(torch.eye(3, dtype=torch.float64)):
                rotation = axes @ turn @ axes.t()
                turns.append(assemble(rotation, centre - rotation @ centre))
    return turns
