"""A report put on paper: HTML, Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.runs.files import write_text
from toolkit.runs.report_tables import StreamTables, versions
from toolkit.runs.tables import Table

if TYPE_CHECKING:
    from toolkit.runs.curve import Curve
    from toolkit.runs.report_figures import Picture
    from toolkit.runs.viewer import ScoredSample

FORMATS = {".html": "html", ".md": "markdown", ".tex": "latex", ".csv": "csv"}
"""Ending of a file -> format."""


@dataclass
class Section:
    """All that a report says of one stream.

    Attributes:
        made: its tables.
        notes: what a reader must know before trusting them.
        pictures, clouds: filled by `toolkit.runs.report.illustrate`.
    """

    made: StreamTables
    notes: list[str]
    pictures: list[Picture] = field(default_factory=list)
    clouds: list[ScoredSample] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Heading."""
        return self.made.stream.title


@dataclass
class CurveSection:
    """A curve over several streams (`toolkit.runs.curve`), its table, and its figures once they are drawn."""

    curve: Curve
    table: Table
    pictures: list[Picture] = field(default_factory=list)


def write(sections: Sequence[Section], path: Path, folder: Path, form: str,
          curves: Sequence[CurveSection] = ()) -> list[Path]:  # fmt: skip
    """Write a report and the numbers of its tables; returns what was written.

    Args:
        sections: of `toolkit.runs.report.make_sections`.
        path: of the report. With form "csv" it takes the results; differences go to ``<path>_differences.csv``.
        folder: beside it; takes ``results.csv`` and ``differences.csv`` for the other formats.
        form: html, markdown, latex or csv.
        curves: over several of the streams; with form "csv" their rows go to ``<path>_curves.csv``.

    Raises:
        OutputError: a file cannot be written.
    """
    results = [row for section in sections for row in section.made.numbers()]
    differing = [row for section in sections for row in section.made.difference_numbers()]
    points = [{"curve": c.table.title, **row} for c in curves for row in c.curve.frame.to_dict("records")]
    if form == "csv":
        places = [path, *(path.with_name(f"{path.stem}_{n}{path.suffix}") for n in ("differences", "curves"))]
    else:
        places = [folder / f"{name}.csv" for name in ("results", "differences", "curves")]
    pairs = [(place, as_csv(rows)) for place, rows in zip(places, (results, differing, points))]
    if form != "csv":
        page = {"html": page_html, "markdown": page_markdown, "latex": page_latex}[form]
        pairs.insert(0, (path, page(sections, folder, curves)))
    written = [(target, text) for target, text in pairs if text]
    for target, text in written:
        write_text(target, text)
    return [target for target, _ in written]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; nothing for none."""
    if not rows:
        return ""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def page_html(sections: Sequence[Section], folder: Path, curves: Sequence[CurveSection] = ()) -> str:
    """The page; `folder` is where its figures lie as files."""
    from toolkit.runs.viewer import document, viewer

    clouds = [cloud for section in sections for cloud in section.clouds]
    links = "".join(f'<a href="#s{i}">{html.escape(s.title)}</a>' for i, s in enumerate(sections))
    links += "".join(f'<a href="#c{i}">{html.escape(c.table.title)}</a>' for i, c in enumerate(curves))
    if clouds:
        links += '<a href="#clouds-to-turn">Clouds</a>'
    links += '<a href="#specs">Specs and versions</a>'
    parts = [f"<header><div><h1>continual3d report</h1><p class=\"soft\">{_counted(sections)}</p>"
             f"<nav>{links}</nav></div></header>\n<main>"]  # fmt: skip
    for i, section in enumerate(sections):
        parts.append(f'<h2 id="s{i}">{html.escape(section.title)}</h2>\n{_tasks_html(section)}')
        if section.notes:
            items = "".join(f"<li>{html.escape(note)}</li>" for note in section.notes)
            parts.append(f'<div class="notes"><ul>{items}</ul></div>')
        parts += [table.html() for table in section.made.tables()]
        parts.append('<div class="pictures">' + "\n".join(map(_picture_html, section.pictures)) + "</div>")
    for i, over in enumerate(curves):
        pictures = "\n".join(map(_picture_html, over.pictures))
        parts.append(f'<h2 id="c{i}">{html.escape(over.table.title)}</h2>\n{over.table.html()}'
                     f'<div class="pictures">{pictures}</div>')  # fmt: skip
    if clouds:
        parts.append(f'<h2 id="clouds-to-turn">Clouds</h2>\n{viewer(clouds)}')
    parts.append(f'<h2 id="specs">Specs and versions</h2>\n{_specs_html(sections)}')
    where = html.escape(folder.name)
    parts.append(
        f"<footer>Figures as PNG with their numbers as CSV: {where}/. No number here was typed by hand.</footer>"
    )
    parts.append("</main>")
    return document("continual3d report", "\n".join(parts), scripts=bool(clouds))


def page_markdown(sections: Sequence[Section], folder: Path, curves: Sequence[CurveSection] = ()) -> str:
    """Tables and references to the figures in `folder`."""
    parts = ["# continual3d report", _counted(sections)]
    for section in sections:
        parts += [f"## {section.title}", *(f"- {note}" for note in section.notes)]
        parts += [table.markdown() for table in section.made.tables()]
        parts += [_picture_markdown(picture, folder) for picture in section.pictures]
    for over in curves:
        parts += [f"## {over.table.title}", over.table.markdown()]
        parts += [_picture_markdown(picture, folder) for picture in over.pictures]
    parts += ["## Versions", _versions(sections).markdown()]
    return "\n\n".join(parts) + "\n"


def _picture_markdown(picture: Picture, folder: Path) -> str:
    place = picture.path.relative_to(folder.parent).as_posix()
    return f"![{picture.title}]({place})\n\n*{picture.title}.* {picture.caption}"


def page_latex(sections: Sequence[Section], folder: Path, curves: Sequence[CurveSection] = ()) -> str:
    """Tables for the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}; the rows are made by continual3d report"]
    for section in sections:
        parts += [f"% {section.title}", *(f"% {note}" for note in section.notes)]
        parts += [table.latex() for table in section.made.tables()]
    parts += [over.table.latex() for over in curves]
    return "\n\n".join(parts) + "\n"


def _counted(sections: Sequence[Section]) -> str:
    runs = sum(len(method.runs) for s in sections for method in s.made.stream.methods)
    methods = {method.name for s in sections for method in s.made.stream.methods}
    counts = [(runs, "run"), (len(methods), "method"), (len(sections), "stream")]
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _tasks_html(section: Section) -> str:
    result = section.made.stream.first.result
    final = section.made.stream.first.final_scores()
    tested = f"{int((final['y'] == 0).sum())} normal and {int((final['y'] == 1).sum())} defective test clouds"
    names = section.made.stream.tasks
    listed = "; ".join(f"{i + 1}. {name}" if not name.startswith("task ") else name for i, name in enumerate(names))
    orders = "" if list(names) == result["tasks"] else " (repetitions bring the categories in different orders)"
    given = {run.spec.strategy.arguments.get("category_at_test") for m in section.made.stream.methods for run in m.runs}
    classes = " The class of every test cloud is given." if given == {"known"} else ""
    return f'<p class="soft">{html.escape(tested)}. Tasks: {html.escape(listed)}{orders}.{classes}</p>'


def _picture_html(picture: Picture) -> str:
    kind = ' class="wide"' if picture.wide else ""
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    return (f'<figure{kind}><h3>{title}</h3><div class="scroll"><img src="{picture.source}" alt="{title}"></div>'
            f"<figcaption>{caption}</figcaption></figure>")  # fmt: skip


def _specs_html(sections: Sequence[Section]) -> str:
    import yaml

    parts = [_versions(sections).html()]
    for section in sections:
        for method in section.made.stream.methods:
            for run, repetition in zip(method.runs, method.repetitions):
                text = yaml.safe_dump(run.result["spec"], sort_keys=False)
                name = f"{section.title}: {method.name}, {repetition} ({run.folder})"
                parts.append(f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>")
    return "\n".join(parts)


def _versions(sections: Sequence[Section]) -> Table:
    return versions([run for s in sections for method in s.made.stream.methods for run in method.runs])
