"""docker compose up, as a user has it: index, search, down and up, upgrade, three processes.

    make compose                       where Docker runs
    COMPOSE_LAB=… make compose         with a script that stands for it: "LAB up FILE ARGS"
                                       builds and starts, "LAB compose FILE ARGS" is docker compose

A project of its own on a free port; its volumes are removed in the end.
"""

import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
FILE = str(ROOT / "docker-compose.yml")
SAMPLE = ROOT / "tests" / "data" / "cifar10-sample.tar.xz"
PROCESSES = 3


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Project:
    def __init__(self) -> None:
        self.port = free_port()
        project = {"COMPOSE_PROJECT_NAME": f"gpq-{self.port}", "GPQ_PORT": str(self.port)}
        self.environment = {**os.environ, **project}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)

    def up(self, *arguments: str) -> None:
        lab = os.environ.get("COMPOSE_LAB")
        plain = ["docker", "compose", "-f", FILE, "up", "-d", "--build", "--wait"]
        self._run([lab, "up", FILE, *arguments] if lab else [*plain, *arguments])

    def compose(self, *arguments: str) -> str:
        lab = os.environ.get("COMPOSE_LAB")
        return self._run([*([lab, "compose", FILE] if lab else ["docker", "compose", "-f", FILE]),
                          *arguments])  # fmt: skip

    def inside(self, *command: str) -> str:
        return self.compose("exec", "-T", "service", *command)

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, env=self.environment, text=True, stdout=subprocess.PIPE)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout


def pictures() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder, tarfile.open(SAMPLE) as archive:
        archive.extractall(folder, filter="data")
        files = sorted(Path(folder, "test").rglob("*.jpg"))
        return {f"{path.parent.name}-{path.stem}": path.read_bytes() for path in files}


def right_hits(project: Project, sample: dict[str, bytes]) -> float:
    """Precision at 10 of a search with every picture, itself left out."""
    right = 0
    for name, data in sample.items():
        reply = project.http.post("/search", files={"image": data}, data={"k": 11})
        reply.raise_for_status()
        hits = [hit["id"] for hit in reply.json()["results"] if hit["id"] != name][:10]
        right += sum(hit.split("-")[0] == name.split("-")[0] for hit in hits)
    return right / (10 * len(sample))


def check(project: Project) -> None:
    sample = pictures()
    started = time.monotonic()
    project.up()
    print(f"up after {time.monotonic() - started:.0f} s")

    assert "<title>Image search</title>" in project.http.get("/").text
    assert len(project.http.get("/page/examples").json()) == len(sample)

    files = [("images", (name, data)) for name, data in sample.items()]
    reply = project.http.post("/index", files=files, data={"ids": json.dumps(list(sample))})
    assert reply.status_code == 200, reply.text
    assert not reply.json()["errors"]
    before = right_hits(project, sample)
    print(f"{len(sample)} pictures indexed and searched, precision at 10: {before:.3f}")
    assert before > 0.7

    assert project.inside("id", "-u").strip() == "10001"
    assert "Read-only" in project.inside("sh", "-c", "touch /tmp/x; touch /app/x 2>&1; true")
    assert project.inside("sh", "-c", "command -v gcc cc make; true") == ""
    published = json.loads(project.compose("ps", "--format", "json", "database").splitlines()[0])
    assert not any(port["PublishedPort"] for port in published["Publishers"] or [])
    again = "python -m service models add models/cifar10 2>&1; true"
    assert "was added already" in project.inside("sh", "-c", again)
    print("not root, read-only, no compiler, database not published")

    project.compose("down")
    project.up()
    stats = project.http.get("/stats").json()
    assert stats["images"] == len(sample)
    assert stats["engine"] == "native", stats["engine_reason"]
    name, data = next(iter(sample.items()))
    assert project.http.get(f"/images/{name}/content").content == data
    assert right_hits(project, sample) == before
    print("down and up: all still there, the same hits")

    project.compose("build", "--build-arg", f"UPGRADE={time.time()}", "service")
    project.up("--force-recreate", "service")
    assert right_hits(project, sample) == before
    print("service made anew from a new build: all still there, the same hits")

    project.up("--scale", f"service={PROCESSES}")
    deadline = time.monotonic() + 60
    while len(project.http.get("/stats").json()["feed"]["replicas"]) < PROCESSES:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for name, data in list(sample.items())[:30]:
        ids = {"ids": json.dumps([f"again-{name}"])}
        project.http.post("/index", files={"images": data}, data=ids).raise_for_status()
        for _ in range(PROCESSES):
            found = project.http.post("/search", files={"image": data}, data={"k": 1000}).json()
            assert f"again-{name}" in {hit["id"] for hit in found["results"]}
    print(f"{PROCESSES} processes behind the proxy find what any of them has stored")

    project.environment |= {"GPQ_API_KEYS": "a-key", "GPQ_ALLOW_ANONYMOUS": "false"}
    project.up("--force-recreate", "service")
    deadline = time.monotonic() + 30  # until the proxy has noticed who is gone
    while (refused := project.http.get("/stats")).status_code != 401:
        assert time.monotonic() < deadline, refused.text
        time.sleep(0.5)
    assert refused.json()["code"] == "unauthorized"
    assert project.http.get("/").status_code == 200
    project.http.headers["authorization"] = "Bearer a-key"
    assert project.http.get("/stats").json()["images"] == len(sample) + 30
    assert project.http.post("/search", json={"id": name}).json()["results"]
    print("with keys: refused without one, served with it")


def main() -> int:
    project = Project()
    try:
        check(project)
    finally:
        project.compose("down", "--volumes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
