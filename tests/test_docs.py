"""Documents name what is there: links lead to files, experiments and benchmarks exist, the README stays short."""

import re

import pytest
from composed import EXPERIMENTS
from places import ROOT

from clipseg.run.benchmarks import BENCHMARKS

PAGES = sorted([ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = set(re.findall(r"experiment=([a-z0-9_]+)(?![a-z0-9_,*{])", text)) - set(EXPERIMENTS)
    assert named == set()
    assert set(re.findall(r"benchmark=([a-z0-9_]+)(?![a-z0-9_,*{])", text)) - set(BENCHMARKS) == set()


def test_the_readme_is_read_in_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
