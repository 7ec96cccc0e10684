"""``continual3d sweep report``: the tables and figures of sweeps, read from their storage alone.

Every figure has a CSV with its numbers beside it. ``trials.csv`` and ``rules.csv`` hold nothing that depends on the
machine's speed, so equal sweeps give equal bytes; times are in ``costs.csv``.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UnknownNameError
from toolkit.runs.files import read_json, write_atomically
from toolkit.tuning.rules import says
from toolkit.tuning.study import LIMITS, MAXIMISED, StudySpec, open_study

TIMED = ("latency", "train_seconds")
"""Quantities that differ from machine to machine."""


@dataclass(frozen=True)
class Sweep:
    """A sweep read from its folder.

    Attributes:
        folder: of the sweep.
        spec: what was asked for.
        points: N.
        studies: Optuna study by stage; the only stage is "" unless the rule is chf.
        choice: content of ``choice.json``; None until the choice has run on the real stream.
    """

    folder: Path
    spec: StudySpec
    points: int
    studies: dict[str, Any]
    choice: dict[str, Any] | None

    def asked(self, stage: str) -> int:
        """Most points of a stage."""
        return self.spec.options.attempts if stage == "stability" else self.points

    @property
    def label(self) -> str:
        """The rule; oracles say what they are."""
        return "ORACLE (test labels)" if self.spec.rule == "oracle" else self.spec.rule


def read_sweep(folder: Path) -> Sweep:
    """A sweep from its folder.

    Raises:
        Continual3DError: it cannot be read.
    """
    import yaml

    facts = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    where = facts["storage"] or str(folder / "study.journal")
    spec = StudySpec.from_plain(facts["spec"])
    studies = {}
    for stage, name in facts["studies"].items():
        try:
            studies[stage] = open_study(where, name)
        except UnknownNameError:
            continue  # the second phase of chf has not begun
    choice = folder / "choice.json"
    return Sweep(folder, spec, facts["points"], studies, read_json(choice) if choice.exists() else None)


def find_sweeps(folders: Sequence[str | Path]) -> list[Sweep]:
    """All sweeps at or below the folders.

    Raises:
        UnknownNameError: there is none.
    """
    found = sorted({path.parent for folder in folders for path in Path(folder).rglob("sweep.yaml")})
    if not found:
        raise UnknownNameError(f"{', '.join(map(str, folders))}: no sweep (sweep.yaml) there or below.")
    return [read_sweep(folder) for folder in found]


_STATES = {"complete": "finished", "pruned": "given up", "fail": "failed"}


def trials_frame(study: Any, points: int) -> Any:
    """One row per point: place, how it ended, objectives, quantities, values, attempts and what went wrong."""
    import pandas as pd

    from toolkit.tuning.trials import end_of, points_of

    spec = StudySpec.from_plain(study.user_attrs["spec"])
    rows = []
    for point in points_of(study.get_trials(deepcopy=False))[:points]:
        trial = point.last
        state = trial.state.name.lower()
        pruned = state == "pruned"
        attrs = trial.user_attrs
        values = trial.values if trial.values and not pruned else [float("nan")] * len(spec.objectives)
        rows.append({
            "place": point.place, "state": _STATES.get(state, state),
            **{f"objective_{o}": v for o, v in zip(spec.objectives, values)},
            "within_limits": all(v <= 0 for v in trial.constraints.values()) if not pruned else None,
            **{name: attrs.get(name, float("nan")) for name in MAXIMISED},
            **{f"param_{name}": trial.params.get(name) for name in spec.space},
            "tasks_seen": len(trial.intermediate_values), "attempts": len(point.trials),
            "why": attrs.get("given_up") or (f"{end_of(trial)}: {attrs.get('error')}" if state == "fail" else ""),
        })  # fmt: skip
    return pd.DataFrame(rows)


def history_frame(study: Any, points: int) -> Any:
    """One row per point and task: step and value so far."""
    import pandas as pd

    from toolkit.tuning.trials import points_of

    rows = [{"place": point.place, "step": step, "value": value, "state": point.last.state.name.lower()}
            for point in points_of(study.get_trials(deepcopy=False))[:points]
            for step, value in sorted(point.last.intermediate_values.items())]  # fmt: skip
    return pd.DataFrame(rows, columns=["place", "step", "value", "state"])


def importances(study: Any) -> Any:
    """Share of each option in what makes a trial good, by PED-ANOVA on the first objective; None with too few trials.

    PED-ANOVA (Watanabe et al., IJCAI 2023) explains low values, so an objective that is maximised goes in negated.
    """
    import optuna
    import pandas as pd
    from optuna.trial import TrialState

    spec = StudySpec.from_plain(study.user_attrs["spec"])
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [n for n in spec.space if len({repr(t.params.get(n)) for t in done}) > 1]
    if len(done) < 10 or not varied:
        return None
    sign = -1.0 if MAXIMISED[spec.objectives[0]] else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of the direction, which is taken care of
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=varied,
            target=lambda trial: sign * trial.values[0],
        )  # fmt: skip
    return pd.DataFrame({"option": list(shares), "importance": list(shares.values())})


def rules_frame(sweeps: Sequence[Sweep]) -> Any:
    """One row per sweep: what it was chosen with, its value there, its value on the real stream, the gap to the oracle.

    `unseen` is the mean over the tasks that no sweep of the table has used up, so that rows can be compared.
    """
    import numpy as np
    import pandas as pd

    rows: list[dict[str, Any]] = []
    done = [s for s in sweeps if s.choice is not None and s.choice["final"]]
    used = max((s.choice["tasks_used_up"] for s in done if s.choice is not None), default=0)
    for sweep in done:
        assert sweep.choice is not None
        final = sweep.choice["final"]
        tasks = np.array([f["tasks"] for f in final], dtype=float)
        rows.append({
            "rule": sweep.label, "chosen_with": says(sweep.spec.rule, sweep.spec.options),
            "objective": sweep.spec.objectives[0], "selection": sweep.choice["selection"][0],
            "all_tasks": np.nanmean(tasks), "unseen_tasks": np.nanmean(tasks[:, used:]),
            "runs": len(final), "note": sweep.choice["note"],
            **{f"param_{n}": v for n, v in sweep.choice["params"].items()},
        })  # fmt: skip
    table = pd.DataFrame(rows)
    best = {s.spec.rule: row["unseen_tasks"] for s, row in zip(done, rows)}.get("oracle")
    if len(table):
        table.insert(6, "gap_to_oracle", best - table["unseen_tasks"] if best is not None else np.nan)
        table.insert(7, "tasks_left_out", used)
    return table


def write_report(folders: Sequence[str | Path], output: Path) -> list[Path]:
    """Tables and figures of all sweeps at or below the folders; returns what was written.

    Args:
        folders: of sweeps.
        output: where to write; one folder per sweep and stage, and ``rules.csv`` on top.
    """
    from toolkit.plots.style import save
    from toolkit.tuning import figures

    sweeps, written = find_sweeps(folders), []
    for sweep in sweeps:
        for stage, study in sweep.studies.items():
            spec = StudySpec.from_plain(study.user_attrs["spec"])
            place = output / sweep.folder.name / stage
            asked = sweep.asked(stage)
            trials, history, shares = trials_frame(study, asked), history_frame(study, asked), importances(study)
            timed = [c for c in trials if c.removeprefix("objective_") in TIMED]
            title = " ".join((sweep.label, stage)).strip()
            written += [_csv(trials.drop(columns=timed), place / "trials.csv"),
                        _csv(trials[["place", *timed]], place / "costs.csv")]  # fmt: skip
            done = trials[trials["state"] == "finished"]
            if len(done):
                written.append(save(figures.history(trials, spec, title=title), place / "history", close=True))
                written.append(save(figures.parallel(done, spec, title=title), place / "parallel", close=True))
            if len(history):
                written.append(save(figures.intermediate(history, title=title), place / "intermediate", close=True))
            if shares is not None:
                written.append(save(figures.importance(shares, title=title), place / "importance", close=True))
            if len(spec.objectives) > 1 and len(done):
                written.append(save(figures.fronts(done, spec, title=title), place / "pareto", close=True))
    rules = rules_frame(sweeps)
    if len(rules):
        written.append(_csv(rules, output / "rules.csv"))
        written.append(save(figures.gap(rules), output / "rules", close=True))
    return written


def _csv(frame: Any, path: Path) -> Path:
    write_atomically(path, lambda p: frame.to_csv(p, index=False))
    return path


def report_command(argv: Sequence[str]) -> int:
    """``continual3d sweep report``."""
    parser = argparse.ArgumentParser(prog="continual3d sweep report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folders", nargs="+", help="of sweeps, or above them")
    parser.add_argument("--best", action="store_true", help="print the best setting as a config file, and nothing else")
    parser.add_argument("--output", default="", help="default: report/ in the first folder")
    options = parser.parse_args(argv)
    if options.best:
        return _print_best(options.folders)
    output = Path(options.output or Path(options.folders[0]) / "report")
    written = write_report(options.folders, output)
    for sweep in find_sweeps(options.folders):
        _print_sweep(sweep)
    _print_rules(rules_frame(find_sweeps(options.folders)))
    print(f"{len(written)} tables and figures: {output}")
    return 0


def _print_best(folders: Sequence[str]) -> int:
    sweeps = find_sweeps(folders)
    if len(sweeps) > 1:
        names = ", ".join(str(s.folder) for s in sweeps)
        raise UnknownNameError(f"--best: several sweeps there ({names}); name one of them.")
    best = sweeps[0].folder / "best.yaml"
    if best.exists():
        sys.stdout.write(best.read_text(encoding="utf-8"))
        return 0
    from toolkit.tuning.sweep import best_text, choose

    sweep = sweeps[0]
    if sweep.spec.rule == "chf":
        raise UnknownNameError(f"{sweep.folder}: chf is not through yet; run the same sweep command again.")
    sys.stdout.write(best_text(sweep.spec, choose(sweep.studies[""], sweep.spec, sweep.points)))
    return 0


def _print_sweep(sweep: Sweep, most: int = 5) -> None:
    """The best trials on the terminal."""
    from rich.console import Console
    from rich.table import Table

    for stage, study in sweep.studies.items():
        spec = StudySpec.from_plain(study.user_attrs["spec"])
        frame = trials_frame(study, sweep.asked(stage))
        counts = ", ".join(f"{n} {state}" for state, n in frame["state"].value_counts().items())
        columns = [f"objective_{o}" for o in spec.objectives]
        best = frame[frame["state"] == "finished"].sort_values(columns[0], ascending=not MAXIMISED[spec.objectives[0]],
                                                               kind="stable").head(most)  # fmt: skip
        table = Table(
            title=f"{' '.join((sweep.label, stage)).strip()}: {says(sweep.spec.rule, sweep.spec.options)}; {counts}"
        )
        shown = ["place", *columns, *(n for n in LIMITS if n in spec.limits and f"objective_{n}" not in columns),
                 *(c for c in frame if c.startswith("param_"))]  # fmt: skip
        for column in shown:
            table.add_column(column.removeprefix("objective_").removeprefix("param_"), justify="right")
        for row in best[shown].itertuples(index=False):
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
        Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_rules(table: Any) -> None:
    if not len(table):
        return
    from rich.console import Console
    from rich.table import Table

    left_out = int(table["tasks_left_out"].iloc[0])
    shown = Table(title="what the chosen settings are worth on the real stream (object AUROC after the last task)")
    for column in ("rule", "in selection", "all tasks", f"without the first {left_out}", "gap to oracle"):
        shown.add_column(column, justify="left" if column == "rule" else "right")
    for row in table.to_dict("records"):
        figures = (row["selection"], row["all_tasks"], row["unseen_tasks"], row["gap_to_oracle"])
        shown.add_row(row["rule"], *("-" if v != v else f"{v:.4f}" for v in figures))
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
