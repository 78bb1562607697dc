"""Pictures of the paper in miniature: SVG files for a Markdown page, with a white ground and dark ink of their own."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipseg.paper.directions import Panel, Row, Section

Curve = tuple[Sequence[int], Sequence[float]]  # steps, and a figure after them

ABREAST = 3  # panels of learning curves
_BLUE, _ORANGE, _INK = "#0072B2", "#E69F00", "#1f2328"


def bars(section: Section) -> str:
    """A chart a panel: our means as bars with a dot a seed, the paper's values as diamonds."""
    columns = 3 if len(section.panels) == 3 else min(len(section.panels), 2)
    rows = len(section.panels) // columns
    longest = max(len(panel.rows) for panel in section.panels)
    with matplotlib.rc_context(_style(section.name)):
        figure = Figure(figsize=(10, 0.9 + rows * (0.6 + 0.34 * longest)), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, panel in zip(grid.flat, section.panels, strict=True):
            _draw_panel(axes, panel)
        handles = {handle.get_label(): handle for axes in grid.flat for handle in axes.get_legend_handles_labels()[0]}
        figure.legend(
            handles=[handles[name] for name in ("ours", "ours, a seed each", "paper") if name in handles],
            loc="outside upper center",
            ncols=3,
        )
        return _svg(figure)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    # A figure that is compared twice is drawn once.
    rows = [row for place, row in enumerate(panel.rows) if not row.ours or row.ours not in [r.ours for r in panel.rows[:place]]]
    for place, row in enumerate(rows):
        if row.ours:
            axes.barh(place, np.mean(row.ours), color=_BLUE, alpha=0.75, label="ours")
        if len(row.ours) > 1:
            axes.plot(row.ours, [place] * len(row.ours), color=_INK, marker=".", linestyle="", label="ours, a seed each")
        if row.paper is not None:
            axes.plot(row.paper, place, color=_ORANGE, marker="D", markeredgecolor=_INK, linestyle="", label="paper")
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set(yticks=range(len(rows)), yticklabels=map(_plain, rows), ylim=(len(rows) - 0.4, -0.6))
    axes.set_title(panel.title, loc="left", fontsize=11)


def _plain(row: Row) -> str:
    return row.label.replace("`", "")


def heat(section: Section) -> str:
    """The differences of all compared rows, ours beside the paper's, coloured from orange (less) over white to blue (more)."""
    compared = [[row for row in panel.rows if row.difference is not None] for panel in section.panels]
    labels = [_plain(row) for row in max(compared, key=len, default=[])]
    columns = [
        (f"{panel.title}\n{who}", {_plain(row): value for row, value in zip(rows, _differences(rows, who), strict=True)})
        for panel, rows in zip(section.panels, compared, strict=True)
        for who in ("ours", "paper")
    ]
    table = np.array([[_number(values.get(label)) for _, values in columns] for label in labels], dtype=np.float64)
    table = table.reshape(len(labels), len(columns))
    limit = float(np.nanmax(np.abs(table), initial=1.0))
    with matplotlib.rc_context(_style(f"{section.name} heat") | {"axes.grid": False}):
        figure = Figure(figsize=(10, 1.6 + 0.36 * len(labels)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(np.ma.masked_invalid(table), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
        for (place, column), value in np.ndenumerate(table):
            text = "–" if np.isnan(value) else f"{value:+.1f}"
            dark = abs(value) > 0.6 * limit
            axes.text(column, place, text, ha="center", va="center", color="white" if dark else _INK)
        names = [name.replace(", ", ",\n", 1).replace(" at the best threshold", "") for name, _ in columns]
        axes.set(yticks=range(len(labels)), yticklabels=labels, xticks=range(len(columns)), xticklabels=names)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=9)
        for between in range(2, len(columns), 2):
            axes.axvline(between - 0.5, color="white", linewidth=4)
        return _svg(figure)


def _differences(rows: Sequence[Row], who: str) -> list[float | None]:
    return [row.difference if who == "ours" else row.paper_difference for row in rows]


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def lines(curves: Mapping[str, Sequence[Curve]]) -> str:
    """A figure over steps: a panel for each name of what was trained, a line a seed, those of the first grey in all others."""
    height = math.ceil(len(curves) / ABREAST)
    with matplotlib.rc_context(_style("curves") | {"axes.grid.axis": "both"}):
        figure = Figure(figsize=(10, 0.6 + 2 * height), layout="constrained")
        panels = figure.subplots(height, ABREAST, sharex=True, sharey=True, squeeze=False).flatten()
        first = next(iter(curves.values()))
        for axes, (name, seeds) in zip(panels, curves.items(), strict=False):
            for steps, values in first:
                axes.plot(steps, values, color="0.75")
            for steps, values in seeds:
                axes.plot(steps, values, color=_BLUE, marker=".")
            axes.set_title(name, loc="left", fontsize=11)
        for axes in panels[len(curves) :]:
            axes.set_axis_off()
        figure.supxlabel("steps")
        figure.supylabel("mIoU on the validation split, best threshold")
        return _svg(figure)


def _style(salt: str) -> dict[Any, Any]:
    """Ids that depend on `salt` alone, so that the same numbers give the same bytes."""
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",  # letters as text: their outlines would be nine tenths of the file
        "font.size": 10,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
    } | dict.fromkeys(inked, _INK)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", facecolor="white", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()
