"""LVIS's annotation file read by the authors' pairs; here a tiny one in the exact official format."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clipseg.errors import ClipSegError
from clipseg.studies.visual_prompts.lvis_pairs import LVISPairs, published_pairs

NAMES = {1: "aerosol_can", 2: "bus_(vehicle)", 3: "cat", 4: "dog", 5: "zebra"}


def square(left, top, side):
    return [left, top, left + side, top, left + side, top + side, left, top + side]


@pytest.fixture
def root(tmp_path):
    """Four photos: 31 with bus, cat and dog; 12 with two buses, cat, dog and zebra; 23 with cats alone; 44 as 31."""
    annotations = []

    def annotate(image_id, category, *polygons):
        area = sum((polygon[2] - polygon[0]) ** 2 for polygon in polygons)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category,
                "segmentation": [list(map(float, polygon)) for polygon in polygons],
                "area": float(area),
                "bbox": [float(polygons[0][0]), float(polygons[0][1]), 8.0, 8.0],
            }
        )

    for category in (2, 3, 4):
        annotate(31, category, square(4 * category, 6, 5))
    annotate(12, 2, square(2, 2, 4))
    annotate(12, 2, square(20.4, 10.6, 12), square(2, 30, 3))
    for category in (3, 4, 5):
        annotate(12, category, square(4 * category, 6, 5))
    annotate(23, 3, square(1, 1, 6))
    for category in (2, 3, 4):
        annotate(44, category, square(4 * category, 6, 5))
    images = []
    for image_id, folder in ((31, "train2017"), (12, "val2017"), (23, "train2017"), (44, "train2017")):
        path = tmp_path / folder / f"{image_id:012}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (48, 40), image_id).save(path)
        images.append(
            {
                "id": image_id,
                "width": 48,
                "height": 40,
                "license": 3,
                "flickr_url": "",
                "coco_url": f"http://images.cocodataset.org/{folder}/{path.name}",
                "date_captured": "2013-11-14 16:28:13",
                "not_exhaustive_category_ids": [],
                "neg_category_ids": [1],
            }
        )
    categories = [
        {
            "id": number,
            "name": name,
            "synonyms": [name],
            "synset": f"{name}.n.01",
            "def": "",
            "frequency": "f",
            "image_count": 3,
            "instance_count": 4,
        }
        for number, name in NAMES.items()
    ]
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "lvis_v1_train.json").write_text(json.dumps(content))
    return tmp_path


def edit(root, change):
    path = root / "lvis_v1_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def found(source):
    return {thing.key: thing for item in range(len(source)) for thing in source[item]}


def test_the_authors_list_is_whole():
    pairs = published_pairs()
    assert len(pairs) == len(set(pairs)) == 1584  # of 1,600, 16 of which repeat others
    positions, categories = zip(*pairs, strict=True)
    assert (min(positions), max(positions)) == (0, 1760)
    assert (min(categories), max(categories)) == (4, 1202)
    assert Counter(categories).most_common(1)[0][0] == 422  # the elephant


def test_a_pair_is_a_position_in_its_category_s_images(root):
    objects = found(LVISPairs(root, pairs=[(1, 2), (2, 2), (0, 5), (1, 2), (0, 4)]))
    assert set(objects) == {"train/12__2", "train/12__5", "train/31__4", "train/44__2"}
    bus = objects["train/12__2"]
    assert (bus.image_key, bus.name) == ("12", "bus")
    assert bus.names == ("bus", "cat", "dog", "zebra")
    assert bus.image.shape == (3, 40, 48)
    assert int(bus.image[0, 0, 0]) == 12
    expected = np.zeros((40, 48), dtype=np.uint8)
    expected[11:23, 20:32] = 1  # 10.6 to 22.6, 20.4 to 32.4
    expected[30:33, 2:5] = 1
    assert np.array_equal(bus.mask.numpy(), expected), "the largest bus, all of its polygons"


def test_images_with_fewer_than_three_names_are_left_out(root):
    # The cat's images are 31, 12, 23 and 44.
    assert list(found(LVISPairs(root, pairs=[(2, 3), (3, 3)]))) == ["train/44__3"]
    with pytest.raises(ClipSegError, match="no pair leads to an image with 3 names"):
        LVISPairs(root, pairs=[(2, 3)])


def test_a_position_beyond_the_list_is_told(root):
    with pytest.warns(UserWarning, match="1 of 2 pairs point beyond"):
        assert len(LVISPairs(root, pairs=[(0, 2), (3, 2)])) == 1


def test_photos_that_are_missing(root):
    (root / "val2017" / "000000000012.jpg").unlink()
    with pytest.raises(ClipSegError, match=r"000000000012\.jpg: no such image"):
        found(LVISPairs(root, pairs=[(0, 2), (0, 5)]))
    with pytest.warns(UserWarning, match="1 of 2 photos are missing"):
        assert list(found(LVISPairs(root, pairs=[(0, 2), (0, 5)], allow_missing=True))) == ["train/31__2"]


def test_a_photo_of_another_size(root):
    Image.new("RGB", (40, 48)).save(root / "val2017" / "000000000012.jpg")
    with pytest.raises(ClipSegError, match=r"000000000012\.jpg: 40x48 pixels, but .* says 48x40"):
        found(LVISPairs(root, pairs=[(0, 5)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("categories"), "no list of categories"),
        (lambda content: content["images"][0].update(coco_url="http://x/train2017/../../1.jpg"), "names no photo"),
        (lambda content: content["annotations"][0].update(category_id=7), "category 7 is not in the file"),
        (lambda content: content["categories"].pop(), "no category 5"),
    ],
)
def test_a_file_of_another_kind_is_one_line(root, change, message):
    edit(root, change)
    if message == "no category 5":
        edit(root, lambda content: content.update(annotations=[a for a in content["annotations"] if a["category_id"] != 5]))
    with pytest.raises(ClipSegError, match=message) as caught:
        LVISPairs(root, pairs=[(0, 5)])
    assert "\n" not in str(caught.value)


def test_an_object_without_a_pixel_is_left_out(root):
    edit(root, lambda content: [a.update(segmentation=[]) for a in content["annotations"] if a["category_id"] == 5])
    assert found(LVISPairs(root, pairs=[(0, 5)])) == {}


def test_another_split_says_which_there_are(root):
    with pytest.raises(ClipSegError, match="split 'test' unknown; expected one of train"):
        LVISPairs(root, split="test")
