"""LVIS as published: a prompt's mask is the union of all it is true of, on images that show at least one of them."""

import numpy as np
import pytest
from made_data import SIZE, box_mask, polygon, write_coco, write_lvis

from clipseg.data.classes import LVIS_PROMPTS
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.lvis import lvis_prompts, lvis_training, natural_name
from clipseg.errors import ClipSegError

ONE, TWO, THREE = (2, 3, 9, 12), (11, 1, 30, 8), (20, 12, 25, 22)
BOXES = {
    3: [("chair", ONE), ("chair", TWO), ("horse", THREE)],
    4: [("sofa", ONE), ("bus_(vehicle)", TWO)],
    8: [("zebra", ONE)],
    21: [("duck", ONE), ("horse", TWO), ("bottle", THREE)],
}
IMAGES = {i: [(name, polygon(box)) for name, box in boxes] for i, boxes in BOXES.items()}


@pytest.mark.parametrize("kind", list(LVIS_PROMPTS))
def test_a_prompt_s_mask_is_the_union_of_its_categories(tmp_path, kind):
    write_lvis(tmp_path, IMAGES)
    data = lvis_prompts(tmp_path, kind=kind)
    expected = {}
    for image_id, boxes in BOXES.items():
        for prompt, categories in LVIS_PROMPTS[kind].items():
            masks = [box_mask(box) for name, box in boxes if name in categories]
            if masks:
                expected[f"val/{image_id}__{prompt.replace(' ', '_')}"] = np.any(masks, axis=0)
    assert expected
    tasks = {task.key: task for sample in data for task in sample.tasks}
    assert tasks.keys() == expected.keys()
    for key, task in tasks.items():
        assert np.array_equal(task.mask, expected[key])
        assert task.group == task.phrase
        assert task.phrase in LVIS_PROMPTS[kind]
        assert task.support is None
    assert all(sample.image.shape == (3, *SIZE) for sample in data)
    assert [sample.image_key for sample in data] == data.image_ids.tolist()


def test_training_names_classes_as_one_says_them(tmp_path):
    bows = {5: [("bow_(weapon)", polygon(ONE)), ("bow_(decorative)", polygon(TWO))], 7: [("bow_(weapon)", polygon(THREE))]}
    write_lvis(tmp_path, IMAGES | bows, split="train")
    data = lvis_training(tmp_path, ReaderOptions(training=True, phrases_per_image=9))
    assert len(data) == len(IMAGES | bows)
    tasks = {task.key: task for item in range(len(data)) for task in data[0, item].tasks}
    assert tasks["train/4__bus"].phrase == "bus"
    assert {key for key in tasks if key.startswith("train/5")} == {"train/5__bow"}
    both = lvis_training(tmp_path, ReaderOptions(training=True, visual_support=True))._source.read_mask("5", "bow")
    assert np.array_equal(both, box_mask(ONE) | box_mask(TWO))


@pytest.mark.parametrize(
    ("category", "name"), [("cab_(taxi)", "cab"), ("jet_plane", "jet plane"), ("zebra", "zebra"), ("car_(automobile)", "car")]
)
def test_natural_names(category, name):
    assert natural_name(category) == name


def test_what_is_asked_for_must_exist(tmp_path):
    path = write_lvis(tmp_path, IMAGES)
    with pytest.raises(ClipSegError, match="prompts 'colours' unknown; expected one of affordances, attributes, meronymy"):
        lvis_prompts(tmp_path, kind="colours")
    with pytest.raises(ClipSegError, match="split 'train' unknown; expected one of val"):
        lvis_prompts(tmp_path, split="train", kind="attributes")
    path.write_text(path.read_text().replace('"armchair"', '"arm chair"'))
    with pytest.raises(ClipSegError, match="category 'armchair' does not exist"):
        lvis_prompts(tmp_path, kind="affordances")
    path.write_text(path.read_text().replace("http://images.cocodataset.org/", "http://x/../../").replace("2017/", "/"))
    with pytest.raises(ClipSegError, match="names no photo"):
        lvis_prompts(tmp_path, kind="attributes")
    coco = tmp_path / "coco"
    write_coco(coco, {1: [("cat", polygon(ONE))]})
    with pytest.raises(ClipSegError, match=r"not LVIS's layout .*; found COCO's layout"):
        lvis_prompts(coco, kind="attributes")
