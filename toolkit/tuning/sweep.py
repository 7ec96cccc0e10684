"""Running a study to its N points, and the chosen setting on the real stream.

A sweep is a folder per rule with ``sweep.yaml`` (what it is and where its trials are kept), ``study.journal`` (the
trials, unless a database was named), ``runs/`` (of trials), ``final/`` (the chosen setting on the real stream),
``choice.json`` and ``best.yaml`` (for ``continual3d run SCENARIO --config best.yaml``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import Continual3DError, RequirementError
from toolkit.runs.executors import Executor, Job, drive
from toolkit.runs.files import read_json, write_json, write_yaml
from toolkit.runs.fleet import FleetView
from toolkit.runs.show import matrix
from toolkit.tuning.rules import says
from toolkit.tuning.study import MAXIMISED, StudySpec, open_study, value_in
from toolkit.tuning.trials import Point, points_of

NOT_THE_METHOD = ("output", "figures", "logger", "dry_run", "orders", "draws", "curve", "config", "cache",
                  "save_point_scores")  # fmt: skip
"""Options of a run that do not belong into ``best.yaml``."""


@dataclass(frozen=True)
class Fleet:
    """How jobs are run.

    Attributes:
        make: gives a new executor with at most so many workers (0 = its own choice).
        workers: of a study; 0 = as many as the executor has room for, at most 16.
        view: is told what happens.
    """

    make: Callable[[int], Executor]
    workers: int
    view: FleetView


@dataclass(frozen=True)
class Choice:
    """What a sweep came to.

    Attributes:
        params: option name -> chosen value.
        values: the objectives as the trials saw them.
        place: of the chosen point among the points of its study.
        note: anything a reader must know.
        folders: of the trial's runs, relative to the sweep's folder.
    """

    params: dict[str, Any]
    values: list[float]
    place: int
    note: str = ""
    folders: tuple[str, ...] = ()


def run_study(spec: StudySpec, folder: Path, storage: str, name: str, points: int, fleet: Fleet) -> Any:
    """Run a study until `points` points are settled; returns the Optuna study. A finished one is left as it is.

    Args:
        spec: of the study.
        folder: its runs go to ``runs/`` in it.
        storage: journal file or database URL.
        name: of the study in its storage.
        points: N.
        fleet: how.

    Raises:
        Continual3DError: workers failed as a whole (a full disk, a storage that is gone); or a study of that name was
            made with other options.
    """
    study = open_study(storage, name, spec)
    if spec.sampler in ("grid", "ladder"):
        points = min(points, math.prod(len(s.grid(spec.grid_points)) for s in spec.space.values()))
    elif not study.get_trials(deepcopy=False):
        default = {name: value_in(spec.config, name) for name in spec.space}
        if all(space.contains(default[name]) for name, space in spec.space.items()):
            study.enqueue_trial(default, user_attrs={"default": True})

    def settled() -> int:
        return sum(p.settled for p in points_of(study.get_trials(deepcopy=False))[:points])

    before = settled()
    fleet.view.begin(points, before)
    if before < points:
        executor = fleet.make(fleet.workers)
        count = max(1, min(points - before, fleet.workers or min(executor.room(), 16)))
        payload = {"storage": storage, "study": name, "folder": str(folder), "points": points}
        jobs = [Job(f"worker_{i}", "toolkit.tuning.worker:work", payload, f"worker {i + 1}") for i in range(count)]

        def tick(running: list[Job], waiting: int) -> None:
            fleet.view.count(settled())
            fleet.view.tick(running, waiting)

        for outcome in drive(executor, jobs, lives=3 * points + 3, tick=tick):
            if outcome.status != "done":
                raise Continual3DError(f"{outcome.job.title} of {name}: {outcome.error}\n{outcome.trace}")
    fleet.view.count(settled())
    fleet.view.say(f"{name}: {settled()} points settled")
    return study


def front(points: Sequence[Point], spec: StudySpec) -> list[Point]:
    """Finished points that keep the limits and that no other beats in every objective; the best of the first objective
    first, of equals the earliest."""
    fit = [p for p in points if p.last.values and not p.last.user_attrs.get("given_up")
           and all(v <= 0 for v in p.last.constraints.values())]  # fmt: skip
    signs = np.array([1.0 if MAXIMISED[o] else -1.0 for o in spec.objectives])
    values = np.array([p.last.values for p in fit]).reshape(len(fit), len(signs)) * signs
    kept = [p for i, p in enumerate(fit)
            if not ((values >= values[i]).all(1) & (values > values[i]).any(1)).any()]  # fmt: skip
    return sorted(kept, key=lambda p: (-signs[0] * p.last.values[0], p.place))


def choose(study: Any, spec: StudySpec, points: int) -> Choice:
    """The best point; with several objectives, that of the Pareto front which is best in the first.

    Raises:
        RequirementError: no point is finished, or none keeps the limits; the message has the first error.
    """
    all_points = points_of(study.get_trials(deepcopy=False))[:points]
    best = front(all_points, spec)
    if not best:
        errors = [p.last.user_attrs["error"] for p in all_points if "error" in p.last.user_attrs]
        why = f"The first error: {errors[0]}" if errors else "None keeps --max-latency and --max-bytes."
        raise RequirementError(f"{study.study_name}: no point of {len(all_points)} can be chosen. {why}")
    trial = best[0].last
    note = f"one of {len(best)} on the Pareto front" if len(spec.objectives) > 1 else ""
    return Choice(dict(trial.params), list(trial.values), best[0].place, note, tuple(trial.user_attrs["runs"]))


def finish(spec: StudySpec, choice: Choice, folder: Path, fleet: Fleet) -> dict[str, Any]:
    """Run the choice on the real stream, on every seed and order, and write ``choice.json`` and ``best.yaml``.

    Under the rule oracle the trial was that run already. Returns the content of ``choice.json``.
    """
    write_best(spec, choice, folder)
    if spec.rule == "oracle":
        places = [folder / f for f in choice.folders]
    else:
        jobs = []
        for seed, order in spec.pairs:
            config = {**spec.config_of(choice.params, seed, order), "output": str(folder / "final"), "figures": False}
            jobs.append(Job(f"final_{seed}_{order}".replace(":", "-"), "toolkit.runs.cell:run_cell",
                            {"scenario": spec.scenario, "config": config}, f"final seed {seed} {order}"))  # fmt: skip
        fleet.view.begin(len(jobs), 0)
        places = []
        for outcome in drive(fleet.make(fleet.workers), jobs, tick=fleet.view.tick):
            fleet.view.ended(outcome)
            if outcome.status != "done":
                raise Continual3DError(f"{outcome.job.title}: {outcome.error}\n{outcome.trace}")
            places.append(Path(outcome.value))
    results = [read_json(place / "result.json") for place in sorted(places)]
    used = spec.options.first_tasks if spec.rule == "first-k-tasks" else 0
    content = {
        "rule": spec.rule, "says": says(spec.rule, spec.options), "objectives": list(spec.objectives),
        "selection": choice.values, "params": choice.params, "place": choice.place, "note": choice.note,
        "tasks_used_up": used, "final": [final_figures(result, used) for result in results],
        "folders": sorted(str(place.relative_to(folder)) for place in places),
    }  # fmt: skip
    write_json(folder / "choice.json", content)
    return content


def final_figures(result: dict[str, Any], used: int) -> dict[str, Any]:
    """Test figures of a run: object AUROC after the last task per task, their mean, and the mean without the first
    `used` tasks, whose labels the choice has seen."""
    R = matrix(result)
    last = [R[j + 1, j] for j in range(R.shape[1])] if result["independent_tasks"] else list(R[-1])
    return {"seed": result["spec"]["seed"], "order": result["spec"]["scenario"]["arguments"].get("order", ""),
            "tasks": [float(v) for v in last], "average": float(np.nanmean(last)),
            "unseen_tasks": float(np.nanmean(last[used:])), "forgetting": result["continual"]["forgetting"],
            "point_average": result["continual"]["point_average"]}  # fmt: skip


def best_config(spec: StudySpec, params: dict[str, Any]) -> dict[str, Any]:
    """Options for ``continual3d run --config``; with the first of the study's seeds and orders."""
    seed, order = spec.pairs[0]
    config = {k: v for k, v in spec.config_of(params, seed, order).items() if k not in NOT_THE_METHOD}
    return {k: {"name": v["name"], **v} if isinstance(v, dict) else v for k, v in config.items()}


def write_best(spec: StudySpec, choice: Choice, folder: Path) -> None:
    """``best.yaml``: a config file that says what it was chosen with."""
    from toolkit.runs.files import write_atomically

    write_atomically(folder / "best.yaml", lambda path: _write(path, best_text(spec, choice)))


def best_text(spec: StudySpec, choice: Choice) -> str:
    """The text of ``best.yaml``."""
    import yaml

    found = ", ".join(f"{name} {value:.4f}" for name, value in zip(spec.objectives, choice.values))
    head = [f"continual3d run {spec.scenario} --config THIS_FILE", f"{says(spec.rule, spec.options)}: {found}"]
    head += [choice.note] if choice.note else []
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(best_config(spec, choice.params), sort_keys=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def run_sweep(spec: StudySpec, folder: Path, storage: str, name: str, points: int, fleet: Fleet,
              final: bool = True) -> Choice:  # fmt: skip
    """A study under one rule, from the first trial to the chosen setting on the real stream.

    Args:
        spec, points, fleet: see `run_study`.
        folder: of the sweep.
        storage: database URL, or empty for a journal in the folder.
        name: of the study.
        final: whether to run the choice on the real stream.
    """
    where = storage or str(folder / "study.journal")
    stages = (
        {"plasticity": f"{name}/plasticity", "stability": f"{name}/stability"} if spec.rule == "chf" else {"": name}
    )
    write_yaml(folder / "sweep.yaml", {"storage": storage, "points": points, "studies": stages,
                                       "spec": spec.as_plain()})  # fmt: skip
    if spec.rule == "chf":
        from toolkit.tuning.chf import run_chf

        choice = run_chf(spec, folder, where, stages, points, fleet)
    else:
        choice = choose(run_study(spec, folder, where, name, points, fleet), spec, points)
    if final:
        finish(spec, choice, folder, fleet)
    else:
        write_best(spec, choice, folder)
    return choice
