"""The licences of what requirements.lock installs: a list of kinds that anyone may build on."""

import re
from importlib import metadata

import pytest

PERMISSIVE = r"Apache|BSD|MIT|ISC|Zlib|PSF|Python Software Foundation|BSL-1.0|CC0-1.0|MPL|Mozilla"
# Named in their files only, not in their metadata.
READ = {"axe-playwright-python": "MIT", "huey": "MIT", "skops": "MIT", "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}


def licence(name: str) -> str:
    found = metadata.metadata(name)
    classifiers = [each.split(" :: ")[-1] for each in found.get_all("Classifier", []) if each.startswith("License ::")]
    return READ.get(name) or found.get("License-Expression") or "; ".join(classifiers) or found.get("License") or ""


def test_every_locked_package_may_be_built_on(repository):
    lock = (repository / "requirements.lock").read_text()
    unclear = {}
    for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE):
        try:
            found = licence(name)
        except metadata.PackageNotFoundError:  # of another system or Python
            continue
        # NVIDIA's libraries come with PyTorch from PyPI, as NVIDIA allows it to pass them on.
        is_nvidia = name.startswith(("nvidia-", "cuda-")) and "NVIDIA" in found
        parts = re.split(r" AND |; ", re.sub(r"[()]", "", found))
        if not is_nvidia and not all(re.search(PERMISSIVE, each) and "GPL" not in each for each in parts):
            unclear[name] = found
    assert not unclear


@pytest.mark.parametrize("package", ["torch", "pytorch-lightning", "torchvision", "hydra-core", "mlflow"])
def test_the_check_reads_a_licence(package):
    assert re.search("Apache|BSD|MIT", licence(package))
