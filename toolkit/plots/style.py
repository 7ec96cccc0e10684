"""Colours, sizes and saving, shared by all figures.

Figures are made to be read in print and by colour-blind readers: the palette is that of Okabe & Ito ("Color universal
design", 2008), each series also has its own marker and dash pattern, and colour maps grow steadily in lightness.
Settings hold inside `context` only, so plotting never changes how a user's own figures look.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.errors import OutputError
from toolkit.metrics import MetricInputError

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (7, 2)), "--", ":")

NORMAL = "#0072B2"
DEFECTIVE = "#D55E00"
SCORE_MAP = "cividis"

_drawn: WeakKeyDictionary[Axes, pd.DataFrame] = WeakKeyDictionary()


@contextmanager
def context() -> Iterator[None]:
    """Figure settings for the duration of a ``with`` block."""
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper"),
        "axes.grid": True,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.5,
        "figure.dpi": 110,
        "savefig.dpi": 200,
        "font.family": "sans-serif",
        "axes.prop_cycle": cycler(color=PALETTE),
    }
    plt.draw_if_interactive()  # loads the backend, which loaded inside would lose the interactive mode of notebooks
    with matplotlib.rc_context(settings):
        yield


def new_axes(ax: Axes | None, width: float = 5.0, height: float = 3.4) -> Axes:
    """`ax`, or the axes of a new figure of that size in inches."""
    if ax is not None:
        return ax
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def looks(names: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Colour, marker and dashes of each series, the same in every figure that gets the same names in the same order."""
    return {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "marker": MARKERS[(i + i // len(PALETTE)) % len(MARKERS)],
            "linestyle": DASHES[(i + i // len(PALETTE)) % len(DASHES)],
        }
        for i, name in enumerate(names)
    }


def wrapped(name: Any, width: int = 24) -> str:
    """A name in lines of at most so many letters, for legends and labels."""
    return "\n".join(textwrap.wrap(str(name), width, break_long_words=False)) or str(name)


def in_order(column: pd.Series) -> list:
    """Distinct values in order of appearance: legends follow the table."""
    return list(pd.unique(column))


def require(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table itself, if it is one and has rows and the columns.

    Raises:
        MetricInputError: it has not.
    """
    missing = [name for name in columns if name not in getattr(frame, "columns", ())]
    if missing or not len(frame):
        raise MetricInputError(
            f"figure: expected a table with rows and the columns {', '.join(columns)}; "
            + (f"{', '.join(missing)} missing." if missing else "it is empty.")
        )
    return frame


def whole_ticks(ax: Axes, values: Sequence[int], before: bool = True) -> None:
    """Ticks of the axis that counts trained tasks: 1, 2, ..., and "before" for state -1."""
    states = sorted({int(v) for v in values})
    step = max(1, len(states) // 10)
    states = [s for i, s in enumerate(states) if i % step == 0]
    ax.set_xticks(states, ["before" if s < 0 and before else str(s + 1) for s in states])


def slant_labels(ax: Axes, degrees: float = 35) -> None:
    """Turns the labels of the x axis, each ending at its tick, for names too long to stand side by side."""
    for label in ax.get_xticklabels():
        label.set(rotation=degrees, ha="right", rotation_mode="anchor")


def remember(ax: Axes, frame: pd.DataFrame) -> Axes:
    """Keeps the numbers a figure shows with its axes, for `save` and `data_of`; returns the axes."""
    _drawn[ax] = frame.reset_index(drop=True)
    return ax


def data_of(figure: Axes | Figure) -> pd.DataFrame:
    """The numbers a figure of this package shows; with several axes they are stacked, told apart by `panel`."""
    axes = [figure] if isinstance(figure, Axes) else figure.axes
    frames = [_drawn[ax] for ax in axes if ax in _drawn]
    if len(frames) > 1:
        frames = [frame.assign(panel=i) for i, frame in enumerate(frames)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def save(figure: Axes | Figure, path: str | Path, close: bool = False) -> Path:
    """Writes ``<path>.png`` and, beside it, ``<path>.csv`` with the numbers shown.

    Args:
        figure: what a function of this package returned, or its figure.
        path: with or without the ending ".png"; the folder is made.
        close: frees the figure afterwards. Do so when making many.

    Returns:
        The path of the picture.

    Raises:
        OutputError: the files cannot be written.
    """
    whole = figure if isinstance(figure, Figure) else figure.get_figure(root=True)
    if whole is None:
        raise OutputError(f"cannot write {path}: these axes no longer belong to a figure.")
    png = Path(path)
    png = png if png.suffix == ".png" else png.with_name(png.name + ".png")
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        with context():
            whole.savefig(png)
        frame = data_of(whole)
        if len(frame):
            frame.to_csv(png.with_suffix(".csv"), index=False)
    except OSError as error:
        raise OutputError(f"cannot write the figure {png}: {error.strerror or error}") from error
    if close:
        plt.close(whole)
    return png
