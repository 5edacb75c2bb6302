"""Runs the service until a signal stops it."""

import gc
import logging
import os
import resource
import signal
import socket
import threading
from contextlib import suppress

import uvicorn

from service.app import create_app
from service.http.middleware.request_head import LimitedProtocol
from service.settings import STOP_SECONDS, Settings

DESCRIPTORS = 65_536
DRAIN_SECONDS = 30  # how long requests in progress may take after SIGTERM
log = logging.getLogger("gpq.service")


def run(settings: Settings) -> int:
    """Returns the exit status. Raises what ``create_app`` raises, and OSError."""
    _require_free_port(settings)
    _allow_descriptors()
    app = create_app(settings)
    # The collector would stop all threads to look at all imported objects, for longer than a
    # search takes.
    gc.freeze()
    # uvicorn raises the signal again after an orderly stop, which is not a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        log_config=None,  # the root logger writes its lines too
        access_log=False,  # RequestTimer logs requests, with their ids
        http=LimitedProtocol,
    )
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=STOP_SECONDS)
            if thread.is_alive():  # it waits for a silent database; acknowledged writes are durable
                log.warning("the thread %s does not end; the process ends without it", thread.name)
                os._exit(1)
    return 0


def _allow_descriptors() -> None:
    """Raises the number of descriptors: connections and files of requests in progress need some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _require_free_port(settings: Settings) -> None:
    """Raises OSError early; uvicorn would only find out after the model is loaded."""
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
