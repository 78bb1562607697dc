"""The linear probe from the entry point on: its embeddings, its accuracy, shards, and arguments that cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clipseg
import evaluate
from clipseg.network.model import create_model
from clipseg.network.preprocess import prepare_images
from clipseg.run.distributed import Processes
from clipseg.run.loading import IN_PROCESS
from clipseg.studies.input_size import image_classes, linear_probe
from clipseg.studies.input_size.image_classes import single_objects
from clipseg.studies.input_size.linear_probe import measure_linear_probe
from clipseg.studies.input_size.logistic_regression import classify_linearly

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(image_classes, "SYNTHETIC_PER_CLASS", {"train": 4, "test": 2})
    monkeypatch.setattr(linear_probe, "BATCH", 7)


@pytest.fixture
def probe(call, seeing_model, monkeypatch):
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: seeing_model)
    common = ("checkpoint=run", "benchmark=linear_probe", "device=cpu", "out=out", "data.workers=0")
    return lambda *arguments: call(evaluate, *common, *arguments)


def slow_accuracy(model, data, size):
    with torch.no_grad():
        embeddings = [model.encode_image(prepare_images([data[0, item].image], (size, size)))[0] for item in range(len(data))]
    features = torch.stack(embeddings).numpy()
    found = classify_linearly(features[~data.is_test], data.labels[~data.is_test], features[data.is_test], classes=8)
    return float((found == data.labels[data.is_test]).mean())


def test_drawn_scenes_from_the_entry_on(probe, seeing_model, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("clipseg.data.mini.phrasecut.SPLITS", {"train": 0, "val": 0, "test": 1})
    status, printed, error = probe("data.root=mini", "image_sizes=[48,176]", "seed=3")
    assert (status, error) == (0, "")
    figures = json.loads(Path("out/metrics.json").read_text())
    data = single_objects(seed=3)
    assert figures["accuracy@48"] == pytest.approx(slow_accuracy(seeing_model, data, 48), abs=1 / 16 + 1e-9)
    assert figures["accuracy@176"] > 0.4, "by chance an eighth"
    assert figures["accuracy@176_low"] <= figures["accuracy@176"] <= figures["accuracy@176_high"]
    assert figures["samples"] == 16
    assert "176x176" in printed
    assert "<svg" in Path("out/report.html").read_text()


def test_a_folder_a_class_from_the_entry_on(probe, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = (rng.normal(colour, 20, (30, 20, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.jpg")
    status, printed, error = probe("data.root=photos", "image_sizes=[32]")
    assert (status, error) == (0, "")
    assert json.loads(Path("out/metrics.json").read_text())["accuracy@32"] == 1
    origin = json.loads(Path("out/provenance.json").read_text())
    assert (origin["benchmark"], origin["backbone"]) == ("linear_probe", "mini")
    assert "100.0" in printed


def test_shards_are_the_whole(seeing_model):
    data = single_objects(seed=1)

    def embedded(processes):
        return linear_probe._embed(seeing_model.backbone, data, (32, 48), processes=processes, loader=IN_PROCESS)

    class Two(Processes):
        """Rank 0, to whom the other's share comes from the whole."""

        def gather(self, value):
            assert value.shape[1] == 24
            return [value, whole[:, 1::2]]

    whole = embedded(Processes())
    assert whole.shape == (2, 48, 128)
    np.testing.assert_allclose(embedded(Two(0, 2)), whole, atol=1e-4)


def test_of_a_model_only_the_clip_takes_part(seeing_model):
    options = {"sizes": (32,), "provenance": {}, "processes": Processes(), "loader": IN_PROCESS}
    other = create_model("mini", extract_layers=(3,), reduce_dim=8, image_size=64, seed=5)
    figures = [measure_linear_probe(each.backbone, single_objects(), **options).metrics() for each in (seeing_model, other)]
    assert figures[0].pop("seconds") > 0
    figures[1].pop("seconds")
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["image_sizes=[100]"], "image_sizes=[100]: 100 is no multiple of the patch size 16"),
        (["image_sizes=[64,32]"], "image_sizes=[64, 32] must be ascending"),
        (["image_sizes=[]"], "image_sizes=[] must be ascending"),
        (["image_sizes=[0,32]"], "image_sizes=[0, 32] must be ascending"),
        (["split=nothing"], "leave split out"),
        (["data.root=nowhere"], "no such folder"),
        (["benchmark=phrasecut", "image_sizes=[32]"], "image_sizes=[32] means nothing to benchmark=phrasecut"),
        (["save_predictions=x"], "save_predictions=x means nothing"),
    ],
)
def test_what_cannot_be_asked_is_one_line(probe, tmp_path, arguments, named):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name / "1.png")
    status, _, error = probe("data.root=photos", *arguments)
    assert status == 2
    assert named in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
