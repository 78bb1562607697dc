"""The processes that read ahead: they begin deaf to signals, they end for certain, and when they fail one line says so."""

import atexit
import contextlib
import functools
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

from clipseg.errors import ClipSegError
from clipseg.run.interruption import FORWARDED


@contextlib.contextmanager
def naming_worker_failures() -> Iterator[None]:
    """Around all that uses the batches: torch reports a worker's end wherever the main process is at that moment.

    Raises:
        ClipSegError: a worker died, or was silent for `data.worker_timeout`.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        remedy = (
            "is data.root on a file system that hangs? data.worker_timeout says how long is waited"
            if "timed out" in str(error)
            else "out of memory? take fewer data.workers; data.workers=0 reads in the main process"
        )
        raise ClipSegError(f"reading data failed: {str(error).splitlines()[0].strip()}; {remedy}") from error


def begin_worker(_: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: a signal to all of a group is for the main process, which ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM, *FORWARDED):
        signal.signal(number, signal.SIG_IGN)


def from_workers(loader: Iterable[Any]) -> Iterator[Any]:
    """What a `DataLoader` yields; with the generator its workers end."""
    others = set(active_children())
    batches = iter(loader)
    end = functools.partial(_end, set(active_children()) - others)
    # After a traceback, which keeps this frame, Python would wait for workers that nobody has told to end.
    atexit.register(end)
    try:
        yield from batches
    except (RuntimeError, ConnectionError, EOFError) as error:  # one is dead or stuck, and torch would wait for each
        end()
        if isinstance(error, RuntimeError):
            raise
        raise RuntimeError("DataLoader worker died while it handed a batch over") from error
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
