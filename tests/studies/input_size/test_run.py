"""A model over the size of its input: at each size what the same decoder made for that size would give."""

import json
from pathlib import Path

import pytest

import clipseg
import evaluate
from clipseg.errors import ClipSegError
from clipseg.measure.results import Results
from clipseg.network.model import create_model
from clipseg.studies.input_size.run import choose_sizes


def made_model(image_size):
    return create_model("mini", extract_layers=(1, 2), reduce_dim=16, image_size=image_size).eval()


@pytest.mark.slow
def test_each_size_is_the_evaluation_of_a_model_of_that_size(call, phrasecut_root, monkeypatch):
    root = phrasecut_root(3, splits=("test",))
    common = ("checkpoint=run", "device=cpu", "data.workers=0", f"data.root={root}")
    model = made_model(64)
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: model)
    status, printed, error = call(evaluate, *common, "benchmark=image_size", "image_sizes=[32,64]", "out=sizes")
    assert (status, error) == (0, "")
    together = json.loads(Path("sizes/metrics.json").read_text())
    for size in (32, 64):
        monkeypatch.setattr(clipseg, "load", lambda checkpoint, size=size, **options: made_model(size))
        assert call(evaluate, *common, "benchmark=phrasecut", f"out=alone{size}")[0] == 0
        alone = json.loads(Path(f"alone{size}/metrics.json").read_text())
        of_size = json.loads(Path(f"sizes/{size}/metrics.json").read_text())
        assert alone | {"seconds": 0} == of_size | {"seconds": 0}
        for name in ("miou", "iou_fg", "ap", "mean_iou_official"):
            assert together[f"{name}@{size}"] == alone[name]
        assert Results.load(f"sizes/{size}").provenance["image_size"] == size
        assert Path(f"sizes/{size}/report.html").is_file()
    assert together["miou@32"] != together["miou@64"]
    assert together["samples"] == alone["samples"]
    assert "64x64 (native)" in printed
    assert "Threshold 0.30." in Path("sizes/report.html").read_text()
    assert model.config.image_size == 64


def test_the_size_fits_the_patch(call, phrasecut_root, monkeypatch):
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: made_model(64))
    arguments = ("checkpoint=run", "benchmark=image_size", f"data.root={phrasecut_root()}", "out=out", "image_sizes=[64,90]")
    status, _, error = call(evaluate, *arguments)
    assert status == 2
    assert error == "error: image_sizes=[64, 90]: 90 is no multiple of the patch size 16\n"


@pytest.mark.parametrize(
    ("native", "patch_size", "sizes"),
    [(352, 16, (176, 272, 352, 448, 528, 704)), (336, 14, (168, 252, 336, 420, 504, 672)), (32, 32, (32, 64))],
)
def test_sizes_nobody_named_are_whole_patches(native, patch_size, sizes):
    assert choose_sizes(None, native=native, patch_size=patch_size) == sizes


def test_sizes_somebody_named_are_taken():
    assert choose_sizes([16, 48], native=224, patch_size=16) == (16, 48)
    with pytest.raises(ClipSegError, match="20 is no multiple"):
        choose_sizes([16, 20], native=224, patch_size=16)
