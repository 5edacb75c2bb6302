"""python -m service: run the search service with GPQ_* settings.

python -m service models list|add FOLDER|reindex|activate ID|rollback|prune: change the model
while the service runs.

python -m service import FOLDER|MANIFEST|TAR: store many pictures; asked for again it goes on.
python -m service jobs list|failures N|cancel N: what is under way, here and in services.

python -m service export FILE, restore FILE: all of it into another database.
python -m service backup FILE: a copy of a SQLite database that is in use.

python -m service migrate REVISION: take the database to that revision of the schema, back
too, before an older version of the program is installed. No process may run meanwhile.
"""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading

from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gpq.errors import GPQError
from service.cli import backup, jobs, models
from service.database import engine
from service.database.migrate import NewerSchema, migrate
from service.database.records import Refused
from service.database.store import Store
from service.problems import Problem
from service.settings import STOP_SECONDS, Settings, misspelt
from service.threads import spin_little

DRAIN_SECONDS = 30  # how long requests under way may take after SIGTERM
log = logging.getLogger("gpq.service")


def main() -> int:
    """Exit status: 0 stopped by a signal or done, 1 what was asked for cannot be done."""
    try:
        try:
            return _run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads has enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run() -> int:
    spin_little()
    parser = argparse.ArgumentParser(prog="python -m service")
    commands = parser.add_subparsers(
        dest="command", metavar="[import|jobs|models|export|restore|backup|migrate]"
    )
    migration = commands.add_parser("migrate", help="take the database to a schema revision")
    migration.add_argument("revision", nargs="?", default="head", help="default: the newest, head")
    jobs.add_import_arguments(commands.add_parser("import", help="store many pictures"))
    jobs.add_arguments(commands.add_parser("jobs", help="what is under way"))
    backup.add_arguments(commands)
    models.add_arguments(commands.add_parser("models", help="change the model"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    try:
        settings = Settings()
        for line in misspelt(os.environ):
            log.warning(line)
        if arguments.command not in (None, "migrate"):
            logging.getLogger("alembic").setLevel(logging.WARNING)
        if arguments.command and (absent := engine.missing(settings.database_url)):
            if arguments.command not in ("import", "restore"):
                raise ValueError(f"GPQ_DATABASE_URL: there is no database {absent}")
            print(f"a new database: {absent}", file=sys.stderr)
        if arguments.command == "migrate":
            return _migrate(settings, arguments.revision)
        if arguments.command == "models":
            return models.run(arguments, settings)
        if arguments.command == "import":
            return jobs.run_import(arguments, settings)
        if arguments.command in backup.ABOUT:
            return backup.run(arguments, settings)
        if arguments.command == "jobs":
            return jobs.run(arguments, settings)
        return _serve(settings)
    except ValidationError as error:
        for problem in error.errors():
            place = "GPQ_" + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            print(f"error: {place}: {problem['msg']}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except (
        GPQError, Refused, Problem, ArgumentError, ValueError, OSError, NewerSchema, SQLAlchemyError
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
    return 1


def _migrate(settings: Settings, revision: str) -> int:
    store = Store(settings.database_url)
    migrate(store.database, revision)
    store.close()
    print(f"the database is at revision {revision}")
    return 0


def _serve(settings: Settings) -> int:
    import uvicorn  # slow to import, as is torch: other commands need neither

    from service.app import create_app

    _require_free_port(settings)
    app = create_app(settings)
    # What is there by now stays. To look at torch's objects the collector would stop all threads
    # for longer than a search takes.
    gc.freeze()
    # uvicorn raises the signal again after an orderly stop; a stop asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
    )
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=STOP_SECONDS)
            if thread.is_alive():  # in a silent database; what was acknowledged is durable
                log.warning("%s does not end; it is left behind", thread.name)
                os._exit(1)
    return 0


def _require_free_port(settings: Settings) -> None:
    """Before the model and the codes are loaded: uvicorn would find out after it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise OSError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; set "
                "GPQ_PORT (and GPQ_HOST), or stop the other service"
            ) from error
