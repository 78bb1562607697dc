"""The paper's tables beside ours: every row is there, the right results stand in it, and the rest is said to be missing."""

import argparse
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import made_results
from scipy import stats

from clipseg.data.classes import PASCAL_CLASSES, unseen_classes
from clipseg.errors import ClipSegError
from clipseg.exit_status import guarded
from clipseg.measure.metrics import Definition
from clipseg.measure.paper import PROMPT_DELTAS, ROWS
from clipseg.measure.results import Results
from clipseg.paper import command
from clipseg.paper.formats import to_latex, to_markdown, write_tables
from clipseg.paper.resampling import percentiles, redrawn
from clipseg.paper.tables import COLUMNS, Line, PaperTables, paper_tables
from clipseg.studies.visual_prompts.numbers import PromptDeltas
from clipseg.studies.zero_shot.results import MulticlassResults

RELEASED = {"protocol": "released"}
EVIL = "<script>&|\\ _x_ \ud800"


def result(
    experiment: str = "phrasecut_pc", benchmark: str = "phrasecut", split: str = "test", seed: int = 0, **changes: Any
) -> Results:
    provenance = {"benchmark": benchmark, "split": split, "experiment": experiment, "training_seed": seed, **RELEASED}
    return made_results(seed=seed, images=5, threshold=0.5, provenance=provenance, **changes)


def tables_of(*results: Results | MulticlassResults | PromptDeltas, definition: Definition = "released") -> PaperTables:
    return paper_tables({f"run {number}": result for number, result in enumerate(results)}, definition=definition)


def line(tables: PaperTables, table: str, row: str, figure: str) -> Line:
    (found,) = [each for each in tables.tables[table] if (each.row, each.figure) == (row, figure)]
    return found


def run_tables(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return guarded(lambda: command.run(parser.parse_args(arguments)))


def test_every_printed_figure_is_there_and_not_run() -> None:
    tables = paper_tables({})
    assert list(tables.tables) == [f"Tab. {number}" for number in range(2, 10)]
    assert sum(map(len, tables.tables.values())) == sum(len(row.values) for row in ROWS) + len(PROMPT_DELTAS)
    labels = [(table, each.row, each.figure) for table, lines in tables.tables.items() for each in lines]
    assert len(set(labels)) == len(labels)
    assert {each.status for lines in tables.tables.values() for each in lines} == {"not run", "others' model"}
    cells = line(tables, "Tab. 3", "CLIPSeg (PC)", "mIoU").cells()
    assert cells == ("CLIPSeg (PC)", "mIoU", "46.1", "not run", "", "", "")
    assert line(tables, "Tab. 3", "MDETR", "mIoU").cells()[3] == "others' model"
    assert line(tables, "Tab. 4", "CLIPSeg (PC+), unseen-4", "mIoU unseen, as scored").paper == 47.3
    assert line(tables, "Tab. 9", "no visual, visual", "AP").paper == 31.0


def test_seeds_stand_beside_the_paper_with_difference_and_interval() -> None:
    seeds = [result(seed=seed) for seed in range(3)]
    # At the paper's threshold, 0.3, though evaluated at 0.5.
    values = [100 * each.metrics(0.3)["released/iou_fg"] for each in seeds]
    found = line(tables_of(*seeds), "Tab. 3", "CLIPSeg (PC)", "IoU_FG")
    assert found.values == pytest.approx(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    mean = np.mean(values)
    assert found.cells()[2:] == ("56.2", f"{mean:.1f}", f"{mean - 56.2:+.1f}", f"{low:.1f} to {high:.1f} (seeds)", "3")
    plain = line(tables_of(*seeds, definition="plain"), "Tab. 3", "CLIPSeg (PC)", "IoU_FG")
    assert plain.values == pytest.approx([100 * each.metrics(0.3)["iou_fg"] for each in seeds])
    assert line(tables_of(*seeds), "Tab. 3", "CLIPSeg (PC+)", "AP").status == "not run"


def test_a_single_run_has_an_interval_over_its_images() -> None:
    single = line(tables_of(result()), "Tab. 3", "CLIPSeg (PC)", "AP")
    expected = percentiles(100 * redrawn(result(), definition="released", threshold=0.3)["ap"])
    assert single.interval == expected
    assert single.cells()[5:] == (f"{expected.low:.1f} to {expected.high:.1f} (images)", "1")
    one_image = result(image_key=np.full(10, "the only one"))
    assert line(tables_of(one_image), "Tab. 3", "CLIPSeg (PC)", "AP").cells()[5:] == ("", "1")


def test_a_seed_counts_once_and_both_of_two_are_named() -> None:
    with pytest.raises(ClipSegError, match=r"run 0 and run 2: both are phrasecut_pc, on phrasecut, training seed 4"):
        tables_of(result(seed=4), result(seed=5), result(seed=4, height=np.full(10, 13)))
    unknown = replace(result(), provenance={name: value for name, value in result().provenance.items() if "seed" not in name})
    assert len(line(tables_of(unknown, result()), "Tab. 3", "CLIPSeg (PC)", "AP").values) == 2
    with pytest.raises(ClipSegError, match="training seed None"):
        tables_of(unknown, unknown)


def fold(number: int, seed: int = 0) -> Results:
    return result(f"pascal5i_pc_plus_fold{number}", "pascal5i_text", "val", seed)


def test_folds_are_averaged_for_each_seed_and_missing_ones_named() -> None:
    folds = [replace(made_results(seed=number, images=5), provenance=fold(number).provenance) for number in range(4)]
    whole = line(tables_of(*folds), "Tab. 7", "CLIPSeg (PC+)", "AP")
    assert whole.values == pytest.approx([np.mean([100 * each.metrics(0.3)["released/ap"] for each in folds])])
    assert whole.status == ""
    draws = [100 * redrawn(each, definition="released", threshold=0.3)["ap"] for each in folds]
    expected = percentiles(np.mean(draws, axis=0))
    assert whole.interval is not None
    assert (whole.interval.low, whole.interval.high) == pytest.approx((expected.low, expected.high))
    seeds = line(tables_of(*(fold(number, seed) for number in range(4) for seed in (7, 3))), "Tab. 7", "CLIPSeg (PC+)", "AP")
    assert seeds.values == pytest.approx([100 * fold(0, seed).metrics(0.3)["released/ap"] for seed in (7, 3)])
    some = line(tables_of(fold(2), fold(0)), "Tab. 7", "CLIPSeg (PC+)", "AP")
    assert "(folds 0, 2 of 4)" in some.cells()[3]
    with pytest.raises(ClipSegError, match=r"seed 0 has folds 0, 1, seed 9 0; give the same folds of every seed"):
        tables_of(fold(0), fold(1), fold(0, seed=9))
    with pytest.raises(ClipSegError, match="fold 1, on pascal5i_text, training seed 0"):
        tables_of(fold(0), fold(1), fold(1))


def test_a_row_in_two_tables_and_a_figure_that_was_not_measured() -> None:
    tables = tables_of(result("phrasecut_pc_plus"), result("zeroshot_unseen4_clipseg", "pascal_zeroshot", "val"))
    assert line(tables, "Tab. 3", "CLIPSeg (PC+)", "mIoU").values
    assert line(tables, "Tab. 9", "CLIPSeg (PC+), text", "mIoU, best t").values
    assert not line(tables, "Tab. 9", "CLIPSeg (PC+), visual", "mIoU, best t").values
    assert line(tables, "Tab. 4", "CLIPSeg (PC+), unseen-4", "mIoU seen, as scored").status == "not measured"


def zero_shot(seed: int = 0, **changes: Any) -> MulticlassResults:
    """Half of what shows a cow is found, of a motorbike all; of the nineteen others the background alone."""
    provenance = {"benchmark": "pascal_zeroshot", "experiment": "zeroshot_unseen4_clipseg", "training_seed": seed, **RELEASED}
    matrix = np.zeros((21, 21), dtype=np.int64)
    matrix[10, 9:11] = 2
    matrix[14, 14] = matrix[0, 0] = 4
    names = ("background", *PASCAL_CLASSES)
    values: dict[str, Any] = {"matrix": matrix, "names": names, "unseen": unseen_classes(4), "images": 3}
    return MulticlassResults(**values | {"seconds": 1.5, "provenance": provenance} | changes)


def test_classes_of_pixels_stand_in_tab_4(tmp_path: Path) -> None:
    tables = tables_of(zero_shot(), replace(zero_shot(), provenance=zero_shot(1).provenance))
    seen, unseen = (
        line(tables, "Tab. 4", "CLIPSeg (PC+), unseen-4", f"mIoU {kind}, as scored").values for kind in ("seen", "unseen")
    )
    assert seen == pytest.approx([75, 75])
    assert unseen == pytest.approx([100 / 19, 100 / 19])
    assert line(tables_of(zero_shot()), "Tab. 4", "CLIPSeg (PC+), unseen-4", "mIoU seen, as scored").interval is None
    with pytest.raises(ClipSegError, match="run 0 and run 1: other classes, or other images"):
        tables_of(zero_shot(), zero_shot(1, matrix=np.eye(21, dtype=np.int64)))
    paper = replace(zero_shot(), provenance=zero_shot().provenance | {"protocol": "paper"})
    beside = paper_tables({"run": paper}, protocol="paper")
    found = [line(beside, "Tab. 4", "CLIPSeg (PC+), unseen-4", f"mIoU {kind}").values for kind in ("seen", "unseen")]
    assert found == [(pytest.approx(100 * paper.metrics()[f"miou_{kind}"]),) for kind in ("seen", "unseen")]
    assert not any("as_scored" in name for name in paper.metrics())
    assert [row[2] for row in paper.rows()[:2]] == ["20.8", "47.3"]
    assert paper.notes() == []
    zero_shot().save(tmp_path)
    assert MulticlassResults.load(tmp_path).metrics() == zero_shot().metrics()
    path = tmp_path / "confusion.json"
    for damage in ('{"names": ["a"], "rows_are_truth": [[0]]}', "[]", path.read_text().replace("2", "-2")):
        path.write_text(damage)
        with pytest.raises(ClipSegError, match=r"confusion\.json is damaged or something else"):
            MulticlassResults.load(tmp_path)


def study(**origin: Any) -> PromptDeltas:
    columns: dict[str, Any] = {"original": np.array([0.5, 0.5, 0.5]), "engineered": np.array([[0.6], [0.8], [0.7]])}
    names = {name: np.array(["a", "b", "c"]) for name in ("key", "image_key", "name")}
    return PromptDeltas(
        **columns,
        **names,
        variants=("crop",),
        choices=np.full(3, 4),
        seconds=1.0,
        provenance={"benchmark": "v", **RELEASED} | origin,
    )


def test_the_study_of_visual_prompts_is_tab_2() -> None:
    found = line(tables_of(study()), "Tab. 2", "crop", "ΔP(object)")
    assert found.cells()[2:5] == ("13.6", "20.0", "+6.4")
    assert found.cells()[5:] == ("10.0 to 30.0 (images)", "")
    assert line(tables_of(study()), "Tab. 2", "blur", "ΔP(object)").status == "not run"
    with pytest.raises(ClipSegError, match="run 0 and run 1: both are studies"):
        tables_of(study(), study())


def test_results_without_a_row_are_named() -> None:
    drawn = {"config": {"data": {"root": "mini"}}}
    on_drawings = replace(result(), provenance={**result().provenance, **drawn})
    tables = tables_of(result("mini"), result(split="val"), result(EVIL), on_drawings, study(**drawn))
    assert "No row of the paper: experiment 'mini' on phrasecut, split test." in tables.notes
    assert "Not the paper's split: experiment 'phrasecut_pc' on phrasecut, split val." in tables.notes
    assert "Not the paper's data but synthetic: experiment 'phrasecut_pc' on phrasecut, split test." in tables.notes
    assert len(tables.notes) == 5
    assert not any(each.values for lines in tables.tables.values() for each in lines)


def test_a_table_is_of_one_protocol() -> None:
    """Measured or trained by another, a result is left out and named; weights of unknown training may stand there."""
    for protocol, other in (("released", "paper"), ("paper", "released")):
        found = {"protocol": protocol, "training_protocol": None}
        made = [found, found | {"protocol": other}, found | {"training_protocol": other}, {"split": "test"}]
        origins = [{**result(seed=n).provenance, "protocol": None} | origin for n, origin in enumerate(made)]
        given = {str(n): replace(result(seed=n), provenance=origin) for n, origin in enumerate(origins)}
        tables = paper_tables(given, protocol=protocol)
        assert len(line(tables, "Tab. 3", "CLIPSeg (PC)", "mIoU").values) == 1
        assert f"protocol={protocol}" in tables.legend
        assert [note.split(":")[0] for note in tables.notes] == [
            f"Measured by protocol=None, not {protocol}",
            f"Measured by protocol={other}, not {protocol}",
            f"Trained by protocol={other}, not {protocol}",
        ]


def test_seeds_of_other_samples_are_refused() -> None:
    other = made_results(images=4, provenance=result(seed=1).provenance)
    with pytest.raises(ClipSegError, match="run 1: 2 of 10 keys are missing"):
        tables_of(result(), other)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_three_formats_hold_the_same_and_escape_what_others_wrote(tmp_path: Path) -> None:
    tables = tables_of(result(), result(EVIL))
    paths = write_tables(tmp_path, tables)
    assert [path.name for path in paths] == ["tables.md", "tables.tex", "tables.html"]
    markdown, latex, html = (path.read_text(encoding="utf-8") for path in paths)
    lines = sum(map(len, tables.tables.values()))
    rows = [row for row in markdown.splitlines() if row.startswith("| ") and "Figure" not in row]
    assert len(rows) == lines
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(COLUMNS) + 1}
    assert r"\<script\>&\|" in markdown
    assert "<script>" not in markdown
    body = [row for row in latex.splitlines() if row.endswith(r"\\")]
    assert len(body) == lines + len(tables.tables)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body} == {len(COLUMNS) - 1}
    assert r"IoU\_FG" in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{tabular}") == 8
    page = Reader()
    page.feed(html)
    assert "script" not in page.tags
    assert page.tags.count("tr") == lines + len(tables.tables)
    assert "<script>&|" in page.text
    ours = line(tables, "Tab. 3", "CLIPSeg (PC)", "mIoU").cells()[3]
    assert all(ours in text for text in (markdown, latex, page.text))
    assert "released" in markdown
    assert to_markdown(tables) == to_markdown(tables_of(result(), result(EVIL)))
    assert to_latex(tables) == to_latex(tables_of(result(), result(EVIL)))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result().save(tmp_path / "0")
    result(seed=1).save(tmp_path / "1" / "eval" / "test")
    folders = [str(tmp_path / "0"), str(tmp_path / "1")]
    assert run_tables(*folders) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| CLIPSeg (PC) | mIoU |"))
    assert row.endswith("| 2 |")
    assert run_tables(*folders, "--definition", "plain", "--out", str(tmp_path / "out")) == 0
    assert "tables.tex" in capsys.readouterr().out
    assert "plain definition" in (tmp_path / "out" / "tables.html").read_text(encoding="utf-8")
    assert run_tables(folders[0], folders[0]) == 2
    assert "given twice" in capsys.readouterr().err
    assert run_tables(str(tmp_path / "nowhere")) == 2
    assert "no results" in capsys.readouterr().err
