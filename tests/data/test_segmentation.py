"""Masks of every kind come out as drawn; what is damaged is an error in one line and never more."""

import contextlib
import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_data import SIZE, box_mask, compressed, polygon, run_lengths
from pycocotools import mask as pycoco

from clipseg.data.readers.segmentation import decode_segmentation, require_pycocotools
from clipseg.errors import ClipSegError

BOX = (3, 2, 20, 11)


def decode(segmentation: object) -> np.ndarray:
    return decode_segmentation(segmentation, *SIZE, where="annotation 7")


@pytest.mark.parametrize("write", [polygon, run_lengths, compressed])
@pytest.mark.parametrize("box", [BOX, (0, 0, 32, 24), (0, 5, 1, 6), (31, 0, 32, 24)])
def test_a_box_is_the_box_however_it_is_written(write, box):
    mask = decode(write(box))
    assert mask.dtype == np.uint8
    assert mask.flags.c_contiguous
    assert np.array_equal(mask, box_mask(box))


def test_the_test_s_text_is_pycocotools_text():
    assert compressed(BOX)["counts"].encode() == pycoco.encode(np.asfortranarray(box_mask(BOX)))["counts"]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.98, 1.0])
def test_pycocotools_text_is_read_as_pycocotools_reads_it(share):
    mask = (np.random.default_rng(7).random(SIZE) < share).astype(np.uint8)
    text = pycoco.encode(np.asfortranarray(mask))["counts"].decode()
    assert np.array_equal(decode({"size": list(SIZE), "counts": text}), mask)


def test_polygons_of_an_object_are_one_mask():
    both = polygon((1, 1, 5, 5)) + polygon((4, 4, 9, 9))
    assert np.array_equal(decode(both), box_mask((1, 1, 5, 5)) | box_mask((4, 4, 9, 9)))


@pytest.mark.parametrize("nothing", [[], [[]], [[1.0, 2.0, 3.0, 4.0]], [[-9.0, -9, -5, -9, -5, -5]]])
def test_what_encloses_nothing_is_empty(nothing):
    assert decode(nothing).shape == SIZE
    assert not decode(nothing).any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "expected polygons, or an RLE"),
        ({"counts": [768]}, "expected polygons, or an RLE"),
        (run_lengths(BOX, (32, 24)), r"RLE of size \[32, 24\], but its image is \[24, 32\]"),
        ({"size": [24, 32], "counts": [10]}, "sum to 768"),
        ({"size": [24, 32], "counts": [800, -32]}, "sum to 768"),
        ({"size": [24, 32], "counts": [768.0]}, "sum to 768"),
        ({"size": [24, 32], "counts": "P"}, "expected run lengths"),
        ({"size": [24, 32], "counts": "héé"}, "expected run lengths"),
        ({"size": [24, 32], "counts": ""}, "expected run lengths"),
        ({"size": [24, 32], "counts": compressed((0, 0, 60, 60), (64, 64))["counts"]}, "expected run lengths that sum to 768"),
        (
            {"size": [24, 32], "counts": "oooooo0" * 4},
            "expected run lengths that sum to 768",
        ),  # pycocotools writes beyond its memory
        ([[1, 2, 3, 4, 5]], "x and y in turn"),
        ([[[1, 2], [3, 4], [5, 6]]], "x and y in turn"),
        ([["1", "2", "3", "4", "5", "6"]], "x and y in turn"),
        ([[1, 2, float("nan"), 4, 5, 6]], "far outside"),
        ([[1, 2, 1e9, 4, 5, 6]], "far outside"),
        ([[-200.0, -200.0, 200.0, 200.0] * 90], "crosses the image hundreds of times"),
    ],
)
def test_what_is_wrong_is_said(segmentation, message):
    with pytest.raises(ClipSegError, match=message) as error:
        decode(segmentation)
    assert str(error.value).startswith("annotation 7: ")
    assert "\n" not in str(error.value)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_no_text_does_harm(text):
    with contextlib.suppress(ClipSegError):
        assert decode({"size": list(SIZE), "counts": text}).shape == SIZE


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClipSegError, match=r"pip install 'clipseg\[coco\]'"):
        require_pycocotools()
