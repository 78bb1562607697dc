"""Rows and their figures: against brute force, and exactly zero for who does not hear the words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipseg.errors import ClipSegError
from clipseg.measure.significance import Interval
from clipseg.studies.laboratory.counterfactual import CounterfactualResults
from clipseg.studies.laboratory.paraphrase import ParaphraseResults
from clipseg.studies.laboratory.presence import PresenceResults, auroc, best_threshold
from clipseg.studies.laboratory.results import ALL

ROWS = 80


def made(of: type = ParaphraseResults, **changes: Any) -> Any:
    """Two rows an image of each of two kinds and a control."""
    rng = np.random.default_rng(0)
    numbers = np.arange(ROWS)
    labels = {
        "key": np.array([f"test/{number}" for number in numbers]),
        "image_key": np.array([str(number // 4) for number in numbers]),
        "kind": np.array(["plural", "article", "plural", "control/empty"])[numbers % 4],
        "phrase": np.array(["sky"] * ROWS),
        "asked": np.array(["skies"] * ROWS),
    }
    values = {name: rng.random(ROWS) for name in of.COLUMNS}
    return of(**labels | {"values": values, "threshold": 0.3, "seconds": 1.0, "provenance": {"benchmark": "x"}} | changes)


def made_presence(**values: Any) -> PresenceResults:
    rng = np.random.default_rng(1)
    columns = {name: rng.random(ROWS).round(1) for name in PresenceResults.COLUMNS} | {"pixels": np.full(ROWS, 1000.0)} | values
    return made(PresenceResults, values=columns, chosen={"peak": 0.5, "top": 0.5})


def test_lines_are_means_by_kind_with_intervals_over_images() -> None:
    results = made()
    lines = {line.kind: line for line in results.lines()}
    assert list(lines) == [ALL, "article", "plural", "control/empty"]
    lost = results.values["iou_lost"]
    controls = results.kind == "control/empty"
    assert lines[ALL].figures["iou_lost"][0] == pytest.approx(lost[~controls].mean())
    assert (lines[ALL].rows, lines["plural"].rows, lines["plural"].images) == (60, 40, 20)
    interval = lines["plural"].figures["iou_lost"][1]
    assert isinstance(interval, Interval)
    assert interval.low < lost[results.kind == "plural"].mean() < interval.high
    assert interval.clusters == 20
    metrics = results.metrics()
    assert metrics["iou_lost"] == pytest.approx(lost[~controls].mean())
    assert metrics["control/empty/mask_iou"] == pytest.approx(results.values["mask_iou"][controls].mean())
    assert metrics["plural/samples"] == 40


def test_results_come_back_from_disk_in_one_order(tmp_path: Path) -> None:
    for results in (made(), made(CounterfactualResults), made_presence()):
        results.save(tmp_path)
        again = type(results).load(tmp_path)
        assert again.metrics() == results.metrics()
        assert again.key.tolist() == sorted(results.key.tolist())
    backwards = {name: getattr(made(), name)[::-1] for name in ("key", "image_key", "kind", "phrase", "asked")}
    turned = made(values={name: column[::-1] for name, column in made().values.items()}, **backwards)
    assert turned.metrics() == made().metrics()


def test_what_are_no_results_is_refused(tmp_path: Path) -> None:
    columns = made().values
    for values, error in (
        ({"iou": columns["iou"]}, "columns iou; expected"),
        ({**columns, "iou": columns["iou"][1:]}, "different lengths"),
        ({**columns, "iou": np.full(ROWS, np.nan)}, "not finite"),
    ):
        with pytest.raises(ClipSegError, match=error):
            made(values=values)
    with pytest.raises(ClipSegError, match="no question could be asked"):
        ParaphraseResults.of_rows([])
    made().save(tmp_path)
    with pytest.raises(ClipSegError, match=r"words\.npz"):
        CounterfactualResults.load(tmp_path)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    results = made_presence()
    present, gone = (results.values[f"peak_{side}"] for side in ("present", "absent"))
    _, image = np.unique(results.image_key, return_inverse=True)
    drawn = np.random.default_rng(0).integers(0, 3, (2, 20)).astype(float)
    for weights, found in zip(drawn, auroc(present, gone, image, drawn), strict=True):
        weight = weights[image][:, None] * weights[image][None]
        wins = (present[:, None] > gone[None]) + 0.5 * (present[:, None] == gone[None])
        assert found == pytest.approx((weight * wins).sum() / weight.sum())
    candidates = np.unique(np.concatenate([present, gone]))
    gains = [(present >= t).mean() - (gone >= t).mean() for t in candidates]
    assert best_threshold(present, gone) == candidates[int(np.argmax(gains))]


def test_presence_by_hand() -> None:
    half = np.repeat([0.9, 0.1], ROWS // 2)
    results = made_presence(
        peak_present=np.full(ROWS, 0.6), peak_absent=half, area_absent=half / 20, area_present=np.full(ROWS, 0.05)
    )
    figures = {name: value for name, (value, _) in results.lines()[0].figures.items()}
    false = (half[results.kind != "control/empty"] >= 0.5).mean()
    assert figures["balanced_accuracy"] == pytest.approx((1 + 1 - false) / 2)
    assert figures["mcc"] == pytest.approx((1 - false) / np.sqrt((1 + false) * (1 - false)))
    assert figures["auroc"] == pytest.approx(1 - false)
    # 45 and 5 pixels of 1,000 are no target, 50 are one.
    assert (figures["n_acc"], figures["t_acc"], figures["fires"]) == (1, 1, 1)
    assert figures["false_area"] == pytest.approx(0.025)
    same = {f"{score}_absent": results.values[f"{score}_present"] for score in ("peak", "top")}
    deaf = made_presence(**{name.replace("absent", "present"): column for name, column in same.items()}, **same)
    for line in deaf.lines():
        assert [line.figures[name][0] for name in ("auroc", "mcc", "balanced_accuracy")] == [0.5, 0, 0.5]
