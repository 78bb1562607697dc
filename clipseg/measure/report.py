"""One page to look at: `report.html`, self-contained, made from a results folder and the pictures of a few samples.

Opens offline, without JavaScript, on a phone and on a screen. Phrases and keys are other people's text and are escaped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from clipseg.measure.breakdown import Part, by_class, by_size, subset_rows
from clipseg.measure.failures import KINDS, failures
from clipseg.measure.figures import iou_over_size, iou_over_threshold, precision_over_recall, reliability_curve
from clipseg.measure.intensity import ALPHA
from clipseg.measure.metrics import curves, sample_iou
from clipseg.measure.page import page_title, write_page
from clipseg.measure.paper import paper_beside
from clipseg.measure.reliability import reliability
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval
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
        `best`, `worst` (plain IoU of `Results.cut`, the extreme first, ties in the order of keys) and `random`: lists of keys.
        Samples with an empty truth have nothing to show and only occur in `random`.
    """
    iou = sample_iou(results.cut(), results.threshold)
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
        gallery: title -> samples, in order; empty galleries are left out. Those named as kinds of failures stand with them.

    Returns:
        The path of the page.
    """
    provenance = results.provenance
    paper = paper_beside(provenance)
    calibration, figures = reliability(results.counts), results.metrics()
    facts, details = provenance_parts(provenance)
    path = Path(folder) / "report.html"
    write_page(
        path,
        "measure/report.html.j2",
        title=page_title(provenance),
        results=results,
        images=len(np.unique(results.image_key)),
        figures=figures,
        rows=table_rows(figures, paper),
        has_paper=paper is not None,
        plots=_plots(results),
        calibration=calibration,
        reliability=Markup(reliability_curve(calibration)),
        classes=[_class_row(part) for part in by_class(results)],
        by_phrase=bool((results.group == results.key).all()),
        subsets=subset_rows(results),
        missing_subsets=provenance.get("missing_subsets", {}),
        tests=results.intensity.rejections() if results.intensity else [],
        alpha=ALPHA,
        failures=[{"kind": kind, "rule": KINDS[kind], "samples": len(rows)} for kind, rows in failures(results).items()],
        failed={name: items for name, items in gallery.items() if items and name in KINDS},
        galleries={name: items for name, items in gallery.items() if items and name not in KINDS},
        facts=facts,
        details=details,
    )
    return path


def _plots(results: Results) -> dict[str, Markup]:
    over_thresholds = curves(results.counts, results.group)
    sizes = by_size(results)
    plots = {
        "IoU over threshold": iou_over_threshold(over_thresholds, threshold=results.threshold),
        "precision over recall": precision_over_recall(over_thresholds, threshold=results.threshold),
    }
    if sizes:
        plots["IoU over object size"] = iou_over_size(sizes)
    return {name: Markup(svg) for name, svg in plots.items()}


def _class_row(part: Part) -> dict[str, Any]:
    """A class as the page shows it: the ends of its interval are the mean itself where it has none."""
    ends = (part.interval.low, part.interval.high) if isinstance(part.interval, Interval) else (part.mean, part.mean)
    images = part.interval.clusters if isinstance(part.interval, Interval) else 1
    return {
        "part": part,
        "low": ends[0],
        "high": ends[1],
        "images": images,
        "has_interval": isinstance(part.interval, Interval),
    }


def provenance_parts(provenance: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Provenance as a page shows it: single values, and nested ones as JSON to unfold."""
    nested = {name: value for name, value in provenance.items() if isinstance(value, (Mapping, list, tuple))}
    facts = {name: value for name, value in provenance.items() if name not in nested}
    return facts, {name: json.dumps(value, indent=2, ensure_ascii=False) for name, value in nested.items()}
