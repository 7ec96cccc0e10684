"""Ways of learning one task after another, for ``--continual NAME``. Each is a small description that gives plugins.

Any trained method works under each of them; memory banks under those that need no gradient.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from toolkit.errors import HyperparameterError

if TYPE_CHECKING:
    from avalanche.core import BasePlugin

__all__ = ["AGEM", "EMA", "EWC", "GEM", "MAS", "SI", "Cumulative", "FeatureDistillation", "FromScratch", "GDumb",
           "Joint", "Naive", "Replay"]  # fmt: skip


@dataclass(frozen=True)
class Continual:
    """Base. Fields become options ``--continual.NAME``."""

    needs_gradient: ClassVar[bool] = True
    joint: ClassVar[bool] = False

    def plugins(self) -> list[BasePlugin]:
        """Fresh plugins for one run."""
        return []

    def arguments(self) -> dict[str, Any]:
        """Fields and values, for the run's spec."""
        return asdict(self)


@dataclass(frozen=True)
class Naive(Continual):
    """Go on training on each new task; nothing is done against forgetting."""

    needs_gradient = False


@dataclass(frozen=True)
class Joint(Continual):
    """Train once on all tasks together: the upper bound, not continual learning."""

    needs_gradient = False
    joint = True


@dataclass(frozen=True)
class Cumulative(Continual):
    """Train on the clouds of all tasks seen so far, at each task (unbounded memory)."""

    needs_gradient = False

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import CumulativePlugin

        return [CumulativePlugin()]


@dataclass(frozen=True)
class FromScratch(Continual):
    """Restart at each task and see only its clouds: the lower bound for old tasks."""

    needs_gradient = False

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import RestartPlugin

        return [RestartPlugin()]


@dataclass(frozen=True)
class Replay(Continual):
    """Experience replay: mini-batches mix new clouds with stored ones of earlier tasks.

    Args:
        mem_size: clouds kept in all, shared evenly by the tasks seen.
        batch_size_mem: stored clouds per step; 0 = as many as new ones.
    """

    mem_size: int = 8
    batch_size_mem: int = 0

    def plugins(self) -> list[BasePlugin]:
        from avalanche.training.plugins import ReplayPlugin

        return [ReplayPlugin(mem_size=self.mem_size, batch_size_mem=self.batch_size_mem or None)]


@dataclass(frozen=True)
class EWC(Continual):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): a quadratic pull to old weights, by Fisher importance.

    Args:
        ewc_lambda: weight of the pull.
        mode: one penalty per past task, or one running penalty.
        decay: of the running importance (mode online).
    """

    ewc_lambda: float = 100.0
    mode: Literal["separate", "online"] = "separate"
    decay: float = 0.9

    def plugins(self) -> list[BasePlugin]:
        from avalanche.training.plugins import EWCPlugin

        decay = self.decay if self.mode == "online" else None
        return [EWCPlugin(self.ewc_lambda, mode=self.mode, decay_factor=decay)]


@dataclass(frozen=True)
class SI(Continual):
    """Synaptic intelligence (Zenke et al. 2017): importance gathered along the training path.

    Args:
        si_lambda: weight of the pull to old weights (c in the paper).
        damping: keeps the importance of weights that hardly moved finite (xi in the paper).
    """

    si_lambda: float = 1.0
    damping: float = 1e-3

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import SynapticIntelligencePlugin

        return [SynapticIntelligencePlugin(self.si_lambda, self.damping)]


@dataclass(frozen=True)
class MAS(Continual):
    """Memory aware synapses (Aljundi et al. 2018): importance by the gradient of the output's squared norm.

    Args:
        lambda_reg: weight of the pull to old weights.
        alpha: share of the old importance that is kept.
    """

    lambda_reg: float = 1.0
    alpha: float = 0.5

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import FeatureMASPlugin

        return [FeatureMASPlugin(lambda_reg=self.lambda_reg, alpha=self.alpha)]


@dataclass(frozen=True)
class AGEM(Continual):
    """Averaged gradient episodic memory (Chaudhry et al. 2019): no step against the mean gradient of stored clouds.

    Args:
        patterns_per_experience: clouds kept per task.
        sample_size: stored clouds per step, at least one per past task.
    """

    patterns_per_experience: int = 4
    sample_size: int = 8

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import ResumableAGEMPlugin

        return [ResumableAGEMPlugin(self.patterns_per_experience, self.sample_size)]


@dataclass(frozen=True)
class GEM(Continual):
    """Gradient episodic memory (Lopez-Paz and Ranzato 2017): no step against the gradient of any past task.

    Args:
        patterns_per_experience: clouds kept per task.
        memory_strength: margin in favour of backward transfer.
    """

    patterns_per_experience: int = 4
    memory_strength: float = 0.5

    def plugins(self) -> list[BasePlugin]:
        from avalanche.training.plugins import GEMPlugin

        return [GEMPlugin(self.patterns_per_experience, self.memory_strength)]


@dataclass(frozen=True)
class GDumb(Continual):
    """GDumb (Prabhu et al. 2020): restart at each task and train on a class-balanced store only.

    Args:
        mem_size: clouds kept in all, shared evenly by the categories.
    """

    mem_size: int = 16

    def plugins(self) -> list[BasePlugin]:
        from avalanche.training.plugins import GDumbPlugin

        return [GDumbPlugin(mem_size=self.mem_size)]


@dataclass(frozen=True)
class FeatureDistillation(Continual):
    """Keep the network's features on new clouds close to those of the network after the last task.

    Args:
        alpha: weight of the distillation loss.
        kind: mse, or cosine distance per feature.
    """

    alpha: float = 1.0
    kind: Literal["mse", "cosine"] = "mse"

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import FeatureDistillationPlugin

        return [FeatureDistillationPlugin(self.alpha, self.kind)]


@dataclass(frozen=True)
class EMA(Continual):
    """Before each step, pull the weights a little towards those after the last task.

    The "EMA with the old model" of IUF (Tang et al., ECCV 2024; share 0.05) and of the trainer in C3D-AD's released
    code (0.1), under which its authors seem to have run "Continual-MC3D-AD". With steps of length s, a weight gets
    about s / share away from the old one, and no farther.

    Args:
        share: of the old weights; 0 is naive training, 1 starts each step at the old weights.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise HyperparameterError(f"EMA: share must lie in [0, 1], got {self.share}.")

    def plugins(self) -> list[BasePlugin]:
        from toolkit.plugins import OldWeightsPlugin

        return [OldWeightsPlugin(self.share)]
