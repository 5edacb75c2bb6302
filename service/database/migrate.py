"""The schema's revisions, by alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

import migrations
from service.database.engine import Database


class NewerSchema(Exception):
    """The database was migrated by a newer version of this program."""


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to this version's; one process at a time does it.

    An older ``revision`` goes back to it. Raises NewerSchema where the database is at a
    revision this version does not know.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.transaction() as connection:
        config.attributes["connection"] = connection
        try:
            # Up from an older revision, a no-op from a newer one; then down to it.
            command.upgrade(config, revision)
            if revision != "head":
                command.downgrade(config, revision)
        except CommandError as error:
            raise NewerSchema(
                f"the database's schema is not of this version ({error}): run the version "
                "that migrated it, or take it back there with `python -m service migrate`"
            ) from error
