"""How a process ends, whatever its output can take."""

import errno
import os
import subprocess
import sys

import pytest
from places import ROOT

from clipseg.exit_status import guarded

SCRIPT = "import sys; from clipseg.exit_status import guarded; sys.exit(guarded(lambda: print('M\\u00fcll \\udcff')))"


@pytest.mark.parametrize(("closed", "printed"), [("", b"M\\xfcll \\udcff\n"), (">&-", b""), (">&- 2>&-", b"")])
def test_output_that_is_closed_or_knows_few_letters_is_no_error(closed: str, printed: bytes):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, SCRIPT]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG])
def test_what_cannot_be_read_does_not_want_for_space(number: int, capsys: pytest.CaptureFixture[str]):
    def read() -> None:
        raise OSError(number, os.strerror(number), "photo.jpg")

    assert guarded(read) == 2
    assert capsys.readouterr().err == f"error: photo.jpg: {os.strerror(number)}; choose another path\n"
