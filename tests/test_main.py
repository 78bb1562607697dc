"""How loud a command is: wherever its flags stand, results and the error that ends it remain."""

import sys
import warnings

import pytest

from clipseg.__main__ import main
from clipseg.commands import data
from clipseg.errors import ClipSegError


@pytest.fixture
def loud(monkeypatch):
    """A command that warns, shows progress, prints a result and fails."""

    def check(arguments):
        warnings.warn("odd", stacklevel=1)
        print("half", file=sys.stderr)
        print(f"result of {arguments.root}")
        raise ClipSegError("no data")

    monkeypatch.setattr(data, "_check", check)


@pytest.mark.parametrize(
    "arguments", [["-q", "data", "check", "x"], ["data", "-q", "check", "x"], ["data", "check", "x", "--quiet"]]
)
def test_quiet(loud, capsys, arguments):
    assert main(arguments) == 2
    assert capsys.readouterr() == ("result of x\n", "error: no data\n")


@pytest.mark.parametrize("line", ["-v data check x", "data check x --verbose"])
def test_verbose(loud, capsys, line):
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("warning: odd\nhalf\nTraceback (most recent call last):\n")
    assert "in check\n" in said
    assert said.endswith("error: no data\n")


def test_neither(loud, capsys):
    assert main(["data", "check", "x"]) == 2
    assert capsys.readouterr().err == "warning: odd\nhalf\nerror: no data\n"


@pytest.mark.parametrize("command", [[], ["data"], ["predict"]])
def test_the_flags_are_in_the_help(capsys, command):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    assert "-q, --quiet" in capsys.readouterr().out
