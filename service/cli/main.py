"""Parses the command line and runs the command."""

import argparse
import logging
import os
import sys

from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gpq.errors import GPQError
from gpq.system.openmp import spin_briefly
from service.access.audit import Audit, who_runs_commands
from service.cli import backup, fields, jobs, keys, models
from service.database import engine
from service.database.migrate import migrate
from service.database.store import Store
from service.errors import ServiceError
from service.settings import Settings, misspelt
from service.telemetry import logs

USAGE = """\
python -m service
    Runs the search service, with GPQ_* settings.

python -m service models list|add FOLDER|reindex|activate ID|rollback|prune
    Changes the model while the service runs.

python -m service import FOLDER|MANIFEST|TAR|URL
    Stores many images. Run it again to continue an interrupted import. --mirror deletes what is
    gone from the source, --watch follows a folder.

python -m service duplicates
    Groups the stored images that are copies of each other; GPQ_COPIES must be on.

python -m service jobs list|failures N|cancel N
    Shows and cancels imports and re-indexes, including those of services.

python -m service doctor
    Checks the installation part by part, and changes nothing.

python -m service fields list|add NAME|remove NAME
    Manages the filter fields, on which new filters are quick.

python -m service keys create NAME --scope SCOPE|list|revoke N
    Manages the API keys of the database.

python -m service export FILE, restore FILE
    Copies images, codes and models into another database; originals are not copied.

python -m service backup FILE
    Copies a SQLite database that is in use.

python -m service migrate REVISION
    Migrates the database to a revision of the schema, up or down. Go back before you install an
    older version of the program. No service may run meanwhile.
"""
# Commands, and actions of commands, that the audit log records; keys records its own.
RECORDED = {
    "migrate", "import", "duplicates", "export", "restore", "backup", "models add", "models save",
    "models reindex", "models activate", "models rollback", "models prune", "jobs cancel",
    "fields add", "fields remove",
}  # fmt: skip
COMMANDS_THAT_CREATE = ("import", "restore", "keys")  # commands that may create the SQLite file
log = logging.getLogger("gpq.service")


def main() -> int:
    """Returns the exit status: 0 if the command succeeded or a signal stopped the service."""
    try:
        try:
            return _run(_parser().parse_args())
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has read enough, as ``head`` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command",
        metavar="[doctor|import|duplicates|jobs|models|fields|keys|export|restore|backup|migrate]",
    )
    migration = commands.add_parser("migrate", help="migrate the database to a schema revision")
    migration.add_argument("revision", nargs="?", default="head", help="default: head, the newest")
    commands.add_parser("doctor", help="check the installation")
    jobs.add_import_arguments(commands.add_parser("import", help="store many images"))
    jobs.add_duplicates_arguments(commands.add_parser("duplicates", help="find copies"))
    jobs.add_arguments(commands.add_parser("jobs", help="show and cancel jobs"))
    backup.add_arguments(commands)
    models.add_arguments(commands.add_parser("models", help="change the model"))
    fields.add_arguments(commands.add_parser("fields", help="manage filter fields"))
    keys.add_arguments(commands.add_parser("keys", help="manage API keys"))
    return parser


def _run(arguments: argparse.Namespace) -> int:
    spin_briefly()
    logs.set_up("text")  # until the settings are known
    try:
        settings = Settings()
        logs.set_up(settings.log_format)
        for warning in misspelt(os.environ):
            log.warning(warning)
        if arguments.command not in (None, "migrate"):
            for quiet in ("alembic", "gpq", "watchfiles"):  # migrations, engines, changes
                logging.getLogger(quiet).setLevel(logging.WARNING)
        if arguments.command:
            _require_database(settings, arguments.command)
        return _run_recorded(arguments, settings)
    except ValidationError as error:
        for problem in error.errors():
            place = "GPQ_" + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            print(f"error: {place}: {problem['msg']}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except (
        GPQError, ServiceError, ArgumentError, ValueError, OSError, SQLAlchemyError
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
    return 1


def _run_recorded(arguments: argparse.Namespace, settings: Settings) -> int:
    """Runs the command, and records it in the audit log if it changes or copies something."""
    options = vars(arguments).items()
    given = {name: str(value) for name, value in options if value not in (None, False)}
    action = " ".join(given.pop(name) for name in ("command", "action") if name in given)
    status = 1
    try:
        status = _run_command(arguments, settings)
    finally:
        if action in RECORDED:
            Audit(settings.audit_log).record(who_runs_commands(), action, exit=status, **given)
    return status


def _run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.command == "migrate":
        return _migrate(settings, arguments.revision)
    if arguments.command == "models":
        return models.run(arguments, settings)
    if arguments.command == "doctor":
        from service.cli import doctor  # loads the engines, which other commands don't need

        return doctor.run(settings)
    if arguments.command == "fields":
        return fields.run(arguments, settings)
    if arguments.command == "keys":
        return keys.run(arguments, settings)
    if arguments.command == "import":
        return jobs.run_import(arguments, settings)
    if arguments.command == "duplicates":
        return jobs.run_duplicates(arguments, settings)
    if arguments.command in backup.ABOUT:
        return backup.run(arguments, settings)
    if arguments.command == "jobs":
        return jobs.run(arguments, settings)
    from service.cli import serve  # imports uvicorn, which is slow to import

    return serve.run(settings)


def _require_database(settings: Settings, command: str) -> None:
    """Raises ValueError if the database does not exist and the command must not create it."""
    if command == "doctor":
        return
    if file := engine.missing_file(settings.database_url):
        if command not in COMMANDS_THAT_CREATE:
            raise ValueError(f"GPQ_DATABASE_URL: there is no database {file}")
        print(f"creating the database {file}", file=sys.stderr)


def _migrate(settings: Settings, revision: str) -> int:
    store = Store(settings.database_url)
    migrate(store.database, revision)
    store.close()
    print(f"the database is at revision {revision}")
    return 0
