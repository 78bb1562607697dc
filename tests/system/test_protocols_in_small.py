"""The paper's whole protocol in small: every experiment trains some steps with `scale=mini`, keeps what makes it special, and
is evaluated by the benchmarks that its head names.
"""

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from composed import EXPERIMENTS, train_settings
from omegaconf import OmegaConf
from open_clip.tokenizer import SimpleTokenizer
from places import CONFIGS

import clipseg
import evaluate
import train
from clipseg.data import class_words
from clipseg.data.class_words import phrase_filter
from clipseg.data.classes import coco20i_fold
from clipseg.data.mini import layouts
from clipseg.data.mini import phrasecut as mini
from clipseg.data.sample import Batch
from clipseg.entry import read_settings
from clipseg.measure import failures, figures, report
from clipseg.network import feature_cache
from clipseg.network import mini_clip as network_mini
from clipseg.network.clip_weights import load_backbone
from clipseg.network.decoder import DeconvDecoder
from clipseg.network.model import CLIPSeg
from clipseg.network.vit_tower import ViTBackbone
from clipseg.prompts.text import TEMPLATES, fill
from clipseg.run import conditioning, training, training_data
from clipseg.run.benchmarks import FORMATS
from clipseg.run.loading import data_root
from clipseg.run.settings import TrainConfig, evaluate_schema

pytestmark = pytest.mark.slow

FEW = {
    mini: {"SPLITS": {"train": 24, "val": 3, "test": 4, "unseen": 2}},
    layouts: {
        "PASCAL_SPLITS": {"train": 3, "val": 25},  # image i shows class i modulo 20: those of fold 0 are shown twice
        "COCO_SPLITS": {"train2014": 84, "val2014": 84},
        "LVIS_SPLITS": {"train": 58, "val": 8},
        "FOLDER_SPLITS": {"train": 12, "val": 3, "test": 4},
    },
}
SMALL = [
    "scale=mini",
    "model.image_size=96",
    "training.steps=3",
    "training.batch_size=8",
    "training.phrases_per_image=1",
    "training.validation_images=1",
    "training.log_every=1",
    "data.workers=0",
    "device=cpu",
    "out=run",
]


@pytest.fixture(scope="module", autouse=True)
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The mini data with few images, in a cache of its own; pages without pictures; the tokenizer made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for module, splits in FEW.items():
            for name, counts in splits.items():
                patch.setattr(module, name, counts)
        # What pages show is tested elsewhere; here drawing it would take half of the time.
        patch.setattr(training_data, "PICTURES", 1)
        patch.setattr(figures, "_svg", lambda figure: "<svg/>")
        for module, pick in ((report, "pick_gallery"), (failures, "pick_failures")):
            patch.setattr(module, pick, lambda results, count, seed: {})
        patch.setattr(network_mini, "SimpleTokenizer", functools.cache(SimpleTokenizer))
        yield


@pytest.fixture(scope="module")
def embedded() -> str:
    """Which backbone the bundled CLIP is."""
    return load_backbone("mini", "mini").checksum()


@dataclass
class Seen:
    """The use that training made of its data: rules of exclusion, batches, the texts and pictures that described targets."""

    rules: set[str] = field(default_factory=set)
    batches: list[Batch] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    variants: set[str] = field(default_factory=set)


def nothing_kept(path: Path) -> None:
    raise FileNotFoundError(path)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Watches training, not validation."""
    found = Seen()
    forward, encode_text, embed = training.forward, CLIPSeg.encode_text, conditioning.embed_prompt_images
    # Whatever another run has kept is computed anew: it is seen.
    monkeypatch.setattr(feature_cache, "load_file", nothing_kept)
    monkeypatch.setattr(class_words, "phrase_filter", lambda rule: found.rules.add(rule) or phrase_filter(rule))

    def watched(model, batch, condition):
        found.batches.append(batch)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CLIPSeg, "encode_text", lambda self, texts: found.texts.extend(texts) or encode_text(self, texts))
            patch.setattr(
                conditioning, "embed_prompt_images", lambda *arguments: found.variants.add(arguments[3]) or embed(*arguments)
            )
            return forward(model, batch, condition)

    monkeypatch.setattr(training, "forward", watched)
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_in_small(name, embedded, seen, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own = ["training.init=mini"] if name == "finetune" else []
    config = train_settings(f"experiment={name}", *SMALL, *own)
    train.train(config)
    check_training(config, seen)
    model = clipseg.load("run", device="cpu")
    check_model(model, config, embedded)
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: model)
    for split in config.evaluate_splits:
        check_figures(Path("run/eval") / split)
    for number, arguments in enumerate(named_evaluations(name)):
        given = OmegaConf.from_dotlist([*arguments, "device=cpu", "data.workers=0", f"out={number}"])
        # What evaluate.yaml composes to, without the time that composing takes.
        composed = OmegaConf.merge(OmegaConf.structured(evaluate_schema()), given)
        evaluate.evaluate(read_settings(composed, evaluate_schema()))
        check_figures(Path(str(number)))


def named_evaluations(name: str) -> list[list[str]]:
    """The arguments of the commands in an experiment's head, on the mini data and few images of it."""
    found = []
    for line in (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines():
        if "python evaluate.py " in line:
            arguments = [word for word in line.split() if "=" in word and not word.startswith(("checkpoint=", "data.root="))]
            if "benchmark=pascal_zeroshot" in arguments:
                arguments.append("split=train")
            if any(word.startswith("benchmark=coco20i") for word in arguments):
                arguments.append(f"episodes={write_episodes('episodes.json')}")
            found.append(["checkpoint=run", "data.root=mini", *arguments])
    return found


def write_episodes(path: str) -> str:
    """Two episodes of COCO-20i's fold 0: images 1 and 81 of val2014 show the first class, and come after those of train2014."""
    first, second = (f"COCO_val2014_{layouts.COCO_SPLITS['train2014'] + place:012d}" for place in (1, 81))
    pairs = ((first, second), (second, first))
    episodes = [{"query": a, "name": coco20i_fold(0)[0], "support": b} for a, b in pairs]
    content = {"benchmark": "coco20i", "split": "val2014", "fold": 0, "episodes": episodes}
    Path(path).write_text(json.dumps(content))
    return path


def check_figures(folder: Path) -> None:
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["samples"] > 0
    assert all(math.isfinite(value) for value in figures.values())
    assert (folder / "report.html").is_file()


def check_model(model: CLIPSeg, config: TrainConfig, embedded: str) -> None:
    """The decoder and the backbone that were trained are those that the config names."""
    asked, decoder = config.model, model.decoder
    assert model.config.image_size == asked.image_size
    assert model.config.extract_layers == tuple(asked.extract_layers)
    assert isinstance(decoder, DeconvDecoder) == (asked.decoder == "deconv")
    assert decoder.film.scale.out_features == asked.reduce_dim
    assert len(getattr(decoder, "blocks", [None])) == len(asked.extract_layers)
    assert (type(decoder.head).__name__ == "Sequential") == (asked.head == "refined")
    assert isinstance(model.backbone, ViTBackbone) == (asked.image_tower is not None)
    assert (model.backbone.checksum() == embedded) == (asked.pretrained is not None and asked.image_tower is None)


def check_training(config: TrainConfig, seen: Seen) -> None:
    """Negatives, supports, templates, exclusions and the learning rate reached the steps."""
    phrases = [phrase for batch in seen.batches for phrase in batch.phrases]
    assert len(phrases) == 24
    negative = sum(negatives(config, batch) for batch in seen.batches) / len(phrases)
    assert (negative > 0.3) if config.data.negatives == 0.5 else (negative > 0) == (config.data.negatives > 0)
    assert any(len(batch.support_images) for batch in seen.batches) == config.data.visual_support
    assert seen.variants == ({config.prompt.visual_prompt} if config.data.visual_support else set())
    templates = TEMPLATES[config.prompt.templates]
    used = [[t for t in templates if fill(t, phrase) == text] for phrase, text in zip(phrases, seen.texts, strict=True)]
    assert all(used)
    assert len({t for found in used for t in found}) > len(templates) / 2
    assert seen.rules == ({config.data.exclude} if config.data.exclude else set())
    if config.data.exclude:
        assert not phrase_filter(config.data.exclude)(phrases).any()
    if config.data.format == "coco20i":
        assert not set(phrases) & set(coco20i_fold(config.fold))
    first = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[0])
    assert first["train/lr"] == pytest.approx(config.training.lr)


def negatives(config: TrainConfig, batch: Batch) -> int:
    if config.data.format == "coco20i":  # as released, the support alone is another
        return sum(not mask.any() for mask in batch.support_masks)
    if config.data.format == "lvis":  # keys end in the class's name, and crops may lose what is small
        asked = zip(batch.keys, batch.phrases, strict=True)
        return sum(not key.endswith(f"__{phrase.replace(' ', '_')}") for key, phrase in asked)
    return sum(not mask.any() for mask in batch.masks)


@pytest.mark.parametrize(
    ("held_out", "not_held_out", "word"),
    [
        (["experiment=pascal5i_pc_plus", "fold=0"], ["experiment=phrasecut_pc_plus"], "kite"),  # to WordNet, a bird
        (["experiment=pascal5i_deconv", "fold=0"], ["experiment=pascal5i_deconv", "fold=1"], "kite"),
        (["experiment=generalized_lvis"], ["experiment=generalized_lvis", "data.exclude=null"], "wheel"),
        (["experiment=coco20i_plain", "fold=0"], ["experiment=coco20i_plain", "fold=1"], "person"),
    ],
)
def test_held_out_words_are_in_the_drawn_data_and_are_not_trained_on(held_out, not_held_out, word):
    assert word not in epoch_words(train_settings(*held_out, "scale=mini"))
    assert word in epoch_words(train_settings(*not_held_out, "scale=mini"))


def epoch_words(config: TrainConfig) -> set[str]:
    """The words of all phrases that an epoch trains on."""
    data = training_data.training_data(config, data_root(config.data.root, FORMATS[config.data.format].layout))
    return {word for item in range(len(data)) for task in data[0, item].tasks for word in task.phrase.split()}
