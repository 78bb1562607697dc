"""COCO as published: polygons, crowds and gray photos; episodes of the held-out fold; training on all the others."""

import contextlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import SIZE, box_mask, change, compressed, photo, polygon, run_lengths, write_coco, write_voc

from clipseg.data.classes import COCO_CLASSES, coco20i_fold
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.coco import coco20i, coco20i_training
from clipseg.data.readers.instances import InstanceSource, read_instances
from clipseg.errors import ClipSegError

ONE, TWO, THREE = (2, 3, 9, 12), (11, 1, 30, 8), (20, 12, 25, 22)
# Of fold 0 person, airplane and boat; of others bicycle and car.
IMAGES = {
    5: [("person", polygon(ONE)), ("person", run_lengths(TWO)), ("bicycle", polygon(THREE))],
    9: [("person", compressed(TWO)), ("airplane", polygon(ONE))],
    12: [("boat", polygon(ONE) + polygon(THREE)), ("bicycle", polygon(TWO))],
    40: [("airplane", polygon(TWO)), ("boat", polygon(THREE)), ("car", polygon(ONE)), ("person", [])],
    41: [],
}
MASKS = {
    (5, "person"): box_mask(ONE) | box_mask(TWO),
    (9, "person"): box_mask(TWO),
    (9, "airplane"): box_mask(ONE),
    (12, "boat"): box_mask(ONE) | box_mask(THREE),
    (40, "airplane"): box_mask(TWO),
    (40, "boat"): box_mask(THREE),
}
# Every other class of fold 0, so that the whole fold can be drawn from.
REST = [name for name in coco20i_fold(0) if name not in ("person", "airplane", "boat")]
WHOLE = IMAGES | {i: [(name, polygon(ONE)) for name in REST] for i in (50, 51)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_coco(tmp_path, WHOLE)
    return tmp_path


def truth(image_key: str, name: str) -> np.ndarray:
    return box_mask(ONE) if int(image_key) >= 50 else MASKS[int(image_key), name]


@pytest.mark.parametrize("split", ["val2014", "val2017"])
def test_episodes_are_queries_and_other_images_of_their_class(tmp_path, split):
    write_coco(tmp_path, WHOLE, split=split)
    data = coco20i(tmp_path, split=split, fold=0, visual_support=True, count=200)
    tasks = [(sample, task) for sample in data for task in sample.tasks]
    assert len(tasks) == 200
    assert len({task.key for _, task in tasks}) == 200
    assert {task.phrase for _, task in tasks} == set(coco20i_fold(0))
    assert [sample.image_key for sample in data] == data.image_ids.tolist()
    for sample, task in tasks:
        assert sample.image.shape == (3, *SIZE)
        assert sample.valid is None
        assert task.group == task.phrase
        assert task.key.startswith(f"{split}/{sample.image_key}__{task.phrase.replace(' ', '_')}")
        assert np.array_equal(task.mask, truth(sample.image_key, task.phrase))
        others = [i for i in ("5", "9", "12", "40", "50", "51") if i != sample.image_key]
        known = [truth(i, task.phrase) for i in others if int(i) >= 50 or (int(i), task.phrase) in MASKS]
        assert any(np.array_equal(task.support.mask, mask) for mask in known)
        assert task.support.image.shape == (3, *SIZE)


def test_classes_are_drawn_alike_and_specks_never(root):
    data = coco20i(root, fold=0, visual_support=False, count=2000)
    names = [episode.name for episode in data.episodes]
    assert len(names) == 2000
    assert max(names.count(name) for name in set(names)) < 150  # 100 each on average
    # Image 40 holds a person whose outline encloses nothing.
    assert not [e for e in data.episodes if e.name == "person" and "40" in (e.query, e.support)]


def test_by_text_the_same_images_are_asked_in_words(root):
    shown = coco20i(root, fold=0, visual_support=True, count=30, seed=4)
    said = coco20i(root, fold=0, visual_support=False, count=30, seed=4)
    assert [task.key for sample in shown for task in sample.tasks] == [task.key for sample in said for task in sample.tasks]
    assert all(task.support is None for sample in said for task in sample.tasks)
    assert coco20i(root, fold=0, visual_support=False, count=30, seed=5).episodes != said.episodes


@pytest.mark.parametrize("visual_support", [True, False])
def test_a_file_of_episodes_repeats_them(root, tmp_path, visual_support):
    drawn = coco20i(root, fold=0, visual_support=visual_support, count=25, seed=9)
    drawn.save(tmp_path / "episodes.json")
    again = coco20i(root, fold=0, visual_support=True, seed=0, episodes=tmp_path / "episodes.json")
    assert again.episodes == drawn.episodes
    assert all(task.support is not None for sample in again for task in sample.tasks)
    with pytest.raises(ClipSegError, match="episodes of fold 0, but asked for is 1"):
        coco20i(root, fold=1, visual_support=True, episodes=tmp_path / "episodes.json")


def test_a_class_with_one_image_has_no_episode(tmp_path):
    write_coco(tmp_path, {i: objects for i, objects in WHOLE.items() if i != 51})
    with pytest.raises(ClipSegError, match=r"instances_val2014.json: class '.*' has fewer than two images"):
        coco20i(tmp_path, fold=0, visual_support=True)


def test_training_takes_the_other_folds_once_an_epoch(tmp_path):
    write_coco(tmp_path, WHOLE, split="train2014")
    data = coco20i_training(tmp_path, ReaderOptions(training=True, visual_support=True), fold=0)
    assert len(data) == 3
    for epoch in range(4):
        samples = [data[epoch, item] for item in range(len(data))]
        tasks = [task for sample in samples for task in sample.tasks]
        assert sorted(task.key for task in tasks) == ["train2014/12__bicycle", "train2014/40__car", "train2014/5__bicycle"]
        for sample in samples:
            assert sample.image.shape[1:] == SIZE  # whole images: no crop
        for task in tasks:
            assert task.phrase not in coco20i_fold(0)
            assert (task.support is None) == (task.phrase == "car")  # the only one of its class
    held_out = coco20i_training(tmp_path, ReaderOptions(training=True), fold=1)
    assert {task.phrase for i in range(len(held_out)) for task in held_out[0, i].tasks}.isdisjoint(coco20i_fold(1))


def test_training_items_are_functions_of_seed_epoch_and_item(tmp_path):
    write_coco(tmp_path, WHOLE, split="train2014")
    one, other = (
        coco20i_training(
            tmp_path, ReaderOptions(training=True, seed=3, negatives=0.5, phrases_per_image=2, visual_support=True), fold=2
        )
        for _ in range(2)
    )
    indices = [(epoch, item) for epoch in range(2) for item in range(len(one))]
    expected = {index: one[index] for index in indices}
    copied = pickle.loads(pickle.dumps(other))
    for index in reversed(indices):
        for sample in (other[index], copied[index]):
            assert torch.equal(sample.image, expected[index].image)
            for a, b in zip(sample.tasks, expected[index].tasks, strict=True):
                assert (a.key, a.phrase, a.seed) == (b.key, b.phrase, b.seed)
                assert torch.equal(a.mask, b.mask)


def test_negatives_are_classes_the_image_does_not_show(tmp_path):
    write_coco(tmp_path, WHOLE, split="train2014")
    data = coco20i_training(tmp_path, ReaderOptions(training=True, negatives=0.5, visual_support=True), fold=3)
    shown = {str(i): {name for name, _ in objects} for i, objects in WHOLE.items()}
    negatives = 0
    samples = [data[epoch, item] for epoch in range(8) for item in range(len(data))]
    for sample in samples:
        for task in sample.tasks:
            if task.phrase not in shown[sample.image_key]:
                negatives += 1
                assert not task.mask.any()
            else:
                assert task.key.endswith(task.phrase.replace(" ", "_"))
    assert 0.4 < negatives / len(samples) < 0.6


def test_what_is_asked_for_must_exist(root, tmp_path):
    with pytest.raises(ClipSegError, match="fold 5 of COCO-20i does not exist"):
        coco20i(root, fold=5, visual_support=True)
    with pytest.raises(ClipSegError, match="split 'val2017' unknown; expected one of val2014"):
        coco20i(root, split="val2017", fold=0, visual_support=True)
    with pytest.raises(ClipSegError, match="0 episodes"):
        coco20i(root, fold=0, visual_support=True, count=0)
    with pytest.raises(ClipSegError, match="phrases_per_image=0"):
        coco20i_training(root, ReaderOptions(training=True, phrases_per_image=0, visual_support=True), split="val2014", fold=0)
    voc = tmp_path / "voc"
    write_voc(voc, {"2007_000033": {"cat": (1, 1, 5, 5)}})
    with pytest.raises(ClipSegError, match=r"not COCO's layout .*; found Pascal VOC's layout"):
        coco20i(voc, fold=0, visual_support=True)


def test_a_split_without_ground_truth_is_named(root):
    (root / "annotations" / "image_info_test2014.json").write_text("{}")
    with pytest.raises(ClipSegError, match="split 'test2014' has no ground truth; choose one of val2014"):
        coco20i(root, split="test2014", fold=0, visual_support=True)


def test_what_is_wrong_in_the_file_is_said(root):
    path = root / "annotations" / "instances_val2014.json"
    good = path.read_text()

    def expect(message, edit):
        path.write_text(good)
        change(path, edit)
        with pytest.raises(ClipSegError, match=message) as error:
            for _ in coco20i(root, fold=0, visual_support=True, count=60):
                pass
        assert "\n" not in str(error.value)

    def other_size(content):
        next(a for a in content["annotations"] if a["id"] == 501)["segmentation"]["size"] = [5, 5]

    expect(r"annotation 501 of image 5: an RLE of size \[5, 5\]", other_size)
    expect("no list of annotations", lambda c: c.update(annotations=[]))
    expect("no list of images", lambda c: c.pop("images"))
    expect("annotation entry 0: image_id is 'x'", lambda c: c["annotations"][0].update(image_id="x"))
    expect("image 777 or category 1 is not in the file", lambda c: c["annotations"][0].update(image_id=777, category_id=1))
    expect("height is 100000; expected a whole number from 1 to", lambda c: c["images"][0].update(height=100_000))
    expect("height is 0", lambda c: c["images"][0].update(height=0))
    expect("there twice", lambda c: c["images"].append(c["images"][0]))
    expect("a category named 5", lambda c: c["categories"][0].update(name=5))
    expect("category 'person' does not exist", lambda c: c["categories"][0].update(name="people"))
    expect("names no photo", lambda c: c["images"][0].update(file_name="../../etc/passwd"))
    expect("image 0: id is None", lambda c: c["images"][0].pop("id"))
    path.write_text(good[:-20])
    with pytest.raises(ClipSegError, match="not valid JSON"):
        coco20i(root, fold=0, visual_support=True)


def test_a_photo_of_another_size_or_none_is_an_error(root):
    data = coco20i(root, fold=0, visual_support=False, count=40)
    item = data.image_ids.tolist().index("50")
    path = root / "val2014" / "COCO_val2014_000000000050.jpg"
    photo(path, (20, 20))
    with pytest.raises(ClipSegError, match=r"20x20 pixels, but instances_val2014\.json says 32x24"):
        data[item]
    path.unlink()
    with pytest.raises(ClipSegError, match=r"50\.jpg: no such image"):
        data[item]


def test_photos_may_lie_in_images(root):
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    assert coco20i(root, fold=0, visual_support=True, count=3)[0].image.shape == (3, *SIZE)


def test_all_eighty_classes_are_of_some_fold(root):
    assert sorted(sum((coco20i_fold(fold) for fold in range(4)), ())) == sorted(COCO_CLASSES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60)
@given(st.data())
def test_any_damage_of_one_value_is_an_error_or_none(tmp_path_factory, data):
    """A value anywhere in the file replaced by any other: our one error, or a file that still reads."""
    path = write_coco(tmp_path_factory.mktemp("coco"), {5: IMAGES[5], 9: IMAGES[9]})
    content = json.loads(path.read_text())
    node, steps = content, []
    while isinstance(node, (dict, list)) and node and (len(steps) < 2 or data.draw(st.booleans())):
        steps.append(data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node)))))
        parent, node = node, node[steps[-1]]
    parent[steps[-1]] = data.draw(JSON)
    path.write_text(json.dumps(content))
    with contextlib.suppress(ClipSegError):
        source = InstanceSource(read_instances(path), path.parent, {"person": ["person"]})
        for image_id in source.images_by_class()["person"]:
            assert source.read_mask(image_id, "person").max() <= 1
