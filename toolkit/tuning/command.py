"""``continual3d sweep``: search hyperparameters under a rule; ``continual3d sweep report``: read sweeps back."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import HyperparameterError
from toolkit.tuning.rules import RULES, RuleOptions, says
from toolkit.tuning.space import Space, as_plain, read_space, space_of

_EPILOG = """All further options are those of `continual3d run SCENARIO`; what is given there is fixed and not searched.

examples
  continual3d sweep class_incremental --strategy BTF --trials 50
  continual3d sweep class_incremental --strategy C3DAD --continual ewc --rule chf --trials 20
  continual3d sweep class_incremental --strategy BTF --objective average bytes --max-latency 0.5 --trials 40
  continual3d sweep report sweeps/NAME           tables and figures, and the gap between rules
  continual3d sweep report sweeps/NAME/RULE --best > config.yaml
"""


def command(argv: Sequence[str]) -> int:
    """Entry point of both."""
    if argv and argv[0] == "report":
        from toolkit.tuning.report import report_command

        return report_command(argv[1:])
    options, rest = _parser().parse_known_args(argv)
    if options.scenario is None:
        _parser().print_help()
        return 2
    from toolkit.registry import resolve
    from toolkit.runs.executors import make_executor
    from toolkit.runs.fleet import FleetView
    from toolkit.runs.session import writable
    from toolkit.tuning.sweep import Fleet, run_sweep

    resolve("scenario", options.scenario)
    specs = specs_of(options, rest)
    if options.print_space:
        return _print_space(specs[0].space)
    writable(options.output)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C
    name = options.study or default_name(options.scenario, specs[0].config)
    threads = specs[0].config["threads"]
    pairs = dict(pair.partition("=")[::2] for pair in options.executor_options)
    for spec in specs:
        folder = Path(options.output) / name / spec.rule

        def make(workers: int, folder: Path = folder) -> Any:
            return make_executor(options.executor, workers=workers, threads=threads, memory=options.memory,
                                 logs=str(folder / "logs"), options=pairs)  # fmt: skip

        with FleetView(f"{name} {spec.rule}", bars=options.executor != "inline") as view:
            fleet = Fleet(make, options.workers, view)
            choice = run_sweep(spec, folder, options.storage, f"{name}/{spec.rule}", options.trials, fleet,
                               final=not options.no_final)  # fmt: skip
        found = ", ".join(f"{o} {v:.4f}" for o, v in zip(spec.objectives, choice.values))
        print(f"{spec.rule} ({says(spec.rule, spec.options)}): {found} with {choice.params}")
        if choice.note:
            print(f"  {choice.note}")
    from toolkit.tuning.report import write_report

    report = Path(options.output) / name / "report"
    written = write_report([Path(options.output) / name / spec.rule for spec in specs], report)
    print(f"{len(written)} tables and figures: {report}; all rules of this sweep side by side: "
          f"continual3d sweep report {report.parent}")  # fmt: skip
    return 0


def _parser() -> argparse.ArgumentParser:
    from toolkit.runs.grid import add_executor_options
    from toolkit.tuning.study import MAXIMISED

    defaults = RuleOptions()
    parser = argparse.ArgumentParser(
        prog="continual3d sweep", epilog=_EPILOG, allow_abbrev=False,
        description="Search hyperparameters by what a continual learner may know; see the rules below.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("scenario", nargs="?", help="of `continual3d list`")
    search = parser.add_argument_group("search")
    search.add_argument("--trials", type=int, default=20, help="points to settle, those of earlier starts included")
    search.add_argument("--space", default="", help="YAML file; default: what strategy and continual mode declare")
    search.add_argument("--print-space", action="store_true", help="print the space as such a file and stop")
    search.add_argument("--objective", nargs="+", default=["average"], metavar="NAME",
                        help=f"one, or several for a Pareto front: {', '.join(MAXIMISED)}")  # fmt: skip
    search.add_argument("--forgetting-weight", type=float, default=0.0, help="subtracted from a single objective")
    search.add_argument("--max-latency", type=float, default=math.inf, help="seconds per scored cloud")
    search.add_argument("--max-bytes", type=float, default=math.inf, help="kept from task to task")
    search.add_argument("--sampler", default="tpe", help="tpe, cmaes, gp, nsga2, random or grid")
    search.add_argument("--sampler-seed", type=int, default=0)
    search.add_argument("--grid-points", type=int, default=4, help="values per continuous option (sampler grid)")
    search.add_argument("--pruner", default="auto", help="auto, median, wilcoxon, halving, hyperband or none")
    search.add_argument("--seeds", type=int, nargs="+", default=[0], help="a trial is the mean over seeds and orders")
    search.add_argument("--order-list", nargs="+", default=[], metavar="ORDER",
                        help="orders of the categories, e.g. listed random:1")  # fmt: skip
    rules = parser.add_argument_group("what a trial may look at", "\n".join(f"{n}: {t}" for n, t in RULES.items()))
    rules.add_argument("--rule", nargs="+", default=["first-k-tasks"], metavar="RULE", help="one or several, in turn")
    for name, value, text in (
        ("first_tasks", defaults.first_tasks, "k of first-k-tasks"),
        ("holdout", defaults.holdout, "share of training objects held out"),
        ("per_cloud", defaults.per_cloud, "defective copies of each held-out cloud"),
        ("drop_margin", defaults.drop_margin, "chf: share of plasticity that stability may cost"),
        ("decay", defaults.decay, "chf: factor of the stability weight after a failed attempt"),
        ("attempts", defaults.attempts, "chf: most weights tried"),
        ("stability", defaults.stability, "chf: option to relax; default: that of the continual mode"),
    ):
        rules.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=text)
    rules.add_argument("--defects", nargs="+", default=list(defaults.defects), help="put into held-out clouds")
    place = parser.add_argument_group("where it is kept")
    place.add_argument("--output", default="sweeps", help="folder of all sweeps")
    place.add_argument("--study", default="", help="name of the sweep's folder; default: scenario, dataset, strategy")
    place.add_argument("--storage", default="", help="database URL; default: a journal file in the sweep's folder")
    place.add_argument("--no-final", action="store_true", help="do not run the choice on the real stream")
    add_executor_options(parser, threads=False)
    return parser


def specs_of(options: argparse.Namespace, rest: Sequence[str]) -> list[Any]:
    """One StudySpec per rule.

    Args:
        options: of the sweep.
        rest: options of ``continual3d run``.

    Raises:
        HyperparameterError: a wrong option.
    """
    from toolkit.cli import parse_run
    from toolkit.runs.cell import plain_options
    from toolkit.tuning.study import LIMITS, StudySpec

    if options.trials < 1:
        raise HyperparameterError(f"--trials {options.trials}: expected 1 or more.")
    classes, parsed = parse_run(options.scenario, list(rest))
    config = plain_options(classes, parsed)
    fixed = given_options(rest)
    if "threads" not in fixed:
        config["threads"] = 1
    if options.order_list and "order" not in config:
        raise HyperparameterError(f"--order-list: {options.scenario} has no order of categories.")
    space = read_space(options.space) if options.space else declared(classes, fixed)
    both = sorted(set(space) & fixed)
    if both:
        raise HyperparameterError(f"{', '.join(both)}: both fixed and in --space.")
    check_names(space, config)
    limits = {n: v for n, v in zip(LIMITS, (options.max_latency, options.max_bytes)) if v < math.inf}
    rules = RuleOptions(**{name: getattr(options, name) for name in RuleOptions.__dataclass_fields__})
    return [StudySpec(
        scenario=options.scenario, config=config, space=space, rule=rule, options=rules,
        objectives=tuple(options.objective), forgetting_weight=options.forgetting_weight, sampler=options.sampler,
        pruner=options.pruner, seed=options.sampler_seed, seeds=tuple(options.seeds), orders=tuple(options.order_list),
        limits=limits, grid_points=options.grid_points,
    ) for rule in options.rule]  # fmt: skip


def declared(classes: dict[str, Any], fixed: set[str]) -> dict[str, Space]:
    """The space of the strategy and of the continual mode, without the options that are fixed."""
    space = {**space_of("strategy", classes["strategy"]), **space_of("continual", classes["continual"])}
    return {name: s for name, s in space.items() if name not in fixed}


def given_options(rest: Sequence[str]) -> set[str]:
    """Names of the options that were given, on the command line or in config files."""
    import yaml

    given = {token[2:].split("=")[0] for token in rest if token.startswith("--")}
    files = [rest[i + 1] for i, token in enumerate(rest[:-1]) if token == "--config"]
    files += [token.split("=", 1)[1] for token in rest if token.startswith("--config=")]
    for file in files:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        for name, value in content.items():
            given |= {f"{name}.{inner}" for inner in value} if isinstance(value, dict) else {str(name)}
    return given


def check_names(space: dict[str, Space], config: dict[str, Any]) -> None:
    """Raises HyperparameterError if the space names an option that the run does not have."""
    for name in space:
        part, _, inner = name.partition(".")
        known = config.get(part) if inner else config
        if not isinstance(known, dict) or (inner or part) not in known:
            raise HyperparameterError(f"--space: {name} is no option of this run. Names are as in a --config file, "
                                      "with a point: strategy.lr, continual.mem_size, split.")  # fmt: skip


def default_name(scenario: str, config: dict[str, Any]) -> str:
    """``class_incremental-Synthetic-C3DAD-EWC``."""
    parts = [scenario, *(config[k]["name"].rpartition(":")[2] for k in ("dataset", "strategy", "continual"))]
    return "-".join(p for p in parts if p != "Naive")


def _print_space(space: dict[str, Space]) -> int:
    import yaml

    plain = {name: {k: v for k, v in as_plain(s).items() if v != ""} for name, s in space.items()}
    yaml.safe_dump(plain, sys.stdout, sort_keys=False, default_flow_style=None, width=120)
    return 0
