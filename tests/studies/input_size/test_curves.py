"""Figures over the input size: flat numbers, a table, a page."""

import json
from dataclasses import replace

import pytest

from clipseg.measure.significance import Interval, share_interval
from clipseg.studies.input_size.curves import SizeCurves, format_curves

CURVES = SizeCurves(
    sizes=(64, 112),
    native=112,
    curves={"accuracy": [0.25, 0.75]},
    titles={"accuracy": "accuracy"},
    intervals={"accuracy": [Interval(0.1, 0.4), Interval(0.6, 0.9)]},
    about="What was done.",
    samples=40,
    seconds=1.5,
    provenance={"benchmark": "linear_probe", "split": "<b>test", "experiment": None, "config": {"seed": 0}},
)


def test_all_figures_are_written(tmp_path):
    CURVES.write(tmp_path)
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures == {
        "accuracy@64": 0.25,
        "accuracy@64_low": 0.1,
        "accuracy@64_high": 0.4,
        "accuracy@112": 0.75,
        "accuracy@112_low": 0.6,
        "accuracy@112_high": 0.9,
        "samples": 40,
        "seconds": 1.5,
    }
    assert json.loads((tmp_path / "provenance.json").read_text()) == CURVES.provenance
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert "<b>test" not in page
    for text in ("What was done.", "64x64", "112x112 (native)", "25.0", "60.0 to 90.0"):
        assert text in page


def test_the_table_has_intervals_where_there_are_some():
    lines = format_curves(CURVES).splitlines()
    assert lines[0].split("  ")[0] == "input"
    assert lines[2].split() == ["64x64", "25.0", "10.0", "to", "40.0"]
    several = replace(CURVES, curves={"a": [0.1, 0.2], "b": [0.3, 0.4]}, titles={"a": "mIoU", "b": "AP"}, intervals={})
    assert several.rows()[1] == ("112x112 (native)", "20.0", "40.0")
    assert several.columns == ("input", "mIoU", "AP")


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)]
)
def test_wilsons_interval_is_newcombes(hits, trials, low, high):
    """Newcombe 1998, Tab. I, for 81 of 263; and both ends."""
    interval = share_interval(hits, trials)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
