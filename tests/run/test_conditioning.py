"""PhraseCut+: negatives, support samples, templates and mixes, each a function of the seed."""

import numpy as np
import pytest
import torch

from clipseg.data.phrase_tasks import ReaderOptions, visual_evaluation
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import collate
from clipseg.errors import ClipSegError
from clipseg.run.conditioning import Conditioner
from clipseg.run.settings import PromptSettings


def items(data, epoch=0):
    return [data[epoch, item] for item in range(len(data))]


def test_negatives_take_another_phrase_and_an_empty_mask(phrasecut_root):
    root = phrasecut_root(n=40, splits=("train",))
    plain = {t.key: t for sample in items(PhraseCut(root, ReaderOptions(training=True))) for t in sample.tasks}
    tasks = [t for s in items(PhraseCut(root, ReaderOptions(training=True, negatives=0.2))) for t in s.tasks]
    negative = [task for task in tasks if not task.mask.any()]
    assert 0.1 < len(negative) / len(tasks) < 0.3
    assert all(task.phrase != plain[task.key].phrase for task in negative)
    assert all(task.phrase == plain[task.key].phrase for task in tasks if task.mask.any())


def test_support_shows_the_phrase_and_where_it_occurs_once_text_alone_counts(phrasecut_root):
    root = phrasecut_root(n=6, splits=("train",))
    data = PhraseCut(root, ReaderOptions(training=True, visual_support=True, negatives=0.5))
    occurrences = dict(zip(*np.unique(data.tasks.phrases[:], return_counts=True), strict=True))
    for sample in items(data):
        for task in sample.tasks:
            assert (task.support is None) == (occurrences[task.phrase] == 1)
            if task.support is not None:
                inside = task.support.image[:, task.support.mask > 0].float().mean(dim=1)
                # A support of a negative shows the new phrase.
                strongest = {"red": 0, "green": 1, "blue": 2}.get(task.phrase)
                assert strongest is None or int(inside.argmax()) == strongest


def test_items_are_functions_of_seed_epoch_and_index(phrasecut_root):
    root = phrasecut_root(n=5, splits=("train",))

    def drawn(seed, epoch):
        data = PhraseCut(root, ReaderOptions(training=True, visual_support=True, negatives=0.3, seed=seed))
        tasks = [task for sample in items(data, epoch) for task in sample.tasks]
        return [(t.key, t.phrase, t.seed, None if t.support is None else int(t.support.image.sum())) for t in tasks]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(0, 1)
    assert sorted(drawn(0, 0), key=str) != sorted(drawn(1, 0), key=str)


def test_visual_evaluation_leaves_out_phrases_that_occur_once_and_never_shows_the_task_itself(phrasecut_root):
    root = phrasecut_root(n=4, splits=("test",))
    data = PhraseCut(root, visual_evaluation(seed=0, protocol="paper"), split="test")
    tasks = [(sample, task) for sample in items(data) for task in sample.tasks]
    assert all(task.support is not None for _, task in tasks)
    assert not any(
        torch.equal(task.support.image, sample.image) and torch.equal(task.support.mask, task.mask) for sample, task in tasks
    )


def test_one_phrase_has_no_negatives(phrasecut_root):
    root = phrasecut_root(n=1, splits=("train",))
    options = ReaderOptions(training=True, negatives=0.2, exclude=lambda phrases: np.array(phrases) != "red")
    with pytest.raises(ClipSegError, match="negatives=0"):
        PhraseCut(root, options)


def test_exclusion_removes_phrases(phrasecut_root):
    root = phrasecut_root(n=3, splits=("train",))
    data = PhraseCut(root, ReaderOptions(training=True, exclude=lambda phrases: np.array([p == "red" for p in phrases])))
    phrases = {task.phrase for sample in items(data) for task in sample.tasks}
    assert "red" not in phrases
    assert "green" in phrases


def batch_of(root, **options):
    data = PhraseCut(root, ReaderOptions(training=True, visual_support=True), **options)
    return collate([data[0, item] for item in range(4)])


def test_text_weight_one_is_the_text_and_zero_the_image(phrasecut_root, tiny_model):
    batch = batch_of(phrasecut_root(n=6, splits=("train",)))
    text = Conditioner(PromptSettings(text_weight=[1, 1]))(tiny_model, batch)
    assert torch.allclose(text, tiny_model.encode_text(batch.phrases), atol=1e-6)
    visual = Conditioner(PromptSettings(text_weight=[0, 0]))
    conditions = visual(tiny_model, batch)[batch.support_index]
    assert torch.allclose(conditions, visual.visual(tiny_model, batch), atol=1e-5)


def test_mixes_lie_between_and_differ_by_task(phrasecut_root, tiny_model):
    batch = batch_of(phrasecut_root(n=6, splits=("train",)))
    ends = [Conditioner(PromptSettings(text_weight=[w, w]))(tiny_model, batch) for w in (0, 1)]
    mixed = Conditioner(PromptSettings(text_weight=[0, 0.5]))(tiny_model, batch)
    weights = ((mixed - ends[0]) / (ends[1] - ends[0])).median(dim=1).values
    weights = weights[batch.support_index]
    assert (weights >= 0).all()
    assert (weights <= 0.5).all()
    assert len(set(weights.tolist())) == len(weights)


def test_templates_are_drawn_by_the_task_s_seed_and_averaged_in_an_ensemble(phrasecut_root, tiny_model):
    batch = batch_of(phrasecut_root(n=6, splits=("train",)))
    texts = []
    real = tiny_model.backbone.encode_text
    tiny_model.backbone.encode_text = lambda given: texts.append(list(given)) or real(given)
    try:
        drawn = Conditioner(PromptSettings(templates="extended", text_weight=[1, 1]))
        assert torch.equal(drawn(tiny_model, batch), drawn(tiny_model, batch))
        assert texts[0] == texts[1] != batch.phrases
        ensemble = Conditioner(PromptSettings(templates=["{}", "a {}."], ensemble=True, text_weight=[1, 1]))(tiny_model, batch)
    finally:
        tiny_model.backbone.encode_text = real
    filled = [f"a {phrase}." for phrase in batch.phrases]
    expected = (tiny_model.encode_text(batch.phrases) + tiny_model.encode_text(filled)) / 2
    assert torch.allclose(ensemble, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"visual_prompt": "sparkle"}, {"templates": "nice"}, {"text_weight": [0.5, 0.2]}])
def test_prompt_settings_that_cannot_be(options):
    with pytest.raises(ClipSegError):
        Conditioner(PromptSettings(**options))


def test_crops_have_a_key_of_their_own(phrasecut_root):
    root = phrasecut_root(n=2, splits=("train",), size=(48, 64))
    cropped = {tuple(sample.image.shape[1:]) for sample in items(PhraseCut(root, ReaderOptions(training=True)))}
    whole = {tuple(sample.image.shape[1:]) for sample in items(PhraseCut(root, ReaderOptions(training=True, crop=False)))}
    assert (cropped, whole) == ({(48, 48)}, {(48, 64), (64, 48)})
