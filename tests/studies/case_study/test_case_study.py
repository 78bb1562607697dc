"""One photo as a study: what is computed, printed, drawn and written."""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg.data.phrasecut import PhraseCut
from clipseg.errors import ClipSegError
from clipseg.exit_status import guarded
from clipseg.measure.intensity import IntensityTests, gray_values, intensity_tests
from clipseg.measure.significance import NotTestable, TTest, welch
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import save_release
from clipseg.segmenter import Segmenter
from clipseg.studies.case_study import command
from clipseg.studies.case_study.numbers import (
    Case,
    CaseSettings,
    PhraseCase,
    case_to_json,
    format_case,
    rejections,
    write_case_page,
)
from clipseg.studies.case_study.run import pick_photo, study_photo, study_split

EVIL = "<script>alert(1)</script> $x$\x1b[2J"
SETTINGS = CaseSettings(weights="mini", threshold=0.5)
NOTHING = IntensityTests(inside=NotTestable("why"), across=NotTestable("why"))


@pytest.fixture
def data(phrasecut_root: Callable[..., Path]) -> PhraseCut:
    return PhraseCut(phrasecut_root(3), split="test")


def made_case(*counts: tuple[int, int], tests: IntensityTests = NOTHING, phrase: str = "leg") -> Case:
    """A case from intersections and unions."""
    return Case(
        image_key="7",
        split="test",
        settings=CaseSettings(weights=EVIL, region="box", difference="signed"),
        phrases=tuple(
            PhraseCase(key=f"test/7__{n}", phrase=phrase, intersection=part, union=whole, predicted=tests, truth=tests)
            for n, (part, whole) in enumerate(counts)
        ),
    )


def run_case_study(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return guarded(lambda: command.run(parser.parse_args(arguments)))


def test_percentages_and_no_overlap() -> None:
    case = made_case((1, 4), (0, 9), (0, 0), (3, 3))
    assert [phrase.iou for phrase in case.phrases] == [25.0, None, 100.0, 100.0]
    assert [phrase.dice for phrase in case.phrases] == [40.0, None, 100.0, 100.0]
    assert case.mean_iou == 225 / 4
    assert case.mean_dice == 240 / 4
    lines = format_case(case).splitlines()
    assert "Phrase: leg\tIOU = 25.00\tDice Coefficient = 40.00" in lines
    assert "Phrase: leg\tIOU = No Overlap\tDice Coefficient = No Overlap" in lines
    assert "Mean IOU: 56.25" in lines
    assert "Mean Dice Coefficient: 60.00" in lines


def test_the_means_of_the_documented_example() -> None:
    """leg, sky, tree, pole, hill, skier: the printed IoU of each, and the mean that counts No Overlap as 0."""
    printed = (81.92628420536721, 87.27646813721542, 14.316180256984227, 0, 88.07142643246392, 59.78921039375981)
    counts = [(round(iou * 10**12), 10**14) for iou in printed]
    case = made_case(*counts)
    assert case.mean_iou == pytest.approx(55.22992823763177)
    assert case.mean_dice == pytest.approx(62.801757597562094)
    assert case.phrases[0].dice == pytest.approx(90.0653630817687)


def test_tests_are_corrected_over_the_phrases_and_judged() -> None:
    generator = np.random.default_rng(0)
    sharp = welch(generator.normal(10, 3, 50), generator.normal(40, 3, 50))
    assert isinstance(sharp, TTest)
    weak = replace(sharp, p_value=0.0004)
    case = made_case((1, 2), (1, 2), tests=IntensityTests(inside=NotTestable("too small"), across=sharp))
    text = format_case(case)
    assert text.count("inside and outside of the segmented object: t = -") == 4
    assert text.count("H0 rejected") == 4
    assert text.count("both inside of the segmented object: not testable: too small") == 4
    assert "nan" not in text.lower()
    counted = [family.count for family in rejections([case, case])]
    assert [(count.tested, count.not_testable) for count in counted] == [(0, 4), (4, 0), (0, 4), (4, 0)]
    many = made_case(*[(1, 2)] * 60, tests=IntensityTests(inside=weak, across=weak))
    assert {(family.count.rejected_uncorrected, family.count.rejected) for family in rejections([many])} == {(60, 0)}
    assert f"{rejections([many])[0].name}: 0 of 60 rejected after Holm's correction, 60 before it" in format_case(many)
    entry = case_to_json(case)["phrases"][0]["predicted"]
    assert entry["across"]["p_holm"] == pytest.approx(2 * sharp.p_value)
    assert entry["across"]["rejected"]
    assert entry["inside"] == {"not_testable": "too small"}


def test_a_photo_is_studied_as_its_parts_say(tiny_model: CLIPSeg, data: PhraseCut, tmp_path: Path) -> None:
    item = pick_photo(data, image_id=9, seed=0)
    case = study_photo(tmp_path, tiny_model, data, item, SETTINGS)
    sample = data[(0, item)]
    assert case.image_key == "9"
    assert [phrase.phrase for phrase in case.phrases] == [task.phrase for task in sample.tasks]
    image = sample.image.permute(1, 2, 0).numpy()
    path = data.root / "images" / "9.jpg"
    probabilities = Segmenter(tiny_model)(path, [task.phrase for task in sample.tasks]).numpy()
    for phrase, task, probability in zip(case.phrases, sample.tasks, probabilities, strict=True):
        truth, predicted = task.mask.numpy().astype(bool), probability > 0.5
        assert phrase.intersection == pytest.approx((truth & predicted).sum(), abs=2)
        assert phrase.union == pytest.approx((truth | predicted).sum(), abs=2)
        assert phrase.truth == intensity_tests(gray_values(image), truth, seed=0)
    found = [phrase.truth.across for phrase in case.phrases]
    # Rectangles on gray: what is tested on them has edges.
    assert all(test.p_value < 0.001 for test in found if isinstance(test, TTest))
    assert any(isinstance(test, TTest) for test in found)
    assert case == study_photo(tmp_path, tiny_model, data, item, SETTINGS)


def test_files_of_a_photo(tiny_model: CLIPSeg, data: PhraseCut, tmp_path: Path) -> None:
    case = study_photo(tmp_path, tiny_model, data, 0, SETTINGS)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        f"case-study.{kind}" for kind in ("png", "json", "html")
    }
    with Image.open(tmp_path / "case-study.png") as image:
        assert image.format == "PNG"
        assert image.height > 150 * len(case.phrases)
        assert np.asarray(image.convert("RGB")).std() > 10
    numbers = json.loads((tmp_path / "case-study.json").read_text())
    assert numbers == json.loads(json.dumps(case_to_json(case)))
    assert numbers["mean_iou"] == case.mean_iou


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_self_contained_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    test = welch([1, 2, 3], [2, 3, 9])
    case = made_case((1, 4), (0, 4), tests=IntensityTests(inside=NotTestable("too small"), across=test), phrase=EVIL)
    write_case_page(tmp_path / "page.html", case, [b"one", b"two"])
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Reader()
    page.feed(html)
    assert "script" not in page.tags
    assert len(page.addresses) == page.tags.count("img") == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import", html)
    assert "<script>alert(1)</script>" in page.text
    assert "No Overlap" in page.text
    assert "not testable: too small" in page.text
    assert "\x1b" not in format_case(case)


def test_a_split_is_studied_whole(tiny_model: CLIPSeg, data: PhraseCut, tmp_path: Path) -> None:
    cases = study_split(tmp_path, tiny_model, data, SETTINGS)
    assert [case.image_key for case in cases] == [str(image_id) for image_id in data.image_ids]
    assert cases[1] == study_photo(tmp_path / "one", tiny_model, data, 1, SETTINGS)
    assert len(json.loads((tmp_path / "case-studies.json").read_text())) == 3


def test_the_photo_is_of_the_seed_or_the_one_named(data: PhraseCut) -> None:
    assert pick_photo(data, image_id=None, seed=5) == pick_photo(data, image_id=None, seed=5)
    assert {pick_photo(data, image_id=None, seed=seed) for seed in range(30)} == {0, 1, 2}
    assert data.image_ids[pick_photo(data, image_id=8, seed=0)] == 8
    with pytest.raises(ClipSegError, match="no image 1 in split test; it has 3: 7, 8, 9"):
        pick_photo(data, image_id=1, seed=0)


def test_command(tiny_model: CLIPSeg, data: PhraseCut, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_release(tiny_model, tmp_path / "weights", card="", extra={})
    arguments = ["--root", str(data.root), "--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out")]
    assert run_case_study(*arguments, "--image-id", "8", "--threshold", "0.5", "--region", "box") == 0
    printed = capsys.readouterr().out
    assert "image 8 of test, threshold 0.5" in printed
    assert "bounding box" in printed
    assert (tmp_path / "out" / "case-study.html").is_file()
    assert run_case_study(*arguments, "--all", "--difference", "signed") == 0
    printed = capsys.readouterr().out
    assert "3 photos of test" in printed
    assert "signed differences" in printed
    assert "true mask, inside against inside (control)" in printed
    for wrong, message in (
        (["--threshold", "1.5"], "--threshold 1.5"),
        (["--seed", "-1"], "--seed -1"),
        (["--image-id", "1"], "no image 1"),
        (["--split", "tets"], "split 'tets' unknown"),
        (["--weights", "nowhere.pth"], "nowhere.pth: no such file"),
    ):
        assert run_case_study(*arguments, *wrong) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
