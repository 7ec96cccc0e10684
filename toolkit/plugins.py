"""Avalanche plugins that its own collection lacks, or that fail there for clouds (see `toolkit.continual`)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.plugins import AGEMPlugin, MASPlugin, SupervisedPlugin
from avalanche.training.utils import ParamData, zerolike_params_dict
from torch.nn import functional as F
from torch.utils.data import DataLoader

from toolkit.stream import collate


class CumulativePlugin(SupervisedPlugin):
    """Trains on the clouds of all experiences so far. Memory banks are emptied first and refilled."""

    def __init__(self) -> None:
        super().__init__()
        self.dataset: Any = None

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Empty a memory bank, which would otherwise hold the old clouds twice."""
        if not strategy.is_trained_by_gradient:
            strategy.restart()

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Put the earlier clouds in front of the new ones."""
        new = strategy.adapted_dataset
        self.dataset = new if self.dataset is None else concat_datasets([self.dataset, new])
        strategy.adapted_dataset = self.dataset


class RestartPlugin(SupervisedPlugin):
    """Forgets everything before each experience, buffers included (Avalanche's FromScratchTraining keeps those)."""

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Restart the method."""
        strategy.restart()


class FeatureMASPlugin(MASPlugin):
    """MAS on ``output.features`` (M, D); Avalanche's wants the output itself to be a matrix."""

    def _get_importance(self, strategy: Any) -> dict[str, ParamData]:
        importance = dict(zerolike_params_dict(strategy.model))
        loader = DataLoader(strategy.experience.dataset, batch_size=strategy.train_mb_size, collate_fn=collate)
        strategy.model.train()
        for clouds, _, _ in loader:
            strategy.model.zero_grad()
            features = strategy.model(clouds.to(strategy.device)).features
            features.flatten(0, -2).norm(dim=1).pow(2).mean().backward()
            for name, parameter in strategy.model.named_parameters():
                if parameter.grad is not None:
                    importance[name].data += parameter.grad.abs() / len(loader)
        strategy.model.zero_grad()
        return importance


class ResumableAGEMPlugin(AGEMPlugin):
    """A-GEM whose memory can be stored: its running loader is left out and started again."""

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("buffer_dataloader", "buffer_dliter")}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start the loader over the stored clouds, so that a resumed run draws what an uninterrupted one does."""
        if self.buffers:
            last = self.buffers.pop()
            self.update_memory(last)


class FeatureDistillationPlugin(SupervisedPlugin):
    """Adds the distance between the features of the network and of a frozen copy from the end of the last task.

    Args:
        alpha: weight.
        kind: "mse" or "cosine".
    """

    def __init__(self, alpha: float, kind: str):
        super().__init__()
        self.alpha, self.kind = alpha, kind
        self.old: torch.nn.Module | None = None

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the term to the loss."""
        if self.old is None:
            return
        with torch.no_grad():
            target = self.old(strategy.mb_x).features
        features = strategy.mb_output.features
        if self.kind == "mse":
            distance = F.mse_loss(features, target)
        else:
            distance = 1 - F.cosine_similarity(features, target, dim=-1).mean()
        strategy.loss = strategy.loss + self.alpha * distance

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Keep a frozen copy of the network."""
        self.old = copy.deepcopy(strategy.model).eval().requires_grad_(False)


class OldWeightsPlugin(SupervisedPlugin):
    """Before each step: weights = (1 - share) weights + share old, old being those after the last task.

    Parameters only: running statistics belong to the present data. Parameters that the old network lacked are left
    alone.

    Args:
        share: of the old weights.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share
        self.old: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Pull."""
        for name, parameter in strategy.model.named_parameters():
            if name in self.old:
                parameter.lerp_(self.old[name].to(parameter), self.share)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the weights."""
        self.old = {name: p.detach().clone() for name, p in strategy.model.named_parameters() if p.requires_grad}


class SynapticIntelligencePlugin(SupervisedPlugin):
    """Synaptic intelligence, Zenke et al. 2017, eq. 3-5.

    Avalanche 0.6's own plugin does nothing on the CPU: it keeps views of the weights instead of copies, so that every
    step looks to it as if nothing had moved. This one is written anew. The path integral takes the gradient of the
    task's loss alone: the pull's own gradient, which is known in closed form, is subtracted.

    Args:
        c: weight of the pull to old weights.
        damping: xi of eq. 5.
    """

    def __init__(self, c: float, damping: float):
        super().__init__()
        self.c, self.damping = c, damping
        self.importance: dict[str, torch.Tensor] = {}
        self.anchor: dict[str, torch.Tensor] = {}
        self.path: dict[str, torch.Tensor] = {}
        self._before: dict[str, torch.Tensor] = {}
        self._gradient: dict[str, torch.Tensor] = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start the path of a task at the weights it begins with."""
        self.anchor = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}
        self.path = {n: torch.zeros_like(p) for n, p in self.anchor.items()}

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Eq. 4: pull weights to where the last task left them, by their importance."""
        for name, parameter in strategy.model.named_parameters():
            if name in self.importance:
                pull = self.importance[name] * (parameter - self.anchor[name]).pow(2)
                strategy.loss = strategy.loss + self.c * pull.sum()

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Keep weights and the task's own gradient until the step is made."""
        for name, parameter in strategy.model.named_parameters():
            if parameter.grad is None:
                continue
            gradient = parameter.grad.clone()
            if name in self.importance:
                gradient -= 2 * self.c * self.importance[name] * (parameter.detach() - self.anchor[name])
            self._gradient[name], self._before[name] = gradient, parameter.detach().clone()

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Eq. 3: the loss that each weight took away in this step."""
        for name, parameter in strategy.model.named_parameters():
            if name in self._gradient:
                self.path[name] -= self._gradient.pop(name) * (parameter.detach() - self._before.pop(name))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Eq. 5: add the task's importance."""
        for name, parameter in strategy.model.named_parameters():
            moved = (parameter.detach() - self.anchor[name]).pow(2)
            gained = self.path[name].clamp_min(0) / (moved + self.damping)
            self.importance[name] = self.importance.get(name, torch.zeros_like(gained)) + gained
