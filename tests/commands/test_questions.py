"""`clipseg predict`: contrast, specks, components, templates and mixes, each against its own arithmetic."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from clipseg import Mix, Segmenter, VisualPrompt
from clipseg.__main__ import main
from clipseg.commands.questions import Question, components, label_map, without_specks
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import save_release


def question(**fields: Any) -> Question:
    usual = {"names": ["a", "b"], "rest": [], "joined": False, "threshold": 0.3, "min_area": 0.0, "components": False}
    return Question(**({"contrast": False} | usual | fields))


def rows(*texts: str) -> NDArray[np.bool_]:
    return np.array([[letter == "#" for letter in text] for text in texts])


def test_contrast_is_the_softmax_of_logits():
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked = question(rest=["background"], contrast=True, threshold=None)
    shares = asked.combine(logits.sigmoid())
    assert torch.allclose(shares, logits.softmax(dim=0)[:2])
    best = logits.argmax(dim=0).numpy()
    masks = asked.masks(shares)
    assert np.array_equal(masks, np.stack([best == 0, best == 1]))
    assert np.array_equal(label_map(masks), np.where(best == 2, 0, best + 1))
    sure = asked.combine(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).float())
    assert sure.isfinite().all()
    assert sure.flatten().tolist() == pytest.approx([1, 0])
    assert asked.combine(torch.zeros(3, 1, 1)).isfinite().all()


def test_specks_are_left_out():
    mask = rows("##...#", "##..#.", "......", "....##")
    assert np.array_equal(without_specks(mask, 0.1), rows("##....", "##....", "......", "......"))
    # The two that touch by a corner are one of two pixels, as the last.
    assert np.array_equal(without_specks(mask, 2 / 24), mask)
    assert np.array_equal(without_specks(mask, 0), mask)
    assert not without_specks(np.zeros((3, 3), dtype=bool), 0.5).any()
    cut = question(min_area=0.1).masks(torch.from_numpy(np.stack([mask * 0.31, mask * 0.29])))
    assert np.array_equal(cut[0], rows("##....", "##....", "......", "......"))
    assert not cut[1].any()


def test_components_have_boxes_and_points_inside():
    mask = rows(
        "..........",
        "..#.......",
        "..#..#####",
        "..#..#####",
        "..####.###",
        ".........#",
    )
    ring = np.ones((9, 9), dtype=bool)
    ring[2:7, 2:7] = False
    found = components(mask)
    assert [part["box"] for part in found] == [[2, 1, 10, 6]]
    assert found[0]["area"] == round(mask.sum() / 60, 6)
    mask[4] = rows("..#....###")[0]
    found = components(mask)
    assert [part["box"] for part in found] == [[5, 2, 10, 6], [2, 1, 3, 5]]
    assert found[0]["point"] == [8, 3]
    for part in [*found, *components(ring)]:
        x, y = part["point"]
        assert (mask if part in found else ring)[y, x]
    assert components(np.zeros((2, 2), dtype=bool)) == []


@pytest.fixture(scope="module")
def weights(seeing_model: CLIPSeg, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    save_release(seeing_model, folder, card="", extra={})
    return str(folder)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def predict(photo: str, *options: str, out: Path) -> dict[str, Any]:
    assert main(["predict", photo, *options, "--out", str(out)]) == 0
    (line,) = (out / "predictions.jsonl").read_text().splitlines()
    return dict(json.loads(line))


def read(out: Path, name: str) -> NDArray[Any]:
    with Image.open(out / name) as image:
        return np.asarray(image)


def test_one_label_map_of_all_prompts(weights: str, photo: str, seeing_model: CLIPSeg, tmp_path: Path):
    out = tmp_path / "out"
    options = ["a", "b", "--weights", weights, "--contrast", "--background", "the rest", "--components"]
    line = predict(photo, *options, out=out)
    best = torch.from_numpy(Segmenter(seeing_model)(photo, ["a", "b", "the rest"]).numpy()).logit().argmax(dim=0).numpy()
    labels = read(out, line["labels"])
    assert (labels != np.where(best == 2, 0, best + 1)).mean() < 0.005
    for number, found in enumerate(line["prompts"], start=1):
        assert np.array_equal(read(out, found["mask"]) == 255, labels == number)
        assert sum(part["area"] for part in found["components"]) == pytest.approx(found["area"], abs=1e-4)
    assert (line["threshold"], line["background"]) == (None, "the rest")
    (out / line["labels"]).unlink()
    predict(photo, *options, "--resume", out=out)
    assert (out / line["labels"]).exists()


def test_templates_and_mixes(weights: str, photo: str, seeing_model: CLIPSeg, tmp_path: Path):
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:20, 5:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    mark = str(tmp_path / "mask.png")
    given = ["a dog", "--mix", "a cat", photo, mark, "--mix-weight", "0.25", "--templates", "fixed", "--weights", weights]
    line = predict(photo, *given, out=tmp_path / "out")
    assert [found["prompt"] for found in line["prompts"]] == ["a dog", "a cat with photo"]
    segment = Segmenter(seeing_model, templates="fixed")
    expected = segment(photo, ["a dog", Mix("a cat", VisualPrompt(photo, mark), 0.25)]).numpy()
    for found, values in zip(line["prompts"], expected, strict=True):
        assert np.allclose(read(tmp_path / "out", found["probabilities"]) / 65535, values, atol=1e-4)
    again = predict(photo, *given[:-4], "--weights", weights, "--resume", out=tmp_path / "out")
    assert again["question"] != line["question"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--contrast", "--join", "--threshold", "0.4"], "--join, --threshold with --contrast, where each pixel goes to the"),
        (["--contrast", "--minus", "x"], "--minus with --contrast"),
        (["--background", "x"], "--background 'x' is for --contrast alone"),
        (["--templates", "no"], "templates='no' unknown; expected one of plain"),
    ],
)
def test_options_that_do_not_go_together(
    weights: str, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
):
    assert main(["predict", photo, "a", *options, "--weights", weights, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out/*.png"))
