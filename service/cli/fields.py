"""Runs python -m service fields: lists, adds and removes filter fields."""

import argparse

from service.database.migrate import migrate
from service.database.store import Store
from service.errors import NoSuchField
from service.filters.grammar import field_name
from service.settings import Settings

ABOUT = {
    "list": "list the filter fields",
    "add": "make new filters on a field of the metadata quick; running services do the work",
    "remove": "remove a filter field; filters on it go on",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    for name, about in ABOUT.items():
        action = actions.add_parser(name, help=about, description=about)
        if name != "list":
            action.add_argument("name", help="name of the field, as in a filter: price, size.width")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status. Raises ServiceError, SQLAlchemyError."""
    store = Store(settings.database_url)
    try:
        migrate(store.database)
        if arguments.action == "add":
            store.fields.add(field_name(arguments.name, "name"))
        if arguments.action == "remove":
            _remove(store, arguments.name)
        found = store.fields.all()
        for field in found:
            print(f"{field.name}  {'complete' if field.complete else 'being filled'}")
        if not found:
            print("there are no filter fields")
        return 0
    finally:
        store.close()


def _remove(store: Store, name: str) -> None:
    if not store.fields.remove(field_name(name, "name")):
        raise NoSuchField(name)
