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


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill `template`, a path inside the package, and write it; its filter `jpeg` makes bytes an inline picture.

    Where `values` tell the number of `images` that intervals are drawn from, the page warns of few.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clipseg", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["jpeg"] = lambda content: "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
    page = environment.get_template(template).render(few_clusters=FEW_CLUSTERS, **values)
    with atomic_write(path) as file:
        # Other people's text may hold halves of surrogate pairs (JSON allows them), which UTF-8 does not.
        file.write(page.encode("utf-8", errors="replace"))
