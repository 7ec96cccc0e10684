"""What a procedural part is: a builder, its named variants, and the dimensions that vary within one variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from toolkit.data.parts.solid import Solid
from toolkit.errors import UnknownNameError


class PartMesh(NamedTuple):
    """A closed triangle surface in mm, and the dimensions it was built with.

    vertices: (V, 3) float32. triangles: (F, 3) int64, counter-clockwise seen from outside.
    factors: dimension name -> value in mm (or a count, or degrees).
    """

    vertices: Tensor
    triangles: Tensor
    factors: dict[str, float]


@dataclass(frozen=True)
class Part:
    """One category of industrial parts.

    Attributes:
        name: the category.
        build: called with the dimensions as keyword arguments, returns a closed surface.
        variants: subcategory name -> nominal dimensions.
        tolerance: dimension -> relative half-width of its uniform within-class variation; others are exact.
        symmetry: of the first variant, details as small as a thread or a keyway aside. ``"axial"``: any rotation about
            z; ``"cyclic"``: some rotations; ``"mirror"``: no rotation, but a reflection; ``"none"``. Registration is
            ambiguous for the first two.
        color: (r, g, b) in [0, 1] of the material.
    """

    name: str
    build: Callable[..., Solid]
    variants: Mapping[str, Mapping[str, float]]
    tolerance: Mapping[str, float]
    symmetry: Literal["axial", "cyclic", "mirror", "none"]
    color: tuple[float, float, float] = field(default=(0.62, 0.63, 0.65))

    @property
    def subcategories(self) -> list[str]:
        """Names of the variants, in the order of their definition."""
        return list(self.variants)

    def mesh(self, subcategory: str, generator: torch.Generator, *, variation: float = 1.0,
             scale: Mapping[str, float] | None = None) -> PartMesh:  # fmt: skip
        """One object of a variant, centred on the middle of its bounding box.

        Args:
            subcategory: one of `subcategories`.
            generator: draws the within-class deviation of each dimension, always the same number of values.
            variation: 0 gives the nominal part, 1 the full tolerances.
            scale: dimension -> factor on its nominal value; others are as in the variant.

        Raises:
            UnknownNameError: no such subcategory.
        """
        if subcategory not in self.variants:
            raise UnknownNameError(f"{self.name} has no variant {subcategory!r}; it has {', '.join(self.variants)}.")
        draws = (2 * torch.rand(len(self.tolerance), generator=generator, dtype=torch.float64) - 1).tolist()
        deviation = {
            name: variation * width * u for (name, width), u in zip(self.tolerance.items(), draws, strict=True)
        }
        scale = scale or {}
        nominal = {name: value * scale.get(name, 1) for name, value in self.variants[subcategory].items()}
        factors = {name: value * (1 + deviation.get(name, 0)) for name, value in nominal.items()}
        solid = self.build(**factors)
        vertices = torch.from_numpy(solid.vertices - (solid.vertices.min(0) + solid.vertices.max(0)) / 2)
        return PartMesh(vertices.float(), torch.from_numpy(solid.triangles.copy()), factors)
