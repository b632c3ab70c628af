"""The schema of a store's file: which version of MLflow made it; upgrade an older one, with a copy beside it."""

import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow import __version__
from mlflow.store import db_migrations

from digitlab.platform.text import last_line
from digitlab.tracking import integrity
from digitlab.tracking.address import address_of


def is_older(file: Path) -> bool:
    """Say whether an older MLflow made the store.

    Raises OSError where a newer one did, or where `file` is another program's.
    """
    try:
        with closing(sqlite3.connect(file, timeout=integrity.PATIENCE)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            found = "alembic_version" in tables and database.execute("select * from alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        raise OSError(f"{file}: {error}") from error
    except sqlite3.DatabaseError:
        integrity.check(file)  # which says what is wrong
        raise
    if not found or not {"experiments", "runs"} <= tables:
        raise OSError(f"{file} is no store of MLflow; it holds: {', '.join(sorted(tables)[:3]) or 'no tables'}")
    known = ScriptDirectory(str(Path(db_migrations.__file__).parent))
    if found[0] == known.get_current_head():
        return False
    try:
        known.get_revision(found[0])
    except CommandError:
        raise OSError(
            f"{file} was made by a newer MLflow than {__version__}, with schema {found[0]}: "
            "pip install --upgrade mlflow, or name another store"
        ) from None
    return True


def upgrade(file: Path) -> None:
    """Bring a store of an older MLflow to the schema of this one, after a copy; say both.

    A copy is upgraded and then takes the store's place, because MLflow's steps are not one transaction.
    """
    integrity.check(file)
    kept = integrity.free_name(file, "older")
    warnings.warn(
        f"{file} is of an older MLflow, which cannot open it any more after this: upgrading it for {__version__}; "
        f"as it was it stays in {kept.name}",
        stacklevel=2,
    )
    integrity.copy_to(file, kept)
    new = file.with_name(f".{file.name}.new")
    integrity.copy_to(file, new)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", address_of(new)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        integrity.remove(new)
        raise OSError(f"{file}: MLflow cannot upgrade it ({last_line(done.stderr)}); it is unchanged")
    new.replace(file)
