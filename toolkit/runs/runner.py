"""Running one spec: train task after task, score after each, keep everything, go on after a kill."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.continual import Continual
from toolkit.data.base import CloudDataset
from toolkit.errors import OutputError, RequirementError
from toolkit.runs import checkpoint
from toolkit.runs.environment import environment, peak_memory_mb
from toolkit.runs.files import read_json, write_json, write_parquet, write_yaml
from toolkit.runs.heartbeat import BusyError, beating, describe
from toolkit.runs.kept import kept_between_tasks, macs_of_scoring
from toolkit.runs.ledger import LabelKeeper, Ledger
from toolkit.runs.progress import ProgressPlugin
from toolkit.runs.result import summarise
from toolkit.runs.spec import RunSpec, tested
from toolkit.scenario import Scenario, Task
from toolkit.store import Store, cached_load
from toolkit.strategy import AnomalyStrategy
from toolkit.stream import CloudExperience, CloudList, build


def run(spec: RunSpec, scenario: Scenario, dataset: CloudDataset, strategy: AnomalyStrategy, continual: Continual,
        output: str | Path, *, store: Store | None = None, loggers: Sequence[Any] = (),
        after_task: Callable[[Path, int], None] | None = None) -> Path:  # fmt: skip
    """Run a spec to its end and return its folder. A finished run is left as it is; a killed one is continued.

    Args:
        spec: describes the other arguments; its hash names the folder.
        scenario, dataset: what arrives.
        strategy: freshly built, with the plugins of `continual`.
        continual: the continual mode.
        output: folder of all runs.
        store: disk cache of parsed clouds.
        loggers: further Avalanche plugins that only watch (TensorBoard, ...).
        after_task: called with the folder and the position of a task once its scores are on disk, when a run is
            continued also for the tasks behind it. What it raises ends the run, which can be continued.

    Raises:
        OutputError: the folder cannot be written.
        BusyError: another process works in it.
        CheckpointError: a stored state cannot be read.
        RequirementError: the strategy does not fit the stream or the continual mode.
    """
    folder = spec.folder(output)
    if (folder / "result.json").exists():
        return folder
    tasks = scenario.tasks(dataset)
    check_fit(strategy, continual, dataset, tasks, scenario.independent)
    with locked(folder), beating(folder):
        if (folder / "result.json").exists():  # another process has finished it between our look and our lock
            return folder
        write_yaml(folder / "spec.yaml", spec.as_dict())
        keeper = LabelKeeper(lambda sample: scenario.transform(sample, cached_load(dataset, sample, store)))
        stream = build(tasks, dataset, load=keeper.load, independent=scenario.independent)
        slices = scenario.slices(dataset, tasks)
        ledger = Ledger(folder, tasks, keeper, slices, scenario.independent, spec.save_point_scores)
        lessons = joint_lesson(stream.train_stream) if continual.joint else list(stream.train_stream)
        with ProgressPlugin(f"{spec.method} seed {spec.seed}", len(lessons)) as progress:
            _learn(spec, folder, strategy, scenario.independent, lessons, stream, ledger, progress, loggers, after_task)
        objects, points, pairs = ledger.read()
        write_parquet(folder / "scores.parquet", objects)
        write_parquet(folder / "point_metrics.parquet", points)
        write_parquet(folder / "point_pairs.parquet", pairs)
        costs = _costs(folder, strategy, stream)
        result = summarise(spec, scenario, slices, objects, points, tasks, costs, environment())
        write_json(folder / "result.json", result)
    return folder


def _learn(spec: RunSpec, folder: Path, strategy: AnomalyStrategy, independent: bool,
           lessons: Sequence[CloudExperience], stream: Any, ledger: Ledger, progress: ProgressPlugin,
           loggers: Sequence[Any], after_task: Callable[[Path, int], None] | None) -> None:  # fmt: skip
    """Train on each lesson that is not behind us and score what the spec says after it."""
    watching = [ledger, progress, *loggers]
    remembered = [p for p in strategy.plugins if type(p).__name__ not in _WATCHERS]
    strategy.plugins[0:0] = watching
    checkpoints = folder / "checkpoints"
    latest = checkpoint.latest(checkpoints)
    done = -2 if latest is None else latest  # -2: not even scored before training
    if latest is None:
        if not ledger.has(-1) and spec.evaluate == "all" and not independent:
            _score(strategy, ledger, stream.test_stream, -1, folder, 0.0)
    else:
        strategy.load_state(checkpoint.load_state(checkpoints, done)["state"])
        lists = {e.clouds.name: e for e in [*stream.train_stream, *lessons]}
        checkpoint.load_plugins(checkpoints, done, remembered,
                                lambda name: strategy.prepared_experience(lists[name]).clouds)  # fmt: skip
        progress.say(f"{spec.method}: going on after task {done + 1} from {checkpoints}")
    for number, lesson in enumerate(lessons):
        position = lesson.current_experience
        trained_seconds = 0.0
        fresh = position > done
        if fresh:
            begin = time.perf_counter()
            if independent:
                strategy.start_over()
            strategy.train(lesson)
            trained_seconds = time.perf_counter() - begin
            checkpoint.save(checkpoints, position, strategy, remembered, {"train_seconds": trained_seconds})
        elif position == done:
            trained_seconds = checkpoint.load_state(checkpoints, done)["facts"]["train_seconds"]
        if fresh or not ledger.has(position):
            places = [position] if independent else tested(spec.evaluate, position, len(stream.test_stream),
                                                           lesson is lessons[-1])  # fmt: skip
            progress.trained = number + 1
            _score(strategy, ledger, [stream.test_stream[i] for i in places], position, folder, trained_seconds)
        progress.task_done(number + 1, "")
        if after_task is not None:
            after_task(folder, position)


_WATCHERS = {"EvaluationPlugin", "PeriodicEval"}


def _score(strategy: AnomalyStrategy, ledger: Ledger, experiences: Any, position: int, folder: Path,
           trained_seconds: float) -> None:  # fmt: skip
    ledger.begin(position)
    begin = time.perf_counter()
    strategy.eval(experiences)
    seconds = time.perf_counter() - begin
    write_json(folder / "rows" / f"cost_{position}.json", {
        "trained_on": position, "train_seconds": trained_seconds, "score_seconds": seconds,
        "clouds_scored": ledger.scored, "state_bytes": state_bytes(strategy),
        "peak_memory_mb": peak_memory_mb()})  # fmt: skip
    ledger.commit()


def _costs(folder: Path, strategy: AnomalyStrategy, stream: Any) -> dict[str, Any]:
    paths = sorted((folder / "rows").glob("cost_*.json"), key=lambda p: int(p.stem.split("_")[1]))
    rows = [read_json(path) for path in paths]
    clouds = sum(r["clouds_scored"] for r in rows)
    trainable = [p for p in strategy.model.parameters() if p.requires_grad]
    return {
        "train_seconds": sum(r["train_seconds"] for r in rows),
        "score_seconds": sum(r["score_seconds"] for r in rows),
        "score_seconds_per_cloud": sum(r["score_seconds"] for r in rows) / max(clouds, 1),
        "peak_memory_mb": max(r["peak_memory_mb"] for r in rows),
        **kept_between_tasks(folder / "checkpoints", strategy, rows[-1]["state_bytes"]),
        "macs_per_cloud": macs_of_scoring(strategy, stream.test_stream[-1]),
        "trainable_parameters": sum(p.numel() for p in trainable) if strategy.is_trained_by_gradient else 0,
        "per_task": rows,
    }


def state_bytes(strategy: AnomalyStrategy) -> int:
    """Bytes of tensors that the strategy keeps from task to task (network and banks; not replay buffers)."""
    import torch

    def size(value: Any) -> int:
        if isinstance(value, torch.Tensor):
            return value.element_size() * value.numel()
        if isinstance(value, dict):
            return sum(size(v) for v in value.values())
        if isinstance(value, (list, tuple)):
            return sum(size(v) for v in value)
        return 0

    return size(strategy.state())


def joint_lesson(train_stream: Sequence[CloudExperience]) -> list[CloudExperience]:
    """All training clouds as one experience, at the last position."""
    lists = [e.clouds for e in train_stream]
    samples = [s for clouds in lists for s in clouds.samples]
    targets = [t for clouds in lists for t in clouds.targets]
    merged = CloudList("train/joint", samples, lists[0].load, targets)
    return [CloudExperience(merged, Task("joint", tuple(samples), ()), len(lists) - 1)]


def check_fit(strategy: AnomalyStrategy, continual: Continual, dataset: CloudDataset, tasks: Sequence[Task],
              independent: bool = False) -> None:  # fmt: skip
    """Raises RequirementError if the strategy cannot run on this stream in this continual mode."""
    name = type(strategy).__name__
    if continual.needs_gradient and not strategy.is_trained_by_gradient:
        mode = type(continual).__name__
        raise RequirementError(f"{name} learns without gradients, so --continual {mode} has nothing to act on. "
                               "Use naive, joint, cumulative or from_scratch.")  # fmt: skip
    if independent and type(continual).__name__ != "Naive":
        raise RequirementError("The tasks of this scenario are separate experiments with a fresh model each; "
                               f"--continual {type(continual).__name__} has nothing to act on.")  # fmt: skip
    offered = {
        "known_defects": any(s.y for task in tasks for s in task.train),
        "color": dataset.has_color,
        "meshes": dataset.has_meshes,
        "organised": dataset.organised,
    }
    for need in strategy.requires:
        if not offered[need]:
            raise RequirementError(f"{name} needs {need.replace('_', ' ')}, which this stream of "
                                   f"{type(dataset).__name__} does not have.")  # fmt: skip


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}. Choose another --output.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"Another process is running this spec in {folder} {describe(folder)}. "
                            "Wait for it or stop it.") from None  # fmt: skip
        yield
