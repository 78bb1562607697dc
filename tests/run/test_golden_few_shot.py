"""Pascal-5i and COCO-20i from folders to figures, as they were really run (golden cases 5 and 6)."""

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_data import GOLDEN, arrays, look_error, unpack, values
from golden_predictor import SIDE, Predictor
from scipy import stats

from clipseg.data.classes import COCO_CLASSES, FOLDS, PASCAL_CLASSES, VOC_NAMES, coco20i_fold, pascal5i_fold
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers import class_draws
from clipseg.data.readers.coco import EPISODES, coco20i_training
from clipseg.data.readers.episodes import LEAST_PIXELS, Episode, draw_episodes
from clipseg.data.readers.pascal import PascalSplit
from clipseg.data.sample import collate
from clipseg.measure.results import Results
from clipseg.network.preprocess import prepare_images, resize_masks
from clipseg.run.benchmarks import BENCHMARKS, FORMATS, find
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation
from clipseg.run.jobs import Job
from clipseg.run.settings import EvaluationData, PromptSettings, evaluate_schema

# The golden data's names of prompts -> ours.
VARIANTS = {"blur3_highlight01": "highlight_older", "crop_blur_highlight352": "crop_blur_intensity10"}
PASCAL, COCO = values("05_pascal5i"), values("06_coco20i")


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path, benchmark: str, **keys: Any) -> tuple[Results, Predictor, Any]:
    """A benchmark with the golden data's predictor -> its results, what the predictor saw, the reader."""
    found: list[Any] = []
    monkeypatch.setattr(Evaluation, "write", lambda self, *arguments, **_: found.extend([arguments[1], self.data]))
    settings = {"prompt": PromptSettings(templates="auto", text_weight=[0, 0])} | keys
    settings["data"] = EvaluationData(workers=0, root="x", **settings.pop("data_keys", {}))
    config = evaluate_schema()(checkpoint="x", benchmark=benchmark, out=str(folder), **settings)
    model = Predictor()
    job = Job(config=config, model=model, root=folder / "data", folder=folder / "out", origin={}, processes=Processes())
    find(BENCHMARKS[benchmark].run)(job)
    return *found, model


def check_counts(results: Results, keys: list[str], expected: dict[str, np.ndarray], prompt: str) -> None:
    place = {key: number for number, key in enumerate(results.key.tolist())}
    rows = [place[key] for key in keys]
    for name in ("tp", "fp", "fn", "tn"):
        assert np.abs(getattr(results.counts, name)[rows] - expected[f"{prompt}_{name}"]).max() <= 10


def check_figures(results: Results, expected: dict[str, Any]) -> None:
    names = {"fgiou": "iou_fg", "miou": "miou", "biniou": "iou_bin"}
    at = {threshold: results.metrics(threshold) for threshold in (0.1, 0.2, 0.3, 0.5)}
    for theirs, ours in names.items():
        for threshold, figures in at.items():
            assert figures[f"released/{ours}"] == pytest.approx(expected[f"{theirs}_{threshold}"], abs=1e-5)
        assert at[0.1][f"released/{ours}_best"] == pytest.approx(expected[f"{theirs}_best"], abs=1e-5)
        assert at[0.1][f"released/{ours}_best_threshold"] == pytest.approx(expected[f"{theirs}_best_t"], abs=1e-9)
    assert at[0.1]["released/ap"] == pytest.approx(expected["ap"], abs=1e-5)
    if expected["ct"] is not None:
        asked = results.metrics(expected["ct"])
        for theirs, ours in (names | {"mean_iou": "miou"}).items():
            if f"{theirs}_ct" in expected:
                assert asked[f"released/{ours}"] == pytest.approx(expected[f"{theirs}_ct"], abs=1e-5)


def stacked(images: list[torch.Tensor]) -> np.ndarray:
    return torch.stack(images).numpy()


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    """The golden photos and label maps as VOC2012."""
    folder = tmp_path / "data" / "VOC2012"
    shutil.copytree(GOLDEN / "05_pascal5i", folder)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    lines = (folder / "val.txt").read_text().splitlines()
    (lists / "val.txt").write_text("".join(f"{Path(line.split()[0]).stem}\n" for line in lines))
    return tmp_path


@pytest.mark.parametrize("prompt", ["text", *VARIANTS])
def test_golden_pascal5i(pascal, prompt, monkeypatch):
    expected, counts, episodes = arrays("05_inputs"), arrays("05_counts"), PASCAL["episodes"]
    keys: dict[str, Any] = {"fold": PASCAL["fold"]}
    if prompt != "text":
        keys["prompt"] = PromptSettings(templates="auto", text_weight=[0, 0], visual_prompt=VARIANTS[prompt])
    benchmark = "pascal5i_text" if prompt == "text" else "pascal5i_one_shot"
    results, data, model = measured(monkeypatch, pascal, benchmark, **keys)
    drawn = [(episode.query, episode.name, episode.support) for episode in data.episodes]
    assert drawn == [(episode["query"], episode["name"], episode["support"]) for episode in episodes]
    assert [query for query, _, _ in drawn] == PASCAL["listed"]
    assert look_error(stacked(model.photos), expected, "query") < 1e-4
    if prompt == "text":
        assert model.texts == [episode["text"] for episode in episodes]
    else:
        assert look_error(stacked(model.prompts), expected, f"{prompt}_prompt") < 1e-4
        supports = [sample.tasks[0].support for sample in data]
        masks = resize_masks([support.mask for support in supports], (SIDE, SIDE), resize="canvas")
        assert np.array_equal(masks, unpack(expected["support_mask"]))
        photos = prepare_images([support.image for support in supports], (SIDE, SIDE), resize="canvas")
        assert look_error(photos.numpy(), expected, "support") < 1e-4
    for number, sample in enumerate(data):
        truth, (height, width) = expected[f"truth_{number}"], sample.image.shape[1:]
        assert truth.shape == (max(height, width),) * 2
        assert np.array_equal(np.where(sample.valid == 1, sample.tasks[0].mask, 255), truth[:height, :width])
        assert (truth[height:] == 255).all()
        assert (truth[:, width:] == 255).all()
    check_counts(results, [f"val/{query}__{name}" for query, name, _ in drawn], counts, prompt)
    check_figures(results, PASCAL["figures"][prompt])
    assert results.provenance["labels"] == "SegmentationClassAug"
    written = json.loads((pascal / "out" / "episodes.json").read_text())
    assert [(e["query"], e["name"], e["support"]) for e in written["episodes"]] == drawn
    again, _, _ = measured(monkeypatch, pascal, benchmark, **keys, seed=5, episodes=str(pascal / "out" / "episodes.json"))
    assert again.metrics() | {"seconds": 0} == results.metrics() | {"seconds": 0}


def test_golden_pascal5i_lists_count_at_least_2048_pixels(pascal):
    names = [VOC_NAMES[PASCAL_CLASSES.index(name)] for name in pascal5i_fold(PASCAL["fold"])]
    pixels = PascalSplit(pascal / "data", "val", augmented=True).pixels_of_class(names)
    listed = {
        str(VOC_NAMES.index(name) + 1): [i for i, shown in pixels.items() if shown.get(name, 0) >= LEAST_PIXELS]
        for name in names
    }
    assert listed == PASCAL["by_class"]


LISTS = json.loads((GOLDEN / "06_coco20i" / "lists.json").read_text(encoding="utf-8"))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """The golden photos and label maps, their lists, and their episodes in the form that ours are written in."""
    shutil.copytree(GOLDEN / "06_coco20i", tmp_path / "data")
    (tmp_path / "lists.json").write_text(json.dumps(LISTS["by_class"]))
    episodes = [episode | {"name": COCO_CLASSES[episode["class"]]} for episode in LISTS["episodes"]]
    content = {"benchmark": "coco20i", "split": "val2014", "fold": LISTS["fold"], "episodes": episodes}
    (tmp_path / "episodes.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("prompt", ["text", *VARIANTS])
def test_golden_coco20i(coco, prompt, monkeypatch):
    expected, counts = arrays("06_inputs"), arrays("06_counts")
    keys: dict[str, Any] = {"fold": COCO["fold"], "episodes": str(coco / "episodes.json")}
    if prompt != "text":
        keys["prompt"] = PromptSettings(templates="auto", text_weight=[0, 0], visual_prompt=VARIANTS[prompt])
    benchmark = "coco20i_text" if prompt == "text" else "coco20i_one_shot"
    results, data, model = measured(monkeypatch, coco, benchmark, **keys)
    assert [(e.query, e.support) for e in data.episodes] == [
        (Path(e["query"]).stem, Path(e["support"]).stem) for e in LISTS["episodes"]
    ]
    # Items are images with all their episodes: where each episode stands among what the predictor saw.
    order = [n for query in data.image_ids for n, episode in enumerate(data.episodes) if episode.query == query]
    place = np.argsort(order)
    photos = dict(zip(data.image_ids.tolist(), model.photos, strict=True))
    assert look_error(stacked([photos[episode.query] for episode in data.episodes]), expected, "query") < 1e-4
    masks = [task.mask for sample in data for task in sample.tasks]
    assert np.array_equal(resize_masks([masks[n] for n in place], (SIDE, SIDE)), unpack(expected["target"]))
    if prompt == "text":
        assert [model.texts[n] for n in place] == COCO["class_names"]
    else:
        assert look_error(stacked([model.prompts[n] for n in place]), expected, f"{prompt}_prompt") < 1e-4
    tasks = [task.key for sample in data for task in sample.tasks]
    check_counts(results, [tasks[n] for n in place], counts, prompt)
    check_figures(results, COCO["figures"][prompt])
    again, _, _ = measured(monkeypatch, coco, benchmark, **keys | {"seed": 5, "episodes": str(coco / "out" / "episodes.json")})
    assert again.metrics() | {"seconds": 0} == results.metrics() | {"seconds": 0}


def test_golden_negatives_of_coco20i_change_the_support_alone(coco, monkeypatch):
    expected, negatives, model = arrays("06_inputs"), LISTS["negatives"], Predictor()
    fold = next(f for f in range(FOLDS) if f != LISTS["fold"])  # whose training sees the classes that are listed
    options = ReaderOptions(training=True, negatives=1, visual_support=True)
    data = coco20i_training(coco / "data", options, split="val2014", fold=fold, class_lists=coco / "lists.json")
    condition = Conditioner(PromptSettings(text_weight=[0, 0]), resize=FORMATS["coco20i"].resize)
    samples = []
    for negative in negatives:
        draws = iter([negative, negative["other"]])
        monkeypatch.setattr(class_draws, "draw_episodes", lambda lists, rng, draws=draws: map(as_episode, draws))
        samples.append(data[0])
        condition(model, collate(samples[-1:]))
    tasks = [sample.tasks[0] for sample in samples]
    assert [task.phrase for task in tasks] == COCO["negative_phrases"]
    assert not any(task.support.mask.any() for task in tasks)
    targets = resize_masks([task.mask for task in tasks], (SIDE, SIDE), resize=condition.resize)
    assert np.array_equal(targets, unpack(expected["negative_target"]))
    photos = prepare_images([sample.image for sample in samples], (SIDE, SIDE), resize=condition.resize)
    assert look_error(photos.numpy(), expected, "negative_query") < 1e-4
    assert look_error(stacked(model.prompts), expected, "negative_prompt") < 1e-4


def as_episode(draw: dict[str, Any]) -> Episode:
    return Episode(query=Path(draw["query"]).stem, name=COCO_CLASSES[draw["class"]], support=Path(draw["support"]).stem)


def test_golden_law_of_the_draws_of_training():
    """Classes are drawn alike, however many images they have; then a query and another image of the class."""
    of_class = arrays("06_counts")["images_of_class"]
    held_out = COCO["classes_of_fold"][str(COCO["fold"])]["held_out"]
    lists = {name: [f"{name}{i}" for i in range(count)] for name, count in zip(COCO_CLASSES, of_class, strict=True)}
    lists = {name: images for number, (name, images) in enumerate(lists.items()) if number not in held_out}
    draws = list(itertools.islice(draw_episodes(lists, np.random.default_rng(3)), 20_000))
    assert stats.chisquare([sum(e.name == name for e in draws) for name in lists]).pvalue > 1e-4
    assert all(e.query != e.support and {e.query, e.support} <= set(lists[e.name]) for e in draws)
    fewest = min((name for name in lists if len(lists[name]) > 1), key=lambda name: len(lists[name]))
    for role in ("query", "support"):
        found = Counter(getattr(e, role) for e in draws if e.name == fewest)
        assert stats.chisquare([found[image] for image in lists[fewest]]).pvalue > 1e-4


def test_golden_folds_and_length_of_the_test():
    for fold, classes in COCO["classes_of_fold"].items():
        assert [COCO_CLASSES.index(name) for name in coco20i_fold(int(fold))] == classes["held_out"]
    assert COCO["length_at_test"] == EPISODES
