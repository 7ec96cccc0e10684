"""The scores of many runs as one table, read with one query.

A run's scores are written in shards, a file per state of training (``rows/``), and merged when it is finished. Runs are
shards again: what a query does not ask for is not read, neither columns nor the files of other runs, so a question to
a thousand runs needs the memory of its answer.

    >>> from pyarrow.dataset import field
    >>> scores(["runs"], ["method", "category", "y", "object_score"], field("seed") == 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UnknownNameError
from toolkit.runs.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"objects": "scores.parquet", "points": "point_metrics.parquet"}
"""Which scores, and the file of a finished run that has them."""


def scores(folders: Sequence[str | Path], columns: Sequence[str] | None = None, where: Any = None, *,
           kind: str = "objects") -> pd.DataFrame:  # fmt: skip
    """Rows of the scores tables of all runs at or below the folders, those that still run included.

    Args:
        folders: of runs, or above them.
        columns: of the result; those of the file, and ``run`` (hash), ``scenario``, ``dataset``, ``method`` and
            ``seed``. All by default.
        where: a pyarrow expression that rows must fulfil.
        kind: "objects" for the scores of clouds (`toolkit.runs.ledger.COLUMNS`), "points" for point metrics.

    Raises:
        UnknownNameError: there is no run with scores, or no such column.
    """
    table = dataset(folders, kind)
    unknown = sorted(set(columns or ()) - set(table.schema.names))
    if unknown:
        raise UnknownNameError(f"no column {', '.join(unknown)}; there are {', '.join(table.schema.names)}.")
    return table.to_table(columns=list(columns) if columns else None, filter=where).to_pandas()


def dataset(folders: Sequence[str | Path], kind: str = "objects") -> Any:
    """The same as a ``pyarrow.dataset.Dataset`` that nothing has been read of yet, for answers larger than memory.

    Raises:
        UnknownNameError: there is no run with scores.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    form, fragments, facts = ds.ParquetFileFormat(), [], {}
    schemas = []
    for folder in sorted({p.parent for top in folders for p in Path(top).rglob("spec.yaml")}):
        paths = _shards(folder, kind)
        if not paths:
            continue
        facts = _facts(folder)
        here = None
        for name, value in facts.items():
            here = (ds.field(name) == value) if here is None else here & (ds.field(name) == value)
        schemas.append(pq.read_schema(paths[0]))
        local = pa.fs.LocalFileSystem()
        fragments += [form.make_fragment(str(p), local, partition_expression=here) for p in paths]
    if not fragments:
        raise UnknownNameError(f"{', '.join(map(str, folders))}: no run with scores there or below.")
    own = pa.schema([(name, pa.int64() if isinstance(value, int) else pa.string()) for name, value in facts.items()])
    schema = pa.unify_schemas([*schemas, own], promote_options="permissive").remove_metadata()
    return ds.FileSystemDataset(fragments, schema, form)


def _shards(folder: Path, kind: str) -> list[Path]:
    """The merged file of a finished run, or the pieces of one that still runs, in the order of training."""
    merged = folder / KINDS[kind]
    if merged.exists():
        return [merged]
    return sorted((folder / "rows").glob(f"{kind}_*.parquet"), key=lambda p: int(p.stem.split("_")[1]))


def _facts(folder: Path) -> dict[str, str | int]:
    import yaml

    spec = RunSpec.from_dict(yaml.load((folder / "spec.yaml").read_text(encoding="utf-8"), _loader()))
    return {"run": spec.hash, "scenario": spec.scenario.name, "dataset": spec.dataset.name, "method": spec.method,
            "seed": spec.seed}  # fmt: skip


def _loader() -> Any:
    """PyYAML's parser in C where it was built with one: ten times as fast."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
