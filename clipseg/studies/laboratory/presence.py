"""`benchmark=presence`: does the model know that a thing is not there? Each phrase, and one near it that does not hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipseg.data.layout import find_splits, is_own_folder
from clipseg.data.sample import Batch
from clipseg.errors import ClipSegError
from clipseg.run.jobs import Job
from clipseg.studies.laboratory.asking import Question, ask_all, statement
from clipseg.studies.laboratory.forms import CONTROLS, control
from clipseg.studies.laboratory.page import finish
from clipseg.studies.laboratory.results import CONTROL, Weights, WordResults, weighted_mean
from clipseg.studies.laboratory.settings import LaboratoryKeys
from clipseg.studies.laboratory.statements import Statements, absent

KINDS = ("other", "attribute", "relation")
SCORES = ("peak", "top")  # the largest probability of a map, and the mean of its largest hundredth
TOP_SHARE = 0.01
LEAST_PIXELS = 50  # fewer count as no target, of models that do not say it themselves (Liu et al. 2023, GRES)


@dataclass(frozen=True, eq=False, kw_only=True)
class PresenceResults(WordResults):
    """Pairs of a phrase that is there and one that is not; `<score>_present` and `<score>_absent`, shares above the threshold.

    By pairs each image has as many of both: a model that does not hear the words has an AUROC of exactly 0.5.

    Attributes:
        chosen: of each score, the threshold of presence, chosen on the validation split.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        *(f"{score}_{side}" for score in SCORES for side in ("present", "absent")),
        *("area_present", "area_absent", "pixels"),
    )
    FIGURES: ClassVar[Mapping[str, str]] = {
        "auroc": "AUROC of the largest probability",
        "mcc": "Matthews' correlation at the chosen threshold",
        "balanced_accuracy": "balanced accuracy at the chosen threshold",
        "n_acc": f"absent phrases with fewer than {LEAST_PIXELS} pixels (N-acc)",
        "t_acc": f"present phrases with at least {LEAST_PIXELS} pixels (T-acc)",
        "false_area": "share of the image found for absent phrases",
        "fires": "absent phrases for which anything is found",
        "top/auroc": "AUROC of the mean of the top 1%",
        "top/mcc": "Matthews' correlation of it",
        "top/balanced_accuracy": "balanced accuracy of it",
    }

    chosen: Mapping[str, float]

    def figures(self, rows: NDArray[np.intp], image: NDArray[np.intp], weights: Weights) -> dict[str, NDArray[np.float64]]:
        """Return figures as `WordResults` does, for phrases that are there against those that are not."""
        values = {name: column[rows] for name, column in self.values.items()}
        found: dict[str, NDArray[np.float64]] = {}
        for score, prefix in zip(SCORES, ("", "top/"), strict=True):
            present, gone = values[f"{score}_present"], values[f"{score}_absent"]
            found[f"{prefix}auroc"] = auroc(present, gone, image, weights)
            hits = weighted_mean(present >= self.chosen[score], image, weights)
            false = weighted_mean(gone >= self.chosen[score], image, weights)
            both = (hits + false) * (2 - hits - false)  # as many are there as are not
            found[f"{prefix}mcc"] = np.divide(hits - false, np.sqrt(both), out=np.zeros_like(both), where=both > 0)
            found[f"{prefix}balanced_accuracy"] = (1 + hits - false) / 2
        area, pixels = values["area_absent"], values["pixels"]
        found["n_acc"] = weighted_mean(area * pixels < LEAST_PIXELS, image, weights)
        found["t_acc"] = weighted_mean(values["area_present"] * pixels >= LEAST_PIXELS, image, weights)
        found["false_area"] = weighted_mean(area, image, weights)
        found["fires"] = weighted_mean(area > 0, image, weights)
        return {name: found[name] for name in self.FIGURES}

    def metrics(self) -> dict[str, float]:
        """Return what `WordResults` does, with the chosen thresholds of presence."""
        return super().metrics() | {f"chosen_{score}": value for score, value in self.chosen.items()}

    def arrays(self) -> dict[str, Any]:
        """Return the columns by name."""
        return super().arrays() | {f"chosen_{score}": np.float64(value) for score, value in self.chosen.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> Self:
        """Return the results that `arrays` came of."""
        chosen = {score: arrays[f"chosen_{score}"].item() for score in SCORES}
        return cls(**cls.columns_of(arrays), chosen=chosen, provenance=provenance)


def auroc(
    present: NDArray[np.float64], gone: NDArray[np.float64], image: NDArray[np.intp], weights: Weights
) -> NDArray[np.float64]:
    """Return how often a present phrase has the higher score, ties by half, over drawn sets of images, float64 `[R]`.

    Args:
        present, gone: scores `[n]`.
        image: `[n]`, the number of each pair's image, below I.
        weights: `[R, I]`, how often each draw holds each image.
    """
    count = weights.shape[1]
    wins = np.zeros((count, count))  # of the phrases of one image over those of another
    for other in range(count):
        scores = np.sort(gone[image == other])
        below = (np.searchsorted(scores, present, "left") + np.searchsorted(scores, present, "right")) / 2
        wins[:, other] = np.bincount(image, weights=below, minlength=count)
    sizes = weights @ np.bincount(image, minlength=count)
    return ((weights @ wins) * weights).sum(axis=1) / sizes**2


def best_threshold(present: NDArray[np.float64], gone: NDArray[np.float64]) -> float:
    """Return the score from which on a phrase is taken to be there: of the best balanced accuracy, the lowest of several."""
    candidates = np.unique(np.concatenate([present, gone]))
    hits = 1 - np.searchsorted(np.sort(present), candidates, "left") / len(present)
    false = 1 - np.searchsorted(np.sort(gone), candidates, "left") / len(gone)
    return float(candidates[int(np.argmax(hits - false))])


def questions(batch: Batch, known: Statements, rng: np.random.Generator) -> list[Question]:
    """Return for each phrase one near it that is absent, and the controls; of relations, which are rare, all are taken."""
    asked = []
    image = batch.image_keys[0]
    for task, phrase in enumerate(batch.phrases):
        found = absent(known, image, statement(batch, known, task), KINDS, rng)
        if not found:
            continue
        kind = "relation" if "relation" in found else list(found)[int(rng.integers(len(found)))]
        other = found[kind].text
        nothing = np.zeros(tuple(batch.masks[task].shape), dtype=bool)
        prompts = {kind: (phrase, other)}
        prompts |= {
            f"{CONTROL}{name}": (control(name, phrase, known.phrases, rng), control(name, other, known.phrases, rng))
            for name in CONTROLS
        }
        asked += [
            Question(task=task, kind=name, phrase=phrase, asked=other, prompts=both, truth=nothing)
            for name, both in prompts.items()
            if name == kind or both != prompts[kind]
        ]
    return asked


def score(one: Tensor, two: Tensor, before: NDArray[np.bool_], after: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Return the values of `PresenceResults.COLUMNS` but for the number of pixels."""
    values = {}
    for side, found in (("present", one), ("absent", two)):
        pixels = found.flatten()
        values[f"peak_{side}"] = float(pixels.max())
        values[f"top_{side}"] = float(pixels.topk(max(1, round(TOP_SHARE * len(pixels)))).values.mean())
        values[f"area_{side}"] = float((pixels > threshold).float().mean())
    return values


def threshold_split(job: Job) -> str:
    """Return the split on which the threshold of presence is chosen.

    Raises:
        ClipSegError: it is the split that is measured, or none is named and there is none that is meant for it.
    """
    config = job.config
    assert isinstance(config, LaboratoryKeys)
    if config.threshold_split == config.split:
        raise ClipSegError(f"threshold_split={config.split} is what is measured; choose the threshold on another split")
    if config.threshold_split != "auto":
        return config.threshold_split
    if is_own_folder(job.root):
        from clipseg.data.readers.folder import folder_splits

        known = list(folder_splits(job.root))
    else:
        known = list(find_splits(job.root))
    for split in ("miniv", "val"):
        if split in known and split != config.split:
            return split
    raise ClipSegError(
        f"{job.root}: no split val to choose the threshold of presence on; name one of {', '.join(known)} by threshold_split="
    )


def presence(job: Job) -> None:
    """Measure whether maps tell phrases that hold from phrases that do not; the threshold is chosen on another split."""
    assert isinstance(job.config, LaboratoryKeys)
    first_images = job.config.first_images
    chosen: dict[str, float] = dict.fromkeys(SCORES, 0.5)
    for split, folder in ((threshold_split(job), job.folder / "threshold"), (job.config.split, job.folder)):
        found = ask_all(job, split, questions, score, first_images=first_images)
        results = PresenceResults.of_rows(
            found.rows, threshold=job.config.threshold, seconds=found.seconds, provenance=found.provenance, chosen=chosen
        )
        if folder != job.folder:
            rows = ~np.char.startswith(results.kind, CONTROL)
            chosen = {
                score: best_threshold(*(results.values[f"{score}_{side}"][rows] for side in ("present", "absent")))
                for score in SCORES
            }
            if job.processes.is_main:
                results.save(folder)
        elif job.processes.is_main:
            finish(job.folder, results, found.examples, about=ABOUT, seed=job.config.seed)


ABOUT = f"""Each phrase is asked beside one near it that does not hold on the image: another image's phrase whose noun is not
here (other), the noun with an attribute that no such thing has here (attribute), or the relation turned round
(relation). By annotation a phrase is absent where nobody wrote it, and some of these are true; on the synthetic
data the truth is exact. A phrase is taken to be there where the score of its map reaches the threshold of the
best balanced accuracy on the split that the threshold is chosen on. N-acc and T-acc as gRefCOCO has them: fewer
than {LEAST_PIXELS} pixels above the mask's threshold, at the image's own size, are no target."""
