"""Counts and figures as they were really computed (golden case 11)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_data import arrays, values

from clipseg.measure.metrics import THRESHOLDS, SampleCounts, count, curves, summarise

RUNS = values("11_metrics")
OURS = {"fgiou": "iou_fg", "biniou": "iou_bin", "miou": "miou"}


def unpack(packed: np.ndarray, columns: int) -> np.ndarray:
    return np.unpackbits(packed, axis=-1)[..., :columns]


def counted(name: str) -> tuple[SampleCounts, list[str]]:
    """Return what our metrics count on the inputs of a run, and the class of each sample."""
    data = arrays("11_metrics_inputs")
    logits = data["logits"].astype(np.float32)
    truth, classes, valid = unpack(data["truth"], logits.shape[-1]), data["classes"], None
    chosen = {
        "half_of_the_samples": slice(0, None, 2),
        "few_high": slice(0, 8),
        "low_only": slice(0, 6),
        "one_sample": slice(0, 1),
        "two_samples": slice(8, 10),
        "one_sharp_sample": slice(10, 11),
    }.get(name, slice(None))
    logits = {"few_high": logits - 4, "low_only": logits - 7, "one_sharp_sample": logits * 4}.get(name, logits)
    probabilities = torch.from_numpy(logits).sigmoid()
    if name == "on_thresholds":
        probabilities = torch.from_numpy(data["on_thresholds"].astype(np.float32)) / 50
    if "resized" in name:
        size = tuple(RUNS[name]["options"].get("resize_to", (60, 45)))
        aligned = "resize_to" not in RUNS[name]["options"]
        probabilities = F.interpolate(probabilities[:, None], size=size, mode="bilinear", align_corners=aligned)[:, 0]
        if aligned:
            truth, valid = unpack(data["truth_60x45"], 45), unpack(data["valid_60x45"], 45)
        else:
            truth = F.interpolate(torch.from_numpy(truth)[:, None].float(), size=size, mode="nearest")[:, 0].byte().numpy()
    by_sample = name not in ("by_class", "on_thresholds") and "resized" not in name
    labels = [str(number) for number in (range(len(classes)) if by_sample else classes)]
    used = valid if name == "by_class_resized_valid" else None
    counts = count(probabilities[chosen], truth[chosen], None if used is None else used[chosen])
    return counts, labels[chosen]


@pytest.mark.parametrize("name", RUNS)
def test_golden_counts_and_figures(name):
    counts, labels = counted(name)
    expected, close = arrays("11_counts"), 2 if "resized" in name else 0
    for column in ("tp", "fp", "fn", "tn"):
        assert np.abs(getattr(counts, column) - expected[f"{name}_{column}"]).max() <= close
    if close:  # the figures are those of the counts that were made
        stored = {column: expected[f"{name}_{column}"].astype(np.int64) for column in ("tp", "fp", "fn", "tn")}
        positives = (stored["tp"] + stored["fn"])[:, 0]
        counts = SampleCounts(stored["tp"], stored["fp"], positives, positives + (stored["fp"] + stored["tn"])[:, 0])
    run, over = RUNS[name], curves(counts, labels, definition="released")
    for theirs, ours in OURS.items():
        figures = {t: summarise(counts, labels, definition="released", threshold=t) for t in (0.1, 0.2, 0.3, 0.5)}
        for threshold, found in figures.items():
            assert found[ours] == pytest.approx(run[f"{theirs}_{threshold}"], abs=1e-9)
        assert found[f"{ours}_best"] == pytest.approx(run[f"{theirs}_best"], abs=1e-9)
        assert found[f"{ours}_best_threshold"] == pytest.approx(run[f"{theirs}_best_t"], abs=1e-9)
        scores = run["mean_iou_scores" if theirs == "miou" else f"{theirs}_scores"]
        assert np.abs(over[ours] - np.array(scores)).max() < 1e-9
        if run.get("ct"):
            asked = summarise(counts, labels, definition="released", threshold=run["ct"])
            assert asked[ours] == pytest.approx(run["mean_iou_ct" if theirs == "miou" else f"{theirs}_ct"], abs=1e-9)
    assert found["ap"] == pytest.approx(run["ap"], abs=1e-9)
    assert len(THRESHOLDS) == 49
