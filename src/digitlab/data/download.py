"""Download files, each with a checksum; what is half loaded never has a file's name."""

import sys
import warnings
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tqdm import tqdm

from digitlab.platform.process import is_running, this_process

DOWNLOAD_TIMEOUT = 20  # seconds without a byte


class UnavailableError(OSError):
    """The data is neither on disk nor can be downloaded."""


def ensure(file: Path, md5: str, urls: Sequence[str], is_as_good: Callable[[], bool] = lambda: False) -> None:
    """Make sure that `file` is there with the checksum `md5`, or `is_as_good`; else download it from one of `urls`.

    Raises UnavailableError where it is missing and no address gives it, OSError where it is corrupt and none does.
    """
    from torchvision.datasets.utils import check_md5

    corrupt = file.exists()
    if corrupt:
        if check_md5(str(file), md5) or is_as_good():
            return
        warnings.warn(f"{file} is corrupt (its md5 is not {md5}); fetching it again", stacklevel=2)
    part = file.with_suffix(f".{this_process()}.part")  # an incomplete download never has the final name
    for left in file.parent.glob(f"{file.stem}.*.part"):
        if not is_running(left.name.removeprefix(f"{file.stem}.").removesuffix(".part")):
            left.unlink(missing_ok=True)
    reasons = []
    for url in urls:
        host = url.removesuffix(file.name)
        try:
            _download(url, part)
            if check_md5(str(part), md5):
                part.replace(file)
                return
            reasons.append(f"{host}: wrong md5")
        except (OSError, HTTPException) as error:
            reasons.append(f"{host}: {error}")
        finally:
            part.unlink(missing_ok=True)
    if corrupt:
        raise OSError(f"{file} is corrupt and cannot be fetched again ({'; '.join(reasons)})")
    raise UnavailableError(f"{file} is missing and cannot be downloaded ({'; '.join(reasons)})")


def _download(url: str, file: Path) -> None:
    with urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
        file.parent.mkdir(parents=True, exist_ok=True)
        bar = tqdm(total=response.length, unit="B", unit_scale=True, desc=url, disable=not sys.stderr.isatty())
        with file.open("wb") as out, bar:
            while chunk := response.read(1 << 16):
                out.write(chunk)
                bar.update(len(chunk))
