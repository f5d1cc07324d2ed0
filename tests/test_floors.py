"""The floors of the packages: who may import whom, read from the imports of every file, those in functions too."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    {"rlhf_platform.types", "rlhf_platform.recipe", "rlhf_platform.errors", "rlhf_platform.random_state"},
    {"rlhf_platform.data", "rlhf_platform.algorithms"},
    {"policies"},
    {"rewards", "rollout", "rlhf_platform.learner"},
    {
        "rlhf_platform.train",
        "rlhf_platform.evaluation",
        "rlhf_platform.tracking",
        "rlhf_platform.planning",
        "rlhf_platform.jobs",
        "recipes",
    },
    {"rlhf_platform.cli"},
)
"""From the ground up. `recipes` holds reward plug-ins, which see what a user's own see."""

SIBLINGS = FLOORS[3]
"""Do not import each other."""

APART = {"infra"}
"""Runs before anything is installed: imports nothing of ours, and nothing of ours imports it."""

PACKAGES = {part.partition(".")[0] for floor in FLOORS for part in floor} | APART


def files() -> dict[str, Path]:
    """Every Python file of the packages by module name; a package's `__init__.py` by the package's."""
    found = [path.relative_to(ROOT) for package in sorted(PACKAGES) for path in sorted(ROOT.glob(f"{package}/**/*.py"))]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in found}


def imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """What a file imports of ours, as modules: `from package import module` is the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = inside & modules.keys()
            names |= submodules | ({node.module} if submodules != inside else set())
    return {name for name in names if name.partition(".")[0] in PACKAGES}


MODULES = files()
IMPORTS = {module: imports(path, MODULES) for module, path in MODULES.items()}


def part_of(module: str) -> str:
    """The part of the house that a module belongs to; a bare top package holds nothing, so it is on the ground."""
    parts = [part for floor in FLOORS for part in floor] + sorted(APART)
    found = [part for part in parts if module == part or module.startswith(part + ".")]
    return found[0] if found else ""


def floor_of(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS, start=1) if part_of(module) in floor)


def edges() -> list[tuple[str, str]]:
    return [(module, other) for module in MODULES for other in sorted(IMPORTS[module])]


def test_every_file_has_a_floor_and_a_bare_package_is_empty() -> None:
    outside = [module for module in MODULES if not part_of(module)]
    assert outside == ["rlhf_platform"]
    assert not MODULES["rlhf_platform"].read_text().strip()


def test_every_import_of_ours_names_a_file() -> None:
    assert [f"{module}: {other}" for module, other in edges() if other not in MODULES] == []


def test_a_file_imports_only_from_its_floor_or_below() -> None:
    upwards = [
        f"{module} (floor {floor_of(module)}) imports {other} (floor {floor_of(other)})"
        for module, other in edges()
        if not {part_of(module), part_of(other)} & {"", *APART} and floor_of(other) > floor_of(module)
    ]
    assert upwards == []


def test_siblings_do_not_import_each_other() -> None:
    crossing = [
        f"{module} imports {other}"
        for module, other in edges()
        if {part_of(module), part_of(other)} <= SIBLINGS and part_of(module) != part_of(other)
    ]
    assert crossing == []


def test_set_up_stands_apart() -> None:
    mixed = [
        f"{module} imports {other}"
        for module, other in edges()
        if (part_of(module) in APART) != (part_of(other) in APART)
    ]
    assert mixed == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_types_errors_and_recipe_import_no_torch() -> None:
    ground = [module for module in MODULES if part_of(module) in FLOORS[0]]
    program = f"import sys, {', '.join(ground)}; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "False\n", ended.stderr
