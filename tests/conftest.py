"""Fixtures that several test files use."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Processes run side by side, one a core: with more than a thread each they would wait for one another. Before torch is there.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the internet

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# The same examples on every run, on slow machines too.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the two entry points lie beside the package, not in it

COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 200), "yellow": (220, 200, 50)}


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run an entry point, the module `train` or `evaluate`, in an empty folder -> (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(entry: Any, *arguments: str) -> tuple[int, str, str]:
        from clipseg.entry import launch
        from clipseg.run.settings import TrainConfig, evaluate_schema

        monkeypatch.setattr(sys, "argv", [entry.__file__, *arguments])
        name, schema = {"train": ("train", TrainConfig), "evaluate": ("evaluate", evaluate_schema())}[entry.__name__]
        finish = getattr(entry, "report_sweep", None)
        status = launch(getattr(entry, name), schema, configs=ROOT / "configs", name=name, finish=finish)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def phrasecut_root(tmp_path: Path) -> Callable[..., Path]:
    """A factory of tiny data sets in PhraseCut's layout.

    `make(n=4, splits=("train", "val", "test", "miniv"), size=(48, 64), folder="images")` writes n JPEGs a split, in turn of
    size (H, W) and (W, H), each with a gray background and one coloured rectangle for each of its two to four tasks; the phrase
    is the colour's name, so phrases come back in other images. Image ids count from 1 over all splits; a task id is
    "<image>__<n>".
    """

    def make(
        n: int = 4,
        *,
        splits: Sequence[str] = ("train", "val", "test", "miniv"),
        size: tuple[int, int] = (48, 64),
        folder: str = "images",
    ) -> Path:
        root = tmp_path / "phrasecut"
        (root / folder).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        for split in splits:
            tasks: list[dict[str, Any]] = []
            for _ in range(n):
                image_id = len(images) + 1
                height, width = size if image_id % 2 else size[::-1]
                images.append({"image_id": image_id, "width": width, "height": height, "split": split, "url": ""})
                tasks += _write_image(root / folder / f"{image_id}.jpg", image_id, height=height, width=width)
            (root / f"refer_{split}.json").write_text(json.dumps(tasks))
        (root / "image_data_split.json").write_text(json.dumps(images))
        return root

    return make


def _write_image(path: Path, image_id: int, *, height: int, width: int) -> list[dict[str, Any]]:
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    tasks = []
    names = list(COLOURS)[: 2 + image_id % 3]
    for number, name in enumerate(names):
        top, left = height // 8 + image_id % 3, number * width // len(names) + 1
        bottom, right = top + height // 2, left + width // (len(names) + 1)
        pixels[top : bottom + 1, left : right + 1] = COLOURS[name]
        corners = [[left, top], [right + 0.5, top], [right, bottom + 0.9], [left, bottom]]
        tasks.append(
            {
                "task_id": f"{image_id}__{number}",
                "image_id": image_id,
                "phrase": name,
                "ann_ids": [number],
                "instance_boxes": [[left, top, right - left + 1, bottom - top + 1]],
                "Polygons": [[corners]],
                "phrase_structure": {
                    "name": name,
                    "attributes": [],
                    "relation_ids": [],
                    "relation_descriptions": [],
                    "type": "name",
                },
            }
        )
    Image.fromarray(pixels).save(path, quality=95)
    return tasks


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    """A model of the bundled CLIP's architecture with random weights, in evaluation mode; not to be changed."""
    return _tiny_model(None)


@pytest.fixture(scope="session")
def seeing_model() -> Any:
    """A model as `tiny_model` on the bundled CLIP, to which pictures and words mean something; not to be changed."""
    return _tiny_model("mini")


def _tiny_model(pretrained: str | None) -> Any:
    import torch

    from clipseg.network.model import create_model

    model = create_model("mini", pretrained, extract_layers=(1, 2), reduce_dim=16, image_size=64).eval()
    with torch.no_grad():
        model.decoder.head.weight.mul_(20)  # a fresh head answers nearly 0.5 everywhere, which would hide a wrong map
    return model


@pytest.fixture
def tiny_evaluation(tiny_model: Any, phrasecut_root: Callable[..., Path]) -> Any:
    """The evaluation by text of `tiny_model` on two images of `phrasecut_root`, split `test`."""
    from clipseg.data.phrasecut import PhraseCut
    from clipseg.run.conditioning import Conditioner
    from clipseg.run.distributed import Processes
    from clipseg.run.evaluation import Evaluation
    from clipseg.run.loading import IN_PROCESS
    from clipseg.run.settings import PromptSettings

    return Evaluation(
        model=tiny_model,
        data=PhraseCut(phrasecut_root(2, splits=("test",)), split="test"),
        condition=Conditioner(PromptSettings()),
        threshold=0.5,
        provenance={},
        processes=Processes(),
        loader=IN_PROCESS,
    )
