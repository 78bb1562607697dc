"""TensorBoard shows what the report does."""

from dataclasses import replace

import numpy as np
import pytest
from made_results import made_results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clipseg.measure.breakdown import by_size
from clipseg.measure.failures import failures
from clipseg.measure.reliability import reliability
from clipseg.run.log import log_results


def test_the_figures_of_a_report_are_on_the_board(tmp_path) -> None:
    results = replace(
        made_results(), subsets={"c500+": np.arange(40) < 9}, phrase=np.array(["dog"] * 20 + ["a \ud800 cat"] * 20)
    )
    log_results(tmp_path, results, step=70)
    board = EventAccumulator(str(tmp_path)).Reload()
    figures = results.metrics()
    shown = {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    ((step, value),) = shown["eval/miou"]
    assert (step, value) == (70, pytest.approx(figures["miou"]))
    assert shown["subset/c500+/mean_iou_official"][0][1] == pytest.approx(figures["subset/c500+/mean_iou_official"])
    assert {"class/dog", "class/a ? cat"} <= shown.keys()
    assert len([tag for tag in shown if tag.startswith("size/")]) == len(by_size(results))
    failed = sum(events[0][1] for tag, events in shown.items() if tag.startswith("failures/"))
    assert failed == pytest.approx(sum(map(len, failures(results).values())) / len(results))
    assert shown["eval/calibration_error"][0][1] == pytest.approx(reliability(results.counts).error)
    assert [step for step, _ in shown["over_threshold/iou_fg"]] == list(range(2, 100, 2))
    assert max(step for step, _ in shown["reliability/in_the_truth"]) == 99
    assert "eval/precision_recall" in board.Tags()["tensors"]
