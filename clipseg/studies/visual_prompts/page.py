"""The page of a study of visual prompts: table, chart, and what each variant makes of a few objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from clipseg.measure.figures import delta_bars, tile_jpeg
from clipseg.measure.page import page_title, single_values, write_page
from clipseg.measure.significance import NotTestable
from clipseg.studies.visual_prompts.numbers import COLUMNS, PromptDeltas, table_cells


@dataclass(frozen=True)
class Picture:
    """A picture shown to CLIP, RGB uint8 `[H, W, 3]`, and the variants that show this (attention masks share one picture)."""

    variants: tuple[str, ...]
    pixels: np.ndarray


@dataclass(frozen=True)
class Sheet:
    """One object by its key, the names it is told from, and its pictures."""

    key: str
    names: tuple[str, ...]
    pictures: Sequence[Picture]


def write_prompt_report(folder: Path, results: PromptDeltas, *, sheets: Sequence[Sheet]) -> Path:
    """Write `report.html` into `folder`: numbers from the results alone, pictures as given."""
    effects = results.effects()
    ends = [
        (effect.delta, effect.delta) if isinstance(effect.test, NotTestable) else (effect.test.low, effect.test.high)
        for effect in effects
    ]
    chart = delta_bars(
        [effect.variant for effect in effects], [effect.delta for effect in effects], ends, [effect.paper for effect in effects]
    )
    path = folder / "report.html"
    write_page(
        path,
        "studies/visual_prompts/page.html.j2",
        title=page_title(results.provenance),
        results=results,
        images=len(np.unique(results.image_key)),
        original=float(results.original.mean()),
        chart=Markup(chart),
        columns=COLUMNS,
        rows=table_cells(results),
        sheets=[_filled(sheet, results) for sheet in sheets],
        facts=single_values(results.provenance),
    )
    return path


def _filled(sheet: Sheet, results: PromptDeltas) -> dict[str, object]:
    """A sheet with its probabilities, as the page shows it."""
    row = results.key.tolist().index(sheet.key)
    tiles = []
    for picture in sheet.pictures:
        labels = [f"{variant}: {_change(results, row, variant)}" for variant in picture.variants]
        tiles.append({"jpeg": tile_jpeg(picture.pixels), "variants": picture.variants, "labels": labels})
    return {"key": sheet.key, "name": str(results.name[row]), "names": sheet.names, "tiles": tiles}


def _change(results: PromptDeltas, row: int, variant: str) -> str:
    if variant not in results.variants:
        return f"{100 * results.original[row]:.1f}%"
    return f"{results.deltas[row, results.variants.index(variant)]:+.1f}"
