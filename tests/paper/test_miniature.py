"""The paper in miniature: known truths come out as such, and what is missing is said to be."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from made_results import made_results
from scipy import stats

import train
from clipseg.entry import to_yaml
from clipseg.errors import ClipSegError
from clipseg.measure.alignment import Runs
from clipseg.measure.paper import PROMPT_DELTAS
from clipseg.measure.significance import Interval, TTest
from clipseg.measure.statistics.corrections import holm
from clipseg.paper import directions
from clipseg.paper import sweep as miniature
from clipseg.paper.directions import Panel, Row, Section
from clipseg.paper.figures import bars
from clipseg.paper.page import agreement, write_miniature
from clipseg.paper.questions import ABLATIONS, BY_TEXT, EXPERIMENTS, FULL, NO_PRETRAINING, sections
from clipseg.paper.resampling import redrawn
from clipseg.paper.sweep import report_sweep
from clipseg.run.settings import DataSettings, TrainConfig
from clipseg.studies.visual_prompts.numbers import PromptDeltas

pytestmark = pytest.mark.slow

PLACES = (("phrasecut", "test"), ("phrasecut", "unseen"), ("phrasecut_visual", "test"))
# As the paper has it, but that "no visual" (`BY_TEXT`) helps visual prompts too; "highlight mask" is made the same run as the
# full one.
QUALITY = {FULL: 0.4, NO_PRETRAINING: 0.1, BY_TEXT: 0.5, "ablation_highlight": 0.4, "ablation_d16": 0.3}


def made_run(experiment: str, seed: int) -> Runs:
    number = list(QUALITY).index(FULL if experiment == "ablation_highlight" else experiment)
    runs: Runs = {}
    for place, (benchmark, split) in enumerate(PLACES):
        quality = QUALITY[experiment] - (0.1 if split == "unseen" else 0)
        provenance = {"benchmark": benchmark, "split": split, "experiment": experiment, "protocol": "released"}
        runs[benchmark, split] = made_results(
            seed=100 * number + 10 * place + seed,
            quality=quality,
            images=8,
            provenance=provenance,
            subsets={"p_name": np.arange(16) % 2 == 0},
        )
    return runs


def made_study() -> PromptDeltas:
    """Six images with two objects each: `crop` raises every name by 30 points and some noise, `blur` lowers it."""
    noise = np.random.default_rng(0).normal(0, 0.02, 12)
    names = np.array([f"{number:02}" for number in range(12)])
    return PromptDeltas(
        key=names,
        image_key=np.array([f"image {number // 2}" for number in range(12)]),
        name=names,
        choices=np.full(12, 3),
        original=np.full(12, 0.5),
        variants=("crop", "blur", "clip_mask_cls_all_minus_infinity"),
        engineered=np.stack([0.8 + noise, 0.3 + noise, 0.5 + noise], axis=1),
        seconds=30.0,
        provenance={"commit": "c" * 40, "machine": "made up, 2 cores", "versions": {"python": "3"}},
    )


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Intervals over images are the slow part, and of no matter to most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directions, "redrawn", partial(redrawn, repeats=100))
        yield


@pytest.fixture(scope="module")
def found() -> list[Section]:
    return sections({(name, seed): made_run(name, seed) for name in QUALITY for seed in range(3)}, made_study())


def rows(found: Sequence[Section], section: str, panel: str) -> dict[str, Row]:
    (chosen,) = [each for each in found if each.name == section]
    (rows,) = [each.rows for each in chosen.panels if each.title == panel]
    return {row.label: row for row in rows}


def test_values_tests_and_paper_are_those_of_the_row(found: list[Section]) -> None:
    table = rows(found, "Tab. 9", "text prompts, AP")
    row = table["D = 16"]
    ours, full = (
        [100 * made_run(name, seed)["phrasecut", "test"].metrics()["released/ap"] for seed in range(3)]
        for name in ("ablation_d16", FULL)
    )
    assert row.ours == pytest.approx(ours)
    assert table["CLIPSeg (PC+)"].ours == pytest.approx(full)
    assert row.difference == pytest.approx(np.mean(ours) - np.mean(full))
    assert isinstance(row.test, TTest)
    assert row.test.p_value == pytest.approx(stats.ttest_ind(ours, full, equal_var=False).pvalue)
    assert (row.paper, row.paper_difference) == (71.5, pytest.approx(71.5 - 76.7))
    assert row.images is not None
    assert row.images.low < np.mean(ours) - np.mean(full) < row.images.high < 0
    visual = rows(found, "Tab. 9", "visual prompts, mIoU at the best threshold")["no visual"]
    assert (visual.paper, visual.paper_difference) == (14.4, pytest.approx(14.4 - 25.4))
    assert rows(found, "Tab. 3", "mIoU at 0.3")["CLIP-Deconv"].paper == 37.7


def test_verdicts_of_known_truths(found: list[Section]) -> None:
    text, visual = (rows(found, "Tab. 9", f"{kind} prompts, mIoU at the best threshold") for kind in ("text", "visual"))
    assert text["CLIPSeg (PC+)"].verdict == ""
    assert text["no CLIP pre-training"].verdict == "agrees"
    assert text["no visual"].verdict == "agrees"
    assert visual["no visual"].verdict == "disagrees"
    assert text["highlight mask"].verdict == "no difference in the paper"
    assert visual["highlight mask"].verdict == "no difference in ours"
    assert visual["D = 16"].verdict == "agrees"
    assert text["only layer 3"].verdict == text["no negatives"].verdict == "not run"
    assert rows(found, "Tab. 9", "visual prompts, AP")["no CLIP pre-training"].verdict == "not in the paper"
    models = rows(found, "Tab. 3", "AP")
    assert [row.verdict for row in models.values()] == ["", "agrees", "not run"]
    assert models["CLIPSeg (PC)"].ours == rows(found, "Tab. 9", "text prompts, AP")["no visual"].ours


def made_row(difference: float, paper: float | None, p_holm: float | None = 0.01) -> Row:
    test = TTest(
        statistic=1, degrees_of_freedom=2, p_value=0.5, difference=1, low=0, high=2, effect_size=1, size=3
    )  # only that there is one counts
    return Row(label="", ours=(1.0,), paper=1.0, difference=difference, paper_difference=paper, test=test, p_holm=p_holm)


@pytest.mark.parametrize(
    ("difference", "paper", "p_holm", "verdict"),
    [
        (-3.0, -1.0, 0.049, "agrees"),
        (-3.0, -1.0, 0.05, "agrees, not significant"),
        (3.0, 1.0, None, "agrees, not tested"),
        (3.0, -1.0, 0.001, "disagrees"),
        (-3.0, 1.0, 0.9, "disagrees, not significant"),
        (3.0, 0.49, 0.001, "no difference in the paper"),
        (0.0, 5.0, None, "no difference in ours"),
        (3.0, None, 0.001, "not in the paper"),
    ],
)
def test_every_verdict(difference: float, paper: float | None, p_holm: float | None, verdict: str) -> None:
    assert made_row(difference, paper, p_holm).verdict == verdict


def test_p_is_corrected_over_a_section(found: list[Section]) -> None:
    for section in found:
        compared = [row for panel in section.panels for row in panel.rows if isinstance(row.test, TTest)]
        assert [row.p_holm for row in compared] == pytest.approx(holm([row.test.p_value for row in compared]))  # type: ignore[union-attr]
    assert sum(len(panel.rows) for panel in found[0].panels) == 4 * (1 + len(ABLATIONS))


def test_held_out_pairs_are_paired_by_run(found: list[Section]) -> None:
    table = rows(found, "Held-out pairs", "mIoU at the best threshold")
    row = table["CLIPSeg (PC+), `unseen` against `test`"]
    unseen, test = (
        [100 * made_run(FULL, seed)["phrasecut", split].metrics()["released/miou_best"] for seed in range(3)]
        for split in ("unseen", "test")
    )
    assert isinstance(row.test, TTest)
    assert row.test.p_value == pytest.approx(stats.ttest_rel(unseen, test).pvalue)
    assert (row.paper, row.paper_difference) == (43.1, pytest.approx(43.1 - 35.7))
    assert row.verdict == "disagrees"
    other = table["no CLIP pre-training against CLIPSeg (PC+), both on `unseen`"]
    assert isinstance(other.test, TTest)
    assert other.test.degrees_of_freedom != 2
    assert other.verdict == "agrees"


def test_variants_are_tested_over_images(found: list[Section]) -> None:
    table = rows(found, "Tab. 2", "ΔP(object), points")
    deltas = made_study().deltas[:, 0]
    row = table["crop"]
    assert isinstance(row.test, TTest)
    assert row.test.p_value == pytest.approx(stats.ttest_1samp(deltas.reshape(6, 2).mean(axis=1), 0).pvalue)
    assert isinstance(row.images, Interval)
    assert row.ours == (pytest.approx(deltas.mean()),)
    assert (row.paper, row.verdict) == (PROMPT_DELTAS["crop"], "agrees")
    assert table["blur"].verdict == "disagrees"
    assert table["clip_mask_cls_all, −∞"].verdict == "not in the paper"


def test_large_differences_and_ranks_are_counted() -> None:
    shown = Row(label="full", ours=(1,), paper=1)
    rows = [made_row(3, 2), made_row(5, 9, 0.2), made_row(1, -2), made_row(-4, -1.9), made_row(9, None), shown]
    section = Section("Tab. 9", [Panel("mIoU", rows[:3]), Panel("AP", rows[3:])])
    assert section.verdicts_of_large == {"agrees": 1, "agrees, not significant": 1, "disagrees": 1}
    assert section.rank_correlation == pytest.approx(stats.spearmanr([3, 5, 1, -4], [2, 9, -2, -1.9]).statistic)
    assert Section("Tab. 3", [Panel("AP", rows[:2])]).rank_correlation is None
    assert agreement([section, Section("Tab. 3", [Panel("AP", rows[:2])])]) == [
        "| the paper's differences of 2 points and more: direction | 2 of 3 | 2 of 2 | 4 of 5 |",
        "| … and significant | 1 of 3 | 1 of 2 | 2 of 5 |",
        "| Spearman's ρ of our differences and the paper's | 0.80 |  |  |",
    ]


def test_a_single_seed_has_a_direction_only() -> None:
    found = sections({(name, 0): made_run(name, 0) for name in (FULL, NO_PRETRAINING)}, made_study())
    assert rows(found, "Tab. 9", "text prompts, AP")["no CLIP pre-training"].verdict == "agrees, not tested"


def test_runs_on_other_samples_are_refused() -> None:
    other = {("phrasecut", "test"): made_results(images=7)}
    with pytest.raises(ClipSegError, match=r"ablation_d16, seed 1: 2 of 16 keys are missing|phrasecut_pc_plus, seed 0: "):
        sections({("ablation_d16", 1): other, (FULL, 0): made_run(FULL, 0)}, made_study())


def test_the_page_holds_every_row_and_its_pictures(found: list[Section], tmp_path: Path) -> None:
    curves, errors = {FULL: [([1, 2], [30.0, 40.0])]}, {"p_name": {FULL: 41.26, "ablation_d16": 30.0}, "s_small": {FULL: 7.0}}
    page = write_miniature(tmp_path, found, {"machine": "made up"}, curves=curves, errors=errors).read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(found) + 3, 11, 4}
    for section in found:
        for panel in section.panels:
            for row in panel.rows:
                assert any(line.startswith(f"| {row.label} |") and row.verdict in line for line in lines)
    difference = rows(found, "Tab. 9", "visual prompts, AP")["no visual"].difference
    assert f"* Tab. 9, visual prompts, AP: no visual: ours {difference:+.1f}, the paper's -24.6 (disagrees)" in page
    assert "* machine: made up" in page
    places = [page.index(text) for text in ("**text prompts, mIoU", "3 seeds a group see a difference of", "| no visual |")]
    assert places == sorted(places)
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert len(pictures) == 6
    assert "| subset | CLIPSeg (PC+) | D = 16 |\n|---|---:|---:|\n| p_name | 41.3 | 30.0 |\n| s_small | 7.0 |  |\n" in page
    for name in pictures:
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
    assert bars(found[1]) == (tmp_path / "tab3.svg").read_text(encoding="utf-8"), "the same numbers give the same bytes"


def job(tmp_path: Path, experiment: str, seed: int, **changes: Any) -> TrainConfig:
    out = str(tmp_path / experiment / f"seed_{seed}")
    values = {"experiment": experiment, "seed": seed, "out": out, "report": str(tmp_path / "report"), "device": "cpu"}
    return TrainConfig(**values | {"data": DataSettings(root="mini")} | changes)


def leave_results(config: TrainConfig) -> None:
    folder = Path(config.out)
    for (benchmark, split), result in made_run(config.experiment, config.seed).items():
        result.save(folder / "eval" / f"{split}_{benchmark}")
    origin = {"commit": "a" * 40, "versions": {"python": "3"}, "machine": "made up, 2 cores"}
    (folder / "provenance.json").write_text(json.dumps(origin))
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "speed/seconds": 5, "val/miou_best": 0.25}\n{"step": 2, "speed/seconds": 120, "val/miou_best": 0.5}\n'
    )


@pytest.fixture
def quick_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniature, "visual_prompt_study", lambda *_: made_study())


def test_curves_and_subsets_are_read_from_the_runs(tmp_path: Path) -> None:
    folders = {(FULL, seed): Path(job(tmp_path, FULL, seed).out) for seed in (0, 1)}
    for seed in (0, 1):
        leave_results(job(tmp_path, FULL, seed))
    assert miniature.learning_curves(folders) == {FULL: [([1, 2], [25.0, 50.0])] * 2}
    runs = {run: miniature.load_runs(folder) for run, folder in folders.items()}
    found = [100 * each["phrasecut", "test"].metrics()["subset/p_name/mean_iou_official"] for each in runs.values()]
    assert miniature.by_subset(runs)["p_name"] == {FULL: pytest.approx(np.mean(found))}


@pytest.mark.usefixtures("quick_study")
def test_a_sweep_ends_with_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job(tmp_path, name, seed) for name in (FULL, "ablation_d16") for seed in (0, 1)]
    for config in jobs[:3]:  # the last one failed
        leave_results(config)
    report_sweep(jobs)
    assert "report: " in capsys.readouterr().out
    page = (tmp_path / "report" / "README.md").read_text(encoding="utf-8")
    assert "* runs: 3, training seeds 0, 1" in page
    assert "training 6 min, evaluations 0 min, visual prompts 0.5 min; added up over all runs" in page
    assert f"* commit: {'a' * 40}; {'c' * 40}" in page
    assert "phrasecut_visual `test`: 16 on 8 images" in page
    assert page.count("made up, 2 cores") == 1


@pytest.mark.usefixtures("quick_study")
def test_what_cannot_be_reported_is_one_line(tmp_path: Path) -> None:
    jobs = [job(tmp_path, FULL, 0)]
    with pytest.raises(ClipSegError, match="no run of the sweep left results"):
        report_sweep(jobs)
    leave_results(jobs[0])
    with pytest.raises(ClipSegError, match="both are phrasecut_pc_plus with seed 0"):
        report_sweep([*jobs, job(tmp_path, FULL, 0, out=jobs[0].out)])
    with pytest.raises(ClipSegError, match="the page is about the mini data, not somewhere"):
        job(tmp_path, FULL, 0, data=DataSettings(root="somewhere"))
    report_sweep([job(tmp_path, FULL, 0, report=None)])
    assert not (tmp_path / "report").exists()


def test_the_study_is_kept_and_measured_again_for_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    class Quick:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, *, provenance: Any, **_: Any) -> PromptDeltas:
            study = made_study()
            object.__setattr__(study, "provenance", provenance)
            measured.append(provenance)
            return study

        def write(self, folder: Path, results: PromptDeltas, *, seed: int) -> None:
            results.save(folder)

    monkeypatch.setattr(miniature, "PromptStudy", Quick)
    monkeypatch.setattr(miniature, "object_source", lambda *_, **__: None)
    monkeypatch.setattr(miniature, "materialize", lambda: tmp_path)
    for _ in range(2):
        miniature.visual_prompt_study(tmp_path / "study", "cpu", miniature.Processes())
    assert len(measured) == 1
    monkeypatch.setattr(miniature, "default_root", lambda: Path("other"))
    miniature.visual_prompt_study(tmp_path / "study", "cpu", miniature.Processes())
    assert [origin["config"]["data"]["version"] == "other" for origin in measured] == [False, True]


def test_the_entry_reports_after_all_jobs_and_counts_its_failure(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(train, "train", lambda config: asked.append((config.experiment, config.seed, config.out)))
    status, _, error = call(train, "-m", "sweep=miniature", "experiment=ablation_d16,phrasecut_pc", "seed=0,4")
    assert asked == [
        (name, seed, f"outputs/miniature/{name}/seed_{seed}") for seed in (0, 4) for name in ("ablation_d16", "phrasecut_pc")
    ]
    assert (status, error) == (
        2,
        "error: report=outputs/miniature/report: no run of the sweep left results; see the errors above\n",
    )


@pytest.mark.usefixtures("quick_study")
def test_a_sweep_given_again_may_report_elsewhere(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(config: TrainConfig) -> None:
        leave_results(config)
        Path(config.out, "config.yaml").write_text(to_yaml(config), encoding="utf-8")

    monkeypatch.setattr(train, "train", quick)
    asked = ["-m", "sweep=miniature", "experiment=phrasecut_pc_plus,ablation_d16", "seed=0"]
    assert call(train, *asked)[0] == 0
    status, out, error = call(train, *asked, "report=elsewhere")
    assert (status, out, error) == (0, "report: elsewhere/README.md\n", "")
    pages = [Path(folder, "README.md").read_bytes() for folder in ("outputs/miniature/report", "elsewhere")]
    assert pages[0] == pages[1]


def test_the_sweep_runs_what_the_page_shows() -> None:
    sweep = (Path(train.__file__).parent / "configs" / "sweep" / "miniature.yaml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"(?:phrasecut|ablation)_[a-z0-9_]+", sweep.split("experiment: >-")[1])) == sorted(EXPERIMENTS)
