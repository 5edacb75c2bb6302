"""Tests of the commands that the guides ask users to run."""

import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT
from harness.images import tree
from harness.server import Server


def test_index_folder_sends_every_image_and_names_what_failed(
    random_model: Path, tmp_path: Path
) -> None:
    names = ["a.png", "deep/with space.png", "comma,semi;colon.png", "quote'\"é.png"]
    images = tree(tmp_path / "images", *names)
    (images / "broken.jpg").write_bytes(b"not an image")
    command = [sys.executable, str(ROOT / "docs" / "index_folder.py"), str(images)]
    with Server(tmp_path, model=random_model, api_keys="a-key") as server:
        environment = {**os.environ, "GPQ_API_KEYS": "a-key"}
        done = subprocess.run(
            [*command, server.url], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stdout == "4 images sent, 1 failed\n"
        assert "broken.jpg: " in done.stderr
        server.http.headers["authorization"] = "Bearer a-key"
        stored = server.http.get("/images").json()["images"]
        found = {image["metadata"]["file"] for image in stored}
        assert found == {str(images / name) for name in names}
        done = subprocess.run([*command, server.url], capture_output=True, text=True)
        assert done.returncode != 0
        assert "401" in done.stderr


def test_a_port_in_use_is_reported_in_one_clear_line(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        port = server.url.rpartition(":")[2]
        environment = {**os.environ, "GPQ_PORT": port, "GPQ_MODEL": str(random_model)}
        command = [sys.executable, "-m", "service"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: cannot listen on 127.0.0.1 port")
        assert "GPQ_PORT" in done.stderr
