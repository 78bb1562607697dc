"""The one error a user can cause, checks of values that raise it, and the wish to end early.

Every folder raises `ClipSegError` for bad input; only the entry points (`train.py`, `evaluate.py`, `clipseg`) turn it into
one line on standard error and exit status 2. Our own mistakes stay `AssertionError`s with a traceback.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice


class ClipSegError(Exception):
    """Bad input from outside. The message is one line: what was found (file, value), what was expected, what to do."""


def check_at_least(key: str, value: float, least: float) -> None:
    """Raise `ClipSegError` where the value of a key is below the least that can be."""
    if not value >= least:  # nor is what is not a number
        raise ClipSegError(f"{key}={value} must be at least {least}")


def check_one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `ClipSegError` where the value of a key is none of those there are."""
    if value not in allowed:
        raise ClipSegError(f"{key}={value!r} is unknown; expected one of {', '.join(allowed)}")


def check_probability(key: str, value: float) -> None:
    """Raise `ClipSegError` where the value of a key lies outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ClipSegError(f"{key}={value} must lie in [0, 1]")


class Stopped(BaseException):
    """A run that was asked to end early (SIGTERM, SIGINT) has done so; the message says how to go on.

    As `KeyboardInterrupt` no `Exception`: whoever catches all that damaged bytes can raise must not catch this.
    """


def printable(text: str) -> str:
    """Return other people's text (file names, phrases) on one line, and without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def listed(names: Collection[object], *, most: int = 10) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, islice(names, most))) + more


@contextmanager
def collecting(problems: list[str] | None) -> Iterator[None]:
    """Add the error that ends this context to `problems`; raise it where that is None."""
    try:
        yield
    except ClipSegError as error:
        if problems is None:
            raise
        problems.append(str(error))


def one_line(error: BaseException) -> str:
    """Return what another library's error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
