"""Runs a server that speaks the S3 protocol on 127.0.0.1."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from harness.processes import free_port

ACCESS = {
    "AWS_ACCESS_KEY_ID": "gpq",
    "AWS_SECRET_ACCESS_KEY": "gpq-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class S3:
    """A context manager that runs the server; ``folder``: gets its log.

    ``url``: its address. ``environment``: the variables that an S3 client needs to reach it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {**ACCESS, "AWS_ENDPOINT_URL": self.url}

    def __enter__(self) -> "S3":
        with (self.folder / "s3.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                env={**os.environ, **ACCESS},
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(self.url)
                return self
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def make_bucket(self, name: str) -> None:
        """Creates an empty bucket."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ACCESS["AWS_SECRET_ACCESS_KEY"],
            region_name=ACCESS["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=name)
