"""What a study is: a stream, fixed options, a search space, a rule, objectives; and opening it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from toolkit.errors import HyperparameterError, UnknownNameError
from toolkit.tuning.rules import RuleOptions, check_rule
from toolkit.tuning.space import Space, as_plain, from_plain

MAXIMISED = {"average": True, "point_average": True, "learning_accuracy": True, "forgetting": False, "bytes": False,
             "latency": False, "train_seconds": False}  # fmt: skip
"""Objectives, and whether more is better. AUROCs are means over the tasks seen after the last task; latency is seconds
per scored cloud; bytes is what the strategy keeps from task to task."""
PER_TASK = ("average", "point_average", "learning_accuracy")
"""Objectives that can be told after each task, so that hopeless trials can be given up early."""
LIMITS = ("latency", "bytes")


@dataclass(frozen=True)
class StudySpec:
    """All that decides what a study proposes and how it judges.

    Attributes:
        scenario: name.
        config: the fixed options, as in a ``--config`` file of ``continual3d run``.
        space: option name (``strategy.lr``, ``continual.mem_size``, ``split``) -> what is searched.
        rule, options: what a trial may look at.
        objectives: one or several of `MAXIMISED`.
        forgetting_weight: this times the forgetting is subtracted from a single objective.
        sampler, pruner: see `toolkit.tuning.samplers`.
        seed: of the sampler.
        seeds: of the runs; a trial is the mean over `seeds` x `orders`.
        orders: of the categories; empty = the one in `config`.
        limits: largest allowed latency (s per cloud) and bytes.
        grid_points: values per continuous parameter for the sampler grid.
        references: for the second phase of chf: per run of a trial, the AUROC that a plastic model reaches on each new
            task.
    """

    scenario: str
    config: dict[str, Any]
    space: dict[str, Space]
    rule: str = "first-k-tasks"
    options: RuleOptions = field(default_factory=RuleOptions)
    objectives: tuple[str, ...] = ("average",)
    forgetting_weight: float = 0.0
    sampler: str = "tpe"
    pruner: str = "auto"
    seed: int = 0
    seeds: tuple[int, ...] = (0,)
    orders: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    grid_points: int = 4
    references: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        check_rule(self.rule)
        unknown = [o for o in self.objectives if o not in MAXIMISED]
        if unknown or not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise HyperparameterError(f"--objective {' '.join(self.objectives)}: expected different ones of "
                                      f"{', '.join(MAXIMISED)}.")  # fmt: skip
        if self.forgetting_weight < 0 or (self.forgetting_weight and self.objectives[0] not in PER_TASK):
            raise HyperparameterError(f"--forgetting-weight {self.forgetting_weight}: expected 0 or more, with "
                                      f"one of {', '.join(PER_TASK)}.")  # fmt: skip
        if not self.space:
            raise HyperparameterError("nothing to search: every option of the space is fixed. Give a --space file.")
        if not self.seeds or self.grid_points < 1:
            raise HyperparameterError("--seeds and --grid-points: expected at least one.")

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """(seed, order) of the runs of a trial."""
        return [(seed, order) for order in self.orders or ("",) for seed in self.seeds]

    def config_of(self, params: dict[str, Any], seed: int, order: str) -> dict[str, Any]:
        """The options of one run of a trial."""
        config = with_params(self.config, {**params, "seed": seed})
        if order:
            config["order"] = order
        return config

    def as_plain(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["options"] = asdict(self.options)
        plain["space"] = {name: as_plain(space) for name, space in self.space.items()}
        return json.loads(json.dumps(plain))  # as a storage gives it back: tuples become lists

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> StudySpec:
        """The inverse of `as_plain`."""
        space = {name: from_plain(name, value) for name, value in plain["space"].items()}
        more = {k: tuple(plain[k]) for k in ("objectives", "seeds", "orders")}
        references = tuple(tuple(r) for r in plain["references"])
        return cls(**{**plain, **more, "space": space, "options": RuleOptions(**plain["options"]),
                      "references": references})  # fmt: skip


def with_params(config: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested options with the values of dotted names put in."""
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
    for name, value in params.items():
        part, _, inner = name.partition(".")
        if inner:
            config[part][inner] = value
        else:
            config[part] = value
    return config


def value_in(config: dict[str, Any], name: str) -> Any:
    """The value of a dotted name in nested options; None if it is not there."""
    part, _, inner = name.partition(".")
    value = config.get(part)
    return value.get(inner) if inner and isinstance(value, dict) else value


def _decisive(name: str, value: Any) -> Any:
    """A field of a plain spec without the options that change where runs are made, and not what they are."""
    from toolkit.runs.cell import NOT_THE_RUN

    if name != "config" or value is None:
        return value
    kept = {k: v for k, v in value.items() if k not in NOT_THE_RUN}
    return {**kept, "dataset": {k: v for k, v in kept.get("dataset", {}).items() if k != "root"}}


def open_study(where: str, name: str, spec: StudySpec | None = None) -> Any:
    """An Optuna study with our sampler and pruner.

    Args:
        where: see `toolkit.tuning.storage.open_storage`.
        name: of the study in its storage.
        spec: makes the study if it does not exist, and is compared if it does; None opens an existing one.

    Raises:
        HyperparameterError: a study of that name exists and was made with other options.
        UnknownNameError: there is none of that name.
    """
    import optuna
    from optuna.study import StudyDirection

    from toolkit.tuning.samplers import make_pruner, make_sampler
    from toolkit.tuning.storage import open_storage
    from toolkit.tuning.trials import greet, place_of

    storage = open_storage(where)
    try:
        study = optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        if spec is None:
            raise UnknownNameError(f"{where} holds no study called {name}.") from None
        directions = [StudyDirection.MAXIMIZE if MAXIMISED[o] else StudyDirection.MINIMIZE for o in spec.objectives]
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    if spec is not None and "spec" not in study.user_attrs:
        study.set_user_attr("spec", spec.as_plain())
    stored = study.user_attrs["spec"]
    other = [k for k, v in spec.as_plain().items() if _decisive(k, stored.get(k)) != _decisive(k, v)] if spec else []
    if other:
        raise HyperparameterError(f"The study {name} exists and was made with another {', '.join(other)}. Choose "
                                  "another --study, or repeat the options it was made with.")  # fmt: skip
    spec = StudySpec.from_plain(stored)
    study.sampler = make_sampler(spec.sampler, spec.seed, spec.space, spec.grid_points, len(spec.objectives) > 1,
                                 place_of, greet)  # fmt: skip
    study.pruner = make_pruner(spec.pruner, len(spec.objectives) > 1, len(spec.pairs) > 1)
    return study
