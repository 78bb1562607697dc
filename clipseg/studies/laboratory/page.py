"""The page of a study of words, and its table for a terminal."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from clipseg.measure.figures import form_bars
from clipseg.measure.page import page_title, write_page
from clipseg.measure.report import provenance_parts
from clipseg.measure.significance import FEW_CLUSTERS, Interval, NotTestable
from clipseg.measure.tables import monospaced
from clipseg.run.jobs import Job
from clipseg.studies.laboratory.asking import Ask, Score, Shown, ask_all
from clipseg.studies.laboratory.results import Line, WordResults
from clipseg.studies.laboratory.settings import LaboratoryKeys


def run_words(job: Job, ask: Ask, score: Score, kind: type[WordResults], *, about: str) -> None:
    """Ask every question about the job's split, and write what was measured with its page."""
    assert isinstance(job.config, LaboratoryKeys)
    found = ask_all(job, job.config.split, ask, score, first_images=job.config.first_images)
    results = kind.of_rows(found.rows, threshold=job.config.threshold, seconds=found.seconds, provenance=found.provenance)
    if job.processes.is_main:
        finish(job.folder, results, found.examples, about=about, seed=job.config.seed)


def finish(folder: Path, results: WordResults, examples: Sequence[Shown], *, about: str, seed: int) -> None:
    """Save the results, write `report.html` and print the table."""
    results.save(folder)
    lines = results.lines(seed=seed)
    facts, details = provenance_parts(results.provenance)
    main = next(iter(results.FIGURES))
    ends = [_ends(*line.figures[main]) for line in lines]
    chart = form_bars(
        [line.kind for line in lines],
        [100 * line.figures[main][0] for line in lines],
        [(100 * low, 100 * high) for low, high in ends],
        label="percent",
    )
    write_page(
        folder / "report.html",
        "studies/laboratory/page.html.j2",
        title=page_title(results.provenance),
        results=results,
        images=lines[0].images,
        about=about,
        chart=Markup(chart),
        main=results.FIGURES[main],
        columns=("asked", *results.FIGURES, "questions", "images"),
        titles=results.FIGURES,
        rows=[_cells(line) for line in lines],
        examples=examples,
        facts=facts,
        details=details,
    )
    print(format_lines(results, lines))


def _ends(value: float, interval: Interval | NotTestable) -> tuple[float, float]:
    return (interval.low, interval.high) if isinstance(interval, Interval) else (value, value)


def _cells(line: Line) -> tuple[str, ...]:
    few = " (few)" if line.images < FEW_CLUSTERS else ""
    return (line.kind, *(_percent(*figure) for figure in line.figures.values()), str(line.rows), f"{line.images}{few}")


def _percent(value: float, interval: Interval | NotTestable) -> str:
    if not isinstance(interval, Interval):
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def format_lines(results: WordResults, lines: Sequence[Line]) -> str:
    """Return a plain monospaced table, percent without the intervals, which the page has."""
    cells = [
        (line.kind, *(f"{100 * value:.1f}" for value, _ in line.figures.values()), str(line.rows), str(line.images))
        for line in lines
    ]
    table = monospaced([("asked", *results.FIGURES, "questions", "images"), *cells])
    return f"{table}\n{results.seconds:.1f} s; percent at threshold {results.threshold:.2f}; intervals: report.html"
