"""The check finds each kind of damage, names it in one line, and calls a whole data set whole."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clipseg.data.upkeep.check import check_data
from clipseg.data.upkeep.findings import Report

Factory = Callable[..., Path]


def errors(report: Report) -> list[str]:
    assert report.ok == (not any(finding.level == "error" for finding in report.findings))
    assert not any("\n" in line for line in report.lines())
    return [finding.text for finding in report.findings if finding.level == "error"]


def test_a_whole_data_set_is_whole(phrasecut_root: Factory) -> None:
    report = check_data(phrasecut_root(2), decode=True)
    assert report.ok
    assert not errors(report)
    assert "info: test: 6 tasks on 2 images (PhraseCut as published: 14,354 and 2,545)" in report.lines()
    assert report.lines()[-1].endswith("phrasecut: no error")


def test_counts_as_published_are_said_to_be(phrasecut_root: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipseg.data.upkeep.check_phrasecut.PUBLISHED_COUNTS", {"val": (7, 2)})
    assert "info: val: 7 tasks on 2 images, as published" in check_data(phrasecut_root(2, splits=("val",))).lines()


def test_each_damaged_photo_is_a_line(phrasecut_root: Factory) -> None:
    root = phrasecut_root(6, splits=("train",))
    photos = [root / "images" / f"{image_id}.jpg" for image_id in range(1, 7)]
    photos[0].unlink()
    photos[1].write_bytes(b"")
    photos[2].write_bytes(photos[2].read_bytes()[:-300])
    Image.new("RGB", (48, 64)).save(photos[4])
    found = errors(check_data(root))
    assert found[0] == "1 of 6 images are missing: 1"
    assert "2.jpg: not an image, or an empty file" in found[1]
    assert found[2].endswith("5.jpg: 48x64 pixels, annotated as 64x48")
    assert len(found) == 3
    decoded = errors(check_data(root, decode=True))
    assert len(decoded) == 4
    assert "3.jpg: truncated" in decoded[2]
    assert check_data(root).lines()[-1].endswith("3 errors")


def test_bad_tasks_are_lines_and_the_rest_is_still_checked(phrasecut_root: Factory) -> None:
    root = phrasecut_root(2, splits=("train", "val"))
    tasks = json.loads((root / "refer_train.json").read_text())
    tasks[0]["Polygons"] = []
    tasks[1]["Polygons"] = [[[[1, 1], [5, 5]]]]
    tasks[3]["task_id"] = tasks[2]["task_id"]
    (root / "refer_train.json").write_text(json.dumps(tasks))
    (root / "refer_val.json").write_text("[{")
    (root / "images" / "2.jpg").unlink()
    found = errors(check_data(root))
    assert [text.split("entry")[-1][:2] for text in found[:3]] == [" 0", " 1", " 3"]
    assert "refer_val.json: not valid JSON" in found[3]
    assert "images are missing: 2" in found[4]
    assert len(found) == 5


def test_points_outside_are_counted_as_information(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1, splits=("train",))
    tasks = json.loads((root / "refer_train.json").read_text())
    tasks[1]["Polygons"] = [[[[0, 0], [64, 48], [65.9, 10], [-1, 5], [3, 49.2]]]]  # the first two are on the border
    (root / "refer_train.json").write_text(json.dumps(tasks))
    report = check_data(root)
    assert report.ok
    assert "info: train: 3 points of 1 tasks lie outside their image and are cut off: train/1__1" in report.lines()


def test_known_wrong_sizes_are_information(phrasecut_root: Factory) -> None:
    root = phrasecut_root(1, splits=("train",))
    for name in ("refer_train.json", "image_data_split.json"):
        (root / name).write_text((root / name).read_text().replace('"image_id": 1,', '"image_id": 61564,'))
    (root / "images" / "1.jpg").unlink()
    Image.new("RGB", (48, 64)).save(root / "images" / "61564.jpg")
    report = check_data(root)
    assert report.ok
    assert "1 of the 17 images of known wrong size" in report.lines()[1]
    assert "61564.jpg: 48x64 pixels, annotated as 64x48" in report.lines()[2]


def test_damaged_image_list_and_forbidden_links_are_lines(phrasecut_root: Factory, tmp_path: Path) -> None:
    root = phrasecut_root(1, splits=("train",))
    (root / "images" / "1.jpg").rename(tmp_path / "1.jpg")
    (root / "images" / "1.jpg").symlink_to(tmp_path / "1.jpg")
    assert "leaves" in errors(check_data(root))[0]
    (root / "image_data_split.json").write_text("[")
    assert "image_data_split.json: not valid JSON" in errors(check_data(root))[0]


def test_a_split_without_its_annotations_is_told(phrasecut_root: Factory) -> None:
    root = phrasecut_root(2, splits=("train", "val"))
    (root / "refer_train.json").unlink()
    line = "refer_train.json is missing, and with it the tasks of 2 images"
    assert errors(check_data(root)) == [line]
    for photo in ("1.jpg", "2.jpg"):  # as `clipseg data download --split val` leaves it
        (root / "images" / photo).unlink()
    report = check_data(root)
    assert report.ok
    assert f"info: {line}" in report.lines()


def test_a_photo_linked_to_itself_is_missing(phrasecut_root: Factory) -> None:
    root = phrasecut_root(2, splits=("train",))
    (root / "images" / "2.jpg").unlink()
    (root / "images" / "2.jpg").symlink_to("2.jpg")
    assert errors(check_data(root)) == ["1 of 2 images are missing: 2"]
