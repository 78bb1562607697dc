"""Fine-tuning: what it counts, how it divides photos, what it leaves, and that others use what it kept."""

import json

import numpy as np
import pytest
import torch
from composed import train_settings
from made_results import made_results
from PIL import Image, ImageDraw

import clipseg
from clipseg.__main__ import main
from clipseg.errors import ClipSegError
from clipseg.measure.metrics import THRESHOLDS
from clipseg.network.calibration import Calibration, read_calibration
from clipseg.network.feature_cache import FeatureCache
from clipseg.studies.finetune.numbers import calibrate, log_loss, logit_histogram, raw_threshold
from clipseg.studies.finetune.run import FineTuning, Measured, compare, split_folder, worst


def write_photos(root, photos, *, splits=None):
    """Photos of a gray wall with one bright bar each, called "bar", as JSON Lines."""
    rng = np.random.default_rng(0)
    (root / "photos").mkdir(parents=True)
    lines = []
    for number in range(photos):
        picture = Image.fromarray(rng.integers(90, 130, (60, 80, 3), dtype=np.uint8))
        left, top = (int(value) for value in rng.integers(5, 35, size=2))
        ImageDraw.Draw(picture).rectangle((left, top, left + 30, top + 12), fill=(250, 240, 60))
        picture.save(root / "photos" / f"{number}.png")
        corners = [[left, top], [left + 31, top], [left + 31, top + 13], [left, top + 13]]
        lines.append({"image": f"photos/{number}.png", "phrase": "a bar", "polygons": [corners]})
    for name, part in (splits or {"all": slice(None)}).items():
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines[part])))
    return root


def made_logits(temperature):
    """Logits that are right with their own probability, then multiplied: the temperature of the least log loss is known."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (300, 300))
    truth = (rng.random((300, 300)) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return (1 / (1 + np.exp(-logits * temperature))).astype(np.float32), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_a_known_one(temperature):
    probabilities, truth = made_logits(temperature)
    assert calibrate(logit_histogram(probabilities, truth)).temperature == pytest.approx(temperature, rel=0.05)


def test_the_log_loss_is_that_of_all_pixels():
    probabilities, truth = made_logits(1.0)
    p = np.where(truth, probabilities, 1 - probabilities).astype(np.float64)
    assert log_loss(logit_histogram(probabilities, truth), 1.0) == pytest.approx(-np.log(p).mean(), rel=1e-3)


def test_the_threshold_is_that_of_the_largest_iou_and_cuts_the_same_before_and_after():
    probabilities, truth = made_logits(2.0)
    found = calibrate(logit_histogram(probabilities, truth))
    cut = raw_threshold(found)
    iou = [((probabilities > t) & (truth > 0)).sum() / ((probabilities > t) | (truth > 0)).sum() for t in THRESHOLDS]
    assert iou[int(np.argmin(abs(THRESHOLDS - cut)))] == pytest.approx(max(iou), abs=2e-3)
    calibrated = found(torch.from_numpy(probabilities)).numpy()
    assert ((calibrated > found.threshold) != (probabilities > cut)).mean() < 1e-4


def test_photos_are_divided_once_each_and_by_the_seed(tmp_path):
    root = write_photos(tmp_path / "wall", 10)
    parts = split_folder(root, seed=1)
    names = {name: set(part.image_ids.tolist()) for name, part in parts.items()}
    assert {name: len(images) for name, images in names.items()} == {"train": 6, "val": 2, "test": 2}
    assert len(set.union(*names.values())) == 10
    again, other = split_folder(root, seed=1), split_folder(root, seed=2)
    assert set(again["test"].image_ids.tolist()) == names["test"]
    assert set(other["test"].image_ids.tolist()) != names["test"] or set(other["val"].image_ids.tolist()) != names["val"]


def test_a_folder_s_own_splits_stand(tmp_path):
    root = write_photos(tmp_path / "wall", 9, splits={"train": slice(0, 5), "val": slice(5, 7), "test": slice(7, 9)})
    assert {name: len(part.image_ids) for name, part in split_folder(root, seed=0).items()} == {"train": 5, "val": 2, "test": 2}


def test_too_few_photos_are_one_line(tmp_path):
    with pytest.raises(ClipSegError, match="4 labelled photos; at least 5"):
        split_folder(write_photos(tmp_path / "wall", 4), seed=0)


@pytest.mark.parametrize("content", [[], {"a": {}}, {"a": {"temperature": 0, "threshold": 0.5}}, {"a": {"temperature": "x"}}])
def test_damaged_numbers_are_refused(content):
    with pytest.raises(ClipSegError, match="calibration is damaged"):
        read_calibration(content, "config.json")


def test_a_segmenter_divides_the_logits_of_the_phrases_it_knows(seeing_model):
    photo = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    segment = clipseg.Segmenter(seeing_model)
    plain = segment(photo, ["a bar", "sky"])
    seeing_model.calibration = {"a bar": Calibration(2.0, 0.4)}
    try:
        calibrated = segment(photo, ["a bar", "sky"])
    finally:
        seeing_model.calibration = {}
    torch.testing.assert_close(calibrated[0], (plain[0].logit() / 2).sigmoid(), rtol=1e-4, atol=1e-5)
    assert torch.equal(calibrated[1], plain[1])


@pytest.mark.slow
def test_the_command_leaves_a_release_that_predict_takes(tmp_path, capsys, monkeypatch):
    root, out = write_photos(tmp_path / "wall", 10), tmp_path / "own"
    pictured = []
    monkeypatch.setattr("clipseg.studies.finetune.run.worst", lambda *of: pictured.append(of[1]) or worst(*of))
    asked = ["finetune", str(root), "--out", str(out), "--init", "mini", "--steps", "4", "--batch-size", "2"]
    assert main([*asked, "--device", "cpu"]) == 0
    figures = json.loads((out / "metrics.json").read_text())
    for name in ("before/iou_fg", "after/iou_fg", "before/ap", "after/ap", "after/iou_fg_tuned"):
        assert 0 <= figures[name] <= 1
    page = (out / "report.html").read_text()
    assert page.count("<h2>Reliability, ") == 2
    assert page.count("<img ") == 2, "both photos that measure"
    assert (out / "after" / "report.html").is_file()
    kept = json.loads((out / "config.json").read_text())["calibration"]["a bar"]
    assert [results.provenance["calibration"]["a bar"] for results in pictured] == [kept], "what predict will show"
    model = clipseg.load(out)
    assert model.calibration == {"a bar": Calibration(**kept)}
    assert (
        main(["predict", str(root / "photos" / "0.png"), "a bar", "sky", "--weights", str(out), "--out", str(tmp_path / "p")])
        == 0
    )
    line = json.loads((tmp_path / "p" / "predictions.jsonl").read_text())
    assert [prompt.get("threshold", line["threshold"]) for prompt in line["prompts"]] == [kept["threshold"], 0.3]
    capsys.readouterr()
    assert main(asked) == 2
    assert "not empty" in capsys.readouterr().err


def test_before_and_after_are_cut_at_the_threshold_and_at_each_phrase_s_own():
    phrase = np.array(["a bar", "sky"] * 20)
    own = {"a bar": Calibration(1.0, 0.6)}
    before, after = (made_results(quality=quality, phrase=phrase, group=phrase) for quality in (0.3, 0.6))
    figures, rows = compare(Measured(None, before, {}), Measured(None, after, own))
    hits, unions = (np.where(after.phrase == "a bar", c[:, 29], c[:, 14]) for c in (after.counts.tp, after.counts.fp))
    unions = unions + after.counts.positives
    assert figures["after/iou_fg_tuned"] == pytest.approx(hits.sum() / unions.sum())
    plain = [results.counts for results in (before, after)]
    pooled = [c.tp[:, 14].sum() / (c.positives + c.fp[:, 14]).sum() for c in plain]
    assert [figures["before/iou_fg"], figures["after/iou_fg"]] == pytest.approx(pooled)
    assert figures["before/iou_fg_tuned"] == figures["before/iou_fg"], "no phrase has a threshold of its own"
    mean = 100 * (plain[0].tp[:, 14] / (plain[0].positives + plain[0].fp[:, 14])).mean()
    assert figures["gain"] == pytest.approx(100 * (hits / unions).mean() - mean)
    assert [row[2] for row in rows[:2]] == [f"{mean:.1f}"] * 2
    assert [row[4] for row in rows] == [f"{100 * figures['before/ap']:.1f}", "", f"{100 * figures['after/ap']:.1f}", "", ""]


def test_it_trains_as_the_experiment_of_its_name(tmp_path):
    options = {"root": tmp_path, "out": tmp_path / "own", "init": "mini", "steps": 400, "batch_size": 8, "seed": 0}
    ours = FineTuning(**options, device=torch.device("cpu"))._config(2).training
    theirs = train_settings("experiment=finetune", f"data.root={tmp_path}").training
    for name in ("lr", "final_lr", "weight_decay", "batch_size", "validate_every", "patience", "loss"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.slow
def test_whole_photos_pass_the_backbone_once(tmp_path, monkeypatch):
    root, out = write_photos(tmp_path / "wall", 10), tmp_path / "own"
    caches = []
    start = FeatureCache.__init__
    monkeypatch.setattr(FeatureCache, "__init__", lambda self, *arguments: start(self, *arguments) or caches.append(self))
    asked = ["finetune", str(root), "--out", str(out), "--init", "mini", "--steps", "8", "--batch-size", "2", "--whole"]
    assert main([*asked, "--device", "cpu"]) == 0
    assert [cache.computed for cache in caches] == [6]
    assert not (out / "training" / "features").exists()
