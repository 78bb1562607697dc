"""Counts and ratios against slow, obvious second implementations."""

import numpy as np
import pytest
import torch
from scipy.integrate import simpson

from clipseg.errors import ClipSegError
from clipseg.measure import metrics
from clipseg.measure.metrics import DEFINITIONS, THRESHOLDS, Definition, SampleCounts, count, summarise


def random_maps(seed: int, samples: int = 6, size: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Maps that correlate with their masks; a third of the pixels sit at a threshold or one float beside it."""
    generator = np.random.default_rng(seed)
    masks = (generator.random((samples, size, size)) < generator.random((samples, 1, 1))).astype(np.uint8)
    probabilities = np.clip(generator.random(masks.shape) * 0.8 + 0.3 * masks, 0, 1).astype(np.float32)
    at_threshold = generator.choice(THRESHOLDS, masks.shape)
    direction = generator.choice(np.float32([-1, 0, 2]), masks.shape)
    ties = np.where(direction == 0, at_threshold, np.nextafter(at_threshold, direction))
    probabilities = np.where(generator.random(masks.shape) < 0.33, ties, probabilities)
    probabilities[:, 0, :2] = [0.0, 1.0]
    return probabilities, masks


def brute_force(probabilities: np.ndarray, masks: np.ndarray, threshold: np.float32) -> list[tuple[int, int, int, int]]:
    """tp, fp, fn, tn of each sample, pixel by pixel."""
    counted = []
    for probability, mask in zip(probabilities, masks, strict=True):
        cells = [(bool(p > threshold), bool(m)) for p, m in zip(probability.flat, mask.flat, strict=True)]
        counted.append(tuple(cells.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))))
    return counted


def test_thresholds_are_those_of_the_paper() -> None:
    assert THRESHOLDS.dtype == np.float32
    assert [f"{threshold:.2f}" for threshold in THRESHOLDS] == [f"0.{step:02d}" for step in range(2, 100, 2)]


def test_counts_equal_a_pixel_by_pixel_count() -> None:
    probabilities, masks = random_maps(0, samples=3)
    counts = count(probabilities, masks)
    for index, threshold in enumerate(THRESHOLDS):
        ours = zip(counts.tp[:, index], counts.fp[:, index], counts.fn[:, index], counts.tn[:, index], strict=True)
        assert list(ours) == brute_force(probabilities, masks, threshold)


def test_every_float_beside_a_threshold_is_on_its_side() -> None:
    around = [np.nextafter(THRESHOLDS, np.float32(0)), THRESHOLDS, np.nextafter(THRESHOLDS, np.float32(1))]
    probabilities = np.stack(around)[None]
    counts = count(probabilities, np.ones_like(probabilities, dtype=bool))
    expected = [np.count_nonzero(probabilities > threshold) for threshold in THRESHOLDS]
    assert counts.tp[0].tolist() == expected


def test_tensors_of_any_precision_and_masks_of_both_kinds_count_the_same() -> None:
    probabilities, masks = random_maps(1)
    reference = count(probabilities, masks)
    half = torch.from_numpy(probabilities).half()
    for one, two in (
        (reference, count(torch.from_numpy(probabilities).requires_grad_(), torch.from_numpy(masks).bool())),
        (count(half, masks), count(half.float().numpy(), masks)),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(one.columns, two.columns, strict=True))


def test_ignored_pixels_count_nowhere() -> None:
    probabilities, masks = random_maps(2, samples=2)
    valid = np.random.default_rng(3).random(masks.shape) < 0.7
    counts = count(probabilities, masks, valid)
    for sample in range(2):
        kept = valid[sample]
        alone = count(probabilities[sample][kept][None, None], masks[sample][kept][None, None])
        assert all(np.array_equal(a[sample], b[0]) for a, b in zip(counts.columns, alone.columns, strict=True))
    nothing = count(probabilities, masks, np.zeros_like(masks))
    assert nothing.pixels.tolist() == [0, 0]
    assert nothing.tp.sum() == nothing.fp.sum() == 0


@pytest.mark.parametrize("value", [np.nan, -0.001, 1.001, np.inf])
def test_what_is_no_probability_is_refused(value: float) -> None:
    probabilities = np.full((1, 2, 2), 0.5, dtype=np.float32)
    probabilities[0, 1, 1] = value
    with pytest.raises(ClipSegError, match="expected \\[0, 1\\]"):
        count(probabilities, np.zeros((1, 2, 2), dtype=np.uint8))


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(ClipSegError, match="255"):
        count(np.full((1, 2, 2), 0.5), np.full((1, 2, 2), 255, dtype=np.uint8))
    with pytest.raises(ClipSegError, match="no pixels"):
        count(np.zeros((0, 2, 2)), np.zeros((0, 2, 2), dtype=np.uint8))


def transcription(
    probabilities: np.ndarray, masks: np.ndarray, groups: list[str], definition: Definition
) -> dict[str, np.ndarray | float]:
    """The definitions, word for word, on the pixels."""
    one = 1 if definition == "released" else 0

    def ratio(part: float, whole: float) -> float:
        return 1.0 if whole + one == 0 else part / (whole + one)

    over: dict[str, list[float]] = {name: [] for name in ("miou", "mdice", "iou_fg", "dice", "iou_bin")}
    points = []
    for threshold in THRESHOLDS:
        samples = brute_force(probabilities, masks, threshold)
        tp, fp, fn, tn = (sum(column) for column in zip(*samples, strict=True))
        class_iou, class_dice = [], []
        for group in set(groups):
            members = [sample for sample, label in zip(samples, groups, strict=True) if label == group]
            a, b, c, _ = (sum(column) for column in zip(*members, strict=True))
            class_iou.append(ratio(a, a + b + c))
            class_dice.append(ratio(2 * a, 2 * a + b + c))
        over["miou"].append(sum(class_iou) / len(class_iou))
        over["mdice"].append(sum(class_dice) / len(class_dice))
        over["iou_fg"].append(ratio(tp, tp + fp + fn))
        over["dice"].append(ratio(2 * tp, 2 * tp + fp + fn))
        over["iou_bin"].append((ratio(tp, tp + fp + fn) + ratio(tn, tn + fp + fn)) / 2)
        if tp + fp > 0:
            points.append((tp / (tp + fn + one), tp / (tp + fp + one)))
    recall, first = np.unique([point[0] for point in points], return_index=True)
    ap = simpson(np.array([points[place][1] for place in first]), x=recall)
    return {name: np.array(values) for name, values in over.items()} | {"ap": float(ap)}


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("labels", ["abcdef", "aabbba"])
def test_figures_equal_a_literal_transcription(definition: Definition, labels: str) -> None:
    probabilities, masks = random_maps(4)
    probabilities[2] *= 0.5  # nothing predicted at high thresholds
    masks[3] = 0
    expected = transcription(probabilities, masks, list(labels), definition)
    figures = summarise(count(probabilities, masks), list(labels), definition=definition, threshold=0.3)
    assert figures.pop("ap") == pytest.approx(expected.pop("ap"), abs=1e-9)
    for name, values in expected.items():
        assert figures.pop(name) == pytest.approx(values[14], abs=1e-9)
        assert figures.pop(f"{name}_best") == pytest.approx(values.max(), abs=1e-9)
        assert figures.pop(f"{name}_best_threshold") == pytest.approx(0.02 * (1 + values.argmax()))
    assert not figures


def test_repeated_recall_keeps_its_first_threshold() -> None:
    # Recall 1 up to 0.5; false positives vanish at 0.2: the first point has precision 2/4, the later ones are dropped.
    probabilities = np.float32([[[0.9, 0.5, 0.2, 0.2, 0.01]]])
    masks = np.uint8([[[1, 1, 0, 0, 0]]])
    figures = summarise(count(probabilities, masks), ["a"], definition="plain", threshold=0.3)
    assert figures["ap"] == pytest.approx(simpson([1.0, 0.5], x=[0.5, 1.0]))


@pytest.mark.parametrize(("definition", "agreement"), [("plain", 1.0), ("released", 0.0)])
def test_empty_truth_and_empty_prediction(definition: Definition, agreement: float) -> None:
    empty = count(np.zeros((1, 4, 4)), np.zeros((1, 4, 4), dtype=np.uint8))
    figures = summarise(empty, ["a"], definition=definition, threshold=0.5)
    assert figures["miou"] == figures["iou_fg"] == figures["dice"] == figures["mdice"] == agreement
    assert figures["ap"] == 0.0
    wrong = count(np.ones((1, 4, 4)), np.zeros((1, 4, 4), dtype=np.uint8))
    figures = summarise(wrong, ["a"], definition=definition, threshold=0.5)
    assert figures["miou"] == figures["iou_fg"] == figures["dice"] == figures["ap"] == 0.0
    assert metrics.sample_iou(empty, 0.5, definition=definition).tolist() == [agreement]


@pytest.mark.parametrize(("definition", "hit"), [("plain", 1.0), ("released", 16 / 17)])
def test_a_truth_that_is_all_foreground(definition: Definition, hit: float) -> None:
    truth = np.ones((1, 4, 4), dtype=np.uint8)
    found, missed = (count(np.full((1, 4, 4), value), truth) for value in (1.0, 0.0))
    figures = summarise(found, ["a"], definition=definition, threshold=0.5)
    assert figures["miou"] == figures["iou_fg"] == pytest.approx(hit)
    # No background, and none predicted: as with an empty truth, 1 by the plain definition and 0 by the released one.
    assert figures["iou_bin"] == pytest.approx((hit + (definition == "plain")) / 2)
    figures = summarise(missed, ["a"], definition=definition, threshold=0.5)
    assert figures["miou"] == figures["iou_fg"] == figures["iou_bin"] == figures["dice"] == 0.0


def test_shards_merge_to_the_whole() -> None:
    probabilities, masks = random_maps(5)
    whole = count(probabilities, masks)
    parts = [count(probabilities[rows], masks[rows]) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    merged = SampleCounts.concatenate(parts)
    assert len(merged) == 6
    for one, two in ((merged, whole), (merged.pooled(), whole.pooled())):
        assert all(np.array_equal(a, b) for a, b in zip(one.columns, two.columns, strict=True))


def test_no_samples_and_unknown_thresholds_are_refused() -> None:
    with pytest.raises(ClipSegError, match="no samples"):
        SampleCounts.concatenate([])
    nothing = np.zeros(0, dtype=np.int64)
    no_samples = SampleCounts(nothing.reshape(0, 49), nothing.reshape(0, 49), nothing, nothing)
    with pytest.raises(ClipSegError, match="no samples"):
        metrics.curves(no_samples, [])
    with pytest.raises(ClipSegError, match="no samples"):
        metrics.official_summary(nothing, nothing)
    assert [metrics.threshold_index(step / 50) for step in range(1, 50)] == list(range(49))
    for threshold in (0.0, 1.0, 0.35, -0.02, float("nan"), float("inf")):
        with pytest.raises(ClipSegError, match="choose one of these"):
            metrics.threshold_index(threshold)


def test_official_figures() -> None:
    mask = np.uint8([[1, 1, 0, 0]])
    # 0.3 in float32 is at, not above, a threshold of 0.3.
    assert metrics.official_counts(np.float32([[0.9, 0.3, 0.4, 0.0]]), mask, 0.3) == (1, 3)
    assert metrics.official_counts(torch.tensor([[0.9, 0.31, 0.0, 0.0]]), torch.from_numpy(mask), 0.3) == (2, 2)
    figures = metrics.official_summary(np.array([1, 3, 0, 9]), np.array([2, 10, 0, 10]))
    assert figures == {
        "mean_iou_official": pytest.approx((0.5 + 0.3 + 1 + 0.9) / 4),  # nothing of nothing is 1
        "cum_iou_official": 13 / 22,
        "pr@0.3": 0.75,  # above, not equal
        "pr@0.5": 0.5,
        "pr@0.7": 0.5,
        "pr@0.9": 0.25,
    }
