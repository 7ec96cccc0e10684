"""Synthetic: a 3D anomaly-detection dataset that needs no download.

Procedural industrial parts (`toolkit.data.parts`) are built, scanned and damaged (`toolkit.defects`) when a cloud is
loaded; nothing is stored. One cloud is made in this order:

    part with within-class deviations -> surface points (view, occlusion, density) -> defect -> pose -> noise -> shuffle

The defect is put into the points that the scanner sees, so every labelled point is really there. Each stage draws from
its own generator, seeded by the dataset's seed and the sample's id alone: a sample is the same whatever else is
requested, and changing the pose or the noise changes neither the object nor its defect.

The split is laid out as in Anomaly-ShapeNet: a few normal templates for training, normal and defective test clouds.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from toolkit.cloud import PointCloud
from toolkit.data.base import CloudDataset, Sample
from toolkit.data.formats.points import Mesh
from toolkit.data.parts import PARTS, Part, PartMesh, sample
from toolkit.defects import DEFECTS, DefectResult, make_defect
from toolkit.errors import CloudError, HyperparameterError, LeakError, UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Synthetic"]

GEOMETRIC = ["bulge", "concavity", "hole", "crack", "scratch", "broken", "bending"]
"""The defect types of Anomaly-ShapeNet."""

SPARE = 1.5
"""So many times the wanted points are damaged, because holes and breaks remove some; a random part of them is kept."""

SPREAD = 3.0
"""A design's dimensions lie so many tolerances around those of the variant that it is derived from."""

ATTEMPTS = 20
"""A defect that touches hardly a point, because the cloud is sparse there, is drawn again: so many draws in all."""

LEAST_LABELLED = 3
"""A defective cloud has at least so many labelled points."""


class Synthetic(CloudDataset):
    """Procedural industrial parts with exact labels and known factors.

    Args:
        categories: names in `toolkit.data.parts.PARTS`; all of them by default.
        variants: which subcategories: ``"one"`` (the first of each category; designs take turns), ``"all"``, the first
            so many, or names.
        designs: categories made of each part. With 1 the part is the category; with more, categories are called
            ``bolt_007``, and each has nominal dimensions of its own, drawn once, like the bolts of a catalogue: 50
            make 1,000 categories.
        points: points of every cloud.
        train: normal clouds for training, per category and variant.
        test_normal: normal test clouds, per category and variant.
        test_defective: defective test clouds, per category and variant; the defect types take turns.
        defects: names in `toolkit.defects.DEFECTS`; the seven of Anomaly-ShapeNet by default.
        severity: lowest and highest severity, each in [0, 1].
        within_class_variation: 0 makes all objects of a variant alike, 1 uses the parts' full tolerances (2 to 10 % of
            each dimension).
        pose: the object is turned at random by up to so many degrees about each axis; 180 is any rotation, 0 none.
        noise: standard deviation of the scanner's noise per coordinate, relative to the bounding-box diagonal.
        density: strength of the smooth variation of the sampling density (standard deviation of its logarithm).
        views: ``"full"`` scans all around, ``"one_sided"`` from one random direction per cloud, ``"test_one_sided"``
            scans the training objects all around and the test objects from one side, as in Real3D-AD.
        occlusion: share of each scan that is hidden, in [0, 0.9].
        normals: clouds carry the surface's normals. Off by default: scanners give coordinates only.
        color: clouds carry the material's colour. Defects do not change it.
        seed: another seed gives other objects, defects, poses and noise.

    Raises:
        UnknownNameError: an unknown category, variant or defect.
        HyperparameterError: a value out of its range.
    """

    has_meshes = True

    def __init__(
        self,
        *,
        categories: list[str] | None = None,
        variants: int | list[str] | Literal["one", "all"] = "one",
        designs: int = 1,
        points: int = 4096,
        train: int = 4,
        test_normal: int = 8,
        test_defective: int = 12,
        defects: list[str] | None = None,
        severity: tuple[float, float] = (0.3, 1.0),
        within_class_variation: float = 0.2,
        pose: float = 5.0,
        noise: float = 0.0015,
        density: float = 0.3,
        views: Literal["full", "one_sided", "test_one_sided"] = "full",
        occlusion: float = 0.0,
        normals: bool = False,
        color: bool = False,
        seed: int = 0,
    ) -> None:
        self.options: dict[str, Any] = dict(
            categories=sorted(set(categories)) if categories is not None else list(PARTS),
            variants=variants,
            designs=designs,
            points=points,
            train=train,
            test_normal=test_normal,
            test_defective=test_defective,
            defects=list(dict.fromkeys(defects)) if defects is not None else list(GEOMETRIC),
            severity=tuple(severity),
            within_class_variation=within_class_variation,
            pose=pose,
            noise=noise,
            density=density,
            views=views,
            occlusion=occlusion,
            normals=normals,
            color=color,
            seed=seed,
        )
        self._check()
        self.has_color = color
        super().__init__()

    # ------------------------------------------------------------------------------------------------ what there is

    def scan(self) -> list[Sample]:
        options = self.options
        samples = []
        for part, design in itertools.product(options["categories"], range(options["designs"])):
            category = part if options["designs"] == 1 else f"{part}_{design:03d}"
            for variant in self._variants(part, design):
                kinds = [options["defects"][i % len(options["defects"])] for i in range(options["test_defective"])]
                rows = [("train", "", i) for i in range(options["train"])]
                rows += [("test", "", i) for i in range(options["test_normal"])]
                rows += [("test", kind, i // len(options["defects"])) for i, kind in enumerate(kinds)]
                for split, kind, i in rows:
                    name = f"{category}/{split}/{variant}_{kind or 'normal'}{i:02d}"
                    samples.append(
                        Sample(
                            category=category,
                            split=split,  # type: ignore[arg-type]
                            sample_id=name,
                            group_id=name,
                            y=int(bool(kind)),
                            defect=kind,
                            subcategory=f"{category}_{variant}",
                            extra={"variant": variant, "part": part, "design": design},
                        )
                    )
        return samples

    def fingerprint(self) -> str:
        """Hash of the options and of the program text that makes the clouds."""
        here = Path(__file__).parent
        sources = [Path(__file__), here / "depth_view.py", *sorted((here / "parts").glob("*.py"))]
        sources += sorted((here.parent / "defects").glob("*.py"))
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode())
        for source in sources:
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]

    # ---------------------------------------------------------------------------------------------------- one cloud

    def load(self, sample: Sample) -> PointCloud:
        """The labelled cloud of a sample, made now.

        Its `factors` are pose (``yaw``, ``pitch``, ``roll`` in degrees), ``defect`` with ``severity``, ``defect_size``
        (radius in mm) and ``defect_x``, ``defect_y``, ``defect_z`` (mm, in the frame of the part before it was turned;
        all 0 for a normal cloud), and ``shape``, the (dimension, value) pairs of the part.

        Raises:
            CloudError: a defect found no place where it touches three points; the cloud is too sparse for it.
        """
        options = self.options
        mesh = self._part(sample)
        result, normal = self._scan(sample, mesh)
        rows = self._choose(sample, result)
        angles = self._angles(sample)
        rotation = rotation_matrix(*angles)
        diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
        generator = self._generator(sample, "noise")
        noise = options["noise"] * diagonal * torch.randn(options["points"], 3, generator=generator)
        center = result.center.tolist()
        factors = dict(zip(("yaw", "pitch", "roll"), (math.degrees(a) for a in angles), strict=True))
        factors |= dict(severity=result.severity, defect_size=result.size)
        factors |= dict(zip(("defect_x", "defect_y", "defect_z"), center, strict=True))
        return PointCloud(
            result.pos[rows] @ rotation.T + noise,
            category=sample.category,
            subcategory=sample.subcategory,
            sample_id=sample.sample_id,
            group_id=sample.group_id,
            normal=normal[result.source[rows]] @ rotation.T if options["normals"] else None,
            rgb=self._colors(sample) if options["color"] else None,
            y=sample.y,
            point_y=result.point_y[rows],
            defect=sample.defect,
            # pairs, not a dict: torch-geometric joins dicts key by key, and categories have different dimensions
            factors={**factors, "defect": sample.defect, "shape": tuple(mesh.factors.items())},
        ).check()

    def mesh(self, sample: Sample) -> Mesh:
        """The closed surface of a training object in the pose of its cloud, with area-weighted vertex normals.

        Vertices are where the shape needs them, dense on threads and rare on flat faces: sample the surface rather than
        take the vertices for a cloud.

        Raises:
            LeakError: a test sample; its undamaged surface would give the defect away.
        """
        if sample.split != "train":
            raise LeakError(
                f"{sample.sample_id}: expected a training sample, got split {sample.split!r}; test objects have none."
            )
        mesh = self._part(sample)
        vertices = mesh.vertices @ rotation_matrix(*self._angles(sample)).T
        a, b, c = vertices[mesh.triangles].unbind(1)
        doubled = torch.linalg.cross(b - a, c - a)
        normal = torch.zeros_like(vertices).index_add_(0, mesh.triangles.T.reshape(-1), doubled.repeat(3, 1))
        return Mesh(vertices.numpy(), mesh.triangles.numpy(), torch.nn.functional.normalize(normal, dim=1).numpy())

    def factors_table(self, samples: list[Sample] | None = None) -> pd.DataFrame:
        """The realised factors of some samples, of all by default: one row each, dimensions as ``shape.<name>``.

        A dimension that a category does not have is NaN. The clouds are made for it (milliseconds each).
        """
        import pandas as pd

        rows = []
        for one in self.samples if samples is None else samples:
            factors = dict(self.load(one).factors)
            shape = factors.pop("shape")
            known = dict(sample_id=one.sample_id, category=one.category, subcategory=one.subcategory, split=one.split)
            rows.append({**known, "y": one.y, **factors, **{f"shape.{name}": value for name, value in shape}})
        return pd.DataFrame(rows)

    # ------------------------------------------------------------------------------------------------------ stages

    def _generator(self, sample: Sample, stage: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.options['seed']}/{sample.sample_id}/{stage}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def _part(self, sample: Sample) -> PartMesh:
        part, generator = PARTS[sample.extra["part"]], self._generator(sample, "shape")
        scale = self._scale(part, sample.extra["design"])
        return part.mesh(sample.extra["variant"], generator, variation=self.options["within_class_variation"],
                         scale=scale)  # fmt: skip

    def _scale(self, part: Part, design: int) -> dict[str, float]:
        """Dimension -> its factor in a design; none for the only one."""
        if self.options["designs"] == 1:
            return {}
        draw = random.Random(f"{self.options['seed']}/{part.name}/{design}")
        return {name: 1 + SPREAD * width * draw.uniform(-1, 1) for name, width in part.tolerance.items()}

    def _scan(self, one: Sample, mesh: PartMesh) -> tuple[DefectResult, Tensor]:
        """More points than wanted, damaged, and the normals of the undamaged points."""
        count = math.ceil(SPARE * self.options["points"])
        while True:
            result, normal = self._scan_points(one, mesh, count)
            if len(result.pos) >= self.options["points"]:
                return result, normal
            count *= 2  # a large piece broke off

    def _scan_points(self, one: Sample, mesh: PartMesh, count: int) -> tuple[DefectResult, Tensor]:
        options, generator = self.options, self._generator(one, "scan")
        sided = options["views"] == "one_sided" or (options["views"] == "test_one_sided" and one.split == "test")
        view = torch.randn(3, generator=generator) if sided else None
        pos, normal = sample(
            mesh, count, generator, density=options["density"], view=view, occlusion=options["occlusion"]
        )
        if not one.defect:
            none = torch.zeros(count, dtype=torch.bool)
            return DefectResult(pos, none, torch.arange(count), torch.zeros_like(pos), torch.zeros(3), 0, 0, ""), normal
        generator = self._generator(one, "defect")
        low, high = options["severity"]
        severity = low + (high - low) * float(torch.rand((), generator=generator))
        defect = make_defect(one.defect)
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(CloudError):  # hardly a point was touched; the next draw falls elsewhere
                return defect(pos, normal, generator, severity=severity), normal
        return defect(pos, normal, generator, severity=severity), normal

    def _choose(self, one: Sample, result: DefectResult) -> Tensor:
        """(points,) random rows in random order, with at least `LEAST_LABELLED` labelled ones in a defective cloud."""
        generator = self._generator(one, "order")
        while True:
            rows = torch.randperm(len(result.pos), generator=generator)[: self.options["points"]]
            if not one.defect or int(result.point_y[rows].sum()) >= LEAST_LABELLED:
                return rows

    def _angles(self, sample: Sample) -> tuple[float, float, float]:
        """yaw, pitch and roll in radians; uniform over all rotations if the pose range is 180 degrees."""
        limit = math.radians(self.options["pose"])
        yaw, pitch, roll = (2 * torch.rand(3, generator=self._generator(sample, "pose")).double() - 1).tolist()
        return limit * yaw, math.asin(pitch * math.sin(min(limit, math.pi / 2))), limit * roll

    def _colors(self, sample: Sample) -> Tensor:
        generator = self._generator(sample, "color")
        lightness = 1 + 0.08 * (2 * torch.rand((), generator=generator) - 1)
        grain = 0.02 * torch.randn(self.options["points"], 1, generator=generator)
        return (torch.tensor(PARTS[sample.extra["part"]].color) * lightness + grain).clamp(0, 1)

    # ------------------------------------------------------------------------------------------------------ checks

    def _variants(self, category: str, design: int = 0) -> list[str]:
        known, wanted = PARTS[category].subcategories, self.options["variants"]
        if isinstance(wanted, int):
            return known[:wanted]
        if isinstance(wanted, str):
            return [known[design % len(known)]] if wanted == "one" else known
        return [name for name in known if name in wanted]

    def _check(self) -> None:
        options = self.options
        for name in options["categories"]:
            if name not in PARTS:
                raise UnknownNameError(f"Synthetic has no category {name!r}; it has {', '.join(PARTS)}.")
        for name in options["defects"]:
            if name not in DEFECTS:
                raise UnknownNameError(f"Synthetic: no defect is called {name!r}; there are {', '.join(DEFECTS)}.")
        self._check_variants()
        least = {"designs": 1, "points": 256, "train": 0, "test_normal": 0, "test_defective": 0}
        for name, low in least.items():
            if options[name] < low:
                raise HyperparameterError(f"--dataset.{name}: expected at least {low}, got {options[name]}.")
        if options["test_defective"] and not options["defects"]:
            raise HyperparameterError("--dataset.defects: expected a defect; use test_defective=0 for none.")
        ranges = {"within_class_variation": 1, "pose": 180, "noise": 0.1, "density": 2, "occlusion": 0.9}
        for name, high in ranges.items():
            if not 0 <= options[name] <= high:
                raise HyperparameterError(f"--dataset.{name}: expected a value in [0, {high}], got {options[name]}.")
        low, high = options["severity"]
        if not 0 <= low <= high <= 1:
            raise HyperparameterError(f"--dataset.severity: expected 0 <= low <= high <= 1, got {options['severity']}.")
        if options["views"] not in ("full", "one_sided", "test_one_sided"):
            raise HyperparameterError(
                f"--dataset.views: expected full, one_sided or test_one_sided, got {options['views']!r}."
            )

    def _check_variants(self) -> None:
        wanted = self.options["variants"]
        if isinstance(wanted, int) and wanted < 1:
            raise HyperparameterError(f"--dataset.variants: expected at least 1, got {wanted}.")
        if isinstance(wanted, str) and wanted not in ("one", "all"):
            raise HyperparameterError(f"--dataset.variants: expected one, all, a number or names, got {wanted!r}.")
        if isinstance(wanted, list):
            known = {name for category in self.options["categories"] for name in PARTS[category].subcategories}
            for name in wanted:
                if name not in known:
                    raise UnknownNameError(
                        f"Synthetic: no variant {name!r} among the chosen categories; they have "
                        f"{', '.join(sorted(known))}."
                    )
            for category in self.options["categories"]:
                if not self._variants(category):
                    raise UnknownNameError(
                        f"Synthetic: none of the variants {', '.join(wanted)} belongs to {category}; "
                        f"it has {', '.join(PARTS[category].subcategories)}."
                    )


def rotation_matrix(yaw: float, pitch: float, roll: float) -> Tensor:
    """(3, 3) float32 rotation: first about x by `roll`, then about y by `pitch`, then about z by `yaw` (radians)."""
    (a, b, c), (d, e, f) = ([fn(angle) for angle in (yaw, pitch, roll)] for fn in (math.cos, math.sin))
    return torch.tensor(
        [
            [a * b, a * e * f - d * c, a * e * c + d * f],
            [d * b, d * e * f + a * c, d * e * c - a * f],
            [-e, b * f, b * c],
        ]
    )
