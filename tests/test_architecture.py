"""The architecture: which folder may import which, which modules may use which library, how long a file may be."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

FLOORS = (
    ("platform", "config"),
    ("data", "models", "plots", "analysis", "documents"),
    ("tracking",),
    ("training", "inference", "claims"),
    ("sweep", "report", "serve"),
)
# Above them all: what starts a program, or is imported by its name.
TOP = {"__init__", "__main__", "cli", "cli_base", "cli_claims", "cli_runs", "apps"}
OWNERS = {
    "mlflow": {"tracking"},
    "matplotlib": {"plots"},
    "rich": {"platform.console", "training.progress"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "prometheus_client": {"serve"},
    "scipy": {"analysis", "inference.digits"},
    "pydantic": {"config"},
    "ray": {"sweep.ray_cluster", "sweep.ray_internals"},
    "hydra": {"config", "sweep", "training.setup", "training.api", "claims.recipes", "apps"},
    "omegaconf": {"config", "sweep", "training", "report", "claims.recipes", "inference.labelled", "apps"},
}
LONGEST = 300  # lines of a file
PACKAGE = Path(__file__).parents[1] / "src" / "digitlab"
MODULES = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules_imported(name: str) -> set[str]:
    """Return the modules of the package that its module `name` imports."""
    return {each.removeprefix("digitlab.") for each in imports(MODULES[name])} & set(MODULES)


def test_every_folder_is_on_a_floor():
    folders = {name.partition(".")[0] for name in MODULES if "." in name}
    assert folders == {folder for floor in FLOORS for folder in floor}
    assert {name for name in MODULES if "." not in name} == TOP


@pytest.mark.parametrize("level", range(len(FLOORS)))
def test_nothing_imports_upward(level):
    allowed = {folder for floor in FLOORS[: level + 1] for folder in floor}
    for name in MODULES:
        if name.partition(".")[0] in FLOORS[level]:
            upward = {each for each in modules_imported(name) if each.partition(".")[0] not in allowed}
            assert not upward, f"{name} imports {upward}"


def test_there_are_no_circular_imports():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for each in modules_imported(name):
                visit(each, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("library", OWNERS)
def test_only_its_owners_import_a_library(library):
    importers = {name for name in MODULES if any(each.partition(".")[0] == library for each in imports(MODULES[name]))}
    owners = OWNERS[library]
    others = {name for name in importers if not {name, name.partition(".")[0]} & owners}
    assert not others
    idle = {owner for owner in owners if not any(owner in (name, name.partition(".")[0]) for name in importers)}
    assert not idle


def test_every_imported_package_is_declared():
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *extras["parallel"],
        *extras["slurm"],
        *extras["ray"],
        *extras["export"],
        *extras["serve"],
    ]
    declared = {re.match(r"[\w-]+", each)[0].lower().replace("-", "_") for each in requirements}
    distributions = packages_distributions()
    files = PACKAGE.parent.rglob("*.py")
    packages = {each.partition(".")[0] for file in files for each in imports(file)} & set(distributions)
    undeclared = {
        each for each in packages if not {name.lower().replace("-", "_") for name in distributions[each]} & declared
    }
    assert not undeclared - {"digitlab", "hydra_plugins"}


def test_no_file_is_too_long():
    tests = MODULES["__init__"].parents[2] / "tests"
    files = [*PACKAGE.parent.rglob("*.py"), *tests.rglob("*.py")]
    assert not {file.name: count for file in files if (count := len(file.read_text().splitlines())) > LONGEST}


def test_every_folder_has_one_line_that_describes_it():
    for name, file in MODULES.items():
        if name.endswith(".__init__"):
            assert len(file.read_text().splitlines()) == 1, name
