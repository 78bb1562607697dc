"""Each image is asked one thing more that is not there: what comes of it, and that nothing else does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipseg.errors import ClipSegError
from clipseg.measure.reliability import presence_figures
from clipseg.measure.results import Results
from clipseg.prompts.text import AbsentPhrases
from clipseg.run.evaluation import absent_phrases, answers


def test_an_absent_phrase_shares_no_word():
    absent = AbsentPhrases(["red dog", "blue dog", "red cat", "Blue sky", "grass"])
    drawn = {absent.of(["red dog"], seed) for seed in range(60)}
    assert drawn == {"Blue sky", "grass"}
    assert {absent.of(["red dog", "blue sky"], seed) for seed in range(60)} == {"grass"}
    assert absent.of(["red cat grass", "blue dog"], 0) is None
    assert absent.of(["red dog"], 7) == absent.of(["red dog"], 7)


def test_figures_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, size=(30, 2)).astype(np.float32) / 5
    scores[::3, 1] = np.nan
    absent = scores[~np.isnan(scores[:, 1]), 1]
    pairs = [(one > other) + (one == other) / 2 for one in scores[:, 0] for other in absent]
    figures = presence_figures(scores, 0.5)
    assert figures == pytest.approx({"auroc": np.mean(pairs), "fires": np.mean(absent > 0.5)})
    assert presence_figures(np.full((2, 2), np.nan, dtype=np.float32), 0.5) == {}


def test_one_prompt_more_changes_no_other_figure(tiny_evaluation, tmp_path):
    plain = tiny_evaluation.run()
    asked = replace(tiny_evaluation, absent=AbsentPhrases(["zebra crossing"]))
    results = asked.run()
    figures = results.metrics()
    assert {name: value for name, value in figures.items() if not name.startswith(("presence/", "seconds"))} == {
        name: value for name, value in plain.metrics().items() if name != "seconds"
    }
    _, first = np.unique(results.image_key, return_index=True)
    assert (~np.isnan(results.presence[:, 1])).sum() == len(first)
    assert figures["presence/auroc"] == presence_figures(results.presence, 0.5)["auroc"]
    results.save(tmp_path)
    again = Results.load(tmp_path)
    np.testing.assert_array_equal(again.presence, results.presence)
    asked.write(tmp_path, results, seed=0)
    assert "which shares no word with its own" in (tmp_path / "report.html").read_text()


def test_the_scores_are_the_largest_probabilities(tiny_evaluation):
    results = replace(tiny_evaluation, absent=AbsentPhrases(["zebra crossing"])).run()
    sample = next(iter(results.image_key))
    model, data = tiny_evaluation.model, tiny_evaluation.data
    item = data.image_ids.astype(str).tolist().index(sample)
    (maps,) = answers(model, [data[item].image], [model.encode_text(["zebra crossing"])], torch.tensor([0]))
    found = results.presence[results.image_key == sample, 1]
    assert found[~np.isnan(found)].tolist() == pytest.approx([maps.max().item()], abs=1e-5)


def test_pictures_and_classes_ask_for_nothing(tiny_evaluation):
    data = tiny_evaluation.data
    assert absent_phrases(data).of([], 0) in data.asked_phrases
    assert absent_phrases(object()) is None
    data.options = replace(data.options, visual_support=True)
    assert absent_phrases(data) is None


def test_columns_of_another_shape_are_refused(tiny_evaluation):
    results = tiny_evaluation.run()
    with pytest.raises(ClipSegError, match="presence is float32"):
        replace(results, presence=np.zeros((len(results), 3), dtype=np.float32))
