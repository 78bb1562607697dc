"""Every reader on files that were damaged at random: what it reads, or our one error of one line; never another exception.

Fuzzing of single readers stands in their own tests too (images, masks, PhraseCut's and COCO's annotations, authors' weights);
here are whole data sets, whole models, runs, results and configs.
"""

import contextlib
import copy
import io
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_data import photo, write_coco, write_lvis, write_voc
from made_results import made_results
from omegaconf import OmegaConf
from PIL import Image
from places import CONFIGS
from reference import narrow_config, save_reference
from safetensors.torch import save_file

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.readers import coco, pascal
from clipseg.data.readers.coco import coco20i_training
from clipseg.data.readers.coco_labels import coco_labels
from clipseg.data.readers.episodes import read_episodes
from clipseg.data.readers.folder import FolderData
from clipseg.data.readers.lvis import lvis_names
from clipseg.data.readers.pascal import PascalSplit, PascalZeroShot, pascal5i
from clipseg.data.upkeep.check import check_data
from clipseg.entry import launch
from clipseg.errors import ClipSegError
from clipseg.measure.results import Results
from clipseg.measure.tables import format_table
from clipseg.network.clip_weights import find_weights
from clipseg.network.config import ModelConfig
from clipseg.network.mini_clip import MINI_CLIP_PATH, load_mini_clip
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load
from clipseg.run.checkpoint import as_plain, find_resume, save_checkpoint
from clipseg.run.settings import TrainConfig, evaluate_schema
from clipseg.studies.visual_prompts.numbers import PromptDeltas, format_deltas
from clipseg.studies.visual_prompts.objects import PhraseCutObjects

pytestmark = pytest.mark.slow


def fuzzed(examples: int) -> Callable[..., Any]:
    """The settings of all tests here: the same examples each time, files written anew for each."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def attempt(read: Callable[[], Any]) -> Any:
    """Return what is read, or None where that ends in our error, which must be of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except ClipSegError as error:
            assert "\n" not in str(error), error  # noqa: PT017 (either outcome is right)
    return None


KEYS = ["id", "image_id", "category_id", "segmentation", "size", "counts", "name", "phrase", "Polygons", "type", "query", "x"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 10**30, 5, 33, "val", "cat", "", "\ud800", "../x", float("nan"), float("inf")])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> str:
    """A JSON document some of whose nodes are another value, gone or there twice; its text is perhaps cut off."""
    content = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        parent, key, node = None, None, content
        while isinstance(node, (dict, list)) and node and (parent is None or draw(st.integers(0, 3))):
            parent, key = node, draw(st.sampled_from(sorted(node)) if isinstance(node, dict) else st.integers(0, len(node) - 1))
            node = parent[key]
        if parent is None:
            content = draw(VALUES)
            break
        how = draw(st.sampled_from(["other", "other", "gone", "twice"]))
        if how == "gone":
            del parent[key]
        elif how == "twice" and isinstance(parent, list):
            parent.append(copy.deepcopy(node))
        else:
            parent[key] = draw(VALUES)
    text = json.dumps(content)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


@st.composite
def bent(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file some of whose bytes are others, mostly near its ends, where headers and directories lie; perhaps cut off."""
    last = len(whole) - 1
    places = st.integers(0, last) | st.integers(0, min(last, 600)) | st.integers(max(0, last - 600), last)
    content = bytearray(whole)
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        content[place] = value
    return bytes(content[: draw(places)]) if draw(st.integers(0, 3)) == 0 else bytes(content)


# Data sets: a description of a small one, what is damaged in it, and how it is read to its last mask

BOX = [[2.0, 2.0, 20.0, 2.0, 20.0, 15.0]]
CAR = ("car", [[22.0, 2.0, 30.0, 2.0, 30.0, 15.0]])
CROWD = ("car", {"size": [24, 32], "counts": [30, 8, 730]})
OBJECTS = {5: [("person", BOX), CAR, CROWD], 9: [("person", BOX), CAR]}
PHRASES = [
    {
        "task_id": f"{image_id}__{number}",
        "image_id": image_id,
        "phrase": f"{name} thing",
        "Polygons": [[[[2, 2], [20, 2], [20, 15]]]],
        "phrase_structure": {"name": name, "type": "name"},
    }
    for image_id in (1, 2)
    for number, name in enumerate(("red", "green", "blue"))
]


def phrasecut(root: Path) -> Path:
    write_coco(root, OBJECTS)
    (root / "images").mkdir()
    for number, path in enumerate(sorted((root / "val2014").iterdir()), start=1):
        path.rename(root / "images" / f"{number}.jpg")
    shutil.rmtree(root / "annotations")
    images = [{"image_id": number, "width": 32, "height": 24, "url": "", "split": "val"} for number in (1, 2)]
    (root / "image_data_split.json").write_text(json.dumps(images))
    (root / "refer_val.json").write_text(json.dumps(PHRASES))
    return root / "refer_val.json"


def read_phrasecut(root: Path) -> list[Any]:
    data = PhraseCut(root, split="val")
    objects = attempt(lambda: PhraseCutObjects(data))
    return [*(data[item] for item in range(len(data))), *(objects[item] for item in range(len(objects or ())))]


def voc(root: Path) -> Path:
    write_voc(root, {"2007_000033": {"cat": (2, 2, 9, 9)}, "2007_000061": {"cat": (2, 2, 9, 9), "dog": (10, 9, 15, 15)}})
    episode = {"query": "2007_000033", "name": "cat", "support": "2007_000061"}
    content = {"benchmark": "pascal5i", "split": "val", "fold": 1, "episodes": [episode]}
    (root / "episodes.json").write_text(json.dumps(content))
    return root / "episodes.json"


def folder(root: Path) -> Path:
    phrasecut(root)
    lines = [{"image": f"images/{n}.jpg", "phrase": "a thing", "polygons": [[[2, 2], [20, 2], [20, 15]]]} for n in (1, 2)]
    (root / "train.jsonl").write_text(json.dumps(lines[0]))
    return root / "train.jsonl"


def own_coco(root: Path) -> Path:
    path = write_coco(root, OBJECTS).replace(root / "mine.json")
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = []
    path.write_text(json.dumps(content))
    (root / "val2014").rename(root / "images")
    shutil.rmtree(root / "annotations")
    return path


def read_all(data: Any) -> list[Any]:
    return [data[item] for item in range(len(data))]


def people(root: Path) -> list[Any]:
    source = coco_labels(root, "val2014")
    shown = [(n, image_id) for n, images in source.images_by_class(("person", "car"), 1).items() for image_id in images]
    return [(source.read_masks(image_id, [name]), source.read_image(image_id)) for name, image_id in shown]


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    """Photos here are smaller than what few-shot benchmarks list in earnest."""
    for reader in (coco, pascal):
        monkeypatch.setattr(reader, "LEAST_PIXELS", 1)


DATA_SETS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "phrasecut": (phrasecut, read_phrasecut),
    "phrasecut images": (lambda root: phrasecut(root).with_name("image_data_split.json"), read_phrasecut),
    "coco": (lambda root: write_coco(root, OBJECTS), people),
    "coco training": (
        lambda root: write_coco(root, OBJECTS),
        lambda root: read_all(
            coco20i_training(root, ReaderOptions(training=True, visual_support=True, negatives=0.5), split="val2014", fold=1)
        ),
    ),
    "lvis": (
        lambda root: write_lvis(root, {2: [("horse", BOX), ("zebra", BOX)], 3: [("horse", BOX)]}),
        lambda root: read_all(lvis_names(root)),
    ),
    "episodes": (voc, lambda root: read_all(pascal5i(root, fold=1, visual_support=True, episodes=root / "episodes.json"))),
    "folder": (folder, lambda root: read_all(FolderData(root))),
    "own COCO JSON": (own_coco, lambda root: read_all(FolderData(root, split="mine"))),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_with_damaged_annotations(tmp_path: Path, name: str) -> None:
    make, read = DATA_SETS[name]
    path = make(tmp_path)
    assert read(tmp_path)

    @fuzzed(30)
    @given(text=damaged(json.loads(path.read_text())))
    def check(text: str) -> None:
        path.write_text(text)
        attempt(lambda: read(tmp_path))
        attempt(lambda: check_data(tmp_path, decode=True).lines())

    check()


def test_annotations_nested_nearly_too_deep(tmp_path: Path) -> None:
    """Nesting that the parser of JSON just takes may be too deep for whatever comes after it."""
    path = write_coco(tmp_path, OBJECTS)
    whole = path.read_text()
    for depth in (5, 200, *range(900, 1001, 10), 3000):
        path.write_text(whole.replace(json.dumps(BOX), "[" * depth + "]" * depth))
        attempt(lambda: people(tmp_path))
        path.write_text(whole.replace('"person"', "[" * depth + "]" * depth))
        attempt(lambda: people(tmp_path))
        path.write_text(whole.replace('"COCO_val2014_000000000005.jpg"', "[" * depth + "]" * depth))
        attempt(lambda: people(tmp_path))


def test_voc_with_damaged_lists_and_label_maps(tmp_path: Path) -> None:
    voc(tmp_path)
    base = tmp_path / "VOCdevkit" / "VOC2012"
    files = [
        base / "ImageSets" / "Segmentation" / "val.txt",
        base / "SegmentationClass" / "2007_000061.png",
        base / "JPEGImages" / "2007_000061.jpg",
    ]
    whole = {path: path.read_bytes() for path in files}

    @fuzzed(40)
    @given(data=st.data(), path=st.sampled_from(files))
    def check(data: st.DataObject, path: Path) -> None:
        path.write_bytes(data.draw(bent(whole[path])))
        attempt(lambda: read_all(PascalZeroShot(tmp_path)))
        attempt(lambda: read_all(pascal5i(tmp_path, fold=1, visual_support=True)))
        attempt(lambda: check_data(tmp_path, decode=True).lines())
        path.write_bytes(whole[path])

    check()


def test_masks_of_a_folder(tmp_path: Path) -> None:
    folder(tmp_path)
    masks = {}
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        content = io.BytesIO()
        Image.new("L", (32, 24), 255).save(content, kind)
        masks[kind] = content.getvalue()
    (tmp_path / "train.jsonl").write_text(json.dumps({"image": "images/1.jpg", "mask": "mask", "phrase": "x"}))

    @fuzzed(40)
    @given(data=st.data(), kind=st.sampled_from(sorted(masks)))
    def check(data: st.DataObject, kind: str) -> None:
        (tmp_path / "mask").write_bytes(data.draw(bent(masks[kind])))
        attempt(lambda: read_all(FolderData(tmp_path)))

    check()


TEXTS = ("phrases.yaml", "names.txt")


@pytest.mark.parametrize("maps", [True, False])
def test_labels_that_are_pictures(tmp_path: Path, maps: bool) -> None:
    """Label maps with their names, or masks, with phrases: bytes and text of any file are others."""
    photo(tmp_path / "images" / "a.jpg")
    labels, phrases, names = tmp_path / "labels" / ("a.png" if maps else "a__cat.png"), *map(tmp_path.joinpath, TEXTS)
    labels.parent.mkdir()
    values = np.arange(768, dtype=np.uint8).reshape(24, 32) // 100
    Image.fromarray(values if maps else values > 1).save(labels)
    phrases.write_text("cat: [a cat, cats]\ndog: a dog\nx: x\n")
    if maps:
        names.write_text("1 cat\n2: dog\n3 x\n")
    whole = {path: path.read_bytes() for path in (labels, phrases, names)[: 2 + maps]}
    assert read_all(FolderData(tmp_path, split="all"))

    @fuzzed(60)
    @given(data=st.data(), path=st.sampled_from(list(whole)))
    def check(data: st.DataObject, path: Path) -> None:
        text = st.text(max_size=20).map(str.encode)
        path.write_bytes(data.draw(bent(whole[path]) if path == labels else bent(whole[path]) | text))
        attempt(lambda: read_all(FolderData(tmp_path, split="all")))
        attempt(lambda: check_data(tmp_path, decode=True).lines())
        path.write_bytes(whole[path])

    check()


def test_episodes_of_any_content(tmp_path: Path) -> None:
    voc(tmp_path)
    source = PascalSplit(tmp_path, "val")
    about = {"benchmark": "pascal5i"}
    path = tmp_path / "episodes.json"

    @fuzzed(25)
    @given(
        value=VALUES, entries=st.lists(st.fixed_dictionaries({"query": VALUES, "name": VALUES, "support": VALUES}), max_size=2)
    )
    def check(value: Any, entries: list[Any]) -> None:
        for content in (value, about | {"episodes": value}, about | {"episodes": entries}):
            path.write_text(json.dumps(content))
            attempt(lambda: read_episodes(path, source, ["cat", "dog"], about))

    check()


# Models: a checkpoint of train.py, the bundled CLIP, a folder in transformers' layout


def checkpoint_state(model: CLIPSeg) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.decoder.parameters())
    return {
        "model": model.decoder.state_dict(),
        "model_config": as_plain(model.config),
        "backbone_checksum": model.backbone.checksum(),
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "step": 2,
        "best": 0.5,
    }


@pytest.fixture
def one_backbone(monkeypatch: pytest.MonkeyPatch, tiny_model: CLIPSeg) -> None:
    """Building the bundled CLIP anew takes most of the time, and is not what is tested."""
    from clipseg.network import model, weights

    for module in (model, weights):
        if hasattr(module, "build_backbone"):
            build = module.build_backbone
            same = lambda config, build=build: tiny_model.backbone if config.backbone == "mini" else build(config)  # noqa: E731
            monkeypatch.setattr(module, "build_backbone", same)


def assert_usable(model: CLIPSeg | None) -> None:
    if model is not None:
        assert all(torch.isfinite(parameter).all() for parameter in model.decoder.parameters())
        side = model.config.image_size
        if side <= 64:
            logits = model.decode(model.activations(torch.zeros(1, 3, side, side)), torch.zeros(1, 128))
            assert logits.shape == (1, side, side)


def test_checkpoints_with_damaged_bytes(tmp_path: Path, tiny_model: CLIPSeg, one_backbone: None) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, checkpoint_state(tiny_model))
    whole = path.read_bytes()
    assert_usable(load(path))

    @fuzzed(25)
    @given(content=bent(whole))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        attempt(lambda: load(tmp_path))
        attempt(lambda: find_resume("auto", tmp_path))

    check()


TENSORS = st.sampled_from(
    [torch.zeros(0), torch.zeros(3, dtype=torch.int64), torch.full((8,), float("nan")), torch.zeros(8, 8)]
)
SETTINGS = sorted(field.name for field in fields(ModelConfig))


def test_checkpoints_with_other_values(tmp_path: Path, tiny_model: CLIPSeg, one_backbone: None) -> None:
    path = tmp_path / "last.pt"
    state = checkpoint_state(tiny_model)
    odd = st.sampled_from(
        [64, 0, -16, 2**40, 1.5, "mini", "RN50", "transformers", [1, 2], [0.5], [2, 1], [10**9], [], True, None]
    )

    @fuzzed(30)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        content = copy.copy(state)
        for _ in range(data.draw(st.integers(1, 2))):
            part = data.draw(st.sampled_from(["setting", "setting", "tensor", "entry"]))
            if part == "setting" and isinstance(content["model_config"], dict):
                content["model_config"] = content["model_config"] | {data.draw(st.sampled_from(SETTINGS)): data.draw(odd)}
            elif part == "tensor" and isinstance(content["model"], dict):
                name = data.draw(st.sampled_from(sorted(state["model"])))
                content["model"] = content["model"] | {name: data.draw(TENSORS | odd)}
            else:
                content[data.draw(st.sampled_from(["format", "version", *sorted(state)]))] = data.draw(odd)
        torch.save({"format": "clipseg-checkpoint", "version": 1} | content, path)
        assert_usable(attempt(lambda: load(path)))

    check()


def test_the_embedded_clip_with_damaged_bytes(tmp_path: Path) -> None:
    whole = MINI_CLIP_PATH.read_bytes()
    path = tmp_path / "clip.safetensors"

    @fuzzed(4)
    @given(edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=3))
    def check(edits: list[tuple[int, int]]) -> None:
        content = bytearray(whole)
        for place, value in edits:
            content[place] = value
        path.write_bytes(content)
        attempt(lambda: load_mini_clip(path))

    check()


def test_a_folder_of_transformers_with_a_damaged_config(tmp_path: Path) -> None:
    save_reference(narrow_config(reduce_dim=8, extract_layers=[1, 2]), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 64, "width": 64}}))
    files = [tmp_path / "config.json", tmp_path / "preprocessor_config.json"]
    whole = {path: path.read_text() for path in files}
    used = ("model_type", "projection_dim", "extract_layers", "reduce_dim", "vision_config", "text_config", "size")
    parsed = {path: {key: value for key, value in json.loads(text).items() if key in used} for path, text in whole.items()}
    for section in ("vision_config", "text_config"):
        parsed[files[0]][section] = {
            key: value
            for key, value in parsed[files[0]][section].items()
            if key.endswith(("size", "layers", "heads", "act", "eps", "embeddings", "channels"))
        }
    files[0].write_text(json.dumps(parsed[files[0]]))
    assert isinstance(load(tmp_path), CLIPSeg)

    @fuzzed(15)
    @given(data=st.data(), path=st.sampled_from(files))
    def check(data: st.DataObject, path: Path) -> None:
        path.write_text(data.draw(damaged(parsed[path])))
        attempt(lambda: load(tmp_path))
        path.write_text(json.dumps(parsed[path]))

    check()


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "open_clip_config.json", "config.json"])
def test_other_json_beside_weights(tmp_path: Path, name: str) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    whole: dict[str, Any] = {
        "model.safetensors.index.json": {"metadata": {}, "weight_map": {"a": "a.safetensors"}},
        "open_clip_config.json": {"model_cfg": {"quick_gelu": True}},
        "config.json": {"format": "clipseg-release", "version": 1, "model_config": {"extract_layers": [1]}},
    }
    if name.startswith("model."):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clipseg"}))

    @fuzzed(20)
    @given(text=damaged(whole[name]))
    def check(text: str) -> None:
        (tmp_path / name).write_text(text)
        attempt(lambda: load(tmp_path))
        attempt(lambda: find_weights("ViT-B-16", tmp_path / "a.safetensors"))

    check()


# Results

ARRAYS = st.sampled_from(
    [
        np.array(3),
        np.array("{}"),
        np.array("[" * 5000),
        np.array("[1]"),
        np.array(np.nan),
        np.array([], dtype=np.int32),
        np.zeros((4, 49), np.int32),
        np.full((4, 49), -1),
        np.full(4, 2**62),
        np.full(4, np.nan),
        np.full(4, 1 + 2j),
        np.array(["a", "b", "c", "d"]),
        np.array(["a", "a", "c", "d"]),
        np.frombuffer(b"\xff\xff\x11\x00" * 4, dtype="<U1"),
        np.array([b"a"] * 4),
        np.zeros(4, dtype="M8[s]"),
        np.zeros(4, dtype=[("a", "i4")]),
        np.zeros((4, 1)),
    ]
)


def deltas() -> PromptDeltas:
    names = np.array(["a", "b", "c", "d"])
    return PromptDeltas(
        key=names,
        image_key=names,
        name=names,
        choices=np.full(4, 3),
        original=np.linspace(0.1, 0.4, 4),
        variants=("crop",),
        engineered=np.linspace(0.2, 0.9, 4)[:, None],
        seconds=1.0,
        provenance={"split": "val"},
    )


def use(results: Results | PromptDeltas) -> None:
    figures = results.metrics()
    assert np.isfinite(list(figures.values())).all()
    json.dumps([dict(results.provenance), figures], allow_nan=True)
    assert format_table(figures) if isinstance(results, Results) else format_deltas(results)


@pytest.mark.parametrize("kind", [Results, PromptDeltas])
def test_results_with_other_arrays(tmp_path: Path, kind: Any) -> None:
    (made_results(images=2) if kind is Results else deltas()).save(tmp_path)
    path = next(tmp_path.glob("*.npz"))
    whole = dict(np.load(path))

    @fuzzed(50)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        content = dict(whole)
        for name in data.draw(st.lists(st.sampled_from(sorted(whole)), min_size=1, max_size=2)):
            content[name] = data.draw(ARRAYS)
        if data.draw(st.integers(0, 5)) == 0:
            content.pop(data.draw(st.sampled_from(sorted(whole))))
        np.savez(path, **content)
        with contextlib.suppress(ClipSegError), warnings.catch_warnings():
            warnings.simplefilter("error")
            use(kind.load(path))

    check()


def test_studies_of_visual_prompts_with_damaged_bytes(tmp_path: Path) -> None:
    deltas().save(tmp_path)
    path = tmp_path / "prompt_deltas.npz"

    @fuzzed(50)
    @given(content=bent(path.read_bytes()))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        results = attempt(lambda: PromptDeltas.load(path))
        if results is not None:
            use(results)

    check()


# Configs

SCHEMAS = {"train": TrainConfig, "evaluate": evaluate_schema()}
SOME = ["null", "0", "-1", "1", "3.5", "1e400", "nan", "true", "x", "''", "[]", "[0,1]", "[1,0]", "{a:1}", "???", "9999999999"]
SOME += [
    "${seed}",
    "${nothing}",
    "${oc.env:NOTHING}",
    "${",
    "[",
    "mini",
    "phrasecut",
    "auto",
    "pascal5i_fold1",
    "pascal5i_text",
    "val",
]


def keys_of(schema: type) -> list[str]:
    """Every key of a schema, as the command line names it."""
    return list(flat(OmegaConf.to_container(OmegaConf.structured(schema))))


def flat(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("name", SCHEMAS)
def test_configs_of_any_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Settings that have checked themselves, or one line and status 2."""
    schema = SCHEMAS[name]
    monkeypatch.chdir(tmp_path)
    base = ["checkpoint=x"] if name == "evaluate" else []
    entries = st.tuples(st.sampled_from(keys_of(schema)), st.sampled_from(SOME))

    @fuzzed(20)
    @given(st.lists(entries, min_size=1, max_size=3, unique_by=lambda entry: entry[0]))
    def check(entries: list[tuple[str, str]]) -> None:
        overrides = [*base, *(f"{key}={value}" for key, value in entries)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *dict.fromkeys(overrides)])
        reached: list[Any] = []
        status = launch(reached.append, schema, configs=CONFIGS, name=name)
        err = capsys.readouterr().err
        assert (status, err.count("\n")) == ((0, 0) if reached else (2, 1)), err
        assert all(isinstance(settings_read, schema) for settings_read in reached)

    check()
