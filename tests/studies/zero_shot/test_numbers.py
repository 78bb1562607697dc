"""Generalised zero-shot figures against a slow, obvious count: a loop over pixels, a set of pixels for each class."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipseg.errors import ClipSegError
from clipseg.studies.zero_shot.numbers import (
    class_iou,
    confusion,
    figures_as_scored,
    image_miou,
    predict_with_prompt,
    predict_with_threshold,
    zero_shot_summary,
)

CLASSES = 5


def made(seed: int, *, shape=(9, 7), images=3):
    rng = np.random.default_rng(seed)
    probabilities = [rng.random((1 + CLASSES, *shape), dtype=np.float32) for _ in range(images)]
    labels = [rng.choice([0, 1, 2, 3, 4, 5, 255], size=shape).astype(np.uint8) for _ in range(images)]
    return probabilities, labels


def slow_prompt(probability, factor):
    taken = {}
    for y, x in np.ndindex(probability.shape[1:]):
        best, place = -math.inf, None
        for c in range(len(probability)):
            value = probability[c, y, x] * np.float32(factor if c == 0 else 1) - np.float32(10)
            if value > best:
                best, place = value, c
        taken[y, x] = place
    return taken


def slow_threshold(probability, threshold):
    taken = {}
    for y, x in np.ndindex(probability.shape[1:]):
        values = [float(probability[c, y, x]) for c in range(len(probability))]
        taken[y, x] = values.index(max(values)) + 1 if max(values) > threshold else 0
    return taken


def slow_iou(taken_of, labels):
    """IoU by class, None where a class is nowhere, from sets of (image, y, x)."""
    truth = {c: set() for c in range(CLASSES + 1)}
    said = {c: set() for c in range(CLASSES + 1)}
    for image, (taken, label_map) in enumerate(zip(taken_of, labels, strict=True)):
        for (y, x), c in taken.items():
            if label_map[y, x] != 255:
                truth[int(label_map[y, x])].add((image, y, x))
                said[c].add((image, y, x))
    return [len(truth[c] & said[c]) / len(truth[c] | said[c]) if truth[c] | said[c] else None for c in truth]


def mean(values):
    """A class that is nowhere counts as 0."""
    return sum(value or 0 for value in values) / len(values)


@given(st.integers(0, 2**32), st.sampled_from([1.0, 3.0]))
def test_the_prompt_protocol_equals_a_loop_over_pixels(seed, factor):
    probabilities, labels = made(seed)
    matrix = sum(
        confusion(predict_with_prompt(p, background_factor=factor), truth, classes=CLASSES)
        for p, truth in zip(probabilities, labels, strict=True)
    )
    iou = slow_iou([slow_prompt(p, factor) for p in probabilities], labels)
    figures = zero_shot_summary(matrix, unseen=[2, 5])
    assert figures["miou_unseen"] == pytest.approx(mean([iou[2], iou[5]]))
    assert figures["miou_seen"] == pytest.approx(mean([iou[1], iou[3], iou[4]]))
    assert figures["miou"] == pytest.approx(mean(iou[1:]))
    assert figures["iou_background"] == pytest.approx(iou[0])
    assert figures["miou_with_background"] == pytest.approx(mean(iou))
    assert figures["miou_seen_with_background"] == pytest.approx(mean([iou[0], iou[1], iou[3], iou[4]]))
    for kind in ("", "_with_background"):
        seen, unseen = figures[f"miou_seen{kind}"], figures["miou_unseen"]
        assert figures[f"miou_harmonic{kind}"] == pytest.approx(2 / (1 / seen + 1 / unseen) if seen and unseen else 0)
    scored = figures_as_scored(matrix, unseen=[2, 5])
    assert scored["miou_seen_as_scored"] == figures["miou_unseen"]
    assert scored["miou_unseen_as_scored"] == figures["miou_seen_with_background"]


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_the_threshold_protocol_equals_a_loop_over_pixels(seed, threshold):
    probabilities, labels = made(seed)
    names = [p[1:] for p in probabilities]
    predicted = [predict_with_threshold(torch.from_numpy(p), threshold=threshold) for p in names]
    matrix = sum(confusion(p, torch.from_numpy(t), classes=CLASSES) for p, t in zip(predicted, labels, strict=True))
    expected = slow_iou([slow_threshold(p, threshold) for p in names], labels)
    assert class_iou(matrix).tolist() == pytest.approx([math.nan if v is None else v for v in expected], nan_ok=True)


def test_the_background_counts_three_times():
    probability = np.array([0.3, 0.89, 0.1], dtype=np.float32)[:, None, None]
    assert predict_with_prompt(probability).item() == 0
    assert predict_with_prompt(probability, background_factor=2).item() == 1
    assert probability[0].item() == np.float32(0.3)  # left as it was
    assert predict_with_threshold(probability[1:], threshold=0.9).item() == 0
    assert predict_with_threshold(probability[1:], threshold=0.88).item() == 1


def test_ignored_pixels_count_nowhere_and_rows_are_the_truth():
    predicted = np.array([[1, 2, 2, 0]], dtype=np.uint8)
    matrix = confusion(predicted, np.array([[1, 1, 255, 2]], dtype=np.uint8), classes=2)
    assert matrix.tolist() == [[0, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert matrix.dtype == np.int64


def test_classes_that_occur_nowhere_count_as_0_but_not_in_an_image_of_their_own():
    labels = np.array([[1, 1, 0, 0]], dtype=np.uint8)
    matrix = confusion(np.array([[1, 0, 0, 0]], dtype=np.uint8), labels, classes=CLASSES)
    figures = zero_shot_summary(matrix, unseen=[2])
    assert figures["miou_seen"] == pytest.approx(0.5 / 4)
    assert figures["miou_unseen"] == figures["miou_harmonic"] == 0
    assert image_miou(matrix) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert "miou_unseen" not in zero_shot_summary(matrix, unseen=[])
    assert all(map(math.isfinite, zero_shot_summary(matrix, unseen=[]).values()))


def test_what_float32_cannot_tell_apart_10_below_is_equal():
    probability = np.array([0.1, 0.2, 0.5, np.nextafter(np.float32(0.5), np.float32(1))], dtype=np.float32)[:, None, None]
    assert predict_with_prompt(probability).item() == 2
    assert predict_with_threshold(probability[1:], threshold=0.1).item() == 3


def test_nothing_right_is_zero():
    matrix = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    assert set(zero_shot_summary(matrix, unseen=[1]).values()) == {0.0}


def test_what_cannot_be_is_an_error():
    with pytest.raises(ClipSegError, match="label values from 0 to 21; expected 0 to 20 and 255"):
        confusion(np.zeros((1, 2), dtype=np.uint8), np.array([[0, 21]], dtype=np.uint8), classes=20)
    for wrong in (np.full((2, 1, 1), 1.1), np.full((2, 1, 1), np.nan), np.zeros((0, 1, 1))):
        with pytest.raises(ClipSegError, match="outside"):
            predict_with_prompt(wrong)
    with pytest.raises(ClipSegError, match="unseen labels"):
        zero_shot_summary(np.eye(3, dtype=np.int64), unseen=[3])
    with pytest.raises(ClipSegError, match="no pixels"):
        zero_shot_summary(np.zeros((3, 3), dtype=np.int64), unseen=[1])
