"""The address of a store that is a file: from a path to what MLflow and SQLAlchemy read as it, and back."""

from pathlib import Path

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


OURS = address_of(REPOSITORY / "mlruns" / "mlflow.db")
