"""The paper in miniature: which rows of its tables are asked of a sweep on the synthetic data, and what they are compared with.

Source: the paper's Tab. 2, 3, 4 and 9.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from clipseg.measure.alignment import Runs
from clipseg.measure.paper import PROMPT_DELTAS, ROWS
from clipseg.measure.significance import Interval, cluster_bootstrap, paired_t
from clipseg.paper.directions import THRESHOLD, Figure, Panel, Question, Row, Section, Sweep, corrected
from clipseg.studies.visual_prompts.numbers import PromptDeltas

FULL = "phrasecut_pc_plus"
BY_TEXT = "phrasecut_pc"
NO_PRETRAINING = "ablation_no_pretraining"
ABLATIONS = {
    NO_PRETRAINING: "no CLIP pre-training",
    "ablation_no_visual": "no visual",
    "ablation_d16": "D = 16",
    "ablation_layer3": "only layer 3",
    "ablation_highlight": "highlight mask",
    "ablation_no_negatives": "no negatives",
}
MODELS = {BY_TEXT: "CLIPSeg (PC)", "phrasecut_deconv": "CLIP-Deconv"}
LABELS = {FULL: "CLIPSeg (PC+)", **ABLATIONS, **MODELS}
# As released, Tab. 9's "no visual" has the recipe of CLIPSeg (PC) to the last key: one run is both.
RUN_AS = {"ablation_no_visual": BY_TEXT}
EXPERIMENTS = tuple(name for name in LABELS if name not in RUN_AS)
PROMPTS = {"phrasecut": "text prompts", "phrasecut_visual": "visual prompts"}


def sections(runs: Mapping[tuple[str, int], Runs], study: PromptDeltas) -> list[Section]:
    """All that the page shows, answered.

    Args:
        runs: see `Sweep`.
        study: of visual prompts, on the CLIP of these runs.
    """
    sweep = Sweep(runs)
    asked = {"Tab. 9": _ablation(), "Tab. 3": _models(), "Held-out pairs": _held_out()}
    answered = [
        Section(name, [Panel(title, list(map(sweep.answer, questions))) for title, questions in panels])
        for name, panels in asked.items()
    ]
    return [*map(corrected, answered), corrected(Section("Tab. 2", [Panel("ΔP(object), points", _variants(study))]))]


def _printed(table: str, experiment: str, benchmark: str, name: str) -> Figure:
    """A figure on the split `test`, with what the table prints for it; `experiment` is the paper's."""
    rows = [row for row in ROWS if (row.table, row.experiment, row.benchmark) == (table, experiment, benchmark)]
    return Figure(RUN_AS.get(experiment, experiment), benchmark, "test", name, rows[0].values.get(name) if rows else None)


def _ablation() -> Iterator[tuple[str, list[Question]]]:
    for benchmark, prompts in PROMPTS.items():
        for name, title in (("miou_best", "mIoU at the best threshold"), ("ap", "AP")):
            full = _printed("Tab. 9", FULL, benchmark, name)
            rows = [Question(label, _printed("Tab. 9", key, benchmark, name), full) for key, label in ABLATIONS.items()]
            yield f"{prompts}, {title}", [Question(LABELS[FULL], full), *rows]


def _models() -> Iterator[tuple[str, list[Question]]]:
    for name, title in (("miou", "mIoU"), ("iou_fg", "IoU_FG"), ("ap", "AP")):
        full = _printed("Tab. 3", FULL, "phrasecut", name)
        rows = [Question(label, _printed("Tab. 3", key, "phrasecut", name), full) for key, label in MODELS.items()]
        yield f"{title}{'' if name == 'ap' else f' at {THRESHOLD}'}", [Question(LABELS[FULL], full), *rows]


def _held_out() -> Iterator[tuple[str, list[Question]]]:
    """Tab. 4's neighbours: seen and unseen classes of CLIPSeg, and of ViTSeg, which does without CLIP's image tower."""
    printed = {
        (key, split): next(
            row.values[f"miou_{kind}_as_scored"] for row in ROWS if row.experiment == f"zeroshot_unseen10_{name}"
        )
        for key, name in ((FULL, "clipseg"), (NO_PRETRAINING, "vitseg"))
        for split, kind in (("test", "seen"), ("unseen", "unseen"))
    }
    full, full_unseen, random, random_unseen = (
        Figure(key, "phrasecut", split, "miou_best", paper) for (key, split), paper in printed.items()
    )
    without = ABLATIONS[NO_PRETRAINING]
    yield (
        "mIoU at the best threshold",
        [
            Question("CLIPSeg (PC+), `test`", full),
            Question("CLIPSeg (PC+), `unseen` against `test`", full_unseen, full),
            Question(f"{without}, `test`", random),
            Question(f"{without}, `unseen` against `test`", random_unseen, random),
            Question(f"{without} against CLIPSeg (PC+), both on `unseen`", random_unseen, full_unseen),
        ],
    )


def _variants(study: PromptDeltas) -> list[Row]:
    """The variants of Tab. 2; objects of one image are averaged for the test, since they are not independent."""
    images, image_of = np.unique(study.image_key, return_inverse=True)
    objects = np.bincount(image_of)
    rows = []
    for variant, deltas in zip(study.variants, study.deltas.T, strict=True):
        of_images = np.bincount(image_of, weights=deltas) / objects
        interval = cluster_bootstrap(deltas, study.image_key, seed=0)
        row = Row(
            label=variant.replace("_minus_infinity", ", −∞").replace("_scores_times_mask", ", own masks"),
            ours=(float(deltas.mean()),),
            paper=PROMPT_DELTAS.get(variant),
            difference=float(deltas.mean()),
            paper_difference=PROMPT_DELTAS.get(variant),
            images=interval if isinstance(interval, Interval) else None,
            test=paired_t(of_images, np.zeros(len(images))),
        )
        rows.append(row)
    return rows
