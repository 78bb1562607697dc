"""What is said and what could be said instead: by annotation, and of drawn scenes exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_data import write_folder

from clipseg.data.mini.phrasecut import SPLITS, draw_image
from clipseg.errors import ClipSegError
from clipseg.studies.laboratory.drawn import DrawnStatements, scene_of, truth
from clipseg.studies.laboratory.statements import Statement, absent, read_statements, same_noun, structured, swapped_part

RED = Statement(text="red box", name="box", attributes=("red",))
LEFT = Statement(text="red box left of a kite", name="box", attributes=("red",), relations=(("left of", "kite"),))


def drawn(images: int = 12) -> DrawnStatements:
    """What the mini data say of the first images of their test split, which is not written for it."""
    said = {}
    first = sum(count for split, count in SPLITS.items() if split in ("train", "val"))
    for index in range(images):
        for number, phrase in enumerate(draw_image("test", index)[1]):
            image = str(first + index + 1)
            said[f"test/{image}__{number}"] = (image, structured(phrase.text, phrase.structure(0)))
    return DrawnStatements(said, where="drawn")


def test_parts_are_exchanged_and_turned() -> None:
    assert RED.changed(attributes=("blue",)).text == "blue box"
    assert LEFT.changed(name="ball").text == "red ball left of a kite"
    assert LEFT.changed(relations=(("above", "orange kite"),)).text == "red box above an orange kite"
    turned = LEFT.turned()
    assert turned is not None
    assert turned.text == "kite left of a red box"
    assert (turned.name, turned.relations) == ("kite", (("left of", "red box"),))
    bare = Statement(text="man riding horse", name="man", relations=(("riding", "horse"),)).turned()
    assert bare is not None
    assert bare.text == "horse riding man"
    assert RED.turned() is None
    assert Statement(text="cup next to plate", name="cup", relations=(("next to", "plate"),)).turned() is None


def test_one_part_differs_or_none_is_told() -> None:
    assert swapped_part(RED, RED.changed(attributes=("blue",))) == "attribute"
    assert swapped_part(RED, RED.changed(name="ball")) == "noun"
    assert swapped_part(LEFT, LEFT.changed(relations=(("above", "kite"),))) == "relation"
    for other in (
        RED,
        RED.changed(attributes=()),
        RED.changed(name="boxs"),
        RED.changed(name="ball", attributes=("blue",)),
        LEFT,
    ):
        assert swapped_part(RED, other) is None
    assert same_noun("dogs", "Dog")
    assert not same_noun("dog", "cat")


@pytest.mark.parametrize(
    "structure", [None, {}, 3, {"name": 1, "attributes": [], "relation_descriptions": []}, {"name": "box", "attributes": 3}]
)
def test_a_phrase_without_structure_is_its_own_noun(structure: object) -> None:
    assert structured("a red box", structure) == Statement(text="a red box", name="a red box")


def test_by_annotation_what_nobody_wrote_is_absent(worded_root) -> None:
    known = read_statements(worded_root(), "test")
    rng = np.random.default_rng(0)
    image = next(iter(known.of_image))
    colours = {word for said in known.of_image[image] for word in said.attributes}
    before = next(said for said in known.of_image[image] if said.text == "box left of a green ball")
    found = absent(known, image, before, ("other", "attribute", "relation"), rng)
    assert found["relation"].text == "green ball left of a box"
    assert "other" not in found  # boxes and balls are on every image
    if "attribute" in found:
        assert set(found["attribute"].attributes).isdisjoint(colours)
    assert known.is_true(image, RED)
    assert known.noun_is_here(image, "Balls")
    assert not known.is_true(image, RED.changed(attributes=("pink",)))


def test_of_drawn_scenes_absent_is_absent_and_an_exchange_holds() -> None:
    known, rng = drawn(), np.random.default_rng(0)
    kinds, swapped = set(), set()
    for key, before in known.of_task.items():
        image = key.split("/")[1].split("__")[0]
        assert truth(image, before).any()
        for kind, statement in absent(known, image, before, ("other", "attribute", "relation"), rng).items():
            assert not truth(image, statement).any()
            if kind == "other":
                assert all(thing.kind.category != statement.name for thing in scene_of(image).objects)
            kinds.add(kind)
        for kind, after, mask in known.swaps(image, key, {}):
            assert swapped_part(before, after) == kind
            assert mask.any()
            swapped.add(kind)
    assert kinds == {"other", "attribute", "relation"}
    assert swapped == {"attribute", "noun", "relation"}


def test_scenes_are_those_of_their_numbers() -> None:
    for split, number in (("train", 1), ("val", SPLITS["train"] + 1), ("unseen", sum(SPLITS.values()))):
        index = 0 if split != "unseen" else SPLITS["unseen"] - 1
        assert np.array_equal(scene_of(str(number)).image, draw_image(split, index)[0].image)


def test_a_folder_has_phrases_and_one_noun_is_too_few(tmp_path: Path, phrasecut_root) -> None:
    write_folder(tmp_path / "own")
    known = read_statements(tmp_path / "own", "test")
    assert {said.text for said in known.phrases} == {"a dog", "sky"}
    root = phrasecut_root(2, splits=("test",))
    path = root / "refer_test.json"
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["phrase_structure"]["name"] = "thing"
    path.write_text(json.dumps(tasks))
    with pytest.raises(ClipSegError, match="fewer than two nouns"):
        read_statements(root, "test")
