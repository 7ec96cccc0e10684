"""The figures that every run leaves in ``figures/``: R matrices, curves over tasks, and coloured clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.data.base import CloudDataset
from toolkit.runs import checkpoint
from toolkit.runs.files import read_json
from toolkit.runs.load import load_run, score_sample
from toolkit.runs.show import matrix, method_of, shorten
from toolkit.strategy import AnomalyStrategy


def draw_figures(folder: Path, dataset: CloudDataset, strategy: AnomalyStrategy, most_clouds: int = 4) -> None:
    """Draw a finished run. Figures that exist are kept.

    Args:
        folder: of the run.
        dataset: its dataset.
        strategy: built as for the run; gets the run's final state.
        most_clouds: how many test clouds to show; one defective cloud per task, spread over the tasks.
    """
    from toolkit.plots.auroc_over_tasks import auroc_over_tasks
    from toolkit.plots.clouds import clouds
    from toolkit.plots.forgetting_lines import forgetting_lines
    from toolkit.plots.frames import matrices_frame
    from toolkit.plots.r_matrix import r_matrix
    from toolkit.plots.style import save

    figures = folder / "figures"
    if (figures / "clouds.png").exists():
        return
    result = read_json(folder / "result.json")
    tasks = [shorten(name) for name in result["tasks"]]
    method = method_of(result)
    for kind in ("object_auroc", "point_auroc"):
        label = kind.replace("_auroc", " AUROC")
        save(r_matrix(matrix(result, kind), tasks, title=method, label=label), figures / f"r_{kind}", close=True)
    frame = matrices_frame({method: [matrix(result)]})
    save(auroc_over_tasks(frame, title="mean object AUROC of the tasks seen"), figures / "auroc_over_tasks", close=True)
    if (frame["trained_on"] >= 0).any() and len(tasks) > 1:
        save(forgetting_lines(frame, tasks=tasks, title=method), figures / "forgetting", close=True)
    scored = final_maps(folder, dataset, strategy, most_clouds)
    save(clouds(scored, shared_limits=False, title=method)[0, 0].figure, figures / "clouds", close=True)


def final_maps(folder: Path, dataset: CloudDataset, strategy: AnomalyStrategy, most: int) -> list[Any]:
    """Test clouds with the point scores of the run's final state, as the clouds figure wants them."""
    import pandas as pd

    from toolkit.plots.clouds import ScoredCloud

    position = checkpoint.latest(folder / "checkpoints")
    assert position is not None
    strategy.load_state(checkpoint.load_state(folder / "checkpoints", position)["state"])
    strategy.model.to(strategy.device).eval()
    scores = pd.read_parquet(folder / "scores.parquet")
    last = scores[(scores["trained_on"] == position) & (scores["y"] == 1)]
    groups = [group["sample_id"].tolist() for _, group in last.groupby("experience", sort=True)]
    firsts = [names[(3 * i) % len(names)] for i, names in enumerate(groups)]  # not the same defect type each time
    chosen = firsts[:: max(1, -(-len(firsts) // most))]
    run = load_run(folder)
    shown = []
    for name in chosen:
        cloud, scored = score_sample(run, strategy, dataset, run.tested(dataset)[name])
        shown.append(ScoredCloud(cloud.pos, scored.point, cloud.point_y, title=f"{cloud.category}: {cloud.defect}"))
    return shown
