"""Point-MAE: a point transformer over groups of points, used as a frozen feature extractor.

Paper: Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022 (MIT-licensed code).
Attention "kal": the random-feature attention of C3D-AD (Lu et al., 2025, eq. 4-7), see `kernel_attention`.

Same as the paper: mini-PointNet tokens, positional embedding added before every block, pre-norm blocks, sizes of the
preset "paper", layer outputs taken through the one final LayerNorm. Different: neither class token nor stochastic
depth, because the encoder is used in evaluation mode only; shared per-point layers are `Linear` instead of `Conv1d`
of width 1 (the same numbers; official weights are reshaped on loading); blocks behind the last requested layer are
not computed. The preset "compact" is ours; its weights come from `python -m toolkit.nn.pretrain` and ship with the
package, see `toolkit/weights/point_mae_compact.json` for how they were trained and what they are worth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MLP

from toolkit.errors import CheckpointError, HyperparameterError
from toolkit.nn.kernel_attention import random_feature_attention, random_projection
from toolkit.ops.bank import has_bf16

Attention = Literal["softmax", "kal"]

SHIPPED = Path(__file__).parents[1] / "weights" / "point_mae_compact.safetensors"

PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(dim=384, depth=12, heads=6, stem=(128, 256, 512), position=128),
    "compact": dict(dim=192, depth=6, heads=3, stem=(64, 128, 256), position=64),
}
"""Constructor arguments by name. "paper" fits the official checkpoints `modelnet_8k.pth` and `pretrain.pth`."""


class PointMAE(nn.Module):
    """Encoder of Point-MAE.

    Args:
        dim: width of a token.
        depth: number of transformer blocks.
        heads: attention heads; divides ``dim``.
        stem: widths of the mini-PointNet: first layer, group feature, second layer.
        position: hidden width of the positional embedding.
        mlp_ratio: hidden width of a block's MLP over ``dim``.
        attention: ``"softmax"``, or ``"kal"`` for random-feature attention.
        features: number m of random features (only "kal").
        seed: draws the random features (only "kal"); the buffer ``projection`` keeps them.
        as_released: with "kal", repeat the defects of C3D-AD's released code, see `random_feature_attention`.
        bf16: compute in bfloat16 where the device has it in hardware (about 1 % error, 3 times faster on a CPU with
            AVX512-BF16 or AMX); elsewhere nothing changes.

    Raises:
        HyperparameterError: ``dim`` not divisible by ``heads``, or an unknown ``attention``.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        *,
        stem: tuple[int, int, int] = (128, 256, 512),
        position: int = 128,
        mlp_ratio: float = 4.0,
        attention: Attention = "softmax",
        features: int = 10,
        seed: int = 0,
        as_released: bool = False,
        bf16: bool = False,
    ):
        super().__init__()
        if dim % heads:
            raise HyperparameterError(f"dim must be divisible by heads, got dim={dim}, heads={heads}.")
        if attention not in ("softmax", "kal"):
            raise HyperparameterError(f"attention must be 'softmax' or 'kal', got {attention!r}.")
        self.dim, self.depth, self.bf16 = dim, depth, bf16
        self.encoder = GroupEncoder(dim, stem)
        self.pos_embed = positional_embedding(dim, position)
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio, as_released) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.projection: Tensor | None
        if attention == "kal":
            self.register_buffer("projection", random_projection(features, dim // heads, seed, as_released))
        else:
            self.projection = None

    def forward(self, centre: Tensor, neighbours: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """Tokens after the requested blocks.

        Args:
            centre: (B, G, 3) centres.
            neighbours: (B, G, K, 3) points minus their centre.
            layers: 0-based blocks whose output is wanted, e.g. ``(3, 7, 11)``; the last block by default. -1 is the
                group encoder's token, before any attention. Blocks behind the largest are not computed.

        Returns:
            One (B, G, dim) tensor per entry of ``layers``, each through the final LayerNorm.

        Raises:
            HyperparameterError: a layer that does not exist.
        """
        layers = (self.depth - 1,) if layers is None else tuple(layers)
        if not layers or min(layers) < -1 or max(layers) >= self.depth:
            raise HyperparameterError(f"layers must lie in -1..{self.depth - 1}, got {layers}.")
        with fast_autocast(self.bf16, centre.device.type):
            position = self.pos_embed(centre)
            token = self.encoder(neighbours)
            found = {-1: token}
            for i, block in enumerate(self.blocks[: max(layers) + 1]):
                token = block(token + position, self.projection)
                found[i] = token
            return [self.norm(found[i]).float() for i in layers]


class GroupEncoder(nn.Module):
    """Mini-PointNet: one token per group, whatever the order of the group's points.

    Args:
        dim: width of the token.
        stem: widths (first layer, group feature, second layer).
    """

    chunk = 2**18  # points at a time when no gradient is wanted: bounds memory at 8192 groups of 128 points

    def __init__(self, dim: int, stem: tuple[int, int, int]):
        super().__init__()
        inner, feature, outer = stem
        self.first = MLP([3, inner, feature], norm="batch_norm", act="relu", plain_last=True)
        self.second = MLP([2 * feature, outer, dim], norm="batch_norm", act="relu", plain_last=True)

    def forward(self, neighbours: Tensor) -> Tensor:
        """(B, G, K, 3) points minus their centre -> (B, G, dim)."""
        shape, size = neighbours.shape[:-2], neighbours.shape[-2]
        groups = neighbours.reshape(-1, size, 3)
        # batch statistics (training) need all groups at once
        step = groups.shape[0] if self.training or torch.is_grad_enabled() else max(1, self.chunk // size)
        tokens = torch.cat([self._tokens(part) for part in groups.split(max(1, step))])
        return tokens.view(*shape, -1)

    def _tokens(self, groups: Tensor) -> Tensor:
        count, size, _ = groups.shape
        point = self.first(groups.reshape(-1, 3)).view(count, size, -1)
        whole = _largest(point)[:, None].expand_as(point)
        point = self.second(torch.cat([whole, point], -1).flatten(0, 1))
        return _largest(point.view(count, size, -1))


def _largest(x: Tensor) -> Tensor:
    """(N, K, C) -> (N, C) maximum over K; amax is the faster one forwards, but its gradient is 15 times slower."""
    return x.max(1).values if torch.is_grad_enabled() else x.amax(1)


def positional_embedding(dim: int, hidden: int) -> nn.Sequential:
    """(..., 3) coordinates -> (..., dim)."""
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(LN x), then x + MLP(LN x)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, as_released: bool = False):
        super().__init__()
        self.heads, self.as_released = heads, as_released
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, int(mlp_ratio * dim)), nn.GELU(), nn.Linear(int(mlp_ratio * dim), dim))

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """(B, G, dim) -> (B, G, dim); random-feature attention if a (m, head dim) projection is given."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if projection is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = random_feature_attention(q, k, v, projection, self.as_released)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def fast_autocast(wanted: bool, device: str = "cpu") -> contextlib.AbstractContextManager:
    """bfloat16 autocast if it is wanted and the device computes it in hardware; otherwise nothing.

    Without hardware support bfloat16 is slower than float32, so it is never emulated.
    """
    if device == "cpu":
        able = has_bf16()
    else:
        able = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device, dtype=torch.bfloat16) if wanted and able else contextlib.nullcontext()


def load_point_mae(
    weights: str | Path = "shipped",
    preset: str = "compact",
    attention: Attention = "softmax",
    seed: int = 0,
    **options: Any,
) -> PointMAE:
    """A frozen Point-MAE in evaluation mode.

    Args:
        weights: ``"shipped"`` (only preset "compact"), ``"random"``, or a file: an official Point-MAE checkpoint
            (``modelnet_8k.pth``, ``pretrain.pth``) for preset "paper", or a ``.safetensors`` file of
            `toolkit.nn.pretrain`.
        preset: ``"paper"`` or ``"compact"``.
        attention: ``"softmax"`` or ``"kal"``.
        seed: draws random weights and the random features of "kal".
        options: further arguments of `PointMAE` (``features``, ``as_released``, ``bf16``).

    Raises:
        HyperparameterError: unknown preset, or shipped weights for another preset than "compact".
        CheckpointError: a file that is missing, unreadable, or does not fit the preset key by key.
    """
    if preset not in PRESETS:
        raise HyperparameterError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    if weights == "shipped" and preset != "compact":
        raise HyperparameterError(
            f"The shipped weights are for the size 'compact', not {preset!r}. Use 'compact', or give weights the path "
            "of an official Point-MAE checkpoint, or 'random'."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PointMAE(**PRESETS[preset], attention=attention, seed=seed, **options)
    if weights != "random":
        load_state(model, SHIPPED if weights == "shipped" else Path(weights))
    return model.eval().requires_grad_(False)


def load_state(model: PointMAE, path: Path) -> None:
    """Fill a model from a checkpoint file; every encoder key must be there, with its shape, and none may be left over.

    Raises:
        CheckpointError: see `load_point_mae`.
    """
    state = {ours: value for key, value in _read(path).items() if (ours := _our_key(key)) is not None}
    state = {k: v.squeeze(-1) if k.startswith("encoder.") and v.dim() == 3 else v for k, v in state.items()}
    wanted = {key: value for key, value in model.state_dict().items() if key != "projection"}
    state.pop("projection", None)  # the model's own random features
    faults = [f"missing {key}" for key in wanted if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in wanted]
    faults += [
        f"{key} has shape {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults:
        shown = "; ".join(faults[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(
            f"{path}: not a Point-MAE encoder of {model.depth} blocks of width {model.dim}: {shown}. "
            "Give the checkpoint that belongs to the preset, or the other preset."
        )
    model.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()}, strict=False)


def _read(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a .safetensors or torch file, without running any code that the file may hold."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give the path of a Point-MAE checkpoint, 'shipped' or 'random'.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({error}). It may be truncated, of another kind, or hold Python "
            "objects that are not loaded from files of unknown origin; keep only its entry 'base_model' and save again."
        ) from error
    for name in ("base_model", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise CheckpointError(f"{path}: expected a dictionary of tensors, possibly under 'base_model'.")
    return content


_RENAMED = {  # official module names of the group encoder -> ours
    "encoder.first_conv.0.": "encoder.first.lins.0.",
    "encoder.first_conv.1.": "encoder.first.norms.0.module.",
    "encoder.first_conv.3.": "encoder.first.lins.1.",
    "encoder.second_conv.0.": "encoder.second.lins.0.",
    "encoder.second_conv.1.": "encoder.second.norms.0.module.",
    "encoder.second_conv.3.": "encoder.second.lins.1.",
    "blocks.blocks.": "blocks.",
    ".attn.": ".",
    ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.2.",
}
_DROPPED = ("cls_", "mask_token", "decoder_pos_embed.", "MAE_decoder.", "increase_dim.")


def _our_key(key: str) -> str | None:
    """Our name of an official parameter; None for parts that the encoder does not have (heads, decoder)."""
    for prefix in ("module.", "base_model.", "MAE_encoder."):
        key = key.removeprefix(prefix)
    if key.startswith(_DROPPED):
        return None
    for theirs, ours in _RENAMED.items():
        key = key.replace(theirs, ours)
    return key
