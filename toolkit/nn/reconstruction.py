"""Reconstruction transformer of UniAD, MC3D-AD and C3D-AD: frozen tokens in, the tokens a normal object would have out.

Papers: You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022 (layers, jitter); Cheng et al.,
"MC3D-AD", IJCAI 2025 (tokens of point groups, geometry-aware masks); Lu et al., "C3D-AD", 2025 (attention "kaa").

Same as the released code of C3D-AD: post-norm layers, their order and sizes, positional embedding of the centres,
Xavier initialisation, no residual from the decoder's input to its queries: the decoder starts from positions alone, so
it cannot copy the tokens through. Different: jitter is scaled by the number of channels of the tokens (384 there), and
the query embedding that the released class holds without using it is left out.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from toolkit.errors import HyperparameterError
from toolkit.nn.kernel_attention import KernelAdvisorAttention

AttentionKind = Literal["kaa", "softmax"]


class Reconstruction(nn.Module):
    """Encoder over tokens, decoder from positions.

    Args:
        tokens: channels C of the tokens.
        dim: width of the layers.
        feedforward: hidden width of their MLPs.
        depth: number of encoder layers, and of decoder layers.
        position: hidden width of the positional embedding.
        dropout: in training, after every attention and inside the MLPs.
        jitter: noise on the input tokens in training; its standard deviation is ``jitter`` / C times a token's length.
        attention: ``"softmax"``, or ``"kaa"`` for kernel attention with a learnable advisor.
        heads: attention heads (only "softmax").
        advisor: further arguments of `KernelAdvisorAttention` (only "kaa").

    Raises:
        HyperparameterError: an unknown ``attention``, a size below 1, ``dim`` not divisible by ``heads``.
    """

    def __init__(
        self,
        tokens: int,
        dim: int = 256,
        feedforward: int = 1024,
        depth: int = 4,
        *,
        position: int = 128,
        dropout: float = 0.1,
        jitter: float = 20.0,
        attention: AttentionKind = "kaa",
        heads: int = 8,
        advisor: dict[str, Any] | None = None,
    ):
        super().__init__()
        if attention not in ("kaa", "softmax"):
            raise HyperparameterError(f"attention must be 'kaa' or 'softmax', got {attention!r}.")
        sizes = dict(tokens=tokens, dim=dim, feedforward=feedforward, depth=depth, position=position, heads=heads)
        if min(sizes.values()) < 1 or dim % heads:
            raise HyperparameterError(f"sizes must be at least 1 and dim divisible by heads, got {sizes}.")
        self.jitter = jitter
        self.pos_embed = nn.Sequential(nn.Linear(3, position), nn.GELU(), nn.Linear(position, dim))
        self.input = nn.Linear(tokens, dim)

        def attend() -> nn.Module:
            if attention == "softmax":
                return _SoftmaxAttention(dim, heads, dropout)
            return KernelAdvisorAttention(dim, **(advisor or {}))

        self.encoder = nn.ModuleList([_EncoderLayer(dim, feedforward, dropout, attend) for _ in range(depth)])
        self.decoder = nn.ModuleList([_DecoderLayer(dim, feedforward, dropout, attend) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, tokens)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, token: Tensor, centre: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Reconstruct tokens.

        Args:
            token: (B, G, C).
            centre: (B, G, 3) where the tokens' groups are.
            hidden: (B, G) bool, tokens not to be looked at by the encoder and by the decoder's look at the encoder
                (only attention "softmax").

        Returns:
            (B, G, C).
        """
        position = self.pos_embed(centre)
        if self.training and self.jitter:
            token = token + torch.randn_like(token) * token.norm(dim=-1, keepdim=True) * (self.jitter / token.shape[-1])
        memory = self.input(token)
        for layer in self.encoder:
            memory = layer(memory, position, hidden)
        out = memory
        for layer in self.decoder:
            out = layer(out, memory, position, hidden)
        return self.output(self.norm(out))


class FourierPosition(nn.Module):
    """Positional embedding by random Fourier features (Tancik et al., NeurIPS 2020).

    A small MLP of coordinates varies too slowly to tell neighbouring groups apart.

    Args:
        frequencies: number of random waves.
        dim: width of the embedding.
        sigma: standard deviation of the waves' frequencies, in 1 / unit of the coordinates; 1 suits a unit sphere.
    """

    waves: Tensor

    def __init__(self, frequencies: int, dim: int, sigma: float = 1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("waves", torch.randn(frequencies, 3, generator=generator) * sigma)
        self.linear = nn.Linear(2 * frequencies, dim)

    def forward(self, centre: Tensor) -> Tensor:
        """(..., 3) coordinates -> (..., dim)."""
        angle = 2 * math.pi * centre @ self.waves.t()
        return self.linear(torch.cat([angle.sin(), angle.cos()], -1) * math.sqrt(2))


class _SoftmaxAttention(nn.Module):
    """Multi-head attention under the call of `KernelAdvisorAttention`."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.attention(query, key, value, key_padding_mask=hidden, need_weights=False)[0]


class _EncoderLayer(nn.Module):
    """x = LN(x + attention(x + p, x + p, x + p)); x = LN(x + MLP(x)). The positions are part of the values, too."""

    def __init__(self, dim: int, feedforward: int, dropout: float, attend: Any):
        super().__init__()
        self.attention = attend()
        self.mlp = _mlp(dim, feedforward, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
        placed = x + position
        x = self.norm1(x + self.dropout(self.attention(placed, placed, placed, *_masked(hidden))))
        return self.norm2(x + self.mlp(x))


class _DecoderLayer(nn.Module):
    """From positions, look at the encoder's output, then at the output of the layer before."""

    def __init__(self, dim: int, feedforward: int, dropout: float, attend: Any):
        super().__init__()
        self.attention1, self.attention2 = attend(), attend()
        self.mlp = _mlp(dim, feedforward, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, out: Tensor, memory: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
        x = position
        x = self.norm1(x + self.dropout(self.attention1(x, memory + position, memory, *_masked(hidden))))
        x = self.norm2(x + self.dropout(self.attention2(x + position, out + position, out)))
        return self.norm3(x + self.mlp(x))


def _mlp(dim: int, feedforward: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, dim),
                         nn.Dropout(dropout))  # fmt: skip


def _masked(hidden: Tensor | None) -> tuple[Tensor, ...]:
    """Kernel attention takes no mask: without one it is called with three arguments, with one it complains."""
    return () if hidden is None else (hidden,)
