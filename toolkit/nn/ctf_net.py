"""CTF-Net: convolutions along a group of points, ordered by distance, that end in one feature per group.

RIF (arXiv 2511.13115), section 3.3 and pipeline figure; layer by layer as in the released code, whose parameter count
(4.153 M with 40 classes) is the paper's 4.1 M: two depthwise convolutions of widths 3 and 5, summed, a 1x1 convolution,
ELU, batch norm, ELU.

Same: widths, 3x3 coordinate transform, 64x64 feature transform (only in the code), classifier. Different: evaluation
mode in use (the released extractor never leaves training mode and sees patches two by two, so that the feature of a
patch depends on the other's); tensors are (B, K, C), as a matrix product over the last axis is what a CPU does fastest;
the two depthwise convolutions are one of width 5, whose kernel is the sum of theirs. ``merge="concat"`` is the figure's
block, which puts the two side by side.

The network is not blind to the order of the points: give each group nearest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.errors import CheckpointError, HyperparameterError
from toolkit.nn.point_mae import _read as read_checkpoint
from toolkit.nn.point_mae import fast_autocast

Merge = Literal["sum", "concat"]

SHIPPED = Path(__file__).parents[1] / "weights" / "ctf_net.safetensors"
DIM = 1024
"""Width of a group's feature."""


class Depthwise(nn.Module):
    """One filter per channel along the points, zeros beyond the ends: (B, K, C) -> (B, K, C)."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)

    def kernel(self, size: int) -> tuple[Tensor, Tensor]:
        """(C, size) weights, padded with zeros, and (C,) bias."""
        weight = self.convolution.weight[:, 0]
        beyond = (size - weight.shape[1]) // 2
        return F.pad(weight, (beyond, beyond)), self.convolution.bias  # type: ignore[return-value]


class Block(nn.Module):
    """Compositional convolution block: (B, K, C) -> (B, K, D).

    Args:
        width: channels in.
        out: channels out.
        merge: "sum" of the two depthwise convolutions and an ELU behind the batch norm, as released; "concat" puts
            them side by side and ends in the batch norm, as drawn.
    """

    def __init__(self, width: int, out: int, merge: Merge = "sum"):
        super().__init__()
        self.merge = merge
        self.near, self.far = Depthwise(width, 3), Depthwise(width, 5)
        self.mix = nn.Linear(width if merge == "sum" else 2 * width, out)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, C) -> (B, K, D)."""
        return self._last(self._mixed(x))

    def largest(self, x: Tensor) -> Tensor:
        """(B, K, C) -> (B, D), the maximum over K of `forward`: what comes last keeps the order, so the maximum of what
        goes in is enough."""
        return self._last(largest(self._mixed(x)))

    def _mixed(self, x: Tensor) -> Tensor:
        (near, near_bias), (far, far_bias) = self.near.kernel(5), self.far.kernel(5)
        if self.merge == "sum":
            x = self.mix(filtered(x, near + far, near_bias + far_bias))
        else:
            x = self.mix(torch.cat([filtered(x, near, near_bias), filtered(x, far, far_bias)], -1))
        return self.norm(F.elu(x, inplace=True).flatten(0, 1)).view_as(x)

    def _last(self, x: Tensor) -> Tensor:
        return F.elu(x, inplace=True) if self.merge == "sum" else x


def filtered(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """(B, K, C) along K by one filter (C, S) per channel, S odd, zeros beyond the ends, plus (C,).

    As a convolution of an image of height 1 whose channels lie last in memory, which needs no transposed copy.
    """
    image = x.transpose(1, 2)[:, :, None]
    weight = kernel[:, None, None]
    out = F.conv2d(image, weight, bias, padding=(0, kernel.shape[1] // 2), groups=kernel.shape[0])
    return out[:, :, 0].transpose(1, 2)


def head(widths: tuple[int, ...], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers, batch norm and ELU between them, dropout before the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ELU()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Transform(nn.Module):
    """A square matrix from a group's points, the identity before training: (B, K, C) -> (B, C, C)."""

    def __init__(self, widths: tuple[int, ...], hidden: tuple[int, int], merge: Merge):
        super().__init__()
        self.size = widths[0]
        self.blocks = nn.Sequential(*(Block(a, b, merge) for a, b in pairwise(widths)))
        self.head = head((widths[-1], *hidden, self.size**2))
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, C) -> (B, C, C)."""
        change = self.head(pooled(self.blocks, x)).view(-1, self.size, self.size)
        return change + torch.eye(self.size, dtype=change.dtype, device=change.device)


class CTFNet(nn.Module):
    """Feature and class of groups of points.

    Args:
        classes: classes told apart in pre-training.
        feature_transform: the 64x64 transform.
        merge: see `Block`.
        bf16: compute in bfloat16 where the device has it in hardware.
    """

    chunk = 2**14
    """Points at a time when no gradient is wanted: 1024 channels of them are 64 MB."""

    def __init__(self, classes: int = 40, *, feature_transform: bool = True, merge: Merge = "sum", bf16: bool = False):
        super().__init__()
        if merge not in ("sum", "concat"):
            raise HyperparameterError(f"merge must be 'sum' or 'concat', got {merge!r}.")
        self.bf16 = bf16
        self.transform = Transform((3, 64, 128, 256, 512), (256, 128), merge)
        self.first = Block(3, 64, merge)
        wide = (64, 64, 128, 256, 512, 1024)
        self.feature_transform = Transform(wide, (512, 256), merge) if feature_transform else None
        self.rest = nn.Sequential(*(Block(a, b, merge) for a, b in pairwise(wide[1:])))
        self.classifier = head((DIM, 512, 256, classes), dropout=0.3)

    def features(self, points: Tensor) -> Tensor:
        """(B, K, 3) groups, nearest first -> (B, 1024) float32."""
        if self.training or torch.is_grad_enabled():  # batch statistics need all groups at once
            return self._features(points)
        step = max(1, self.chunk // points.shape[1])
        return torch.cat([self._features(part) for part in points.split(step)])

    def _features(self, points: Tensor) -> Tensor:
        with fast_autocast(self.bf16, points.device.type):
            x = self.first(points @ self.transform(points).to(points.dtype))
            if self.feature_transform is not None:
                x = x @ self.feature_transform(x).to(x.dtype)
            return pooled(self.rest, x).float()

    def forward(self, points: Tensor) -> Tensor:
        """(B, K, 3) -> (B, classes) logits."""
        return self.classifier(self.features(points))


def largest(x: Tensor) -> Tensor:
    """(B, K, C) -> (B, C) maximum over K; amax is the faster one forwards, but its gradient is slower."""
    return x.max(1).values if torch.is_grad_enabled() else x.amax(1)


def pooled(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """(B, K, C) through several `Block` -> (B, D), the maximum over K."""
    last = blocks[-1]
    assert isinstance(last, Block)
    return last.largest(blocks[:-1](x))


def load_ctf_net(weights: str | Path = "shipped", *, seed: int = 0, classes: int = 20, bf16: bool = False,
                 feature_transform: bool = True, merge: Merge = "sum") -> CTFNet:  # fmt: skip
    """A frozen CTF-Net in evaluation mode.

    Args:
        weights: "shipped", "random", or a ``.safetensors`` file of `toolkit.nn.ctf_pretrain`. Such files fit the
            defaults of the other arguments.
        seed: draws random weights.
        classes, feature_transform, merge: see `CTFNet`.
        bf16: see `CTFNet`. Off, because groups that lie at different places are told apart by their coordinates, of
            which bfloat16 leaves steps of 0.004 to 0.008 near 1.

    Raises:
        CheckpointError: a file that is missing, unreadable, or does not fit key by key.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CTFNet(classes, feature_transform=feature_transform, merge=merge, bf16=bf16)
    if weights != "random":
        load_exactly(model, SHIPPED if weights == "shipped" else Path(weights), "a CTF-Net of this shape")
    return model.eval().requires_grad_(False)


def load_exactly(model: nn.Module, path: Path, kind: str) -> None:
    """Fill a network from a .safetensors or torch file: every key must be there with its shape, and no other.

    Args:
        model: the network.
        path: the file; a torch file is read without running any code it may hold.
        kind: what the file should hold, for the message.

    Raises:
        CheckpointError: missing, unreadable, or another network's.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give the path of {kind}, 'shipped' or 'random'.")
    state: Mapping[str, Tensor] = read_checkpoint(path)
    wanted = model.state_dict()
    faults = [f"missing {key}" for key in wanted if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in wanted]
    faults += [f"{key} has shape {tuple(state[key].shape)} instead of {tuple(value.shape)}"
               for key, value in wanted.items() if key in state and state[key].shape != value.shape]  # fmt: skip
    if faults:
        shown = "; ".join(faults[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(f"{path}: not {kind}: {shown}. Give the file that belongs to it.")
    model.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()})


def save(model: nn.Module, path: Path) -> None:
    """Write a network as half-precision safetensors."""
    from safetensors.torch import save as to_bytes

    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(state))  # save_file hides it from others
