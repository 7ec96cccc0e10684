"""Frozen descriptions of the same places of a cloud by different eyes: geometry by hand, geometry learned, colour.

Cross-modal methods (CFM, M3DM, Mentor3AD) pair a colour image with a range image pixel by pixel. On clouds the pairing
goes by place: the cloud is averaged on a voxel grid, some grid points are chosen by farthest point sampling, and every
eye describes those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from toolkit.cloud import PointCloud
from toolkit.errors import CloudError
from toolkit.nn.dino import Dino
from toolkit.nn.grouping import group
from toolkit.nn.point_mae import PointMAE
from toolkit.ops import fpfh, knn, normals, voxel_downsample

NEAR = (8, 32, 128)
"""Grid points over which `color` takes mean and standard deviation."""


@dataclass(frozen=True)
class Places:
    """Where a cloud is described.

    Attributes:
        cloud: N points.
        voxel: edge of the grid.
        grid: (M, 3) mean point of each cell.
        cell: (N,) the grid point that each point went into.
        rows: (G,) the described grid points.
        neighbours: (G, K, 3) grid points around each in its own frame, divided by ``radius`` of the class.
        centre: (G, 3) the described points in those frames.
    """

    cloud: PointCloud
    voxel: float
    grid: Tensor
    cell: Tensor
    rows: Tensor
    neighbours: Tensor
    centre: Tensor

    @property
    def pos(self) -> Tensor:
        """(G, 3) described points, in the cloud's coordinates."""
        return self.grid[self.rows]


def places(cloud: PointCloud, size: float, voxel: float, groups: int, group_size: int) -> Places:
    """Choose at most `groups` places.

    Args:
        cloud: any number of points.
        size: diagonal of the class, by which lengths are measured.
        voxel: edge of the grid relative to it.
        groups: places, fewer where there are fewer grid points.
        group_size: grid points of a neighbourhood, likewise.

    Raises:
        CloudError: fewer than 3 occupied cells.
    """
    grid, cell = voxel_downsample(cloud.check(minimum=3).pos, voxel * size, return_inverse=True)
    if len(grid) < 3:
        raise CloudError(f"{cloud.sample_id}: a grid of {voxel * size:g} leaves {len(grid)} points, fewer than 3. "
                         "Use a smaller voxel.")  # fmt: skip
    found = group(grid * (2 / size), min(groups, len(grid)), min(group_size, len(grid)), scale="none", frame="local")
    return Places(cloud, voxel * size, grid, cell, found.rows, found.neighbours, found.centre)


def histograms(at: Places) -> Tensor:
    """(G, 33) square roots of FPFH, from 3 and 5 voxels as in BTF."""
    normal = normals(at.grid, k=30, radius=3 * at.voxel)
    return fpfh(at.grid, normal, radius=5 * at.voxel, k=100, rows=at.rows).sqrt_()


def tokens(at: Places, encoder: PointMAE, layers: tuple[int, ...], device: str = "cpu") -> Tensor:
    """(G, dim * layers) Point-MAE tokens of the neighbourhoods in their own frames."""
    found = encoder(at.centre[None].to(device), at.neighbours[None].to(device), layers)
    return torch.cat(found, 2)[0].float().cpu()


def color(at: Places) -> Tensor:
    """(G, 21) colours around a place: mean and deviation over 8, 32 and 128 grid points, and deviation in the cell.

    No network: it sees stains, colour changes and fine texture, no shapes in the print.

    Raises:
        CloudError: the cloud has no colours.
    """
    rgb = _colors(at.cloud)
    mean = scatter(rgb, at.cell, reduce="mean")
    own = (scatter((rgb - mean[at.cell]).square(), at.cell, reduce="mean")).sqrt()
    near = mean[knn(at.grid, at.pos, min(NEAR[-1], len(at.grid)))[0]]
    parts = [f for k in NEAR for f in (near[:, :k].mean(1), near[:, :k].std(1, correction=0))]
    return torch.cat([*parts, own[at.rows]], 1)


def image_tokens(at: Places, encoder: Dino, edge: int = 224, device: str = "cpu") -> Tensor:
    """(G, dim) DINO tokens of the pixels nearest to the places, bilinear between patches.

    The image is laid out from the cloud; pixels without a point are black, as the published preprocessing leaves
    removed background.

    Raises:
        CloudError: the cloud has no colours, or is not organised like an image.
    """
    cloud = at.cloud
    rgb = _colors(cloud)
    if "pixel" not in cloud:
        raise CloudError(f"{cloud.sample_id}: DINO needs clouds that are images (MVTec 3D-AD, Eyecandies). "
                         "Use the view color.")  # fmt: skip
    height, width = int(cloud.image_height), int(cloud.image_width)
    image = rgb.new_zeros(height * width, 3).index_copy_(0, cloud.pixel, rgb).T.unflatten(1, (height, width))
    edge = encoder.patch * max(1, math.floor(edge / encoder.patch))
    small = F.interpolate(image[None], (edge, edge), mode="bilinear", antialias=True, align_corners=False)
    found = encoder(small.to(device)).float().cpu()
    pixel = cloud.pixel[knn(cloud.pos, at.pos, 1)[0][:, 0]]
    row, column = (pixel // width + 0.5) / height, (pixel % width + 0.5) / width
    where = torch.stack([column, row], 1).float() * 2 - 1
    return F.grid_sample(found, where[None, :, None], padding_mode="border", align_corners=False)[0, :, :, 0].T


def _colors(cloud: PointCloud) -> Tensor:
    if "rgb" not in cloud:
        raise CloudError(f"{cloud.sample_id}: the cloud has no colours. Use two geometric views: fpfh and tokens.")
    return cloud.rgb.float()
