"""The grid of prompts: per-sample IoU in every cell on disk, and which cell is the best and which cannot be told from it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.average_precision import average_precision
from clipseg.measure.metrics import THRESHOLDS, SampleCounts, pooled_curves
from clipseg.measure.results import SavedResults
from clipseg.measure.significance import Interval, NotTestable, Outcome, cluster_bootstrap
from clipseg.measure.statistics.clustered import clustered_t
from clipseg.measure.statistics.corrections import holm_outcomes, rate_outcomes

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A weight of the text, its template and the picture's variant; None where the weight leaves text or picture out."""

    weight: float
    template: str | None
    variant: str | None

    @property
    def name(self) -> str:
        """`w0.3/plain/crop`, as in metrics.json."""
        return "/".join([f"w{self.weight:g}", *(part for part in (self.template, self.variant) if part)])

    def keys(self) -> list[str]:
        """Return the settings of this cell, as arguments of evaluate.py."""
        keys = [f"prompt.text_weight=[{self.weight:g},{self.weight:g}]"]
        if self.template:
            template = self.template if self.template.isidentifier() else f'"{self.template}"'
            keys += [shlex.quote(f"prompt.templates={template}"), "prompt.ensemble=true"]
        return keys + ([f"prompt.visual_prompt={self.variant}"] if self.variant else [])


def cells_of(weights: Sequence[float], templates: Sequence[str], variants: Sequence[str]) -> list[Cell]:
    """Return the cells of a grid; where text or picture does not count, one for all templates or variants."""
    cells = [
        Cell(weight=weight, template=template if weight > 0 else None, variant=variant if weight < 1 else None)
        for weight in weights
        for template in templates
        for variant in variants
    ]
    return list(dict.fromkeys(cells))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A cell beside the best: mIoU and AP in percent, the difference to the best in points, and its test clustered by image."""

    cell: Cell
    miou: float
    ap: float
    difference: float
    test: Outcome
    p_holm: float | None
    p_rate: float | None

    @property
    def is_told_apart(self) -> bool:
        """Whether the test, by Holm over the grid, finds the cell worse than the best."""
        return self.p_holm is not None and self.p_holm < ALPHA


@dataclass(frozen=True, eq=False, kw_only=True)
class GridResults(SavedResults):
    """The samples of a grid, sorted by key.

    Attributes:
        key, image_key: str `[N]`.
        iou: float `[N, C]`, of each sample in each cell at the threshold.
        cells: C cells.
        totals: counts over all samples, a row a cell.
        threshold, seconds, provenance: as of `Results`.

    Raises:
        ClipSegError: no samples, or columns that do not belong together.
    """

    FILE = "grid.npz"
    MADE_BY = "evaluate.py benchmark=prompt_grid"

    key: NDArray[np.str_]
    image_key: NDArray[np.str_]
    iou: NDArray[np.float64]
    cells: Sequence[Cell]
    totals: SampleCounts
    threshold: float
    seconds: float
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.iou.shape != (len(self.key), len(self.cells)) or self.image_key.shape != self.key.shape or not len(self.key):
            raise ClipSegError("no samples, or columns of different lengths; measure again")
        if not ((self.iou >= 0) & (self.iou <= 1)).all() or self.totals.tp.shape != (len(self.cells), len(THRESHOLDS)):
            raise ClipSegError("IoU outside [0, 1], or counts of other cells; measure again")
        self._sort_rows("key", "image_key", "iou")

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def of_rows(
        cls, rows: Sequence[Mapping[str, Any]], cells: Sequence[Cell], totals: Sequence[SampleCounts], **others: Any
    ) -> Self:
        """Make the columns of rows with key, image_key and iou `[C]`, and of a sum of counts a cell."""
        if not rows:
            raise ClipSegError("no sample can be shown by another of its phrase; choose a split whose phrases come back")
        columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in ("key", "image_key", "iou")}
        return cls(**columns, cells=cells, totals=SampleCounts.concatenate(totals), **others)

    @property
    def miou(self) -> NDArray[np.float64]:
        """Return mIoU in percent, over samples, `[C]`."""
        return 100 * self.iou.mean(axis=0)

    @property
    def best(self) -> int:
        """Return the cell of the largest mIoU, the first of several."""
        return int(self.miou.argmax())

    def average_precisions(self) -> list[float]:
        """Return AP in percent, a cell each."""
        curves = pooled_curves(self.totals)
        return [100 * average_precision(*pair) for pair in zip(curves["precision"], curves["recall"], strict=True)]

    def compared(self) -> list[Compared]:
        """Return all cells beside the best; the correction is over the grid. Which is the best was chosen on these samples."""
        best = 100 * self.iou[:, self.best]
        differences = 100 * self.iou.T - best
        tests = [
            NotTestable("the best itself") if place == self.best else clustered_t(difference, self.image_key)
            for place, difference in enumerate(differences)
        ]
        rows = zip(
            self.cells,
            self.miou.tolist(),
            differences.mean(axis=1).tolist(),
            self.average_precisions(),
            tests,
            holm_outcomes(tests),
            rate_outcomes(tests),
            strict=True,
        )
        return [
            Compared(cell=cell, miou=miou, ap=ap, difference=difference, test=test, p_holm=holm, p_rate=rate)
            for cell, miou, difference, ap, test, holm, rate in rows
        ]

    def at(self, weight: float, template: str, variant: str) -> int:
        """Return the place of a cell, of whichever template or variant where it does not count."""
        cell = Cell(weight=weight, template=template if weight > 0 else None, variant=variant if weight < 1 else None)
        return list(self.cells).index(cell)

    def axes(self) -> tuple[list[float], list[str], list[str]]:
        """Return weights, templates and variants, in the order of the grid."""
        found = (
            [cell.weight for cell in self.cells],
            *([getattr(cell, name) for cell in self.cells] for name in ("template", "variant")),
        )
        weights, templates, variants = (list(dict.fromkeys(value for value in values if value is not None)) for values in found)
        return weights, templates or [""], variants or [""]

    def curve(self) -> tuple[str, str, list[int]]:
        """Return the template and variant of the best cell, and the cells over all weights with them."""
        weights, templates, variants = self.axes()
        best = self.cells[self.best]
        template, variant = best.template or templates[0], best.variant or variants[0]
        return template, variant, [self.at(weight, template, variant) for weight in weights]

    def gain(self, *, seed: int) -> tuple[float, Interval | NotTestable]:
        """Return what mixing brings on the curve: its best mIoU less that of the better end, in points, and its interval."""
        places = self.curve()[2]
        ends = max(places[0], places[-1], key=lambda place: self.miou[place])
        top = max(places, key=lambda place: self.miou[place])
        difference = 100 * (self.iou[:, top] - self.iou[:, ends])
        return float(difference.mean()), cluster_bootstrap(difference, self.image_key, seed=seed)

    def command(self) -> str:
        """Return the command that evaluates with the best cell."""
        config = self.provenance.get("config", {})
        named = [f"checkpoint={config.get('checkpoint')}", "benchmark=phrasecut_visual", f"split={config.get('split')}"]
        named += ["protocol=paper", f"data.root={(config.get('data') or {}).get('root')}"]
        return " ".join(["python evaluate.py", *map(shlex.quote, named), *self.cells[self.best].keys()])

    def metrics(self) -> dict[str, float]:
        """Return `cell/<name>/miou` and `/ap` as fractions, `best/…`, and how many cells cannot be told from the best."""
        flat: dict[str, float] = {}
        compared = self.compared()
        for each in compared:
            flat |= {f"cell/{each.cell.name}/miou": each.miou / 100, f"cell/{each.cell.name}/ap": each.ap / 100}
        best = compared[self.best]
        flat |= {"best/text_weight": best.cell.weight, "best/miou": best.miou / 100, "best/ap": best.ap / 100}
        flat["not_told_apart"] = sum(not each.is_told_apart for each in compared) - 1
        flat["gain_points"] = self.gain(seed=0)[0]
        images = len(np.unique(self.image_key))
        return flat | {"samples": len(self), "images": images, "threshold": self.threshold, "seconds": self.seconds}

    def arrays(self) -> dict[str, Any]:
        """Return the columns by name; no template or variant is an empty text."""
        cells = {
            f"cell_{name}": np.array([getattr(cell, name) or "" for cell in self.cells]) for name in ("template", "variant")
        }
        counts = dict(zip(("tp", "fp", "positives", "pixels"), self.totals.columns, strict=True))
        columns = {"key": self.key, "image_key": self.image_key, "iou": self.iou}
        weights = {"cell_weight": np.array([cell.weight for cell in self.cells], dtype=np.float64)}
        return (
            columns | cells | weights | counts | {"threshold": np.float64(self.threshold), "seconds": np.float64(self.seconds)}
        )

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> Self:
        """Return the results that `arrays` came of."""
        parts = zip(*(arrays[f"cell_{name}"].tolist() for name in ("weight", "template", "variant")), strict=True)
        return cls(
            **{name: arrays[name] for name in ("key", "image_key", "iou")},
            cells=[
                Cell(weight=weight, template=template or None, variant=variant or None) for weight, template, variant in parts
            ],
            totals=SampleCounts(*(arrays[name] for name in ("tp", "fp", "positives", "pixels"))),
            threshold=arrays["threshold"].item(),
            seconds=arrays["seconds"].item(),
            provenance=provenance,
        )
