"""Which modules of the user's own a name imports, against what Python itself loads for it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from digitlab.config.code import own_modules
from digitlab.config.errors import UserError

# How net.py comes to its helper, with the files that it takes.
WAYS = {
    "alone": {"net.py": "import os, torch, digitlab.models.networks, no_such_module"},
    "import": {"net.py": "import helper", "helper.py": "", "other.py": ""},
    "from import": {"net.py": "from helper import relu as activation", "helper.py": "relu = 1"},
    "inside a function": {"net.py": "def build():\n    import helper", "helper.py": ""},
    "or another": {"net.py": "try:\n    import helper\nexcept ImportError:\n    import absent", "helper.py": ""},
    "through another": {"net.py": "import middle", "middle.py": "import helper", "helper.py": ""},
    "in a circle": {"net.py": "import middle", "middle.py": "import helper, net", "helper.py": "import middle"},
    "import_module": {"net.py": "import importlib\nimportlib.import_module('helper')", "helper.py": ""},
    "import_module, relative": {
        "net.py": "import own",
        "own/__init__.py": "from importlib import import_module\nimport_module('.helper', __name__)",
        "own/helper.py": "",
    },
    "from a package": {"net.py": "from own import helper", "own/__init__.py": "", "own/helper.py": ""},
    "of a package": {"net.py": "import own.parts.helper", "own/__init__.py": "", "own/parts/__init__.py": "",
                     "own/parts/helper.py": "", "own/parts/other.py": ""},
    "all of a package": {"net.py": "from own import *", "own/__init__.py": "__all__ = ['helper']", "own/helper.py": ""},
    "a folder without __init__.py": {"net.py": "from own.parts import helper", "own/parts/helper.py": ""},
    "relative": {"net.py": "import own", "own/__init__.py": "from .helper import x", "own/helper.py": "x = 1"},
    "relative, a module": {"net.py": "import own.a", "own/__init__.py": "", "own/a.py": "from . import helper",
                           "own/helper.py": ""},
    "relative, from above": {"net.py": "from own.parts import a", "own/__init__.py": "", "own/parts/__init__.py": "",
                             "own/parts/a.py": "from ..helper import x", "own/helper.py": "x = 1"},
}  # fmt: skip
# Runs net.py in a fresh Python that has nothing else of ours, and prints what that loaded.
LOADED = """
import json, sys
folder = sys.argv[1]
sys.path.insert(0, folder)
others = ("torch", "digitlab", "digitlab.models", "digitlab.models.networks", "no_such_module")
sys.modules |= dict.fromkeys(others, sys)
import net
getattr(net, "build", int)()
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps({name: file for name, file in files.items() if file.startswith(folder)}))
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for file, source in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(source)
    importlib.invalidate_caches()


@pytest.mark.parametrize("way", WAYS)
def test_every_module_that_python_loads_is_found_and_no_other(tmp_path, monkeypatch, way):
    write(tmp_path, WAYS[way])
    monkeypatch.syspath_prepend(tmp_path)
    command = [sys.executable, "-I", "-B", "-S", "-c", LOADED, str(tmp_path)]
    loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = own_modules(["net.Net"])
    assert {name: str(file) for name, file in found.items()} == loaded
    assert not {*loaded} & {*sys.modules}  # nothing was run


def test_a_folder_without_init_may_lie_in_two_places(tmp_path, monkeypatch):
    write(tmp_path / "one", {"net.py": "import own.parts.a, own.parts.b", "own/parts/a.py": ""})
    write(tmp_path / "two", {"own/parts/b.py": ""})
    for folder in ("one", "two"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    assert set(own_modules(["net"])) == {"net", "own.parts.a", "own.parts.b"}


def test_a_released_package_does_not_count_and_an_editable_one_does(tmp_path, monkeypatch):
    write(tmp_path / "src", {"net.py": "import released, editable"})
    write(tmp_path / "lib" / "site-packages", {"released.py": ""})
    write(tmp_path / "project", {"editable.py": ""})
    for folder in ("src", "lib/site-packages", "project"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    assert list(own_modules(["net"])) == ["net", "editable"]


@pytest.mark.parametrize("source", [b"def broken(:", b"name = '\xff'", b"\0"])
def test_a_module_that_cannot_be_read_is_a_mistake_of_the_users(tmp_path, monkeypatch, source):
    write(tmp_path, {"net.py": "def build():\n    import helper"})
    (tmp_path / "helper.py").write_bytes(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^module helper: cannot be read: \S+"):
        own_modules(["net.Net"])
