"""One table, four ways to write it down."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "−": "--",
    "▼": r"$\blacktriangledown$",
    "–": "--",
}

FOLDED = 40
"""More rows than this are folded away on a page."""


@dataclass(frozen=True)
class Table:
    """Cells of text under headings.

    Attributes:
        title: above the table.
        columns: headings. The first column is a name, the others are numbers, unless listed in `words`.
        rows: as many cells each as there are columns.
        note: below the table.
        words: further columns with words, which are set flush left.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: frozenset[str] = field(default_factory=frozenset)

    def _is_text(self, position: int) -> bool:
        return position == 0 or self.columns[position] in self.words

    def html(self) -> str:
        """A ``<figure>`` with a table that scrolls sideways where it must, and unfolds if it is long."""
        kinds = [' class="text"' if self._is_text(i) else "" for i in range(len(self.columns))]

        def line(cells: Sequence[str], tag: str) -> str:
            inside = "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells))
            return f"<tr>{inside}</tr>\n"

        body = "".join(line(row, "td") for row in self.rows)
        note = f"<figcaption>{html.escape(self.note)}</figcaption>" if self.note else ""
        head = line(self.columns, "th")
        table = f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'
        if len(self.rows) > FOLDED:
            table = f"<details><summary>{len(self.rows)} rows</summary>{table}</details>"
        return f'<figure class="table"><h3>{html.escape(self.title)}</h3>{table}{note}</figure>'

    def _repr_html_(self) -> str:
        return self.html()

    def rich(self) -> Any:
        """A `rich.table.Table` for the terminal."""
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, caption=self.note or None, title_justify="left", caption_justify="left")
        for i, name in enumerate(self.columns):
            table.add_column(name, justify="left" if self._is_text(i) else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """A pipe table under a heading of the third level."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        rule = "|" + "|".join("---" if self._is_text(i) else "---:" for i in range(len(self.columns))) + "|"
        parts = [f"### {self.title}", "\n".join([line(self.columns), rule, *map(line, self.rows)])]
        return "\n\n".join([*parts, self.note] if self.note else parts)

    def latex(self) -> str:
        """A ``table`` environment for the package booktabs."""
        kinds = "".join("l" if self._is_text(i) else "r" for i in range(len(self.columns)))
        lines = [" & ".join(map(latex, row)) + r" \\" for row in self.rows]
        caption = latex(f"{self.title}. {self.note}" if self.note else self.title)
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\begin{{tabular}}{{{kinds}}}",
                r"\toprule",
                " & ".join(map(latex, self.columns)) + r" \\",
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


def latex(text: str) -> str:
    """`text` with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """``0.646``, ``+0.020``, ``−0.003``; a dash for what does not exist. Never a zero with a sign."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    zero = f"{0:.{digits}f}"
    return zero if text.lstrip("+-") == zero else text.replace("-", "−")


def with_interval(value: float, low: float, high: float, digits: int = 3, signed: bool = False) -> str:
    """``0.646 [0.552, 0.744]``; without the brackets where there is no interval."""
    if math.isnan(value):
        return "–"
    shown = number(value, digits, signed)
    if math.isnan(low):
        return shown
    return f"{shown} [{number(low, digits, signed)}, {number(high, digits, signed)}]"


def p_value(value: float) -> str:
    """``0.031``, ``< 0.001``; a dash for none."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
