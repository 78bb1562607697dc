"""The page of the grid of prompts: heat maps, the curve over the text's weight, and the command that uses the winner."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from clipseg.measure.figures import over_text_weight
from clipseg.measure.page import page_title, write_page
from clipseg.measure.report import provenance_parts
from clipseg.measure.significance import Interval, NotTestable, cluster_bootstrap
from clipseg.measure.tables import monospaced
from clipseg.studies.laboratory.grid_numbers import Compared, GridResults

COLUMNS = ("text weight", "template", "picture", "mIoU", "AP", "Δ to best", "95% interval", "p, Holm", "p, B.-H.")


@dataclass(frozen=True)
class Tile:
    """One field of a heat map: its text, its height between the least, 0, and the largest, 1, and what is to be said of it."""

    text: str
    height: float
    is_best: bool
    is_told_apart: bool


def finish(folder: Path, results: GridResults, *, seed: int) -> None:
    """Save the results, write `report.html` and print the best cells."""
    results.save(folder)
    compared = results.compared()
    weights, templates, variants = results.axes()
    rows = [(template, variant) for template in templates for variant in variants]
    places = [[results.at(weight, *row) for weight in weights] for row in rows]
    template, variant, curve = results.curve()
    intervals = [cluster_bootstrap(100 * results.iou[:, place], results.image_key, seed=seed) for place in curve]
    means = [compared[place].miou for place in curve]
    ends = [
        (each.low, each.high) if isinstance(each, Interval) else (mean, mean)
        for each, mean in zip(intervals, means, strict=True)
    ]
    facts, details = provenance_parts(results.provenance)
    gain, interval = results.gain(seed=seed)
    ranked = sorted(compared, key=lambda each: -each.miou)
    write_page(
        folder / "report.html",
        "studies/laboratory/grid_page.html.j2",
        title=page_title(results.provenance),
        results=results,
        images=len(np.unique(results.image_key)),
        weights=weights,
        rows=rows,
        maps={name: _tiles(compared, places, name, results.best) for name in ("miou", "ap")},
        best=compared[results.best],
        alike=[each for each in ranked if not each.is_told_apart and each.cell != results.cells[results.best]],
        curve=Markup(over_text_weight(weights, means, ends)),
        curve_of=f"{template}, {variant}",
        gain=gain,
        gain_interval="" if isinstance(interval, NotTestable) else f"[{interval.low:+.2f}, {interval.high:+.2f}]",
        command=results.command(),
        columns=COLUMNS,
        table=[_cells(each) for each in ranked],
        facts=facts,
        details=details,
    )
    print(format_grid(results, ranked))


def _tiles(compared: Sequence[Compared], places: Sequence[Sequence[int]], name: str, best: int) -> list[list[Tile]]:
    values = np.array([getattr(each, name) for each in compared])
    heights = (values - values.min()) / max(np.ptp(values), 1e-9)
    return [
        [Tile(f"{values[place]:.1f}", float(heights[place]), place == best, compared[place].is_told_apart) for place in line]
        for line in places
    ]


def _cells(each: Compared) -> tuple[str, ...]:
    test = each.test
    tested = ("", "", "")
    if not isinstance(test, NotTestable):
        tested = (f"[{test.low:.2f}, {test.high:.2f}]", f"{each.p_holm:.2g}", f"{each.p_rate:.2g}")
    cell = each.cell
    named = (f"{cell.weight:g}", cell.template or "–", cell.variant or "–")
    return (*named, f"{each.miou:.1f}", f"{each.ap:.1f}", f"{each.difference:+.2f}", *tested)


def format_grid(results: GridResults, ranked: Sequence[Compared]) -> str:
    """Return a plain monospaced table of the ten best cells, and the command of the first."""
    alike = sum(not each.is_told_apart for each in ranked) - 1
    return "\n".join(
        [
            monospaced([COLUMNS, *map(_cells, ranked[:10])]),
            f"{len(results)} samples, {len(results.cells)} cells, {results.seconds:.1f} s; {alike} not told from the best",
            results.command(),
        ]
    )
