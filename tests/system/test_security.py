"""Files of strangers do no harm: nothing they bring along is run, nothing outside their folder is read or written, no few bytes
fill the memory, no phrase or name becomes part of a page's code.
"""

import ast
import contextlib
import json
import os
import pickle
import socketserver
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_data import SIZE, change, photo, write_coco, write_lvis, write_voc
from made_results import made_results
from PIL import Image
from places import ROOT

from clipseg.data.classes import PASCAL_CLASSES
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.readers import pascal
from clipseg.data.readers.coco_labels import CocoLabels, coco_labels
from clipseg.data.readers.folder import FolderData
from clipseg.data.readers.lvis import lvis_prompts
from clipseg.data.readers.pascal import PascalSplit, pascal5i
from clipseg.data.upkeep.fetch import FetchError, PhotoFetcher
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image
from clipseg.measure.figures import panel
from clipseg.measure.intensity import intensity_tests
from clipseg.measure.report import GalleryItem, write_report
from clipseg.measure.results import Results
from clipseg.network.clip_weights import load_backbone
from clipseg.network.vit_tower import load_image_tower
from clipseg.network.weights import load
from clipseg.paper.formats import write_tables
from clipseg.paper.tables import paper_tables
from clipseg.prompts.support import VisualPrompt
from clipseg.run.checkpoint import find_resume, read_checkpoint
from clipseg.run.evaluation import _write_prediction
from clipseg.studies.case_study.numbers import Case, CaseSettings, PhraseCase, write_case_page
from clipseg.studies.input_size.curves import SizeCurves
from clipseg.studies.visual_prompts.numbers import PromptDeltas
from clipseg.studies.visual_prompts.page import Picture, Sheet, write_prompt_report
from clipseg.studies.zero_shot.label_maps import LabelMaps
from clipseg.studies.zero_shot.results import MulticlassResults, write_multiclass_report

SOURCES = [*sorted((ROOT / "clipseg").rglob("*.py")), ROOT / "train.py", ROOT / "evaluate.py"]


def refused(call: Callable[[], Any], match: str = ".") -> None:
    """The call ends in our one error, of one line."""
    with pytest.raises(ClipSegError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


# Nothing is run that a file brings along


def calls_of(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each call's name as written ("torch.load"), its constant keywords, and where it is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            constants = [word for word in node.keywords if isinstance(word.value, ast.Constant)]
            keywords = {str(word.arg): ast.literal_eval(word.value) for word in constants}
            yield ast.unparse(node.func), keywords, f"{path}:{node.lineno}"


REQUIRED = {
    "torch.load": {"weights_only": True},
    "np.load": {"allow_pickle": False},
    "open_clip.load_checkpoint": {"weights_only": True},
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "torch.jit.load"}
FORBIDDEN_ENDINGS = ("unsafe_load", "full_load", "extract", "extractall", "unpack_archive", "Unpickler")
FORBIDDEN_MODULES = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "tarfile"}


def test_no_call_could_run_or_unpack_what_a_file_holds():
    for path in SOURCES:
        for name, keywords, where in calls_of(path):
            assert name not in FORBIDDEN_CALLS, f"{where}: {name}"
            assert not name.endswith(FORBIDDEN_ENDINGS), f"{where}: {name}"
            assert not name.startswith("pickle."), f"{where}: {name}"
            assert not keywords.get("shell"), f"{where}: a shell"
            assert REQUIRED.get(name, {}).items() <= keywords.items(), f"{where}: {name} without {REQUIRED[name]}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not FORBIDDEN_MODULES & {name.split(".")[0] for name in names}, f"{path}: {names}"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_is_unpickled(tmp_path):
    mark = tmp_path / "ran"
    bomb = Bomb(mark)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    archive, plain = run / "checkpoints" / "last.pt", tmp_path / "weights.pth"
    torch.save({"format": "clipseg-checkpoint", "version": 1, "model": bomb}, archive)
    plain.write_bytes(pickle.dumps(bomb))
    numbers = tmp_path / "samples.npz"
    np.savez(numbers, key=np.array([bomb], dtype=object))
    raw = tmp_path / "raw.npz"
    raw.write_bytes(pickle.dumps(bomb))
    for file in (archive, plain, run):
        refused(lambda file=file: load(file))
    for file in (archive, plain):
        refused(lambda file=file: read_checkpoint(file))
        refused(lambda file=file: find_resume(str(file), run))
        refused(lambda file=file: load_backbone("RN50", file))
        refused(lambda file=file: load_image_tower("vit_tiny_patch16_224", file))
    for file in (numbers, raw):
        refused(lambda file=file: Results.load(file))
        refused(lambda file=file: PromptDeltas.load(file))
    assert not mark.exists()
    with pytest.warns(UserWarning, match="looking for an older"):
        refused(lambda: find_resume("auto", run), "every checkpoint is damaged")
    assert not mark.exists()
    torch.load(archive, weights_only=False)  # the bomb is one
    assert mark.exists()


# Nothing outside the folder is read or written

OUTSIDE = ["../secret", "a/../../secret", "/etc/passwd", "..\\secret", "C:\\secret", "..", ".", "", "a\0b", "a/b"]


def edit_all(path: Path, field: str, value: Any) -> None:
    change(path, lambda entries: [entry.update({field: value}) for entry in entries])


def test_phrasecut_names_stay_inside(phrasecut_root):
    root = phrasecut_root(2, splits=("train",))
    for name in OUTSIDE:
        for file, field in (("refer_train", "task_id"), ("refer_train", "image_id"), ("image_data_split", "image_id")):
            path = root / f"{file}.json"
            before = path.read_text()
            edit_all(path, field, name)
            refused(lambda: PhraseCut(root), f"{field} is")
            path.write_text(before)


PERSON = "COCO_val2014_000000000005"


def people(root: Path) -> CocoLabels:
    return coco_labels(root, "val2014")


def test_coco_names_stay_inside(tmp_path):
    objects = [("person", [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]
    path = write_coco(tmp_path, {5: objects, 6: objects, 7: objects})
    photo(tmp_path.parent / "secret.jpg")
    for name in [*OUTSIDE, "../secret.jpg", "val2014/../../secret.jpg"]:
        before = path.read_text()
        change(path, lambda c, name=name: c["images"][0].update(file_name=name, coco_url=f"http://x/{name}"))
        refused(lambda: people(tmp_path), "names no photo")
        path.write_text(before)
    links_stay_inside(tmp_path, tmp_path / "val2014", lambda: people(tmp_path).read_image(PERSON))


def test_lvis_names_stay_inside(tmp_path):
    objects = [("horse", [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]
    path = write_lvis(tmp_path, {2: objects})
    for name in [*OUTSIDE, "../val2017/1.jpg/..", "val2017/../1.jpg"]:
        before = path.read_text()
        change(path, lambda c, name=name: c["images"][0].update(coco_url=f"http://x/{name}"))
        refused(lambda: lvis_prompts(tmp_path, kind="affordances"), "names no photo")
        path.write_text(before)
    links_stay_inside(tmp_path, tmp_path / "val2017", lambda: list(lvis_prompts(tmp_path, kind="affordances")))


def test_voc_names_stay_inside(tmp_path, monkeypatch):
    root = tmp_path / "root"
    write_voc(root, {"2007_000033": {"cat": (2, 2, 9, 9)}, "2007_000061": {"cat": (2, 2, 9, 9)}})
    voc = root / "VOCdevkit" / "VOC2012"
    names = voc / "ImageSets" / "Segmentation" / "val.txt"
    for name in ["../secret", "a/../../secret", "/etc/passwd", "..\\secret", "..", "a\0b", "a/b"]:
        names.write_text(f"{name}\n")
        refused(lambda: PascalSplit(root, "val"), "expected names such as")
    names.write_text("2007_000033\n2007_000061\n")
    monkeypatch.setattr(pascal, "LEAST_PIXELS", 1)
    everything = lambda: list(pascal5i(root, fold=1, visual_support=True))  # noqa: E731
    links_stay_inside(root, voc / "JPEGImages", everything)
    links_stay_inside(root, voc / "SegmentationClass", everything)


def links_stay_inside(root: Path, folder: Path, read: Callable[[], Any]) -> None:
    """A file of `folder`, and then the folder itself, become links: to another place inside, and to one outside."""
    assert read() is not None
    outside = root.parent / f"outside_{folder.name}"
    file = sorted(folder.iterdir())[0]
    file.rename(root / file.name)
    file.symlink_to(root / file.name)
    assert read() is not None
    file.unlink()
    outside.mkdir()
    (root / file.name).rename(outside / file.name)
    file.symlink_to(outside / file.name)
    refused(read, f"{file.name}: a symbolic link that leaves")
    file.unlink()
    (outside / file.name).rename(file)
    folder.rename(outside / "all")
    folder.symlink_to(outside / "all")
    refused(read, "a symbolic link that leaves")
    folder.unlink()
    (outside / "all").rename(folder)
    assert read() is not None


def test_paths_of_a_folder_stay_inside(tmp_path):
    root = tmp_path / "root"
    photo(root / "1.jpg")
    photo(tmp_path / "secret.jpg")
    Image.new("L", SIZE[::-1], 255).save(root / "1.png")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    good = {"image": "1.jpg", "mask": "1.png", "phrase": "x"}
    for field in ("image", "mask"):
        for name in [*OUTSIDE, "../secret.jpg", "link.jpg", str(tmp_path / "secret.jpg")]:
            (root / "train.jsonl").write_text(json.dumps(good | {field: name}))
            refused(lambda: FolderData(root), f"line 1: {field}")


def test_episodes_name_images_of_the_data_alone(tmp_path):
    write_voc(tmp_path, {f"2007_{n:06d}": {"cat": (2, 2, 9, 9)} for n in (33, 61)})
    good = {"query": "2007_000033", "name": "cat", "support": "2007_000061"}
    file = tmp_path / "episodes.json"
    for field in good:
        for name in OUTSIDE:
            about = {"benchmark": "pascal5i", "split": "val", "fold": 1}
            file.write_text(json.dumps(about | {"episodes": [good | {field: name}]}))
            refused(lambda: pascal5i(tmp_path, fold=1, visual_support=True, episodes=file), "draw new episodes")


def test_predictions_stay_in_their_folder(tmp_path):
    for name in OUTSIDE:
        with contextlib.suppress(ClipSegError):
            _write_prediction(tmp_path / "out", f"test/{name}", torch.zeros(2, 2))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["...png", "out"]  # ".." is a name once it has its ending


def test_shards_of_weights_stay_in_their_folder(tmp_path):
    (tmp_path / "secret.safetensors").write_bytes(b"")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clipseg"}))
    for name in [*OUTSIDE, "../secret.safetensors", str(tmp_path / "secret.safetensors")]:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        refused(lambda: load(folder), r"weight_map|no such weights file|not readable")


# Other people's text stays text

HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;</svg></pre><!-- {{ 7*7 }} {% raw %} $\\frac{"""


class Tags(HTMLParser):
    """The tags and attributes of a page, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(path: Path, shown: int = 1) -> None:
    """No script, no handler, nothing from elsewhere, and the hostile text is there to be read."""
    page = Tags(path.read_text(encoding="utf-8"))
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "base", "form"}, path
    assert not any(name.startswith("on") for name in page.attributes), path
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links), path
    assert " ".join(page.text.split()).count(" ".join(HOSTILE.split())) >= shown, path


def strip() -> bytes:
    return panel(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8), np.ones((4, 4), np.float32), threshold=0.3)


def provenance() -> dict[str, Any]:
    return {"experiment": HOSTILE, "benchmark": HOSTILE, "split": HOSTILE, "config": {"data": {"root": HOSTILE}}}


def test_the_report_of_an_evaluation_escapes(tmp_path):
    write_report(
        tmp_path,
        made_results(images=2, provenance=provenance()),
        gallery={HOSTILE: [GalleryItem(key=HOSTILE, phrase=HOSTILE, iou=0.5, jpeg=strip())]},
    )
    assert_harmless(tmp_path / "report.html", 5)


def test_the_page_of_a_case_study_escapes(tmp_path):
    tests = intensity_tests(np.zeros((4, 4)), np.ones((4, 4)), seed=0)
    phrase = PhraseCase(key=HOSTILE, phrase=HOSTILE, intersection=1, union=2, predicted=tests, truth=tests)
    case = Case(image_key=HOSTILE, split=HOSTILE, settings=CaseSettings(weights=HOSTILE), phrases=(phrase,))
    write_case_page(tmp_path / "case.html", case, [strip()])
    assert_harmless(tmp_path / "case.html", 4)


def test_tables_escape(tmp_path):
    write_tables(tmp_path, paper_tables({HOSTILE: made_results(images=2, provenance=provenance())}))
    assert_harmless(tmp_path / "tables.html")


def test_the_page_of_visual_prompts_escapes(tmp_path):
    results = PromptDeltas(
        key=np.array([HOSTILE, "b"]),
        image_key=np.array([HOSTILE, "b"]),
        name=np.array([HOSTILE, "b"]),
        choices=np.array([3, 3]),
        original=np.array([0.5, 0.4]),
        variants=(HOSTILE,),
        engineered=np.array([[0.6], [0.3]]),
        seconds=1.0,
        provenance=provenance(),
    )
    picture = Picture((HOSTILE,), np.zeros((8, 8, 3), np.uint8))
    write_prompt_report(tmp_path, results, sheets=[Sheet(HOSTILE, (HOSTILE,), [picture])])
    assert_harmless(tmp_path / "report.html", 5)


def test_the_page_of_zero_shot_segmentation_escapes(tmp_path):
    names = ("background", HOSTILE, *PASCAL_CLASSES[1:])
    matrix = np.ones((21, 21), dtype=np.int64)
    results = MulticlassResults(matrix=matrix, names=names, unseen=(HOSTILE,), images=1, seconds=1.0, provenance=provenance())
    shown = LabelMaps(key=HOSTILE, miou=0.5, jpeg=strip(), labels=(0, 1, 255))
    write_multiclass_report(tmp_path, results, gallery={HOSTILE: [shown]})
    assert_harmless(tmp_path / "report.html", 5)


def test_the_page_over_input_sizes_escapes(tmp_path):
    curves = SizeCurves(
        sizes=(32, 64),
        native=64,
        curves={"miou": (0.1, 0.2)},
        titles={"miou": HOSTILE},
        about=HOSTILE,
        samples=2,
        seconds=1.0,
        provenance=provenance(),
    )
    curves.write(tmp_path)
    assert_harmless(tmp_path / "report.html", 4)


def test_errors_do_not_steer_the_terminal(call, tmp_path):
    import evaluate

    folder = tmp_path / "weights\x1b]0;title\x07"
    folder.mkdir()
    status, _, err = call(evaluate, f"checkpoint='{folder}'", "out=x", "data.root=mini")
    assert status == 2
    assert "weights" in err
    assert all(letter.isprintable() for letter in err.rstrip("\n"))


# A few bytes do not fill the memory


def png(width: int, height: int, colour_type: int) -> bytes:
    """The head of a PNG of this size, and one row of nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head = chunk(b"IHDR", size + bytes([8, colour_type, 0, 0, 0]))
    palette = chunk(b"PLTE", bytes(768)) if colour_type == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    """The head of a JPEG of this size, up to the start of its scan, without which Pillow takes it for none."""
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    return b"\xff\xd8\xff\xc0" + (len(frame) + 2).to_bytes(2, "big") + frame + scan + b"\xff\xd9"


def gif(width: int, height: int) -> bytes:
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + b"\x00\x02\x00;"


def bmp(width: int, height: int) -> bytes:
    head = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    head += b"\x01\x00\x18\x00" + bytes(24)
    return b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + head


BOMBS = {
    "png": png(2**31 - 1, 2**31 - 1, 2),
    "palette": png(60_000, 60_000, 3),
    "jpeg": jpeg(65_500, 65_500),
    "gif": gif(65_535, 65_535),
    "bmp": bmp(60_000, 60_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_pictures_that_would_fill_the_memory_are_refused(tmp_path, kind):
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(BOMBS[kind])
    refused(lambda: read_image(path), "decompression bomb")
    refused(lambda: VisualPrompt(path, np.ones((4, 4), bool)), "decompression bomb")
    refused(lambda: VisualPrompt(np.ones((4, 4, 3), np.uint8), path), "decompression bomb")


def test_masks_that_would_fill_the_memory_are_refused(tmp_path):
    write_voc(tmp_path / "voc", {"2007_000033": {"cat": (2, 2, 9, 9)}})
    (tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000033.png").write_bytes(BOMBS["palette"])
    refused(lambda: PascalSplit(tmp_path / "voc", "val").read_labels("2007_000033"), "decompression bomb")
    root = tmp_path / "folder"
    photo(root / "1.jpg")
    (root / "1.png").write_bytes(BOMBS["palette"])
    (root / "train.jsonl").write_text(json.dumps({"image": "1.jpg", "mask": "1.png", "phrase": "x"}))
    refused(lambda: FolderData(root)[0], "decompression bomb")


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "1.jpg")
    refused(lambda: read_image(tmp_path / "1.jpg"), "no file")
    refused(lambda: read_image("/dev/zero"), "no file")


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[0.0, 0.0, 1e9, 0.0, 1e9, 1e9]], "far outside"),
        ([[0.0, 0.0, float("nan"), 0.0, 1.0, 1.0]], "far outside"),
        ([[-200.0, -200.0, 200.0, 200.0] * 100_000], "hundreds of times"),
        ({"size": [60_000, 60_000], "counts": [0, 3_600_000_000]}, r"an RLE of size \[60000, 60000\]"),
        ({"size": [24, 32], "counts": [2**62, 2**62]}, "sum to 768"),
        ({"size": [24, 32], "counts": "oooooo0" * 4}, "expected run lengths that sum to 768"),
    ],
)
def test_annotations_that_would_fill_the_memory_are_refused(tmp_path, segmentation, reason):
    path = write_coco(tmp_path, {5: [("person", [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]])]})
    change(path, lambda content: content["annotations"][0].update(segmentation=segmentation))
    refused(lambda: people(tmp_path).read_labels(PERSON), reason)
    change(path, lambda content: content["images"][0].update(height=2**40, width=2**40))
    refused(lambda: people(tmp_path), "height is 1099511627776")


def test_huge_polygons_of_phrasecut_are_drawn_in_no_time(phrasecut_root):
    root = phrasecut_root(1, splits=("train",))
    far = [[10**6, 10**6], [-(10**6), -(10**6)]] * 5000
    edit_all(root / "refer_train.json", "Polygons", [[far]])
    assert PhraseCut(root)[0].tasks[0].official.any()  # by pixel centres, edges passed twice cancel out
    edit_all(root / "refer_train.json", "Polygons", [[[[10**9, 0], [0, 10**9], [5, 5]]]])
    refused(lambda: PhraseCut(root), "expected finite pixel coordinates")


DEEP = "[" * 200_000 + "]" * 200_000


def test_json_that_is_nested_without_end_is_refused(tmp_path, phrasecut_root):
    root = phrasecut_root(1, splits=("train",))
    for file in ("image_data_split.json", "refer_train.json"):
        before = (root / file).read_text()
        (root / file).write_text(DEEP)
        refused(lambda: PhraseCut(root), "not valid JSON")
        (root / file).write_text(before)
    write_coco(tmp_path / "coco", {5: []}).write_text(DEEP)
    refused(lambda: people(tmp_path / "coco"), "not valid JSON")
    photo(tmp_path / "folder" / "1.jpg")
    (tmp_path / "folder" / "train.jsonl").write_text(DEEP)
    refused(lambda: FolderData(tmp_path / "folder"), "not valid JSON")
    write_voc(tmp_path / "voc", {f"2007_{n:06d}": {"cat": (2, 2, 9, 9)} for n in (33, 61)})
    (tmp_path / "episodes.json").write_text(DEEP)
    refused(
        lambda: pascal5i(tmp_path / "voc", fold=1, visual_support=True, episodes=tmp_path / "episodes.json"), "not valid JSON"
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(DEEP)
    refused(lambda: load(tmp_path / "model"), "not valid JSON")


def test_a_phrase_without_end_is_refused(tmp_path, phrasecut_root):
    root = phrasecut_root(1, splits=("train",))
    edit_all(root / "refer_train.json", "phrase", "x" * 10**6)
    refused(lambda: PhraseCut(root), "phrase is 'xxx.*expected text, of at most 1000 letters")
    photo(tmp_path / "folder" / "1.jpg")
    line = {"image": "1.jpg", "polygons": [[[1, 1], [5, 1], [5, 5]]], "phrase": "x" * 10**6}
    (tmp_path / "folder" / "train.jsonl").write_text(json.dumps(line))
    refused(lambda: FolderData(tmp_path / "folder"), "at most 1000 letters")


def test_results_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    made_results(images=3).save(tmp_path)
    unpacked = sum(member.file_size for member in zipfile.ZipFile(tmp_path / "samples.npz").infolist())
    monkeypatch.setattr("clipseg.files.LARGEST_BYTES", unpacked)
    assert len(Results.load(tmp_path)) == 6
    monkeypatch.setattr("clipseg.files.LARGEST_BYTES", unpacked - 1)
    refused(lambda: Results.load(tmp_path), f"decompression bomb: {unpacked:,} bytes when unpacked, over {unpacked - 1:,}")
    refused(lambda: PromptDeltas.load(tmp_path / "samples.npz"), "decompression bomb")


def test_weights_that_would_fill_the_memory_are_refused(tmp_path):
    whole, bomb = tmp_path / "whole.pt", tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(10**6)}, whole)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    for read in (load, read_checkpoint):
        refused(lambda read=read: read(bomb), "decompression bomb")
    torch.save({"film_mul.weight": torch.zeros(1).expand(2**20, 2**20)}, whole)  # claims 4 TiB
    refused(lambda: load(whole), "missing or misshapen")


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 16384, "num_attention_heads": 128, "num_hidden_layers": 200, "intermediate_size": 16384},
        {"image_size": 16384, "patch_size": 1},
    ],
)
def test_a_config_that_would_fill_the_memory_is_refused(tmp_path, sizes):
    config = {"model_type": "clipseg", "vision_config": sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"a": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    refused(lambda: load(tmp_path), "describes a CLIP of over")


# Downloads ask http(s) alone


def test_redirects_lead_to_http_alone():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.path[1:])
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        targets = ["file:///etc/passwd", "ftp://127.0.0.1/x.jpg", "data:image/png;base64,AAAA", "gopher://x", "///etc/passwd"]
        for target in targets:
            fetcher = PhotoFetcher(attempts=1, silence_seconds=2)
            with pytest.raises(FetchError, match=r"status [34]|no http"):
                fetcher.fetch(f"{base}/{target}", size=None)
        server.shutdown()
    for url in ("file:///etc/passwd", "ftp://x/y", "data:,x", "HTTP", "//host/x", "javascript:1", "\\\\host\\x"):
        with pytest.raises(FetchError, match=r"no http\(s\) address"):
            PhotoFetcher().fetch(url, size=None)
