"""Files that are whole or absent: atomic writing, and reading JSON with errors that name the file."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from clipseg.errors import ClipSegError


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`, and put it in the place of `path` only when the block ends without an error.

    The content is synced to disk before the rename, so that after a crash `path` holds either the old file or the new one.

    Args:
        path: the file to write; its folder is made where it is missing.
        mode: "wb" or "w" (UTF-8, "\\n" line ends).

    Raises:
        ClipSegError: the disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "b" not in mode
        with open(
            temporary,
            mode.replace("w", "x"),
            encoding="utf-8" if text else None,
            errors="backslashreplace" if text else None,  # of file names that are no Unicode
            newline="\n" if text else None,
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ClipSegError(
                f"{path}: cannot be written ({error.strerror}); free the space or choose another folder"
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are refused: they are not JSON."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, allow_nan=False, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        ClipSegError: the file is missing, unreadable, not UTF-8, cut off or not JSON; the message names it.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ClipSegError(f"{path}: no such file") from error
    except OSError as error:
        raise ClipSegError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ClipSegError(f"{path}: not valid JSON ({error}); the file may be cut off: fetch or write it again") from error
