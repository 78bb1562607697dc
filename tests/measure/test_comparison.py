"""Runs and groups of runs: what is aligned, what is refused, and that the tests see what is there."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import made_results
from scipy import stats

from clipseg.commands import compare
from clipseg.errors import ClipSegError
from clipseg.exit_status import guarded
from clipseg.measure.alignment import align, load_runs, sample_values
from clipseg.measure.comparison import compare_groups, compare_runs, comparisons_to_json, format_comparisons
from clipseg.measure.metrics import sample_iou
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, NotTestable, RankTest, TTest
from clipseg.measure.statistics.equivalence import Equivalence

NAMES = ("one", "two")


def without(results: Results, rows: int) -> Results:
    """The results without their last rows."""
    columns: dict[str, Any] = {
        name: getattr(results, name)[:-rows]
        for name in (
            "key",
            "image_key",
            "phrase",
            "group",
            "height",
            "width",
            "official_intersection",
            "official_union",
        )
    }
    counts = type(results.counts)(*(column[:-rows] for column in results.counts.columns))
    return replace(results, **columns, counts=counts)


def run_compare(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    return guarded(lambda: compare.run(parser.parse_args(arguments)))


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Four folders: two seeds of a run and two of a better one, the last two in the layout of train.py."""
    folders = [tmp_path / "pc" / "0", tmp_path / "pc" / "1", tmp_path / "plus" / "0", tmp_path / "plus" / "1"]
    for seed, folder in enumerate(folders):
        place = folder / "eval" / "test" if seed > 1 else folder
        made_results(seed=seed, quality=0.5 if seed > 1 else 0.3).save(place)
    return [str(folder) for folder in folders]


def test_two_runs_are_compared_sample_by_sample() -> None:
    one, two = made_results(seed=1), made_results(seed=2, quality=0.5)
    found = compare_runs(NAMES, one, two, metric="iou")
    first, second = (100 * sample_iou(results.counts, 0.3) for results in (one, two))
    assert found.means == pytest.approx((first.mean(), second.mean()))
    assert (found.samples, found.images) == (40, 20)
    assert isinstance(found.t_test, TTest)
    assert isinstance(found.rank_test, RankTest)
    assert isinstance(found.interval, Interval)
    assert found.t_test.p_value == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert found.t_test.difference == pytest.approx((second - first).mean())
    assert found.t_test.difference > 0
    differing = (second - first)[second != first]
    assert found.rank_test.p_value == pytest.approx(stats.wilcoxon(differing).pvalue)
    assert found.rank_test.pairs == len(differing)
    assert found.interval.low < (second - first).mean() < found.interval.high
    assert found == compare_runs(NAMES, one, two, metric="iou")
    assert found.interval != compare_runs(NAMES, one, two, metric="iou", seed=1).interval
    back = compare_runs(NAMES, two, one, metric="iou")
    assert isinstance(back.t_test, TTest)
    assert back.t_test.statistic == -found.t_test.statistic


def test_a_run_does_not_differ_from_itself() -> None:
    found = compare_runs(NAMES, made_results(), made_results(), metric="iou")
    assert str(found.t_test) == "not testable: all 40 differences are 0"
    assert str(found.rank_test) == "not testable: no pair differs"
    assert found.interval == Interval(0.0, 0.0, 20)
    assert "nan" not in format_comparisons([found])
    json.dumps(comparisons_to_json([found]), allow_nan=False)


def test_metrics_of_a_sample_by_hand() -> None:
    results = made_results()
    tp, fp, positives = results.counts.tp[:, 14], results.counts.fp[:, 14], results.counts.positives
    assert sample_values(results, "iou", 0.3) == pytest.approx(100 * tp / (positives + fp))
    assert sample_values(results, "dice", 0.3) == pytest.approx(200 * tp / (positives + fp + tp))
    assert sample_values(results, "released/iou", 0.3) == pytest.approx(100 * tp / (positives + fp + 1))
    assert sample_values(results, "official_iou", 0.3) == pytest.approx(100 * tp / (positives + fp))
    nothing = replace(results, official_intersection=np.zeros(40, int), official_union=np.zeros(40, int))
    assert (sample_values(nothing, "official_iou", 0.3) == 100).all()
    with pytest.raises(ClipSegError, match=r"official_iou is not in the results at threshold 0\.5"):
        sample_values(results, "official_iou", 0.5)
    with pytest.raises(ClipSegError, match="'ap' has no value for each sample"):
        sample_values(results, "ap", 0.3)


def test_groups_of_seeds_by_welch() -> None:
    ones = [made_results(seed=seed) for seed in range(3)]
    twos = [made_results(seed=seed, quality=0.5) for seed in range(3, 7)]
    for metric, values in (
        ("ap", [[100 * results.metrics()["ap"] for results in group] for group in (ones, twos)]),
        ("iou", [[100 * sample_iou(results.counts, 0.3).mean() for results in group] for group in (ones, twos)]),
    ):
        found = compare_groups(NAMES, ones, twos, metric=metric)
        assert isinstance(found.t_test, TTest)
        assert found.t_test.p_value == pytest.approx(stats.ttest_ind(*values, equal_var=False).pvalue)
        assert found.t_test.difference == pytest.approx(np.mean(values[1]) - np.mean(values[0]))
        assert [list(group) for group in found.values] == [pytest.approx(group) for group in values]
    single = compare_groups(NAMES, ones[:1], twos, metric="ap")
    assert isinstance(single.t_test, NotTestable)
    assert "at least 2" in format_comparisons([single])
    with pytest.raises(ClipSegError, match="metric 'speed' unknown"):
        compare_groups(NAMES, ones, twos, metric="speed")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (without(made_results(), 2), r"two: 2 of 40 keys are missing, the first 'test/8__0'"),
        (made_results(threshold=0.5), r"one was evaluated at threshold 0\.3, two at 0\.5.*--threshold"),
        (made_results(width=np.full(40, 13)), "truths of different size"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(other: Results, message: str) -> None:
    with pytest.raises(ClipSegError, match=message):
        compare_runs(NAMES, made_results(), other, metric="iou")
    with pytest.raises(ClipSegError):
        compare_groups(NAMES, [made_results()], [made_results(seed=1), other], metric="iou")


def test_a_missing_key_names_the_run_that_lacks_it() -> None:
    with pytest.raises(ClipSegError, match="one: 2 of 40 keys are missing"):
        compare_runs(NAMES, without(made_results(), 2), made_results(), metric="iou")


def test_another_threshold_on_request() -> None:
    found = compare_runs(NAMES, made_results(threshold=0.5), made_results(seed=1), metric="iou", threshold=0.4)
    assert found.means[0] == pytest.approx(100 * sample_iou(made_results().counts, 0.4).mean())
    assert "at threshold 0.40" in found.what
    with pytest.raises(ClipSegError, match=r"0\.02, 0\.04"):
        compare_runs(NAMES, made_results(), made_results(seed=1), metric="iou", threshold=0.31)


def test_two_protocols_are_not_compared() -> None:
    paper = made_results(seed=1, provenance={**made_results().provenance, "protocol": "paper"})
    for one, two in ((made_results(), paper), (paper, made_results())):
        with pytest.raises(ClipSegError, match=r"by protocol=.*, two by protocol=.*; evaluate both by one"):
            compare_runs(NAMES, one, two, metric="iou")


def test_runs_are_matched_by_benchmark_and_split(tmp_path: Path) -> None:
    origin = made_results().provenance
    for split in ("test", "unseen"):
        made_results(provenance={**origin, "split": split}).save(tmp_path / "both" / "eval" / split)
    made_results(seed=1).save(tmp_path / "test")
    made_results(provenance={**origin, "split": "val"}).save(tmp_path / "val")
    both, test, val = (load_runs(tmp_path / name) for name in ("both", "test", "val"))
    assert sorted(both) == [("phrasecut", "test"), ("phrasecut", "unseen")]
    assert [len(row) for row in align(["a", "b"], [both, both])] == [2, 2]
    assert len(align(["both", "test"], [both, test], split="test")) == 1
    with pytest.raises(ClipSegError, match=r"test: no results of phrasecut unseen, only of phrasecut test.*--split"):
        align(["both", "test"], [both, test])
    with pytest.raises(ClipSegError, match="test: no results of phrasecut val, only of phrasecut test"):
        align(["test", "val"], [test, val])
    with pytest.raises(ClipSegError, match="no results of split 'train' in both"):
        align(["both", "test"], [both, test], split="train")
    made_results().save(tmp_path / "both" / "eval" / "again")
    with pytest.raises(ClipSegError, match="two results of phrasecut test"):
        load_runs(tmp_path / "both")
    made_results(provenance={"benchmark": "phrasecut", "split": "\x1b[2J"}).save(tmp_path / "evil")
    with pytest.raises(ClipSegError, match="expected plain words"):
        load_runs(tmp_path / "evil")
    with pytest.raises(ClipSegError, match=r"no results; expected samples\.npz"):
        load_runs(tmp_path)


def test_many_comparisons_are_corrected(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare(*runs[:3], "--metric", "iou", "dice", "--json", str(tmp_path / "out.json")) == 0
    printed = capsys.readouterr().out
    assert printed.count("among 4 comparisons") == 4
    assert f"{runs[2]} − {runs[0]}: dice in percent, phrasecut test at threshold 0.30" in printed
    entries = json.loads((tmp_path / "out.json").read_text())
    p = [entry["t_test"]["p_value"] for entry in entries]
    assert max(range(4), key=lambda place: p[place]) in (0, 1)
    assert [entry["t_test"]["p_holm"] for entry in entries][p.index(min(p))] == pytest.approx(4 * min(p))
    assert run_compare(*runs[1:3]) == 0
    assert "Holm" not in capsys.readouterr().out


def test_groups_from_the_command_line(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--group", *runs[:2], "--group", *runs[2:], "--metric", "miou", "iou", "--json", str(tmp_path / "out.json")]
    assert run_compare(*arguments) == 0
    assert "over 2 runs" in capsys.readouterr().out
    by_class, by_sample = json.loads((tmp_path / "out.json").read_text())
    assert by_class["t_test"]["difference"] == pytest.approx(by_sample["t_test"]["difference"])
    assert by_class["t_test"]["difference"] > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0"], "1 runs to compare"),
        ([], "0 runs to compare"),
        (["0", "0"], "given twice"),
        (["0", "nowhere"], "nowhere: no results"),
        (["0", "1", "--metric", "ap"], "'ap' has no value for each sample"),
        (["0", "1", "--seed", "-1"], "--seed -1"),
        (["0", "1", "--threshold", "nan"], "threshold nan"),
        (["0", "--group", "1", "2"], "beside --group"),
        (["--group", "0", "1"], "one group of runs"),
        (["--group", "0", "1", "--group", "1", "2"], "given twice"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    runs: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_compare(*(runs[int(argument)] if argument.isdigit() else argument for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_link_to_itself_is_no_run(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert run_compare(runs[0], str(tmp_path / "loop")) == 2
    assert "loop: no results" in capsys.readouterr().err


def test_a_results_file_that_is_cut_off(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(runs[1]) / "samples.npz"
    file.write_bytes(file.read_bytes()[:-200])
    assert run_compare(*runs[:2]) == 2
    error = capsys.readouterr().err
    assert "samples.npz" in error
    assert len(error.splitlines()) == 1


def test_the_same_is_shown_and_not_only_no_difference_found() -> None:
    one, two = made_results(seed=1, images=60), made_results(seed=2, images=60)
    found = compare_runs(NAMES, one, two, metric="iou", margin=20)
    assert isinstance(found.equivalence, Equivalence)
    assert found.equivalence.verdict == "equivalent"
    assert found.equivalence.share == 1
    close = compare_runs(NAMES, one, two, metric="iou", margin=0.01)
    assert "not shown to be equivalent" in format_comparisons([close])
    groups = [[made_results(seed=seed + start, images=30) for seed in range(4)] for start in (0, 10)]
    by_seeds = compare_groups(NAMES, *groups, metric="iou", margin=20)
    assert isinstance(by_seeds.equivalence, Equivalence)
    assert by_seeds.equivalence.p_value < 0.05
    text = format_comparisons([by_seeds])
    assert text.index("4 seeds a group see") < text.index("means")
    assert "of 30 images" in text
    assert "ap is one value a run" in format_comparisons([compare_groups(NAMES, *groups, metric="ap")])
    entries = comparisons_to_json([found, by_seeds])
    json.dumps(entries, allow_nan=False)
    assert entries[0]["equivalence"]["share"] == 1
    assert entries[1]["power"]["seeds"] == 4


def test_many_tests_are_corrected_for_their_rate_too() -> None:
    one = made_results(seed=1)
    for runs in (10, 11):
        comparisons = [compare_runs(NAMES, one, made_results(seed=2 + run), metric="iou") for run in range(runs)]
        assert all(("p_benjamini_hochberg" in entry["t_test"]) == (runs > 10) for entry in comparisons_to_json(comparisons))
    assert "by the rate of false discoveries" in format_comparisons(comparisons)


def test_a_margin_below_nothing_is_refused(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_compare(*runs[:2], "--margin", "0.5") == 0
    assert "equivalence" in capsys.readouterr().out
    for margin in ("0", "-1", "nan"):
        assert run_compare(*runs[:2], f"--margin={margin}") == 2
        error = capsys.readouterr().err
        assert "expected points above 0" in error
        assert error.count("\n") == 1
