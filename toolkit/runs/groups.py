"""Finished runs put in order: streams that can be compared, methods on them, and repetitions of each method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.registry import entries, resolve
from toolkit.runs.load import FinishedRun
from toolkit.runs.spec import RunSpec
from toolkit.tuning.space import arguments

REPEATED = ("order", "draw")
"""Scenario options by which runs of one method may differ and still be repetitions of each other, beside the seed."""


@dataclass(frozen=True)
class Method:
    """Repetitions of one method on one stream.

    Attributes:
        name: for tables; hyperparameters are in it where methods of the same name differ in them.
        runs: one per seed, order and draw, sorted by them.
    """

    name: str
    runs: tuple[FinishedRun, ...]

    def _varying(self) -> list[str]:
        facts = [_repetition(run) for run in self.runs]
        return [key for key in facts[0] if len({str(fact.get(key)) for fact in facts}) > 1] or ["seed"]

    @property
    def repetitions(self) -> list[str]:
        """What tells the runs apart, e.g. ``"seed 0, order random:1"``."""
        return [", ".join(f"{key} {_repetition(run)[key]}" for key in self._varying()) for run in self.runs]

    @property
    def repeated(self) -> str:
        """All repetitions in few words: ``seeds 0, 1, 2``."""
        varying = self._varying()
        if len(varying) > 1 or len(self.runs) == 1:
            return "; ".join(self.repetitions)
        return f"{varying[0]}s " + ", ".join(str(_repetition(run)[varying[0]]) for run in self.runs)


@dataclass(frozen=True)
class Stream:
    """Runs on the same tasks and test clouds: what may stand in one table.

    Attributes:
        title: for headings.
        methods: in alphabetical order.
    """

    title: str
    methods: tuple[Method, ...]

    @property
    def first(self) -> FinishedRun:
        """Any run, for facts that all of them share."""
        return self.methods[0].runs[0]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks; ``task 1``, ... where repetitions bring them in different orders."""
        names = {tuple(run.result["tasks"]) for method in self.methods for run in method.runs}
        return (
            list(names.pop()) if len(names) == 1 else [f"task {i + 1}" for i in range(len(self.first.result["tasks"]))]
        )


def streams_of(runs: Sequence[FinishedRun]) -> list[Stream]:
    """Group runs by stream and method.

    A stream is a scenario with its options (without `REPEATED`), a dataset by its fingerprint, and which clouds were
    tested when. Of two runs of the same spec, such as copies of a folder, the first is kept.
    """
    streams: dict[str, dict[str, dict[str, FinishedRun]]] = {}
    for run in runs:
        spec = run.spec
        options = {k: v for k, v in spec.scenario.arguments.items() if k not in REPEATED}
        stream = _key([spec.scenario.name, options, spec.dataset.name, spec.fingerprint, spec.evaluate,
                       len(run.result["tasks"])])  # fmt: skip
        method = _key([spec.strategy.name, spec.strategy.arguments, spec.continual.name, spec.continual.arguments,
                       spec.precision])  # fmt: skip
        streams.setdefault(stream, {}).setdefault(method, {}).setdefault(_key(_repetition(run)), run)
    groups = []
    for methods in streams.values():
        listed = [sorted(runs.values(), key=_repetition_order) for runs in methods.values()]
        names = method_names([runs[0].spec for runs in listed])
        made = [Method(name, tuple(runs)) for name, runs in zip(names, listed)]
        groups.append(sorted(made, key=lambda m: m.name.lower()))
    firsts = [methods[0].runs[0] for methods in groups]
    titles = [
        f"{r.spec.scenario.name} on {r.spec.dataset.name}, {_counted(len(r.result['tasks']), 'task')}" for r in firsts
    ]
    titles = distinguish(titles, [_stream_options(r) for r in firsts])
    return sorted((Stream(t, tuple(m)) for t, m in zip(titles, groups)), key=lambda s: s.title.lower())


def method_names(specs: Sequence[RunSpec]) -> list[str]:
    """Names of methods, made unique by the hyperparameters in which methods of one name differ.

    Of these, defaults are left out: ``C3DAD``, ``C3DAD (attention=softmax)``.
    """
    names = [spec.method for spec in specs]
    facts = [{**spec.strategy.arguments, **spec.continual.arguments, "precision": spec.precision} for spec in specs]
    defaults = [_defaults(spec) if names.count(spec.method) > 1 else {} for spec in specs]
    return distinguish(names, facts, defaults)


def _defaults(spec: RunSpec) -> dict[str, Any]:
    """Default hyperparameters of the classes of this package; others are not imported for the sake of a name."""
    found: dict[str, Any] = {"category_at_test": "known", "precision": "float32"}
    for kind, part in (("strategy", spec.strategy), ("continual", spec.continual)):
        if not part.source and part.name in entries(kind):
            found |= arguments(resolve(kind, part.name))
    return found


def distinguish(
    names: Sequence[str], facts: Sequence[Mapping[str, Any]], usual: Sequence[Mapping[str, Any]] | None = None
) -> list[str]:
    """Names made unique by the facts in which equal names differ, ``BTF (voxel=0.02)``; what is usual is not shown."""
    result = []
    for name, own, known in zip(names, facts, usual or [{}] * len(names)):
        twins = [other for other_name, other in zip(names, facts) if other_name == name]
        differing = [k for k in own if any(other.get(k) != own[k] for other in twins)
                     and not (k in known and _key(known[k]) == _key(own[k]))]  # fmt: skip
        shown = ", ".join(f"{k}={own[k]}" for k in differing)
        result.append(f"{name} ({shown})" if shown else name)
    return result


def _stream_options(run: FinishedRun) -> dict[str, Any]:
    spec = run.spec
    options = {k: v for k, v in spec.scenario.arguments.items() if k not in REPEATED}
    return {**options, **spec.dataset.arguments, "data": spec.fingerprint, "evaluate": spec.evaluate}


def _repetition(run: FinishedRun) -> dict[str, Any]:
    return {"seed": run.spec.seed, **{k: v for k, v in run.spec.scenario.arguments.items() if k in REPEATED}}


def _repetition_order(run: FinishedRun) -> tuple[Any, ...]:
    return tuple(str(v).zfill(6) for v in _repetition(run).values())


def repetition_key(run: FinishedRun) -> str:
    """Equal for runs of two methods that met the same chance: seed, order and draw."""
    return _key(_repetition(run))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
