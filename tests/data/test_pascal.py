"""Pascal VOC as published: the masks of classes, what is ignored, the supports, and every way in which it can be damaged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import SIZE, change, photo, write_coco, write_labels, write_voc
from PIL import Image
from torch.utils.data import DataLoader

from clipseg.data.classes import PASCAL_CLASSES, pascal5i_fold
from clipseg.data.readers.pascal import PascalSplit, PascalZeroShot, pascal_one_shot, pascal_text
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path, IMAGES)
    return tmp_path


def test_text_asks_each_image_for_each_class_of_the_fold_it_shows(tmp_path):
    labels = write_voc(tmp_path, IMAGES)
    data = pascal_text(tmp_path, classes=pascal5i_fold(0))
    samples = [data[item] for item in range(len(data))]
    asked = [(sample.image_key, task.phrase) for sample in samples for task in sample.tasks]
    # A slow and obvious second count, straight from the label maps.
    expected = [
        (image_id, name)
        for image_id, label_map in labels.items()
        for number, name in enumerate(PASCAL_CLASSES[:5], start=1)
        if (label_map == number).any()
    ]
    assert asked == expected
    assert [sample.image_key for sample in samples] == data.image_ids.tolist()
    for sample in samples:
        label_map = labels[sample.image_key]
        assert sample.image.shape == (3, *label_map.shape)
        assert torch.equal(sample.image, read_image(tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{sample.image_key}.jpg"))
        assert sample.valid.dtype == torch.uint8
        assert np.array_equal(sample.valid, label_map != 255)
        for task in sample.tasks:
            assert task.mask.dtype == torch.uint8
            assert np.array_equal(task.mask, label_map == PASCAL_CLASSES.index(task.phrase) + 1)
            assert task.group == task.phrase
            assert task.support is None
            assert task.key == f"val/{sample.image_key}__{task.phrase}"


def test_names_of_two_words_are_phrases_and_keys_without_spaces(root):
    tasks = [task for sample in pascal_text(root, classes=("tv monitor", "potted plant")) for task in sample.tasks]
    assert {task.phrase for task in tasks} == {"tv monitor", "potted plant"}
    assert tasks[0].key == "val/2007_000042__tv_monitor"


def test_one_shot_shows_another_image_of_the_class(tmp_path):
    labels = write_voc(tmp_path, IMAGES)
    shown = set()
    for seed in range(8):
        one_shot, by_text = pascal_one_shot(tmp_path, fold=0, seed=seed), pascal_text(tmp_path, classes=pascal5i_fold(0))
        assert one_shot.image_ids.tolist() == by_text.image_ids.tolist()
        for sample, other in zip(one_shot, by_text, strict=True):
            assert [task.key for task in sample.tasks] == [task.key for task in other.tasks]
            for task in sample.tasks:
                number = PASCAL_CLASSES.index(task.phrase) + 1
                masks = {i: torch.from_numpy(label_map == number).byte() for i, label_map in labels.items()}
                found = [i for i, mask in masks.items() if torch.equal(mask, task.support.mask)]
                assert found
                assert sample.image_key not in found
                assert task.support.mask.any()
                assert task.support.image.shape[1:] == task.support.mask.shape
                shown.add((sample.image_key, task.phrase, found[0]))
    assert ("2007_000033", "bird", "2007_000042") in shown
    assert ("2007_000033", "bird", "2008_000007") in shown


def test_episodes_are_of_the_seed_and_repeat_from_their_file(root, tmp_path):
    def supports(data):
        return [int(task.support.mask.sum()) for sample in data for task in sample.tasks]

    drawn = [pascal_one_shot(root, fold=0, seed=seed) for seed in range(6)]
    assert supports(drawn[3]) == supports(pascal_one_shot(root, fold=0, seed=3))
    assert len({tuple(supports(data)) for data in drawn}) > 1
    path = tmp_path / "episodes.json"
    drawn[3].save(path)
    assert json.loads(path.read_text())["fold"] == 0
    assert supports(pascal_one_shot(root, fold=0, seed=0, episodes=path)) == supports(drawn[3])
    with pytest.raises(ClipSegError, match="episodes of fold 0, but asked for is 2"):
        pascal_one_shot(root, fold=2, episodes=path)


def test_a_class_with_one_image_has_no_support(root):
    with pytest.raises(ClipSegError, match=r"class 'potted plant' has fewer than two images"):
        pascal_one_shot(root, fold=3)


def test_a_batch_carries_what_counts(root):
    data = pascal_text(root, classes=pascal5i_fold(0))
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
        pascal_text(tmp_path, classes=["cat"])
    with pytest.raises(ClipSegError, match="no such folder"):
        pascal_text(tmp_path / "nowhere", classes=["cat"])


def test_what_is_asked_for_must_exist(root):
    with pytest.raises(ClipSegError, match="split 'test' unknown; expected one of val"):
        pascal_text(root, split="test", classes=["cat"])
    with pytest.raises(ClipSegError, match="class 'tiger' unknown; expected one of aeroplane"):
        pascal_text(root, classes=["cat", "tiger"])
    with pytest.raises(ClipSegError, match="fold 4 of Pascal-5i does not exist"):
        pascal_one_shot(root, fold=4)
    with pytest.raises(ClipSegError, match="shows none of the classes"):
        pascal_text(root, classes=["cat"])
    with pytest.raises(ClipSegError, match="seed=-1"):
        pascal_text(root, classes=["bird"], seed=-1)


def test_a_split_without_ground_truth_is_named(root):
    folder = root / "VOCdevkit" / "VOC2012"
    (folder / "ImageSets" / "Segmentation" / "test.txt").write_text("2008_000001\n")
    photo(folder / "JPEGImages" / "2008_000001.jpg")
    with pytest.raises(ClipSegError, match=r"no such label map; fetch it \(VOC's test has none"):
        PascalZeroShot(root, split="test")[0]
    with pytest.raises(ClipSegError, match="no such label map"):
        pascal_text(root, split="test", classes=["cat"])


def test_damaged_label_maps_are_named(root):
    folder = root / "VOCdevkit/VOC2012"
    path = folder / "SegmentationClass/2007_000042.png"
    good = path.read_bytes()
    write_labels(path, np.full(SIZE, 21, dtype=np.uint8))
    with pytest.raises(ClipSegError, match=r"2007_000042\.png: label value 21; expected 0 to 20 and 255"):
        pascal_text(root, classes=["bird"])
    write_labels(path, np.ones(SIZE[::-1], dtype=np.uint8))
    with pytest.raises(ClipSegError, match=r"42\.png: 24x32 pixels, but its photo has 32x24"):
        pascal_text(root, classes=["bird"])
    Image.new("RGB", SIZE[::-1]).save(path)
    with pytest.raises(ClipSegError, match="a picture of mode RGB; expected VOC's palette PNG"):
        pascal_text(root, classes=["bird"])
    path.write_bytes(good[:-30])
    with pytest.raises(ClipSegError, match=r"42\.png: truncated or damaged"):
        pascal_text(root, classes=["bird"])
    path.unlink()
    with pytest.raises(ClipSegError, match=r"42\.png: no such label map"):
        pascal_text(root, classes=["bird"])
    path.write_bytes(good)
    data = pascal_text(root, classes=["bird"])
    photo(folder / "JPEGImages/2007_000042.jpg", (5, 5))
    with pytest.raises(ClipSegError, match="its photo has 5x5"):
        data[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no image"), ("a\nb\na\n", "no image, or one twice"), ("../x\n", r"image '\.\./x'")],
)
def test_a_malformed_list_is_named(root, text, message):
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(text)
    with pytest.raises(ClipSegError, match=message):
        PascalZeroShot(root)


def test_a_support_that_is_empty_is_an_error(root, tmp_path):
    data = pascal_one_shot(root, fold=0)
    folder = root / "VOCdevkit/VOC2012/SegmentationClass"
    for image_id in ("2007_000042", "2008_000007"):
        with Image.open(folder / f"{image_id}.png") as image:
            size = image.size[::-1]
        write_labels(folder / f"{image_id}.png", np.zeros(size, dtype=np.uint8))
    with pytest.raises(ClipSegError, match="its mask of 'bird' is empty"):
        data[0]


def test_episodes_must_fit_the_data(root, tmp_path):
    path = tmp_path / "episodes.json"
    pascal_one_shot(root, fold=0).save(path)
    good = path.read_text()

    def expect(message, edit):
        path.write_text(good)
        change(path, edit)
        with pytest.raises(ClipSegError, match=message):
            pascal_one_shot(root, fold=0, episodes=path)

    expect("class 'cat' is none of aeroplane", lambda c: c["episodes"][0].update(name="cat"))
    expect("query image 'x' does not show", lambda c: c["episodes"][0].update(query="x"))
    expect("support image '2007_000061' does not show 'aeroplane'", lambda c: c["episodes"][0].update(support="2007_000061"))
    expect("support image None", lambda c: c["episodes"][0].update(support=None))
    expect("is its own support", lambda c: c["episodes"][0].update(support=c["episodes"][0]["query"]))
    expect("episode 1: expected an object", lambda c: c["episodes"][1].pop("name"))
    expect("not a file of episodes", lambda c: c.update(episodes=[]))
    expect("episodes of split 'train', but asked for is 'val'", lambda c: c.update(split="train"))
    path.write_text("[1")
    with pytest.raises(ClipSegError, match="not valid JSON"):
        pascal_one_shot(root, fold=0, episodes=path)
