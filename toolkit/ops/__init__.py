"""Point operators: tensors in, tensors out, on the device of the input.

Importing this package also registers the kernels that torch-geometric takes from pyg-lib, where that is not installed
(see `toolkit.ops.kernels`).
"""

from toolkit.ops import kernels  # noqa: F401  (registers on import)
from toolkit.ops.bank import bank_nearest
from toolkit.ops.chamfer import chamfer
from toolkit.ops.coreset import coreset
from toolkit.ops.emd import emd
from toolkit.ops.fpfh import fpfh
from toolkit.ops.fps import fps
from toolkit.ops.icp import icp
from toolkit.ops.interpolate import interpolate
from toolkit.ops.knn import knn
from toolkit.ops.morton import morton_order
from toolkit.ops.normals import curvature, normals
from toolkit.ops.radius import radius
from toolkit.ops.ransac import ransac
from toolkit.ops.register import Registration, Template, register
from toolkit.ops.rigid import fit_rigid, transformed
from toolkit.ops.scale import diagonal, spacing
from toolkit.ops.smooth import smooth, smooth_by_order
from toolkit.ops.voxel import voxel_downsample

__all__ = [
    "Registration",
    "Template",
    "bank_nearest",
    "chamfer",
    "coreset",
    "curvature",
    "diagonal",
    "emd",
    "fit_rigid",
    "fpfh",
    "fps",
    "icp",
    "interpolate",
    "knn",
    "morton_order",
    "normals",
    "radius",
    "ransac",
    "register",
    "smooth",
    "smooth_by_order",
    "spacing",
    "transformed",
    "voxel_downsample",
]
