"""Runs the service, ``python -m service``, as a process on a free port."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx

from harness.processes import (
    children,
    environment,
    free_port,
    peak_resident_bytes,
    resident_bytes,
)

START_SECONDS = 120


class Server:
    """One process of the service. As a context manager it starts the process and waits until it
    is ready; at the end it sends SIGTERM and asserts that the process ended without an error.

    ``folder``: working folder of the process, which also gets the log. ``settings``: settings of
    the service, such as ``model=path``. ``url``: address of the service. ``http``: a client for
    it. ``variables``: other environment variables of the process, set before it starts.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.settings = settings
        self.variables: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = self.stop()
        if error is None:
            assert status == 0, self.printed()
            assert "Traceback" not in self.printed(), self.printed()

    def start(self) -> None:
        """Starts the process without waiting until it is ready."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        variables = {**environment(**{"port": port, **self.settings}), **self.variables}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=self.folder,
                env={**variables, "PYTHONWARNINGS": "default"},
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def stop(self) -> int:
        """Stops the process by SIGTERM and returns its exit status."""
        assert self.process is not None
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """Kills the process by SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=60)
        self.http.close()

    def printed(self) -> str:
        """Returns all that the process has printed: the log text of every start."""
        return (self.folder / "log").read_text()

    def rss(self) -> int:
        """Returns the resident memory of the process and of those that it started, in bytes."""
        return sum(map(resident_bytes, self.processes()))

    def forget_peak_rss(self) -> None:
        """Resets what ``peak_rss`` returns to the current memory (proc(5), clear_refs)."""
        for process in self.processes():
            with suppress(OSError):  # it has ended
                Path(f"/proc/{process}/clear_refs").write_text("5")

    def peak_rss(self) -> int:
        """Returns the largest resident memory since ``forget_peak_rss``, in bytes.

        It is the sum of the peaks of the process and of those that it started and still run.
        """
        return sum(map(peak_resident_bytes, self.processes()))

    def processes(self) -> list[int]:
        assert self.process is not None
        return [self.process.pid, *children(self.process.pid)]

    def index(self, *images: bytes, **fields: str) -> httpx.Response:
        """Sends a POST /index with the images and the other form fields."""
        files = [("images", (f"{n}.bin", data)) for n, data in enumerate(images)]
        return self.http.post("/index", files=files, data=fields)

    def search(self, image: bytes, **fields: object) -> httpx.Response:
        """Sends a POST /search with the image and the other form fields."""
        return self.http.post("/search", files={"image": image}, data=fields)

    def wait_until_not_ready(self, why: str) -> None:
        """Waits until GET /readyz answers 503 with a detail that contains ``why``."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                reply = self.http.get("/readyz")
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            assert reply.status_code == 503, reply.text
            if why in reply.json()["detail"]:
                return
            time.sleep(0.05)
        raise RuntimeError(f"/readyz did not answer with {why!r}: {self.printed()}")

    def wait_until_ready(self) -> None:
        """Waits until GET /readyz answers 200, or 503 because the stored codes are another model's.

        Raises RuntimeError if the process ends or takes too long.
        """
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the service ended: {self.printed()}")
            try:
                reply = self.http.get("/readyz")
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if reply.status_code == 200 or "stored codes" in reply.text:
                return
            time.sleep(0.05)
        raise RuntimeError(f"the service is not ready: {self.printed()}")
