"""The table of strategies: where each comes from, what it costs and what it reaches, from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.registry import entries
from toolkit.runs.show import mean_of, method_of, number

COLUMNS = ("strategy", "paper", "trained parameters", "state MB", "s / cloud", "object AUROC", "point AUROC", "seeds")


def strategies_markdown(results: Sequence[dict[str, Any]]) -> str:
    """One row per registered strategy, with the figures of its runs; dashes where none is given.

    Runs count that use a strategy's default arguments in the naive mode. AUROCs are means over the seeds of the stream
    with the most categories, the first of several, with the standard deviation. Seconds are those of the slowest run,
    of any stream, as others may have found their clouds prepared in the cache: a run with an empty one says what a
    cloud really takes.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        name = result["spec"]["strategy"]["name"]
        if name in entries("strategy") and method_of(result) == name and _is_default(result):
            runs.setdefault(name, []).append(result)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
    for name, entry in entries("strategy").items():
        strategy = entry.load()
        figures = _figures(strategy, runs[name]) if name in runs else ["-"] * 6
        lines.append("| " + " | ".join([name, strategy.paper, *figures]) + " |")
    return "\n".join(lines)


def _figures(strategy: Any, results: Sequence[dict[str, Any]]) -> list[str]:
    widest = max(results, key=lambda r: sum(map(len, r["categories"])))
    seeds = {r["spec"]["seed"]: r for r in reversed(results) if _stream(r) == _stream(widest)}
    chosen = [seeds[seed] for seed in sorted(seeds)]
    return [
        f"{widest['cost']['trainable_parameters']:,}" if strategy.learns_by_gradient() else "none",
        mean_of([r["cost"]["state_bytes"] / 1e6 for r in chosen], 1, spread=False),
        number(max(r["cost"]["score_seconds_per_cloud"] for r in results), 2),
        mean_of([r["final"]["object_auroc"] for r in chosen]),
        mean_of([r["final"]["point_auroc"] for r in chosen]),
        ", ".join(map(str, sorted(seeds))),
    ]


def _stream(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["spec"]["scenario"], result["spec"]["dataset"]["name"], result["spec"]["fingerprint"]


def _is_default(result: dict[str, Any]) -> bool:
    from toolkit.tuning.space import arguments

    part = result["spec"]["strategy"]
    defaults = arguments(entries("strategy")[part["name"]].load())
    plain = {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()}
    return all(part["arguments"].get(n) == v for n, v in plain.items())
