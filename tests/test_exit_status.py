"""How a process ends, whatever its output can take."""

import os
import subprocess
import sys

import pytest
from places import ROOT

SCRIPT = "import sys; from clipseg.exit_status import guarded; sys.exit(guarded(lambda: print('M\\u00fcll \\udcff')))"


@pytest.mark.parametrize(("closed", "printed"), [("", b"M\\xfcll \\udcff\n"), (">&-", b""), (">&- 2>&-", b"")])
def test_output_that_is_closed_or_knows_few_letters_is_no_error(closed: str, printed: bytes):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, SCRIPT]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")
