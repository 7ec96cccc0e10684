"""What a scenario script does once its options are parsed: build the parts, run, show the result."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import HyperparameterError, OutputError
from toolkit.runs.files import read_json
from toolkit.runs.spec import Part, RunSpec
from toolkit.scenario import Scenario, Task


def run_session(scenarios: Sequence[Scenario], classes: dict[str, Any], arguments: dict[str, dict[str, Any]],
                options: Any) -> int:  # fmt: skip
    """Build dataset, continual mode and strategy, run each scenario, print tables and draw figures.

    Args:
        scenarios: one, or the same in several orders.
        classes: class of ``dataset``, ``strategy`` and ``continual``.
        arguments: their keyword arguments.
        options: the remaining options of `toolkit.cli`.

    Returns:
        The exit code.
    """
    quieten()
    dataset = classes["dataset"](**arguments["dataset"])
    if options.dry_run:
        for scenario in scenarios:
            print_stream(scenario, dataset)
        return 0
    from toolkit.runs.show import comparison_of, print_result

    writable(options.output)
    device, threads, store = choose_device(options.device), set_threads(options.threads), open_store(options.cache)
    folders = []
    for scenario in scenarios:
        folder = run_one(scenario, dataset, classes, arguments, options, device, threads, store)
        print_result(folder)
        folders.append(folder)
    if len(folders) > 1:
        comparison_of(folders)
    return 0


def run_one(scenario: Scenario, dataset: Any, classes: dict[str, Any], arguments: dict[str, dict[str, Any]],
            options: Any, device: str, threads: int, store: Any) -> Path:  # fmt: skip
    """Run one spec and draw its figures; returns its folder."""
    from toolkit.runs.runner import run

    spec, strategy, continual = assemble(scenario, dataset, classes, arguments, options, device, threads, store)
    folder = spec.folder(options.output)
    trackers = track(options.logger, folder, spec) if not (folder / "result.json").exists() else []
    run(spec, scenario, dataset, strategy, continual, options.output, store=store, loggers=trackers)
    for tracker in trackers:
        tracker.finish(read_json(folder / "result.json"))
    if options.figures:
        from toolkit.runs.figures import draw_figures

        draw_figures(folder, dataset, strategy)
    return folder


def assemble(scenario: Scenario, dataset: Any, classes: dict[str, Any], arguments: dict[str, dict[str, Any]],
             options: Any, device: str, threads: int, store: Any) -> tuple[RunSpec, Any, Any]:  # fmt: skip
    """The spec of a run, its fresh strategy and its continual mode."""
    gc.collect()  # an earlier strategy holds itself in circles, and with it all the clouds it has prepared
    continual = classes["continual"](**arguments["continual"])
    strategy = classes["strategy"](
        **arguments["strategy"],
        category_at_test=options.category_at_test,
        seed=options.seed,
        device=device,
        plugins=continual.plugins(),
        store=store,
    )
    strategy.precision = options.precision
    spec = RunSpec(
        scenario=Part.of(type(scenario), scenario.arguments()),
        dataset=Part.of(type(dataset), arguments["dataset"]),
        strategy=Part.of(type(strategy), strategy.arguments()),
        continual=Part.of(type(continual), continual.arguments()),
        seed=options.seed, fingerprint=dataset.fingerprint(), evaluate=options.evaluate,
        save_point_scores=options.save_point_scores, precision=options.precision, threads=threads, device=device,
    )  # fmt: skip
    return spec, strategy, continual


def quieten() -> None:
    """Keep other packages' deprecation notices out of a user's terminal.

    Avalanche re-arms its own deprecation warnings each time they are given, which overrides filters; so they are
    dropped where they are shown.
    """
    show = warnings.showwarning

    def show_ours(message: Any, category: Any, filename: str, *rest: Any, **more: Any) -> None:
        foreign = any(name in filename for name in ("avalanche", "torch_geometric", "torch/jit"))
        if not (foreign and issubclass(category, (DeprecationWarning, FutureWarning))):
            show(message, category, filename, *rest, **more)

    warnings.showwarning = show_ours
    logging.getLogger("avalanche").setLevel(logging.ERROR)


def writable(folder: str) -> None:
    """Raises OutputError unless files can be made in `folder`."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"--output {folder}: {error.strerror}. Choose a folder you can write to.") from error


def choose_device(name: str) -> str:
    """``auto`` becomes cuda where there is one; HyperparameterError for a device that does not exist."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise HyperparameterError(f"--device {name}: expected auto, cpu, cuda or cuda:N.") from None
    count = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= count):
        raise HyperparameterError(f"--device {name}: not available here; {count} CUDA devices are present.")
    return name


def set_threads(count: int) -> int:
    """Fix torch's thread count (results differ in the last digits between counts); 0 = number of cores."""
    import torch

    if count < 0:
        raise HyperparameterError(f"--threads {count}: expected 0 or more.")
    count = count or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count or os.cpu_count() or 1
    torch.set_num_threads(count)
    return count


def open_store(cache: str) -> Any:
    """The disk cache: default place, a folder, or None for ``none``."""
    from toolkit.store import Store

    if cache == "none":
        return None
    return Store(Path(cache)) if cache else Store()


def track(name: str, folder: Path, spec: RunSpec) -> list[Any]:
    """The tracker called `name` as a list of Avalanche plugins; empty for ``none``."""
    if name == "none":
        return []
    from toolkit.runs.trackers import TRACKERS

    return [TRACKERS[name](folder, spec)]


def print_stream(scenario: Scenario, dataset: Any) -> None:
    """``--dry-run``: the tasks with their categories and counts."""
    from rich.console import Console
    from rich.table import Table

    tasks = scenario.tasks(dataset)
    from toolkit.scenario import check_leaks

    check_leaks(tasks, scenario.independent)
    table = Table(title=f"{type(scenario).__name__} on {type(dataset).__name__}: {len(tasks)} tasks")
    words = ("task", "categories", "variants", "only in the test", "known defects")
    for column in ("", *words[:-1], "train", words[-1], "test normal", "test defective"):
        table.add_column(column, justify="left" if column in words else "right")
    for number, task in enumerate(tasks, 1):
        table.add_row(str(number), *stream_row(task))
    Console(width=None if os.isatty(1) else 140).print(table)


def stream_row(task: Task) -> list[str]:
    """One task in words and numbers."""
    known: dict[str, int] = {}
    for sample in task.train:
        if sample.y:
            known[sample.defect] = known.get(sample.defect, 0) + 1
    defective = sum(s.y for s in task.test)
    trained, tested = ({(s.category, s.subcategory) for s in part if s.subcategory and s.subcategory != s.category}
                       for part in (task.train, task.test))  # fmt: skip
    categories = ", ".join(task.categories)
    return [task.name if task.name != "+".join(task.categories) else "", categories, _names(trained),
            _names(tested - trained), str(len(task.train) - sum(known.values())),
            ", ".join(f"{n} {d}" for d, n in sorted(known.items())) or "-",
            str(len(task.test) - defective), str(defective)]  # fmt: skip


def _names(variants: set[tuple[str, str]], most: int = 6) -> str:
    """Names of variants, or how many there are."""
    listed = sorted(name for _, name in variants)
    return ", ".join(listed) if 0 < len(listed) <= most else str(len(listed)) if listed else "-"
