import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.types import ASGIApp

from service.http.middleware.request_head import LimitedProtocol

Connect = Callable[[], socket.socket]


@pytest.fixture
def serve() -> Iterator[Callable[[ASGIApp], Connect]]:
    """Serves an application as the service does; returns a function that connects to it."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: ASGIApp) -> Connect:
        config = uvicorn.Config(app, port=0, http=LimitedProtocol, log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        servers.append((server, thread))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()
        return lambda: socket.create_connection(address, timeout=20)

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()
