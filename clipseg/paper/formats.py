"""The paper's tables and ours as text: Markdown, LaTeX, HTML. Everything that others wrote is escaped."""

import re
from collections.abc import Sequence
from pathlib import Path

from clipseg.files import atomic_write
from clipseg.measure.page import write_page
from clipseg.paper.tables import COLUMNS, PaperTables


def to_markdown(tables: PaperTables) -> str:
    """All tables as Markdown."""
    lines = [tables.legend, ""]
    for table, rows in tables.tables.items():
        lines += [f"## {table}", "", _markdown_row(COLUMNS), "|" + "---|" * 2 + "---:|" * (len(COLUMNS) - 2)]
        lines += [*(_markdown_row(row.cells()) for row in rows), ""]
    return "\n".join([*lines, *(f"{_markdown(note)}\n" for note in tables.notes)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_markdown, cells)) + " |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\|_*`<>\[\]])", r"\\\1", " ".join(text.split()))


def to_latex(tables: PaperTables) -> str:
    """All tables as LaTeX, each a `table` of a `tabular`, without other packages."""
    lines = [f"% {' '.join(tables.legend.split())}"]
    for table, rows in tables.tables.items():
        lines += [
            r"\begin{table}",
            rf"\caption{{{_latex(table)} of the paper, and ours}}",
            r"\begin{tabular}{ll" + "r" * 5 + "}",
        ]
        lines += [r"\hline", _latex_row(COLUMNS), r"\hline", *(_latex_row(row.cells()) for row in rows), r"\hline"]
        lines += [r"\end{tabular}", r"\end{table}", ""]
    return "\n".join([*lines, *(f"% {' '.join(note.split())}" for note in tables.notes), ""])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def write_tables(folder: Path, tables: PaperTables) -> list[Path]:
    """Write `tables.md`, `tables.tex` and `tables.html` into `folder`; returns their paths."""
    paths = [folder / f"tables.{suffix}" for suffix in ("md", "tex", "html")]
    for path, text in zip(paths, (to_markdown(tables), to_latex(tables)), strict=False):
        with atomic_write(path) as file:
            file.write(text.encode("utf-8", errors="replace"))
    write_page(
        paths[2],
        "paper/tables.html.j2",
        title="The paper's tables and ours",
        legend=tables.legend,
        columns=COLUMNS,
        tables={table: [row.cells() for row in rows] for table, rows in tables.tables.items()},
        notes=tables.notes,
    )
    return paths
