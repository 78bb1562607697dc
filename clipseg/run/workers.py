"""The processes that read ahead: they begin deaf to signals, they end for certain, and when they fail one line says so."""

import atexit
import contextlib
import errno
import functools
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing import active_children, connection, queues
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from clipseg.errors import ClipSegError
from clipseg.run.interruption import FORWARDED


@contextlib.contextmanager
def naming_worker_failures() -> Iterator[None]:
    """Around all that uses the batches: torch reports a worker's end wherever the main process is at that moment.

    Raises:
        ClipSegError: a worker died, had too few open files or too little shared memory, or was silent for
            `data.worker_timeout`.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        code = int((re.search(r"exit code:? (\d+)", str(error)) or [0, 0])[1])
        remedy = "out of memory? take fewer data.workers; data.workers=0 reads in the main process"
        if "timed out" in str(error):
            remedy = "is data.root on a file system that hangs? data.worker_timeout says how long is waited"
        elif code in _REMEDIES:
            raise ClipSegError(f"reading data failed: {os.strerror(code)}; {_REMEDIES[code]}") from error
        raise ClipSegError(f"reading data failed: {str(error).splitlines()[0].strip()}; {remedy}") from error


_REMEDIES = {
    errno.EMFILE: "raise the limit (ulimit -n), or take fewer data.workers",
    errno.ENOSPC: "enlarge /dev/shm, or take fewer data.workers",
}
_REMEDIES[errno.ENFILE] = _REMEDIES[errno.EMFILE]


def begin_worker(_: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: a signal to all of a group is for the main process, which ends its workers.

    A worker that cannot hand a batch over ends with the number of the error as its status: torch would print a traceback, and
    the main process wait for the batch.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *FORWARDED):
        signal.signal(number, signal.SIG_IGN)
    queues.Queue._on_queue_feeder_error = staticmethod(lambda error, _: _give_up(type(error), error, None))  # type: ignore[attr-defined]
    sys.excepthook = _give_up  # of the thread that hands file descriptors over


def _give_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # Torch's errors tell the number at their end: "Too many open files (24)".
    number = getattr(error, "errno", None) or int((re.search(r"\((\d+)\)$", str(error)) or [0, 0])[1])
    if number not in _REMEDIES:
        traceback.print_exception(kind, error, trace)
    os._exit(number or 1)


def from_workers(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield what a `DataLoader` yields; with the generator its workers end.

    Raises:
        ClipSegError: no more processes can be started.
    """
    others = set(active_children())
    try:
        batches = iter(loader)
    except BaseException as error:  # a signal too
        _end(set(active_children()) - others)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made: Any = frame.f_locals.get("self")
            if hasattr(half_made, "_workers_done_event"):
                half_made._shutdown = True  # torch cannot take it apart
        if not isinstance(error, OSError):
            raise
        raise ClipSegError(
            f"data workers cannot be started ({error.strerror}); raise the limit (ulimit -n, -u), or take fewer data.workers"
        ) from error
    workers = set(active_children()) - others
    end = functools.partial(_end, workers)
    # After a traceback, which keeps this frame, Python would wait for workers that nobody has told to end.
    atexit.register(end)
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:  # one is dead or stuck, and torch would wait for each
        # Of a batch the main process gets file descriptors; "ancdata" is what it says where it has no room for one.
        is_short = "Too many open files" in str(error) or "ancdata" in str(error)
        connection.wait([worker.sentinel for worker in workers], timeout=1)
        codes = [worker.exitcode for worker in workers if worker.exitcode]
        end()
        code = errno.EMFILE if is_short else codes[0] if codes else None
        if isinstance(error, RuntimeError) and code not in _REMEDIES:
            raise
        status = f", exit code {code}" if code else ""
        raise RuntimeError(f"DataLoader worker died while it handed a batch over{status}") from error
    finally:
        del batches  # torch asks its workers to end
        end()
        atexit.unregister(end)


def _end(workers: set[BaseProcess]) -> None:
    """End those that are still there, stuck ones too, without torch's report that they died."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        reporting = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(timeout=10)
    if in_main_thread:
        signal.signal(signal.SIGCHLD, reporting or signal.SIG_DFL)
