"""The house: what may import what, no circle, no corridor, no long file; Hydra stays in the entry points."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from places import ROOT

MOST_MODULES, MOST_LINES = 16, 300  # of a folder; of a file
ROOMS = ("data", "prompts", "network", "measure")
GROUND = ("clipseg.errors", "clipseg.files", "clipseg.image_io", "clipseg.ragged")
MODULES = sorted((ROOT / "clipseg").rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path) for path in MODULES}


def imports_of(path: Path) -> set[str]:
    """All that a file imports, wherever in it: an import inside a function is an import too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in NAMES else str(node.module) for a in node.names}
    return found


IMPORTS = {name_of(path): imports_of(path) for path in MODULES}


def ours(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split(".")[0] == "clipseg"}


def within(name: str, *folders: str) -> bool:
    return any(name == folder or name.startswith(f"{folder}.") for folder in folders)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_core_are_strangers(room: str):
    for module in (name for name in NAMES if within(name, f"clipseg.{room}")):
        strangers = {name for name in ours(module) if not within(name, f"clipseg.{room}", *GROUND)}
        assert not strangers, f"{module} imports {strangers}"


def test_what_all_stand_on_stands_alone():
    for module in GROUND:
        assert ours(module) <= set(GROUND)


def test_the_core_imports_neither_studies_nor_the_paper():
    for module in (name for name in NAMES if not within(name, "clipseg.studies", "clipseg.paper")):
        assert not {name for name in ours(module) if within(name, "clipseg.studies", "clipseg.paper")}, module


def test_a_study_imports_the_core_and_itself():
    for module in (name for name in NAMES if within(name, "clipseg.studies") and name.count(".") > 1):
        own = ".".join(module.split(".")[:3])
        others = {name for name in ours(module) if within(name, "clipseg.studies", "clipseg.paper") and not within(name, own)}
        assert not others, f"{module} imports {others}"


@pytest.mark.parametrize("module", ["clipseg.segmenter", "clipseg.classification"])
def test_what_people_use_knows_network_and_prompts_only(module: str):
    assert all(within(name, "clipseg.network", "clipseg.prompts", *GROUND) for name in ours(module))


def test_run_does_not_know_the_entry_points():
    for module in (name for name in NAMES if within(name, "clipseg.run")):
        assert not {name for name in ours(module) if within(name, "clipseg.entry", "clipseg.commands", "clipseg.__main__")}


def test_hydra_stays_in_the_entry_points():
    users = {module for module, names in IMPORTS.items() if any(name.split(".")[0] in ("hydra", "omegaconf") for name in names)}
    assert users <= {"clipseg.entry"}


def test_no_corridor_and_no_long_file():
    folders = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert not {str(folder) for folder, count in folders.items() if count > MOST_MODULES}
    assert not {str(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES}


def test_results_are_read_without_torch():
    """Tables, figures and reports are made from files alone; torch is imported only for type checkers."""
    for module in (name for name in NAMES if within(name, "clipseg.measure")):
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
