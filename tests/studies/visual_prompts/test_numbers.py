"""The figures of a study of visual prompts: made from the file alone, right by hand, and never NaN."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from clipseg.errors import ClipSegError
from clipseg.measure.paper import PROMPT_DELTAS
from clipseg.studies.visual_prompts.numbers import COLUMNS, PromptDeltas, format_deltas, table_cells
from clipseg.studies.visual_prompts.page import Picture, Sheet, write_prompt_report


def study(
    objects: int = 12, variants: tuple[str, ...] = ("crop", "dye_red", "clip_mask_cls_all_minus_infinity")
) -> PromptDeltas:
    rng = np.random.default_rng(0)
    original = rng.uniform(0.2, 0.4, objects)
    gain = rng.normal([0.2, 0.0, 0.1], 0.05, (objects, 3))[:, : len(variants)]
    return PromptDeltas(
        key=np.array([f"test/{n}" for n in rng.permutation(objects)]),
        image_key=np.array([str(n // 2) for n in range(objects)]),
        name=np.array(["<b>dog</b>"] * objects),
        choices=np.full(objects, 3),
        original=original,
        variants=variants,
        engineered=(original[:, None] + gain).clip(0, 1),
        seconds=1.5,
        provenance={"benchmark": "visual_prompts", "split": "test", "experiment": None, "config": {"seed": 0}},
    )


def test_effects_are_those_of_scipy():
    results = study()
    for effect, column in zip(results.effects(), results.engineered.T, strict=True):
        expected = stats.ttest_rel(100 * column, 100 * results.original)
        assert effect.delta == pytest.approx(100 * (column - results.original).mean())
        assert effect.test.statistic == pytest.approx(expected.statistic)
        assert effect.test.p_value == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert (effect.test.low, effect.test.high) == pytest.approx((interval.low, interval.high))
    crop, dyed, _ = results.effects()
    assert crop.p_holm < 1e-3 < dyed.p_holm
    assert [effect.paper for effect in results.effects()] == [13.60, 1.21, None]


def test_rows_are_sorted_by_key_with_all_their_columns():
    results = study()
    order = np.random.default_rng(1).permutation(len(results))
    columns = {
        name: getattr(results, name)[order] for name in ("key", "image_key", "name", "choices", "original", "engineered")
    }
    again = replace(results, **columns)
    assert results.key.tolist() == sorted(results.key.tolist())
    for name in columns:
        assert np.array_equal(getattr(again, name), getattr(results, name)), name


def test_the_file_alone_gives_all_figures(tmp_path):
    results = study()
    results.save(tmp_path)
    again = PromptDeltas.load(tmp_path)
    assert again.metrics() == results.metrics() == json.loads((tmp_path / "metrics.json").read_text())
    assert format_deltas(again) == format_deltas(results)
    assert again.provenance == results.provenance
    figures = results.metrics()
    assert figures["delta/crop"] == pytest.approx(20, abs=5)
    assert figures["delta/crop_low"] < figures["delta/crop"] < figures["delta/crop_high"]
    assert (figures["samples"], figures["images"]) == (12, 6)


def test_the_table_holds_the_paper_s_value_and_every_column():
    cells = table_cells(study())
    assert all(len(row) == len(COLUMNS) for row in cells)
    assert cells[0][0] == "crop"
    assert cells[0][-1] == "13.60"
    assert "13.60" in format_deltas(study())
    assert len(PROMPT_DELTAS) == 15


def test_one_object_has_a_mean_and_no_test(tmp_path):
    results = study(objects=1)
    assert "not testable: 1 pairs" in format_deltas(results)
    assert "delta/crop_p" not in results.metrics()
    results.save(tmp_path)
    write_prompt_report(tmp_path, results, sheets=[])
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_the_page_shows_chart_table_and_pictures(tmp_path):
    results = study()
    pictures = [
        Picture(("original",), np.zeros((8, 8, 3), dtype=np.uint8)),
        Picture(("crop",), np.full((8, 8, 3), 200, dtype=np.uint8)),
    ]
    write_prompt_report(tmp_path, results, sheets=[Sheet(results.key[3], ("cat", "<b>dog</b>"), pictures)])
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "<svg" in page
    assert "<b>dog" not in page
    assert f"crop: {results.deltas[3, 0]:+.1f}" in page
    assert f"original: {100 * results.original[3]:.1f}%" in page
    assert all(variant in page for variant in results.variants)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"original": np.full(12, np.nan)}, "not a number"),
        ({"engineered": np.full((12, 3), 1.5)}, "outside"),
        ({"engineered": np.full((12, 2), 0.5)}, "different lengths"),
        ({"name": np.array(["dog"])}, "different lengths"),
        ({"key": np.array(["test/1"] * 12)}, "'test/1' occurs more than once"),
        ({"key": np.array([], dtype=str)}, "no object to study"),
    ],
)
def test_figures_that_cannot_be(change, message):
    with pytest.raises(ClipSegError, match=message):
        replace(study(), **change)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense"])
def test_a_file_that_is_none(tmp_path, content):
    with pytest.raises(ClipSegError, match=r"no such results file; run evaluate\.py"):
        PromptDeltas.load(tmp_path)
    (tmp_path / "prompt_deltas.npz").write_bytes(content)
    with pytest.raises(ClipSegError, match=r"not a prompt_deltas\.npz, or damaged") as caught:
        PromptDeltas.load(tmp_path)
    assert "\n" not in str(caught.value)
