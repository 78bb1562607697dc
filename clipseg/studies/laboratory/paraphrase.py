"""`benchmark=paraphrase`: the same said otherwise; how much of the mask stays, and how much IoU goes?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipseg.data.sample import Batch
from clipseg.run.jobs import Job
from clipseg.studies.laboratory.asking import Question, mask_iou, statement
from clipseg.studies.laboratory.forms import CONTROLS, FORMS, control
from clipseg.studies.laboratory.page import run_words
from clipseg.studies.laboratory.results import CONTROL, WordResults
from clipseg.studies.laboratory.statements import Statements


@dataclass(frozen=True, eq=False, kw_only=True)
class ParaphraseResults(WordResults):
    """Phrases beside a form of theirs that means the same."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("iou_lost", "mask_iou", "iou")
    FIGURES: ClassVar[Mapping[str, str]] = {
        "iou_lost": "IoU of the phrase less that of the form",
        "mask_iou": "IoU of both masks",
        "iou": "IoU of the form",
    }


def questions(batch: Batch, known: Statements, rng: np.random.Generator) -> list[Question]:
    """Return every form of every phrase that differs from it, and the controls."""
    asked = []
    for task, phrase in enumerate(batch.phrases):
        said = statement(batch, known, task)
        forms = {kind: form(said, rng) for kind, form in FORMS.items()}
        forms |= {f"{CONTROL}{name}": control(name, phrase, known.phrases, rng) for name in CONTROLS}
        asked += [
            Question(task=task, kind=kind, phrase=phrase, asked=text, prompts=(phrase, text))
            for kind, text in forms.items()
            if text is not None and text != phrase
        ]
    return asked


def score(one: Tensor, two: Tensor, before: NDArray[np.bool_], after: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Return the values of `ParaphraseResults.COLUMNS`."""
    plain, other = (found.gt(threshold).cpu().numpy() for found in (one, two))
    iou = mask_iou(other, after)
    return {"iou_lost": mask_iou(plain, before) - iou, "mask_iou": mask_iou(plain, other), "iou": iou}


def paraphrase(job: Job) -> None:
    """Measure what other words for the same do to masks."""
    run_words(job, questions, score, ParaphraseResults, about=ABOUT)


ABOUT = """Each phrase is asked as it is and in forms that mean the same; a form that does not apply, or changes nothing, is
left out. Plurals keep the truth, which holds all that fits. Synonyms are of one synset of WordNet, among the
nouns at hand. A typing error exchanges two neighbouring letters of the longest word. CLIP reads lower case alone,
whatever the case. The controls stand in the form's place and mean something else: the words shuffled, nothing,
another phrase of the split."""
