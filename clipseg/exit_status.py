"""How a process ends: a user's error becomes one line on standard error and status 2.

Statuses: 0 all was done; 2 an error a user can mend; 75 (EX_TEMPFAIL of sysexits.h: try again) stopped by a signal, and
resumable; 130 ended by Ctrl-C at once; 141 ended since nobody reads what it prints, as after `| head`; 1, with a traceback, a
mistake of ours.
"""

import io
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from clipseg.errors import ClipSegError, Stopped, printable
from clipseg.files import DISK_ERRORS, remedy

RESUMABLE = 75
ENDED = 130
CLOSED = 141


def guarded(main: Callable[[], Any]) -> int:
    """Run `main` and return the process's exit status: its own, or 2 after an error a user can mend, without a traceback."""
    _make_output_printable()
    warnings.showwarning = _one_line_warning
    threading.excepthook = _quiet_disk_errors
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail("ended", status=ENDED)
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started one says it
            print(stopped, file=sys.stderr)
        return RESUMABLE
    except ClipSegError as error:
        return _fail(str(error))
    except BrokenPipeError:
        if not _is_output_closed():
            raise
        # What Python flushes at its own end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        return _fail(f"{error.filename or 'output'}: {error.strerror}; {remedy(error)}")


def _make_output_printable() -> None:
    """Throw away what is printed where nobody listens (`>&-`), and escape file names that the output cannot encode."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_output_closed() -> bool:
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def _fail(message: str, *, status: int = 2) -> int:
    if _claim_error_report():
        print(f"error: {printable(message)}", file=sys.stderr)
    return status


def _claim_error_report() -> bool:
    if "WORLD_SIZE" not in os.environ:
        return True
    # Imported here: a command that stands alone needs no torch to say what is wrong.
    from clipseg.run.distributed import claim_error_report

    return claim_error_report()


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning in one line; where in our code it arose helps no user."""
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main and not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"warning: {printable(str(message))}", file=sys.stderr)


def _quiet_disk_errors(failure: threading.ExceptHookArgs) -> None:
    """No traceback of a thread that writes to a full disk: the main thread learns of it, and says so in one line."""
    if not (isinstance(failure.exc_value, OSError) and failure.exc_value.errno in DISK_ERRORS):
        threading.__excepthook__(failure)
