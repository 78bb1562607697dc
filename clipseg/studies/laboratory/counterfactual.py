"""`benchmark=counterfactual`: one attribute, the noun or the relation exchanged for another thing's; does the map move?"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipseg.data.sample import Batch
from clipseg.run.jobs import Job
from clipseg.studies.laboratory.asking import Question, mask_iou
from clipseg.studies.laboratory.forms import CONTROLS, control
from clipseg.studies.laboratory.page import run_words
from clipseg.studies.laboratory.results import CONTROL, WordResults
from clipseg.studies.laboratory.statements import Statements

MOST_OVERLAP = 0.1  # IoU of both truths: more, and it is not another thing


@dataclass(frozen=True, eq=False, kw_only=True)
class CounterfactualResults(WordResults):
    """Pairs of phrases that differ in one part and hold for different things of an image, each asked from the other's side.

    Both directions are in each value, so that a map that does not hear the words has a gap of exactly 0.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("gap", "iou_new", "iou_old", "moved")
    FIGURES: ClassVar[Mapping[str, str]] = {
        "gap": "IoU with the thing that is asked for less IoU with the other",
        "iou_new": "IoU with the thing that is asked for",
        "iou_old": "IoU with the other thing",
        "moved": "1 less the IoU of both masks",
    }


def questions(batch: Batch, known: Statements, rng: np.random.Generator) -> list[Question]:
    """Return for each phrase and kind one exchange that holds for another thing of the image, drawn, and the controls."""
    asked: list[Question] = []
    masks = {key: mask.bool().cpu().numpy() for key, mask in zip(batch.keys, batch.masks, strict=True)}
    for task, key in enumerate(batch.keys):
        swaps = sorted(known.swaps(batch.image_keys[0], key, masks), key=lambda swap: (swap[0], swap[1].text))
        for kind, same_kind in groupby(swaps, key=lambda swap: swap[0]):
            others = [swap for swap in same_kind if mask_iou(masks[key], swap[2]) < MOST_OVERLAP]
            if not others:
                continue
            _, after, mask = others[int(rng.integers(len(others)))]
            both = (batch.phrases[task], after.text)
            prompts = {kind: both}
            for name in CONTROLS:
                first, second = (control(name, text, known.phrases, rng) for text in both)
                prompts[f"{CONTROL}{name}"] = (first, second)
            asked += [
                Question(task=task, kind=name, phrase=both[0], asked=after.text, prompts=pair, truth=mask)
                for name, pair in prompts.items()
                if name == kind or pair != both
            ]
    return _distinct(asked)


def _distinct(asked: list[Question]) -> list[Question]:
    """One question a task and control: a phrase with several exchanges would ask its controls as often."""
    return list({(question.task, question.kind): question for question in reversed(asked)}.values())[::-1]


def score(one: Tensor, two: Tensor, before: NDArray[np.bool_], after: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Return the values of `CounterfactualResults.COLUMNS`."""
    old, new = (found.gt(threshold).cpu().numpy() for found in (one, two))
    iou_new = (mask_iou(new, after) + mask_iou(old, before)) / 2
    iou_old = (mask_iou(new, before) + mask_iou(old, after)) / 2
    return {"gap": iou_new - iou_old, "iou_new": iou_new, "iou_old": iou_old, "moved": 1 - mask_iou(old, new)}


def counterfactual(job: Job) -> None:
    """Measure whether masks follow one exchanged part of a phrase to another thing."""
    run_words(job, questions, score, CounterfactualResults, about=ABOUT)


ABOUT = """Two phrases of an image that differ in one attribute, in the noun or in the relation, and hold for different
things. Both are asked, and each mask is compared with what it was asked for (new) and with the other thing (old);
values are means of both directions, so that a model that does not hear the words has a gap of exactly 0. On
PhraseCut both phrases are annotated; on the synthetic data the other is made and its truth is exact. Pairs whose
truths overlap by an IoU of 0.1 or more are left out."""
