"""COCO as published: polygons, crowds and gray photos; episodes of the held-out fold; training on all the others."""

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import SIZE, box_mask, change, compressed, photo, polygon, run_lengths, write_coco, write_labels, write_voc

from clipseg.data.classes import COCO_CLASSES, coco20i_fold
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers import coco
from clipseg.data.readers.class_draws import ClassDraws
from clipseg.data.readers.coco import coco20i, coco20i_training
from clipseg.data.readers.coco_labels import coco_labels
from clipseg.data.readers.episodes import LEAST_PIXELS
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
    (5, "person"): box_mask(ONE),  # without the crowd
    (9, "person"): box_mask(TWO),
    (9, "airplane"): box_mask(ONE),
    (12, "boat"): box_mask(ONE) | box_mask(THREE),
    (40, "airplane"): box_mask(TWO),
    (40, "boat"): box_mask(THREE),
}
# Every other class of fold 0, so that the whole fold can be drawn from.
REST = [name for name in coco20i_fold(0) if name not in ("person", "airplane", "boat")]


def cell(name: str) -> tuple[int, int, int, int]:
    """Nine pixels of its own for each class."""
    row, column = divmod(COCO_CLASSES.index(name), 10)
    return 3 * column, 3 * row, 3 * column + 3, 3 * row + 3


WHOLE = IMAGES | {i: [(name, polygon(cell(name))) for name in REST] for i in (50, 51)}


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    """Photos here are smaller than what is listed in earnest."""
    monkeypatch.setattr(coco, "LEAST_PIXELS", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_coco(tmp_path, WHOLE)
    return tmp_path


def photo_of(image_id: int, split: str = "val2014") -> str:
    return f"COCO_{split}_{image_id:012d}" if split.endswith("2014") else f"{image_id:012d}"


def truth(image_key: str, name: str) -> np.ndarray:
    image_id = int(image_key.split("_")[-1])
    return box_mask(cell(name)) if image_id >= 50 else MASKS[image_id, name]


@pytest.mark.parametrize("split", ["val2014", "val2017"])
def test_episodes_are_queries_and_other_images_of_their_class(tmp_path, split):
    write_coco(tmp_path, WHOLE, split=split)
    data = coco20i(tmp_path, split=split, fold=0, visual_support=True, count=200)
    tasks = [(sample, task) for sample in data for task in sample.tasks]
    assert len(tasks) == 200
    assert len({task.key for _, task in tasks}) == 200
    assert {task.phrase for _, task in tasks} == set(coco20i_fold(0))
    assert [sample.image_key for sample in data] == data.image_ids.tolist()
    assert set(data.image_ids.tolist()) <= {photo_of(image_id, split) for image_id in WHOLE}
    for sample, task in tasks:
        assert sample.image.shape == (3, *SIZE)
        assert sample.valid is None
        assert task.group == task.phrase
        assert task.key.startswith(f"{split}/{sample.image_key}__{task.phrase.replace(' ', '_')}")
        assert np.array_equal(task.mask, truth(sample.image_key, task.phrase))
        others = [i for i in (5, 9, 12, 40, 50, 51) if photo_of(i, split) != sample.image_key]
        known = [truth(str(i), task.phrase) for i in others if i >= 50 or (i, task.phrase) in MASKS]
        assert any(np.array_equal(task.support.mask, mask) for mask in known)
        assert task.support.image.shape == (3, *SIZE)


def test_classes_are_drawn_alike_and_specks_never(root):
    data = coco20i(root, fold=0, visual_support=False, count=2000)
    names = [episode.name for episode in data.episodes]
    assert len(names) == 2000
    assert max(names.count(name) for name in set(names)) < 150  # 100 each on average
    # Image 40 holds a person whose outline encloses nothing.
    assert not [e for e in data.episodes if e.name == "person" and photo_of(40) in (e.query, e.support)]


def test_a_pixel_belongs_to_the_smallest_object_and_crowds_are_left_out(tmp_path):
    inner = (4, 4, 8, 8)
    objects = [("person", polygon(inner)), ("car", polygon(ONE)), ("boat", run_lengths((0, 0, 32, 24)))]
    write_coco(tmp_path, {5: objects, 6: objects[:1]})
    source = coco_labels(tmp_path, "val2014")
    expected = 3 * box_mask(ONE)
    expected[box_mask(inner) == 1] = 1
    assert np.array_equal(source.read_labels(photo_of(5)), expected)
    assert source.labels == "painted from instances_val2014.json"
    (person, car, boat), valid = source.read_masks(photo_of(5), ["person", "car", "boat"])
    assert (person.sum(), car.sum(), boat.sum(), valid) == (16, 63 - 16, 0, None)


def test_lists_hold_the_images_in_which_a_class_is_large_enough(tmp_path):
    path = write_coco(tmp_path, {i: [("person", polygon(ONE)), ("person", polygon(TWO))] for i in (5, 6, 7)})

    def enlarge(content):
        for annotation in content["annotations"]:
            annotation["area"] = {5: 1023.5, 6: 1024, 7: 3000}[annotation["image_id"]]

    change(path, enlarge)
    source = coco_labels(tmp_path, "val2014")
    assert source.images_by_class(["person", "car"], 2048) == {"person": [photo_of(6), photo_of(7)], "car": []}
    assert LEAST_PIXELS == 2048


def test_label_maps_are_taken_where_they_lie_beside(root):
    folder = root / "annotations" / "val2014"
    boat = COCO_CLASSES.index("boat")
    for image_id in (5, 9):
        write_labels(folder / f"{photo_of(image_id)}.png", (boat + 1) * box_mask(TWO))
    (root / "annotations" / "instances_val2014.json").unlink()
    data = coco20i(root, fold=0, visual_support=True, count=3, class_lists=lists_file(root, {"boat": [5, 9]}))
    assert data.about["labels"] == "annotations/val2014/*.png"
    assert {episode.name for episode in data.episodes} == {"boat"}
    assert all(np.array_equal(task.mask, box_mask(TWO)) for sample in data for task in sample.tasks)
    source = coco_labels(root, "val2014")
    assert source.images_by_class(["boat", "cat"], 133) == {"boat": [photo_of(5), photo_of(9)], "cat": []}
    assert source.images_by_class(["boat"], 134) == {"boat": []}
    write_labels(folder / f"{photo_of(5)}.png", np.full(SIZE, 81, dtype=np.uint8))
    with pytest.raises(ClipSegError, match=r"5\.png: label value 81; expected 0 to 80"):
        source.read_labels(photo_of(5))


def lists_file(root: Path, lists: dict[str, list[int]]) -> Path:
    path = root / "lists.json"
    named = {name: [f"val2014/{photo_of(image_id)}.jpg" for image_id in images] for name, images in lists.items()}
    path.write_text(json.dumps(named))
    return path


def test_lists_of_a_file_are_drawn_from(root):
    path = lists_file(root, {"0": [5, 9, 12], "airplane": [9, 40], "2": [40, 5]})
    data = coco20i(root, fold=0, visual_support=True, count=60, class_lists=path)
    found = {(episode.name, episode.query) for episode in data.episodes}
    # Image 12 does not show a person, and is not drawn; cars are of another fold.
    assert found == {(n, photo_of(i)) for n, i in [("person", 5), ("person", 9), ("airplane", 9), ("airplane", 40)]}
    assert data.about["drawn"] == "from lists.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"dog house": ["x"]}, "class 'dog house'; expected COCO's names, or 0 to 79"),
        ({"80": ["x"]}, "class '80'; expected"),
        ({"0": [], "person": []}, "class 'person'; expected .* each once"),
        ({"0": "x"}, "class '0' has 'x'; expected a list"),
        (
            {"0": ["val2014/COCO_val2014_000000000777.jpg"]},
            "class '0' lists 'val2014/COCO.*', which is not in .*instances_v",
        ),
        ({"0": [5]}, "class '0' lists 5, which is not in"),
        ({"0": [f"{photo_of(5)}.jpg", f"val2014/{photo_of(5)}.jpg"]}, "class '0' lists an image twice"),
        ({"0": [photo_of(5)]}, "lists.json: class 'person' has fewer than two images"),
        ({"1": [photo_of(5)]}, "lists none of person, airplane, "),
        ({"0": [photo_of(5), photo_of(12)]}, "most images do not show the class they are listed for"),
        ([], "not a file of class lists"),
    ],
)
def test_lists_must_fit_the_data(root, content, message):
    (root / "lists.json").write_text(json.dumps(content))
    with pytest.raises(ClipSegError, match=message) as error:
        coco20i(root, fold=0, visual_support=True, class_lists=root / "lists.json")
    assert "\n" not in str(error.value)


def test_lists_that_are_cut_off_are_named(root):
    path = lists_file(root, {"0": [5, 9]})
    path.write_text(path.read_text()[:-4])
    with pytest.raises(ClipSegError, match=r"lists\.json: not valid JSON"):
        coco20i(root, fold=0, visual_support=True, class_lists=path)


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
    with pytest.raises(ClipSegError, match=r"instances_val2014\.json: class '.*' has fewer than two images"):
        coco20i(tmp_path, fold=0, visual_support=True)


def trained_on(root: Path, fold: int = 0, **options: Any) -> ClassDraws:
    return coco20i_training(root, ReaderOptions(training=True, **options), split="val2014", fold=fold)


@pytest.fixture
def of_each(tmp_path: Path) -> Path:
    """Two images of each class, which show nothing else."""
    images = {50 + i: [(name, polygon(ONE))] for i, name in enumerate(name for name in COCO_CLASSES for _ in range(2))}
    write_coco(tmp_path, images)
    return tmp_path


def test_training_draws_a_class_of_the_other_folds_its_query_and_another_image(of_each):
    data = trained_on(of_each, seed=1, visual_support=True)
    assert len(data) == 2 * 60
    phrases = set()
    for epoch in range(3):
        for item in range(len(data)):
            sample = data[epoch, item]
            (task,) = sample.tasks
            phrases.add(task.phrase)
            number = 2 * COCO_CLASSES.index(task.phrase) + 50
            assert sample.image_key in (photo_of(number), photo_of(number + 1))
            assert task.key == f"val2014/{sample.image_key}__{task.phrase.replace(' ', '_')}"
            assert sample.image.shape[1:] == SIZE  # whole images: no crop
            assert torch.equal(task.mask, torch.from_numpy(box_mask(ONE)))
            other = number + (sample.image_key == photo_of(number))
            assert torch.equal(task.support.image, data._source.read_image(photo_of(other)))
            assert torch.equal(task.support.mask, task.mask)
    assert phrases == set(COCO_CLASSES) - set(coco20i_fold(0))
    text = trained_on(of_each)
    assert text[0].tasks[0].support is None


def test_training_items_are_functions_of_seed_epoch_and_item(of_each):
    one, other = (trained_on(of_each, 2, seed=3, negatives=0.5, phrases_per_image=2, visual_support=True) for _ in range(2))
    indices = [(epoch, item) for epoch in range(2) for item in range(0, len(one), 9)]
    expected = {index: one[index] for index in indices}
    assert len({sample.image_key for sample in expected.values()}) > 10
    copied = pickle.loads(pickle.dumps(other))
    for index in reversed(indices):
        for sample in (other[index], copied[index]):
            assert torch.equal(sample.image, expected[index].image)
            assert len(sample.tasks) == 2
            for a, b in zip(sample.tasks, expected[index].tasks, strict=True):
                assert (a.key, a.phrase, a.seed) == (b.key, b.phrase, b.seed)
                assert torch.equal(a.mask, b.mask)
                assert torch.equal(a.support.image, b.support.image)


def test_negatives_change_the_support_alone_as_released(of_each):
    data = trained_on(of_each, 3, negatives=0.3, visual_support=True)
    tasks = [data[epoch, item].tasks[0] for epoch in range(5) for item in range(len(data))]
    negatives = [task for task in tasks if not task.support.mask.any()]
    assert 0.25 < len(negatives) / len(tasks) < 0.35
    assert all(task.mask.any() and task.key.endswith(task.phrase.replace(" ", "_")) for task in tasks)


def test_the_support_of_a_negative_is_of_another_class(of_each):
    lists = lists_file(of_each, {"1": [52, 53], "2": [54, 55]})
    options = ReaderOptions(training=True, negatives=1, visual_support=True)
    data = coco20i_training(of_each, options, split="val2014", fold=0, class_lists=lists)
    photos = {i: data._source.read_image(photo_of(i)) for i in (52, 53, 54, 55)}
    for epoch in range(20):
        (task,) = data[epoch, 0].tasks
        of_others = (54, 55) if task.phrase == "bicycle" else (52, 53)
        assert task.support.mask.shape == task.support.image.shape[1:]
        assert any(torch.equal(task.support.image, photos[i]) for i in of_others)


def test_sound_negatives_ask_for_what_is_not_there(tmp_path):
    objects = WHOLE | {60: [("bicycle", polygon(ONE)), ("car", polygon(TWO))], 61: [("car", polygon(ONE))]}
    write_coco(tmp_path, objects)
    options = ReaderOptions(training=True, negatives=0.5, visual_support=True)
    data = coco20i_training(
        tmp_path,
        options,
        split="val2014",
        fold=0,
        class_lists=lists_file(tmp_path, {"1": [5, 12, 60], "2": [40, 60, 61]}),
        sound_negatives=True,
    )
    shown = {photo_of(i): {name for name, _ in listed} for i, listed in objects.items()}
    tasks = [(sample.image_key, sample.tasks[0]) for sample in (data[epoch, 0] for epoch in range(400))]
    negatives = [(image, task) for image, task in tasks if not task.mask.any()]
    assert all(task.support.mask.any() for _, task in tasks)
    assert all(task.phrase not in shown[image] for image, task in negatives)
    # Image 60 shows all there is to ask for.
    assert {image for image, _ in negatives} == {photo_of(i) for i in (5, 12, 40, 61)}
    assert 0.25 < len(negatives) / len(tasks) < 0.45


def test_negatives_that_could_change_nothing_are_an_error(of_each):
    with pytest.raises(ClipSegError, match=r"on COCO-20i they change the support, and data\.visual_support=false gives none"):
        trained_on(of_each, negatives=0.2)
    options = ReaderOptions(training=True, negatives=0.2, visual_support=True)
    with pytest.raises(ClipSegError, match="one class is listed, and so no negatives"):
        coco20i_training(of_each, options, split="val2014", fold=1, class_lists=lists_file(of_each, {"0": [50, 51]}))


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
        next(a for a in content["annotations"] if a["id"] == 900)["segmentation"]["size"] = [5, 5]

    expect(r"annotation 900 of image 9: an RLE of size \[5, 5\]", other_size)
    expect("no list of annotations", lambda c: c.update(annotations=[]))
    expect("no list of images", lambda c: c.pop("images"))
    expect("annotation entry 0: image_id is 'x'", lambda c: c["annotations"][0].update(image_id="x"))
    expect("image 777 or category 1 is not in the file", lambda c: c["annotations"][0].update(image_id=777, category_id=1))
    expect("height is 100000; expected a whole number from 1 to", lambda c: c["images"][0].update(height=100_000))
    expect("height is 0", lambda c: c["images"][0].update(height=0))
    expect("there twice", lambda c: c["images"].append(c["images"][0]))
    expect("a category named 5", lambda c: c["categories"][0].update(name=5))
    expect("category 'person' does not exist", lambda c: c["categories"][0].update(name="people"))
    expect("annotation .*: area is 'x'; expected a number of pixels", lambda c: c["annotations"][0].update(area="x"))
    expect("names no photo", lambda c: c["images"][0].update(file_name="../../etc/passwd"))
    expect("image 0: id is None", lambda c: c["images"][0].pop("id"))
    path.write_text(good[:-20])
    with pytest.raises(ClipSegError, match="not valid JSON"):
        coco20i(root, fold=0, visual_support=True)


def test_a_photo_of_another_size_or_none_is_an_error(root):
    data = coco20i(root, fold=0, visual_support=False, count=40)
    item = data.image_ids.tolist().index(photo_of(50))
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
