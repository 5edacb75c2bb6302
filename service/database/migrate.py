"""Migrates the schema between revisions with alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

import migrations
from service.database.engine import Database
from service.errors import NewerSchema


def migrate(database: Database, revision: str = "head") -> None:
    """Brings the schema to ``revision``, up or down; only one process at a time does it.

    Raises NewerSchema if this version does not know ``revision``, or the database's.
    """
    config = _config()
    with database.transaction() as connection:
        config.attributes["connection"] = connection
        try:
            # The upgrade does nothing if the schema is newer; the downgrade then goes back.
            command.upgrade(config, revision)
            if revision != "head":
                command.downgrade(config, revision)
        except CommandError as error:
            raise NewerSchema(
                f"this version of the program does not know the revision ({error}): check it; "
                "or, if a newer version migrated the database, run that version, or its "
                "`python -m service migrate` to go back"
            ) from error


def revisions(database: Database) -> tuple[str | None, str | None]:
    """Returns the revision of the schema, None without tables, and the newest one."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision(), newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
