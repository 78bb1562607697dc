"""Does the form of the prompt matter? One evaluation in several forms, each compared with the bare phrase (the paper's Fig. 7).

Made from results alone; values are in percent, differences in points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from clipseg.measure.alignment import check_same_samples, sample_values
from clipseg.measure.figures import form_bars
from clipseg.measure.page import page_title, write_page
from clipseg.measure.report import provenance_parts
from clipseg.measure.results import Results, SavedResults
from clipseg.measure.significance import Interval, NotTestable, Outcome, cluster_bootstrap, paired_t
from clipseg.measure.statistics.corrections import holm_outcomes, rate_outcomes
from clipseg.measure.tables import monospaced

BARE = "bare"
COLUMNS = ("form", "mIoU", "95% interval", "IoU_FG", "AP", "against bare", "95% interval", "t", "p, Holm", "p, B.-H.")


@dataclass(frozen=True, kw_only=True)
class FormEffect:
    """One form of the prompt.

    Attributes:
        form: its name.
        mean: of the samples' IoU.
        interval: of the mean, by a bootstrap clustered by image.
        difference: of the mean to that of the bare phrase; 0 for the bare phrase itself.
        difference_interval: by a bootstrap clustered by image.
        test: paired, over samples; its p over the forms is `p_holm` by Holm, `p_rate` by Benjamini and Hochberg.
    """

    form: str
    mean: float
    interval: Interval | NotTestable
    difference: float
    difference_interval: Interval | NotTestable
    test: Outcome
    p_holm: float | None
    p_rate: float | None


@dataclass(frozen=True)
class FormComparison(SavedResults):
    """Results by form, and the effect of each form, in the same order."""

    forms: Mapping[str, Results]
    effects: Sequence[FormEffect]
    provenance: Mapping[str, Any]

    @property
    def bare(self) -> Results:
        """The results that the others are compared with."""
        return self.forms[BARE]

    def metrics(self) -> dict[str, float]:
        """The figures of each form as `form/<name>/<figure>`, those of the tables as fractions; and samples."""
        figures: dict[str, float] = {}
        for name, results in self.forms.items():
            metrics = results.metrics()
            figures |= {f"form/{name}/{figure}": metrics[figure] for figure in ("miou", "iou_fg", "iou_bin", "miou_best", "ap")}
        for effect in self.effects:
            if effect.p_holm is not None:
                figures[f"form/{effect.form}/difference_points"] = effect.difference
                figures[f"form/{effect.form}/p_holm"] = effect.p_holm
        return figures | {"samples": len(self.bare), "seconds": self.bare.seconds, "threshold": self.bare.threshold}


def compare_forms(forms: Mapping[str, Results], *, provenance: Mapping[str, Any], seed: int = 0) -> FormComparison:
    """Compare each form with the bare phrase, which is among them.

    Args:
        forms: name -> results.
        provenance: of the comparison.
        seed: of the bootstraps.

    Raises:
        ClipSegError: the results are not of the same samples.
    """
    bare = forms[BARE]
    for name, results in forms.items():
        check_same_samples((BARE, name), bare, results)
    values = {name: sample_values(results, "iou", results.threshold) for name, results in forms.items()}
    tests = {name: paired_t(iou, values[BARE]) for name, iou in values.items() if name != BARE}
    outcomes = list(tests.values())
    adjusted = dict(zip(tests, zip(holm_outcomes(outcomes), rate_outcomes(outcomes), strict=True), strict=True))
    effects = [
        FormEffect(
            form=name,
            mean=float(iou.mean()),
            interval=cluster_bootstrap(iou, bare.image_key, seed=seed),
            difference=float((iou - values[BARE]).mean()),
            difference_interval=cluster_bootstrap(iou - values[BARE], bare.image_key, seed=seed),
            test=tests.get(name, NotTestable("it is what the others are compared with")),
            p_holm=adjusted.get(name, (None, None))[0],
            p_rate=adjusted.get(name, (None, None))[1],
        )
        for name, iou in values.items()
    ]
    return FormComparison(forms, effects, provenance)


def form_cells(comparison: FormComparison) -> list[tuple[str, ...]]:
    """The comparison as text, a row a form, in the order of `COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for effect in comparison.effects:
        figures = comparison.forms[effect.form].metrics()
        shown = [f"{100 * figures[name]:.1f}" for name in ("iou_fg", "ap")]
        against = [""] * 5
        if effect.form != BARE:
            against = [f"{effect.difference:+.2f}", _ends(effect.difference_interval, 2), str(effect.test), "", ""]
            if not isinstance(effect.test, NotTestable):
                against[2:] = [f"{effect.test.statistic:.2f}", f"{effect.p_holm:.2g}", f"{effect.p_rate:.2g}"]
        rows.append((effect.form, f"{effect.mean:.1f}", _ends(effect.interval), *shown, *against))
    return rows


def _ends(interval: Interval | NotTestable, decimals: int = 1) -> str:
    return f"[{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]" if isinstance(interval, Interval) else ""


def format_forms(comparison: FormComparison) -> str:
    """A plain monospaced table of the comparison."""
    bare = comparison.bare
    footer = f"{len(bare)} samples, {bare.seconds:.1f} s; percent at {bare.threshold:.2f}; mIoU: mean over samples"
    return "\n".join([monospaced([COLUMNS, *form_cells(comparison)]), footer])


def write_forms_report(folder: Path, comparison: FormComparison) -> Path:
    """Write `report.html` into `folder`: a chart, the table, and what each form is."""
    bare, effects = comparison.bare, comparison.effects
    own = ("form", "templates", "mean_embedding")
    facts, details = provenance_parts({name: value for name, value in bare.provenance.items() if name not in own})
    ends = [
        (each.interval.low, each.interval.high) if isinstance(each.interval, Interval) else (each.mean, each.mean)
        for each in effects
    ]
    path = folder / "report.html"
    write_page(
        path,
        "studies/prompt_forms/page.html.j2",
        title=page_title(bare.provenance),
        bare=bare,
        images=len(np.unique(bare.image_key)),
        chart=Markup(form_bars([each.form for each in effects], [each.mean for each in effects], ends)),
        columns=COLUMNS,
        rows=form_cells(comparison),
        templates={name: results.provenance.get("templates", []) for name, results in comparison.forms.items()},
        facts=facts,
        details=details,
    )
    return path
