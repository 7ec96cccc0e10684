"""DINO's vision transformer, as a frozen feature extractor for the colour image of an organised cloud.

Paper: Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021. Only the encoder, written
for the keys of the official checkpoints (``dino_vitbase8_pretrain.pth``, ``dino_deitsmall8_pretrain.pth``, ...), whose
sizes are read from the file itself. No weights are shipped. Checked here with random weights only: keys and shapes as
in the official model definition, blocks against `torch.nn.TransformerEncoderLayer`; no official file was at hand.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.errors import CheckpointError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours in [0, 1], by which images are standardised."""


class Dino(nn.Module):
    """ViT encoder.

    Args:
        dim: width of a token; heads are 64 wide.
        depth: number of blocks.
        patch: edge of a patch in pixels.
        grid: edge of the position embedding, in patches.
    """

    def __init__(self, dim: int = 768, depth: int = 12, patch: int = 8, grid: int = 28):
        super().__init__()
        self.patch, self.grid = patch, grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.blocks = nn.ModuleList([_Block(dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) colours in [0, 1], H and W multiples of the patch -> (B, dim, H / patch, W / patch) tokens."""
        mean, std = (image.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        token = self.patch_embed["proj"]((image - mean) / std)
        rows, columns = token.shape[-2:]
        token = torch.cat([self.cls_token.expand(len(token), -1, -1), token.flatten(2).transpose(1, 2)], 1)
        token = token + self._position(rows, columns)
        for block in self.blocks:
            token = block(token)
        return self.norm(token)[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))

    def _position(self, rows: int, columns: int) -> Tensor:
        if rows == columns == self.grid:
            return self.pos_embed
        place = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        place = F.interpolate(place, (rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], place.flatten(2).transpose(1, 2)], 1)


class _Block(nn.Module):
    """x + attention(LN x), then x + MLP(LN x), under DINO's names."""

    def __init__(self, dim: int):
        super().__init__()
        self.heads = dim // 64
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def load_dino(path: str | Path) -> Dino:
    """A frozen encoder from an official checkpoint.

    Raises:
        CheckpointError: the file is missing, unreadable, or no checkpoint of DINO's encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give the path of a DINO checkpoint, such as "
                              "dino_vitbase8_pretrain.pth.")  # fmt: skip
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        kernel, position = state["patch_embed.proj.weight"], state["pos_embed"]
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        model = Dino(kernel.shape[0], depth, kernel.shape[-1], math.isqrt(position.shape[1] - 1))
        model.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint of DINO's encoder ({error}).") from error
    return model.eval().requires_grad_(False)
