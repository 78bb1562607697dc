"""A tiny data set in PhraseCut's layout whose phrases have parts: red and blue boxes, green and yellow balls, side by side."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAMES = {"red": "box", "green": "ball", "blue": "box", "yellow": "ball"}


def phrases(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phrases of one image whose tasks are of one colour each, from left to right."""
    polygons = {task["phrase"]: task["Polygons"] for task in tasks}
    said = [(f"{colour} {NAMES[colour]}", NAMES[colour], [colour], [], polygons[colour]) for colour in polygons]
    for name in ("box", "ball"):
        said.append((name, name, [], [], [part for colour in polygons if NAMES[colour] == name for part in polygons[colour]]))
    said.append(("box left of a green ball", "box", [], [["left of", "green ball"]], polygons["red"]))
    if "blue" in polygons:
        said.append(("box right of a green ball", "box", [], [["right of", "green ball"]], polygons["blue"]))
    image = tasks[0]["image_id"]
    return [
        tasks[0]
        | {
            "task_id": f"{image}__{number}",
            "phrase": text,
            "Polygons": parts,
            "instance_boxes": [[0, 0, 1, 1]] * len(parts),
            "ann_ids": list(range(len(parts))),
            "phrase_structure": {"name": name, "attributes": words, "relation_ids": [], "relation_descriptions": relations},
        }
        for number, (text, name, words, relations, parts) in enumerate(said)
    ]


@pytest.fixture
def worded_root(phrasecut_root) -> Callable[..., Path]:
    """`make(n=6, splits=("val", "test"))`: as `phrasecut_root`, in other words."""

    def make(n: int = 6, *, splits: tuple[str, ...] = ("val", "test")) -> Path:
        root = phrasecut_root(n, splits=splits)
        for split in splits:
            path = root / f"refer_{split}.json"
            tasks = json.loads(path.read_text())
            images = dict.fromkeys(task["image_id"] for task in tasks)
            said = [each for image in images for each in phrases([task for task in tasks if task["image_id"] == image])]
            path.write_text(json.dumps(said))
        return root

    return make
