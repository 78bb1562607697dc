"""The house holds: wings do not know each other, nothing imports upwards, Hydra stays at the doors, and there is no circle."""

import ast
from pathlib import Path

import pytest
from places import ROOT

WINGS = ("data", "prompts", "network", "measure")
GROUND = ("clipseg.errors", "clipseg.files", "clipseg.image_io")
MODULES = sorted((ROOT / "clipseg").rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {name_of(module) for module in MODULES}
            found |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in names else str(node.module) for a in node.names}
    return found


IMPORTS = {name_of(path): imports_of(path) for path in MODULES}


def ours(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split(".")[0] == "clipseg"}


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_itself_and_the_ground_floor_only(wing):
    for module in (name for name in IMPORTS if name.startswith(f"clipseg.{wing}")):
        strangers = {name for name in ours(module) if not name.startswith((f"clipseg.{wing}", *GROUND))}
        assert not strangers, f"{module} imports {strangers}"


def test_the_ground_floor_carries_itself():
    for module in GROUND:
        assert ours(module) <= set(GROUND)


@pytest.mark.parametrize("module", ["clipseg.segmenter", "clipseg.classification"])
def test_what_people_use_knows_network_and_prompts_only(module):
    allowed = ("clipseg.network", "clipseg.prompts", *GROUND)
    assert all(name.startswith(allowed) for name in ours(module))


def test_the_hall_does_not_know_the_doors():
    for module in (name for name in IMPORTS if name.startswith("clipseg.run")):
        assert not {name for name in ours(module) if name.startswith(("clipseg.entry", "clipseg.commands", "clipseg.__main__"))}


def test_hydra_stays_at_the_doors():
    users = {module for module, names in IMPORTS.items() if any(name.split(".")[0] in ("hydra", "omegaconf") for name in names)}
    assert users <= {"clipseg.entry"}


def test_results_are_read_without_torch():
    """Tables, figures and reports are made from files alone; torch is imported only for type checkers."""
    for module in (name for name in IMPORTS if name.startswith("clipseg.measure")):
        source = (ROOT / Path(*module.split("."))).with_suffix(".py")
        tree = ast.parse(source.read_text() if source.exists() else "")
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name for node in top for alias in node.names} | {getattr(node, "module", "") for node in top}
        assert not any(str(name).split(".")[0] == "torch" for name in names), module


def test_no_import_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done and module in IMPORTS:
            for name in ours(module):
                visit(name, (*path, module))
            done.add(module)

    for module in IMPORTS:
        visit(module, ())
