"""A real service process for tests: python -m service on a free port."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx

ROOT = Path(__file__).parent.parent
START_SECONDS = 120


class Server:
    """Started on entering; stopped by SIGTERM, which must end it cleanly, on leaving."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.settings = {f"GPQ_{name.upper()}": str(value) for name, value in settings.items()}
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
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GPQ_")}
        environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "default",
            "GPQ_PORT": str(port),
            **self.settings,
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def stop(self) -> int:
        """By SIGTERM; returns its exit status."""
        assert self.process is not None
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """By SIGKILL, wherever it is."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=60)
        self.http.close()

    def printed(self) -> str:
        return (self.folder / "log").read_text()

    def rss(self) -> int:
        """Resident bytes of the process."""
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def forget_peak_rss(self) -> None:
        """Start measuring ``peak_rss`` anew (proc(5), clear_refs)."""
        assert self.process is not None
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_rss(self) -> int:
        """Most resident bytes since ``forget_peak_rss``."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def index(self, *images: bytes, **fields: str) -> httpx.Response:
        files = [("images", (f"{n}.bin", data)) for n, data in enumerate(images)]
        return self.http.post("/index", files=files, data=fields)

    def search(self, image: bytes, **fields: object) -> httpx.Response:
        return self.http.post("/search", files={"image": image}, data=fields)

    def wait_until_not_ready(self, why: str) -> None:
        """Until readyz answers 503 with a detail that has ``why`` in it."""
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
        raise RuntimeError(f"readyz does not say {why!r}: {self.printed()}")

    def wait_until_ready(self) -> None:
        """Until it answers readyz with anything but "not yet"."""
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
