"""One page to look at: `report.html`, self-contained, made from a results folder and the pictures of a few samples.

Opens offline, without JavaScript, on a phone and on a screen. Phrases and keys are other people's text and are escaped.
"""

import base64
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from clipseg.files import atomic_write
from clipseg.measure.figures import iou_over_threshold, precision_over_recall
from clipseg.measure.metrics import curves, sample_iou
from clipseg.measure.paper import paper_values
from clipseg.measure.results import Results
from clipseg.measure.tables import table_rows


@dataclass(frozen=True)
class GalleryItem:
    """One sample's picture: its key and phrase, its IoU (fraction), and the JPEG strip of `figures.panel`."""

    key: str
    phrase: str
    iou: float
    jpeg: bytes


def pick_gallery(results: Results, n: int, seed: int) -> dict[str, list[str]]:
    """Which samples to show.

    Args:
        results: of the evaluation.
        n: samples a gallery, fewer where there are not as many.
        seed: of the random gallery.

    Returns:
        `best`, `worst` (plain IoU at the results' threshold, the extreme first, ties in the order of keys) and `random`, as
        lists of keys. Samples with an empty truth have nothing to show and only occur in `random`.
    """
    iou = sample_iou(results.counts, results.threshold)
    with_truth = np.flatnonzero(results.counts.positives > 0)
    rising = with_truth[np.argsort(iou[with_truth], kind="stable")]
    falling = with_truth[np.argsort(-iou[with_truth], kind="stable")]
    drawn = np.random.default_rng(seed).permutation(len(results))
    return {name: results.key[rows[:n]].tolist() for name, rows in (("best", falling), ("worst", rising), ("random", drawn))}


def write_report(folder: str | Path, results: Results, *, gallery: Mapping[str, Sequence[GalleryItem]]) -> Path:
    """Write `report.html` into `folder`.

    Args:
        folder: the results folder.
        results: all numbers and the provenance; the paper's values are looked up by its `experiment` and `benchmark`.
        gallery: title -> samples, in order; empty galleries are left out.

    Returns:
        The path of the page.
    """
    provenance = results.provenance
    paper = paper_values(str(provenance.get("experiment")), str(provenance.get("benchmark")))
    over_thresholds = curves(results.counts, results.group)
    page = _template().render(
        title=" · ".join(str(provenance[name]) for name in ("experiment", "benchmark", "split") if provenance.get(name)),
        threshold=results.threshold,
        samples=len(results),
        images=len(np.unique(results.image_key)),
        seconds=results.seconds,
        rows=table_rows(results.metrics(), paper),
        has_paper=paper is not None,
        plots={
            "IoU over threshold": Markup(iou_over_threshold(over_thresholds, threshold=results.threshold)),
            "Precision over recall": Markup(precision_over_recall(over_thresholds, threshold=results.threshold)),
        },
        galleries={name: items for name, items in gallery.items() if items},
        facts={name: value for name, value in provenance.items() if not isinstance(value, (Mapping, list, tuple))},
        details={name: _pretty(value) for name, value in provenance.items() if isinstance(value, (Mapping, list, tuple))},
    )
    path = Path(folder) / "report.html"
    with atomic_write(path) as file:
        # A phrase may hold halves of surrogate pairs (JSON allows them), which UTF-8 does not.
        file.write(page.encode("utf-8", errors="replace"))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["data_uri"] = lambda jpeg: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    source = importlib.resources.files("clipseg.measure").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
