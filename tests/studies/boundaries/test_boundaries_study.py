"""The benchmark of edges: what it leaves is what the masks' own measures say."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_data import write_folder
from PIL import Image

import evaluate
from clipseg.data.phrasecut import PhraseCut
from clipseg.errors import ClipSegError
from clipseg.measure.statistics.boundaries import boundary_iou, surface_distance
from clipseg.studies.boundaries.numbers import FIGURES, BoundaryResults


def test_the_edges_of_the_saved_masks_are_measured(call, phrasecut_root) -> None:
    root = phrasecut_root(3, splits=("test",))
    command = ["checkpoint=mini", f"data.root={root}", "data.workers=0"]
    status, out, err = call(evaluate, *command, "benchmark=boundaries", "out=out")
    assert (status, err) == (0, "")
    assert "boundary_iou" in out
    results = BoundaryResults.load("out")
    status, _, err = call(evaluate, *command, "benchmark=phrasecut", "out=other", "save_predictions=masks")
    assert (status, err) == (0, "")
    truths = {task.key: task.mask.bool().numpy() for item in range(3) for task in PhraseCut(root, split="test")[item].tasks}
    for key, values in zip(results.key.tolist(), results.values, strict=True):
        found = np.array(Image.open(f"masks/{key.split('/')[1]}.png")) > 0
        expected = [boundary_iou(truths[key], found), *(surface_distance(truths[key], found, tolerance=at) for at in (2, 4))]
        assert values[1:] == pytest.approx(expected)
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics == results.metrics()
    assert metrics["surface@4"] == pytest.approx(results.values[:, FIGURES.index("surface@4")].mean())
    assert metrics["s_mid/samples"] == (results.size == "s_mid").sum()
    assert "Only 3 images:" in Path("out/report.html").read_text()


def test_what_are_no_results_is_refused() -> None:
    columns = {
        "key": np.array(["a"]),
        "image_key": np.array(["1"]),
        "size": np.array(["s_mid"]),
        "values": np.full((1, 4), 0.5),
    }
    others = {"threshold": 0.3, "seconds": 1.0, "provenance": {}}
    assert len(BoundaryResults(**columns, **others)) == 1
    for wrong, error in (({"values": np.full((1, 4), 2.0)}, "outside"), ({"size": np.array([])}, "different lengths")):
        with pytest.raises(ClipSegError, match=error):
            BoundaryResults(**columns | wrong, **others)
    with pytest.raises(ClipSegError, match="can be read"):
        BoundaryResults.of_rows([])


def test_the_edges_in_a_folder_of_ones_own(call, tmp_path) -> None:
    write_folder(tmp_path / "own")
    status, _, err = call(evaluate, "checkpoint=mini", f"data.root={tmp_path / 'own'}", "benchmark=boundaries", "out=out")
    assert (status, err) == (0, "")
    assert json.loads(Path("out/metrics.json").read_text())["samples"] == 4
