"""How well edges agree: figures of every sample on disk, and their means with intervals over images, by size of the object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.page import page_title, write_page
from clipseg.measure.report import provenance_parts
from clipseg.measure.results import SavedResults
from clipseg.measure.significance import Interval, cluster_bootstrap
from clipseg.measure.statistics.boundaries import TOLERANCES
from clipseg.measure.tables import monospaced

FIGURES = ("iou", "boundary_iou", *(f"surface@{pixels}" for pixels in TOLERANCES))
SIZES = ("s_small", "s_mid", "s_large")
_COLUMNS = ("key", "image_key", "size", "values")
COLUMNS = ("objects", *FIGURES, "samples", "images")


@dataclass(frozen=True, eq=False, kw_only=True)
class BoundaryResults(SavedResults):
    """The samples of an evaluation, sorted by key.

    Attributes:
        key, image_key: str `[N]`.
        size: str `[N]`, one of PhraseCut's subsets by the target's share of the photo.
        values: float `[N, 4]`, the figures of `FIGURES`, fractions.
        threshold, seconds, provenance: as of `Results`.

    Raises:
        ClipSegError: no samples, or columns that do not belong together.
    """

    FILE = "boundaries.npz"
    MADE_BY = "evaluate.py benchmark=boundaries"

    key: NDArray[np.str_]
    image_key: NDArray[np.str_]
    size: NDArray[np.str_]
    values: NDArray[np.float64]
    threshold: float
    seconds: float
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        rows = len(self.key)
        if not rows or self.values.shape != (rows, len(FIGURES)) or {self.image_key.shape, self.size.shape} != {(rows,)}:
            raise ClipSegError("no samples, or columns of different lengths; measure again")
        if not ((self.values >= 0) & (self.values <= 1)).all():
            raise ClipSegError("figures outside [0, 1]; measure again")
        self._sort_rows(*_COLUMNS)

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[str, str, str, Sequence[float]]], **others: Any) -> Self:
        """Make the columns of rows of key, image, size and figures."""
        if not rows:
            raise ClipSegError("none of the images can be read; is data.root still there?")
        key, image_key, size, values = (np.array(column) for column in zip(*rows, strict=True))
        return cls(key=key, image_key=image_key, size=size, values=values, **others)

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Return which samples belong to each line of the table, bool `[N]`: all, and those of each size that there is."""
        groups = {"all": np.ones(len(self), dtype=bool)} | {size: self.size == size for size in SIZES}
        return {name: rows for name, rows in groups.items() if rows.any()}

    def metrics(self) -> dict[str, float]:
        """Return means as fractions, `<figure>` of all and `<size>/<figure>`; `<size>/samples`, samples, images, seconds."""
        flat: dict[str, float] = {}
        for name, rows in self.groups().items():
            prefix = "" if name == "all" else f"{name}/"
            flat |= {prefix + figure: float(mean) for figure, mean in zip(FIGURES, self.values[rows].mean(axis=0), strict=True)}
            flat[f"{prefix}samples"] = int(rows.sum())
        return flat | {"images": len(np.unique(self.image_key)), "threshold": self.threshold, "seconds": self.seconds}

    def arrays(self) -> dict[str, Any]:
        """Return the columns by name."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return columns | {"threshold": np.float64(self.threshold), "seconds": np.float64(self.seconds)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> Self:
        """Return the results that `arrays` came of."""
        columns: dict[str, Any] = {name: arrays[name] for name in _COLUMNS}
        numbers = {name: arrays[name].item() for name in ("threshold", "seconds")}
        return cls(**columns, **numbers, provenance=provenance)


def boundary_cells(results: BoundaryResults, *, seed: int) -> list[tuple[str, ...]]:
    """Return the table as text, percent with 95% intervals clustered by image, in the order of `COLUMNS`."""
    lines = []
    for name, rows in results.groups().items():
        images, cells = results.image_key[rows], []
        for column in 100 * results.values[rows].T:
            interval = cluster_bootstrap(column, images, seed=seed)
            ends = f" [{interval.low:.1f}, {interval.high:.1f}]" if isinstance(interval, Interval) else ""
            cells.append(f"{column.mean():.1f}{ends}")
        lines.append((name, *cells, str(int(rows.sum())), str(len(np.unique(images)))))
    return lines


def format_boundaries(results: BoundaryResults, *, seed: int) -> str:
    """Return a plain monospaced table."""
    footer = f"{results.seconds:.1f} s; percent at threshold {results.threshold:.2f}, at the photos' own size"
    return "\n".join([monospaced([COLUMNS, *boundary_cells(results, seed=seed)]), footer])


def write_boundaries_report(folder: Path, results: BoundaryResults, *, seed: int) -> None:
    """Write `report.html` into `folder`: the table, and what its figures are."""
    facts, details = provenance_parts(results.provenance)
    write_page(
        folder / "report.html",
        "studies/boundaries/page.html.j2",
        title=page_title(results.provenance),
        results=results,
        images=len(np.unique(results.image_key)),
        columns=COLUMNS,
        rows=boundary_cells(results, seed=seed),
        facts=facts,
        details=details,
    )
