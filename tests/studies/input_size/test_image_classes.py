"""Images by class: which are read, which class each has, which are tested on; and what cannot be is one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg.data.mini.shapes import CATEGORIES
from clipseg.errors import ClipSegError
from clipseg.studies.input_size import image_classes
from clipseg.studies.input_size.image_classes import class_folders, single_objects


def write(root, **classes):
    """A photo for each name, whose brightness tells which it is."""
    for name, files in classes.items():
        (root / name).mkdir(parents=True)
        for number, file in enumerate(files):
            Image.new("RGB", (6, 4), (40 * number,) * 3).save(root / name / file)
    return root


def by_split(data):
    found = [
        {
            (str(i), data.names[label])
            for i, label, kind in zip(data.image_ids, data.labels, data.is_test, strict=True)
            if kind == t
        }
        for t in (False, True)
    ]
    return found[0], found[1]


def test_a_split_is_two_folders(tmp_path):
    write(tmp_path / "train", cat=["a.jpg", "b.PNG"], dog=["a.jpg"], emu=["c.jpg"])
    write(tmp_path / "val", emu=["z.jpg"], cat=["y.webp"])
    (tmp_path / "train" / "cat" / "notes.txt").write_text("none")
    (tmp_path / "train" / ".cache").mkdir()
    data = class_folders(tmp_path, split="val")
    assert data.names == ("cat", "dog", "emu")
    assert by_split(data) == (
        {("train/cat/a.jpg", "cat"), ("train/cat/b.PNG", "cat"), ("train/dog/a.jpg", "dog"), ("train/emu/c.jpg", "emu")},
        {("val/emu/z.jpg", "emu"), ("val/cat/y.webp", "cat")},
    )
    sample = data[0, 1]
    assert (sample.image_key, sample.tasks) == ("train/cat/b.PNG", ())
    assert sample.image.dtype == torch.uint8
    assert sample.image.shape == (3, 4, 6)
    assert set(sample.image.unique().tolist()) == {40}


def test_without_a_split_each_class_is_divided_by_the_seed(tmp_path):
    write(tmp_path, cat=[f"{n}.png" for n in range(10)], dog=["a.png", "b.png"], train=[f"{n}.png" for n in range(3)])
    data = class_folders(tmp_path, seed=1)
    tested = {name: int((data.is_test & (data.labels == label)).sum()) for label, name in enumerate(data.names)}
    assert tested == {"cat": 3, "dog": 1, "train": 1}
    assert np.array_equal(class_folders(tmp_path, seed=1).is_test, data.is_test)
    assert not np.array_equal(class_folders(tmp_path, seed=2).is_test, data.is_test)


def test_what_cannot_be_is_said(tmp_path):
    def refused(root, match, **options):
        with pytest.raises(ClipSegError, match=match) as caught:
            class_folders(root, **options)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "no such folder")
    refused(write(tmp_path / "one", cat=["a.png"]), "1 class folders; expected at least two")
    refused(write(tmp_path / "empty", cat=["a.png"], dog=[]), "class 'dog' without an image")
    refused(write(tmp_path / "few", cat=["a.png"], dog=["a.png", "b.png"]), "class 'cat' has one image")
    refused(write(tmp_path / "plain", cat=["a.png", "b.png"], dog=["a.png", "b.png"]), "leave split out", split="val")
    write(tmp_path / "two" / "train", cat=["a.png"], dog=["a.png"])
    write(tmp_path / "two" / "val", cat=["a.png"], gnu=["a.png"])
    refused(tmp_path / "two", r"no test/<class> beside train; add split=NAME, one of: val")
    refused(tmp_path / "two", "class 'gnu' is not in", split="val")


def test_drawn_scenes_are_a_function_of_the_seed(monkeypatch):
    monkeypatch.setattr(image_classes, "SYNTHETIC_PER_CLASS", {"train": 3, "test": 2})
    data = single_objects(seed=4)
    assert data.names == tuple(CATEGORIES)
    assert len(data) == 40
    assert np.bincount(data.labels[data.is_test]).tolist() == [2] * 8
    assert np.bincount(data.labels[~data.is_test]).tolist() == [3] * 8
    again, other = single_objects(seed=4), single_objects(seed=5)
    assert torch.equal(data[0, 7].image, again[0, 7].image)
    assert not torch.equal(data[0, 7].image, other[0, 7].image)
    assert not torch.equal(data[0, 7].image, data[0, 15].image)
