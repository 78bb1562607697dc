"""The embedded default: scenes, phrases, and the data set on disk."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from clipseg.data.mini import phrasecut as mini
from clipseg.data.mini.phrasecut import HELD_OUT, HELD_OUT_RELATIONS, SPLITS, draw_image, materialize, trace_outline
from clipseg.data.mini.phrases import PHRASES, Description, Phrase
from clipseg.data.mini.scenes import (
    COLOURS,
    MIN_VISIBLE,
    RELATIONS,
    SIZES,
    Kind,
    Scene,
    SceneObject,
    bounding_box,
    draw_scene,
    relation,
)
from clipseg.data.mini.shapes import CATEGORIES, PARTS, PATTERNS
from clipseg.data.phrasecut import PhraseCut
from clipseg.errors import ClipSegError

pytestmark = pytest.mark.slow

FEW = {"train": 5, "val": 2, "test": 3, "unseen": 4}


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "SPLITS", FEW)
        yield materialize(tmp_path_factory.mktemp("data") / "mini")


def fill(polygons, side=mini.SIDE):
    """Draw as PhraseCut's evaluator: coordinates truncated, outline and fill."""
    image = Image.new("L", (side, side))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
    return np.asarray(image).astype(bool)


def named_pair(description: Description | None):
    return (description.category, description.colour) if description else None


def related_pair(phrase: Phrase):
    return phrase.subject.category, phrase.relation


# Scenes


def test_a_scene_is_a_function_of_its_generator():
    kinds = [Kind("flag", "red", "large"), Kind("kite", "blue", "small")]
    first, second, other = (draw_scene(np.random.default_rng(seed), kinds) for seed in (1, 1, 2))
    assert np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (176, 176, 3)
    assert first.image.dtype == np.uint8


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_thing_has_its_size_and_colour(category):
    for size, diameter in SIZES.items():
        scene = draw_scene(np.random.default_rng(3), [Kind(category, "red", size)], side=112)
        x0, y0, x1, y1 = scene.objects[0].box
        assert 0.75 * diameter < max(x1 - x0, y1 - y0) < 1.25 * diameter
        red, green, blue = scene.image[scene.objects[0].mask].astype(float).mean(axis=0)
        assert red > 2 * max(green, blue)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_patch_shows_any_pattern_on_any_category(pattern):
    """Plain, or light and dark within 16 pixels."""
    for category in CATEGORIES:
        scene = draw_scene(np.random.default_rng(3), [Kind(category, "green", "large", pattern)], side=112)
        row, column = np.unravel_index(ndimage.distance_transform_edt(scene.objects[0].mask).argmax(), (112, 112))
        patch = scene.image[row - 8 : row + 8, column - 8 : column + 8, 1].astype(float)
        assert (np.percentile(patch, 95) > 1.5 * np.percentile(patch, 5)) == (pattern != "plain")


def test_categories_differ_by_their_outline():
    """Drawn upright at the same place and size, no two categories cover the same pixels."""
    y, x = np.mgrid[-40:41, -40:41].astype(np.float32)
    covered = {category: outline(x, y, 30.0) < 0 for category, outline in CATEGORIES.items()}
    for one, other in itertools.combinations(CATEGORIES, 2):
        assert (covered[one] & covered[other]).sum() / (covered[one] | covered[other]).sum() < 0.85, (one, other)


def test_what_is_visible_is_whole_and_large_enough():
    for index in range(30):
        scene, _ = draw_image("train", index)
        assert 2 <= len(scene.objects) <= 6
        assert sum(thing.mask.astype(int) for thing in scene.objects).max() == 1
        for thing in scene.objects:
            assert ndimage.label(thing.mask)[1] == 1
            assert np.array_equal(ndimage.binary_fill_holes(thing.mask), thing.mask)


def test_a_covered_thing_stays_visible_enough():
    rng = np.random.default_rng(5)
    for _ in range(30):
        state = rng.bit_generator.state
        back = Kind("board", "red", "large")
        alone = draw_scene(rng, [back]).objects[0].mask.sum()
        rng.bit_generator.state = state
        both = draw_scene(rng, [back, Kind("wall", "blue", "large")])
        assert both.objects[0].mask.sum() >= MIN_VISIBLE * alone


# Phrases


def thing_at(x: int, y: int, kind: Kind) -> SceneObject:
    mask = np.zeros((100, 100), dtype=bool)
    mask[y - 3 : y + 4, x - 3 : x + 4] = True
    return SceneObject(kind, mask, (x - 3, y - 3, x + 3, y + 3))


def scene_of(things):
    return Scene(np.zeros((100, 100, 3), dtype=np.uint8), things)


def matcher(scene):
    """A function that numbers the things of a scene of which a phrase or a description is true."""

    def matched(said):
        holds = said.fits if isinstance(said, Description) else said.matches
        return [index for index, thing in enumerate(scene.objects) if holds(thing, scene)]

    return matched


def test_relations():
    first, right, under = (thing_at(x, y, Kind("flag", "red", "small")) for x, y in ((20, 20), (60, 30), (25, 80)))
    assert relation(first, right) == "left of"
    assert relation(right, first) == "right of"
    assert relation(first, under) == "above"
    assert relation(under, first) == "below"
    assert relation(first, thing_at(28, 25, Kind("kite", "red", "small"))) is None


def test_a_phrase_is_true_of_all_that_match():
    things = (
        thing_at(10, 10, Kind("flag", "red", "small")),
        thing_at(10, 60, Kind("flag", "blue", "large")),
        thing_at(90, 50, Kind("flag", "red", "large")),
        thing_at(50, 50, Kind("board", "red", "medium")),
    )
    matched = matcher(scene_of(things))
    board = Description("board")
    assert matched(Phrase(Description("flag"))) == [0, 1, 2]
    assert matched(Phrase(Description("flag", "red"))) == [0, 2]
    assert matched(Phrase(Description("flag", None, "large"))) == [1, 2]
    assert matched(Phrase(Description("flag", "red", "large"))) == [2]
    assert matched(Phrase(Description("flag"), "left of", board)) == [0, 1]
    assert matched(Phrase(Description("flag", "red"), "right of", board)) == [2]


def test_what_is_extreme_is_so_by_far_among_its_like():
    things = (
        thing_at(10, 10, Kind("flag", "red", "small")),
        thing_at(30, 20, Kind("flag", "blue", "small", "striped")),
        thing_at(40, 80, Kind("flag", "blue", "small")),
        thing_at(5, 50, Kind("board", "red", "medium")),
    )
    matched = matcher(scene_of(things))
    assert matched(Description("flag", rank="leftmost")) == [0]
    assert matched(Description("flag", rank="rightmost")) == []  # 10 pixels ahead of the next
    assert matched(Description("flag", rank="second leftmost")) == []
    assert matched(Description("flag", rank="second topmost")) == []
    assert matched(Description("flag", "blue", rank="second topmost")) == [2]
    assert matched(Description("flag", "red", rank="second topmost")) == []  # alone
    assert matched(Description("flag", "blue", rank="topmost")) == [1]
    assert matched(Description("flag", rank="lowest")) == [2]
    assert matched(Description("board", rank="leftmost")) == []  # one alone is no extreme
    assert matched(Description("flag", pattern="striped")) == [1]


def test_the_other_is_what_does_not_fit():
    things = (
        thing_at(10, 10, Kind("flag", "red", "small")),
        thing_at(30, 60, Kind("flag", "blue", "small")),
        thing_at(60, 60, Kind("flag", "green", "small")),
        thing_at(80, 10, Kind("kite", "blue", "small")),
    )
    scene = scene_of(things)
    matched = matcher(scene)
    other = Phrase(Description("flag"), "other than", Description("flag", "red"))
    assert other.text == "flag other than a red flag"
    assert (other.sort, other.type) == ("other or part", "relation")
    assert matched(other) == [1, 2]
    assert matched(Phrase(Description("flag"), "other than", Description("flag", "pink"))) == []  # there is none
    assert [mask is thing.mask for mask, thing in zip(other.masks(scene).values(), things[1:3], strict=True)] == [True, True]


def test_parts_lie_in_their_things():
    for category, (name, _) in PARTS.items():
        scene = draw_scene(np.random.default_rng(3), [Kind(category, "red", "large"), Kind("kite", "blue", "small")])
        thing = next(thing for thing in scene.objects if thing.kind.category == category)
        assert thing.part is not None
        assert bool((thing.mask | ~thing.part).all())
        assert 0.05 < thing.part.sum() / thing.mask.sum() < 0.4
        left = np.flatnonzero(thing.part.any(axis=0)).mean()
        assert left < np.flatnonzero(thing.mask.any(axis=0)).mean()  # both are drawn on the left
        phrase = Phrase(Description(name), "of", Description(category, "red"))
        assert phrase.text == f"{name} of a red {category}"
        assert [mask is thing.part for mask in phrase.masks(scene).values()] == [True]
        assert Phrase(Description(name), "of", Description(category, "blue")).masks(scene) == {}
        assert Phrase(Description("head"), "of", Description("kite")).masks(scene) == {}
    assert all(thing.part is None for thing in scene.objects if thing.kind.category == "kite")


def test_how_phrases_read_and_are_typed():
    plain, full = Description("flag"), Description("flag", "red", "large")
    assert [Phrase(plain).type, Phrase(full).type] == ["name", "attribute"]
    assert Description("flag", "red", "large", "dotted", "leftmost").text == "leftmost large dotted red flag"
    related = Phrase(full, "left of", Description("kite", "orange"))
    assert related.text == "large red flag left of an orange kite"
    assert related.structure(7) == {
        "name": "flag",
        "attributes": ["large", "red"],
        "relation_ids": [7],
        "relation_descriptions": [["left of", "orange kite"]],
        "type": "verbose",
    }
    assert Phrase(plain, "above", Description("wall")).type == "relation"
    assert Phrase(plain, "above", Description("wall")).text == "flag above a wall"


def test_every_split_has_phrases_of_its_types():
    phrases = [phrase for index in range(20) for phrase in draw_image("test", index)[1]]
    assert 4 <= len(phrases) / 20 <= 6
    assert {phrase.type for phrase in phrases} == {"name", "attribute", "relation", "verbose"}
    assert {phrase.sort for phrase in phrases} == set(PHRASES)
    assert {phrase.relation for phrase in phrases} == {None, "of", "other than", *RELATIONS}


def test_held_out_pairs_are_a_permutation():
    assert {category for category, _ in HELD_OUT} == set(CATEGORIES)
    assert {colour for _, colour in HELD_OUT} == set(COLOURS)
    assert len(HELD_OUT) == 8
    assert sorted(relation for _, relation in HELD_OUT_RELATIONS) == sorted(RELATIONS * 2)
    assert {category for category, _ in HELD_OUT_RELATIONS} == set(CATEGORIES)


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_pairs_are_drawn_and_named_in_unseen_only(split):
    for index in range(0, SPLITS[split], SPLITS[split] // 50):
        scene, phrases = draw_image(split, index)
        drawn = {(thing.kind.category, thing.kind.colour) for thing in scene.objects}
        named = [{named_pair(phrase.subject), named_pair(phrase.reference)} for phrase in phrases]
        assert phrases
        if split == "unseen":
            assert drawn & HELD_OUT
            assert all(named_pair(p.subject) in HELD_OUT or related_pair(p) in HELD_OUT_RELATIONS for p in phrases)
        else:
            assert not drawn & HELD_OUT
            assert not set().union(*named) & HELD_OUT
            assert not {related_pair(phrase) for phrase in phrases} & HELD_OUT_RELATIONS


# The data set


def test_outlines_give_the_masks_back():
    overlaps = []
    for index in range(30):
        for thing in draw_image("train", index)[0].objects:
            drawn = fill([trace_outline(thing.mask)])
            overlaps.append((drawn & thing.mask).sum() / (drawn | thing.mask).sum())
    assert min(overlaps) >= 0.97
    assert np.mean(overlaps) >= 0.999


def test_outlines_of_small_and_thin_masks():
    mask = np.zeros((20, 20), dtype=bool)
    mask[4, 3:9] = mask[4:12, 6] = mask[11, 6:14] = mask[8, 2:7] = True
    assert np.array_equal(fill([trace_outline(mask)], side=20), mask)
    mask[:] = False
    mask[5:9, 0:20] = True
    assert sorted(trace_outline(mask)) == [(0, 5), (0, 8), (19, 5), (19, 8)]


def test_the_official_layout(small_root):
    names = {f"{kind}_{split}.json" for kind in ("refer", "refer_input") for split in FEW}
    assert {path.name for path in small_root.iterdir()} == names | {
        "image_data_split.json",
        "name_att_rel_count.json",
        "checksums.txt",
        "images",
    }
    images = json.loads((small_root / "image_data_split.json").read_text())
    assert [sum(image["split"] == split for image in images) for split in FEW] == list(FEW.values())
    assert all(set(image) == {"image_id", "width", "height", "split", "url"} for image in images)
    assert {int(path.stem) for path in (small_root / "images").iterdir()} == {image["image_id"] for image in images}
    tasks = [task for split in FEW for task in json.loads((small_root / f"refer_{split}.json").read_text())]
    fields = {"task_id", "image_id", "ann_ids", "instance_boxes", "Polygons", "phrase", "phrase_structure"}
    assert all(set(task) == fields for task in tasks)
    assert len({task["task_id"] for task in tasks}) == len(tasks)
    inputs = [task for split in FEW for task in json.loads((small_root / f"refer_input_{split}.json").read_text())]
    assert [(task["task_id"], task["phrase"]) for task in inputs] == [(task["task_id"], task["phrase"]) for task in tasks]
    assert not any("Polygons" in task or "type" in task["phrase_structure"] for task in inputs)
    counts = json.loads((small_root / "name_att_rel_count.json").read_text())
    assert sum(count for _, count in counts["cat"]) == len(tasks)


def test_a_task_holds_all_that_match(small_root):
    first_id, first_annotation = 1, 1
    for split, count in FEW.items():
        tasks = json.loads((small_root / f"refer_{split}.json").read_text())
        for index in range(count):
            scene, phrases = draw_image(split, index)
            mine = [task for task in tasks if task["image_id"] == first_id + index]
            assert [task["phrase"] for task in mine] == [phrase.text for phrase in phrases]
            for task, phrase in zip(mine, phrases, strict=True):
                masks = list(phrase.masks(scene).values())
                target = np.logical_or.reduce(masks)
                found = fill([polygon for instance in task["Polygons"] for polygon in instance])
                assert (found & target).sum() / (found | target).sum() >= 0.97
                whose = {annotation - first_annotation for annotation in task["ann_ids"]}
                count_of = len(scene.objects)
                assert {number % count_of for number in whose} == {
                    number for number, thing in enumerate(scene.objects) if phrase.matches(thing, scene)
                }
                assert all((number >= count_of) == (phrase.relation == "of") for number in whose)
                assert len(task["ann_ids"]) == len(task["instance_boxes"]) == len(masks)
                x, y, width, height = task["instance_boxes"][0]
                assert (x, y, x + width - 1, y + height - 1) == bounding_box(masks[0])
            first_annotation += 2 * len(scene.objects)
        first_id += count


def test_the_reader_of_the_real_data_reads_it(small_root):
    for split, count in FEW.items():
        data = PhraseCut(small_root, split=split)
        assert len(data) == count
        sample = data[(0, 0)]
        assert sample.image.shape == (3, 176, 176)
        drawn = draw_image(split, 0)[0].image.transpose(2, 0, 1)
        assert np.abs(sample.image.numpy().astype(int) - drawn).mean() < 8  # JPEG


def test_written_once_the_same_bytes_each_time(small_root, tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "SPLITS", FEW)
    again = materialize(tmp_path / "again")
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert len(files) == 11 + sum(FEW.values())
    assert all((again / name).read_bytes() == (small_root / name).read_bytes() for name in files)
    monkeypatch.setattr(mini, "_write", lambda root: pytest.fail("written a second time"))
    assert materialize(again) == again


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "SPLITS", {"train": 1, "unseen": 1})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = materialize()
    assert root.parent == tmp_path / "clipseg"
    assert [path.name for path in root.parent.iterdir()] == [root.name]


@pytest.mark.parametrize("name", ["refer_train.json", "images/1.jpg", "image_data_split.json", "checksums.txt"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_damaged_data_are_written_anew(tmp_path, monkeypatch, name, damage):
    monkeypatch.setattr(mini, "SPLITS", {"train": 1, "unseen": 1})
    root = materialize(tmp_path / "mini")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    damage(root / name)
    if name == "checksums.txt" and not (root / name).exists():
        assert materialize(root) == root, "somebody's own data are left as they are"
        return
    with pytest.warns(UserWarning, match="damaged; written anew"):
        assert materialize(root) == root
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]


def test_nothing_half_written(tmp_path, monkeypatch):
    def fail(root: Path) -> None:
        root.mkdir()
        (root / "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mini, "_write", fail)
    with pytest.raises(ClipSegError, match="No space left"):
        materialize(tmp_path / "mini")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "SPLITS", {"train": 1, "unseen": 1})
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ClipSegError, match="empty folder"):
        materialize(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
