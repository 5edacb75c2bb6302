"""Writes the log as text or as JSON lines, with the id of the request of each line."""

import logging
import random
import re
import sys
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

Format = Literal["text", "json"]
TEXT = "%(levelname)s: %(name)s: %(message)s"
JSON = ["asctime", "levelname", "name", "message", "request"]
RENAMED = {"asctime": "time", "levelname": "level", "name": "logger"}
GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Not of ``secrets``: that asks the system each time, and so passes the turn to other threads.
_random = random.Random()
request_id: ContextVar[str] = ContextVar("request_id", default="")


def set_up(format: Format) -> None:
    """Sends the log of all libraries to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if format == "json":
        handler.setFormatter(JsonFormatter(JSON, rename_fields=RENAMED))
    else:
        handler.setFormatter(logging.Formatter(TEXT))
    handler.addFilter(_add_request)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def new_request_id(given: str = "") -> str:
    """Returns the id that a client gave to its request, if it is one, or a new id."""
    return given if GIVEN_ID.fullmatch(given) else f"{_random.getrandbits(64):016x}"


def _add_request(record: logging.LogRecord) -> bool:
    record.request = getattr(record, "request", "") or request_id.get()
    return True
