"""The three benchmarks by their door: what they leave, what a model that does not hear scores, and what is refused."""

import json
from pathlib import Path

import pytest
from made_data import write_folder

import evaluate
from clipseg.network.model import CLIPSeg
from clipseg.studies.laboratory.counterfactual import CounterfactualResults
from clipseg.studies.laboratory.forms import CONTROLS, FORMS
from clipseg.studies.laboratory.paraphrase import ParaphraseResults
from clipseg.studies.laboratory.presence import PresenceResults

RESULTS = {"presence": PresenceResults, "counterfactual": CounterfactualResults, "paraphrase": ParaphraseResults}


def command(benchmark: str, root: Path, *more: str) -> list[str]:
    return ["checkpoint=mini", f"benchmark={benchmark}", f"data.root={root}", "data.workers=0", "out=out", *more]


def metrics(folder: str = "out") -> dict[str, float]:
    return json.loads(Path(folder, "metrics.json").read_text())


@pytest.mark.parametrize("benchmark", RESULTS)
def test_a_benchmark_leaves_rows_figures_and_a_page(benchmark: str, call, worded_root) -> None:
    status, out, err = call(evaluate, *command(benchmark, worded_root()))
    assert (status, err) == (0, "")
    found, results = metrics(), RESULTS[benchmark].load("out")
    kinds = set(results.kind.tolist())
    assert {f"control/{name}" for name in CONTROLS} <= kinds
    expected = {
        "presence": {"attribute", "relation"},
        "counterfactual": {"attribute", "noun", "relation"},
        "paraphrase": set(FORMS) - {"synonym", "lower_case"},
    }[benchmark]
    assert kinds - {f"control/{name}" for name in CONTROLS} - {"other"} == expected
    for figure in results.FIGURES:
        for prefix in ("", *(f"{kind}/" for kind in kinds)):
            assert f"{prefix}{figure}" in found
    assert found == pytest.approx(results.metrics())
    html = Path("out/report.html").read_text()
    assert "<svg" in html
    assert html.count("data:image/jpeg") == 6
    assert "Only 6 images:" in html
    assert "control/shuffled" in out
    # Of the empty prompt both maps are one, as for who does not hear.
    if benchmark != "paraphrase":
        assert found["control/empty/auroc" if benchmark == "presence" else "control/empty/gap"] == {"presence": 0.5}.get(
            benchmark, 0
        )
    rows = {"presence": 3, "counterfactual": 2, "paraphrase": 40}[benchmark]
    assert found["samples"] >= rows


@pytest.mark.parametrize("benchmark", RESULTS)
def test_who_does_not_hear_the_words_has_no_gap(benchmark: str, call, worded_root, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = CLIPSeg.encode_text
    monkeypatch.setattr(CLIPSeg, "encode_text", lambda model, texts: heard(model, ["red flag"]).repeat(len(texts), 1))
    status, _, err = call(evaluate, *command(benchmark, worded_root()))
    assert (status, err) == (0, "")
    nothing = {"auroc": 0.5, "mcc": 0, "balanced_accuracy": 0.5, "gap": 0, "moved": 0, "iou_lost": 0, "mask_iou": 1}
    seen = 0
    for name, value in metrics().items():
        figure = name.split("/")[-1]
        if figure in nothing:
            assert value == pytest.approx(nothing[figure], abs=1e-12), name
            seen += 1
    assert seen >= 6
    if benchmark == "counterfactual":
        values = CounterfactualResults.load("out").values
        assert values["iou_new"].max() > 0
        assert not values["gap"].any()


def test_the_threshold_of_presence_is_of_another_split(call, worded_root) -> None:
    root = worded_root(splits=("val", "test", "train"))
    status, _, _ = call(evaluate, *command("presence", root))
    assert status == 0
    own, other = metrics(), metrics("out/threshold")
    assert PresenceResults.load("out/threshold").provenance["split"] == "val"
    assert own["chosen_peak"] != 0.5
    assert other["chosen_peak"] == 0.5  # nothing was chosen for it
    status, _, _ = call(evaluate, *command("presence", root, "threshold_split=train", "overwrite=true", "first_images=1"))
    assert status == 0
    assert PresenceResults.load("out/threshold").provenance["split"] == "train"


def test_any_number_of_first_images_asks_the_same_of_them(call, worded_root) -> None:
    root = worded_root(3, splits=("test",))
    call(evaluate, *command("paraphrase", root))
    whole = ParaphraseResults.load("out")
    call(evaluate, *command("paraphrase", root, "first_images=2", "overwrite=true"))
    part = ParaphraseResults.load("out")
    chosen = [row for row, image in enumerate(whole.image_key) if image in part.image_key]
    assert whole.asked[chosen].tolist() == part.asked.tolist()
    assert len(part) < len(whole)


def test_a_folder_of_ones_own_has_phrases_without_parts(call, tmp_path: Path) -> None:
    write_folder(tmp_path / "own", splits=("val", "test"))
    # Each photo has the same two phrases: nothing is absent, by words alone.
    status, _, err = call(evaluate, *command("presence", tmp_path / "own"))
    assert status == 2
    assert "no question could be asked" in err
    for benchmark in ("counterfactual", "paraphrase"):
        status, _, err = call(evaluate, *command(benchmark, tmp_path / "own", "overwrite=true"))
        assert (status, err) == (0, "")
    assert metrics()["control/random/samples"] == 4


def test_without_structure_presence_asks_by_other_images_phrases(call, phrasecut_root) -> None:
    root = phrasecut_root(4, splits=("val", "test"))
    for path in root.glob("refer_*.json"):
        path.write_text(json.dumps([{**task, "phrase_structure": None} for task in json.loads(path.read_text())]))
    status, _, err = call(evaluate, *command("presence", root))
    assert (status, err) == (0, "")
    assert {kind for kind in PresenceResults.load("out").kind.tolist() if "/" not in kind} == {"other"}


def test_what_cannot_be_is_one_line(call, worded_root, phrasecut_root) -> None:
    root = worded_root(2, splits=("train", "test"))
    for benchmark, more, error in (
        ("presence", (), "no split val to choose the threshold of presence on"),
        ("presence", ("threshold_split=test",), "choose the threshold on another split"),
        ("presence", ("threshold_split=no",), "'no' unknown"),
        ("paraphrase", ("first_images=0",), "first_images=0 must be at least 1"),
        ("counterfactual", ("threshold_split=train",), "means nothing to benchmark=counterfactual"),
        ("phrasecut", ("first_images=3",), "means nothing to benchmark=phrasecut"),
    ):
        status, _, err = call(evaluate, *command(benchmark, root, *more))
        assert (status, err.count("\n")) == (2, 1), err
        assert error in err
