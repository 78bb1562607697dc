"""Files that are whole or absent: atomic writing, and reading JSON and arrays."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError

LARGEST_BYTES = 4 * 2**30  # of the arrays of a file; the results of all 345,486 phrases of PhraseCut take less than one
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# Besides: the disk is damaged or gone; the place is read-only, held by something else, or cannot be.
DISK_ERRORS = FULL | {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}
DISK_ERRORS |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE}


def user_cache() -> Path:
    """The user's folder for what can be computed again; nothing is made."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipseg"


def remedy(error: OSError) -> str:
    """Return what helps against an error of the disk."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n)"
    return "free the space or choose another folder" if error.errno in FULL else "choose another path"


@contextlib.contextmanager
def naming_disk_errors(path: str | Path) -> Iterator[None]:
    """Around what writes `path`.

    Raises:
        ClipSegError: the disk is full or damaged, or the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise ClipSegError(f"{path}: cannot be written ({error.strerror}); {remedy(error)}") from error


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`, and put it in the place of `path` only when the block ends without an error.

    The content is synced to disk before the rename, and the rename after it, so that after a crash `path` holds either the old
    file or the new one. What a kill leaves behind is the temporary file; `remove_leftovers` takes it away.

    Args:
        path: the file to write; its folder is made where it is missing.
        mode: "wb" or "w" (UTF-8, "\\n" line ends).

    Raises:
        ClipSegError: the disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with naming_disk_errors(path):
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
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last; not every file system can do it, and none needs it for the file to be whole."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_locks: set[int] = set()


def _leave_locks() -> None:
    """In a process that was forked: a worker that outlives a killed run must not keep its folder."""
    for handle in _locks:
        os.close(handle)
    _locks.clear()


os.register_at_fork(after_in_child=_leave_locks)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, against other processes; the lock ends with this process, however that ends.

    A folder that was made and in which nothing was left is removed again.

    Raises:
        ClipSegError: another process holds it, or it cannot be made.
    """
    with naming_disk_errors(folder):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    _locks.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClipSegError(f"{folder}: another run writes there now; wait for it, or choose another folder") from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        if handle in _locks:
            for path in made:
                with contextlib.suppress(OSError):  # it holds something
                    path.rmdir()
            _locks.remove(handle)
            os.close(handle)


def check_new_folder(folder: Path) -> None:
    """Raise `ClipSegError` where what is to become a folder of its own holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClipSegError(f"{folder}: exists and is not empty; choose a new folder")


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that a killed process left in `folder`, where nobody else is writing now."""
    for path in Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a file of lines. A crash may cut off the last one; readers pass over it.

    Raises:
        ClipSegError: as `atomic_write`.
    """
    with naming_disk_errors(path), open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")


def sync(path: str | Path) -> None:
    """Make what was appended to `path` last, where it exists.

    Raises:
        ClipSegError: as `atomic_write`.
    """
    with naming_disk_errors(path), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinities are refused: they are not JSON."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, allow_nan=False, ensure_ascii=False)
        file.write("\n")


def read_text(path: str | Path) -> str:
    """Return the content of a file of UTF-8 text, without a byte-order mark.

    Raises:
        ClipSegError: the file is missing, no regular file (a pipe would be waited for without end), unreadable or not UTF-8.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ClipSegError(f"{path}: cannot be read (a folder, a pipe or a device, no file)")
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ClipSegError(f"{path}: no such file") from error
    except OSError as error:
        raise ClipSegError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ClipSegError(f"{path}: not UTF-8 text ({error}); fetch it again, or save it as UTF-8") from error


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        ClipSegError: as `read_text`; or cut off, or not JSON; the message names it.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClipSegError(f"{path}: not valid JSON ({error}); the file may be cut off: fetch or write it again") from error


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ClipSegError: a few bytes that would fill the memory.
        Exception: whatever the zip, zlib and array readers meet in damaged bytes.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > LARGEST_BYTES:
        raise ClipSegError(f"refused as a decompression bomb: {unpacked:,} bytes when unpacked, over {LARGEST_BYTES:,}")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
