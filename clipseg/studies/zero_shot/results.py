"""Results of generalised zero-shot segmentation on disk: the confusion matrix, the figures made of it, and a page.

A folder holds `confusion.json` (all of the counts), `metrics.json` (flat, name -> fraction), `provenance.json` and
`report.html`. Needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.data.classes import SCORED_UNSEEN
from clipseg.errors import ClipSegError
from clipseg.files import read_json, write_json
from clipseg.measure.page import page_title, single_values, write_page
from clipseg.measure.paper import paper_beside
from clipseg.measure.results import SavedResults
from clipseg.measure.tables import monospaced
from clipseg.studies.zero_shot.label_maps import LabelMaps, legend
from clipseg.studies.zero_shot.numbers import class_iou, figures_as_scored, zero_shot_summary

CONFUSION_FILE = "confusion.json"
_TITLES = {
    "miou_seen": "mIoU seen",
    "miou_unseen": "mIoU unseen",
    "miou_harmonic": "harmonic mean of both",
    "miou": "mIoU of all classes",
    "iou_background": "IoU background",
    "miou_with_background": "mIoU with background",
    "miou_seen_with_background": "mIoU seen with background",
    "miou_harmonic_with_background": "harmonic mean with background",
    "miou_seen_as_scored": "“seen” as the paper's scorer prints it",
    "miou_unseen_as_scored": "“unseen” as the paper's scorer prints it",
}
AS_SCORED = (
    "The paper's scorer takes seen for unseen and the other way round, and asks for other classes than training removed: its S "
    "is the mean over {}, its U that over all others and the background. Its columns stand beside what it would print here."
)
COLUMNS = ("percent", "ours", "paper")


@dataclass(frozen=True, eq=False)
class MulticlassResults(SavedResults):
    """The counts of one evaluation.

    Attributes:
        matrix: int64 `[1 + C, 1 + C]` over all images: rows are the truth, columns the prediction.
        names: 1 + C, the background first.
        unseen: those left out of training.
        images: how many were counted.
        seconds: the evaluation took.
        provenance: JSON-able; `benchmark`, `split`, `experiment`, ...
    """

    matrix: NDArray[np.int64]
    names: tuple[str, ...]
    unseen: tuple[str, ...]
    images: int
    seconds: float
    provenance: Mapping[str, Any]

    def metrics(self) -> dict[str, float]:
        """Return what `metrics.json` holds: `zero_shot_summary`, `iou/<class>` of the classes that occur, `samples`, `seconds`.

        And `figures_as_scored`, where the paper prints such figures: with 4 or 10 unseen classes.
        """
        figures = zero_shot_summary(self.matrix, unseen=self._labels(self.unseen))
        if self.scored:
            figures |= figures_as_scored(self.matrix, unseen=self._labels(self.scored))
        of_classes = zip(self.names, class_iou(self.matrix).tolist(), strict=True)
        figures |= {f"iou/{name}": iou for name, iou in of_classes if not np.isnan(iou)}
        return figures | {"samples": self.images, "seconds": self.seconds}

    @property
    def scored(self) -> tuple[str, ...]:
        """The classes that the paper's scorer would ask for here; none where it prints nothing, or by protocol "paper"."""
        asked = () if self.provenance.get("protocol") == "paper" else SCORED_UNSEEN.get(len(self.unseen), ())
        return asked if set(asked) <= set(self.names) else ()

    def notes(self) -> list[str]:
        """Return what a reader of the figures must know."""
        return [AS_SCORED.format(", ".join(self.scored))] if self.scored else []

    def _labels(self, names: Sequence[str]) -> list[int]:
        return [self.names.index(name) for name in names]

    def rows(self) -> list[tuple[str, str, str]]:
        """The figures as text, in the order of `COLUMNS`, the paper's beside ours where it has them."""
        figures = self.metrics()
        paper = paper_beside(self.provenance) or {}
        titles = _TITLES | {f"iou/{name}": f"{name} (unseen)" if name in self.unseen else name for name in self.names[1:]}
        return [
            (title, f"{100 * figures[name]:.1f}", f"{paper[name]:.1f}" if name in paper else "")
            for name, title in titles.items()
            if name in figures
        ]

    def save(self, folder: str | Path) -> None:
        """Write `confusion.json`, `provenance.json` and `metrics.json` into `folder`."""
        counts = {"names": self.names, "unseen": self.unseen, "rows_are_truth": self.matrix.tolist()}
        counts |= {"images": self.images, "seconds": self.seconds}
        write_json(Path(folder) / CONFUSION_FILE, counts)
        super().save(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "MulticlassResults":
        """Read a results folder.

        Raises:
            ClipSegError: a file of it is missing, damaged, or something else.
        """
        counts, provenance = (read_json(Path(folder) / name) for name in (CONFUSION_FILE, "provenance.json"))
        try:
            matrix = np.array(counts["rows_are_truth"])
            names, unseen = tuple(counts["names"]), tuple(counts["unseen"])
            if matrix.dtype.kind != "i" or matrix.shape != (len(names), len(names)) or matrix.min() < 0:
                raise ValueError(f"a matrix {matrix.dtype} {matrix.shape} of counts among {len(names)} classes")
            results = MulticlassResults(
                matrix, names, unseen, int(counts["images"]), float(counts["seconds"]), dict(provenance)
            )
            results.metrics()
        except (KeyError, TypeError, ValueError, ClipSegError) as error:
            raise ClipSegError(f"{folder}: {CONFUSION_FILE} is damaged or something else ({error}); evaluate again") from error
        return results


def check_same_truth(names: tuple[str, str], one: MulticlassResults, two: MulticlassResults) -> None:
    """Raise a ClipSegError unless both counted the same pixels: of the same classes equally many, and the same were unseen."""
    same_classes = (one.names, one.unseen) == (two.names, two.unseen)
    if not same_classes or (one.matrix.sum(axis=1) != two.matrix.sum(axis=1)).any():
        raise ClipSegError(f"{names[0]} and {names[1]}: other classes, or other images; evaluate both on the same data")


def format_multiclass(results: MulticlassResults) -> str:
    """A plain monospaced table."""
    footer = f"{results.images} images, {results.seconds:.1f} s; 255 is not counted"
    return "\n".join([monospaced([COLUMNS, *results.rows()]), *results.notes(), footer])


def write_multiclass_report(folder: Path, results: MulticlassResults, *, gallery: Mapping[str, Sequence[LabelMaps]]) -> None:
    """Write `report.html` into `folder`: the table, the confusion matrix in percent of each class's pixels, and pictures."""
    pixels = results.matrix.sum(axis=1, keepdims=True)
    shares = np.rint(100 * results.matrix / np.maximum(pixels, 1)).astype(np.int64)
    write_page(
        folder / "report.html",
        "studies/zero_shot/page.html.j2",
        title=page_title(results.provenance),
        results=results,
        columns=COLUMNS,
        rows=results.rows(),
        shares=shares.tolist(),
        gallery={title: [(maps, legend(maps, results.names)) for maps in shown] for title, shown in gallery.items() if shown},
        facts=single_values(results.provenance),
    )
