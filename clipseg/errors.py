"""The one error a user can cause, and the wish to end early.

Every folder raises `ClipSegError` for bad input; only the entry points (`train.py`, `evaluate.py`, `clipseg`) turn it into
one line on standard error and exit status 2. Our own mistakes stay `AssertionError`s with a traceback.
"""


class ClipSegError(Exception):
    """Bad input from outside. The message is one line: what was found (file, value), what was expected, what to do."""


class Stopped(BaseException):
    """A run that was asked to end early (SIGTERM, SIGINT) has done so; the message says how to go on.

    As `KeyboardInterrupt` no `Exception`: whoever catches all that damaged bytes can raise must not catch this.
    """


def printable(text: str) -> str:
    """Return other people's text (file names, phrases) on one line, and without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
