"""What failed of a store, said in a line: MLflow, a database, a disk, the client of an object store."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

CLIENTS = ("boto3", "botocore", "s3transfer", "azure", "google")  # of object stores; MLflow passes their errors on
# What a server says of a call that it will never take. Where its database fails it may say BAD_REQUEST.
REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
# What a proxy and S3 say of a file that they will never take. Passwords, routes and clocks may be put right.
REFUSALS_OF_FILES = (403, 405, 411, 413, 414, 415, 422, 431, 451)
REFUSALS_OF_S3 = ("AccessDenied", "EntityTooLarge", "InvalidAccessKeyId", "NoSuchBucket", "SignatureDoesNotMatch")


def is_of_store(error: Exception) -> bool:
    """Say whether MLflow, a database, a disk or the client of an object store failed, or is not installed."""
    if isinstance(error, MlflowException | SQLAlchemyError | OSError):
        return True
    source = error.name if isinstance(error, ModuleNotFoundError) else type(error).__module__
    return str(source).partition(".")[0] in CLIENTS


def free(places: Iterable[str | Path]) -> str:
    """Say how much room there is in each folder, or in the folder of a file that need not exist."""
    paths = [Path(place).absolute() for place in places]
    folders = [next(folder for folder in (path, *path.parents) if folder.is_dir()) for path in paths]
    return f" (free: {', '.join(map(_room, folders))})" if folders else ""


def _room(folder: Path) -> str:
    disk = os.statvfs(folder)
    files = ", but no more files," if disk.f_files and not disk.f_favail else ""  # some file systems do not count them
    return f"{disk.f_bavail * disk.f_frsize:,} bytes{files} in {folder}"


def root_of(error: BaseException) -> str:
    """Say what was at the bottom of an error that libraries passed on, such as Connection refused."""
    *_, root = _chain(error)
    while root.args and isinstance(root.args[-1], BaseException):  # urllib3 and requests wrap errors so
        root = root.args[-1]
    said = root.strerror if isinstance(root, OSError) and root.strerror else str(root)
    return said.partition("\n")[0] or type(root).__name__


def is_missing(error: MlflowException) -> bool:
    """Say whether what was asked for is not there, or can be nowhere."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def is_refusal(error: Exception) -> bool:
    """Say whether the same call would fail again: what it asks for is wrong, or something is not installed here."""
    if isinstance(error, MlflowException):  # of a database without a server the same codes
        return error.error_code in REFUSALS
    if isinstance(error, ModuleNotFoundError) or type(error).__name__ == "NoCredentialsError":  # botocore's
        return True
    answer = next((each.response for each in _chain(error) if hasattr(each, "response")), None)
    if isinstance(answer, Mapping):  # botocore's
        return answer.get("Error", {}).get("Code") in REFUSALS_OF_S3
    return getattr(answer, "status_code", None) in REFUSALS_OF_FILES


def _chain(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
