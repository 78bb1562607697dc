"""The paper's tables as data, to stand beside ours.

Values are printed percentages; `*_best` values are at the best threshold. Rows are found by the name of the experiment that
reproduces them and the benchmark they are measured on; rows of other people's models have no experiment.
Source: the paper's Tab. 2 to 9.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class PaperRow:
    """One printed row: `values` maps names of `metrics.json` to percent."""

    table: str
    label: str
    experiment: str | None
    benchmark: str
    threshold: float | None
    values: Mapping[str, float]


def _phrasecut(
    label: str, experiment: str | None, threshold: float | None, miou: float, iou_fg: float | None, ap: float | None
) -> PaperRow:
    values = {"miou": miou, "iou_fg": iou_fg, "ap": ap}
    return PaperRow("Tab. 3", label, experiment, "phrasecut", threshold, _present(values))


def _present(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _zero_shot(label: str, name: str, unseen: int, seen_miou: float, unseen_miou: float) -> PaperRow:
    values = {"miou_seen_as_scored": seen_miou, "miou_unseen_as_scored": unseen_miou}
    return PaperRow("Tab. 4", label, f"zeroshot_unseen{unseen}_{name}", "pascal_zeroshot", None, values)


def _few_shot(label: str, experiment: str, benchmark: str, threshold: float, figures: tuple[float, float, float]) -> PaperRow:
    table = {"pascal5i_one_shot": "Tab. 5", "pascal5i_text": "Tab. 7", "coco20i_one_shot": "Tab. 6"}[benchmark]
    values = dict(zip(("miou", "iou_bin", "ap"), figures, strict=True))
    return PaperRow(table, label, experiment, benchmark, threshold, values)


def _generalized(label: str, experiment: str, prompts: str, iou_fg: float, ap: float) -> PaperRow:
    # The column is printed as "mIoU".
    return PaperRow("Tab. 8", label, experiment, f"lvis_{prompts}", None, {"iou_fg_best": iou_fg, "ap": ap})


def _ablation(label: str, experiment: str, prompt: str, miou: float, ap: float | None) -> PaperRow:
    benchmark = {"text": "phrasecut", "visual": "phrasecut_visual"}[prompt]
    return PaperRow("Tab. 9", label, experiment, benchmark, None, _present({"miou_best": miou, "ap": ap}))


# Tab. 2: ΔP(object) of each visual prompt in points, on 1,600 objects of LVIS and CLIP ViT-B/16.
PROMPT_DELTAS: Mapping[str, float] = {
    "clip_mask_cls_last": 1.34,
    "clip_mask_cls_all": 1.71,
    "clip_mask_tokens_all": -14.44,
    "dye_red": 1.21,
    "outline_red": 2.29,
    "intensity50": 3.08,
    "intensity10": 13.85,
    "intensity0": 23.40,
    "blur": 13.15,
    "blur_intensity10": 21.73,
    "crop_large": 6.27,
    "crop": 13.60,
    "crop_blur": 15.34,
    "crop_intensity10": 21.73,
    "crop_blur_intensity10": 23.50,
}

ROWS: tuple[PaperRow, ...] = (
    _phrasecut("CLIPSeg (PC+)", "phrasecut_pc_plus", 0.3, 43.4, 54.7, 76.7),
    _phrasecut("CLIPSeg (PC, D = 128)", "phrasecut_pc_d128", 0.3, 48.2, 56.5, 78.2),
    _phrasecut("CLIPSeg (PC)", "phrasecut_pc", 0.3, 46.1, 56.2, 78.2),
    _phrasecut("CLIP-Deconv", "phrasecut_deconv", 0.3, 37.7, 49.5, 71.2),
    _phrasecut("ViTSeg (PC+)", "phrasecut_vitseg_pc_plus", 0.1, 28.4, 35.4, 58.3),
    _phrasecut("ViTSeg (PC)", "phrasecut_vitseg_pc", 0.3, 38.9, 51.2, 74.4),
    _phrasecut("MDETR", None, None, 53.7, None, None),
    _phrasecut("HulaNet", None, None, 41.3, 50.8, None),
    _phrasecut("Mask-RCNN top", None, None, 39.4, 47.4, None),
    _phrasecut("RMI", None, None, 21.1, 42.5, None),
    _zero_shot("CLIPSeg (PC+)", "clipseg", 10, 35.7, 43.1),
    _zero_shot("CLIPSeg (PC+)", "clipseg", 4, 20.8, 47.3),
    _zero_shot("CLIP-Deconv (PC+)", "deconv", 10, 25.1, 36.7),
    _zero_shot("CLIP-Deconv (PC+)", "deconv", 4, 25.9, 41.9),
    _zero_shot("ViTSeg (PC+)", "vitseg", 10, 4.2, 19.0),
    _zero_shot("ViTSeg (PC+)", "vitseg", 4, 6.0, 24.8),
    _few_shot("CLIPSeg (PC+)", "pascal5i_pc_plus", "pascal5i_one_shot", 0.3, (59.5, 75.0, 82.3)),
    _few_shot("CLIPSeg (PC)", "pascal5i_pc", "pascal5i_one_shot", 0.3, (52.3, 69.5, 72.4)),
    _few_shot("CLIP-Deconv (PC+)", "pascal5i_deconv", "pascal5i_one_shot", 0.2, (48.0, 65.8, 68.0)),
    _few_shot("ViTSeg (PC+)", "pascal5i_vitseg", "pascal5i_one_shot", 0.2, (39.0, 59.0, 62.4)),
    _few_shot("CLIPSeg (PC+)", "pascal5i_pc_plus", "pascal5i_text", 0.3, (72.4, 83.1, 93.5)),
    _few_shot("CLIPSeg (PC)", "pascal5i_pc", "pascal5i_text", 0.3, (70.3, 81.6, 84.8)),
    _few_shot("CLIP-Deconv (PC+)", "pascal5i_deconv", "pascal5i_text", 0.3, (63.2, 77.3, 85.3)),
    _few_shot("ViTSeg (PC+)", "pascal5i_vitseg", "pascal5i_text", 0.2, (39.0, 59.0, 62.4)),
    _few_shot("CLIPSeg (COCO)", "coco20i_plain", "coco20i_one_shot", 0.1, (33.2, 58.4, 40.5)),
    _few_shot("CLIPSeg (COCO+N)", "coco20i_negatives", "coco20i_one_shot", 0.1, (33.3, 59.1, 41.7)),
    _few_shot("CLIP-Deconv (COCO+N)", "coco20i_deconv", "coco20i_one_shot", 0.1, (29.8, 56.8, 40.8)),
    _few_shot("ViTSeg (COCO)", "coco20i_vitseg", "coco20i_one_shot", 0.1, (14.4, 46.1, 15.7)),
    _generalized("CLIPSeg (PC+)", "generalized_pc_plus", "affordances", 36.9, 50.5),
    _generalized("CLIPSeg (PC+)", "generalized_pc_plus", "attributes", 26.6, 43.0),
    _generalized("CLIPSeg (PC+)", "generalized_pc_plus", "meronymy", 25.7, 29.0),
    _generalized("CLIPSeg (LVIS)", "generalized_lvis", "affordances", 37.7, 44.6),
    _generalized("CLIPSeg (LVIS)", "generalized_lvis", "attributes", 18.4, 16.6),
    _generalized("CLIPSeg (LVIS)", "generalized_lvis", "meronymy", 18.9, 13.8),
    _generalized("CLIP-Deconv", "generalized_deconv", "affordances", 32.2, 43.7),
    _generalized("CLIP-Deconv", "generalized_deconv", "attributes", 23.1, 35.6),
    _generalized("CLIP-Deconv", "generalized_deconv", "meronymy", 21.1, 27.1),
    _generalized("ViTSeg (PC+)", "generalized_vitseg", "affordances", 19.2, 23.5),
    _generalized("ViTSeg (PC+)", "generalized_vitseg", "attributes", 26.8, 28.0),
    _generalized("ViTSeg (PC+)", "generalized_vitseg", "meronymy", 18.4, 15.9),
    _ablation("CLIPSeg (PC+)", "phrasecut_pc_plus", "text", 43.6, 76.7),
    _ablation("CLIPSeg (PC+)", "phrasecut_pc_plus", "visual", 25.4, 55.6),
    _ablation("no CLIP pre-training", "ablation_no_pretraining", "text", 13.1, 12.6),
    _ablation("no CLIP pre-training", "ablation_no_pretraining", "visual", 12.7, None),
    _ablation("no visual", "ablation_no_visual", "text", 46.4, 77.8),
    _ablation("no visual", "ablation_no_visual", "visual", 14.4, 31.0),
    _ablation("D = 16", "ablation_d16", "text", 37.4, 71.5),
    _ablation("D = 16", "ablation_d16", "visual", 24.7, 51.2),
    _ablation("only layer 3", "ablation_layer3", "text", 31.9, 64.9),
    _ablation("only layer 3", "ablation_layer3", "visual", 21.5, 48.6),
    _ablation("highlight mask", "ablation_highlight", "text", 43.4, 75.4),
    _ablation("highlight mask", "ablation_highlight", "visual", 23.3, 43.8),
)


def rows_beside(protocol: str) -> Sequence[PaperRow]:
    """The rows, named as the figures they stand beside: Tab. 4's columns as scored, or ("paper") as they are called."""
    if protocol != "paper":
        return ROWS
    return [replace(row, values={name.removesuffix("_as_scored"): value for name, value in row.values.items()}) for row in ROWS]


def paper_values(experiment: str, benchmark: str, protocol: str = "released") -> dict[str, float] | None:
    """Return what the paper prints for an experiment on a benchmark.

    Args:
        experiment: its name; a fold (`pascal5i_fold2_pc_plus`) is compared with the paper's mean over the folds.
        benchmark: `phrasecut`, `phrasecut_visual`, `pascal_zeroshot`, `pascal5i_one_shot`, `pascal5i_text`,
            `coco20i_one_shot`, `lvis_affordances`, `lvis_attributes` or `lvis_meronymy`.
        protocol: of the figures that they stand beside.

    Returns:
        Names of `metrics.json` -> percent, of all tables that hold such a row, and `threshold` where the paper fixes it;
        None where the paper has no such row.
    """
    name = re.sub(r"_fold\d+", "", experiment)
    rows = [row for row in rows_beside(protocol) if row.experiment == name and row.benchmark == benchmark]
    if not rows:
        return None
    values: dict[str, float] = {}
    for row in reversed(rows):  # where two tables print the same figure, the earlier table counts
        values |= row.values
        if row.threshold is not None:
            values["threshold"] = row.threshold
    return values


def is_synthetic(provenance: Mapping[str, Any]) -> bool:
    """Whether a result is of the data that draw themselves (`data.root=mini`), whose height says nothing beside the paper's."""
    config = provenance.get("config")
    data = config.get("data") if isinstance(config, Mapping) else None
    return isinstance(data, Mapping) and data.get("root") == "mini"


def paper_beside(provenance: Mapping[str, Any]) -> dict[str, float] | None:
    """`paper_values` for the experiment and benchmark of a result; None also where its data are synthetic."""
    if is_synthetic(provenance):
        return None
    return paper_values(*(str(provenance.get(name)) for name in ("experiment", "benchmark", "protocol")))
