"""`clipseg compare-words`: means, spreads and corrected tests of groups, and what does not belong together."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from clipseg.__main__ import main
from clipseg.measure.statistics.corrections import holm

VALUES = {"none": (0.60, 0.62, 0.61), "half": (0.70, 0.73, 0.71)}


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in VALUES.items():
        for seed, value in enumerate(values):
            leave(Path(name, str(seed)), auroc=value, fires=1 - value)
    return [argument for name in VALUES for argument in ("--group", f"{name}/0", f"{name}/1", f"{name}/2")]


def leave(folder: Path, *, benchmark="presence", samples=10, **figures):
    folder.mkdir(parents=True)
    (folder / "words.npz").touch()
    (folder / "provenance.json").write_text(json.dumps({"benchmark": benchmark, "split": "test", "protocol": "released"}))
    counted = {"samples": samples, "images": 5, "threshold": 0.3, "seconds": 1, "chosen_peak": 0.4, "control/empty/auroc": 0.5}
    (folder / "metrics.json").write_text(json.dumps(counted | figures))


def test_a_row_a_figure_a_column_a_group(groups, capsys):
    assert main(["compare-words", *groups]) == 0
    what, head, _, *lines = capsys.readouterr().out.splitlines()
    assert what == "presence test released, 10 questions on 5 images"
    assert head.split() == ["percent", "none", "half"]
    assert [line.split()[0] for line in lines] == ["auroc", "fires"]
    tests = [stats.ttest_ind(VALUES["half"], VALUES["none"], equal_var=False).pvalue] * 2
    spread = np.std(np.array(VALUES["half"]) * 100, ddof=1)
    assert re.search(rf"61\.0 ± 1\.0 +71\.3 ± {spread:.1f} \(p = {holm(tests)[0]:.3g}\)$", lines[0])


def test_chosen_figures_and_a_run_alone(groups, capsys):
    assert main(["compare-words", "--group", "none/0", "--group", "half/0", "--figure", "control/empty/auroc"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["control/empty/auroc", "50.0", "50.0"]


def test_what_does_not_belong_together_is_one_line(groups, capsys):
    leave(Path("fewer"), samples=9, auroc=0.5)
    leave(Path("other"), benchmark="paraphrase", auroc=0.5)
    for arguments, line in (
        (["--group", "none/0", "--group", "fewer"], "10 questions on 5 images and of presence test released, 9 questions"),
        (["--group", "none/0", "--group", "other"], "results of paraphrase test released, 10 .* and of presence"),
        (
            ["--group", "none/0", "--figure", "miou"],
            "figure 'miou' is not in all results; expected one of auroc, fires|control",
        ),
        (["--group", "nowhere"], "nowhere: no results of words; expected the folder of an evaluate.py benchmark=presence"),
    ):
        assert main(["compare-words", *arguments]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert re.search(line, error)
