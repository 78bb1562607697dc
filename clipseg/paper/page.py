"""The page of the paper in miniature: Markdown with pictures beside it, as hosts of repositories show it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clipseg.files import atomic_write
from clipseg.measure.page import fill_template
from clipseg.measure.significance import FEW_CLUSTERS, TTest
from clipseg.paper.directions import ALPHA, DEFINITION, LARGE, NO_DIFFERENCE, Row, Section
from clipseg.paper.figures import Curve, bars, heat, lines
from clipseg.paper.questions import LABELS

COLUMNS = ("row", "ours", "paper", "Δ ours", "95%, images", "t (df)", "p, Holm", "p, B.-H.", "Δ paper", "direction")
ABOUT = {
    "Tab. 9": (
        'The ablation: every row against CLIPSeg (PC+), by Welch\'s t-test over training seeds. As released, "no visual" has '
        "the recipe of Tab. 3's CLIPSeg (PC): the same runs stand in both."
    ),
    "Tab. 3": "The rows that need no other image tower, against CLIPSeg (PC+), by Welch's t-test over training seeds.",
    "Held-out pairs": (
        "`unseen` holds pairs of a colour and a category, and of a category and a relation, that training never names. "
        "Nearest in the paper are the unseen-10 classes of Tab. 4, and ViTSeg for a CLIPSeg without CLIP's image tower; there "
        "the seen and the unseen are different classes, not only seen or not, and here the two splits are other drawings, of "
        "other kinds of phrases. The same runs on two splits are compared by a paired t-test over seeds, different runs "
        "by Welch's."
    ),
    "Tab. 2": (
        "What showing CLIP an object does for the probability of its name. Nothing is trained, so there is no seed: the test "
        "is a t-test over images, objects of one image averaged, against no change."
    ),
}


def write_miniature(
    folder: Path,
    sections: Sequence[Section],
    facts: Mapping[str, str],
    *,
    curves: Mapping[str, Sequence[Curve]],
    errors: Mapping[str, Mapping[str, float]],
) -> Path:
    """Write `README.md` and its pictures into `folder`.

    Args:
        folder: is made where it is missing.
        sections: of `miniature.sections`.
        facts: what else is to be known of the runs, name -> text.
        curves: of each experiment's validations, a curve a seed.
        errors: mean IoU in percent, subset -> experiment -> value.

    Returns:
        The path of the page.
    """
    text = fill_template(
        "paper/page.md.j2",
        autoescape=False,
        sections=sections,
        verdicts=sum((section.verdicts for section in sections), Counter()),
        disagreeing=[
            (section, panel, row)
            for section in sections
            for panel in section.panels
            for row in panel.rows
            if row.verdict.startswith("disagrees")
        ],
        agreement=agreement(sections),
        definition=DEFINITION,
        alpha=ALPHA,
        no_difference=NO_DIFFERENCE,
        about=ABOUT,
        header=_markdown(COLUMNS),
        line=_line,
        few_clusters=FEW_CLUSTERS,
        pictures={section.name: _write_pictures(folder, section) for section in sections},
        facts=facts,
        errors=_by_subset(errors),
        has_curves=bool(curves),
    )
    if curves:
        with atomic_write(folder / "curves.svg", "w") as file:
            file.write(lines({LABELS[experiment]: seeds for experiment, seeds in curves.items()}))
    path = folder / "README.md"
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def agreement(sections: Sequence[Section]) -> list[str]:
    """The lines of a table: a column a section and one for all, of the paper's large differences and of ranks."""
    large = [section.verdicts_of_large for section in sections]
    large.append(sum(large, Counter()))

    def share(verdicts: tuple[str, ...]) -> list[str]:
        return [f"{sum(map(found.__getitem__, verdicts))} of {found.total()}" for found in large]

    direction = ("agrees", "agrees, not significant", "agrees, not tested")
    ranks = [section.rank_correlation for section in sections]
    return [
        _markdown((f"the paper's differences of {LARGE:g} points and more: direction", *share(direction))),
        _markdown(("… and significant", *share(direction[:1]))),
        _markdown(
            ("Spearman's ρ of our differences and the paper's", *("" if rank is None else f"{rank:.2f}" for rank in ranks), "")
        ),
    ]


def _by_subset(errors: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The lines of a table: a column an experiment, a row a subset."""
    names = [name for name in LABELS if any(name in values for values in errors.values())]
    rows = [(subset, *(f"{values[name]:.1f}" if name in values else "" for name in names)) for subset, values in errors.items()]
    head = [_markdown(("subset", *map(LABELS.__getitem__, names))), "|---|" + "---:|" * len(names)]
    return [*head, *map(_markdown, rows)] if rows else []


def _write_pictures(folder: Path, section: Section) -> list[str]:
    """Write a section's pictures, and tell their names."""
    name = section.name.lower().replace(". ", "").replace(" ", "_").replace("-", "_")
    pictures = {f"{name}.svg": bars(section)}
    if section.name == "Tab. 9" and any(row.difference is not None for panel in section.panels for row in panel.rows):
        pictures[f"{name}_differences.svg"] = heat(section)
    for file_name, svg in pictures.items():
        with atomic_write(folder / file_name, "w") as file:
            file.write(svg)
    return list(pictures)


def _line(row: Row) -> str:
    spread = f" ± {np.std(row.ours, ddof=1):.1f}" if len(row.ours) > 1 else ""
    numbers = (
        f"{np.mean(row.ours):.1f}{spread}" if row.ours else "",
        "" if row.paper is None else f"{row.paper:.1f}",
        "" if row.difference is None else f"{row.difference:+.1f}",
        "" if row.images is None else f"{row.images.low:+.1f} to {row.images.high:+.1f}",
        f"{row.test.statistic:.1f} ({row.test.degrees_of_freedom:.1f})" if isinstance(row.test, TTest) else "",
        "" if row.p_holm is None else f"{row.p_holm:.2g}",
        "" if row.p_rate is None else f"{row.p_rate:.2g}",
        "" if row.paper_difference is None else f"{row.paper_difference:+.1f}",
    )
    # Spaces that do not break and minus signs keep a number on one line in a narrow column.
    typeset = (number.replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}") for number in numbers)
    return _markdown((row.label, *typeset, f"**{row.verdict}**" if row.verdict.startswith("disagrees") else row.verdict))


def _markdown(cells: Sequence[str]) -> str:
    """A table's line; the labels' own marks are meant."""
    return "| " + " | ".join(cells) + " |"
