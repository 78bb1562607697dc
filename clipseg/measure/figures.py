"""Pictures of an evaluation: curves as SVG text that goes inline into a page, samples as JPEG strips.

The same numbers give the same bytes. Colours are Okabe and Ito's, which colour-blind readers can tell apart; every curve has a
line style of its own as well. Text and axes take the colour of the page around them, so that light and dark pages both work.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from clipseg.measure.breakdown import Part
from clipseg.measure.metrics import THRESHOLDS
from clipseg.measure.reliability import Reliability
from clipseg.measure.significance import Interval

_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
_INK = "#010203"  # stands for the page's text colour, and is replaced by it
_TRUTH_COLOUR = np.array([230, 159, 0], dtype=np.float32)  # the orange
_TILE_PX, _GAP_PX = 224, 4


def iou_over_threshold(curves: Mapping[str, NDArray[np.float64]], *, threshold: float) -> str:
    """mIoU, IoU_FG and IoU_BIN over the 49 thresholds, the chosen threshold marked.

    Args:
        curves: of `metrics.curves`, fractions.
        threshold: of the tables.

    Returns:
        One `<svg>` element.
    """
    with matplotlib.rc_context(_style("iou")):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.axvline(threshold, color=_INK, linewidth=1, alpha=0.5)
        axes.plot(THRESHOLDS, 100 * curves["miou"], color=_BLUE, label="mIoU")
        axes.plot(THRESHOLDS, 100 * curves["iou_fg"], color=_ORANGE, linestyle="--", label="IoU_FG")
        axes.plot(THRESHOLDS, 100 * curves["iou_bin"], color=_GREEN, linestyle="-.", label="IoU_BIN")
        axes.set(xlabel="threshold", ylabel="IoU in percent", xlim=(0, 1), ylim=(0, 100))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3)
        return _svg(figure)


def precision_over_recall(curves: Mapping[str, NDArray[np.float64]], *, threshold: float) -> str:
    """The precision-recall curve that AP integrates, the chosen threshold marked; arguments as in `iou_over_threshold`."""
    with matplotlib.rc_context(_style("precision-recall")):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.subplots()
        precision, recall = 100 * curves["precision"], 100 * curves["recall"]
        chosen = int(np.abs(THRESHOLDS - threshold).argmin())
        axes.plot(recall, precision, color=_BLUE, marker=".", markersize=4)
        axes.plot(
            recall[chosen], precision[chosen], color=_ORANGE, marker="o", linestyle="", label=f"threshold {threshold:.2f}"
        )
        axes.set(xlabel="recall in percent", ylabel="precision in percent", xlim=(0, 100), ylim=(0, 100))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14))
        return _svg(figure)


def iou_over_size(parts: Sequence[Part]) -> str:
    """Mean IoU over the size of the object with 95% intervals (the paper's Fig. 8), as one `<svg>` element."""
    with matplotlib.rc_context(_style("size")):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.subplots()
        places, means = np.arange(len(parts)), np.array([part.mean for part in parts])
        axes.plot(places, means, color=_BLUE, marker="o", markersize=5)
        for place, part in zip(places, parts, strict=True):
            if isinstance(part.interval, Interval):
                axes.plot([place, place], [part.interval.low, part.interval.high], color=_BLUE, linewidth=1.5, alpha=0.6)
        ticks = [part.name.replace(" to ", "–") for part in parts]
        axes.set(
            xlabel="object's share of the image", ylabel="mean IoU in percent", ylim=(0, 100), xlim=(-0.5, len(parts) - 0.5)
        )
        axes.set_xticks(places, ticks, rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
        return _svg(figure)


def reliability_curve(curve: Reliability) -> str:
    """How often pixels of a probability lie in the truth, and how many pixels have it, as one `<svg>` element."""
    with matplotlib.rc_context(_style("reliability")):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = figure.subplots()
        width = 100 / len(curve.share)
        axes.bar(100 * curve.probability, 100 * curve.share, width=width, color=_ORANGE, alpha=0.5, label="share of pixels")
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, alpha=0.5)
        axes.plot(100 * curve.probability, 100 * curve.frequency, color=_BLUE, marker=".", markersize=4, label="in the truth")
        axes.set(xlabel="predicted probability in percent", ylabel="pixels in percent", xlim=(0, 100), ylim=(0, 100))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)
        return _svg(figure)


def form_bars(
    names: Sequence[str],
    means: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    *,
    label: str = "mean IoU in percent",
) -> str:
    """A figure in percent by the form of the prompt, first on top, with 95% intervals (the paper's Fig. 7), as one `<svg>`."""
    with matplotlib.rc_context(_style("forms")):
        figure = Figure(figsize=(5.6, 0.9 + 0.32 * len(names)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))
        lengths = np.array([[mean - low, high - mean] for mean, (low, high) in zip(means, intervals, strict=True)]).T
        axes.barh(places, means, xerr=lengths, color=_BLUE, ecolor=_INK, capsize=3)
        axes.axvline(means[0], color=_INK, linewidth=1, alpha=0.5)
        axes.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(places, names, parse_math=False)
        return _svg(figure)


def delta_bars(
    names: Sequence[str], means: Sequence[float], intervals: Sequence[tuple[float, float]], paper: Sequence[float | None]
) -> str:
    """Bars of a change in points, a name each, first on top, with 95% intervals, and the paper's value as a diamond.

    Args:
        names: of the bars.
        means: in points.
        intervals: low and high ends; both the mean where there is none.
        paper: None where the paper has no such bar.

    Returns:
        One `<svg>` element.
    """
    with matplotlib.rc_context(_style("deltas")):
        figure = Figure(figsize=(7.2, 0.8 + 0.32 * len(names)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))
        errors = [[mean - low for mean, (low, _) in zip(means, intervals, strict=True)]]
        errors.append([high - mean for mean, (_, high) in zip(means, intervals, strict=True)])
        axes.barh(places, means, xerr=errors, color=_BLUE, ecolor=_INK, capsize=3, label="ours, 95% interval")
        printed = [(value, place) for value, place in zip(paper, places, strict=True) if value is not None]
        if printed:
            axes.plot(*zip(*printed, strict=True), color=_ORANGE, marker="D", linestyle="", label="paper")
        axes.axvline(0, color=_INK, linewidth=1)
        axes.set(xlabel="ΔP(object) in points", yticks=places, yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure)


def over_input_size(
    sizes: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]],
    *,
    native: int,
) -> str:
    """Curves over the side of the input in pixels, with 95% intervals where there are some (Fig. 5).

    Args:
        sizes: S sides, ascending.
        curves: how each is called -> S fractions; at most four.
        intervals: of the curves that have some, low and high ends.
        native: the side the model was made for, which is marked.

    Returns:
        One `<svg>` element.
    """
    with matplotlib.rc_context(_style("input size")):
        figure = Figure(figsize=(4.8, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.axvline(native, color=_INK, linewidth=1, alpha=0.5, label="native size")
        looks = ((_BLUE, "-", "o"), (_ORANGE, "--", "s"), (_GREEN, "-.", "^"), (_PURPLE, ":", "D"))
        for (name, values), (colour, line, marker) in zip(curves.items(), looks, strict=False):
            percent = 100 * np.array(values)
            axes.plot(sizes, percent, color=colour, linestyle=line, marker=marker, markersize=5, label=name)
            if name in intervals:
                low, high = 100 * np.array(intervals[name]).T
                axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0, label="95% interval")
        axes.set(xlabel="side of the input in pixels", ylabel="percent", xticks=sizes)
        axes.set_ylim(max(axes.get_ylim()[0], 0), min(axes.get_ylim()[1], 101))
        figure.legend(loc="outside upper center", ncols=2)
        return _svg(figure)


def over_text_weight(weights: Sequence[float], means: Sequence[float], intervals: Sequence[tuple[float, float]]) -> str:
    """Mean IoU in percent over the weight of the text in a mix, with its 95% band, as one `<svg>` element."""
    with matplotlib.rc_context(_style("text weight")):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(weights, means, color=_BLUE, marker="o", markersize=5)
        axes.fill_between(weights, *np.array(intervals).T, color=_BLUE, alpha=0.2, linewidth=0)
        axes.set(xlabel="weight of the text (0: the picture alone)", ylabel="mean IoU in percent")
        return _svg(figure)


def tile_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """One picture, RGB `[H, W, 3]`, as a JPEG file, its longer side at most 224 pixels."""
    file = io.BytesIO()
    _tile(pixels.astype(np.float32)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _style(salt: str) -> dict[Any, Any]:
    """Ids that depend on `salt` alone, text that stays text, sizes for a page as wide as a phone."""
    settings: dict[Any, Any] = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 11,
        "axes.grid": True,
        "grid.alpha": 0.2,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    return settings | dict.fromkeys(inked, _INK)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def panel(image: NDArray[np.uint8], truth: NDArray[np.uint8], probability: NDArray[np.float32], *, threshold: float) -> bytes:
    """One sample as a strip of four: photo, truth (orange), heat map of the probability, and the object cut out.

    Args:
        image: RGB `[H, W, 3]`.
        truth: `[H, W]`, 0 and 1.
        probability: `[H, W]`, in [0, 1].
        threshold: the cut shows pixels with a probability above it.

    Returns:
        A JPEG file, the longer side of each tile at most 224 pixels.
    """
    assert image.shape == (*truth.shape, 3), (image.shape, truth.shape)
    assert probability.shape == truth.shape, (probability.shape, truth.shape)
    photo = image.astype(np.float32)
    truth_overlay = np.where(truth[:, :, None] > 0, 0.4 * photo + 0.6 * _TRUTH_COLOUR, 0.6 * photo)
    heat = 255 * matplotlib.colormaps["viridis"](probability)[:, :, :3]
    heat_overlay = 0.25 * photo.mean(axis=2, keepdims=True) + 0.75 * heat
    cut = np.where(probability[:, :, None] > threshold, photo, 255)
    return strip_jpeg([photo, truth_overlay, heat_overlay, cut])


def strip_jpeg(pictures: Sequence[NDArray[Any]]) -> bytes:
    """Pictures of one size beside each other, RGB `[H, W, 3]` in 0 to 255, as a JPEG file; each at most 224 pixels long."""
    tiles = [_tile(pixels.astype(np.float32)) for pixels in pictures]
    width, height = tiles[0].size
    strip = Image.new("RGB", (len(tiles) * (width + _GAP_PX) - _GAP_PX, height), "white")
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (width + _GAP_PX), 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=85)
    return file.getvalue()


def _tile(pixels: NDArray[np.float32]) -> Image.Image:
    tile = Image.fromarray(np.rint(pixels).astype(np.uint8))
    scale = min(1.0, _TILE_PX / max(tile.size))
    size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
    return tile.resize(size, Image.Resampling.LANCZOS)
