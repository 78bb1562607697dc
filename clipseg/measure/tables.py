"""Ours beside the paper's: the figures of one evaluation as rows and as text for a terminal. Made from `metrics.json` alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FIGURES = {"miou": "mIoU", "mdice": "mean Dice", "iou_fg": "IoU_FG", "dice": "Dice_FG", "iou_bin": "IoU_BIN"}
_OFFICIAL = {
    "miou_official": "mIoU, original size",
    "mean_iou_official": "mean IoU of samples, original size",
    "cum_iou_official": "cumulative IoU, original size",
    "pr@0.3": "Pr@0.3",
    "pr@0.5": "Pr@0.5",
    "pr@0.7": "Pr@0.7",
    "pr@0.9": "Pr@0.9",
}


@dataclass(frozen=True)
class TableRow:
    """One figure as text in percent with one decimal; empty where there is none."""

    name: str
    plain: str
    released: str
    paper: str


def table_rows(metrics: Mapping[str, float], paper: Mapping[str, float] | None) -> list[TableRow]:
    """The rows of one evaluation's table.

    Args:
        metrics: of `metrics.json`, fractions.
        paper: of `paper.paper_values`, percent.

    Returns:
        The figures at the threshold, at the best threshold, AP, and PhraseCut's own, as far as `metrics` holds them.
    """
    threshold = metrics["threshold"]
    names = {figure: f"{title} at {threshold:.2f}" for figure, title in _FIGURES.items()}
    names |= {f"{figure}_best": f"{title}, best" for figure, title in _FIGURES.items()}
    names |= {"own_threshold/miou": "mIoU, a threshold a phrase", "own_threshold/iou_fg": "IoU_FG, a threshold a phrase"}
    names |= {"ap": "AP", **_OFFICIAL}
    return [
        TableRow(title, _with_best(metrics, name), _with_best(metrics, f"released/{name}"), _paper(paper, name, threshold))
        for name, title in names.items()
        if name in metrics
    ]


def _with_best(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    best = metrics.get(f"{name}_threshold")
    return f"{100 * metrics[name]:.1f}" + (f" at {best:.2f}" if best is not None else "")


def _paper(paper: Mapping[str, float] | None, name: str, threshold: float) -> str:
    if not paper or name not in paper:
        return ""
    # A figure at the paper's threshold stands beside ours at another only with that said.
    elsewhere = name in _FIGURES and "threshold" in paper and paper["threshold"] != threshold
    return f"{paper[name]:.1f}" + (f" at {paper['threshold']:.2f}" if elsewhere else "")


def format_table(metrics: Mapping[str, float], paper: Mapping[str, float] | None = None) -> str:
    """A plain monospaced table: figure, both definitions, and the paper's value where there is one; percent."""
    rows = table_rows(metrics, paper)
    cells = [("percent", "plain", "released", "paper")] + [(row.name, row.plain, row.released, row.paper) for row in rows]
    columns = 4 if any(row.paper for row in rows) else 3
    footer = f"{metrics['samples']:.0f} samples, {metrics['seconds']:.1f} s; released: 1 added to every denominator"
    if "images_left_out" in metrics:
        footer += f"\n{metrics['images_left_out']:.0f} images could not be read and were left out"
    return "\n".join([monospaced([line[:columns] for line in cells]), footer])


def monospaced(lines: Sequence[Sequence[str]]) -> str:
    """Cells as text for a terminal: the first line is the header, the first column stands left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)])
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    return "\n".join(map(str.rstrip, text))
