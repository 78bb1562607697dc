"""Where a result comes from: the resolved config, the commit, the versions, the seed, the protocol, the machine."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("clipseg", "torch", "torchvision", "open_clip_torch", "numpy", "pillow", "scipy", "hydra-core")


def provenance(config: dict[str, Any], device: str) -> dict[str, Any]:
    """Return what a results file, a run folder and a report say of their origin; plain values only."""
    return {
        "config": config,
        "seed": config.get("seed"),
        "protocol": config.get("protocol"),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: package_version(name) for name in PACKAGES},
        "device": device,
        "machine": f"{processor_name()}, {os.cpu_count()} cores",
    }


def processor_name() -> str:
    """Return the processor's name where the system tells it, its kind elsewhere."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(encoding="utf-8", errors="replace") if information.is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """The commit of the source tree, with "+" where it has changes; None where the package runs from no git checkout."""
    tree = Path(__file__).resolve().parents[2]
    try:
        git = ["git", "-C", str(tree)]
        top = subprocess.run(
            [*git, "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        folder, commit = top.stdout.split()
        if Path(folder).resolve() != tree:
            return None
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return commit + ("+" if changed.stdout.strip() else "")


def package_version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
