"""evaluate.py asks a fine-tuned model with the temperatures and thresholds that it keeps, unless told otherwise."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from clipseg.measure.figures import panel
from clipseg.measure.metrics import sample_iou
from clipseg.measure.results import Results
from clipseg.network.model import create_model
from clipseg.network.weights import save_release

OWN = {"red": {"temperature": 0.5, "threshold": 0.42}, "green": {"temperature": 2.0, "threshold": 0.54}}


@pytest.fixture
def asked(phrasecut_root, tmp_path):
    model = create_model("mini", None, extract_layers=(1, 2), reduce_dim=16, image_size=64)
    save_release(model, tmp_path / "release", card="", extra={"calibration": OWN})
    root = phrasecut_root(3, splits=("test",))
    return [f"checkpoint={tmp_path / 'release'}", f"data.root={root}", "data.workers=0", "benchmark=phrasecut"]


def metrics(folder):
    return json.loads(Path(folder, "metrics.json").read_text())


def cut(folder, key):
    return np.array(Image.open(f"{folder}/{key.split('/')[1]}.png")) > 0


def test_each_phrase_is_cut_at_its_own_threshold_after_its_temperature(call, asked):
    status, out, error = call(evaluate, *asked, "out=own", "save_predictions=own_masks")
    assert status == 0
    assert "mIoU, a threshold a phrase" in out
    assert "no threshold of its own for" in error
    results = Results.load("own")
    assert results.provenance["calibration"] == OWN
    cuts = [OWN.get(phrase, {"threshold": 0.3})["threshold"] for phrase in results.phrase.tolist()]
    ious = [sample_iou(results.counts, value)[row] for row, value in enumerate(cuts)]
    assert metrics("own")["own_threshold/miou"] == pytest.approx(np.mean(ious))
    # A temperature moves a probability, and with it the place where the same pixels are cut.
    call(evaluate, *asked, "out=raw", "calibration=false", "save_predictions=raw_masks")
    raw = Results.load("raw")
    assert "calibration" not in raw.provenance
    assert not any(name.startswith("own_threshold") for name in metrics("raw"))
    for row, phrase in enumerate(results.phrase.tolist()):
        assert np.array_equal(results.counts.tp[row], raw.counts.tp[row]) == (phrase not in OWN)
        found, union = cut("own_masks", results.key[row]).sum(), results.official_union[row]
        assert results.official_intersection[row] <= found <= union


def test_pictures_are_cut_at_the_phrase_s_threshold(call, asked, monkeypatch):
    shown = []

    def noting(*pictures, threshold):
        shown.append(threshold)
        return panel(*pictures, threshold=threshold)

    monkeypatch.setattr("clipseg.measure.figures.panel", noting)
    call(evaluate, *asked, "out=own")
    assert set(shown) == {0.3, 0.42, 0.54}


def test_a_threshold_that_is_named_counts_for_all(call, asked):
    call(evaluate, *asked, "out=out", "threshold=0.5")
    results = Results.load("out")
    assert {own["threshold"] for own in results.provenance["calibration"].values()} == {0.5}
    assert metrics("out")["own_threshold/iou_fg"] == pytest.approx(metrics("out")["iou_fg"])


def test_pictures_in_place_of_phrases_are_not_calibrated(call, asked):
    assert call(evaluate, *asked[:-1], "benchmark=phrasecut_visual", "out=out")[0] == 0
    assert "calibration" not in Results.load("out").provenance
