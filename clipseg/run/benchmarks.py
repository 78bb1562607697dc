"""Everything to train on and to measure, by name: the formats of `train.py`, the benchmarks of `evaluate.py`.

Names alone: what a name stands for is imported when it is asked for. This is the one place where the core knows of studies; one
that is removed takes its lines here with it.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal


def find(name: str) -> Any:
    """Import what `module:attribute` names."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of training data.

    Attributes:
        layout: of the data's folder, one of `data/layout.py`.
        train_split: what `data.train_split=auto` means.
        val_split: what `data.val_split=auto` means.
        resize: how images come to the model's size (`network/preprocess.py`).
    """

    layout: str
    train_split: str = "train"
    val_split: str = "val"
    resize: Literal["squash", "antialias"] = "squash"


# Where what was run is plainly a slip: as it was run, or as the paper means it (docs/paper.md, Sec. 8).
PROTOCOLS = ("released", "paper")

FORMATS: Mapping[str, Format] = {
    "phrasecut": Format(layout="phrasecut", val_split="miniv"),
    "folder": Format(layout="folder"),
    "coco20i": Format(layout="coco", train_split="train2014", val_split="val2014", resize="antialias"),
    "lvis": Format(layout="lvis"),
}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark of `evaluate.py`.

    Attributes:
        run: `module:function` of a `jobs.Job`, which measures, writes and prints.
        keys: `module:class` of each dataclass of settings that it takes besides those of every benchmark.
        layout: of the data's folder, one of `data/layout.py`.
        split: what `split=auto` means.
        templates: what `prompt.templates=auto` means: the bare phrase, or "a photo of a {}." (docs/paper.md, Sec. 2).
    """

    run: str
    keys: tuple[str, ...] = ()
    layout: str = "phrasecut"
    split: str = "test"
    templates: str = "plain"


_MASKS, _FOLD, _EPISODES = (f"clipseg.run.settings:{name}" for name in ("MaskKeys", "FoldKeys", "EpisodeKeys"))
_PASCAL5I = Benchmark(run="clipseg.run.jobs:pascal5i", keys=(_FOLD, _EPISODES, _MASKS), layout="pascal", split="val")
_COCO20I = replace(_PASCAL5I, run="clipseg.run.jobs:coco20i", layout="coco", split="val2014")
_LVIS = Benchmark(run="clipseg.run.jobs:lvis", keys=(_MASKS,), layout="lvis", split="val")
_LABORATORY = "clipseg.studies.laboratory.settings:LaboratoryKeys"
_SIZES = ("clipseg.studies.input_size.settings:SizeKeys",)

BENCHMARKS: Mapping[str, Benchmark] = {
    "phrasecut": Benchmark(run="clipseg.run.jobs:phrasecut", keys=(_MASKS,)),
    "phrasecut_visual": Benchmark(run="clipseg.run.jobs:phrasecut", keys=(_MASKS,)),
    "pascal5i_one_shot": _PASCAL5I,
    "pascal5i_text": replace(_PASCAL5I, templates="fixed"),
    "coco20i_one_shot": _COCO20I,
    "coco20i_text": _COCO20I,
    "lvis_affordances": _LVIS,
    "lvis_attributes": _LVIS,
    "lvis_meronymy": _LVIS,
    "folder": Benchmark(run="clipseg.run.jobs:folder", keys=(_MASKS,), layout="folder"),
    "boundaries": Benchmark(run="clipseg.studies.boundaries.run:boundaries"),
    "prompt_forms": Benchmark(run="clipseg.studies.prompt_forms.run:prompt_forms"),
    "presence": Benchmark(run="clipseg.studies.laboratory.presence:presence", keys=(_LABORATORY,)),
    "counterfactual": Benchmark(run="clipseg.studies.laboratory.counterfactual:counterfactual", keys=(_LABORATORY,)),
    "paraphrase": Benchmark(run="clipseg.studies.laboratory.paraphrase:paraphrase", keys=(_LABORATORY,)),
    "prompt_grid": Benchmark(
        run="clipseg.studies.laboratory.grid:prompt_grid", keys=(_LABORATORY, "clipseg.studies.laboratory.settings:GridKeys")
    ),
    "visual_prompts": Benchmark(
        run="clipseg.studies.visual_prompts.run:visual_prompts",
        keys=("clipseg.studies.visual_prompts.settings:VisualPromptKeys",),
    ),
    "pascal_zeroshot": Benchmark(
        run="clipseg.studies.zero_shot.run:pascal_zeroshot",
        keys=("clipseg.studies.zero_shot.settings:ZeroShotKeys",),
        layout="pascal",
        split="val",
    ),
    "image_size": Benchmark(run="clipseg.studies.input_size.run:image_size", keys=_SIZES),
    "linear_probe": Benchmark(run="clipseg.studies.input_size.linear_probe:linear_probe", keys=_SIZES),
}


SWEEP_REPORT = "clipseg.paper.sweep:report_sweep"  # called with the settings of all jobs of a sweep that names a folder for it


def key_classes(benchmarks: Iterable[str] = tuple(BENCHMARKS)) -> list[Any]:
    """The dataclasses of keys that some benchmarks take, each once."""
    return [find(name) for name in dict.fromkeys(name for benchmark in benchmarks for name in BENCHMARKS[benchmark].keys)]
