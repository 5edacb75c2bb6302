"""Send a folder of pictures to a running service, as a program of yours would.

.venv/bin/python docs/index_folder.py FOLDER [http://127.0.0.1:8000]

Each picture's metadata says where it came from, so that hits lead back to it. Run it again
after adding files: what is stored already is "unchanged". Keys: GPQ_API_KEYS's first, in
the environment.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

PICTURES_A_REQUEST, BYTES_A_REQUEST = 100, 64 * 2**20


def parts(files: list[Path]) -> Iterator[list[Path]]:
    """So many files, or bytes, at a time; at least one."""
    part: list[Path] = []
    size = 0
    for path in files:
        size += path.stat().st_size
        if part and (len(part) == PICTURES_A_REQUEST or size > BYTES_A_REQUEST):
            yield part
            part, size = [], path.stat().st_size
        part.append(path)
    if part:
        yield part


def main(folder: Path, url: str) -> int:
    key = os.environ.get("GPQ_API_KEYS", "").split(",")[0]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if not folder.is_dir():
        sys.exit(f"there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    failed = 0
    with httpx.Client(base_url=url, headers=headers, timeout=300) as service:
        for part in parts(files):
            reply = service.post(
                "/index",
                files=[("images", (path.name, path.read_bytes())) for path in part],
                data={"metadata": json.dumps([{"file": str(path)} for path in part])},
            )
            body = reply.json()
            if "items" not in body:
                sys.exit(f"{reply.status_code}: {body['detail']}")
            for path, item in zip(part, body["items"], strict=True):
                if item["status"] == "failed":
                    failed += 1
                    print(f"{path}: {item['error']['detail']}", file=sys.stderr)
    print(f"{len(files) - failed} pictures sent, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), (sys.argv[2:] or ["http://127.0.0.1:8000"])[0]))
