"""Write a folder with a page that runs a model in the browser: no server, no outside address.

The model runs in ONNX Runtime Web, whose files come from its npm package and are checked against these digests.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from digitlab.config.errors import UserError
from digitlab.inference.model import TrackedModel

PACKAGE = "onnxruntime-web@1.22.0"
DIGESTS = {  # SHA-256
    "ort.wasm.min.js": "65e09376df69107e881b5c34d2d37aed333a366b6d941073ec518168e269b87d",
    "ort-wasm-simd-threaded.mjs": "30dd851d9c00622940500f71ddd2ff8820c5cb65270816080175b958705385a8",
    "ort-wasm-simd-threaded.wasm": "71aef04959c5c1b6de461b6538e2058e306610034a85aad2742d0c7fd4533fe4",
}
PAGE, READER = (Path(__file__).with_name(name) for name in ("page.html", "browser.js"))


def write_page(model: TrackedModel, folder: Path) -> None:
    """Add the page and the runtime to a folder that has the model as model.onnx. Raises UserError."""
    script, *_ = DIGESTS
    loads, module, program = _runtime().values()
    (folder / script).write_bytes(loads)
    runtime = {"mjs": _base64(module), "wasm": _base64(program)}
    (folder / "runtime.js").write_text(f"const RUNTIME = {json.dumps(runtime)};\n", "utf-8")
    described = {
        "name": model.name,
        "run": model.run_id,
        "classes": model.classes,
        "height": model.shape[0],
        "width": model.shape[1],
        "color": model.has_color,
        "framed": model.is_framed_like_mnist,
        "onBlack": model.is_on_black,
        "onnx": _base64((folder / "model.onnx").read_bytes()),
    }
    (folder / "model.js").write_text(f"const MODEL = {json.dumps(described)};\n", "utf-8")
    shutil.copy(READER, folder)
    names = (script, "runtime.js", "model.js", READER.name)
    loaded = "".join(f'<script src="{name}"></script>\n' for name in names)
    page = PAGE.read_text("utf-8").replace("<script>", f"{loaded}<script>", 1)
    (folder / "index.html").write_text(page, "utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _runtime() -> dict[str, bytes]:
    """Return the files of DIGESTS out of npm's package."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"needs npm, which brings {PACKAGE}")
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            [npm, "pack", "--prefer-offline", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True
        )
        files = list(Path(folder).glob("*.tgz"))
        if packed.returncode or not files:
            said = " ".join((packed.stderr or packed.stdout).split())
            raise UserError(f"npm pack {PACKAGE} failed: {said[:200]}")
        with tarfile.open(files[0]) as archive:
            found = {name: _member(archive, f"package/dist/{name}") for name in DIGESTS}
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
            raise UserError(f"{name} of {PACKAGE} is not what it was when digitlab was made")
    return found


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
