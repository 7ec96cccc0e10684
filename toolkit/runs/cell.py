"""One run as plain data: the name of a scenario and what a ``--config`` file would hold. Grids and sweeps run cells."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from toolkit.registry import resolve

NOT_THE_RUN = ("config", "output", "figures", "logger", "dry_run", "orders", "draws", "curve", "cache", "threads",
                "device", "preset")  # fmt: skip
"""Options that change where and how a run is made, not what it is."""


@dataclass(frozen=True)
class Built:
    """A cell's checked options and the objects that follow from them.

    Attributes:
        scenario, dataset: ready to use.
        classes, arguments: class and keyword arguments of dataset, strategy and continual mode.
        options: all options of ``continual3d run``, with defaults.
    """

    scenario: Any
    dataset: Any
    classes: dict[str, Any]
    arguments: dict[str, dict[str, Any]]
    options: Any


def parse(name: str, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Classes and complete options of a cell, defaults filled in, as plain values.

    Raises:
        Continual3DError: something named does not exist, or an option is wrong.
    """
    from toolkit.cli import parse_run

    classes, options = parse_run(name, config=config)
    return classes, plain_options(classes, options)


def plain_options(classes: dict[str, Any], options: Any) -> dict[str, Any]:
    """Parsed options as the nested plain values of a ``--config`` file; registered names as the registry has them."""
    plain = {k: v for k, v in options.as_dict().items() if k != "config"}
    for kind, cls in classes.items():
        if ":" not in plain[kind]["name"]:
            plain[kind]["name"] = cls.__name__
    return plain


def build(name: str, config: dict[str, Any]) -> Built:
    """Parse a cell and build its scenario and dataset.

    Args:
        name: of the scenario.
        config: options of ``continual3d run``.

    Raises:
        Continual3DError: whatever is wrong with them.
    """
    from toolkit.cli import DEFAULTS, parse_run

    classes, options = parse_run(name, config=config)
    scenario_class = resolve("scenario", name)
    scenario = scenario_class(**{f.name: options[f.name] for f in dataclasses.fields(scenario_class)})
    arguments = {kind: {k: v for k, v in options[kind].as_dict().items() if k != "name"} for kind in DEFAULTS}
    return Built(scenario, classes["dataset"](**arguments["dataset"]), classes, arguments, options)


def key_of_cell(name: str, options: dict[str, Any], fingerprint: str) -> str:
    """Twelve hex digits; equal for cells that give equal scores on equal threads."""
    kept = {k: v for k, v in options.items() if k not in NOT_THE_RUN}
    kept["dataset"] = {k: v for k, v in kept["dataset"].items() if k != "root"}
    text = json.dumps([resolve("scenario", name).__name__, kept, fingerprint], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_cell(payload: dict[str, Any]) -> str:
    """Run a cell to its end, or find it finished; returns its folder. The job that executors are given.

    Args:
        payload: ``scenario`` (a name) and ``config`` (options of ``continual3d run``).
    """
    from toolkit.runs import session

    session.quieten()
    built = build(payload["scenario"], payload["config"])
    options = built.options
    device, threads = session.choose_device(options.device), session.set_threads(options.threads)
    store = session.open_store(options.cache)
    folder = session.run_one(built.scenario, built.dataset, built.classes, built.arguments, options, device, threads,
                             store)  # fmt: skip
    return str(folder)
