"""The command line, in this process: what it writes, what it says, and its exit status."""

import errno
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipseg import Mix, Segmenter, VisualPrompt, create_model, load
from clipseg.__main__ import COMMANDS, main
from clipseg.commands import predict, prediction_files
from clipseg.commands.file_names import slug, unique_stems
from clipseg.network.weights import save_release

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights(tiny_model, tmp_path_factory):
    """A released folder of `tiny_model`."""
    folder = tmp_path_factory.mktemp("weights")
    save_release(tiny_model, folder, card="", extra={})
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
    options = ["--weights", weights, "--threshold", "0.4", "--out", str(out)]
    assert main(["predict", str(photo), "a dog", "--prompt", "Straße/../../x", *options]) == 0
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


def test_several_images_and_folders_before_the_prompts(weights, photos, tmp_path, monkeypatch):
    (photos / "broken.jpg").unlink()
    (tmp_path / "more").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "more" / "one.bmp")
    monkeypatch.chdir(tmp_path)
    images = ["photos/a dog.png", "photos/", "./more"]
    assert main(["predict", *images, "sky", "--prompt", "nowhere.png", "--weights", weights]) == 0
    lines = read_lines(Path("predictions"))
    assert [[found["prompt"] for found in line["prompts"]] for line in lines] == [["sky", "nowhere.png"]] * 3
    expected = [photos / "a dog.png", photos / "A-dog.jpg", tmp_path / "more" / "one.bmp"]
    assert [line["image"] for line in lines] == list(map(str, expected))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["b_typo.jpg", "dog"], "b_typo.jpg: no such image or folder"),
        (["fotos/", "dog"], "fotos/: no such image or folder"),
        (["no/where", "dog"], "no/where: no such image or folder"),
        (["photo.HEIC", "dog"], "photo.HEIC: no such image or folder"),
        (["photos", "dog"], "photos: is there as a file or folder; write ./photos to mean it, or --prompt 'photos'"),
        (["notes", "dog"], "notes: is there as a file"),
        (["dog", "photos/a dog.png"], "photos/a dog.png: images and folders come before the prompts"),
        (["dog", "cat.jpg"], "cat.jpg: no such image"),
        (["photos/a dog.png"], "no prompt"),
        (["photos/more.png/", "dog"], "no photos in this folder"),
    ],
)
def test_what_looks_like_a_path_is_no_prompt(weights, photos, tmp_path, monkeypatch, capsys, texts, message):
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("")
    assert main(["predict", "photos/A-dog.jpg", *texts, "--weights", weights]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("predictions").exists()


def test_links_and_formats_that_cannot_be_read_are_named(weights, photos, tmp_path, capsys):
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert main(["predict", str(photos), "sky", "--weights", weights, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "2 of 6 photos" in printed.out
    assert "gone.jpg: no such image" in printed.err
    assert "loop.jpg" in printed.err
    assert "phone.HEIC: HEIC, which is not read here; convert it to JPEG" in printed.err


def test_a_later_call_adds_and_replaces_by_image(weights, photos, tmp_path):
    out = tmp_path / "out"
    (photos / "more.png" / "a dog.png").write_bytes((photos / "a dog.png").read_bytes())
    options = ["--weights", weights, "--out", str(out)]
    one, two, other = (str(photos / name) for name in ("a dog.png", "A-dog.jpg", "more.png/a dog.png"))
    assert main(["predict", one, "sky", *options]) == 0
    assert main(["predict", two, "sky", *options]) == 0
    assert main(["predict", str(photos / "broken.jpg"), "sky", *options]) == 1
    assert main(["predict", other, one, "sun", *options]) == 0
    lines = read_lines(out)
    assert {line["image"]: line["prompts"][0]["prompt"] for line in lines} == {one: "sun", two: "sky", other: "sun"}
    assert len(lines) == 3
    assert {line["image"]: line["overlay"] for line in lines} == {
        one: "a-dog.overlay.png",
        two: "A-dog-2.overlay.png",
        other: "a-dog-3.overlay.png",
    }
    assert len({line["prompts"][0]["mask"].lower() for line in lines}) == 3


def test_resume_skips_what_was_asked_the_same_and_is_whole(weights, photos, tmp_path, monkeypatch, capsys):
    out, asked = tmp_path / "out", []
    read = predict.read_image
    monkeypatch.setattr(predict, "read_image", lambda path: asked.append(path.name) or read(path))
    (photos / "broken.jpg").unlink()

    def call(*arguments):
        asked.clear()
        assert main(["predict", str(photos), *arguments, "--weights", weights, "--out", str(out)]) == 0
        assert "2 of 2 photos" in capsys.readouterr().out
        return asked

    assert call("sky") == ["A-dog.jpg", "a dog.png"]
    assert call("sky", "--resume") == []
    next(out.glob("a-dog*.mask.png")).unlink()
    assert call("sky", "--resume") == ["a dog.png"]
    for other in (["sun"], ["sun", "--minus", "sky"], ["sun", "--threshold", "0.5"], ["sun", "sky"], ["sun", "sky", "--join"]):
        assert call(*other, "--resume") == ["A-dog.jpg", "a dog.png"]
        assert call(*other, "--resume") == []
    assert call("sun") == ["A-dog.jpg", "a dog.png"]
    assert len(read_lines(out)) == 2
    weights = str(tmp_path / "other")
    save_release(create_model("mini", None, extract_layers=(1, 2), reduce_dim=16, seed=1), weights, card="", extra={})
    assert call("sun", "--resume") == ["A-dog.jpg", "a dog.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_after_the_photo_and_nothing_is_lost(weights, photos, tmp_path, monkeypatch, capsys, number):
    (photos / "broken.jpg").unlink()
    segment = predict.Segmenter.__call__
    monkeypatch.setattr(predict.Segmenter, "__call__", lambda *args: signal.raise_signal(number) or segment(*args))
    arguments = ["predict", str(photos), "sky", "--weights", weights, "--out", str(tmp_path / "out")]
    assert main(arguments) == 75
    printed = capsys.readouterr()
    assert "1 of 2 photos segmented" in printed.out
    assert printed.err == f"stopped by {signal.Signals(number).name}; the same command with --resume goes on\n"
    assert [Path(line["image"]).name for line in read_lines(tmp_path / "out")] == ["A-dog.jpg"]
    monkeypatch.setattr(predict.Segmenter, "__call__", segment)
    (tmp_path / "out" / ".x.png.0.part").touch()  # as a kill leaves it
    assert main([*arguments, "--resume"]) == 0
    assert len(read_lines(tmp_path / "out")) == 2
    assert not list((tmp_path / "out").glob(".*"))


def test_a_full_disk_keeps_what_was_written(weights, photos, tmp_path, monkeypatch, capsys):
    (photos / "broken.jpg").unlink()
    out = tmp_path / "out"

    def full(path, pixels):
        if path.name.startswith("a-dog"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, pixels)

    write = prediction_files._write_png
    monkeypatch.setattr(prediction_files, "_write_png", full)
    arguments = ["predict", str(photos), "sky", "--weights", weights, "--out", str(out)]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "1 of 2 photos segmented" in printed.out
    assert "free the space" in printed.err
    (line,) = read_lines(out)
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"image": "cut off')
    monkeypatch.setattr(prediction_files, "_write_png", write)
    assert main([*arguments, "--resume"]) == 0
    assert read_lines(out)[0] == line
    assert len(read_lines(out)) == 2


@pytest.mark.parametrize(
    "content", ["hello\n", "[]\n", "{}\n", '{"image": "a", "overlay": "../x.overlay.png", "prompts": []}\n', "\n", "\xff\n"]
)
def test_a_file_that_is_not_its_own_is_left_alone(weights, photos, tmp_path, capsys, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.jsonl").write_bytes(content.encode("latin-1"))
    assert main(["predict", str(photos), "sky", "--weights", weights, "--out", str(out)]) == 2
    assert "predictions.jsonl" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["predictions.jsonl"]
    assert (out / "predictions.jsonl").read_bytes() == content.encode("latin-1")


def test_the_next_photo_is_read_and_the_last_written_while_one_passes_the_network(weights, photos, tmp_path, monkeypatch):
    (photos / "broken.jpg").unlink()
    second_is_read, second_is_asked = threading.Event(), threading.Event()
    read, write, segment = predict.read_image, predict.write_answer, predict.Segmenter.__call__

    def reading(path):
        if path.name == "a dog.png":
            second_is_read.set()
        return read(path)

    def segmenting(self, image, conditions):
        assert second_is_read.wait(60), "the second photo is read while the first is segmented"
        if image.shape[1:] == read(photos / "a dog.png").shape[1:]:
            second_is_asked.set()
        return segment(self, image, conditions)

    def writing(*arguments):
        assert second_is_asked.wait(60), "the first photo is written while the second is segmented"
        return write(*arguments)

    monkeypatch.setattr(predict, "read_image", reading)
    monkeypatch.setattr(predict, "write_answer", writing)
    monkeypatch.setattr(predict.Segmenter, "__call__", segmenting)
    assert main(["predict", str(photos), "sky", "--weights", weights, "--out", str(tmp_path / "out")]) == 0
    assert [Path(line["image"]).name for line in read_lines(tmp_path / "out")] == ["A-dog.jpg", "a dog.png"]


def test_a_log_hears_of_progress(weights, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "TELL_EVERY_S", 0)
    main(["predict", str(photos), "sky", "--weights", weights, "--out", str(tmp_path / "out")])
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("skipped")]
    assert told == ["1 of 3 photos", "2 of 3 photos", "3 of 3 photos"]


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
    stems = unique_stems(names, {"x/old.jpg": "A-3"})
    assert len({stem.lower() for stem in [*stems, "a-3"]}) == len(names) + 1
    assert "con" not in stems
    assert unique_stems(["y/old.jpg", "x/old.jpg"], {"x/old.jpg": "old"}) == ["old-2", "old"]
