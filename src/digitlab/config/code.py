"""Find the modules of a user's own that a run is made with."""

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from pkgutil import get_importer

from digitlab.config.allowed import PACKAGES, allowed
from digitlab.config.errors import UserError, one_line

INSTALLED = {"site-packages", "dist-packages"}  # folders of released packages, wherever they lie
STANDARD_LIBRARY = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}


def own_modules(names: Iterable[str]) -> dict[str, Path]:
    """Return the user's own modules that importing `names` loads, directly or not: name -> file.

    A name may go on inside its module: mynet.MyNet. Own is what is neither digitlab, nor in the standard library, nor
    installed as a released package, unless allow_targets= names it. Imports are read from the source, wherever in it
    they stand, and nothing is run: the answer is the same in every process, before and after an import. An import by a
    computed name is not seen.

    Raises UserError for a module that cannot be read.
    """
    found: dict[str, Path] = {}
    pending = list(names)
    while pending:
        for name, file, package in _load_order(pending.pop()):
            if name not in found:
                found[name] = file
                pending += _imports(name, file, package)
    return found


def _load_order(name: str) -> Iterator[tuple[str, Path, str]]:
    """Yield what importing a dotted name loads of the user's own, its packages first: name, file, package of each."""
    parts, folders = name.split("."), None
    if parts[0] in PACKAGES:
        return
    for end in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:end]), folders)
        if spec is None:
            return
        if spec.has_location and spec.origin:  # a package without __init__.py has no file
            if parts[0] not in allowed() and _is_released(Path(spec.origin)):
                return
            yield spec.name, Path(spec.origin), spec.parent or ""
        folders = spec.submodule_search_locations
        if folders is None:
            return


def _find(name: str, folders: Iterable[str] | None) -> ModuleSpec | None:
    """Find a module in the `folders` of its package, or anywhere if it is in none.

    find_spec of importlib.util would run the package, and go by what is imported already.
    """
    if folders is None:
        return next((spec for finder in sys.meta_path if (spec := finder.find_spec(name, None))), None)
    portions: list[str] = []
    for finder in filter(None, map(get_importer, folders)):
        spec = finder.find_spec(name)
        if spec and spec.loader:
            return spec
        portions += (spec and spec.submodule_search_locations) or []
    package = ModuleSpec(name, None, is_package=True)
    package.submodule_search_locations = portions
    return package if portions else None


def _is_released(file: Path) -> bool:
    return bool(INSTALLED & set(file.parts)) or any(file.is_relative_to(folder) for folder in STANDARD_LIBRARY)


def _imports(module: str, file: Path, package: str) -> Iterator[str]:
    """Yield the dotted name of everything that the source of a module imports."""
    if file.suffix not in SOURCE_SUFFIXES:
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # the import will give them
            tree = ast.parse(file.read_bytes(), file)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"module {module}: cannot be read: {one_line(error)}") from error
    for node in ast.walk(tree):
        with suppress(ImportError):  # a relative import that leads out of its package
            match node:
                case ast.Import(names):
                    yield from (each.name for each in names)
                case ast.ImportFrom(origin, names, level):
                    source = resolve_name("." * level + (origin or ""), package)
                    yield from (f"{source}.{each.name}" for each in names)
                case ast.Assign([ast.Name("__all__")], ast.List(names) | ast.Tuple(names)):  # from package import *
                    yield from (f"{module}.{each.value}" for each in names if isinstance(each, ast.Constant))
                case ast.Call(ast.Name(called) | ast.Attribute(attr=called), [ast.Constant(str(wanted)), *_]):
                    if called in ("import_module", "__import__"):
                        yield resolve_name(wanted, package)
