"""``continual3d report RUNS... -o report.html``: one page of tables with intervals, figures and clouds to turn.

The page stands alone: style, figures and plotly.js are in it. Beside it a folder of the same name takes every figure as
PNG with its numbers as CSV, and the tables' numbers. Markdown refers to those figures; LaTeX and CSV hold tables alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import Continual3DError, HyperparameterError
from toolkit.runs.curve import Curve, curve_table, curves_of, draw_curve
from toolkit.runs.groups import streams_of
from toolkit.runs.load import FinishedRun, find_runs
from toolkit.runs.report_page import FORMATS, CurveSection, Section, write
from toolkit.runs.report_tables import StreamTables, notes
from toolkit.runs.uncertainty import DRAWS

if TYPE_CHECKING:
    from toolkit.runs.report_figures import Picture


def command(argv: list[str]) -> int:
    """The command line of this file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="continual3d report", description=__doc__.partition("\n\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, or above runs")
    parser.add_argument("-o", "--output", default="report.html", help="file to write; a folder beside it takes figures")
    parser.add_argument("--format", choices=list(FORMATS.values()), help="by the ending of --output unless given")
    parser.add_argument("--draws", type=int, default=DRAWS, help="bootstrap resamples")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--clouds", type=int, default=4, help="test clouds to show of each stream; 0 = none")
    parser.add_argument("--root", help="folder of the dataset, if it has moved since the runs")
    options = parser.parse_args(argv)
    path = Path(options.output)
    form = options.format or FORMATS.get(path.suffix.lower())
    if form is None:
        raise HyperparameterError(f"--output {path}: give it the ending {', '.join(FORMATS)}, or name a --format.")
    if options.draws < 1:
        raise HyperparameterError(f"--draws {options.draws}: expected 1 or more.")
    runs = find_runs(options.runs)
    sections = make_sections(runs, options.draws, options.seed)
    over = [CurveSection(curve, curve_table(curve, options.draws, options.seed)) for curve in curves_of(runs)]
    folder = path.with_name(path.stem + "_files")
    if form in ("html", "markdown"):
        illustrate(sections, folder, options.clouds if form == "html" else 0, options.root)
        for section in over:
            section.pictures = draw_curves(section.curve, folder)
    for written in write(sections, path, folder, form, over):
        print(f"written: {written}")
    return 0


def make_sections(runs: Sequence[FinishedRun], draws: int = DRAWS, seed: int = 0) -> list[Section]:
    """Tables and notes of finished runs, one section per stream.

    Args:
        runs: from `toolkit.runs.load.find_runs`.
        draws: number of bootstrap resamples.
        seed: of the resampling.
    """
    return [Section(StreamTables(stream, draws, seed), notes(stream)) for stream in streams_of(runs)]


def illustrate(sections: Sequence[Section], folder: Path, clouds: int = 4, root: str | None = None) -> None:
    """Draw each section's figures into a folder, and score the clouds it shows.

    Args:
        sections: from `make_sections`; get `pictures` and `clouds`.
        folder: for PNG and CSV; with several sections one folder in it for each.
        clouds: test clouds to show of each stream; 0 = none.
        root: folder of the dataset, if it has moved.
    """
    from toolkit.runs.report_figures import draw_pictures, file_name

    for section in sections:
        place = folder if len(sections) == 1 else folder / file_name(section.title)
        section.pictures = draw_pictures(section.made, place)
        if clouds:
            show_clouds(section, place, clouds, root)


def draw_curves(curve: Curve, folder: Path) -> list[Picture]:
    """The figures of a curve, as PNG and CSV in the report's folder."""
    import matplotlib.pyplot as plt

    from toolkit.plots import save
    from toolkit.runs.report_figures import Picture, as_address, file_name

    pictures = []
    for figure in ("object_auroc", "point_auroc"):
        drawn = draw_curve(curve, figure)
        path = save(drawn, folder / f"curve_{curve.axis}_{file_name(curve.title)}_{figure}")
        label = figure.replace("_auroc", " AUROC")
        pictures.append(Picture(f"{label[0].upper()}{label[1:]}", "Mean over draws; bands: lowest to highest draw.",
                                path, as_address(drawn), wide=True))  # fmt: skip
        plt.close(drawn)
    return pictures


def show_clouds(section: Section, folder: Path, most: int, root: str | None = None) -> None:
    """Score a few test clouds with the first run of each method. Where that cannot be done, a note says why."""
    from toolkit.plots import clouds, save
    from toolkit.runs.report_figures import file_name
    from toolkit.runs.viewer import choose_samples, score_samples

    for method in section.made.stream.methods:
        run = method.runs[0]
        try:
            dataset, strategy = run.dataset(root), run.strategy()
            if not run.same_data(dataset):
                section.notes.append(
                    f"Clouds of {method.name} are not shown: the dataset is not what the run was made with."
                )
                continue
            found = score_samples(
                run, strategy, dataset, choose_samples(run, dataset, most), method.name, section.title
            )
        except Continual3DError as error:
            section.notes.append(f"Clouds of {method.name} are not shown: {error}")
            continue
        drawn = clouds([one.full for one in found], shared_limits=False, title=method.name)
        save(drawn[0, 0].get_figure(root=True), folder / f"clouds_{file_name(method.name)}", close=True)
        section.clouds += found
