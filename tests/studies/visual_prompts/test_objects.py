"""Objects with the names of all that is in their image, from data in PhraseCut's layout."""

import json

import numpy as np
import pytest

from clipseg.data.phrasecut import PhraseCut
from clipseg.errors import ClipSegError
from clipseg.studies.visual_prompts.objects import PhraseCutObjects


def objects_of(root, change=None):
    if change is not None:
        path = root / "refer_test.json"
        tasks = json.loads(path.read_text())
        for task in tasks:
            change(task)
        path.write_text(json.dumps(tasks))
    return PhraseCutObjects(PhraseCut(root, split="test"))


def test_images_with_three_names_and_their_name_tasks(phrasecut_root):
    source = objects_of(phrasecut_root(n=6, splits=("test",)))
    found = [thing for item in range(len(source)) for thing in source[item]]
    # Images 1 to 6 hold 3, 4, 2, 3, 4, 2 kinds of things.
    assert [len(source[item]) for item in range(len(source))] == [3, 4, 3, 4]
    assert {thing.image_key for thing in found} == {"1", "2", "4", "5"}
    assert len({thing.key for thing in found}) == len(found)
    first = found[0]
    assert (first.key, first.name, first.names) == ("test/1__0", "red", ("blue", "green", "red"))
    assert first.image.shape[1:] == first.mask.shape
    red = first.image.permute(1, 2, 0).numpy()[first.mask.numpy() > 0]
    assert (np.abs(np.median(red, axis=0) - [200, 40, 40]) < 20).all()
    with pytest.raises(IndexError):
        source[len(source)]


def test_other_tasks_give_names_but_are_not_asked_about(phrasecut_root):
    def change(task):
        if task["phrase"] == "green":
            task["phrase_structure"]["type"] = "attribute"

    source = objects_of(phrasecut_root(n=1, splits=("test",)), change)
    assert [thing.name for thing in source[0]] == ["red", "blue"]
    assert source[0][0].names == ("blue", "green", "red")


def test_a_name_is_not_its_phrase_and_counts_once(phrasecut_root):
    def change(task):
        task["phrase"] = f"the {task['phrase']} one"
        task["phrase_structure"]["name"] = {"green": "red"}.get(task["phrase_structure"]["name"], "blue")

    with pytest.raises(ClipSegError, match=r"split test has no image with at least 3 names"):
        objects_of(phrasecut_root(n=1, splits=("test",)), change)


def test_a_polygon_outside_the_image_is_no_object(phrasecut_root):
    def change(task):
        if task["phrase"] == "red":
            task["Polygons"] = [[[[900, 900], [910, 900], [910, 910]]]]

    source = objects_of(phrasecut_root(n=1, splits=("test",)), change)
    assert [thing.name for thing in source[0]] == ["green", "blue"]


@pytest.mark.parametrize("structure", [None, [], {}, {"name": 3}])
def test_annotations_without_names_are_one_line(phrasecut_root, structure):
    def change(task):
        task["phrase_structure"] = structure

    with pytest.raises(ClipSegError, match=r"refer_test.json: entry 0: no phrase_structure with a name"):
        objects_of(phrasecut_root(n=1, splits=("test",)), change)
