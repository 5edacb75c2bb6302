"""python -m service: run the search service with GPQ_* settings."""

import logging
import signal
import sys

import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError

from gpq.errors import GPQError
from service.app import create_app
from service.settings import Settings

DRAIN_SECONDS = 30  # how long requests under way may take after SIGTERM


def main() -> int:
    """Exit status: 0 stopped by a signal, 1 settings that cannot be served."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    try:
        settings = Settings()
        app = create_app(settings)
    except ValidationError as error:
        for problem in error.errors():
            place = "GPQ_" + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            print(f"error: {place}: {problem['msg']}", file=sys.stderr)
        return 1
    except (GPQError, ArgumentError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
