"""The grid of prompts: which cells there are, which the best is and which equals it, and that its command gives its figure."""

import json
import shlex
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from made_data import write_folder

import evaluate
from clipseg.errors import ClipSegError
from clipseg.measure.metrics import count, sample_iou
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval
from clipseg.studies.laboratory.grid_numbers import Cell, GridResults, cells_of

SMALL = ["grid_weights=[0,0.4,1]", "grid_templates=[plain,fixed]", "grid_variants=[crop,blur]"]


def made(quality: dict[float, float], samples: int = 120) -> GridResults:
    """Samples of 30 images in the cells of one template and variant; their mean IoU is the weight's quality."""
    rng = np.random.default_rng(0)
    cells = cells_of(list(quality), ["plain"], ["crop"])
    hard = rng.normal(0, 0.1, samples)
    rows = [
        {
            "key": f"test/{number}",
            "image_key": str(number % 30),
            "iou": np.clip([quality[cell.weight] + hard[number] + rng.normal(0, 0.02) for cell in cells], 0, 1),
        }
        for number in range(samples)
    ]
    masks = (rng.random((1, 8, 8)) < 0.5).astype(np.uint8)
    totals = [count(0.3 * rng.random((1, 8, 8)) + cell.weight * 0.7 * masks, masks) for cell in cells]
    provenance = {"benchmark": "prompt_grid", "config": {"checkpoint": "run", "split": "test", "data": {"root": "a b"}}}
    return GridResults.of_rows(rows, cells, totals, threshold=0.3, seconds=1.0, provenance=provenance)


def test_where_text_or_picture_does_not_count_there_is_one_cell() -> None:
    cells = cells_of([0, 0.5, 1], ["plain", "fixed"], ["crop", "blur"])
    assert len(cells) == 2 + 4 + 2
    assert cells[0] == Cell(weight=0, template=None, variant="crop")
    assert [cell.name for cell in cells[-2:]] == ["w1/plain", "w1/fixed"]
    assert Cell(weight=0.3, template="a photo of a {}.", variant="crop").keys() == [
        "prompt.text_weight=[0.3,0.3]",
        "'prompt.templates=\"a photo of a {}.\"'",
        "prompt.ensemble=true",
        "prompt.visual_prompt=crop",
    ]


def test_the_best_and_what_cannot_be_told_from_it(tmp_path: Path) -> None:
    results = made({0: 0.4, 0.4: 0.6, 0.5: 0.6, 1: 0.5})
    compared = results.compared()
    best = compared[results.best]
    assert best.cell.weight in (0.4, 0.5)
    assert (best.difference, best.p_holm) == (0, None)
    assert [each.is_told_apart for each in compared] == [True, False, False, True]
    assert compared[0].difference == pytest.approx(-20, abs=1)
    gain, interval = results.gain(seed=0)
    assert gain == pytest.approx(10, abs=1)
    assert isinstance(interval, Interval)
    assert 8 < interval.low < gain < interval.high < 12
    metrics = results.metrics()
    assert metrics["not_told_apart"] == 1
    assert metrics["cell/w1/plain/miou"] == pytest.approx(results.iou[:, 3].mean())
    assert metrics["cell/w1/plain/ap"] > metrics["cell/w0/crop/ap"]
    results.save(tmp_path)
    again = GridResults.load(tmp_path)
    assert again.metrics() == metrics
    assert list(again.cells) == list(results.cells)
    command = shlex.split(results.command())
    assert command[:5] == ["python", "evaluate.py", "checkpoint=run", "benchmark=phrasecut_visual", "split=test"]
    assert "data.root=a b" in command
    with pytest.raises(ClipSegError, match="no sample can be shown by another"):
        GridResults.of_rows([], [], [])


@pytest.mark.slow
def test_each_cell_is_what_its_command_measures(call, worded_root) -> None:
    root = worded_root(3, splits=("test",))
    grid = ["checkpoint=mini", "benchmark=prompt_grid", f"data.root={root}", "data.workers=0", "out=grid", *SMALL]
    status, out, err = call(evaluate, *grid)
    assert (status, err) == (0, "")
    found, results = json.loads(Path("grid/metrics.json").read_text()), GridResults.load("grid")
    assert len(results.cells) == 2 + 4 + 2
    command = next(line for line in out.splitlines() if line.startswith("python evaluate.py"))
    assert command == results.command()
    visual = ["checkpoint=mini", "benchmark=phrasecut_visual", "protocol=paper", f"data.root={root}"]
    mixed = ["prompt.text_weight=[0.4,0.4]", "prompt.templates=fixed", "prompt.ensemble=true", "prompt.visual_prompt=blur"]
    for cell, more in (
        (results.cells[results.best], shlex.split(command)[2:]),
        (Cell(weight=0.4, template="fixed", variant="blur"), [*visual, *mixed]),
    ):
        status, _, err = call(evaluate, *more, "data.workers=0", "out=one", "overwrite=true")
        assert (status, err) == (0, "")
        single = json.loads(Path("one/metrics.json").read_text())
        assert single["miou"] == pytest.approx(found[f"cell/{cell.name}/miou"], abs=1e-3)
        assert single["ap"] == pytest.approx(found[f"cell/{cell.name}/ap"], abs=5e-3)
        assert single["samples"] == found["samples"]
    html = Path("grid/report.html").read_text()
    assert html.count('class="best"') >= 2
    assert command in unescape(html)
    assert "<svg" in html


def test_no_grid_is_one_line(call, worded_root) -> None:
    root = worded_root(2, splits=("test",))
    for more, error in (
        ("grid_weights=[0.5]", "two or more ascending weights"),
        ("grid_weights=[0,2]", "within [0, 1]"),
        ("grid_templates=[plain,plain]", "each once"),
        ("grid_variants=[]", "must name one or more"),
        ("grid_variants=[nothing]", "prompt.visual_prompt='nothing' unknown"),
        ("grid_templates=[nothing]", "templates='nothing' unknown"),
    ):
        status, _, err = call(evaluate, "checkpoint=mini", "benchmark=prompt_grid", f"data.root={root}", "out=out", more)
        assert (status, err.count("\n")) == (2, 1), err
        assert error in err


@pytest.mark.slow
def test_the_best_cell_s_command_gives_its_figure_in_a_folder_of_ones_own(call, tmp_path) -> None:
    write_folder(tmp_path / "own")
    asked = ["checkpoint=mini", f"data.root={tmp_path / 'own'}", "benchmark=prompt_grid", "out=grid", *SMALL]
    assert call(evaluate, *asked)[0] == 0
    results = GridResults.load("grid")
    assert len(results) == 4
    words = shlex.split(results.command())[2:]
    assert call(evaluate, *words, "out=best")[0] == 0
    best = Results.load("best")  # whose mIoU is over classes here, and the grid's over samples
    assert 100 * sample_iou(best.counts, best.threshold).mean() == pytest.approx(results.miou[results.best])
