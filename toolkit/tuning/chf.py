"""The continual hyperparameter framework: plasticity first, then as much stability as plasticity can bear.

Paper: De Lange et al., "A continual learning survey: Defying forgetting in classification tasks", TPAMI 2021, section 4
and algorithm 1; margin p = 0.2, decay 0.5 and at most 10 attempts as in its code.

The same: (1) maximal plasticity search: the method without its continual-learning mechanism is tuned for the quality A*
on new tasks; (2) stability decay: the weight of the mechanism starts high and is multiplied by the decay until the
quality on each new task is at least (1 - p) A*. Neither looks at old tasks' data or at test labels. If no attempt
passes, the last is kept, as in the paper's code; the output says so.

Different: the paper decides task by task, and each task may end with another weight (in its code the relaxed weight is
where the next task starts). Here a setting belongs to a whole run, so that `continual3d run` can repeat it: an attempt
that fails on any task is given up there, and the stream is learned anew with the smaller weight. A* is taken per task
from the best plastic run with the same seed and order. Phase 1 may search more than the learning rate.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from toolkit.errors import HyperparameterError, RequirementError
from toolkit.tuning.space import Categorical, Float
from toolkit.tuning.study import StudySpec, with_params
from toolkit.tuning.sweep import Choice, Fleet, choose, run_study
from toolkit.tuning.trials import points_of

STABILITY = {"EWC": "ewc_lambda", "SI": "si_lambda", "MAS": "lambda_reg", "FeatureDistillation": "alpha",
             "GEM": "memory_strength", "EMA": "share"}  # fmt: skip
"""The weight that makes each continual mode stable."""


def stability_option(spec: StudySpec) -> str:
    """Name of the option that is relaxed: ``--stability``, or that of the continual mode.

    Raises:
        HyperparameterError: there is none, or the space has no range for it.
    """
    mode = spec.config["continual"]["name"]
    name = spec.options.stability or (f"continual.{STABILITY[mode]}" if mode in STABILITY else "")
    if not name:
        raise HyperparameterError(f"--rule chf: {mode} has no stability weight to relax. Use --continual with one of "
                                  f"{', '.join(STABILITY)}, or name an option with --stability.")  # fmt: skip
    if not isinstance(spec.space.get(name), Float):
        raise HyperparameterError(f"--rule chf: the search space needs a range of real numbers for {name}; "
                                  "its upper end is where the relaxation starts.")  # fmt: skip
    return name


def run_chf(spec: StudySpec, folder: Path, storage: str, names: dict[str, str], points: int, fleet: Fleet) -> Choice:
    """Both phases.

    Args:
        spec: with the stability weight in its space.
        folder, storage, fleet: see `toolkit.tuning.sweep.run_study`.
        names: of the two studies, by phase.
        points: of the plasticity search.
    """
    first, weight = plastic(spec), stability_option(spec)
    study = run_study(first, folder, storage, names["plasticity"], points, fleet)
    best = choose(study, first, points)
    learned = points_of(study.get_trials(deepcopy=False))[best.place].last.user_attrs["learned"]
    second = relaxing(spec, best.params, learned)
    attempts = len(second.space[weight].grid(0))
    study = run_study(second, folder, storage, names["stability"], attempts, replace(fleet, workers=1))
    tried = points_of(study.get_trials(deepcopy=False))
    passed = [p for p in tried if p.last.state == TrialState.COMPLETE]
    refused = [p for p in tried if p.last.state == TrialState.PRUNED]
    if not passed and not refused:
        raise RequirementError(f"{names['stability']}: every attempt failed. The first error: "
                               f"{tried[0].last.user_attrs.get('error')}")  # fmt: skip
    chosen = passed[0] if passed else refused[-1]
    note = f"A* = {best.values[0]:.4f}, {len(tried)} weights tried"
    if not passed:
        note += f"; NONE kept {1 - spec.options.drop_margin:.0%} of A* on every new task, the last is used"
    params = {**best.params, **chosen.last.params}
    values = list(chosen.last.values or [float("nan")])
    return Choice(params, values, chosen.place, note)


def plastic(spec: StudySpec) -> StudySpec:
    """Phase 1: the method without the mechanism, tuned for new tasks."""
    weight = stability_option(spec)
    if weight.startswith("continual."):
        space = {n: s for n, s in spec.space.items() if not n.startswith("continual.")}
        config = {**spec.config, "continual": {"name": "Naive"}}
    else:
        space = {n: s for n, s in spec.space.items() if n != weight}
        config = with_params(spec.config, {weight: 0.0})
    return replace(spec, config=config, space=space, objectives=("learning_accuracy",), forgetting_weight=0.0)


def relaxing(spec: StudySpec, params: dict[str, Any], learned: list[list[float]]) -> StudySpec:
    """Phase 2: the plastic setting with the mechanism, its weight going down from the upper end of its range."""
    weight = stability_option(spec)
    start = spec.space[weight]
    assert isinstance(start, Float)
    ladder = tuple(start.high * spec.options.decay**i for i in range(spec.options.attempts))
    return replace(spec, config=with_params(spec.config, params), space={weight: Categorical(ladder)},
                   sampler="ladder", pruner="none", objectives=("average",), forgetting_weight=0.0, limits={},
                   references=tuple(tuple(r) for r in learned))  # fmt: skip
