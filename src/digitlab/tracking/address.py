"""Addresses of stores: from the path of a file to what MLflow and SQLAlchemy read as it, and back; their digests."""

from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import URL, make_url

from digitlab import REPOSITORY

PLAIN = "sqlite:///"
ENCODED = "sqlite+pysqlite:///"  # the same to SQLAlchemy; of the plain form MLflow makes the folder that it spells


def address_of(file: Path) -> str:
    """Return the address of a database file: the plain one, where it is read as the same path."""
    plain = make_url(f"{PLAIN}{file}")
    if plain.database == str(file) and not plain.query:
        return f"{PLAIN}{file}"
    return URL.create("sqlite+pysqlite", database=str(file)).render_as_string()


def file_of(address: str) -> Path | None:
    """Return the file that an address names, literally or as `address_of` gives it; None for a server's."""
    if address.startswith(ENCODED):
        return Path(make_url(address).database or "")
    return Path(address.removeprefix(PLAIN)).expanduser() if address.startswith(PLAIN) else None


def digest_of(address: str) -> str:
    """Return a digest of an address, the same whoever asks there: it may hold a user's name and password."""
    parts = urlsplit(address)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"))
    return sha256(place.geturl().encode()).hexdigest()[:8]


OURS = address_of(REPOSITORY / "mlruns" / "mlflow.db")
