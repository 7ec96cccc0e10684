"""`AnomalyStrategy`: what every method is. An Avalanche strategy that trains on normal clouds and scores clouds.

A method is one file in ``strategies/`` with one subclass. It gives

* ``prepare(cloud)``: frozen preprocessing (registration, grouping, backbone tokens), cached on disk by content;
* for trained methods, ``build()`` -> the trainable network, whose ``forward(CloudBatch)`` returns an `Output`, and
  ``loss(output)``; or for memory banks, ``fit(clouds)``;
* ``score(cloud)`` -> `AnomalyMap`.

Continual behaviour (replay, EWC, joint training, ...) comes from Avalanche plugins and is not written into the method.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import DataLoader

from toolkit.cloud import AnomalyMap, CloudBatch, PointCloud
from toolkit.errors import HyperparameterError
from toolkit.identify import add_prototypes, nearest_category
from toolkit.prepared import Memory, content_hash, facts_of
from toolkit.seeding import number_of, seeded
from toolkit.store import Store, key_of
from toolkit.stream import CloudExperience, CloudList, collate


@dataclass
class Output:
    """What a trainable network returns for a batch. Methods subclass it with further fields.

    Attributes:
        features: (M, D) tensor that represents the network's function for plugins that compare or measure outputs
            (feature distillation, MAS): reconstructed tokens, predicted offsets, ...
    """

    features: Tensor


class AnomalyStrategy(SupervisedTemplate):
    """Base of all methods.

    The constructor of a method is keyword-only, stores each argument under its own name and passes the arguments of
    this class on. State that training leaves behind is the network (``self.model``) and every attribute whose name ends
    in ``_`` (tensors, numbers, strings and dicts, lists or tuples of them).

    Args:
        epochs: passes over the training clouds of a task.
        batch_size: clouds per step.
        lr: learning rate of AdamW, which starts afresh with each task.
        weight_decay: weight decay of AdamW.
        grad_clip: largest gradient norm; 0 turns clipping off.
        seed: seeds initialisation, training and scoring.
        device: where the network runs.
        category_at_test: "known" gives the strategy the class name of test clouds, as the published protocols do;
            "inferred" withholds it and takes the class of the nearest training cloud by `toolkit.identify`.
        plugins: Avalanche plugins, e.g. ``ReplayPlugin(mem_size=16)``.
        store: disk cache of prepared clouds; None keeps them in memory only.
    """

    uses_known_defects: ClassVar[bool] = False
    """Whether training takes known-defect clouds. Other methods never get to see them: they would learn defects as
    normal."""
    requires: ClassVar[tuple[str, ...]] = ()
    """What a stream must offer: "known_defects", "color", "meshes", "organised"."""
    prepare_arguments: ClassVar[tuple[str, ...]] = ()
    """Names of the constructor arguments that `prepare` depends on."""
    prepare_version: ClassVar[int] = 1
    """Raise it when the code of `prepare` changes, so that older cache entries are not used."""
    survives_restart: ClassVar[tuple[str, ...]] = ("templates_", "prototypes_")
    """Learned attributes that `restart` keeps: what registration and class inference need of classes met earlier."""
    paper: ClassVar[str] = ""
    """Citation in one line."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sets of arguments for ``--preset NAME``: "paper" for published sizes and schedule, "tiny" for the smallest
    that still run through every line (the contract tests use it). The constructor's defaults are the preset "small".
    """

    def __init__(self, *, epochs: int = 1, batch_size: int = 4, lr: float = 1e-3, weight_decay: float = 1e-4,
                 grad_clip: float = 0.0, category_at_test: Literal["known", "inferred"] = "known", seed: int = 0,
                 device: str = "cpu", plugins: Sequence[BasePlugin] = (), store: Store | None = None):  # fmt: skip
        self.epochs, self.batch_size, self.lr = epochs, batch_size, lr
        self.weight_decay, self.grad_clip, self.seed, self.store = weight_decay, grad_clip, seed, store
        self.category_at_test = category_at_test
        one_of(self, category_at_test=("known", "inferred"))
        at_least(self, epochs=1, batch_size=1, lr=0.0, weight_decay=0.0, grad_clip=0.0)
        with seeded(seed, "build"):
            model = self.build()
        super().__init__(model=model, optimizer=None, criterion=self._criterion_of, train_mb_size=batch_size,
                         train_epochs=epochs, eval_mb_size=1, device=device, plugins=list(plugins),
                         evaluator=_evaluator(), eval_every=-1)  # fmt: skip
        self.generator = torch.Generator().manual_seed(seed)
        self.precision: Literal["float32", "bf16"] = "float32"
        """Of training steps; "bf16" computes their matrix products in bfloat16, but prepares and scores as ever."""
        self._memory = Memory()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Leave constructors alone: Avalanche wraps each to check argument names against the class that defines it, not
        the class that is made, and so refuses what one base passes on to another."""

    # ---- what a method implements -----------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """The trainable network. Called once by the constructor, under the strategy's seed."""
        return _NothingToTrain()

    def meet(self, clouds: Sequence[PointCloud]) -> None:
        """See the raw training clouds of a new experience before any of them is prepared (e.g. to keep templates)."""

    def prepare(self, cloud: PointCloud) -> PointCloud:
        """Frozen preprocessing of one cloud; what it returns is cached. Default: the cloud itself."""
        return cloud

    def prepare_key(self, cloud: PointCloud) -> str:
        """What else than `prepare_arguments` and the cloud's own content `prepare` depends on (e.g. a template).

        It may look at names and categories of the cloud, but not at its points: where an epoch repeats a cloud whose
        preparation is at hand, they are not read again.
        """
        return ""

    def augment(self, cloud: PointCloud) -> PointCloud:
        """Random change of a prepared training cloud, anew each epoch. Randomness from ``self.generator``."""
        return cloud

    def loss_of(self, output: Any) -> Tensor:
        """The training loss of a forward pass; scalar."""
        raise NotImplementedError

    def penalty(self, batch: CloudBatch, output: Any) -> Tensor | float:
        """A further loss term of a training step that needs more than one forward pass; not seen by importances."""
        return 0.0

    def fit(self, clouds: CloudList) -> None:
        """Learn from a task's prepared training clouds without gradients. Overridden by memory-bank methods."""
        raise NotImplementedError

    def score(self, cloud: PointCloud) -> AnomalyMap:
        """Scores of one raw, unlabelled cloud of any number of points, in the order of its points.

        Before any training a method that knows nothing returns zeros.
        """
        raise NotImplementedError

    # ---- what follows from it ---------------------------------------------------------------------------------------

    @classmethod
    def learns_by_gradient(cls) -> bool:
        """False for memory banks, for which gradient plugins mean nothing."""
        return cls.fit is AnomalyStrategy.fit

    @classmethod
    def of_preset(cls, name: str) -> dict[str, Any]:
        """Arguments of a preset; those of "small" are the constructor's defaults, hence none.

        Raises:
            HyperparameterError: the method has no such preset.
        """
        if name == "small":
            return {}
        if name not in cls.presets:
            raise HyperparameterError(f"{cls.__name__}: no preset {name!r}; there are: "
                                      f"{', '.join(['small', *cls.presets])}.")  # fmt: skip
        return dict(cls.presets[name])

    @property
    def is_trained_by_gradient(self) -> bool:
        """`learns_by_gradient`, of this object's class."""
        return type(self).learns_by_gradient()

    def arguments(self) -> dict[str, Any]:
        """Hyperparameters and their values: all that determines the method besides data, seed and device."""
        outside = {"seed", "device", "plugins", "store"}
        return {n: getattr(self, n) for n in _argument_names(type(self)) if n not in outside}

    def prepared(self, cloud: PointCloud) -> PointCloud:
        """`prepare` with its result kept in memory (up to 512 MB) and, where the strategy has a store, on disk."""
        if type(self).prepare is AnomalyStrategy.prepare:
            return cloud
        content = content_hash(cloud)
        found = self._at_hand(cloud, content)
        if found is not None:
            return found
        key = self._key(cloud, content)

        def make() -> dict[str, Any]:
            with seeded(self.seed, key), torch.no_grad():
                return self.prepare(cloud.unlabelled()).tensors()

        tensors = make() if self.store is None else self.store.get_or_make(key, make)
        result = PointCloud(**tensors)
        self._memory.put(key, result)
        return result.update_facts(cloud)

    def _key(self, cloud: PointCloud, content: str) -> str:
        return key_of("prepare", type(self).__name__, self.prepare_version, content, cloud.category,
                      [getattr(self, n) for n in self.prepare_arguments], self.prepare_key(cloud))  # fmt: skip

    def _at_hand(self, facts: PointCloud, content: str) -> PointCloud | None:
        """The prepared cloud of that content, if it is in memory."""
        found = self._memory.get(self._key(facts, content))
        return None if found is None else found.update_facts(facts)

    def prepared_experience(self, experience: CloudExperience) -> CloudExperience:
        """The experience over prepared clouds, so that every plugin's buffer and pass sees what the network sees."""
        raw = experience.clouds
        kept = [i for i, s in enumerate(raw.samples) if self.uses_known_defects or not s.y]

        read: dict[int, tuple[PointCloud, str]] = {}  # what is known of clouds that were read before

        def load(sample: Any) -> PointCloud:
            if id(sample) in read:
                found = self._at_hand(*read[id(sample)])
                if found is not None:
                    return self.augment(found)
            cloud = raw.load(sample)
            prepared = self.prepared(cloud)
            if prepared is not cloud:
                read[id(sample)] = facts_of(cloud), content_hash(cloud)
            return self.augment(prepared)

        samples, targets = [raw.samples[i] for i in kept], [raw.targets[i] for i in kept]
        return experience.with_clouds(CloudList(raw.name, samples, load, targets))

    def restart(self) -> None:
        """Forget everything learned: the network is built anew under the same seed."""
        with seeded(self.seed, "build"):
            self.model = self.build()
        for name in self._learned():
            if name not in self.survives_restart:
                delattr(self, name)

    def start_over(self) -> None:
        """`restart`, and forget templates and prototypes too: the next task is an experiment of its own."""
        self.restart()
        for name in set(self._learned()) & set(self.survives_restart):
            setattr(self, name, {})  # all are dicts by category, which the constructor made and methods rely on

    def _learned(self) -> list[str]:
        return [n for n in vars(self) if n.endswith("_") and not n.startswith("_")]

    def state(self) -> dict[str, Any]:
        """All learned state: the network's state_dict and the attributes that end in ``_``; torch.save-able."""
        return {"model": self.model.state_dict(), "learned": {n: getattr(self, n) for n in self._learned()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.model.load_state_dict(state["model"])
        for name in self._learned():
            delattr(self, name)
        for name, value in state["learned"].items():
            setattr(self, name, value)

    # ---- Avalanche's hooks ------------------------------------------------------------------------------------------

    def train(self, experiences: Any, eval_streams: Any = None, **kwargs: Any) -> Any:
        """Train on one experience or several in order. Unlike Avalanche's, evaluates on nothing unless asked."""
        listed = list(experiences) if isinstance(experiences, Iterable) else [experiences]
        for experience in listed:
            with seeded(self.seed, "train", experience.current_experience):
                self.generator.manual_seed(number_of(self.seed, "augment", experience.current_experience))
                prepared = self.prepared_experience(experience)
                if len(prepared.clouds):  # a task of nothing but known defects teaches most methods nothing
                    raw = experience.clouds
                    self._raw = CloudList(raw.name, prepared.clouds.samples, raw.load, prepared.clouds.targets).clouds()
                    super().train(prepared, eval_streams or [], **kwargs)
        return self.evaluator.get_last_metrics()

    def _before_training_exp(self, **kwargs: Any) -> None:
        if self.category_at_test == "inferred":
            self.prototypes_ = add_prototypes(getattr(self, "prototypes_", {}), self._raw)
        self.meet(self._raw)  # after plugins may have restarted the method, before anything is prepared
        super()._before_training_exp(**kwargs)

    def make_optimizer(self, **kwargs: Any) -> None:
        """A fresh AdamW over the parameters that require gradients."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: Any = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Called by Avalanche before each experience."""
        self.model.to(self.device)
        self.make_optimizer()

    def make_train_dataloader(self, shuffle: bool = True, **kwargs: Any) -> None:
        """A loader that batches clouds (Avalanche's own would not pass our collate function on)."""
        self.dataloader: Any = DataLoader(self.adapted_dataset, batch_size=self.train_mb_size, shuffle=shuffle,
                                     collate_fn=collate)  # fmt: skip

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """The experience's clouds, one at a time."""
        assert isinstance(self.experience, CloudExperience)
        clouds = self.experience.clouds
        self.dataloader = (clouds.load(sample) for sample in clouds.samples)

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        if self.is_trained_by_gradient:
            super()._train_exp(experience, eval_streams, **kwargs)
            return
        self._before_training_epoch(**kwargs)
        with torch.no_grad():
            self.fit(_flat(self.adapted_dataset))
        self._after_training_epoch(**kwargs)

    def _criterion_of(self, output: Any, target: Any = None) -> Tensor:
        # plugins call strategy._criterion(output, y); y is the category and not ours to use
        return self.loss_of(output)

    def criterion(self) -> Tensor:
        """Loss of the current mini-batch."""
        with self._training_precision():
            return self.loss_of(self.mb_output) + self.penalty(self.mb_x, self.mb_output)

    def forward(self) -> Any:
        """The network's output on the current mini-batch."""
        with self._training_precision():
            return self.model(self.mb_x)

    def _training_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def optimizer_step(self) -> None:
        """Clip and step."""
        if self.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()

    def eval_epoch(self, **kwargs: Any) -> None:
        """Score every cloud of the experience; plugins read ``mb_cloud`` and ``mb_map`` after each."""
        for cloud in self.dataloader:
            if self.category_at_test == "inferred":
                cloud.category = cloud.subcategory = nearest_category(getattr(self, "prototypes_", {}), cloud)
            self.mb_cloud = cloud
            self._before_eval_iteration(**kwargs)
            self._before_eval_forward(**kwargs)
            with seeded(self.seed, "score", self.mb_cloud.sample_id):
                self.mb_map = self.score(self.mb_cloud).check(self.mb_cloud)
            self._after_eval_forward(**kwargs)
            self._after_eval_iteration(**kwargs)


def _evaluator() -> EvaluationPlugin:
    """An evaluator without metrics: the ledger does its work. Avalanche warns of that; here it is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return EvaluationPlugin()


class _NothingToTrain(nn.Module):
    """Stands in for the network of a method without gradients; Avalanche's counters want a parameter to exist."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))


def _flat(dataset: Any) -> CloudList:
    """The clouds of an Avalanche dataset, replayed and accumulated ones included, as a CloudList."""
    rows = list(range(len(dataset)))
    samples = [_SampleRow(dataset, row) for row in rows]
    return CloudList("fit", samples, lambda sample: sample.dataset[sample.row][0], list(dataset.targets))  # type: ignore[arg-type, attr-defined]


@dataclass(frozen=True)
class _SampleRow:
    dataset: Any
    row: int


def _argument_names(cls: type) -> list[str]:
    """Names of the keyword arguments of a strategy's constructor and of those it passes on to its bases."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if not issubclass(base, AnomalyStrategy):
            break
        if "__init__" in vars(base):
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    names.setdefault(parameter.name)
    return list(names)


def at_least(strategy: Any, **bounds: float) -> None:
    """Check hyperparameters against lower bounds.

    Raises:
        HyperparameterError: naming the argument, what was expected and what came.
    """
    for name, bound in bounds.items():
        value = getattr(strategy, name)
        if not value >= bound:
            raise HyperparameterError(f"{type(strategy).__name__}: {name} must be at least {bound}, got {value}.")


def one_of(strategy: Any, **choices: Sequence[Any]) -> None:
    """Check hyperparameters against lists of allowed values; HyperparameterError names the argument."""
    for name, allowed in choices.items():
        value = getattr(strategy, name)
        if value not in allowed:
            raise HyperparameterError(f"{type(strategy).__name__}: {name} must be one of "
                                      f"{', '.join(map(repr, allowed))}, got {value!r}.")  # fmt: skip
