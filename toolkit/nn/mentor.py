"""Networks of Mentor3AD: two views of a place, what they share (the mentor), and each rebuilt from the other.

Sources and what is inferred: see ``strategies/mentor3ad.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Vote = Literal["mixed", "product", "mean", "largest"]
VOTES = ("mixed", "product", "mean", "largest")


@dataclass
class Meeting:
    """What a `Pair` makes of M places.

    Attributes:
        first, second: (M, A) and (M, B), the standardised views.
        rebuilt_first, rebuilt_second: the same shapes, each from the other view and the mentor.
        shared: (M, E) unit-length views in the common space, first and second, and the mentor carried there; None
            without a mentor.
    """

    first: Tensor
    second: Tensor
    rebuilt_first: Tensor
    rebuilt_second: Tensor
    shared: tuple[Tensor, Tensor, Tensor] | None


class Pair(nn.Module):
    """Mentor of fusion and mentor of guidance.

    Args:
        first: channels A of the first view.
        second: channels B of the second view.
        mentor: channels of the mentor; 0 leaves it out, and what remains is CFM.
        embed: channels E of the common space.
        hidden: width of the rebuilding MLPs; 0 = the mean of what goes in and comes out, as in CFM.
        dropout: of the mentor where it guides, so that it cannot simply hand over what it saw of the target.
    """

    def __init__(self, first: int, second: int, mentor: int, embed: int, hidden: int, dropout: float):
        super().__init__()
        self.mentor = mentor
        if mentor:
            self.embed_first, self.embed_second = _projection(first, embed), _projection(second, embed)
            self.fuse = nn.Sequential(nn.Linear(2 * embed, embed), nn.GELU(), nn.Linear(embed, mentor))
            self.unfold = nn.Linear(mentor, embed)
        self.dropout = nn.Dropout(dropout)
        self.to_second = _mlp(first + mentor, second, hidden)
        self.to_first = _mlp(second + mentor, first, hidden)

    def forward(self, first: Tensor, second: Tensor) -> Meeting:
        """(M, A) and (M, B) standardised views of the same places."""
        if not self.mentor:
            return Meeting(first, second, self.to_first(second), self.to_second(first), None)
        mentor, one, two = self.fused(first, second)
        guide = self.dropout(mentor.detach())  # rebuilding must not teach the mentor to carry the target over
        rebuilt_first = self.to_first(torch.cat([second, guide], 1))
        rebuilt_second = self.to_second(torch.cat([first, guide], 1))
        shared = (one, two, F.normalize(self.unfold(mentor), dim=1))
        return Meeting(first, second, rebuilt_first, rebuilt_second, shared)

    def fused(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(M, mentor) mentor feature, and (M, E) unit-length views in the common space."""
        one, two = F.normalize(self.embed_first(first), dim=1), F.normalize(self.embed_second(second), dim=1)
        return self.fuse(torch.cat([one, two], 1)), one, two

    def voters(self, first: Tensor, second: Tensor) -> Tensor:
        """(M, 3) disagreements: of the first view with its rebuilding, of the second, and of the two mentors.

        The third compares the mentor of the real views with that of the rebuilt ones; (M, 2) without a mentor.
        """
        met = self(first, second)
        found = [_apart(met.rebuilt_first, first), _apart(met.rebuilt_second, second)]
        if self.mentor:
            real = self.fused(first, second)[0]
            found.append(1 - F.cosine_similarity(real, self.fused(met.rebuilt_first, met.rebuilt_second)[0]))
        return torch.stack(found, 1)


def info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of (M, E) unit-length rows: row i of `a` belongs to row i of `b`, all others do not."""
    agreement, own = a @ b.T / temperature, torch.arange(len(a), device=a.device)
    return (F.cross_entropy(agreement, own) + F.cross_entropy(agreement.T, own)) / 2


def fusion_loss(met: Meeting, temperature: float, pairs: int) -> Tensor:
    """Trains the mentor: its two views must name each other's places, and it must name both's.

    Args:
        met: of a mini-batch.
        temperature: of `info_nce`.
        pairs: at most so many places, evenly spaced.
    """
    assert met.shared is not None
    step = max(1, -(-len(met.first) // pairs))
    one, two, mentor = (x[::step] for x in met.shared)
    both = info_nce(mentor, one.detach(), temperature) + info_nce(mentor, two.detach(), temperature)
    return info_nce(one, two, temperature) + both / 2


def guidance_loss(met: Meeting) -> Tensor:
    """1 - cosine of each view and its rebuilding, both summed."""
    first = 1 - F.cosine_similarity(met.rebuilt_first, met.first)
    return (first + 1 - F.cosine_similarity(met.rebuilt_second, met.second)).mean()


def vote(voters: Tensor, rule: Vote) -> Tensor:
    """(M,) one score of (M, V) voters, each standardised by normal clouds; below the mean counts as the mean.

    "mixed": product of the two rebuilding voters (CFM's rule) plus the mean of the two largest of all.
    """
    voters = voters.clamp_min(0)
    product = voters[:, 0] * voters[:, 1]
    if rule == "product":
        return product
    if rule == "mean":
        return voters.mean(1)
    if rule == "largest":
        return voters.amax(1)
    return product + voters.topk(2, dim=1).values.mean(1)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).norm(dim=1)


def _projection(channels: int, embed: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2 * embed), nn.GELU(),
                         nn.Linear(2 * embed, embed))  # fmt: skip


def _mlp(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    width = hidden or (inputs + outputs) // 2
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
                         nn.Linear(width, outputs))  # fmt: skip
