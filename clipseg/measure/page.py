"""Pages from templates: self-contained, without JavaScript, everything that others wrote escaped."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from clipseg.files import atomic_write
from clipseg.measure.significance import FEW_CLUSTERS


def page_title(provenance: Mapping[str, Any]) -> str:
    """The title of a result's page: what it is of, and by which protocol, as far as its provenance says."""
    named = [str(provenance[name]) for name in ("experiment", "benchmark", "split") if provenance.get(name)]
    protocol = [f"protocol {provenance['protocol']}"] if provenance.get("protocol") else []
    return " · ".join(named + protocol) or "Evaluation"


def single_values(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what of a provenance fits a line: name -> value."""
    return {name: str(value) for name, value in provenance.items() if isinstance(value, (str, int, float))}


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of HTML and write it.

    Where `values` tell the number of `images` that intervals are drawn from, the page warns of few.
    """
    page = fill_template(template, autoescape=True, few_clusters=FEW_CLUSTERS, **values)
    with atomic_write(path) as file:
        # Other people's text may hold halves of surrogate pairs (JSON allows them), which UTF-8 does not.
        file.write(page.encode("utf-8", errors="replace"))


def fill_template(template: str, *, autoescape: bool, **values: Any) -> str:
    """Return a template, a path inside the package, filled; its filter `jpeg` makes bytes an inline picture."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clipseg", ""),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["jpeg"] = lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
    return environment.get_template(template).render(**values)
