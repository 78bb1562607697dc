"""Which tasks share a phrase: where PhraseCut+ finds its negatives and its visual support (facts Sec. 2)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PhraseIndex:
    """The tasks of a data set by their phrase.

    Args:
        phrases: of all tasks.
        rows: int `[R]`, the tasks in use; only they are found.
    """

    def __init__(self, phrases: Sequence[str], rows: NDArray[np.int64]):
        texts = np.array([phrases[row] for row in rows.tolist()], dtype=object)
        self.phrases, number = np.unique(texts, return_inverse=True)
        order = np.argsort(number, kind="stable")
        self._rows = rows[order]
        self._starts = np.append(np.flatnonzero(np.diff(number[order], prepend=-1)), len(rows))
        self._number_of_row = dict(zip(rows.tolist(), number.tolist(), strict=True))

    def number(self, row: int) -> int:
        """The number of a task's phrase, an index into `phrases`."""
        return self._number_of_row[row]

    def rows(self, number: int) -> NDArray[np.int64]:
        """The tasks with a phrase."""
        return self._rows[self._starts[number] : self._starts[number + 1]]

    def another(self, number: int, rng: np.random.Generator) -> int:
        """Another phrase, as often as it occurs; there must be one."""
        own, start = len(self.rows(number)), int(self._starts[number])
        place = int(rng.integers(len(self._rows) - own))
        row = self._rows[place if place < start else place + own]
        return self.number(int(row))
