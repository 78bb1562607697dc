"""Annotation files: parsed and packed exactly, drawn as PhraseCut's evaluator draws, and every malformed entry named."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from clipseg.data.annotations import PackedStrings, TaskTable, read_images, read_tasks
from clipseg.data.json_entries import iterate_entries
from clipseg.data.rasterise import rasterise, rasterise_official
from clipseg.errors import ClipSegError

TASK: dict[str, Any] = {"task_id": "7__1", "image_id": 7, "phrase": "a dog", "Polygons": [[[[1, 1], [8.9, 1], [4, 6.5]]]]}
IMAGE = {"image_id": 7, "width": 20, "height": 10, "split": "train", "url": "http://localhost/7.jpg"}


def read(tmp_path: Path, *entries: Any, **options: Any) -> TaskTable:
    path = tmp_path / "refer_train.json"
    path.write_text(json.dumps(entries))
    return read_tasks({"train": path}, image_ids={7, 8}, **options)


def evaluator_mask(polygons: list[list[list[float]]], height: int, width: int) -> np.ndarray:
    """PhraseCut's evaluator in the plainest form: a canvas for each polygon, then their union."""
    total = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        if len(polygon) >= 2:
            canvas = Image.new("L", (width, height), 0)
            ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
            total |= np.array(canvas) > 0
    return total


coordinate = st.floats(-30, 60, allow_nan=False) | st.integers(-30, 60)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    polygons=st.lists(st.lists(st.lists(coordinate, min_size=2, max_size=2), max_size=8), max_size=4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_masks_are_the_evaluators(tmp_path: Path, polygons: list[list[list[float]]], height: int, width: int) -> None:
    table = read(tmp_path, TASK | {"Polygons": [polygons[:2], polygons[2:]]}, allow_degenerate=True)
    mask = rasterise_official(table.polygons(0), height, width)
    assert mask.dtype == np.uint8
    assert mask.flags.writeable
    assert np.array_equal(mask, evaluator_mask(polygons, height, width))


def test_coordinates_stay_as_they_are(tmp_path: Path) -> None:
    corners = [[-0.9, 2.999999999], [8.999999999, 2], [8, 9.999999999]]
    table = read(tmp_path, TASK | {"Polygons": [[corners]]})
    assert table.polygons(0)[0].tolist() == corners


def test_packed_tasks_are_the_tasks(tmp_path: Path) -> None:
    triangle, square = [[0, 0], [5, 0], [0, 5]], [[6, 6], [9, 6], [9, 9], [6, 9]]
    second = TASK | {"task_id": "8__1", "image_id": 8, "phrase": "", "Polygons": [[triangle, square], [triangle]]}
    third = TASK | {"task_id": "7__2", "phrase": "ein Bär 🐻"}
    table = read(tmp_path, TASK, second, third)
    assert len(table) == 3
    assert list(table.keys) == ["train/7__1", "train/8__1", "train/7__2"]
    assert list(table.phrases) == ["a dog", "", "ein Bär 🐻"]
    assert table.image_ids.tolist() == [7, 8, 7]
    assert [p.tolist() for p in table.polygons(1)] == [triangle, square, triangle]
    assert [len(table.polygons(task)) for task in range(3)] == [1, 3, 1]


@given(strings=st.lists(st.text(st.characters(codec="utf-8"))))
def test_packed_strings_are_the_strings(strings: list[str]) -> None:
    packed = PackedStrings(strings)
    assert list(packed) == strings
    assert packed[1:] == strings[1:]
    with pytest.raises(IndexError):
        packed[len(strings)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Polygons": []}, "task 7__1: no polygon"),
        ({"Polygons": [[]]}, "task 7__1: no polygon"),
        ({"Polygons": [[[[1, 1], [5, 5]]]]}, "task 7__1: a polygon of 2 points"),
        ({"Polygons": [[[[1, 1]]]]}, "a polygon of 1 point,"),
        ({"Polygons": [[[]]]}, "a polygon of 0 points"),
        ({"Polygons": None}, "no Polygons, as in a split without ground truth"),
        ({"Polygons": [7]}, "expected instances of polygons"),
        ({"Polygons": [[7]]}, r"expected a list of \[x, y\] pairs"),
        ({"Polygons": [[[[1, 1], [2, "3"], [4, 4]]]]}, r"expected a list of \[x, y\] pairs"),
        ({"Polygons": [[[[1, 1], [2, None], [4, 4]]]]}, r"expected a list of \[x, y\] pairs"),
        ({"Polygons": [[[[1, 1], [2], [4, 4]]]]}, r"expected a list of \[x, y\] pairs"),
        ({"Polygons": [[[[1, 1, 1], [2, 2, 2], [4, 4, 4]]]]}, r"expected a list of \[x, y\] pairs"),
        ({"Polygons": [[[[1, 1], [2, float("nan")], [4, 4]]]]}, "coordinate nan"),
        ({"Polygons": [[[[1, 1], [2, float("inf")], [4, 4]]]]}, "coordinate inf"),
        ({"Polygons": [[[[1, 1], [2, -(2**63)], [4, 4]]]]}, "coordinate 9.2"),
        ({"Polygons": [[[[1, 1], [2, 10**30], [4, 4]]]]}, r"expected a list of \[x, y\] pairs"),
        ({"instance_boxes": [[1, 1, 5]]}, r"instance_boxes is \[\[1, 1, 5\]\]; expected a list of \[x, y, width, height\]"),
        ({"instance_boxes": 7}, "instance_boxes is 7"),
        ({"instance_boxes": [[1, 1, "5", 5]]}, "instance_boxes is"),
        ({"instance_boxes": [[1, 1, 0.5, 10**400]]}, "instance_boxes is"),
        ({"phrase": None}, "phrase is None; expected text"),
        ({"phrase": "\ud800"}, "expected text"),
        ({"task_id": 7}, "task_id is 7"),
        ({"task_id": "../7"}, "task_id is '../7'"),
        ({"task_id": "a/b"}, "task_id is 'a/b'"),
        ({"task_id": ""}, "task_id is ''"),
        ({"image_id": "../../etc/passwd"}, "image_id is '../../etc/passwd'; expected a whole number"),
        ({"image_id": True}, "image_id is True"),
        ({"image_id": 10**400}, "image_id is 1000"),
        ({"image_id": 9}, "image 9 is not in image_data_split.json"),
    ],
)
def test_a_malformed_task_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipSegError, match=message) as caught:
        read(tmp_path, TASK | {"task_id": "7__0"}, TASK | change)
    assert "refer_train.json: entry 1" in str(caught.value)
    assert "\n" not in str(caught.value)
    problems: list[str] = []
    kept = read(tmp_path, TASK | {"task_id": "7__0"}, TASK | change, TASK | {"task_id": "7__9"}, problems=problems)
    assert list(kept.keys) == ["train/7__0", "train/7__9"]
    assert problems == [str(caught.value)]
    assert [len(kept.polygons(task)) for task in range(2)] == [1, 1]


@pytest.mark.parametrize(
    ("boxes", "boxless"),
    [([[1, 1, 0, 5], [1, 1, 5, 0.0]], True), ([[1, 1, 0, 5], [1, 1, 5, 0.5]], False), ([], False), (None, False)],
)
def test_boxes_without_area(tmp_path: Path, boxes: Any, boxless: bool) -> None:
    assert read(tmp_path, TASK | {"instance_boxes": boxes}).boxless.tolist() == [boxless]


def test_a_task_id_may_not_come_twice(tmp_path: Path) -> None:
    with pytest.raises(ClipSegError, match="entry 1, task 7__1: this task_id is there twice"):
        read(tmp_path, TASK, TASK)
    path = tmp_path / "refer_train.json"
    path.write_text(json.dumps([TASK]))
    assert list(read_tasks({"a": path, "b": path}, image_ids={7}).keys) == ["a/7__1", "b/7__1"]


def test_degenerate_polygons_are_taken_as_the_evaluator_does_where_asked(tmp_path: Path) -> None:
    table = read(tmp_path, TASK | {"Polygons": [[[[1, 1], [4, 4]], [[8, 8]], []]]}, allow_degenerate=True)
    line, corners = [[1, 1], [2, 2], [3, 3], [4, 4]], [[1, 1], [4, 4], [8, 8]]
    assert np.array_equal(np.argwhere(rasterise_official(table.polygons(0), 10, 10)), line)
    assert np.array_equal(np.argwhere(rasterise(table.polygons(0), 10, 10)), corners)
    assert not rasterise(read(tmp_path, TASK | {"Polygons": []}, allow_degenerate=True).polygons(0), 10, 10).any()


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "[1]", "[1,2]", ' [ {"a": [1, 2]} ,\n"b" , null ] ', "[[], [[]], -1.5e3]"])
def test_entries_are_what_json_reads(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert list(iterate_entries(path)) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{}",
        "7",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1 2]",
        "[1]]",
        "[1],",
        "[1] x",
        "[{]",
        '["a',
        "[" * 100_000,
        "nope",
        "[1}",
    ],
)
def test_what_is_no_json_list_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ClipSegError, match=r"a\.json: not .*JSON"):
        list(iterate_entries(path))


def test_bytes_that_are_no_text_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(ClipSegError, match=r"a\.json: not UTF-8 text"):
        list(iterate_entries(tmp_path / "a.json"))
    with pytest.raises(ClipSegError, match="no such file"):
        list(iterate_entries(tmp_path / "b.json"))
    with pytest.raises(ClipSegError, match="cannot be read"):
        list(iterate_entries(tmp_path))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"image_id": 7}, "expected a list of images, found dict"),
        ([IMAGE, 7], "entry 1: image_id is None"),
        ([IMAGE | {"image_id": "7"}], "entry 0: image_id is '7'"),
        ([IMAGE | {"width": 0}], "entry 0: width is 0"),
        ([IMAGE | {"height": 10.0}], r"entry 0: height is 10\.0"),
        ([IMAGE, IMAGE], "entry 1: image_id 7 is there twice"),
    ],
)
def test_a_malformed_image_entry_is_named(tmp_path: Path, entries: Any, message: str) -> None:
    (tmp_path / "image_data_split.json").write_text(json.dumps(entries))
    with pytest.raises(ClipSegError, match=message) as caught:
        read_images(tmp_path)
    assert "image_data_split.json" in str(caught.value)


def test_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "image_data_split.json").write_text(json.dumps([IMAGE, {"image_id": 8, "width": 1, "height": 2, "url": None}]))
    images = read_images(tmp_path)
    assert (images[7].width, images[7].height, images[7].url) == (20, 10, "http://localhost/7.jpg")
    assert images[8].url == ""


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(TASK)), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_annotations_give_a_table_or_one_clear_line(tmp_path: Path, data: st.DataObject) -> None:
    entries: Any = [copy.deepcopy(TASK), TASK | {"task_id": "7__2"}]
    entries[0][data.draw(st.sampled_from(sorted(TASK)))] = data.draw(json_value)
    text = json.dumps(entries if data.draw(st.booleans()) else data.draw(json_value))
    if data.draw(st.booleans()):
        text = text[: data.draw(st.integers(0, len(text)))] + data.draw(st.text(max_size=2, alphabet='[]{},:"0aN\\'))
    path = tmp_path / "refer_train.json"
    path.write_text(text)
    readers: list[Callable[[], Any]] = [
        lambda: read_tasks({"train": path}, image_ids={7}),
        lambda: read_images(path.rename(tmp_path / "image_data_split.json").parent),
    ]
    for reader in readers:
        message, table = "", None
        try:
            table = reader()
        except ClipSegError as error:
            message = str(error)
        assert "\n" not in message
        if not isinstance(table, TaskTable):
            continue
        for task in range(len(table)):
            assert rasterise(table.polygons(task), 10, 20).shape == (10, 20)
