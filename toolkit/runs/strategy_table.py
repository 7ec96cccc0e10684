"""The table of strategies: where each comes from, what it costs and what it reaches, from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.registry import entries
from toolkit.runs.show import method_of, number

COLUMNS = ("strategy", "paper", "trained parameters", "state MB", "s / cloud", "object AUROC", "point AUROC")


def strategies_markdown(results: Sequence[dict[str, Any]]) -> str:
    """One row per registered strategy, with the figures of its run; dashes where none is given.

    Of several runs of one strategy the first counts that uses its default arguments in the naive mode.
    """
    runs: dict[str, dict[str, Any]] = {}
    for result in results:
        name = result["spec"]["strategy"]["name"]
        if name in entries("strategy") and method_of(result) == name and _is_default(result):
            runs.setdefault(name, result)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
    for name, entry in entries("strategy").items():
        cells = [name, entry.load().paper, *(_figures(entry.load(), runs[name]) if name in runs else ["-"] * 5)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figures(strategy: Any, result: dict[str, Any]) -> list[str]:
    cost, final = result["cost"], result["final"]
    return [
        f"{cost['trainable_parameters']:,}" if strategy.learns_by_gradient() else "none",
        number(cost["state_bytes"] / 1e6, 1),
        number(cost["score_seconds_per_cloud"], 2),
        number(final["object_auroc"]),
        number(final["point_auroc"]),
    ]


def _is_default(result: dict[str, Any]) -> bool:
    from toolkit.tuning.space import arguments

    part = result["spec"]["strategy"]
    defaults = arguments(entries("strategy")[part["name"]].load())
    plain = {n: list(v) if isinstance(v, tuple) else v for n, v in defaults.items()}
    return all(part["arguments"].get(n) == v for n, v in plain.items())
