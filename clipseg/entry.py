"""Shared by `train.py` and `evaluate.py`: the command line becomes settings, by Hydra, and settings a run."""

import difflib
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from clipseg import __version__
from clipseg.errors import ClipSegError, one_line
from clipseg.exit_status import ENDED, RESUMABLE, guarded
from clipseg.files import read_text

T = TypeVar("T")

# What a job of a sweep may change when it is given again: none of it makes another run of it.
FREE_KEYS = {"out", "resume", "report", "device", "data.root", "data.workers", "training.steps"}


class JobFailed(ClipSegError):
    """A job of a sweep failed; it has said why."""


def launch(
    run: Callable[[T], None],
    schema: type[T],
    *,
    configs: Path,
    name: str,
    finish: Callable[[Sequence[T]], None] | None = None,
) -> int:
    """Compose the config `name` in the folder `configs` from the command line, check it against `schema`, and `run` it.

    In a sweep (`-m`) every job is tried, whatever became of the others; a signal ends the sweep and not only its job.

    Args:
        run: one job.
        schema: of its settings.
        configs: the folder with the YAML files.
        name: of the one to start from.
        finish: called once after all jobs, with their settings. Unlike a callback of Hydra's, which makes a warning of an
            error, it counts for the status.

    Returns:
        The exit status: 0 only where all went well.
    """
    if "--version" in sys.argv[1:]:
        print(__version__)
        return 0
    # Hydra takes flags before overrides, or after them all, and none in their midst.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: not argument.startswith("-") and "=" in argument)
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    # Hydra's own report of an error is many lines long; with this it raises, and `guarded` makes one line of it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    statuses: list[int] = []
    asked: list[DictConfig] = []
    jobs: list[T] = []

    def job(composed: DictConfig) -> None:
        asked.append(composed)
        status = guarded(checked)
        statuses.append(status)
        if status in (RESUMABLE, ENDED):
            raise _EndOfSweep
        if status and HydraConfig.get().mode is RunMode.MULTIRUN:
            # A launcher may run the job in another process, whose list of statuses is not this one's.
            raise JobFailed(f"job {HydraConfig.get().job.num} of the sweep failed, for the reason that it gave")

    def checked() -> None:
        jobs.append(_of_a_sweep(read_settings(asked[-1], schema)))
        run(jobs[-1])

    def compose() -> None:
        try:
            hydra.main(version_base="1.3", config_path=str(configs.resolve()), config_name=name)(job)()
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise _refused(error, schema) from error
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            if asked:
                raise
            # Some arguments, such as experiment=null, Hydra refuses with errors of Python.
            raise ClipSegError(f"config: {one_line(error)}") from error

    try:
        statuses.append(guarded(compose))
    except _EndOfSweep:
        return statuses[-1]
    if finish is not None and jobs:
        statuses.append(guarded(lambda: finish(jobs)))
    return max(statuses)


def _refused(error: Exception, schema: type) -> ClipSegError:
    """Return the one line that says which argument Hydra refuses, and what to write instead."""
    known = _keys(OmegaConf.structured(schema))
    for argument in sys.argv[1:]:
        key, sign, value = argument.partition("=")
        if argument.startswith("~"):
            return ClipSegError(f"{argument}: no setting can be taken out; give it another value")
        if argument.startswith("-") or not sign:
            continue
        if not key or not value:
            return ClipSegError(f"{argument} is empty; expected KEY=VALUE")
        if key[0] == "+" and key[1:] in known:
            return ClipSegError(f"{argument}: the key is there already; write {argument[1:]}")
        if not _is_read(argument):
            text = os.path.expanduser(value).replace('"', r"\"")
            return ClipSegError(f"{argument}: cannot be read as it is; quote it: " + shlex.quote(f'{key}="{text}"'))
    if unknown := re.match(r"Could not override '([^']+)'", str(error)):
        return ClipSegError(f"{unknown[1]}: no such key; {_nearest(unknown[1], known)}")
    if bare := re.match(r"Error parsing override '(.*)'\s*missing EQUAL", str(error)):
        return ClipSegError(f"{bare[1]}: no setting; expected KEY=VALUE")
    if merging := re.match(r"Error merging override (.*)", str(error)):
        return ClipSegError(f"{merging[1]}: {str(error.__cause__).splitlines()[0]}")
    return ClipSegError(f"config: {one_line(error).partition(' Config search path')[0]}")


def _is_read(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def given_keys() -> set[str]:
    """Return the keys that the command line names; none where Hydra was not asked."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {override.lstrip("+~").partition("=")[0] for override in overrides}


class _EndOfSweep(BaseException):
    """Passes by Hydra, which goes on to the next job after any `Exception`."""


def _of_a_sweep(settings: T) -> T:
    """`settings` as they are, unless they are those of a sweep, or of its job, that cannot run."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode is not RunMode.MULTIRUN:
        if hydra_config.sweeper.get("params"):
            raise ClipSegError(f"sweep={hydra_config.runtime.choices['sweep']} is many runs; add -m to the command")
        return settings
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ClipSegError("a sweep (-m) under torchrun would mix its jobs up; start torchrun once for each job")
    ours = OmegaConf.structured(settings)
    path = Path(ours.out) / "config.yaml"
    theirs = read_config(path) if path.is_file() else ours
    for key in given_keys() - FREE_KEYS:
        found, asked = OmegaConf.select(theirs, key), OmegaConf.select(ours, key)
        if found != asked:
            raise ClipSegError(
                f"out={ours.out} holds a run with {key}={found}, not {asked}; name in `out` what differs: out='DIR/${{{key}}}'"
            )
    return settings


def _sweep_folder() -> str:
    """Return what tells the default `out` of a sweep's jobs apart: `/<number of the job>`; nothing in a run of its own."""
    hydra_config = HydraConfig.get()
    return f"/{hydra_config.job.num}" if hydra_config.mode is RunMode.MULTIRUN else ""


OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)


def read_settings(config: DictConfig, schema: type[T]) -> T:
    """The settings a composed config holds, as dataclasses that have checked themselves.

    Raises:
        ClipSegError: a required key has no value, or the values do not go together.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ClipSegError(f"required, and not given: {', '.join(missing)}; add {missing[0]}=VALUE to the command")
        known = _keys(OmegaConf.structured(schema))
        for key in sorted(_keys(config) - known):
            raise ClipSegError(f"{key}: no such key; {_nearest(key, known)}")
        for key in sorted(known):
            value = OmegaConf.select(config, key, default=_ABSENT)
            if value is _ABSENT:
                raise ClipSegError(f"~{key}: no setting can be taken out; give it another value")
            if value == "":
                raise ClipSegError(f"{key}= is empty; expected KEY=VALUE")
            if isinstance(value, str) and value.startswith("~/"):
                OmegaConf.update(config, key, os.path.expanduser(value))
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ClipSegError(f"config: {one_line(error)}") from error
    assert isinstance(settings, schema)
    return settings


def read_config(path: Path) -> DictConfig:
    """Return the settings that a run folder keeps.

    Raises:
        ClipSegError: the file cannot be read, or holds no settings.
    """
    text = read_text(path)
    try:
        config = OmegaConf.create(text)
        OmegaConf.resolve(config)
    except Exception as error:  # yaml, OmegaConf and the decoder of text each raise their own
        raise ClipSegError(f"{path}: no config of train.py ({one_line(error)[:160]}); restore it") from error
    if not isinstance(config, DictConfig) or not config:
        raise ClipSegError(f"{path}: no config of train.py; restore it")
    return config


def _keys(config: Any, prefix: str = "") -> set[str]:
    """Every key of a config, with its dots."""
    content: dict[str, Any] = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config  # type: ignore[assignment]
    inner = {key: value for key, value in content.items() if isinstance(value, dict)}
    return {f"{prefix}{key}" for key in content if key not in inner}.union(
        *(_keys(value, f"{prefix}{key}.") for key, value in inner.items())
    )


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"did you mean {close[0]}?" if close else "clipseg/run/settings.py lists all"


# What may differ when a run goes on: none of it decides what is learned.
RESUME_FREELY = FREE_KEYS | {
    "data.worker_timeout",
    "data.unreadable",
    "debug",
    "deterministic",
    "evaluate_splits",
    "evaluate_visual",
    "intensity_tests",
    "training.checkpoint_every",
    "training.compile",
    "training.log_every",
    "training.validate_every",
    "training.validation_images",
}


def check_resumable(settings: Any, path: Path) -> None:
    """Check that a run, whose config lies at `path`, was asked for all that decides what `settings` ask to be learned.

    Raises:
        ClipSegError: the first key that differs, with both values; or more steps under a schedule that knew of fewer.
    """
    if not os.path.lexists(path):
        if (path.parent / "checkpoints").is_dir():
            warnings.warn(f"{path}: not there; whether the run was trained with these settings is not known", stacklevel=2)
        return
    ours, theirs = OmegaConf.structured(settings), read_config(path)
    remedy = "resume with what it was trained with, or choose another out="
    # The weights that a run begins with decide its model.
    decided = {key for key in _keys(ours) if key.startswith("model.")} if OmegaConf.select(ours, "training.init") else set()
    for key in sorted(_keys(ours) - RESUME_FREELY - decided):
        asked, found = (
            OmegaConf.to_container(part) if OmegaConf.is_config(part) else part
            for part in (OmegaConf.select(ours, key), OmegaConf.select(theirs, key, default=_ABSENT))
        )
        if found is not _ABSENT and asked != found:
            raise ClipSegError(f"{path}: this run has {key}={found}, not {asked}; {remedy}")
    before, now = OmegaConf.select(theirs, "training.steps", default=None), OmegaConf.select(ours, "training.steps")
    if before not in (None, now) and OmegaConf.select(ours, "training.lr") != OmegaConf.select(ours, "training.final_lr"):
        raise ClipSegError(
            f"{path}: this run has training.steps={before}, not {now}, and its learning rate falls over all of them; {remedy}"
        )


_ABSENT: Any = object()


def to_yaml(settings: Any) -> str:
    """Settings as the YAML that a run folder keeps."""
    return OmegaConf.to_yaml(OmegaConf.structured(settings))
