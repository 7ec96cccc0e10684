"""The table of strategies: where each comes from, what it costs and what it reaches, from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.registry import entries
from toolkit.runs.show import mean_of, method_of

COLUMNS = ("strategy", "paper", "trained parameters", "state MB", "s / cloud", "object AUROC", "point AUROC", "seeds")


def strategies_markdown(results: Sequence[dict[str, Any]]) -> str:
    """One row per registered strategy, with the figures of its runs; dashes where none is given.

    Runs count that use a strategy's default arguments in the naive mode, one per seed; of several seeds a row has the
    mean and the standard deviation.
    """
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for result in results:
        name = result["spec"]["strategy"]["name"]
        if name in entries("strategy") and method_of(result) == name and _is_default(result):
            runs.setdefault(name, {}).setdefault(result["spec"]["seed"], result)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
    for name, entry in entries("strategy").items():
        strategy = entry.load()
        figures = _figures(strategy, [runs[name][seed] for seed in sorted(runs[name])]) if name in runs else ["-"] * 6
        lines.append("| " + " | ".join([name, strategy.paper, *figures]) + " |")
    return "\n".join(lines)


def _figures(strategy: Any, results: Sequence[dict[str, Any]]) -> list[str]:
    cost = [result["cost"] for result in results]
    return [
        f"{cost[0]['trainable_parameters']:,}" if strategy.learns_by_gradient() else "none",
        mean_of([c["state_bytes"] / 1e6 for c in cost], 1, spread=False),
        mean_of([c["score_seconds_per_cloud"] for c in cost], 2, spread=False),
        mean_of([result["final"]["object_auroc"] for result in results]),
        mean_of([result["final"]["point_auroc"] for result in results]),
        ", ".join(str(result["spec"]["seed"]) for result in results),
    ]


def _is_default(result: dict[str, Any]) -> bool:
    from toolkit.tuning.space import arguments

    part = result["spec"]["strategy"]
    defaults = arguments(entries("strategy")[part["name"]].load())
    plain = {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()}
    return all(part["arguments"].get(n) == v for n, v in plain.items())
