"""Kernel attention of C3D-AD: random-feature attention, and attention with a learnable advisor (KAA).

Paper: Lu et al., "C3D-AD: Toward Continual 3D Anomaly Detection via Kernel Attention with Learnable Advisor", 2025,
eq. 4-7 (random-feature attention, inside Point-MAE) and 8-11 (advisor).

Same as the paper: the features phi (eq. 5), the ratio (eq. 6-7), the advisor's objective, step and output (eq. 8-11),
alpha = beta = 0.7.
Different, and why:

* `KernelAdvisorAttention(form="stable")`, the default, scales phi(x) to unit length per token and averages over tokens.
  In the paper's form phi carries exp(-|x|^2 / 2) and nothing divides it out again: with unit-variance tokens the
  output is about 1e-5 of the residual stream, so that the attention is practically switched off, while plain sums over
  thousands of tokens make the step diverge as soon as phi is not tiny. `form="paper"` keeps the equations as printed.
* Random vectors are standard normal, as the text says, drawn once by a private generator and kept in the state dict.
  The released code scales them by another sqrt(d), and draws them anew in every forward pass by resetting the global
  random generator.
* The released code's key stabiliser is a maximum that differs between tokens and does not cancel. Here every feature
  is divided by its own maximum over the keys and the queries are multiplied by it: exact algebra, and the
  denominator can never vanish, so no epsilon is added.
* `form="as_released"` and `as_released=True` repeat what the released code computes, for reproduction of its numbers;
  its resetting of the global generator is not repeated.

Where the paper is silent: the first update of the advisor is S = V^T Phi(K) (the released code's choice); the advisor
is shared by the clouds of a batch and moved by their mean step.

About alpha: the step (eq. 10) has its fixed point at (1 + alpha) times the least-squares regression of v on phi(k),
not at the regression; the paper's objective rewards large agreement between v and S phi(k). The layers that follow are
layer-normalised, so we follow the paper and do not divide the factor out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from toolkit.errors import HyperparameterError

Form = Literal["stable", "paper", "as_released"]
Inference = Literal["frozen", "transient"]


def random_projection(features: int, dim: int, seed: int, as_released: bool = False) -> Tensor:
    """(m, d) random vectors w_i ~ N(0, I) of eq. 5, drawn by a private generator.

    ``as_released`` multiplies each row by the length of another normal vector (rows of length d instead of sqrt(d)).
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(features, dim, generator=generator)
    if as_released:
        rows = rows * torch.randn(features, dim, generator=generator).norm(dim=1, keepdim=True)
    return rows


def random_feature_attention(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, as_released: bool = False) -> Tensor:
    """Softmax attention approximated by positive random features (eq. 4-7), linear in the number of tokens.

    Queries and keys are scaled by d^(-1/4), so the expectation is attention with temperature sqrt(d).

    Args:
        q: (B, H, L, d) queries.
        k: (B, H, n, d) keys.
        v: (B, H, n, c) values.
        projection: (m, d) random vectors, shared by the heads.
        as_released: stabilise keys by a maximum per token (over features and heads) and add 1e-6 to features and
            denominator, as the released code does.

    Returns:
        (B, H, L, c).
    """
    q, k = q * q.shape[-1] ** -0.25, k * k.shape[-1] ** -0.25
    log_q, log_k = _log_features(q, projection), _log_features(k, projection)
    if as_released:
        root = projection.shape[0] ** 0.5
        dash_q, dash_k = q @ projection.t(), k @ projection.t()
        phi_q = (torch.exp(log_q - dash_q.amax(-1, keepdim=True)) + 1e-6) / root
        phi_k = (torch.exp(log_k - dash_k.amax((1, -1), keepdim=True)) + 1e-6) / root
        return phi_q @ (phi_k.transpose(-2, -1) @ v) / (phi_q @ phi_k.sum(-2)[..., None] + 1e-6)
    largest = log_k.amax(-2, keepdim=True).detach()  # per feature: constant over the keys, handed on to the queries
    phi_k = torch.exp(log_k - largest)
    log_q = log_q + largest
    phi_q = torch.exp(log_q - log_q.amax(-1, keepdim=True).detach())
    return phi_q @ (phi_k.transpose(-2, -1) @ v) / (phi_q @ phi_k.sum(-2)[..., None])


def _log_features(x: Tensor, projection: Tensor) -> Tensor:
    """(..., d) -> (..., m): log of sqrt(m) phi(x), that is w x - |x|^2 / 2 (eq. 5)."""
    return x @ projection.t() - x.square().sum(-1, keepdim=True) / 2


class KernelAdvisorAttention(nn.Module):
    """Attention whose keys and values are remembered by an advisor matrix (KAA, eq. 8-11).

    O = phi(Q) S^T with the advisor S, a buffer of d x m numbers whatever the number of tokens seen. In training mode
    each forward pass moves S by

        S_t = S_{t-1} - beta S_{t-1} phi(k) phi(k)^T + beta (1 + alpha) v phi(k)^T

    over the tokens, uses S_t (gradients flow through this cloud's k and v, not into S_{t-1}) and keeps it. In
    evaluation mode S stays as it is.

    The random features are computed with the product of the random vectors and the key or query layer, so the wide
    (n, inner) keys and queries are never formed; this is exact.

    Args:
        dim: width of the tokens.
        inner: width d of keys and queries.
        features: number m of random features. At least 64 is advisable; the paper uses 10.
        alpha: weight of the agreement between values and the advisor's answer.
        beta: step size of the advisor.
        form: ``"stable"``, ``"paper"`` or ``"as_released"``, see the head of this file.
        advisor_inference: ``"frozen"`` answers from S alone in evaluation mode (eq. 11): the output then depends on the
            queries only, not on keys and values. ``"transient"`` moves a copy of S by the cloud at hand, uses and
            forgets it.
        seed: draws the random vectors.

    Attributes:
        advisor: (dim, m) buffer S; zero, and so without effect in frozen evaluation, until the first training step.
        initialised: bool buffer.
        keep_updates: whether training steps are kept; `frozen_advisors` turns it off.

    Raises:
        HyperparameterError: an unknown form or inference, or sizes or rates out of range.
    """

    advisor: Tensor
    initialised: Tensor
    projection: Tensor

    def __init__(
        self,
        dim: int = 256,
        inner: int = 256,
        features: int = 64,
        *,
        alpha: float = 0.7,
        beta: float = 0.7,
        form: Form = "stable",
        advisor_inference: Inference = "frozen",
        seed: int = 0,
    ):
        super().__init__()
        if min(dim, inner, features) < 1:
            raise HyperparameterError(
                f"dim, inner and features must be at least 1, got dim={dim}, inner={inner}, features={features}."
            )
        if alpha < 0 or not 0 < beta < 2:
            raise HyperparameterError(f"expected alpha >= 0 and 0 < beta < 2, got alpha={alpha}, beta={beta}.")
        if form not in ("stable", "paper", "as_released"):
            raise HyperparameterError(f"form must be 'stable', 'paper' or 'as_released', got {form!r}.")
        if advisor_inference not in ("frozen", "transient"):
            raise HyperparameterError(f"advisor_inference must be 'frozen' or 'transient', got {advisor_inference!r}.")
        self.alpha, self.beta, self.form, self.advisor_inference = alpha, beta, form, advisor_inference
        self.query, self.key = nn.Linear(dim, inner), nn.Linear(dim, inner)
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("projection", random_projection(features, inner, seed, form == "as_released"))
        self.register_buffer("advisor", torch.zeros(dim, features))
        self.register_buffer("initialised", torch.tensor(False))
        self.keep_updates = True

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Answer queries from the advisor.

        Args:
            query: (B, L, dim).
            key: (B, n, dim).
            value: (B, n, dim).

        Returns:
            (B, L, dim).
        """
        advisor = self.advisor
        if self.training or self.advisor_inference == "transient":
            advisor = self.step(self.phi(key, self.key, is_key=True), value)
            if self.training and self.keep_updates:
                # a new tensor: the old one is part of the graph of this forward pass
                self.advisor = advisor.detach().to(self.advisor.dtype)
                self.initialised = torch.ones_like(self.initialised)
        return self.phi(query, self.query) @ advisor.to(value.dtype).t()

    def step(self, phi: Tensor, value: Tensor) -> Tensor:
        """The advisor after one step (eq. 10) over (B, n, m) features and (B, n, dim) values; S itself is not changed.

        The step is summed over a cloud's tokens (averaged in the stable form) and averaged over the clouds.
        """
        weight = 1 / (value.shape[0] * value.shape[1] if self.form == "stable" else value.shape[0])
        phi, value = phi.flatten(0, 1).to(self.advisor.dtype), value.flatten(0, 1).to(self.advisor.dtype)
        association = value.t() @ phi * weight
        # S phi phi^T as S (phi^T phi): m x m, never (n, dim)
        old = self.advisor @ (phi.t() @ phi) * weight
        later = self.advisor - self.beta * old + self.beta * (1 + self.alpha) * association
        return torch.where(self.initialised, later, association)

    def phi(self, x: Tensor, layer: nn.Linear, is_key: bool = False) -> Tensor:
        """(B, n, dim) tokens -> (B, n, m) random features of ``layer(x) * d^(-1/4)`` (eq. 5)."""
        shrink = layer.out_features**-0.25
        # w^T (P x + b) = (P^T w)^T x + w^T b
        rows, bias = self.projection @ layer.weight, self.projection @ layer.bias
        if self.form == "stable":
            # exp(-|x|^2 / 2) and 1 / sqrt(m) cancel, and e^z / |e^z| is the root of softmax(2 z)
            twice = nn.functional.linear(x, 2 * shrink * rows, 2 * shrink * bias)
            twice = twice - twice.detach().amax(-1, keepdim=True)
            # what is below e^-30 of the largest adds nothing, but numbers too small to be normalised, and products of
            # such, make matrix products up to 40 times slower
            return nn.functional.threshold(twice, -60.0, -60.0, inplace=True).softmax(-1).sqrt()
        dash = nn.functional.linear(x, shrink * rows, shrink * bias)
        # |P x + b|^2 = x^T P^T P x + 2 b^T P x + b^T b
        gram, cross = layer.weight.t() @ layer.weight, layer.weight.t() @ layer.bias
        square = ((x @ gram) * x).sum(-1, keepdim=True) + 2 * (x @ cross)[..., None] + layer.bias.square().sum()
        log_phi = dash - square * shrink**2 / 2
        root = self.projection.shape[0] ** 0.5
        if self.form == "paper":
            return torch.exp(log_phi) / root
        largest = dash.amax((-2, -1) if is_key else -1, keepdim=True)
        return (torch.exp(log_phi - largest) + 1e-6) / root


@contextlib.contextmanager
def frozen_advisors(module: nn.Module) -> Iterator[None]:
    """Within it, no advisor inside ``module`` keeps its training steps.

    Training-mode passes still use the step of their own clouds, so that they compute what training would; needed for
    passes that must leave no trace, such as the inner loop of parameter perturbation.
    """
    advisors = [part for part in module.modules() if isinstance(part, KernelAdvisorAttention)]
    before = [part.keep_updates for part in advisors]
    for part in advisors:
        part.keep_updates = False
    try:
        yield
    finally:
        for part, kept in zip(advisors, before, strict=True):
            part.keep_updates = kept
