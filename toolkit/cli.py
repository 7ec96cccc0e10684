"""The command line: ``continual3d`` and the scenario scripts.

Options come from the signatures and docstrings of the chosen scenario, dataset, strategy and continual mode
(jsonargparse). Names are resolved first, from the arguments and the ``--config`` files, so that help and listings
need no heavy import, and ``--strategy C3DAD --strategy.epochs 50`` reads the same in YAML::

    strategy: {name: C3DAD, epochs: 50}
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

from toolkit.errors import Continual3DError, HyperparameterError, UnknownNameError
from toolkit.registry import entries, resolve
from toolkit.runs.spec import evaluation

DEFAULTS = {"strategy": "BTF", "dataset": "Synthetic", "continual": "Naive"}
_GIVEN_ELSEWHERE = {
    "strategy": {"seed", "device", "plugins", "store", "category_at_test"},
    "dataset": set(),
    "continual": set(),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``continual3d``; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {"run": _run, "list": _list, "table": _table, "report": _later("report"), "compare": _later("compare"),
                "view": _later("view"), "score": _later("score"), "reproduce": _later("reproduce"),
                "data": _data, "grid": _later("grid"), "sweep": _sweep}  # fmt: skip
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] == "--version":
        from toolkit import __version__

        print(f"continual3d {__version__}")
        return 0
    if argv[0] not in commands:
        print(f"continual3d: no command {argv[0]!r}; there are: {', '.join(commands)}.", file=sys.stderr)
        return 2
    return guarded(commands[argv[0]], argv[1:])


_USAGE = """usage: continual3d COMMAND ...

  run SCENARIO [options]   train and score task after task, e.g. continual3d run class_incremental --strategy BTF
  list [--matrix]          scenarios, datasets, strategies, continual modes; which strategy runs where
  table FOLDER...          compare finished runs (any folder above them)
  report FOLDER...         one page of tables with intervals, figures and clouds to turn
  compare RUN_A RUN_B      what differs between two runs: options, versions, scores
  view RUN --sample ID     one cloud with truth and scores, as picture and to turn
  score RUN CLOUDS...      scores of new clouds by a finished run, with a calibrated threshold
  reproduce TABLE          published tables beside our own runs
  grid GRID.yaml           many runs: every combination of scenarios, datasets, strategies, modes, seeds and orders
  sweep SCENARIO [options] search hyperparameters under a continual-learning rule; sweep report STUDY reads it back
  data ...                 verify, convert, preview and synthesize datasets

continual3d COMMAND --help says more."""


def guarded(function: Any, argv: list[str]) -> int:
    """Call a command; a user's mistake becomes one line on standard error and exit code 2."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # idle OpenMP threads that spin cost other processes more than waking them costs us: 7 times the processor time of a
    # BTF run on two cores shared with other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; a notebook has set its own, and keeps it
    try:
        return int(function(argv) or 0)
    except (Continual3DError, argparse.ArgumentError) as error:
        text = " ".join(str(error).split())
        print(f"error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished tasks are kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno not in (28, 30, 13):  # disk full, read-only, no permission: the user's to mend, not ours
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2


def scenario_main(name: str, argv: Sequence[str] | None = None) -> int:
    """Body of the scenario scripts: run one scenario with the arguments of the process."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda rest: run_scenario(name, rest), argv)


def _run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        names = ", ".join(entries("scenario"))
        print(f"usage: continual3d run SCENARIO [options]; scenarios: {names}")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    resolve("scenario", argv[0])
    return run_scenario(argv[0], argv[1:])


def run_scenario(name: str, argv: list[str]) -> int:
    """Parse the options of a scenario and run it; returns the exit code."""
    scenario_class = resolve("scenario", name)
    for kind in DEFAULTS:
        if f"--{kind}.help" in argv:
            return _help_of(kind, argv[argv.index(f"--{kind}.help") + 1 :])
    argv = [_with_name(token) for token in argv]
    if "-h" in argv or "--help" in argv:
        _parser(scenario_class, dict.fromkeys(DEFAULTS)).print_help()
        print(_names_help())
        return 0
    try:
        classes, options = parse_run(name, argv)
    except SystemExit as stop:  # --print_config
        return int(stop.code or 0) if isinstance(stop.code, int) else 2
    from toolkit.runs.session import run_session

    chosen = {f: options[f] for f in _fields(scenario_class)}
    arguments = {kind: _without_name(options[kind]) for kind in DEFAULTS}
    repeated: dict[str, list[Any]] = {
        "order": [f"random:{i}" for i in range(options.orders)],
        "draw": list(range(1, options.draws + 1)),
    }
    scenarios = [scenario_class(**chosen)]
    for field, values in repeated.items():
        if values and field not in chosen:
            what = "order of categories" if field == "order" else "draw of known defects"
            raise HyperparameterError(f"--{field}s: {scenario_class.__name__} has no {what}.")
        scenarios = [dataclasses.replace(s, **{field: v}) for s in scenarios for v in values] if values else scenarios
    if options.curve:
        from toolkit.runs.curve import run_curve

        return run_curve(scenarios, options.curve, classes, arguments, options)
    return run_session(scenarios, classes, arguments, options)


def parse_run(name: str, argv: Sequence[str] = (), config: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
    """The classes of dataset, strategy and continual mode of a run, and its checked options.

    Args:
        name: of the scenario.
        argv: options of ``continual3d run``.
        config: what a ``--config`` file holds, instead of `argv`.

    Raises:
        UnknownNameError: something named does not exist.
        HyperparameterError: an unknown option or a wrong value.
    """
    argv = [_with_name(token) for token in argv]
    names = _chosen_names(argv) if config is None else _names_in(config, "config")
    classes = {kind: resolve(kind, {**DEFAULTS, **names}[kind]) for kind in DEFAULTS}
    parser = _parser(resolve("scenario", name), classes)
    preset = _preset_in(argv) if config is None else str(config.get("preset", "small"))
    parser.set_defaults({f"strategy.{n}": v for n, v in classes["strategy"].of_preset(preset).items()})
    try:
        options = parser.parse_args(argv) if config is None else parser.parse_object(config)
        evaluation(options.evaluate)
        return classes, options
    except argparse.ArgumentError as error:
        raise HyperparameterError(f"{error}{_hint(str(error), parser)}") from None


def _parser(scenario_class: type, classes: dict[str, Any]) -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser

    summary = (scenario_class.__doc__ or "").strip().splitlines()[0]
    parser = ArgumentParser(prog="", description=summary, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_class_arguments(scenario_class)
    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=int, default=0, help="of initialisation, training and scoring")
    run.add_argument("--output", type=str, default="runs", help="folder of all runs")
    run.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N")
    run.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 = as many as cores")
    run.add_argument("--precision", type=Literal["float32", "bf16"], default="float32",
                     help="of training steps; bf16 = mixed precision, for hardware that is faster in it")  # fmt: skip
    run.add_argument("--evaluate", type=str, default="all",
                     help="after each task test all tasks, those seen so far, the new one, or sampled:K, the new one "
                     "and K earlier ones; the last two suit streams of hundreds of tasks")  # fmt: skip
    run.add_argument("--category-at-test", type=Literal["known", "inferred"], default="known",
                     help="give the strategy the class name of test clouds, as published protocols do, or withhold it "
                     "and take the class of the nearest training cloud")  # fmt: skip
    run.add_argument("--orders", type=int, default=0,
                     help="run that many random orders of the categories and compare")  # fmt: skip
    run.add_argument("--draws", type=int, default=0,
                     help="run draws 1, 2, .. of the known defects and compare")  # fmt: skip
    run.add_argument("--curve", type=str, default="",
                     help="open_set: shots or known, with values if wanted (shots:1,2,4): a run per value and draw, "
                     "all tested on the same clouds; table, figures and CSV")  # fmt: skip
    run.add_argument("--save-point-scores", action="store_true", help="keep the score of every point")
    run.add_argument("--dry-run", action="store_true", help="print the stream and stop")
    run.add_argument("--figures", type=bool, default=True, help="draw figures when the run is done")
    run.add_argument("--logger", type=Literal["none", "tensorboard", "wandb", "mlflow"], default="none",
                     help="further logging; needs the package of that name")  # fmt: skip
    run.add_argument("--cache", type=str, default="", help="folder of the disk cache; 'none' turns it off")
    run.add_argument("--preset", type=str, default="small",
                     help="defaults of the strategy's arguments: small, or paper (published sizes)")  # fmt: skip
    for kind, cls in classes.items():
        if cls is None:
            parser.add_argument(f"--{kind}", metavar="NAME", default=DEFAULTS[kind],
                                help=f"which one; --{kind}.help NAME shows its options")  # fmt: skip
            continue
        parser.add_class_arguments(cls, kind, skip=_GIVEN_ELSEWHERE[kind] & set(_parameters(cls)))
        parser.add_argument(f"--{kind}.name", default=cls.__name__, help=argparse.SUPPRESS)
    return parser


def _hint(message: str, parser: Any) -> str:
    """``Did you mean --strategy.width?`` for an option that does not exist."""
    known = [o for action in parser._actions for o in action.option_strings if not o.endswith(".name")]
    for word in message.split():
        wrong = word.split("=")[0]
        if wrong.startswith("--") and wrong not in known:
            near = difflib.get_close_matches(wrong, known, n=1)
            return f". Did you mean {near[0]}?" if near else ". --help lists the options."
    return ""


def _parameters(cls: type) -> list[str]:
    from jsonargparse._parameter_resolvers import get_signature_parameters

    return [p.name for p in get_signature_parameters(cls, "__init__")]


def _help_of(kind: str, rest: list[str]) -> int:
    """``--strategy.help NAME``: the options of one class."""
    from jsonargparse import ArgumentParser

    if not rest:
        raise UnknownNameError(f"--{kind}.help needs a name: {', '.join(entries(kind))}.")
    cls = resolve(kind, rest[0])
    parser = ArgumentParser(prog="", usage=argparse.SUPPRESS, add_help=False)
    parser.add_class_arguments(cls, kind, skip=_GIVEN_ELSEWHERE[kind] & set(_parameters(cls)))
    for action in parser._actions:
        if action.option_strings == [f"--{kind}"]:
            action.help = argparse.SUPPRESS
    parser.print_help()
    return 0


def _with_name(token: str) -> str:
    """``--strategy`` and ``--strategy=X`` become ``--strategy.name``."""
    for kind in DEFAULTS:
        if token == f"--{kind}" or token.startswith(f"--{kind}="):
            return f"--{kind}.name" + token[len(kind) + 2 :]
    return token


def _configs(argv: list[str]) -> dict[str, Any]:
    """Content of each --config file by its path."""
    found = {}
    for value in _values_of("--config", argv):
        import yaml

        try:
            with open(value, encoding="utf-8") as file:
                found[value] = yaml.safe_load(file)
        except OSError as error:
            raise UnknownNameError(f"--config {value}: {error.strerror}.") from error
        except yaml.YAMLError as error:
            raise HyperparameterError(f"--config {value} is not YAML: {error}") from error
    return found


def _preset_in(argv: list[str]) -> str:
    """The preset that config files or the command line ask for."""
    named = [str(c["preset"]) for c in _configs(argv).values() if isinstance(c, dict) and "preset" in c]
    return ["small", *named, *_values_of("--preset", argv)][-1]


def _chosen_names(argv: list[str]) -> dict[str, str]:
    """Names of strategy, dataset and continual mode: from --config files, overridden by the command line."""
    names = dict(DEFAULTS)
    for value, content in _configs(argv).items():
        names |= _names_in(content, f"--config {value}")
    for kind in DEFAULTS:
        names[kind] = [names[kind], *_values_of(f"--{kind}.name", argv)][-1]
    return names


def _names_in(content: Any, where: str) -> dict[str, str]:
    """The names that a config gives."""
    if not isinstance(content, dict):
        raise HyperparameterError(f"{where}: expected options by name, e.g. 'seed: 1'.")
    for kind in DEFAULTS:
        if isinstance(content.get(kind), str):
            raise HyperparameterError(f"{where}: write '{kind}: {{name: {content[kind]}}}'.")
    return {kind: str(content[kind]["name"]) for kind in DEFAULTS if "name" in (content.get(kind) or {})}


def _values_of(option: str, argv: list[str]) -> list[str]:
    following = [argv[i + 1] for i, token in enumerate(argv[:-1]) if token == option]
    return following + [token.split("=", 1)[1] for token in argv if token.startswith(option + "=")]


def _without_name(section: Any) -> dict[str, Any]:
    return {k: v for k, v in section.as_dict().items() if k != "name"}


def _fields(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def _names_help() -> str:
    lines = []
    for kind in DEFAULTS:
        lines += ["", f"--{kind} NAME:"]
        lines += [f"  {e.name:<22}{e.summary}" for e in entries(kind).values()]
    return "\n".join(lines)


def _list(argv: list[str]) -> int:
    """``continual3d list``; with ``--matrix``, which strategy runs in which scenario."""
    if argv and argv[0] == "--matrix":
        from toolkit.runs.show import print_matrix

        print_matrix()
        return 0
    titles = {"scenario": "scenarios", "dataset": "datasets", "strategy": "strategies", "continual": "continual modes"}
    for kind, title in titles.items():
        print(title)
        for entry in entries(kind).values():
            print(f"  {entry.name:<22}{entry.summary}")
    return 0


def _table(argv: list[str]) -> int:
    """``continual3d table``: one row per finished run below the given folders, or per method."""
    from toolkit.runs.show import find_results, markdown, print_table, write_into
    from toolkit.runs.strategy_table import strategies_markdown

    parser = argparse.ArgumentParser(prog="continual3d table", description="Compare finished runs.")
    parser.add_argument("folders", nargs="+", help="folders of runs, or above runs")
    parser.add_argument("--format", choices=["terminal", "markdown", "csv"], default="terminal")
    parser.add_argument(
        "--into", metavar="FILE:NAME", help="write the Markdown between <!-- table:NAME --> and its end"
    )
    parser.add_argument("--strategies", action="store_true", help="a row per strategy, in Markdown: paper and figures")
    parser.add_argument("--average", action="store_true", help="a row per method: mean over seeds, orders and draws")
    options = parser.parse_args(argv)
    results = find_results(options.folders)
    if options.strategies or options.into:
        made = strategies_markdown(results) if options.strategies else markdown(results, options.average)
        write_into(options.into, made) if options.into else print(made)
    else:
        print_table(results, options.format, options.average)
    return 0


def _later(name: str) -> Callable[[list[str]], int]:
    """``toolkit.runs.NAME.command``, imported when called."""

    def call(argv: list[str]) -> int:
        return int(importlib.import_module(f"toolkit.runs.{name}").command(argv))

    return call


def _sweep(argv: list[str]) -> int:
    from toolkit.tuning.command import command

    return command(argv)


def _data(argv: list[str]) -> int:
    from toolkit.data.command import data_command

    return data_command(argv)


warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"avalanche|torch_geometric")

if __name__ == "__main__":
    sys.exit(main())
