"""PhraseCut as it was trained on and measured, from files to figures (golden cases 3 and 8)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import GOLDEN, arrays, look_error, unpack, values
from golden_predictor import SIDE, Predictor

from clipseg.data import phrase_tasks
from clipseg.data.phrase_tasks import EVALUATION, ReaderOptions, visual_evaluation
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Batch, collate
from clipseg.data.sampling import choose_crop
from clipseg.measure.results import Results
from clipseg.network.preprocess import prepare_images, resize_masks
from clipseg.run.conditioning import Conditioner
from clipseg.run.evaluation import ALONE, Evaluation
from clipseg.run.loading import IN_PROCESS
from clipseg.run.settings import PromptSettings

ROOT = GOLDEN / "08_phrasecut"
# Our names of the golden figures, in the released definition.
FIGURES = {"miou_best": "miou_best", "iou_fg_best": "fgiou_best", "iou_bin_best": "biniou_best", "ap": "ap"}
FIGURES |= {"miou": "miou_0.3", "iou_fg": "fgiou_0.3", "iou_bin": "biniou_0.3"}


def measured(data: PhraseCut) -> tuple[Results, Predictor]:
    model: Any = Predictor()
    evaluation = Evaluation(
        model=model,
        data=data,
        condition=Conditioner(PromptSettings(text_weight=[0.0, 0.0])),
        threshold=0.3,
        provenance={},
        processes=ALONE,
        loader=IN_PROCESS,
    )
    return evaluation.run(), model


class Draws:
    """A generator that gives what was drawn, and notes in which order it is asked."""

    def __init__(self, *, support: int, negative: float = 1.0) -> None:
        self.support, self.negative = support, negative
        self.order: list[str] = []

    def random(self) -> float:
        self.order.append("negative?")
        return self.negative

    def choice(self, candidates: np.ndarray) -> int:
        self.order.append("support")
        assert self.support in candidates
        return self.support

    def integers(self, high: int) -> int:
        assert high == 2**63, "of all else the draws are given"
        return 0


@pytest.fixture
def given_supports(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Task -> support, as they were drawn; each is checked to be one that could be drawn."""
    given = {one["task"]: one["support"] for one in values("08_phrasecut")["visual"]["samples"]}
    choose = PhraseCut._support

    def chosen(self: PhraseCut, candidates: np.ndarray, row: int, rng: Any) -> Any:
        wanted = given[self._keys[row].split("/")[1]]
        assert (wanted is None) == (len(candidates) == 1)
        support = [other for other in candidates.tolist() if self._keys[other] == f"test/{wanted}"]
        return choose(self, candidates, row, Draws(support=support[0] if support else -1))

    monkeypatch.setattr(PhraseCut, "_support", chosen)
    return given


@pytest.mark.parametrize("kind", ["text", "visual"])
def test_golden_phrasecut(kind: str, given_supports: dict[str, str]) -> None:
    options = EVALUATION if kind == "text" else visual_evaluation(seed=0, protocol="released")
    results, model = measured(PhraseCut(ROOT, options, split="test"))
    golden, expected = values("08_phrasecut")[kind], arrays("08_counts")
    keys = [f"test/{one['task']}" for one in golden["samples"]]
    assert sorted(keys) == results.key.tolist(), "who is asked"
    order = np.searchsorted(results.key, keys)
    assert results.phrase[order].tolist() == [one["phrase"] for one in golden["samples"]]
    found = {name: getattr(results.counts, name)[order] for name in ("tp", "fp", "fn", "tn")}
    for name, counts in found.items():
        assert np.abs(counts - expected[f"{kind}_{name}"]).max() <= 10, name
    figures = results.metrics()
    for name, theirs in FIGURES.items():
        assert figures[f"released/{name}"] == pytest.approx(golden[theirs], abs=1e-5), name
    assert len(model.prompts) <= (len(keys) if kind == "visual" else 0)


def test_golden_inputs_of_phrasecut(given_supports: dict[str, str]) -> None:
    """Photos, targets and prompt images, those of unique phrases all zero."""
    inputs = arrays("08_inputs")
    data = PhraseCut(ROOT, visual_evaluation(seed=0, protocol="released"), split="test")
    batches = [collate([data[item]]) for item in range(len(data))]
    place = {key: (batch, number) for batch in batches for number, key in enumerate(batch.keys)}
    photos, targets, prompts = [], [], []
    for one in values("08_phrasecut")["visual"]["samples"]:
        batch, number = place[f"test/{one['task']}"]
        photos.append(prepare_images(batch.images, (SIDE, SIDE))[0])
        targets.append(resize_masks([batch.masks[number]], (SIDE, SIDE))[0])
        prompts.append(shown(batch, number))
    assert look_error(torch.stack(photos).numpy(), inputs, "query") < 1e-4
    assert np.array_equal(torch.stack(targets), unpack(inputs["target"]))
    assert look_error(torch.stack(prompts).numpy(), inputs, "prompt") < 1e-4
    assert [bool(prompt.any()) for prompt in prompts] == inputs["prompt_valid"].tolist()


def shown(batch: Batch, task: int) -> torch.Tensor:
    """Return what CLIP is shown of a task's support, `[3, 352, 352]`."""
    model: Any = Predictor()
    Conditioner(PromptSettings()).visual(model, batch)
    asked = [*batch.support_index.tolist(), *batch.blank_index.tolist()]
    return model.prompts[min(asked.index(task), len(model.prompts) - 1)]  # all blank ones are shown once


def test_by_the_paper_s_protocol_no_task_is_its_own_support() -> None:
    released = PhraseCut(ROOT, visual_evaluation(seed=0, protocol="released"), split="test")
    paper = PhraseCut(ROOT, visual_evaluation(seed=0, protocol="paper"), split="test")
    golden = values("08_phrasecut")["visual"]["samples"]
    assert len(released.task_rows) == len(golden)
    keys = [paper._keys[row] for row in paper.task_rows.tolist()]
    assert sorted(keys) == sorted(f"test/{one['task']}" for one in golden if one["support"] is not None)
    for data, own in ((released, True), (paper, False)):
        drawn = {row: set() for row in paper.task_rows.tolist()}
        read = []
        data._read_mask = lambda row, height, width, read=read: read.append(row) or np.ones((height, width), dtype=np.uint8)
        rng = np.random.default_rng(0)
        for row, found in drawn.items():
            for _ in range(60):
                data._support(data._index.rows(data._index.number(row)), row, rng)
            found |= set(read)
            read.clear()
            everyone = set(data._index.rows(data._index.number(row)).tolist())
            assert found == (everyone if own else everyone - {row})


SAMPLES = values("03_training")["samples"]


def test_golden_training_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crop, the negative, its phrase, the support, its crop, in this order; then all that the network is given."""
    expected = arrays("03_training_samples")
    data = PhraseCut(ROOT, ReaderOptions(training=True, negatives=0.2, visual_support=True), split="train")
    row_of = {key.split("/")[1]: row for row, key in enumerate(data._keys)}
    photos, targets, prompts = [], [], []
    for sample in SAMPLES:
        crops = iter([sample["query_crop"], sample["support_crop"]])
        draws = Draws(support=row_of.get(sample["support_task"], -1), negative=sample["uniform_draw_for_negative"])

        def crop(mask: np.ndarray, rng: Draws, crops: Any = crops) -> tuple[int, int, int]:
            rng.order.append("crop")
            given = next(crops)
            place = (given["top"], given["left"], given["side"])
            offer = np.array([place[:2]])
            assert choose_crop(mask, offer) == place
            held = mask[place[0] : place[0] + place[2], place[1] : place[1] + place[2]].sum() > 0.05 * mask.size
            assert held != given["fell_short"]
            return place

        def negative(row: int, rng: Draws, sample: dict[str, Any] = sample) -> int:
            rng.order.append("phrase")
            return data._index.phrases.tolist().index(sample["phrase"])

        monkeypatch.setattr(phrase_tasks, "random_square_crop", crop)
        monkeypatch.setattr(data, "_negative", negative)
        monkeypatch.setattr(np.random, "default_rng", lambda seed, draws=draws: draws)
        row = row_of[sample["task"]]
        monkeypatch.setattr(data, "epoch_plan", lambda epoch, row=row: {0: np.array([row])})
        batch = collate([data[0, 0]])
        assert draws.order == asked_in_order(sample)
        assert batch.phrases == [sample["phrase"]]
        assert len(batch.support_index) == sample["valid"]
        photos.append(prepare_images(batch.images, (SIDE, SIDE))[0])
        targets.append(resize_masks(batch.masks, (SIDE, SIDE))[0])
        prompts.append(shown(batch, 0) if sample["valid"] else torch.zeros(3, SIDE, SIDE))
    assert look_error(torch.stack(photos).numpy(), expected, "query") < 1e-4
    assert np.array_equal(torch.stack(targets), unpack(expected["target"]))
    assert look_error(torch.stack(prompts).numpy(), expected, "prompt") < 1e-4


def asked_in_order(sample: dict[str, Any]) -> Sequence[str]:
    negative = ["phrase"] if sample["negative"] else []
    support = ["support", "crop"] if sample["valid"] else []
    return ["crop", "negative?", *negative, *support]
