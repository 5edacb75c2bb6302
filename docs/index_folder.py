"""Sends a folder of images to a running service. Use it as a start for your own programs.

.venv/bin/python docs/index_folder.py FOLDER [http://127.0.0.1:8000]

Each image gets its file's path as metadata, so that a hit leads back to the file. You can run the
program again after adding files: the service answers "unchanged" for images that it has already.
The program authenticates with the first key in the environment variable GPQ_API_KEYS, if it is set.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

IMAGES_PER_REQUEST, BYTES_PER_REQUEST = 100, 64 * 2**20


def batches(files: list[Path]) -> Iterator[list[Path]]:
    """Splits the files into batches of limited number and size; each has at least one file."""
    batch: list[Path] = []
    size = 0
    for path in files:
        size += path.stat().st_size
        if batch and (len(batch) == IMAGES_PER_REQUEST or size > BYTES_PER_REQUEST):
            yield batch
            batch, size = [], path.stat().st_size
        batch.append(path)
    if batch:
        yield batch


def main(folder: Path, url: str) -> int:
    key = os.environ.get("GPQ_API_KEYS", "").split(",")[0]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder; name a folder of images")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    failed = 0
    with httpx.Client(base_url=url, headers=headers, timeout=300) as service:
        for batch in batches(files):
            reply = service.post(
                "/index",
                files=[("images", (path.name, path.read_bytes())) for path in batch],
                data={"metadata": json.dumps([{"file": str(path)} for path in batch])},
            )
            body = reply.json()
            if "items" not in body:
                sys.exit(f"{reply.status_code}: {body['detail']}")
            for path, item in zip(batch, body["items"], strict=True):
                if item["status"] == "failed":
                    failed += 1
                    print(f"{path}: {item['error']['detail']}", file=sys.stderr)
    print(f"{len(files) - failed} images sent, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), (sys.argv[2:] or ["http://127.0.0.1:8000"])[0]))
