"""A user's own folder: masks and polygons, for training and evaluation, and paths that stay inside it."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_data import SIZE, box_mask, photo, write_voc
from PIL import Image

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.rasterise import rasterise
from clipseg.data.readers.folder import FolderData
from clipseg.data.readers.own.lines import read_lines
from clipseg.errors import ClipSegError

ONE, TWO = (2, 3, 9, 12), (11, 1, 30, 8)
POLYGON = [[4, 4], [20, 4], [20, 12.7], [4, 12]]


def write(root: Path, lines: list[dict], split: str = "train") -> Path:
    path = root / f"{split}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "own"
    for number in range(3):
        photo(root / "photos" / f"{number}.jpg", SIZE if number else SIZE[::-1])
    (root / "masks").mkdir()
    Image.fromarray(box_mask(ONE)).save(root / "masks" / "ones.png")
    Image.fromarray(box_mask(TWO) * 255).save(root / "masks" / "white.png")
    Image.fromarray(box_mask(TWO, SIZE[::-1]) * 255).convert("RGB").save(root / "masks" / "tall.png")
    write(
        root,
        [
            {"image": "photos/1.jpg", "mask": "masks/ones.png", "phrase": "a dog"},
            {"image": "photos/2.jpg", "polygons": [POLYGON], "phrase": "sky"},
            {"image": "photos/0.jpg", "mask": "masks/tall.png", "phrase": "a dog", "note": "passed over"},
            {"image": "photos/1.jpg", "mask": "masks/white.png", "phrase": "sky"},
            {"image": "photos/1.jpg", "polygons": [], "phrase": "ein Käfer"},
        ],
    )
    return root


def test_evaluation_reads_whole_images_with_all_their_tasks(root):
    data = FolderData(root)
    assert data.image_ids.tolist() == ["photos/1.jpg", "photos/2.jpg", "photos/0.jpg"]
    samples = [data[item] for item in range(len(data))]
    assert [sample.image_key for sample in samples] == data.image_ids.tolist()
    assert [[task.phrase for task in sample.tasks] for sample in samples] == [["a dog", "sky", "ein Käfer"], ["sky"], ["a dog"]]
    assert [task.key for task in samples[0].tasks] == ["train/000001", "train/000004", "train/000005"]
    masks = {task.key: task.mask.numpy() for sample in samples for task in sample.tasks}
    assert np.array_equal(masks["train/000001"], box_mask(ONE))
    assert np.array_equal(masks["train/000004"], box_mask(TWO))
    assert np.array_equal(masks["train/000003"], box_mask(TWO, SIZE[::-1]))
    assert np.array_equal(masks["train/000002"], rasterise([np.array(POLYGON).astype(np.int32)], *SIZE))
    assert not masks["train/000005"].any()
    assert all(task.group == task.phrase for sample in samples for task in sample.tasks)
    assert all(sample.image.shape[1:] == task.mask.shape for sample in samples for task in sample.tasks)


def test_training_is_a_function_of_seed_epoch_and_item(root):
    one, other = (FolderData(root, ReaderOptions(training=True, seed=4, negatives=0.4, visual_support=True)) for _ in range(2))
    assert len(one) == 5
    expected = {(epoch, item): one[epoch, item] for epoch in range(3) for item in range(5)}
    for index in reversed(expected):
        sample, again = expected[index], other[index]
        assert sample.image.shape == (3, 24, 24)
        assert torch.equal(sample.image, again.image)
        for a, b in zip(sample.tasks, again.tasks, strict=True):
            assert (a.key, a.phrase, a.seed) == (b.key, b.phrase, b.seed)
            assert torch.equal(a.mask, b.mask)
            assert (a.support is None) == (b.support is None)
    for epoch in range(3):
        keys = sorted(task.key for item in range(5) for task in expected[epoch, item].tasks)
        assert keys == [f"train/{line:06d}" for line in range(1, 6)]
    orders = [[expected[epoch, item].tasks[0].key for item in range(5)] for epoch in range(3)]
    assert orders[0] != orders[1] or orders[1] != orders[2]


def test_visual_prompts_and_held_out_phrases(root):
    data = FolderData(root, ReaderOptions(visual_support=True, singletons="leave_out"))
    tasks = [task for item in range(len(data)) for task in data[item].tasks]
    assert sorted(task.phrase for task in tasks) == ["a dog", "a dog", "sky", "sky"]
    assert all(task.support.mask.any() for task in tasks)
    kept = FolderData(root, ReaderOptions(exclude=lambda phrases: np.array(["dog" in phrase for phrase in phrases])))
    assert {task.phrase for item in range(len(kept)) for task in kept[item].tasks} == {"sky", "ein Käfer"}
    with pytest.raises(ClipSegError, match="has no task"):
        FolderData(root, ReaderOptions(exclude=lambda phrases: np.ones(len(phrases), dtype=bool)))


def test_paths_do_not_leave_the_folder(root, tmp_path):
    photo(tmp_path / "secret.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "out").symlink_to(tmp_path)
    (root / "near.jpg").symlink_to(root / "photos" / "1.jpg")  # a link that stays inside is fine
    (tmp_path / "own-not").mkdir()
    photo(tmp_path / "own-not" / "1.jpg")
    (root / "twin").symlink_to(tmp_path / "own-not")  # begins as the root does
    good = {"image": "near.jpg", "mask": "masks/ones.png", "phrase": "x"}
    write(root, [good])
    assert len(FolderData(root)) == 1
    bad = ["../secret.jpg", "photos/../../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "out/secret.jpg", "twin/1.jpg"]
    for path in [*bad, "..\\secret.jpg", "C:\\secret.jpg", "\\\\host\\x.jpg", "photos/../photos/1.jpg"]:
        for field in ("image", "mask"):
            write(root, [good, good | {field: path}])
            with pytest.raises(ClipSegError, match=rf"train\.jsonl: line 2: {field} .*leaves"):
                FolderData(root, ReaderOptions(training=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected an object of image, phrase, and either mask or polygons"),
        ('{"image": "photos/1.jpg", "phrase": "x"}', "either mask or polygons"),
        ('{"image": "photos/1.jpg", "phrase": "x", "mask": "masks/ones.png", "polygons": []}', "either mask or polygons"),
        ('{"image": "photos/1.jpg", "phrase": " ", "polygons": []}', "phrase is ' '; expected text"),
        ('{"image": "photos/1.jpg", "phrase": "\\ud800", "polygons": []}', "phrase is .*; expected text"),
        ('{"image": "photos/1.jpg", "phrase": 5, "polygons": []}', "phrase is 5"),
        ('{"image": "photos/9.jpg", "phrase": "x", "polygons": []}', "image 'photos/9.jpg': no such file"),
        ('{"image": "photos", "phrase": "x", "polygons": []}', "image 'photos': no such file"),
        ('{"image": 5, "phrase": "x", "polygons": []}', "image is 5; expected a path"),
        ('{"image": "", "phrase": "x", "polygons": []}', "image is ''; expected a path"),
        ('{"image": "a\\u0000b", "phrase": "x", "polygons": []}', "expected a path"),
        ('{"image": "photos/1.jpg", "phrase": "x", "mask": null}', "mask is None; expected a path"),
        ('{"image": "photos/1.jpg", "phrase": "x", "polygons": 5}', "polygons is 5"),
        ('{"image": "photos/1.jpg", "phrase": "x", "polygons": [[[1, 1], [2, 2]]]}', "at least 3"),
        ('{"image": "photos/1.jpg", "phrase": "x", "polygons": [[1, 1, 2, 2, 3, 3]]}', r"list of \[x, y\] pairs"),
    ],
)
def test_a_malformed_line_is_named(root, line, message):
    good = json.dumps({"image": "photos/1.jpg", "mask": "masks/ones.png", "phrase": "x"})
    (root / "train.jsonl").write_text(f"{good}\n\n{line}\n{good}\n")
    with pytest.raises(ClipSegError, match=message) as error:
        FolderData(root, ReaderOptions(training=True))
    assert str(error.value).startswith(f"{root}{os.sep}train.jsonl: line 3")
    assert "\n" not in str(error.value)
    problems: list[str] = []
    assert [task.number for task in read_lines(root, root / "train.jsonl", problems)] == [1, 4]
    assert problems == [str(error.value)]


def test_masks_of_another_size_or_kind_are_errors(root):
    write(root, [{"image": "photos/1.jpg", "mask": "masks/tall.png", "phrase": "x"}])
    with pytest.raises(ClipSegError, match=r"line 1: mask masks/tall.png has 24x32 pixels, its image 32x24"):
        FolderData(root)[0]
    Image.fromarray(box_mask(ONE) * 7).save(root / "masks" / "ones.png")
    write(root, [{"image": "photos/1.jpg", "mask": "masks/ones.png", "phrase": "x"}])
    with pytest.raises(ClipSegError, match=r"ones.png: its values are 0, 7; a mask holds"):
        FolderData(root)[0]


def test_another_layout_or_split_is_named(root, tmp_path):
    with pytest.raises(ClipSegError, match="split 'val' unknown; expected one of train"):
        FolderData(root, split="val")
    (root / "empty.jsonl").write_text("\n")
    with pytest.raises(ClipSegError, match="has no task"):
        FolderData(root, split="empty")
    (root / "latin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ClipSegError, match="save it as UTF-8"):
        FolderData(root, split="latin")
    write_voc(tmp_path / "voc", {"2007_000033": {"cat": (1, 1, 5, 5)}})
    with pytest.raises(ClipSegError, match=r"not a folder of your own \(<split>.jsonl, .*\); found Pascal VOC's layout"):
        FolderData(tmp_path / "voc")
    with pytest.raises(ClipSegError, match="no such folder"):
        FolderData(tmp_path / "nowhere")


VALUES = st.none() | st.integers() | st.text(max_size=6) | st.lists(st.lists(st.floats(), max_size=3), max_size=3)
FIELDS = st.sampled_from(["image", "mask", "polygons", "phrase"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, VALUES | st.lists(VALUES, max_size=2)) | VALUES)
def test_any_line_is_a_task_or_our_one_error(root, line):
    base = {"image": "photos/1.jpg", "phrase": "x"}
    (root / "train.jsonl").write_text(json.dumps(base | line if isinstance(line, dict) else line))
    with contextlib.suppress(ClipSegError):
        assert FolderData(root)[0].tasks[0].mask.max() <= 1
