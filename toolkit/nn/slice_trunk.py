"""Frozen image networks that turn the slices of a cloud into one global vector (ISMP's Spatial Insight Engine).

Published: EfficientNet-B0 (Tan and Le, ICML 2019) trained on ImageNet, without its last convolution: 320 x 7 x 7 for an
image of 224 pixels; per view the maximum over the 49 places, then the mean over the views. Its weights are not ours to
ship: give torchvision's file (``efficientnet_b0_*.pth``). Without it there are a small network of this project, which
`python -m toolkit.nn.slice_pretrain` trains to tell procedural parts apart by their slices, and a grid of mean grey
values, which needs no training and does not forget where in the image something is.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.nn.ctf_net import load_exactly

SHIPPED = Path(__file__).parents[1] / "weights" / "slice_trunk.safetensors"


class SliceTrunk(nn.Module):
    """Images -> one vector per cloud: maximum over places, mean over views.

    Attributes:
        pixels: edge of the images it is made for.
        dim: width of the vector.
    """

    pixels: int
    dim: int

    def maps(self, images: Tensor) -> Tensor:
        """(B, 1, P, P) grey values in [0, 1] -> (B, dim, Q, Q)."""
        raise NotImplementedError

    def forward(self, views: Tensor) -> Tensor:
        """(B, V, P, P) -> (B, dim)."""
        batch, count, *size = views.shape
        found = self.maps(views.reshape(batch * count, 1, *size)).amax((2, 3))
        return found.view(batch, count, -1).mean(1)


class GridTrunk(SliceTrunk):
    """Mean grey value in each of 8 x 8 fields of each of the four views, side by side; nothing is learned."""

    pixels, dim, fields = 64, 256, 8

    def maps(self, images: Tensor) -> Tensor:
        """(B, 1, P, P) -> (B, 1, 8, 8)."""
        return nn.functional.adaptive_avg_pool2d(images, self.fields)

    def forward(self, views: Tensor) -> Tensor:
        """(B, 4, P, P) -> (B, 256)."""
        return self.maps(views.flatten(0, 1)[:, None]).view(views.shape[0], -1)


class SmallTrunk(SliceTrunk):
    """Five convolutions, four of which halve the image.

    Args:
        classes: parts told apart in pre-training.
    """

    pixels, dim = 64, 96

    def __init__(self, classes: int = 20):
        super().__init__()
        widths = (1, 16, 32, 64, 96)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(96, self.dim, 3, padding=1))
        self.classifier = nn.Linear(self.dim, classes)

    def maps(self, images: Tensor) -> Tensor:
        """(B, 1, 64, 64) -> (B, 96, 4, 4)."""
        return self.layers(images)


class EfficientNetTrunk(SliceTrunk):
    """EfficientNet-B0 without its last convolution.

    Args:
        path: torchvision's weights; None leaves them random.
        normalize: shift and scale grey values as ImageNet's were; False gives the network 0 to 255, as released.
    """

    pixels, dim = 224, 320

    def __init__(self, path: Path | None, *, normalize: bool = False):
        super().__init__()
        from toolkit.compat import fix_torchvision

        fix_torchvision()
        from torchvision.models import efficientnet_b0

        whole = efficientnet_b0(weights=None)
        if path is not None:
            load_exactly(whole, path, "torchvision's efficientnet_b0")
        self.layers, self.normalize = whole.features[:-1], normalize

    def maps(self, images: Tensor) -> Tensor:
        """(B, 1, P, P) -> (B, 320, P / 32, P / 32)."""
        images = images.expand(-1, 3, -1, -1)
        if self.normalize:
            mean, std = images.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
            return self.layers((images - mean) / std)
        return self.layers(255 * images)


def load_slice_trunk(weights: str | Path = "grid", *, seed: int = 0, normalize: bool = False) -> SliceTrunk:
    """A frozen trunk in evaluation mode.

    Args:
        weights: "grid"; "shipped" or "random" for the small network; a ``.safetensors`` file of
            `toolkit.nn.slice_pretrain`; or torchvision's file of EfficientNet-B0 (any other ending).
        seed: draws random weights.
        normalize: see `EfficientNetTrunk`.

    Raises:
        CheckpointError: a file that is missing, unreadable, or does not fit key by key.
    """
    if weights == "grid":
        return GridTrunk().eval()
    path = SHIPPED if weights == "shipped" else Path(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk: SliceTrunk
        if weights != "random" and path.suffix != ".safetensors":
            trunk = EfficientNetTrunk(path, normalize=normalize)
        else:
            trunk = SmallTrunk()
            if weights != "random":
                load_exactly(trunk, path, "a small slice trunk")
    return trunk.eval().requires_grad_(False)
