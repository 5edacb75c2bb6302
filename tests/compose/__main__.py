"""Tests docker-compose.yml: index, search, down and up, upgrade, three processes, API keys.

    make compose                    uses docker compose
    COMPOSE_LAB=LAB make compose    uses the program LAB instead: "LAB up FILE ARGS" builds and
                                    starts the services, "LAB compose FILE ARGS" is any other
                                    command of docker compose

The test runs in a separate compose project on a free port, and removes its volumes at the end.
"""

import json
import os
import subprocess
import sys
import time

import httpx

from harness import ROOT
from harness.images import EXAMPLES
from harness.processes import free_port

FILE = str(ROOT / "docker-compose.yml")
PROCESSES = 3


class Project:
    """A compose project with a unique name and port, and an HTTP client for it."""

    def __init__(self) -> None:
        self.port = free_port()
        project = {"COMPOSE_PROJECT_NAME": f"gpq-{self.port}", "GPQ_PORT": str(self.port)}
        self.environment = {**os.environ, **project}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)

    def up(self, *arguments: str) -> None:
        """Builds and starts the services, and waits until they are healthy."""
        lab = os.environ.get("COMPOSE_LAB")
        plain = ["docker", "compose", "-f", FILE, "up", "-d", "--build", "--wait"]
        self._run([lab, "up", FILE, *arguments] if lab else [*plain, *arguments])

    def compose(self, *arguments: str) -> str:
        """Runs a command of docker compose and returns its output."""
        lab = os.environ.get("COMPOSE_LAB")
        return self._run([*([lab, "compose", FILE] if lab else ["docker", "compose", "-f", FILE]),
                          *arguments])  # fmt: skip

    def inside(self, *command: str) -> str:
        """Runs a command in a container of the service and returns its output."""
        return self.compose("exec", "-T", "service", *command)

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, env=self.environment, text=True, stdout=subprocess.PIPE)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout


def example_images() -> dict[str, bytes]:
    """Returns the bytes of the example images, by names such as hat-0001."""
    files = sorted(EXAMPLES.rglob("*.jpg"))
    return {f"{path.parent.name}-{path.stem}": path.read_bytes() for path in files}


def precision_at_10(project: Project, sample: dict[str, bytes]) -> float:
    """Searches with every image, and returns the mean share of its ten nearest, without itself,
    that have its class."""
    right = 0
    for name, data in sample.items():
        reply = project.http.post("/search", files={"image": data}, data={"k": 11})
        reply.raise_for_status()
        hits = [hit["id"] for hit in reply.json()["results"] if hit["id"] != name][:10]
        right += sum(hit[:-5] == name[:-5] for hit in hits)
    return right / (10 * len(sample))


def limit(project: Project, v2: str, v1: str) -> int:
    """Returns a limit of the service's control group; files of cgroup v2 and v1."""
    files = f"cat /sys/fs/cgroup/{v2} /sys/fs/cgroup/{v1} 2>/dev/null; true"
    return int(project.inside("sh", "-c", files))


def check(project: Project) -> None:
    """Runs all checks one after the other; raises AssertionError at the first that fails."""
    sample = example_images()
    started = time.monotonic()
    project.up()
    print(f"up after {time.monotonic() - started:.0f} s")

    assert "<title>Image search</title>" in project.http.get("/").text
    assert len(project.http.get("/page/examples").json()) == len(sample)

    files = [("images", (name, data)) for name, data in sample.items()]
    reply = project.http.post("/index", files=files, data={"ids": json.dumps(list(sample))})
    assert reply.status_code == 200, reply.text
    assert not reply.json()["errors"]
    before = precision_at_10(project, sample)
    print(f"{len(sample)} images indexed and searched, precision at 10: {before:.3f}")
    assert before > 0.75

    assert project.inside("id", "-u").strip() == "10001"
    assert "Read-only" in project.inside("sh", "-c", "touch /tmp/x; touch /app/x 2>&1; true")
    found = project.inside("gpq", "doctor")
    for rights in ("user 10001 with no capabilities and cannot gain", "are filtered", "read-only"):
        assert rights in found, found
    listed = json.loads(project.inside("cat", "/app/sbom.json"))["components"]
    assert {"fastapi", "pillow", "openvino"} <= {each["name"].lower() for each in listed}
    assert limit(project, "memory.max", "memory/memory.limit_in_bytes") < 2**40
    assert limit(project, "pids.max", "pids/pids.max") == 512
    assert project.inside("sh", "-c", "command -v gcc cc make; true") == ""
    assert "No module named" in project.inside("sh", "-c", "python -c 'import torch' 2>&1; true")
    assert project.inside("gpq", "jobs", "list") == "there are no jobs\n"
    total = project.inside("sh", "-c", "du -scm /app /venv | tail -1").split()[0]
    print(f"the program, its model and its Python packages take {total} MB, without PyTorch")
    published = json.loads(project.compose("ps", "--format", "json", "database").splitlines()[0])
    assert not any(port["PublishedPort"] for port in published["Publishers"] or [])
    again = "python -m service models add models/photos 2>&1; true"
    assert "was added already" in project.inside("sh", "-c", again)
    print(
        "the service is not root, has no capabilities, cannot gain rights, and its system calls "
        "are filtered; its root file system is read-only and has no compiler; its memory and its "
        "number of processes are limited; the database is not published"
    )

    project.compose("down")
    project.up()
    stats = project.http.get("/stats").json()
    assert stats["images"] == len(sample)
    assert stats["engine"] == "native", stats["engine_reason"]
    name, data = next(iter(sample.items()))
    assert project.http.get(f"/images/{name}/content").content == data
    assert precision_at_10(project, sample) == before
    print("after down and up all images are still stored, and searches find the same")

    project.compose("build", "--build-arg", f"UPGRADE={time.time()}", "service")
    project.up("--force-recreate", "service")
    assert precision_at_10(project, sample) == before
    print("after an upgrade all images are still stored, and searches find the same")

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
    print(f"{PROCESSES} processes behind the proxy find the images that any of them stored")

    project.environment |= {"GPQ_API_KEYS": "a-key", "GPQ_ALLOW_ANONYMOUS": "false"}
    project.up("--force-recreate", "service")
    deadline = time.monotonic() + 30  # until the proxy notices that the old processes are gone
    while (refused := project.http.get("/stats")).status_code != 401:
        assert time.monotonic() < deadline, refused.text
        time.sleep(0.5)
    assert refused.json()["code"] == "unauthorized"
    assert project.http.get("/").status_code == 200
    project.http.headers["authorization"] = "Bearer a-key"
    assert project.http.get("/stats").json()["images"] == len(sample) + 30
    assert project.http.post("/search", json={"id": name}).json()["results"]
    print("with API keys set, a request without a key is refused, and one with a key is served")


def main() -> int:
    project = Project()
    try:
        check(project)
    finally:
        project.compose("down", "--volumes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
