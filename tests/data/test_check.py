"""The check knows every layout, calls a whole data set whole, and names each kind of damage in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_data import SIZE, box_mask, change, photo, polygon, run_lengths, write_coco, write_labels, write_lvis, write_voc
from PIL import Image

from clipseg.__main__ import main
from clipseg.data.layout import find_layouts
from clipseg.data.upkeep.check import check_data
from clipseg.errors import ClipSegError

BOX = (2, 3, 9, 12)
VOC = {"2007_000033": {"cat": BOX}, "2007_000042": {"dog": BOX}, "2007_000061": {"dog": BOX}}
COCO = {1: [("cat", polygon(BOX))], 2: [("cat", run_lengths(BOX)), ("dog", polygon(BOX))], 3: []}
LVIS = {1: [("zebra", polygon(BOX))], 2: [("duck", polygon(BOX))]}


def errors(root: Path, *, decode: bool = False) -> list[str]:
    report = check_data(root, decode=decode)
    assert not any("\n" in line for line in report.lines())
    found = [finding.text for finding in report.findings if finding.level == "error"]
    assert report.ok == (not found)
    return found


def own_folder(root: Path) -> None:
    photo(root / "1.jpg")
    Image.fromarray(box_mask(BOX)).save(root / "mask.png")
    tasks = [{"image": "1.jpg", "mask": "mask.png", "phrase": "a"}, {"image": "1.jpg", "polygons": [], "phrase": "b"}]
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, tasks)))


def test_each_layout_is_found_and_whole(tmp_path, phrasecut_root):
    roots = {name: tmp_path / name for name in ("pascal", "coco", "lvis", "folder")}
    for root in roots.values():
        root.mkdir()
    write_voc(roots["pascal"], VOC)
    write_coco(roots["coco"], COCO)
    write_lvis(roots["lvis"], LVIS)
    own_folder(roots["folder"])
    for layout, root in (roots | {"phrasecut": phrasecut_root(1)}).items():
        assert find_layouts(root) == (layout,)
        assert not errors(root, decode=True)
    assert "info: val: 3 images (Pascal VOC 2012 as published: 1,449)" in check_data(roots["pascal"]).lines()
    line = "info: val2014: 3 images, 3 annotations (COCO as published: 40,504 and 291,875)"
    assert line in check_data(roots["coco"]).lines()
    assert "info: train: 2 tasks on 1 images" in check_data(roots["folder"]).lines()


def test_counts_as_published_are_said_to_be(tmp_path, monkeypatch):
    write_coco(tmp_path, COCO)
    monkeypatch.setattr("clipseg.data.upkeep.check.COCO_COUNTS", {"val2014": (3, 3)})
    assert "info: val2014: 3 images, 3 annotations, as published" in check_data(tmp_path).lines()


def test_coco_and_lvis_may_share_a_folder(tmp_path):
    write_coco(tmp_path, COCO)
    write_lvis(tmp_path, LVIS)
    assert find_layouts(tmp_path) == ("coco", "lvis")
    assert sum("images," in line for line in check_data(tmp_path).lines()) == 2


def test_pascal_damage(tmp_path):
    write_voc(tmp_path, VOC)
    folder = tmp_path / "VOCdevkit/VOC2012"
    (folder / "JPEGImages/2007_000033.jpg").unlink()
    write_labels(folder / "SegmentationClass/2007_000042.png", np.full(SIZE, 77, dtype=np.uint8))
    path = folder / "JPEGImages/2007_000061.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    (folder / "ImageSets/Segmentation/train.txt").write_text("")
    found = errors(tmp_path)
    assert found[0].endswith("train.txt: no image, or one twice; fetch it again")
    assert found[1] == "1 of 3 images are missing: 2007_000033"
    assert "label value 77" in found[2]
    assert len(found) == 3
    assert "2007_000061.jpg: truncated" in errors(tmp_path, decode=True)[3]


def test_coco_damage(tmp_path):
    path = write_coco(tmp_path, COCO)
    photos = tmp_path / "val2014"
    (photos / "COCO_val2014_000000000001.jpg").unlink()
    photo(photos / "COCO_val2014_000000000002.jpg", (9, 9))
    (photos / "COCO_val2014_000000000003.jpg").write_bytes(b"")
    found = errors(tmp_path)
    assert found[0] == "1 of 3 images are missing: val2014/COCO_val2014_000000000001.jpg"
    assert found[1].endswith("2.jpg: 9x9 pixels, annotated as 32x24")
    assert "3.jpg: not an image, or an empty file" in found[2]
    assert len(found) == 3
    change(path, lambda c: [a["segmentation"].update(size=[1, 1]) for a in c["annotations"] if a["iscrowd"]])
    assert "annotation 200 of image 2: an RLE of size [1, 1]" in errors(tmp_path, decode=True)[-1]
    path.write_text("{")
    assert "instances_val2014.json: not valid JSON" in errors(tmp_path)[0]


def test_folder_damage(tmp_path):
    own_folder(tmp_path)
    photo(tmp_path / "2.jpg", (9, 9))
    (tmp_path / "3.jpg").write_bytes(b"")
    lines = [("1.jpg", "gone.png"), ("2.jpg", "mask.png"), ("3.jpg", "mask.png"), ("1.jpg", "1.jpg")]
    tasks = [{"image": image, "mask": mask, "phrase": "a"} for image, mask in lines]
    (tmp_path / "val.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    found = errors(tmp_path)
    assert "val.jsonl: line 1: mask 'gone.png': no such file" in found[0]
    assert "3.jpg: not an image" in found[1]
    assert "line 2: mask mask.png has 32x24 pixels, its image 9x9" in found[2]
    assert len(found) == 3


def test_no_layout_says_what_is_there(tmp_path):
    (tmp_path / "holiday.txt").write_text("")
    with pytest.raises(ClipSegError, match=r"not a folder of your own .*; found holiday\.txt; .* PhraseCut's .* Pascal VOC's"):
        check_data(tmp_path)
    with pytest.raises(ClipSegError, match="no such folder"):
        check_data(tmp_path / "nowhere")


def test_the_command_checks_any_of_them(tmp_path, capsys):
    write_voc(tmp_path, VOC)
    assert main(["data", "check", str(tmp_path), "--decode"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("no error")
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg").unlink()
    assert main(["data", "check", str(tmp_path)]) == 1
