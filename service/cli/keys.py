"""Runs python -m service keys: creates, lists and revokes API keys."""

import argparse
import time
from datetime import UTC, datetime

from service.access import keys
from service.access.audit import Audit, who_runs_commands
from service.database.job_records import Key
from service.database.migrate import migrate
from service.database.store import Store
from service.errors import InvalidRequest, NoSuchKey
from service.settings import Settings

ABOUT = {
    "create": "create a key and print its secret, which is not shown again",
    "list": "list the keys",
    "revoke": "make a key invalid, within about a second in running services",
}
DAY_SECONDS = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for name, about in ABOUT.items():
        action = actions.add_parser(name, help=about, description=about)
        if name == "create":
            action.add_argument("name", help="what the key is for")
            action.add_argument(
                "--scope",
                action="append",
                choices=keys.SCOPES,
                required=True,
                help="what it may do: search and read; store, change and delete; or everything. "
                "May be given several times",
            )
            action.add_argument("--prefix", default="", help="what ids must begin with")
            action.add_argument("--days", type=float, help="after which the key expires")
        if name == "revoke":
            action.add_argument("number", type=int, help="number of the key; see list")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status. Raises ServiceError, SQLAlchemyError."""
    store, audit = Store(settings.database_url), Audit(settings.audit_log)
    try:
        migrate(store.database)
        if arguments.action == "create":
            _create(store, audit, arguments, bool(settings.api_keys))
        elif arguments.action == "revoke":
            _revoke(store, audit, arguments.number)
        else:
            _list(store)
        return 0
    finally:
        store.close()


def _create(store: Store, audit: Audit, arguments: argparse.Namespace, configured: bool) -> None:
    days = arguments.days
    if days is not None and not 0 < days < 100_000:
        raise InvalidRequest("--days: give a number above 0")
    expires = None if days is None else time.time() + days * DAY_SECONDS
    key, secret = keys.create(
        store.keys, arguments.name, arguments.scope, arguments.prefix, expires, configured
    )
    audit.record(who_runs_commands(), "keys create", key=key.number, name=key.name)
    print(secret)


def _revoke(store: Store, audit: Audit, number: int) -> None:
    key = store.keys.revoke(number)
    if key is None:
        raise NoSuchKey(number)
    audit.record(who_runs_commands(), "keys revoke", key=number, name=key.name)
    print(f"key {number} ({key.name}) is revoked")


def _list(store: Store) -> None:
    found = store.keys.all()
    if not found:
        print("there are no keys in the database")
    for key in found:
        scopes = " ".join(sorted(key.scopes))
        prefix = f"  ids {key.prefix}…" if key.prefix else ""
        used = "never used" if key.used is None else f"used {_day(key.used)}"
        print(f"{key.number:4}  {_state(key):20}  {scopes:20}  {used:16}  {key.name}{prefix}")


def _state(key: Key) -> str:
    if key.revoked is not None:
        return f"revoked {_day(key.revoked)}"
    if key.expires is None:
        return "valid"
    return f"{'until' if key.valid(time.time()) else 'expired'} {_day(key.expires)}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
