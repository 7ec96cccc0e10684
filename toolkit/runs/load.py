"""Finished runs, read back: their tables, and the dataset and trained strategy rebuilt from ``spec.yaml``'s facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import CheckpointError, UnknownNameError
from toolkit.registry import resolve
from toolkit.runs.files import read_json
from toolkit.runs.spec import FORMAT, Part, RunSpec

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.cloud import AnomalyMap, PointCloud
    from toolkit.data.base import CloudDataset, Sample
    from toolkit.scenario import Scenario
    from toolkit.strategy import AnomalyStrategy


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run's folder and its ``result.json``.

    Attributes:
        folder: of the run.
        result: content of ``result.json``.
    """

    folder: Path
    result: dict[str, Any]

    @cached_property
    def spec(self) -> RunSpec:
        """What was run."""
        return RunSpec.from_dict(self.result["spec"])

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The scores table, one row per cloud and state of training (`toolkit.runs.ledger.COLUMNS`)."""
        return self._table("scores.parquet")

    @cached_property
    def points(self) -> pd.DataFrame:
        """The point metrics (`toolkit.runs.ledger.POINT_COLUMNS`)."""
        return self._table("point_metrics.parquet")

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Pairs of test clouds (`toolkit.runs.ledger.PAIR_COLUMNS`); empty for runs made before there were any."""
        if not (self.folder / "point_pairs.parquet").exists():
            import pandas as pd

            return pd.DataFrame(columns=["trained_on", "experience", "category"])
        return self._table("point_pairs.parquet")

    @property
    def independent(self) -> bool:
        """Whether each task was an experiment of its own."""
        return bool(self.result["independent_tasks"])

    def final_scores(self) -> pd.DataFrame:
        """The rows of the scores table after the last task; after its own task where tasks are independent."""
        state = self.scores["experience"] if self.independent else self.scores["trained_on"].max()
        return self.scores[self.scores["trained_on"] == state]

    def scenario(self) -> Scenario:
        """The scenario, built again."""
        return _build("scenario", self.spec.scenario)

    def dataset(self, root: str | None = None) -> CloudDataset:
        """The dataset, opened again.

        Args:
            root: its folder if it has moved since the run.

        Raises:
            DatasetLayoutError: it is not there.
        """
        part = self.spec.dataset
        moved = {"root": root} if root else {}
        return _build("dataset", Part(part.name, {**part.arguments, **moved}, part.source))

    def tested(self, dataset: CloudDataset) -> dict[str, Sample]:
        """The test samples by id, with what the scenario says of them (such as the domain of a scan)."""
        known: dict[int, dict[str, Sample]] = self.__dict__.setdefault("_tested", {})
        if id(dataset) not in known:
            known[id(dataset)] = {s.sample_id: s for task in self.scenario().tasks(dataset) for s in task.test}
        return known[id(dataset)]

    def same_data(self, dataset: CloudDataset) -> bool:
        """Whether a dataset is what the run was made with, as far as fingerprints tell."""
        return dataset.fingerprint() == self.spec.fingerprint

    def strategy(self) -> AnomalyStrategy:
        """The strategy with the state it had after the last task, on the CPU, ready to score.

        Raises:
            CheckpointError: the checkpoint is missing or cannot be read.
        """
        from toolkit.runs import checkpoint

        part = self.spec.strategy
        strategy = resolve("strategy", part.source or part.name)(**part.arguments, seed=self.spec.seed)
        position = checkpoint.latest(self.folder / "checkpoints")
        if position is None:
            raise CheckpointError(
                f"{self.folder}: no checkpoint (checkpoints/task_*.pt); it takes one to score clouds."
            )
        strategy.load_state(checkpoint.load_state(self.folder / "checkpoints", position)["state"])
        strategy.model.to(strategy.device).eval()
        return strategy

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        try:
            return pd.read_parquet(self.folder / name)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"Cannot read {self.folder / name}: {error}.") from error


def load_run(folder: str | Path) -> FinishedRun:
    """The finished run in a folder.

    Raises:
        UnknownNameError: there is none, or several lie below.
        CheckpointError: ``result.json`` is broken or of another format version.
    """
    runs = find_runs([folder])
    if len(runs) > 1:
        raise UnknownNameError(f"{folder}: {len(runs)} finished runs lie below; name one, e.g. {runs[0].folder}.")
    return runs[0]


def find_runs(folders: Sequence[str | Path]) -> list[FinishedRun]:
    """Every finished run at or below the folders, each once, in the order of their paths.

    Raises:
        UnknownNameError: a folder does not exist or holds no finished run.
        CheckpointError: a ``result.json`` is broken or of another format version.
    """
    found: dict[Path, FinishedRun] = {}
    for folder in folders:
        paths = sorted(Path(folder).rglob("result.json"))
        if not paths:
            raise UnknownNameError(f"{folder}: no finished run (result.json) in it or below it.")
        for path in paths:
            result = read_json(path)
            if not isinstance(result, dict) or result.get("format") != FORMAT:
                version = result.get("format") if isinstance(result, dict) else None
                raise CheckpointError(f"{path} has format {version}, this version reads format {FORMAT}.")
            found.setdefault(path.parent.resolve(), FinishedRun(path.parent, result))
    return list(found.values())


def score_sample(run: FinishedRun, strategy: AnomalyStrategy, dataset: CloudDataset,
                 sample: Sample) -> tuple[PointCloud, AnomalyMap]:  # fmt: skip
    """A test cloud as the run saw it, with its labels, and its scores under the strategy's present state."""
    from toolkit.stream import anonymous_id

    sample = run.tested(dataset).get(sample.sample_id, sample)
    cloud = run.scenario().transform(sample, dataset.load(sample))
    bare = cloud.unlabelled()
    bare.sample_id = bare.group_id = anonymous_id(sample)
    return cloud, score_cloud(strategy, bare)


def score_cloud(strategy: AnomalyStrategy, cloud: PointCloud) -> AnomalyMap:
    """Scores of an unlabelled cloud, with the class inferred where the run did so."""
    import torch

    from toolkit.identify import nearest_category
    from toolkit.seeding import seeded
    from toolkit.zorder import in_file_order, in_z_order

    if strategy.category_at_test == "inferred":
        cloud.category = cloud.subcategory = nearest_category(getattr(strategy, "prototypes_", {}), cloud)
    placed = in_z_order(cloud)  # as in a run
    with torch.no_grad(), seeded(strategy.seed, "score", cloud.sample_id):
        scored = strategy.score(placed).check(placed)
    return scored if placed is cloud else replace(scored, point=in_file_order(placed, scored.point))


def _build(kind: str, part: Part) -> Any:
    return resolve(kind, part.source or part.name)(**part.arguments)
