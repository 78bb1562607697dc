"""The printed table, the paper's rows, the figures and the page."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg.measure.failures import failures
from clipseg.measure.figures import iou_over_threshold, panel, precision_over_recall
from clipseg.measure.intensity import IntensityTests
from clipseg.measure.intensity_columns import IntensityColumns
from clipseg.measure.metrics import count, curves, sample_iou
from clipseg.measure.paper import ROWS, paper_beside, paper_values
from clipseg.measure.report import GalleryItem, pick_gallery, write_report
from clipseg.measure.results import Results
from clipseg.measure.significance import NotTestable, paired_t
from clipseg.measure.tables import format_table

EVIL = "<script>alert('1')</script> & \"tall\" \ud800"


@pytest.fixture(scope="module")
def results() -> Results:
    generator = np.random.default_rng(0)
    masks = (generator.random((9, 10, 10)) < 0.4).astype(np.uint8)
    masks[0] = 0
    probabilities = np.clip(generator.random(masks.shape) * 0.6 + masks * np.linspace(0, 0.4, 9)[:, None, None], 0, 1)
    counts = count(probabilities, masks)
    keys = np.array([f"task {place}" for place in range(9)])
    return Results(
        key=keys,
        image_key=keys,
        phrase=keys,
        group=keys,
        height=np.full(9, 10),
        width=np.full(9, 10),
        counts=counts,
        official_intersection=counts.tp[:, 14],
        official_union=counts.positives + counts.fp[:, 14],
        threshold=0.3,
        seconds=1.5,
        provenance={"experiment": "phrasecut_pc", "benchmark": "phrasecut", "split": EVIL, "config": {"key": EVIL}},
    )


def strip() -> bytes:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    truth = np.zeros((40, 60), dtype=np.uint8)
    truth[10:20] = 1
    return panel(image, truth, truth.astype(np.float32), threshold=0.5)


def test_paper_rows_are_found_by_experiment_and_benchmark() -> None:
    assert paper_values("phrasecut_pc", "phrasecut") == {"miou": 46.1, "iou_fg": 56.2, "ap": 78.2, "threshold": 0.3}
    both_tables = {"miou": 43.4, "miou_best": 43.6, "iou_fg": 54.7, "ap": 76.7, "threshold": 0.3}
    assert paper_values("phrasecut_pc_plus", "phrasecut") == both_tables
    assert paper_values("pascal5i_fold2_deconv", "pascal5i_text") == {
        "miou": 63.2,
        "iou_bin": 77.3,
        "ap": 85.3,
        "threshold": 0.3,
    }
    assert paper_values("ablation_no_pretraining", "phrasecut_visual") == {"miou_best": 12.7}
    printed = {"miou_seen_as_scored": 6.0, "miou_unseen_as_scored": 24.8}
    assert paper_values("zeroshot_unseen4_vitseg", "pascal_zeroshot") == printed
    assert paper_values("mini", "phrasecut") is None
    assert paper_values("None", "None") is None
    assert len({(row.table, row.label, row.benchmark, row.experiment) for row in ROWS}) == len(ROWS) == 52


def test_the_papers_figures_of_photos_do_not_stand_beside_those_of_drawings() -> None:
    origin = {"experiment": "phrasecut_pc", "benchmark": "phrasecut", "config": {"data": {"root": "photos"}}}
    assert paper_beside(origin) == paper_values("phrasecut_pc", "phrasecut")
    assert paper_beside(origin | {"config": {"data": {"root": "mini"}}}) is None
    assert paper_beside({}) is None


def test_table_sets_both_definitions_beside_the_paper(results: Results) -> None:
    metrics = results.metrics()
    lines = format_table(metrics, paper_values("phrasecut_pc", "phrasecut")).splitlines()
    assert lines[0].split() == ["percent", "plain", "released", "paper"]
    ours = [f"{100 * metrics[name]:.1f}" for name in ("miou", "released/miou")]
    assert lines[2].split() == ["mIoU", "at", "0.30", *ours, "46.1"]
    assert any(line.split()[0] == "Pr@0.9" for line in lines)
    elsewhere = format_table(results.metrics(0.5), paper_values("phrasecut_pc", "phrasecut"))
    assert "46.1 at 0.30" in elsewhere
    assert "Pr@" not in elsewhere
    assert "paper" not in format_table(metrics)


def test_figures_are_deterministic_svg_without_a_date(results: Results) -> None:
    over_thresholds = curves(results.counts, results.group)
    for draw in (iou_over_threshold, precision_over_recall):
        svg = draw(over_thresholds, threshold=0.3)
        assert svg == draw(over_thresholds, threshold=0.3)
        assert svg.startswith("<svg")
        assert svg.rstrip().endswith("</svg>")
        assert "dc:date" not in svg


def test_panel_is_a_strip_of_four_small_tiles() -> None:
    strip_image = Image.open(io.BytesIO(strip()))
    assert strip_image.format == "JPEG"
    assert strip_image.size == (4 * 60 + 3 * 4, 40)
    cut = np.asarray(strip_image)[:, -60:]
    assert (cut[25:] > 240).all()
    assert cut[12:18].mean() < 200
    wide = panel(
        np.zeros((10, 2000, 3), np.uint8), np.zeros((10, 2000), np.uint8), np.zeros((10, 2000), np.float32), threshold=0.5
    )
    assert Image.open(io.BytesIO(wide)).size == (4 * 224 + 3 * 4, 1)


def test_gallery_holds_the_extremes(results: Results) -> None:
    iou = dict(zip(results.key.tolist(), sample_iou(results.counts, 0.3), strict=True))
    picked = pick_gallery(results, 3, 0)
    ranked = sorted((key for key in iou if key != "task 0"), key=lambda key: iou[key])
    assert picked["worst"] == ranked[:3]
    assert picked["best"] == ranked[:-4:-1]
    assert picked == pick_gallery(results, 3, 0)
    assert len(set(picked["random"])) == 3
    assert picked["random"] != pick_gallery(results, 3, 1)["random"]
    everything = pick_gallery(results, 100, 0)
    assert sorted(everything["random"]) == sorted(iou)
    assert "task 0" not in everything["best"] + everything["worst"]


def test_galleries_and_failures_are_chosen_at_a_phrase_s_own_threshold(results: Results) -> None:
    own = {f"task {place}": {"threshold": 0.1 + 0.1 * place, "temperature": 1.0} for place in range(1, 8)}
    calibrated = replace(results, provenance=dict(results.provenance) | {"calibration": own})
    cuts = [own.get(phrase, {"threshold": results.threshold})["threshold"] for phrase in results.phrase.tolist()]
    iou = {
        key: sample_iou(results.counts, round(cut, 2))[row]
        for row, (key, cut) in enumerate(zip(results.key, cuts, strict=True))
    }
    ranked = sorted((key for key in iou if key != "task 0"), key=lambda key: iou[key])
    assert pick_gallery(calibrated, 3, 0)["worst"] == ranked[:3] != pick_gallery(results, 3, 0)["worst"]
    failed = {str(calibrated.key[row]) for rows in failures(calibrated).values() for row in rows}
    assert failed == {key for key, value in iou.items() if value < 0.5}
    # Whoever wrote something else there has no thresholds of their own.
    other = replace(results, provenance=dict(results.provenance) | {"calibration": True})
    assert other.metrics() == results.metrics()
    assert pick_gallery(other, 3, 0) == pick_gallery(results, 3, 0)


class PageReader(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_self_contained_and_escapes_what_others_wrote(results: Results, tmp_path: Path) -> None:
    gallery = {"best": [GalleryItem(EVIL, EVIL, 0.5, strip())], "worst": []}
    page = PageReader()
    path = write_report(tmp_path, results, gallery=gallery)
    html = path.read_text(encoding="utf-8")
    page.feed(html)
    assert path == tmp_path / "report.html"
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.tags.count("svg") == 4
    assert "worst samples" not in page.text
    assert "best samples" in page.text
    assert "<script>alert('1')</script> & \"tall\"" in page.text
    assert page.addresses
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "46.1" in page.text
    assert "IoU 50.0" in page.text


def test_page_shows_what_there_is_and_escapes_phrases_in_every_part(results: Results, tmp_path: Path) -> None:
    nothing, test = NotTestable(f"both samples are constant ({EVIL})"), replace(paired_t([1, 2, 3], [2, 3, 5]), p_value=1e-9)
    tests = IntensityColumns.of([(IntensityTests(inside=test, across=nothing),) * 2] * len(results))
    full = replace(
        results,
        phrase=np.array([EVIL] * len(results)),
        subsets={"c20": np.arange(9) < 4, EVIL: np.arange(9) < 2},
        intensity=tests,
        provenance={**results.provenance, "missing_subsets": {EVIL: ["t_stuff", EVIL]}},
    )
    gallery = {"missed": [GalleryItem(EVIL, EVIL, 0.0, strip())], "random": [GalleryItem("k", "p", 0.5, strip())]}
    html = write_report(tmp_path, full, gallery=gallery).read_text(encoding="utf-8")
    page = PageReader()
    page.feed(html)
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    evil = "<script>alert('1')</script>"
    for part in ("IoU over phrases", "Subsets", "How often H0 is rejected", "Failures by kind", "Reliability"):
        assert part in page.text
    # A class, a subset, two names that are missing and what they need, a phrase and a key.
    assert page.text.count(evil) >= 7
    assert "They need" in page.text
    assert "100.0%" in page.text
    # Nothing that others wrote is drawn: what a figure holds is ours.
    assert not any("alert" in svg for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert html.index("Failures by kind") < html.index("missed</h3>") < html.index("random samples</h2>")


def test_page_without_paper_gallery_or_provenance(results: Results, tmp_path: Path) -> None:
    html = write_report(tmp_path, replace(results, provenance={}), gallery={}).read_text(encoding="utf-8")
    assert "<th>paper</th>" not in html
    assert "<img" not in html
    assert "Evaluation" in html
    assert "Subsets" not in html
    assert "How often H0" not in html
    assert "Prompt forms" not in html


def test_the_same_results_give_the_same_page(results: Results, tmp_path: Path) -> None:
    pages = [write_report(tmp_path / name, results, gallery={}).read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]
