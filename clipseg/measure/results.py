"""Results of evaluations on disk: counts per sample under stable keys, and the figures made of them.

A results folder holds `samples.npz` (all of `Results`; enough to make every table, test and figure without model or images),
`metrics.json` (flat, name -> number) and `provenance.json` (where the numbers come from, for people). Needs no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError, one_line
from clipseg.files import atomic_write, read_arrays, write_json
from clipseg.measure.metrics import (
    DEFINITIONS,
    THRESHOLDS,
    SampleCounts,
    official_summary,
    sample_iou,
    summarise,
    threshold_index,
)

if TYPE_CHECKING:
    from clipseg.measure.intensity_columns import IntensityColumns

_LABELS = ("key", "image_key", "phrase", "group")
_OFFICIAL = ("official_intersection", "official_union")
_INTEGERS = ("height", "width", "tp", "fp", "positives", "pixels")
_INTENSITY = {"intensity_values": "values", "intensity_reason": "reason", "intensity_reasons": "reasons"}


class SavedResults:
    """The results of an evaluation or a study, in its folder.

    `metrics.json` is flat (name -> number), `provenance.json` says where the numbers come from, for people. Where there are
    columns, the file `FILE` holds them with the provenance, enough to make every figure again.
    """

    FILE: ClassVar[str] = ""  # an .npz; none by default
    MADE_BY: ClassVar[str] = "evaluate.py"  # what errors tell people to run
    key: NDArray[np.str_]  # of each row, where there are rows
    provenance: Mapping[str, Any]

    def metrics(self) -> dict[str, float]:
        """The figures by name."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Any]:
        """The columns by name."""
        raise NotImplementedError

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> Self:
        """The inverse of `arrays`; raises whatever it meets in what is no such file."""
        raise NotImplementedError

    def _sort_rows(self, *columns: str) -> NDArray[np.intp]:
        """Sort rows by key: these columns, and by the order that is returned what else there is.

        Raises:
            ClipSegError: a key twice.
        """
        order = np.argsort(self.key, kind="stable")
        keys = self.key[order]
        twice = keys[:-1][keys[1:] == keys[:-1]]
        if len(twice):
            raise ClipSegError(f"key {str(twice[0])!r} occurs more than once; merge each shard once, with one key a sample")
        for name in columns:
            object.__setattr__(self, name, getattr(self, name)[order])
        return order

    def save(self, folder: str | Path) -> None:
        """Write the files into `folder`."""
        if self.FILE:
            arrays = self.arrays() | {"provenance": np.array(json.dumps(self.provenance, sort_keys=True, allow_nan=False))}
            with atomic_write(Path(folder) / self.FILE) as file:
                np.savez_compressed(file, **arrays)
        write_json(Path(folder) / "provenance.json", dict(self.provenance))
        write_json(Path(folder) / "metrics.json", self.metrics())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder, or its `FILE`.

        Raises:
            ClipSegError: there is none, or it is damaged or something else.
        """
        file = Path(path) / cls.FILE if Path(path).is_dir() else Path(path)
        try:
            arrays = read_arrays(file)
            provenance = json.loads(arrays["provenance"].item())
            if not isinstance(provenance, dict):
                raise ClipSegError("provenance is no JSON object")
            return cls.of_arrays(arrays, provenance)
        except FileNotFoundError as error:
            raise ClipSegError(f"{file}: no such results file; run {cls.MADE_BY} first, or name its output folder") from error
        except ClipSegError as error:
            raise ClipSegError(f"{file}: not consistent ({error}); run {cls.MADE_BY} again") from error
        # The zip, zlib and array readers raise whatever they meet in damaged bytes; all of it means the same to a caller.
        except Exception as error:
            reason = one_line(error)[:200]
            raise ClipSegError(f"{file}: not a {cls.FILE}, or damaged ({reason}); run {cls.MADE_BY} again") from error


@dataclass(frozen=True, eq=False)
class Results(SavedResults):
    """The counts of one evaluation, one row a sample; always sorted by key, whatever order it is made in.

    Attributes:
        key: str `[N]`, unique and the same in every run: what two runs are aligned by.
        image_key: str `[N]`, the image the sample is on.
        phrase: str `[N]`, the prompt.
        group: str `[N]`, the class that mIoU averages over; on PhraseCut the key.
        height, width: int `[N]`, size of the truth in pixels.
        counts: per sample and threshold, at the size the model ran at.
        official_intersection, official_union: int `[N]`, at `threshold` and the image's original size; None where the benchmark
            has no such figures.
        threshold: the one the tables use, one of the 49.
        seconds: the evaluation took.
        provenance: JSON-able; `benchmark`, `split`, `experiment`, `config`, `commit`, `versions`, `seed`, and `left_out`, a
            line for each image that could not be read.
        subsets: name -> bool `[N]`, which samples belong to a named part of the data set.
        intensity: tests of gray values at the masks' boundaries; None where they were not made.
        presence: float32 `[N, 2]`, the largest probability of each sample's map, and, beside one sample an image, that of
            another image's phrase (NaN elsewhere); None where none was asked.

    Raises:
        ClipSegError: no samples, a key twice, or counts that cannot be.
    """

    FILE = "samples.npz"

    key: NDArray[np.str_]
    image_key: NDArray[np.str_]
    phrase: NDArray[np.str_]
    group: NDArray[np.str_]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    counts: SampleCounts
    official_intersection: NDArray[np.int64] | None
    official_union: NDArray[np.int64] | None
    threshold: float
    seconds: float
    provenance: Mapping[str, Any]
    subsets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    intensity: "IntensityColumns | None" = None
    presence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        columns = {name: np.asarray(getattr(self, name)) for name in (*_LABELS, "height", "width", *self._official_names())}
        _check_columns(columns, self.counts)
        _check_optional(self)
        threshold_index(self.threshold)
        if not 0 <= self.seconds < float("inf"):
            raise ClipSegError(f"{self.seconds} seconds; expected a duration")
        for name, column in columns.items():
            object.__setattr__(self, name, column)
        order = self._sort_rows(*columns)
        object.__setattr__(self, "counts", SampleCounts(*(column[order] for column in self.counts.columns)))
        object.__setattr__(self, "subsets", {name: column[order] for name, column in self.subsets.items()})
        object.__setattr__(self, "intensity", self.intensity and self.intensity.take(order))
        object.__setattr__(self, "presence", None if self.presence is None else self.presence[order])

    def _official_names(self) -> tuple[str, ...]:
        assert (self.official_intersection is None) == (self.official_union is None), "give both official columns or neither"
        return () if self.official_union is None else _OFFICIAL

    def __len__(self) -> int:
        return len(self.key)

    def metrics(self, threshold: float | None = None) -> dict[str, float]:
        """Return what `metrics.json` holds: fractions, but for `samples`, `seconds` and thresholds.

        Args:
            threshold: another than the evaluation's; the official figures, known at that one alone, are then left out.

        Returns:
            The figures of `metrics.summarise` in the plain definition under their own names, in the released one under
            `released/<name>`; those of `metrics.official_summary`, and `miou_official`, mIoU at the original size, where
            groups hold more than a sample each; `own_threshold/miou` and `/iou_fg`, where phrases have thresholds of their
            own, each at the nearest of the 49; the same of each subset with samples as `subset/<subset>/<name>`, with
            `subset/<subset>/samples`; the means over samples `brier` and `log_loss` (in nats) of `reliability.py`, and
            `worst_tenth`, the mean IoU of the worst tenth of images; `presence/auroc`, how often a phrase has a larger
            probability somewhere than one that is absent, and `presence/fires`, the share of absent ones for which anything
            lies above the threshold; `samples`, `seconds`, `threshold`; and
            `images_left_out` where there are any.
        """
        chosen = self.threshold if threshold is None else threshold
        figures: dict[str, float] = {}
        for definition in DEFINITIONS:
            prefix = "" if definition == "plain" else f"{definition}/"
            summary = summarise(self.counts, self.group, definition=definition, threshold=chosen)
            figures |= {prefix + name: value for name, value in summary.items()}
        if self.official_intersection is not None and self.official_union is not None and chosen == self.threshold:
            figures |= official_summary(self.official_intersection, self.official_union)
            if (self.group != self.key).any():
                figures["miou_official"] = self._class_iou(self.official_intersection, self.official_union)
            for subset, rows in self.subsets.items():
                if rows.any():
                    summary = official_summary(self.official_intersection[rows], self.official_union[rows])
                    summary["samples"] = int(rows.sum())
                    figures |= {f"subset/{subset}/{name}": value for name, value in summary.items()}
        if isinstance(self.provenance.get("calibration"), dict) and chosen == self.threshold:
            summary = summarise(self.cut(), self.group, definition="plain", threshold=chosen)
            figures |= {f"own_threshold/{name}": summary[name] for name in ("miou", "iou_fg")}
        # Imported when figures are made: training and evaluation come to them last.
        from clipseg.measure.reliability import brier_score, log_loss, presence_figures, worst_tenth

        figures |= {"brier": float(brier_score(self.counts).mean()), "log_loss": float(log_loss(self.counts).mean())}
        figures["worst_tenth"] = worst_tenth(sample_iou(self.counts, chosen), self.image_key)
        if self.presence is not None:
            figures |= {f"presence/{name}": value for name, value in presence_figures(self.presence, chosen).items()}
        figures |= {"samples": len(self), "seconds": self.seconds, "threshold": chosen}
        left_out = self.provenance.get("left_out")
        return figures | ({"images_left_out": len(left_out)} if isinstance(left_out, list) else {})

    def cut(self) -> SampleCounts:
        """The counts at `threshold`, or, where the model was calibrated for a phrase, at the nearest of the 49 to its own; all
        columns are alike."""
        known = self.provenance.get("calibration")
        own = known if isinstance(known, dict) else {}
        cuts = [own.get(phrase, {}).get("threshold", self.threshold) for phrase in self.phrase.tolist()]
        return self.counts.cut_at(np.array(cuts))

    def _class_iou(self, intersections: NDArray[np.int64], unions: NDArray[np.int64]) -> float:
        """The mean over classes of the ratio of their sums; 1 where there is neither truth nor prediction."""
        _, group = np.unique(self.group, return_inverse=True)
        hits, whole = (np.bincount(group, weights=column) for column in (intersections, unions))
        return float(np.divide(hits, whole, out=np.ones_like(hits), where=whole > 0).mean())

    def arrays(self) -> dict[str, Any]:
        """Return what `samples.npz` holds beside the provenance; the same results give the same bytes."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in (*_LABELS, *self._official_names())}
        for name in _INTEGERS:
            arrays[name] = getattr(self if name in ("height", "width") else self.counts, name).astype(np.int32)
        if self.subsets:
            arrays["subset_names"] = np.array(list(self.subsets))
            arrays["subset_members"] = np.stack(list(self.subsets.values()), axis=1)
        if self.presence is not None:
            arrays["presence"] = self.presence
        if self.intensity is not None:
            arrays |= {name: getattr(self.intensity, column) for name, column in _INTENSITY.items()}
        return arrays | {"threshold": np.float64(self.threshold), "seconds": np.float64(self.seconds)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> "Results":
        """The inverse of `arrays`."""
        columns: dict[str, Any] = {name: arrays[name] for name in (*_LABELS, *_INTEGERS)}
        for name in _LABELS:
            columns[name].tolist()  # raises on code points that are none
        counts = SampleCounts(*(columns.pop(name).astype(np.int64) for name in (field.name for field in fields(SampleCounts))))
        for name in _OFFICIAL:
            columns[name] = arrays.get(name)
        if "subset_names" in arrays:
            columns["subsets"] = dict(zip(arrays["subset_names"].tolist(), arrays["subset_members"].T, strict=True))
        columns["presence"] = arrays.get("presence")
        if "intensity_values" in arrays:
            from clipseg.measure.intensity_columns import IntensityColumns

            columns["intensity"] = IntensityColumns(**{column: arrays[name] for name, column in _INTENSITY.items()})
        threshold, seconds = arrays["threshold"].item(), arrays["seconds"].item()
        return cls(**columns, counts=counts, threshold=threshold, seconds=seconds, provenance=provenance)


def _check_columns(columns: Mapping[str, NDArray[Any]], counts: SampleCounts) -> None:
    samples = len(counts)
    if samples == 0:
        raise ClipSegError("no samples to measure; the split or the filter left none")
    for name, column in columns.items():
        if column.shape != (samples,) or column.dtype.kind not in ("U" if name in _LABELS else "iu"):
            raise ClipSegError(
                f"column '{name}' is {column.dtype} {column.shape}; expected one value for each of {samples} samples"
            )
    expected = ((samples, len(THRESHOLDS)), (samples, len(THRESHOLDS)), (samples,), (samples,))
    if tuple(column.shape for column in counts.columns) != expected:
        raise ClipSegError(f"counts of shapes {tuple(column.shape for column in counts.columns)}; expected {expected}")
    falls = all((np.diff(column, axis=1) <= 0).all() for column in (counts.tp, counts.fp))
    if not falls or min(column.min() for column in (*counts.columns, counts.fn, counts.tn)) < 0:
        raise ClipSegError("counts below 0, above the pixels there are, or rising with the threshold")
    if "official_union" in columns:
        intersection, union = columns["official_intersection"], columns["official_union"]
        if intersection.min() < 0 or (intersection > union).any():
            raise ClipSegError("official intersections below 0 or above their unions")


def _check_optional(results: Results) -> None:
    samples, intensity, presence = len(results.counts), results.intensity, results.presence
    for name, column in results.subsets.items():
        if column.shape != (samples,) or column.dtype != np.bool_:
            raise ClipSegError(f"subset {name!r} is {column.dtype} {column.shape}; expected bool for each of {samples} samples")
    if intensity is not None and len(intensity) != samples:
        raise ClipSegError(f"intensity tests of {len(intensity)} samples; expected {samples}")
    if presence is not None and (presence.shape != (samples, 2) or presence.dtype != np.float32):
        raise ClipSegError(f"presence is {presence.dtype} {presence.shape}; expected float32 {(samples, 2)}")
