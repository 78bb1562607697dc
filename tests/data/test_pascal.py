"""Pascal VOC as published: the masks of classes, what is ignored, the draws, and every way in which it can be damaged."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import SIZE, change, photo, write_coco, write_labels, write_voc
from PIL import Image
from torch.utils.data import DataLoader

from clipseg.data.classes import VOC_NAMES
from clipseg.data.readers import pascal
from clipseg.data.readers.pascal import PascalSplit, PascalZeroShot, draw_as_released, pascal5i
from clipseg.data.sample import collate
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image

IMAGES = {
    "2007_000033": {"aeroplane": (2, 2, 9, 9), "bird": (12, 12, 20, 20)},
    "2007_000042": {"bird": (5, 5, 15, 15), "tv monitor": (18, 2, 23, 12)},
    "2007_000061": {"potted plant": (1, 1, 8, 8)},
    "2007_000123": {"aeroplane": (4, 4, 20, 10), "tv monitor": (3, 14, 9, 20)},
    "2008_000007": {"bird": (0, 0, 24, 24)},
}


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    """Photos here are smaller than what is listed in earnest."""
    monkeypatch.setattr(pascal, "LEAST_PIXELS", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path, IMAGES)
    return tmp_path


def test_each_image_is_asked_for_one_class_by_the_draws_of_python(tmp_path):
    labels = write_voc(tmp_path, IMAGES)
    data = pascal5i(tmp_path, fold=0, visual_support=True)
    rng, names = random.Random(123), VOC_NAMES[:5]
    shown = {image_id: [n for k, n in enumerate(names, start=1) if (map_ == k).any()] for image_id, map_ in labels.items()}
    expected = []
    for image_id in (image_id for image_id in labels if shown[image_id]):
        name = shown[image_id][rng.randint(1, len(shown[image_id])) - 1]
        others = [other for other in labels if name in shown[other]]
        rng.randint(1, len(others))
        support = image_id
        while support == image_id:
            support = others[rng.randint(1, len(others)) - 1]
        expected.append((image_id, name, support))
    assert [(episode.query, episode.name, episode.support) for episode in data.episodes] == expected
    assert data.image_ids.tolist() == [query for query, _, _ in expected]
    for sample, (query, name, support) in zip(data, expected, strict=True):
        (task,), label_map = sample.tasks, labels[query]
        assert (sample.image_key, task.phrase, task.group, task.key) == (query, name, name, f"val/{query}__{name}")
        assert torch.equal(sample.image, read_image(tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{query}.jpg"))
        assert np.array_equal(sample.valid, label_map != 255)
        assert np.array_equal(task.mask, label_map == VOC_NAMES.index(name) + 1)
        assert np.array_equal(task.support.mask, labels[support] == VOC_NAMES.index(name) + 1)
        assert task.support.image.shape[1:] == task.support.mask.shape
    by_text = pascal5i(tmp_path, fold=0, visual_support=False)
    assert by_text.episodes == data.episodes
    assert all(task.support is None for sample in by_text for task in sample.tasks)
    assert len({pascal5i(tmp_path, fold=0, visual_support=False, seed=seed).episodes for seed in range(6)}) > 1


def test_classes_are_called_as_voc_calls_them(root):
    photo(root / "VOCdevkit/VOC2012/JPEGImages/2007_000042.jpg", SIZE)
    (mask,), _ = PascalSplit(root, "val").read_masks("2007_000042", ["tvmonitor"])
    assert mask.sum() == (23 - 18) * (12 - 2)
    assert VOC_NAMES[10] == "diningtable"


def test_a_class_counts_where_it_has_enough_pixels_and_is_asked_for_at_any_size(monkeypatch):
    monkeypatch.setattr(pascal, "LEAST_PIXELS", 10)
    pixels = {"1": {"cat": 9, "dog": 10}, "2": {"cat": 10}, "3": {"cat": 11}, "4": {"cat": 9}, "5": {"dog": 12}, "6": {}}
    drawn = [draw_as_released(pixels, ["cat", "dog"], random.Random(seed), where="here") for seed in range(60)]
    assert {tuple(episode.query for episode in episodes) for episodes in drawn} == {("1", "2", "3", "5")}
    found = {(episode.query, episode.name, episode.support) for episodes in drawn for episode in episodes}
    cats = {("1", "cat", "2"), ("1", "cat", "3"), ("2", "cat", "3"), ("3", "cat", "2")}
    assert found == cats | {("1", "dog", "5"), ("5", "dog", "1")}
    with pytest.raises(ClipSegError, match="here: class 'dog' has fewer than two images"):
        draw_as_released({"5": {"dog": 12}, "2": {"cat": 10}}, ["cat", "dog"], random.Random(0), where="here")


def test_labels_are_the_augmented_ones_where_there_are_any(root):
    assert pascal5i(root, fold=0, visual_support=True).about["labels"] == "SegmentationClass"
    folder = root / "VOCdevkit" / "VOC2012"
    (folder / "SegmentationClass").rename(folder / "SegmentationClassAug")
    assert pascal5i(root, fold=0, visual_support=True).about["labels"] == "SegmentationClassAug"
    with pytest.raises(ClipSegError, match=r"SegmentationClass/2007_000033\.png: no such label map"):
        PascalZeroShot(root)[0]


def test_episodes_repeat_from_their_file(root, tmp_path):
    drawn = pascal5i(root, fold=0, visual_support=False, seed=3)
    path = tmp_path / "episodes.json"
    drawn.save(path)
    assert json.loads(path.read_text())["fold"] == 0
    again = pascal5i(root, fold=0, visual_support=True, episodes=path)
    assert again.episodes == drawn.episodes
    assert again.about["drawn"] == "by others: episodes.json"
    with pytest.raises(ClipSegError, match="episodes of fold 0, but asked for is 2"):
        pascal5i(root, fold=2, visual_support=True, episodes=path)
    change(path, lambda content: content["episodes"][0].update(support="2007_000061"))
    with pytest.raises(ClipSegError, match="support image '2007_000061' does not show"):
        pascal5i(root, fold=0, visual_support=True, episodes=path)


def test_a_class_with_one_image_has_no_support(root):
    with pytest.raises(ClipSegError, match=r"VOC2012, split val: class 'pottedplant' has fewer than two images"):
        pascal5i(root, fold=3, visual_support=True)


def test_a_batch_carries_what_counts(root):
    data = pascal5i(root, fold=0, visual_support=False)
    batch = collate([data[0, 0], data[0, 1]]).to(torch.device("cpu"))
    assert len(batch.valid) == 2
    assert [valid.shape for valid in batch.valid] == [image.shape[1:] for image in batch.images]
    assert not all(bool(valid.all()) for valid in batch.valid)
    loaded = next(iter(DataLoader(data, batch_size=2, collate_fn=collate, num_workers=1)))
    assert loaded.keys == batch.keys
    assert all(map(torch.equal, loaded.valid, batch.valid))


def test_zero_shot_reads_every_image_with_its_labels(tmp_path):
    labels = write_voc(tmp_path, IMAGES)
    data = PascalZeroShot(tmp_path)
    assert data.image_ids.tolist() == list(IMAGES)
    for item, (image_id, label_map) in enumerate(labels.items()):
        record = data[0, item]
        assert record.image_key == image_id
        assert record.image.shape == (3, *label_map.shape)
        assert np.array_equal(record.labels, label_map)
    with pytest.raises(IndexError):
        data[len(IMAGES)]


@pytest.mark.parametrize("inner", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_root_may_be_any_of_the_three_folders(root, inner):
    assert PascalSplit(root / inner, "val").image_ids == list(IMAGES)


def test_another_layout_is_named(tmp_path):
    write_coco(tmp_path, {1: []} | {2: [("cat", [])]})
    with pytest.raises(ClipSegError, match=r"not Pascal VOC's layout .*; found COCO's layout"):
        pascal5i(tmp_path, fold=1, visual_support=False)
    with pytest.raises(ClipSegError, match="no such folder"):
        pascal5i(tmp_path / "nowhere", fold=1, visual_support=False)


def test_what_is_asked_for_must_exist(root):
    with pytest.raises(ClipSegError, match="split 'test' unknown; expected one of val"):
        pascal5i(root, split="test", fold=0, visual_support=False)
    with pytest.raises(ClipSegError, match="fold 4 of Pascal-5i does not exist"):
        pascal5i(root, fold=4, visual_support=True)
    with pytest.raises(ClipSegError, match="shows none of the classes"):
        pascal5i(root, fold=1, visual_support=False)
    with pytest.raises(ClipSegError, match="seed=-1"):
        pascal5i(root, fold=0, visual_support=False, seed=-1)


def test_a_split_without_ground_truth_is_named(root):
    folder = root / "VOCdevkit" / "VOC2012"
    (folder / "ImageSets" / "Segmentation" / "test.txt").write_text("2008_000001\n")
    photo(folder / "JPEGImages" / "2008_000001.jpg")
    with pytest.raises(ClipSegError, match=r"no such label map; fetch it, or choose another split"):
        PascalZeroShot(root, split="test")[0]
    with pytest.raises(ClipSegError, match="no such label map"):
        pascal5i(root, split="test", fold=1, visual_support=False)


def test_damaged_label_maps_are_named(root):
    folder = root / "VOCdevkit/VOC2012"
    path = folder / "SegmentationClass/2007_000042.png"
    good = path.read_bytes()
    write_labels(path, np.full(SIZE, 21, dtype=np.uint8))
    with pytest.raises(ClipSegError, match=r"2007_000042\.png: label value 21; expected 0 to 20 and 255"):
        pascal5i(root, fold=0, visual_support=False)
    write_labels(path, np.ones(SIZE[::-1], dtype=np.uint8))
    with pytest.raises(ClipSegError, match=r"42\.png: 24x32 pixels, but its photo has 32x24"):
        pascal5i(root, fold=0, visual_support=False)
    Image.new("RGB", SIZE[::-1]).save(path)
    with pytest.raises(ClipSegError, match="a picture of mode RGB; expected a palette or gray PNG"):
        pascal5i(root, fold=0, visual_support=False)
    path.write_bytes(good[:-30])
    with pytest.raises(ClipSegError, match=r"42\.png: truncated or damaged"):
        pascal5i(root, fold=0, visual_support=False)
    path.unlink()
    with pytest.raises(ClipSegError, match=r"42\.png: no such label map"):
        pascal5i(root, fold=0, visual_support=False)
    path.write_bytes(good)
    data = pascal5i(root, fold=0, visual_support=False)
    photo(folder / "JPEGImages/2007_000042.jpg", (5, 5))
    with pytest.raises(ClipSegError, match="its photo has 5x5"):
        data[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no image"), ("a\nb\na\n", "no image, or one twice"), ("../x\n", r"image '\.\./x'"), ("n" * 300, "image 'nnn")],
)
def test_a_malformed_list_is_named(root, text, message):
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(text)
    with pytest.raises(ClipSegError, match=message):
        PascalZeroShot(root)
