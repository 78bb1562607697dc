"""Compressed arrays from a results file, none of them unpickled, and no more of them than memory should hold."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError

LARGEST_BYTES = 4 * 2**30  # all 345,486 phrases of PhraseCut take less than one


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ClipSegError: a few bytes that would fill the memory.
        Exception: whatever the zip, zlib and array readers meet in damaged bytes.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > LARGEST_BYTES:
        raise ClipSegError(f"refused as a decompression bomb: {unpacked:,} bytes when unpacked, over {LARGEST_BYTES:,}")
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
