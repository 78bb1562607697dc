"""SIGTERM, SIGHUP and SIGINT as an orderly end: at once where nothing is lost by it, else when a step is done and saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from clipseg.errors import Stopped

# Handed on to whoever handled them before us: submitit puts a job back into SLURM's queue on SIGUSR2.
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2)


class Interruption:
    """A wish to end a run, as far as the run knows.

    Args:
        advice: how to go on, the end of the one line that a stopped run prints.

    Attributes:
        received: the signal's name; None as long as none came.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self.received: str | None = None
        self._deferred = False
        self._process = os.getpid()

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal. Only the first counts; a SIGINT after it ends the process at once, as if we had never been here."""
        if self.received is None and os.getpid() == self._process:  # no worker that has only just been forked
            self.received = signal.Signals(number).name
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if not self._deferred:
                raise self.stopped()

    def stopped(self, when: str = "") -> Stopped:
        """The exception that ends the run, to be raised; `when` says how far it came."""
        # Where another process of the run was asked, this one ends with it.
        return Stopped(f"stopped by {self.received or 'another process'}{when}; {self.advice}")

    def deferred(self) -> contextlib.AbstractContextManager[None]:
        """Around what must not be torn apart: a signal is noted, and it is for the block to look at `received`."""
        return self._deferring(True)

    def at_once(self) -> contextlib.AbstractContextManager[None]:
        """Around a part of a deferring block of which nothing is lost when a signal ends it."""
        return self._deferring(False)

    @contextlib.contextmanager
    def _deferring(self, deferred: bool) -> Iterator[None]:
        before, self._deferred = self._deferred, deferred
        try:
            if self.received and not deferred:
                raise self.stopped()
            yield
        finally:
            self._deferred = before


@contextlib.contextmanager
def stoppable(advice: str) -> Iterator[Interruption]:
    """Let signals end the block by `Stopped`: SIGINT; SIGTERM and SIGHUP unless somebody handles them; SIGUSR1 and 2 if so.

    Outside the main thread, where Python takes no signals, nothing is changed.

    Args:
        advice: how to go on after that, for the user.
    """
    interruption = Interruption(advice)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    handled = [number for number in FORWARDED if callable(signal.getsignal(number))]
    # submitit lets SIGTERM pass: SLURM sends it along with the SIGUSR2 that puts the job back into the queue.
    plain = [signal.SIGINT] if callable(signal.getsignal(signal.SIGTERM)) else [signal.SIGINT, signal.SIGTERM]
    plain += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []  # nohup lets it be ignored
    before = {number: signal.signal(number, interruption.receive) for number in (*plain, *handled)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if interruption.received in [signal.Signals(number).name for number in handled]:
            signal.raise_signal(signal.Signals[interruption.received])
