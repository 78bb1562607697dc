"""The synthetic data in the official layouts: whole for every reader, exact, and with every class where a protocol needs it."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipseg.data.classes import COCO_CLASSES, PASCAL_CLASSES, coco20i_fold, pascal5i_fold
from clipseg.data.layout import find_layouts
from clipseg.data.mini import layouts
from clipseg.data.mini.layouts import (
    COCO_IDS,
    LVIS_CATEGORIES,
    SHORT_SIDE,
    Photo,
    draw_photo,
    label_map,
    materialize_layout,
    outlines,
    pascal_palette,
    run_lengths,
    stand_in,
)
from clipseg.data.mini.phrasecut import SIDE, draw_image
from clipseg.data.readers.coco import coco20i
from clipseg.data.readers.folder import FolderData
from clipseg.data.readers.lvis import lvis_prompts, natural_name
from clipseg.data.readers.pascal import pascal5i
from clipseg.data.readers.segmentation import decode_segmentation
from clipseg.data.upkeep.check import check_data
from clipseg.run.loading import data_root

LAYOUTS = ("pascal", "coco", "lvis", "folder")
FEW = {
    "PASCAL_SPLITS": {"train": 2, "val": 25},
    "COCO_SPLITS": {"train2014": 2, "val2014": 165},
    "LVIS_SPLITS": {"train": 2, "val": 12},
    "FOLDER_SPLITS": {"train": 3, "test": 2},
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each layout, with few images and without pycocotools."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pycocotools", None)
        for name, splits in FEW.items():
            patch.setattr(layouts, name, splits)
        return {layout: materialize_layout(layout, folder / layout) for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_and_whole(roots, layout):
    assert find_layouts(roots[layout]) == (layout,)
    report = check_data(roots[layout], decode=True)
    assert {finding.level for finding in report.findings} == {"info"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_code_gives_the_same_bytes_once(roots, layout, tmp_path, monkeypatch):
    for name, splits in FEW.items():
        monkeypatch.setattr(layouts, name, {split: min(count, 4) for split, count in splits.items()})
    first, second = (materialize_layout(layout, tmp_path / name) for name in ("first", "second"))
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert len(files) > 4
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    monkeypatch.setattr(layouts, "_WRITERS", {layout: lambda root: pytest.fail("written a second time")})
    assert materialize_layout(layout, first) == first


def test_mini_is_drawn_in_the_layout_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(layouts, "FOLDER_SPLITS", {"train": 1})
    root = data_root("mini", "folder")
    assert root.parent == tmp_path / "clipseg"
    assert find_layouts(root) == ("folder",)
    assert data_root("somewhere", "folder") == Path("somewhere")


def test_a_class_has_a_look_of_its_own():
    first = [stand_in(number) for number in range(64)]
    assert len(set(first)) == 64
    assert [stand_in(number) for number in range(64, 80)] == first[:16]
    for step in (1, 4):  # the classes of a fold of Pascal-5i, and of one of COCO-20i
        assert all(a[0] != b[0] or a[1] != b[1] for a, b in zip(first, first[step:], strict=False))


@pytest.mark.parametrize("number", [0, 33, 79])
def test_a_photo_shows_its_class_whole(number):
    shapes, counts = set(), set()
    for index in range(24):
        photo = draw_photo((80, 0, index), number, class_count=80)
        shapes.add(photo.image.shape)
        counts.add(len(photo.things))
        of_class, mask = photo.things[0]
        assert of_class == number
        assert mask.sum() > (300 if number >= 64 else 600)
        assert all(mask.shape == photo.image.shape[:2] for _, mask in photo.things)
        assert sum(mask.astype(int) for _, mask in photo.things).max() == 1
    assert shapes == {(SHORT_SIDE, SIDE, 3), (SIDE, SHORT_SIDE, 3)}
    assert {1, 2, 3} <= counts


def test_polygons_and_run_lengths_are_decoded_to_the_mask():
    """By pycocotools, also where the edge of the photo cuts a thing to pieces."""
    rng = np.random.default_rng(0)
    masks = [mask for index in range(15) for _, mask in draw_photo((3, 0, index), index, class_count=80).things]
    masks += [rng.random((9, 14)) < 0.3 for _ in range(5)]  # specks; without holes, as nine pixels that enclose one are rare
    in_pieces = np.zeros((20, 30), dtype=bool)
    in_pieces[:5, 3:9] = in_pieces[19, 29] = in_pieces[10:20, 5] = True
    for mask in [*masks, in_pieces]:
        for written in (outlines(mask), run_lengths(mask)):
            assert np.array_equal(decode_segmentation(written, *mask.shape, where="here"), mask)
    assert len(outlines(in_pieces)) == 3
    assert run_lengths(np.eye(2, dtype=bool)) == {"size": [2, 2], "counts": [0, 1, 2, 1]}


def test_a_label_map_has_a_border_around_each_thing():
    left, right = np.zeros((20, 30), dtype=bool), np.zeros((20, 30), dtype=bool)
    left[5:15, 3:12] = right[5:15, 12:25] = True
    labels = label_map(Photo(np.zeros((20, 30, 3), dtype=np.uint8), ((14, left), (14, right))))
    expected = np.zeros((20, 30), dtype=np.uint8)
    expected[4:16, 2:26] = 255
    expected[6:14, 4:11] = expected[6:14, 13:24] = 15
    assert np.array_equal(labels, expected)


def test_pascal_s_own_colours(roots):
    colours = np.reshape(pascal_palette(), (256, 3)).tolist()
    names = ("background", *PASCAL_CLASSES)
    assert colours[names.index("aeroplane")] == [128, 0, 0]
    assert colours[names.index("person")] == [192, 128, 128]
    assert colours[names.index("tv monitor")] == [0, 64, 128]
    assert colours[255] == [224, 224, 192]
    folder = roots["pascal"] / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    with Image.open(min(folder.iterdir())) as picture:
        assert (picture.mode, picture.getpalette()[:6]) == ("P", [0, 0, 0, 128, 0, 0])


def read(root: Path) -> dict[str, Any]:
    return json.loads((root / "annotations" / "instances_val2014.json").read_text())


def test_the_protocols_find_their_classes(roots):
    episodes = pascal5i(roots["pascal"], fold=0, visual_support=True).episodes
    assert {episode.name for episode in episodes} == set(pascal5i_fold(0))
    drawn = coco20i(roots["coco"], fold=1, visual_support=True)
    assert (len(drawn.episodes), {episode.name for episode in drawn.episodes}) == (1000, set(coco20i_fold(1)))
    things = Counter(entry["image_id"] for entry in read(roots["coco"])["annotations"])
    for fold in range(4):  # whose classes image i shows for i ≡ fold (mod 4); most of them among others
        first = FEW["COCO_SPLITS"]["train2014"] + 1 + fold
        assert np.mean([things[image_id] > 1 for image_id in range(first, max(things) + 1, 4)]) > 0.4
    for kind in ("affordances", "attributes", "meronymy"):
        assert len(lvis_prompts(roots["lvis"], kind=kind))
    assert len(FolderData(roots["folder"], split="test")) == FEW["FOLDER_SPLITS"]["test"]


def test_the_shipped_sizes_show_every_class_twice():
    """Image i shows class i, modulo their number: what every fold needs by example."""
    assert layouts.PASCAL_SPLITS["val"] == 2 * len(PASCAL_CLASSES)
    assert layouts.COCO_SPLITS["val2014"] == 2 * len(COCO_CLASSES)
    assert min(layouts.LVIS_SPLITS.values()) >= len(LVIS_CATEGORIES)


def test_coco_s_own_ids_and_crowds(roots):
    content = read(roots["coco"])
    ids = {category["name"]: category["id"] for category in content["categories"]}
    assert (ids["person"], ids["stop sign"], ids["bench"], ids["dining table"], ids["toothbrush"]) == (1, 13, 15, 67, 90)
    assert len(COCO_IDS) == len(ids) == 80
    crowds = [entry for entry in content["annotations"] if entry["iscrowd"]]
    assert 0 < len(crowds) < len(content["annotations"]) / 4
    assert all(set(entry["segmentation"]) == {"size", "counts"} for entry in crowds)
    assert all(isinstance(e["segmentation"], list) for e in content["annotations"] if not e["iscrowd"])
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for entry in content["annotations"][:40]:
        mask = decode_segmentation(entry["segmentation"], *sizes[entry["image_id"]], where="here").astype(bool)
        x, y, width, height = entry["bbox"]
        assert mask.sum() == mask[y : y + height, x : x + width].sum() == entry["area"]
        assert mask[y].any()
        assert mask[:, x + width - 1].any()


def test_lvis_has_what_the_prompts_need(roots):
    content = json.loads((roots["lvis"] / "lvis_v1_val.json").read_text())
    assert [category["name"] for category in content["categories"]] == sorted(LVIS_CATEGORIES)
    assert {"wheel", "steering wheel"} <= {natural_name(name) for name in LVIS_CATEGORIES}
    assert not any(entry["iscrowd"] for entry in content["annotations"])
    assert {Path(image["coco_url"]).parent.name for image in content["images"]} == {"train2017", "val2017"}


def test_a_folder_s_masks_are_the_phrases_(roots):
    scene, phrases = draw_image("test", 1)
    data = FolderData(roots["folder"], split="test")
    sample = data[1]
    assert [task.phrase for task in sample.tasks] == [phrase.text for phrase in phrases]
    for task, phrase in zip(sample.tasks, phrases, strict=True):
        truth = np.logical_or.reduce([thing.mask for thing in scene.objects if phrase.matches(thing, scene)])
        found = task.mask.numpy().astype(bool)
        assert (found & truth).sum() / (found | truth).sum() > 0.97
