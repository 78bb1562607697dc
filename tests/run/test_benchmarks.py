"""Every benchmark from the entry point on, on tiny data in the official formats, against a slow, obvious count of its score."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_data import SIZE, add_noise, box_mask, polygon, write_coco, write_folder, write_lvis, write_voc
from PIL import Image
from places import CONFIGS
from scipy.integrate import simpson

import clipseg
import evaluate
from clipseg.data.classes import LVIS_PROMPTS, PASCAL_CLASSES, coco20i_fold, unseen_classes
from clipseg.data.readers import coco, pascal
from clipseg.data.readers.pascal import PascalZeroShot
from clipseg.entry import launch
from clipseg.network.preprocess import MEAN, STD
from clipseg.run.benchmarks import BENCHMARKS, find
from clipseg.run.conditioning import embed_prompt_images
from clipseg.run.distributed import Processes
from clipseg.run.loading import IN_PROCESS
from clipseg.run.settings import PromptSettings, evaluate_schema
from clipseg.studies.zero_shot.run import ZeroShot

pytestmark = pytest.mark.slow

S = 64
THRESHOLD = 0.5
VARIANT = PromptSettings().visual_prompt


@pytest.fixture
def run(tiny_model, monkeypatch, tmp_path, capsys):
    """evaluate.py with arguments -> its figures, or the line it fails with; and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: tiny_model)

    def call(*arguments):
        common = ["checkpoint=run", "device=cpu", "out=out", "data.workers=0", f"threshold={THRESHOLD}", "overwrite=true"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *common, *arguments])
        status = launch(evaluate.evaluate, evaluate_schema(), configs=CONFIGS, name="evaluate")
        printed = capsys.readouterr()
        if status:
            assert (status, printed.err.count("\n")) == (2, 1), printed.err
            return printed.err, printed.out
        assert printed.err == ""
        assert "<html" in Path("out/report.html").read_text()
        return json.loads(Path("out/metrics.json").read_text()), printed.out

    return call


# The second implementation: one picture, one class, one pixel after the other.


def pixels_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB")).transpose(2, 0, 1)).float()[None] / 255


def prepared(pixels: torch.Tensor, resize: str) -> torch.Tensor:
    """[1, 3, H, W] in [0, 1] -> [1, 3, S, S] in [0, 1]; on a canvas a photo lies as it is, for it is smaller."""
    if resize == "canvas":
        canvas = torch.zeros(1, 3, S, S)
        canvas[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels
        return canvas
    if resize == "antialias":
        picture = Image.fromarray((255 * pixels[0]).round().byte().permute(1, 2, 0).numpy())
        return torch.from_numpy(np.array(picture.resize((S, S), Image.Resampling.BILINEAR)).transpose(2, 0, 1))[None] / 255
    return F.interpolate(pixels, (S, S), mode="bilinear", align_corners=True)


def prepared_mask(mask: np.ndarray, resize: str) -> np.ndarray:
    height, width = mask.shape if resize == "canvas" else (S, S)
    small = np.zeros((S, S), dtype=mask.dtype)
    for y in range(height):
        for x in range(width):
            small[y, x] = mask[y * mask.shape[0] // height, x * mask.shape[1] // width]
    return small


@torch.no_grad()
def answer(model, photo: Path, condition: torch.Tensor, resize: str = "squash") -> np.ndarray:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return model((prepared(pixels_of(photo), resize) - mean) / std, condition).sigmoid()[0].numpy()


@torch.no_grad()
def shown(model, photo: Path, mask: np.ndarray, resize: str) -> torch.Tensor:
    small = torch.from_numpy(prepared_mask(mask, resize))[None]
    return embed_prompt_images(model.backbone, prepared(pixels_of(photo), resize), small, VARIANT)


def slow_scores(tasks, resize: str) -> dict[str, float]:
    """tasks: (class, probability [S, S], truth [H, W], valid [H, W]) each."""
    at_size, at_own, precision, recall = defaultdict(list), defaultdict(list), [], []
    for name, probability, truth, valid in tasks:
        on_canvas = resize == "canvas"
        whole = (max(truth.shape),) * 2 if on_canvas else truth.shape
        own = F.interpolate(torch.from_numpy(probability)[None, None], whole, mode="bilinear", align_corners=on_canvas)[0, 0]
        own = own.numpy()[: truth.shape[0], : truth.shape[1]]
        at_own[name].append((own[valid > 0], truth[valid > 0] > 0))
        kept = prepared_mask(valid, resize) > 0
        counted = at_own[name][-1] if on_canvas else (probability[kept], prepared_mask(truth, resize)[kept] > 0)
        at_size[name].append(counted)

    def iou(pairs, threshold=THRESHOLD, background=False):
        yes = [((p <= np.float32(threshold)) if background else (p > np.float32(threshold)), t != background) for p, t in pairs]
        return sum((p & t).sum() for p, t in yes) / max(sum((p | t).sum() for p, t in yes), 1)

    everything = [pair for pairs in at_size.values() for pair in pairs]
    for step in range(1, 50):
        predicted = [(p > np.float32(step / 50), t) for p, t in everything]
        hits, found = sum((p & t).sum() for p, t in predicted), sum(p.sum() for p, _ in predicted)
        if found:
            precision.append(hits / found)
            recall.append(hits / sum(t.sum() for _, t in predicted))
    places = sorted({r: recall.index(r) for r in recall}.items())
    return {
        "miou": np.mean([iou(pairs) for pairs in at_size.values()]),
        "iou_fg": iou(everything),
        "iou_bin": (iou(everything) + iou(everything, background=True)) / 2,
        "ap": simpson([precision[i] for _, i in places], x=[r for r, _ in places]) if len(places) > 1 else 0.0,
        "miou_official": np.mean([iou(pairs) for pairs in at_own.values()]),
        "mean_iou_official": np.mean([iou([pair]) for pairs in at_own.values() for pair in pairs]),
    }


def check(figures, tasks, *, resize: str = "squash") -> None:
    answers = np.concatenate([probability.ravel() for _, probability, _, _ in tasks])
    assert 0.1 < (answers > THRESHOLD).mean() < 0.9, "the made model must say both yes and no"
    expected = slow_scores(tasks, resize)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=5e-4)
    assert figures["samples"] == len(tasks)


VOC = {
    "2007_000033": {"aeroplane": (2, 2, 9, 9), "bird": (12, 12, 20, 20)},
    "2007_000042": {"bird": (5, 5, 15, 15), "tv monitor": (18, 2, 23, 12)},
    "2007_000061": {"boat": (1, 1, 8, 8), "bottle": (10, 10, 22, 20)},
    "2007_000123": {"aeroplane": (4, 4, 20, 10), "bicycle": (3, 14, 9, 20)},
    "2008_000007": {"bicycle": (0, 0, 12, 24), "boat": (14, 2, 22, 20), "bottle": (1, 25, 10, 30)},
}


@pytest.fixture
def voc(tmp_path, monkeypatch):
    monkeypatch.setattr(pascal, "LEAST_PIXELS", 1)
    labels = write_voc(tmp_path / "voc", VOC)
    add_noise(tmp_path / "voc")
    folder = tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages"
    return labels, folder


def written_episodes(out: str = "out"):
    return json.loads(Path(out, "episodes.json").read_text())["episodes"]


@pytest.mark.parametrize("benchmark", ["pascal5i_one_shot", "pascal5i_text"])
def test_pascal5i(seeing_model, tiny_model, run, voc, monkeypatch, benchmark):
    labels, photos = voc
    by_example = benchmark == "pascal5i_one_shot"
    asked = seeing_model if by_example else tiny_model
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: asked)
    figures, printed = run(f"benchmark={benchmark}", "fold=0", "data.root=voc", "save_predictions=masks")
    episodes = written_episodes()
    assert [episode["query"] for episode in episodes] == list(VOC)
    tasks = []
    for episode in episodes:
        label = PASCAL_CLASSES.index(episode["name"]) + 1
        support = labels[episode["support"]] == label
        condition = (
            shown(asked, photos / f"{episode['support']}.jpg", support.astype(np.uint8), "canvas")
            if by_example
            else asked.encode_text([f"a photo of a {episode['name']}."])
        )
        query = labels[episode["query"]]
        probability = answer(asked, photos / f"{episode['query']}.jpg", condition, "canvas")
        tasks.append((episode["name"], probability, (query == label).astype(np.uint8), (query != 255).astype(np.uint8)))
        assert np.asarray(Image.open(f"masks/{episode['query']}__{episode['name']}.png")).shape == query.shape
    check(figures, tasks, resize="canvas")
    assert "mIoU, original size" in printed
    assert json.loads(Path("out/provenance.json").read_text())["labels"] == "SegmentationClass"
    assert "SegmentationClass" in Path("out/report.html").read_text()

    Path("out/episodes.json").rename("fixed.json")
    again, _ = run(f"benchmark={benchmark}", "fold=0", "data.root=voc", "episodes=fixed.json", "seed=9")
    figures.pop("seconds"), again.pop("seconds")
    assert again == figures, "written episodes repeat a score, whatever the seed"
    assert written_episodes() == episodes


def test_coco20i(tiny_model, run, tmp_path, monkeypatch):
    assert coco.coco20i.__kwdefaults__["count"] == 1000
    monkeypatch.setitem(coco.coco20i.__kwdefaults__, "count", 12)
    one, two = (2, 3, 9, 12), (11, 1, 30, 8)
    names = coco20i_fold(2)[:3]
    shows = {5: {names[0]: one, names[1]: two}, 9: {names[0]: two, names[2]: one}, 12: {names[1]: one, names[2]: two}}
    write_coco(tmp_path / "coco", {i: [(n, polygon(b)) for n, b in boxes.items()] for i, boxes in shows.items()})
    add_noise(tmp_path / "coco")
    stems = {i: f"COCO_val2014_{i:012d}" for i in shows}
    boxes = {stems[i]: named for i, named in shows.items()}
    lists = {name: [f"val2014/{stem}.jpg" for stem, named in boxes.items() if name in named] for name in names}
    Path("lists.json").write_text(json.dumps(lists))
    valid = np.ones(SIZE, dtype=np.uint8)

    for benchmark in ("coco20i_one_shot", "coco20i_text"):
        common = [f"benchmark={benchmark}", "fold=2", "data.root=coco"]
        figures, _ = run(*common, "data.class_lists=lists.json")
        episodes = written_episodes()
        assert len(episodes) == 12
        tasks = []
        for episode in episodes:
            name, query, support = episode["name"], episode["query"], episode["support"]
            if benchmark == "coco20i_text":
                condition = tiny_model.encode_text([name])
            else:
                photo = tmp_path / "coco" / "val2014" / f"{support}.jpg"
                condition = shown(tiny_model, photo, box_mask(boxes[support][name]), "antialias")
            photo = tmp_path / "coco" / "val2014" / f"{query}.jpg"
            tasks.append((name, answer(tiny_model, photo, condition, "antialias"), box_mask(boxes[query][name]), valid))
        check(figures, tasks, resize="antialias")
        Path("out/episodes.json").rename("fixed.json")
        again, _ = run(*common, "episodes=fixed.json", "seed=9")
        figures.pop("seconds"), again.pop("seconds")
        assert again == figures
        assert json.loads(Path("out/provenance.json").read_text())["drawn"] == "by others: fixed.json"


@pytest.mark.parametrize("kind", LVIS_PROMPTS)
def test_lvis(tiny_model, run, tmp_path, kind):
    boxes = [(2, 3, 9, 12), (11, 1, 30, 8), (20, 12, 25, 22)]
    shows = {
        3: ["armchair", "bird", "zebra"],
        4: ["duck", "jeep", "wheelchair"],
        6: ["zebra"],
        7: ["pony", "motorcycle", "person"],
        8: ["bottle", "kayak"],
    }
    write_lvis(tmp_path / "lvis", {i: [(n, polygon(b)) for n, b in zip(ns, boxes, strict=False)] for i, ns in shows.items()})
    add_noise(tmp_path / "lvis")
    figures, _ = run(f"benchmark=lvis_{kind}", "data.root=lvis")
    tasks = []
    for image, names in shows.items():
        for prompt, categories in LVIS_PROMPTS[kind].items():
            truth = np.zeros(SIZE, dtype=np.uint8)
            for name, box in zip(names, boxes, strict=False):
                if name in categories:
                    truth |= box_mask(box)
            if truth.any():
                photo = tmp_path / "lvis" / f"{'train' if image % 2 else 'val'}2017" / f"{image:012d}.jpg"
                probability = answer(tiny_model, photo, tiny_model.encode_text([prompt]))
                tasks.append((prompt, probability, truth, np.ones(SIZE, dtype=np.uint8)))
    check(figures, tasks)


def test_folder(tiny_model, run, tmp_path):
    lines = write_folder(tmp_path / "own")
    figures, _ = run("benchmark=folder", "data.root=own")
    valid = np.ones(SIZE, dtype=np.uint8)
    tasks = [
        (
            phrase,
            answer(tiny_model, tmp_path / "own/photos" / f"{name}.jpg", tiny_model.encode_text([phrase])),
            box_mask(box),
            valid,
        )
        for name, phrase, box in lines
    ]
    check(figures, tasks)


@pytest.mark.parametrize("background_threshold", [None, 0.6])
def test_pascal_zeroshot(tiny_model, run, voc, background_threshold):
    labels, photos = voc
    override = [] if background_threshold is None else [f"background_threshold={background_threshold}"]
    figures, printed = run("benchmark=pascal_zeroshot", "unseen=4", "data.root=voc", *override)
    pixels, pixels_by_image = [], []
    for image, label_map in labels.items():
        first = len(pixels)
        asked = (
            "background airplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
            "pottedplant sheep sofa train tvmonitor"
        )
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        pixels_of_image = (pixels_of(photos / f"{image}.jpg") - mean) / std
        small = F.interpolate(pixels_of_image, (S, S), mode="bilinear", align_corners=False)
        with torch.no_grad():
            maps = np.stack([tiny_model(small, tiny_model.encode_text([name])).sigmoid()[0].numpy() for name in asked.split()])
        truth = prepared_mask(label_map, "squash")
        for y in range(S):
            for x in range(S):
                if truth[y, x] != 255:
                    best = 1 + int(maps[1:, y, x].argmax())
                    is_background = (
                        3 * maps[0, y, x] >= maps[best, y, x]
                        if background_threshold is None
                        else maps[best, y, x] <= np.float32(background_threshold)
                    )
                    pixels.append((truth[y, x], 0 if is_background else best))
        pixels_by_image.append(pixels[first:])
    iou = {}
    for label, name in enumerate(("background", *PASCAL_CLASSES)):
        union = sum(label in pair for pair in pixels)
        if union:
            iou[name] = sum(pair == (label, label) for pair in pixels) / union
    unseen = [iou.get(name, 0) for name in unseen_classes(4)]
    seen = [iou.get(name, 0) for name in PASCAL_CLASSES if name not in unseen_classes(4)]
    assert figures["miou_seen"] == pytest.approx(np.mean(seen), abs=1e-3)
    assert figures["miou_unseen"] == pytest.approx(np.mean(unseen), abs=1e-3)
    assert figures["iou/background"] == figures["iou_background"] == pytest.approx(iou["background"], abs=1e-3)
    assert figures["samples"] == len(VOC)
    assert "mIoU unseen" in printed
    assert sum(map(sum, json.loads(Path("out/confusion.json").read_text())["rows_are_truth"])) == len(pixels)
    miou = json.loads(Path("out/image_miou.json").read_text())
    assert miou.keys() == labels.keys()
    for number, image in enumerate(labels):
        own = pixels_by_image[number]
        ratios = [sum(p == (c, c) for p in own) / sum(c in p for p in own) for c in {c for p in own for c in p}]
        assert miou[image] == pytest.approx(np.mean(ratios), abs=1e-3)
    page = Path("out/report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 * len(VOC)
    assert "#e0e0c0" in page, "what is not counted has its colour in the legend"


@pytest.mark.parametrize(
    ("experiment", "arguments", "value"),
    [
        ("pascal5i_pc_plus", ["benchmark=pascal5i_one_shot", "fold=0"], "59.5"),
        ("pascal5i_deconv", ["benchmark=pascal5i_text", "fold=0"], "63.2"),
        ("zeroshot_unseen4_clipseg", ["benchmark=pascal_zeroshot", "unseen=4"], "47.3"),
    ],
)
def test_the_paper_s_values_stand_beside_ours(run, voc, experiment, arguments, value):
    Path("run").mkdir()
    Path("run/config.yaml").write_text(f"experiment: {experiment}\nfold: null\ndata:\n  root: voc\n")
    _, printed = run(*arguments)
    assert value in printed
    assert value in Path("out/report.html").read_text()
    origin = json.loads(Path("out/provenance.json").read_text())
    assert origin["experiment"] == (f"{experiment}_fold0" if "fold=0" in arguments else experiment)
    assert origin["split"] == "val"


def test_another_fold_than_the_one_held_out_is_refused(run, voc):
    Path("run").mkdir()
    Path("run/config.yaml").write_text("experiment: pascal5i_pc\nfold: 2\ndata:\n  root: voc\n")
    assert "trained with fold 2 held out" in run("benchmark=pascal5i_text", "fold=0")[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["benchmark=pascal5i_one_shot"], "benchmark=pascal5i_one_shot needs fold; add fold=0"),
        (["benchmark=pascal5i_text", "fold=4"], "fold=4 does not exist; expected one of 0, 1, 2, 3"),
        (["benchmark=pascal_zeroshot"], "needs unseen; add unseen=10"),
        (["benchmark=pascal_zeroshot", "unseen=3"], "no set of 3 unseen classes"),
        (["benchmark=pascal_zeroshot", "unseen=4", "background_threshold=2"], "background_threshold=2.0 must lie in [0, 1]"),
        (["benchmark=phrasecut", "fold=1"], "fold=1 means nothing to benchmark=phrasecut"),
        (["benchmark=phrasecut", "episodes=x.json"], "episodes=x.json means nothing to benchmark=phrasecut"),
        (["benchmark=pascal5i_text", "fold=1", "episodes=x.json"], "x.json: no such file"),
        (["benchmark=pascal5i_text", "fold=1", "data.class_lists=x.json"], "only COCO-20i draws from lists of images"),
        (["benchmark=coco20i_text", "fold=1", "data.class_lists=x.json", "episodes=y.json"], "leave one of them out"),
        (["benchmark=pascal_zeroshot", "unseen=4", "save_predictions=x"], "save_predictions=x means nothing"),
        (["benchmark=pascal5i_one_shot", "fold=3"], "fewer than two images"),
        (["benchmark=coco20i_text", "fold=0"], "not COCO's layout"),
        (["benchmark=lvis_meronymy"], "not LVIS's layout"),
        (["benchmark=folder"], "not a folder of your own"),
        (["benchmark=pascal5i_text", "fold=0", "split=test"], "split 'test' unknown; expected one of val"),
        (["benchmark=pascal"], "benchmark='pascal' is unknown"),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, voc, arguments, named):
    assert named in run("data.root=voc", *arguments)[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_there(name):
    assert callable(find(BENCHMARKS[name].run))


def test_two_processes_count_zero_shot_as_one(tiny_model, voc, tmp_path):
    class Half(Processes):
        def gather(self, value):
            return [value]

    def counted(processes):
        evaluation = ZeroShot(
            model=tiny_model,
            data=PascalZeroShot(tmp_path / "voc"),
            prompt=PromptSettings(templates="extended"),
            seed=3,
            background_threshold=None,
            unseen=("cow",),
            provenance={},
            processes=processes,
            loader=IN_PROCESS,
        )
        return evaluation.run()[0].matrix

    halves = [counted(Half(rank, 2)) for rank in range(2)]
    assert np.array_equal(halves[0] + halves[1], counted(Processes()))
    assert all(half.sum() > 0 for half in halves)
