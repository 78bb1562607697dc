"""Results of an evaluation on disk: they are read back, merge, and are refused where they are damaged."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipseg.errors import ClipSegError
from clipseg.measure.metrics import count
from clipseg.measure.results import Results


def make_results(samples: int = 7, seed: int = 0, **changes: Any) -> Results:
    generator = np.random.default_rng(seed)
    masks = (generator.random((samples, 12, 12)) < 0.4).astype(np.uint8)
    counts = count(np.clip(generator.random(masks.shape) * 0.8 + 0.2 * masks, 0, 1), masks)
    keys = np.array([f"{generator.integers(10**6)}__{place}" for place in range(samples)])
    columns: dict[str, Any] = {
        "key": keys,
        "image_key": np.array([f"image {place // 2}" for place in range(samples)]),
        "phrase": np.array([f"phrase {place} é 犬" for place in range(samples)]),
        "group": keys,
        "height": np.full(samples, 375),
        "width": np.arange(500, 500 + samples),
        "counts": counts,
        "official_intersection": counts.tp[:, 14],
        "official_union": counts.positives + counts.fp[:, 14],
        "threshold": 0.3,
        "seconds": 2.5,
        "provenance": {"benchmark": "phrasecut", "split": "test", "config": {"seed": 0}},
    }
    return Results(**columns | changes)


def rows_of(results: Results, rows: slice) -> Results:
    names = ("key", "image_key", "phrase", "group", "height", "width", "official_intersection", "official_union")
    parts: dict[str, Any] = {name: getattr(results, name)[rows] for name in names}
    counts = type(results.counts)(*(column[rows] for column in results.counts.columns))
    return replace(results, **parts, counts=counts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    make_results().save(folder)
    return folder


def test_saved_results_read_back_whole(saved: Path) -> None:
    results, read = make_results(), Results.load(saved)
    assert Results.load(saved / "samples.npz").metrics() == read.metrics() == results.metrics()
    for name in ("key", "image_key", "phrase", "group", "height", "width", "official_intersection", "official_union"):
        assert np.array_equal(getattr(results, name), getattr(read, name)), name
    assert all(np.array_equal(a, b) for a, b in zip(results.counts.columns, read.counts.columns, strict=True))
    assert (read.threshold, read.seconds, read.provenance) == (0.3, 2.5, results.provenance)
    assert json.loads((saved / "metrics.json").read_text()) == results.metrics()
    assert json.loads((saved / "provenance.json").read_text()) == results.provenance


def test_metrics_have_the_public_names(saved: Path) -> None:
    metrics = json.loads((saved / "metrics.json").read_text())
    figures = {"miou", "iou_fg", "iou_bin", "dice", "mdice"}
    summary = figures | {f"{name}_best" for name in figures} | {f"{name}_best_threshold" for name in figures} | {"ap"}
    official = {"mean_iou_official", "cum_iou_official", "pr@0.3", "pr@0.5", "pr@0.7", "pr@0.9"}
    released = {f"released/{name}" for name in summary}
    of_samples = {"brier", "log_loss", "worst_tenth"}
    assert set(metrics) == summary | released | official | of_samples | {"samples", "seconds", "threshold"}
    assert metrics["samples"] == 7
    assert all(0 <= metrics[name] <= 1 for name in summary | official)
    assert metrics["released/miou"] < metrics["miou"]


def test_another_threshold_leaves_out_what_is_known_at_one_alone() -> None:
    metrics = make_results().metrics(0.5)
    assert metrics["threshold"] == 0.5
    assert "pr@0.5" not in metrics
    assert metrics["miou"] != make_results().metrics()["miou"]
    without = make_results(official_intersection=None, official_union=None)
    assert "mean_iou_official" not in without.metrics()
    assert "miou" in without.metrics()


def test_results_without_official_figures_read_back(tmp_path: Path) -> None:
    make_results(official_intersection=None, official_union=None).save(tmp_path)
    assert Results.load(tmp_path).official_union is None


def test_rows_stay_together_when_sorted() -> None:
    results = make_results()
    places = [int(key.split("__")[1]) for key in results.key.tolist()]
    assert results.key.tolist() == sorted(results.key.tolist())
    assert places != sorted(places)
    assert results.phrase.tolist() == [f"phrase {place} é 犬" for place in places]
    assert results.width.tolist() == [500 + place for place in places]
    assert np.array_equal(results.official_intersection, results.counts.tp[:, 14])


def test_what_cannot_be_is_refused() -> None:
    counts = make_results().counts
    for changes, words in (
        ({"key": np.array(["same"] * 7)}, "'same' occurs more than once"),
        ({"phrase": np.arange(7)}, "column 'phrase'"),
        ({"width": np.arange(6)}, "column 'width'"),
        ({"counts": replace(counts, positives=counts.positives * 0)}, "counts below 0"),
        ({"counts": replace(counts, tp=counts.tp[:, ::-1])}, "rising"),
        ({"counts": replace(counts, tp=counts.tp[:, :9])}, "shapes"),
        ({"official_intersection": np.full(7, 10**6)}, "above their unions"),
        ({"threshold": 0.31}, "threshold 0.31"),
        ({"seconds": float("nan")}, "seconds"),
    ):
        with pytest.raises(ClipSegError, match=words):
            make_results(**changes)
    with pytest.raises(ClipSegError, match="no samples"):
        rows_of(make_results(), slice(0, 0))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_missing_cut_off_and_foreign_files_are_one_clear_line(tmp_path: Path, saved: Path) -> None:
    whole = (saved / "samples.npz").read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", key=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", key=np.array([Trap(tmp_path / "sprung")], dtype=object))
    for name, content in (("empty", b""), ("cut", whole[: len(whole) // 2]), ("text", b"{}")):
        (tmp_path / name).write_bytes(content)
    for name in ("empty", "cut", "text", "array.npy", "other.npz", "pickle.npz", "absent"):
        with pytest.raises(ClipSegError) as caught:
            Results.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(ClipSegError, match="no such results file"):
        Results.load(tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_results_or_an_error(saved: Path, data: st.DataObject) -> None:
    content = bytearray((saved / "samples.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = saved / "damaged.npz"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(ClipSegError):
        assert np.isfinite(list(Results.load(file).metrics().values())).all()


def test_a_sample_takes_a_few_hundred_bytes(tmp_path: Path) -> None:
    make_results(samples=300).save(tmp_path)
    assert (tmp_path / "samples.npz").stat().st_size < 300 * 400


def test_results_and_reports_need_no_torch() -> None:
    code = "import sys; import clipseg.measure.results, clipseg.measure.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
