"""The command line, in this process: what it writes, what it says, and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipseg import Mix, Segmenter, VisualPrompt, create_model, load
from clipseg.__main__ import COMMANDS, main
from clipseg.commands.file_names import slug, unique_stems
from clipseg.network.weights import save_release

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A released folder of a narrow random model whose maps are no flat gray."""
    model = create_model("mini", None, image_size=48, reduce_dim=16)
    with torch.no_grad():
        model.decoder.head.weight.mul_(50)
    folder = tmp_path_factory.mktemp("weights")
    save_release(model, folder, card="", extra={})
    return str(folder)


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos, one of which cannot be read, and things that are no photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a dog.png", (40, 60)), ("A-dog.jpg", (60, 40))):
        Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (folder / "notes.txt").write_text("no photo")
    (folder / "._a dog.png").write_bytes(b"what macOS leaves")
    (folder / "more.png").mkdir()
    return folder


def read_lines(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def read_map(folder, line, index=0):
    with Image.open(folder / line["prompts"][index]["probabilities"]) as image:
        assert image.mode == "I;16"
        return np.asarray(image) / 65535


def test_predict_writes_maps_masks_figure_and_numbers(weights, photos, tmp_path, capsys):
    out, photo = tmp_path / "out", photos / "a dog.png"
    assert (
        main(["predict", str(photo), "a dog", "Straße/../../x", "--weights", weights, "--threshold", "0.4", "--out", str(out)])
        == 0
    )
    (line,) = read_lines(out)
    assert {key: line[key] for key in ("image", "height", "width", "threshold")} == {
        "image": str(photo),
        "height": 40,
        "width": 60,
        "threshold": 0.4,
    }
    expected = Segmenter(load(weights))(photo, ["a dog", "Straße/../../x"]).numpy()
    for index, found in enumerate(line["prompts"]):
        assert found["prompt"] == ["a dog", "Straße/../../x"][index]
        np.testing.assert_allclose(read_map(out, line, index), expected[index], atol=1e-5)
        with Image.open(out / found["mask"]) as image:
            mask = np.asarray(image)
        assert np.array_equal(mask == 255, expected[index] > 0.4)
        assert set(np.unique(mask)) <= {0, 255}
        rows, columns = np.nonzero(mask)
        assert found["area"] == pytest.approx(mask.mean() / 255, abs=1e-6)
        assert 0 < found["area"] < 1
        assert found["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found["mean_probability"] == pytest.approx(expected[index].mean(), abs=1e-5)
    with Image.open(out / line["overlay"]) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("RGB")).std() > 10
    names = {path.name for path in out.iterdir()}
    assert names == {
        "predictions.jsonl",
        "a-dog.overlay.png",
        *(f"a-dog.{prompt}.{kind}.png" for prompt in ("0_a-dog", "1_Strae-x") for kind in ("prob", "mask")),
    }
    assert "1 of 1 photos segmented" in capsys.readouterr().out


def test_predict_skips_what_it_cannot_read_and_says_so(weights, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(photos), "sky", "--weights", weights, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 photos segmented" in printed.out
    assert f"skipped: {photos / 'broken.jpg'}" in printed.err
    lines = read_lines(out)
    assert [Path(line["image"]).name for line in lines] == ["A-dog.jpg", "a dog.png"]
    files = [line["overlay"].lower() for line in lines] + [line["prompts"][0]["mask"].lower() for line in lines]
    assert len(set(files)) == 4  # the two names differ in case and a space alone
    assert all((out / line["prompts"][0]["mask"]).is_file() for line in lines)


def test_minus_and_join(weights, photos, tmp_path):
    photo = photos / "a dog.png"
    one, two, less = Segmenter(load(weights))(photo, ["one", "two", "less"]).numpy()
    arguments = ["predict", str(photo), "one", "two", "--weights", weights]
    assert main([*arguments, "--minus", "less", "--minus", "two", "--out", str(tmp_path / "minus")]) == 0
    (line,) = read_lines(tmp_path / "minus")
    assert [found["prompt"] for found in line["prompts"]] == ["one − less − two", "two − less − two"]
    np.testing.assert_allclose(read_map(tmp_path / "minus", line, 0), np.clip(one - less - two, 0, 1), atol=2e-5)
    assert line["prompts"][1]["box"] is None
    assert main([*arguments, "--join", "--minus", "less", "--out", str(tmp_path / "join")]) == 0
    (line,) = read_lines(tmp_path / "join")
    assert [found["prompt"] for found in line["prompts"]] == ["one + two − less"]
    np.testing.assert_allclose(read_map(tmp_path / "join", line), np.clip(np.maximum(one, two) - less, 0, 1), atol=2e-5)


def test_support_images(weights, photos, tmp_path, capsys):
    photo, support, mask = (str(photos / name) for name in ("a dog.png", "A-dog.jpg", "mask.gif"))
    marked = np.zeros((60, 40), dtype=np.uint8)
    marked[10:40, 5:30] = 255
    Image.fromarray(marked).save(mask)
    out = tmp_path / "out"
    options = ["--weights", weights, "--out", str(out)]
    assert main(["predict", photo, "--support", support, mask, "--support", support, mask, *options]) == 0
    (line,) = read_lines(out)
    assert [found["prompt"] for found in line["prompts"]] == ["A-dog", "A-dog"]
    expected = Segmenter(load(weights))(photo, VisualPrompt(support, mask))[0]
    np.testing.assert_allclose(read_map(out, line), expected, atol=1e-5)
    assert main(["predict", photo, "--support", photo, mask, *options]) == 2
    assert "its image" in capsys.readouterr().err


def test_several_images_before_the_prompts(weights, photos, tmp_path):
    out = tmp_path / "out"
    images = [str(photos / "a dog.png"), str(photos / "A-dog.jpg")]
    assert main(["predict", *images, "sky", "nowhere.png", "--weights", weights, "--out", str(out)]) == 0
    assert [[found["prompt"] for found in line["prompts"]] for line in read_lines(out)] == [["sky", "nowhere.png"]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg", "sky"], "nowhere.jpg: no such image or folder"),
        (["PHOTO"], "no prompt"),
        (["EMPTY", "sky"], "no photos"),
        (["PHOTO", "sky", "--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        (["PHOTO", "sky", "--device", "abacus"], "device=abacus"),
        (["PHOTO", "--support", "nowhere.jpg", "mask.png"], "nowhere.jpg: no such image"),
        (["PHOTO", "sky", "--out", "PHOTOS"], "holds the photos"),
        (["PHOTO", "sky", "--out", "PHOTO"], "cannot be written"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(weights, photos, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    places = {"PHOTO": str(photos / "a dog.png"), "EMPTY": str(tmp_path / "empty"), "PHOTOS": str(photos)}
    arguments = [places.get(argument, argument) for argument in arguments]
    for option, value in (("--weights", weights), ("--out", str(tmp_path / "out"))):
        arguments += [] if option in arguments else [option, value]
    assert main(["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan", "half"])
def test_thresholds_are_probabilities(threshold, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "photo.jpg", "sky", "--threshold", threshold])
    assert f"{threshold} is not in [0, 1]" in capsys.readouterr().err


def test_classify_prints_the_best_first(weights, photos, capsys):
    assert main(["classify", str(photos / "a dog.png"), "dog", "cat", "sky", "--weights", weights, "--templates", "plain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [float(line.split("  ")[0]) for line in lines]
    assert {line.split("  ")[1] for line in lines} == {"dog", "cat", "sky"}
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-3)


def test_data_check(phrasecut_root, capsys):
    root = phrasecut_root(2)
    assert main(["data", "check", str(root), "--decode"]) == 0
    assert "no error" in capsys.readouterr().out
    (root / "images" / "1.jpg").write_bytes(b"")
    assert main(["data", "check", str(root)]) == 1
    assert "1.jpg" in capsys.readouterr().out
    assert main(["data", "check", str(root / "images")]) == 2
    assert main(["data", "check", str(root / "nowhere")]) == 2


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), ["data", "check"], []])
def test_every_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert f"clipseg {' '.join(command)}" in text.strip().splitlines()[-1]
    assert "example" in text


@pytest.mark.parametrize("arguments", [[], ["prdict"], ["predict", "--colour"], ["predict"], ["data"], ["data", "chek", "."]])
def test_what_does_not_exist_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "Traceback" not in capsys.readouterr().err


def test_help_is_fast():
    """Neither the package nor its help imports torch."""
    code = """
import sys, clipseg.__main__
try:
    clipseg.__main__.main(["--help"])
except SystemExit:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_the_package_offers_its_public_names():
    import clipseg

    for name in clipseg.__all__:
        assert getattr(clipseg, name) is getattr(clipseg, name)
    assert clipseg.Mix is Mix
    assert callable(clipseg.classify)
    assert set(clipseg.__all__) <= set(dir(clipseg))
    assert not hasattr(clipseg, "nothing")


@given(st.text(), st.integers(1, 60))
def test_file_names_are_sane_whatever_the_text(text, length):
    found = slug(text, "prompt", length)
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert 0 < len(found) <= max(length + 1, len("prompt"))


@given(st.lists(st.sampled_from(["a.jpg", "A.png", "a-2.jpg", "ä.jpg", "x/a.jpg", "..", "con.jpg", "a:b.jpg"]), max_size=12))
def test_names_never_collide(names):
    stems = unique_stems([Path(name) for name in names])
    assert len({stem.lower() for stem in stems}) == len(names)
    assert "con" not in stems
