"""Findings of the check of a data folder, line by line, in the same words for every layout."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from clipseg.errors import ClipSegError, listed
from clipseg.image_io import open_pil, read_image


class Finding(NamedTuple):
    """One line of a report: errors stop a run or spoil its data, information does not."""

    level: Literal["error", "info"]
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of a data folder, in the order in which they are added."""

    root: Path
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where there is no error."""
        return all(finding.level == "info" for finding in self.findings)

    def lines(self) -> list[str]:
        """Return one line a finding, then a summary."""
        errors = sum(finding.level == "error" for finding in self.findings)
        summary = f"{self.root}: " + ("no error" if self.ok else f"{errors:,} error{'s' * (errors != 1)}")
        return [*(f"{finding.level}: {finding.text}" for finding in self.findings), summary]

    def info(self, text: str) -> None:
        """Add information."""
        self.findings.append(Finding("info", text))

    def error(self, text: str) -> None:
        """Add an error."""
        self.findings.append(Finding("error", text))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Add the error that ends what is read in this context, instead of raising it."""
        try:
            yield
        except ClipSegError as error:
            self.error(str(error))

    def count(self, text: str, found: object, published: int | tuple[int, ...] | None, name: str) -> None:
        """Add counts beside those published for the data set `name`, where there are any."""
        if published is not None:
            numbers = " and ".join(f"{n:,}" for n in (published if isinstance(published, tuple) else (published,)))
            text += ", as published" if found == published else f" ({name} as published: {numbers})"
        self.info(text)

    def missing(self, names: Collection[object], total: int) -> None:
        """Add photos of `total` that are not there."""
        if names:
            self.error(f"{len(names):,} of {total:,} images are missing: {listed(names)}")


def photo_size(path: Path, *, decode: bool) -> tuple[int, int]:
    """Return width and height of a photo in pixels; with `decode` only of a photo that is whole.

    Raises:
        ClipSegError: missing, no image, or damaged.
    """
    if decode:
        height, width = read_image(path, exif=False).shape[1:]
        return width, height
    with open_pil(path) as image:
        return image.size
