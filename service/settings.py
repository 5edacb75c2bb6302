"""Every setting and limit, from ``GPQ_*`` environment variables, with its unit."""

import difflib
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gpq.pixels.decode import DEFAULT_MAX_PIXELS
from gpq.system.processors import processors
from service import threads

ROOT = Path(__file__).resolve().parent.parent  # of the program
MODELS = ROOT / "models"

PREFIX = "GPQ_"
NONE = "none"  # what people write for a setting that they do not want
BENCH_DATA = "GPQ_DATA"  # read by ``make gpu``, not by the service

MAX_RESULTS = 1000  # largest k of a search
DEFAULT_RESULTS = 10
MAX_BATCH_RESULTS = 100_000  # queries of a batch times k
MAX_REPLY_METADATA = 64 * 2**20  # characters of metadata of all results of a batch
MAX_PAGE_IMAGES = 1000  # images of one page of the listing
DEFAULT_PAGE_IMAGES = 100
THUMBNAIL_PIXELS = 256  # longer side of a thumbnail
MAX_METADATA_BYTES = 16 * 2**10  # one image's metadata as JSON
MAX_FIELD_BYTES = 18 * 2**20  # one text field of a form: metadata of a whole request
SMALL_BODY_BYTES = 8 * 2**20  # files of a larger request go to the disk from so many bytes on:
SPOOLED_BYTES = 64 * 2**10
MAX_FIELDS = 4  # text fields of a form
MAX_METADATA_DEPTH = 64  # objects and arrays inside one another
MAX_ECHOED_ID = 200  # characters of a wrong id that are said back
MAX_ECHOED_NAME = 255  # characters of a file's name that are said back
BODY_SECONDS = 300  # how long a form may take to arrive
WORKER_THREADS = 16  # requests that block at once; searches by one picture do not
LIGHT_THREADS = 4  # those that only ask the database, beside the others
MAX_JSON_BYTES = 64 * 2**10  # the JSON body of a search
MAX_METADATA_JSON_BYTES = 8 * MAX_METADATA_BYTES  # of a change of metadata: \u escapes, spaces
MAX_PATH = 4096  # characters of the source of an import
ID_PATTERN = r"[A-Za-z0-9._:~-]{1,128}"
RETRY_AFTER_SECONDS = 1  # what 429 and 503 tell a client to wait
FEED_POLL_SECONDS = 0.5  # how long another process's write may go unnoticed
SWEEP_SECONDS = 3600  # between sweeps of originals nothing points to
SWEEP_GRACE_SECONDS = 3600  # how old an original must be to be set aside, and then to be removed

# Of a process to its database, for the two above and scans, beside one for heartbeats and one to
# listen.
POOL_CONNECTIONS = WORKER_THREADS + LIGHT_THREADS + 1
DATABASE_CONNECT_SECONDS = 5  # how long a new connection to Postgres may take
DATABASE_STALL_SECONDS = 30  # how long a lock, or a silent server, is waited for
STOP_SECONDS = 5  # how long a thread is waited for at the end
LIGHT_WRITE_SECONDS = 2  # how long a heartbeat waits for other writes
WRITES_IN_A_COMMIT = 64  # requests that share one commit at most
LOAD_ROWS = 50_000  # codes fetched at a time at start
SEQS_IN_A_QUERY = 10_000  # SQLite takes 32,766 parameters
FEED_PAGE = 10_000  # changes applied, or taken out of the feed, at a time
HEARTBEAT_SECONDS = 1.0  # between a replica's signs of life
HEARTBEAT_GAP_SECONDS = 0.1  # at least, while changes come in
LATENCY_SECONDS = 5.0  # of the searches whose p99 a process tells the others
ALIVE_SECONDS = 5  # a replica whose heartbeat is older is not waited for
WAIT_ALL_SECONDS = 10  # how long wait=all waits before it answers 202
PRUNE_SECONDS = 60  # between looks for feed rows past GPQ_FEED_SECONDS
SAVE_SECONDS = 3600  # between writings of GPQ_INDEX_FILE
JOB_BEAT_SECONDS = 1.0  # between what a job says of its progress
JOB_LOST_SECONDS = 10  # a job that says nothing for so long has lost its process
JOB_SECONDS = 30 * 86_400  # how long a job that has ended is remembered
MAX_JOB_FAILURES = 10_000  # kept of one job; more are counted only
DUMP_ROWS = 10_000  # pictures exported and restored at a time
IMPORT_BATCH = 64  # pictures encoded and stored together
IMPORT_BATCH_BYTES = 64 * 2**20  # of files in memory, a batch
REINDEX_BATCH = 16  # pictures encoded anew at a time: searches wait for at most so many
REINDEX_SHARE = 0.5  # of the time that a re-index takes at most; the rest is left to searches
ACTIVATE_SECONDS = 60  # how long a model waits to be active for processes to load its codes
COMPACT_ROWS = 100_000  # removed codes in memory below which compacting never pays


class Settings(BaseSettings):
    """Field descriptions are the documentation; the README repeats them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    database_url: str = Field(
        "sqlite:///data/gpq.db", description="SQLAlchemy URL of the database, SQLite or Postgres"
    )
    model: Path = Field(
        MODELS / "cifar10",
        description="folder of the model artifact, below the current folder or else the program's; "
        "a database with pictures keeps theirs",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where images are encoded")
    scan: Literal["auto", "reference", "native", "cuda"] = Field(
        "auto",
        description="scan engine; `auto` is `cuda` where there is a card, else `native` where it "
        "was built, else `reference`",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated keys for `Authorization: Bearer`"
    )
    allow_anonymous: bool = Field(
        False, description="serve beyond loopback without keys; only behind your own access control"
    )
    max_body_bytes: int = Field(256 * 2**20, ge=2**10, description="largest request body, in bytes")
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, description="largest image, in pixels (width × height)"
    )
    max_images: int = Field(1000, ge=1, le=10_000, description="most images in one request")
    max_waiting: int = Field(
        64,
        ge=1,
        description="requests with pictures handled at once, and as many others; more get 429",
    )
    wait_seconds: float = Field(
        30, gt=0, description="how long a request may wait in all queues before it gets 503"
    )
    decode_threads: int = Field(
        default_factory=threads.decoding,
        ge=1,
        description="images decoded at once; memory grows with it and with GPQ_MAX_PIXELS",
    )
    encode_threads: int = Field(
        default_factory=processors,
        ge=1,
        description="threads of the network, on the CPU; fewer where other programs share it",
    )
    feed_seconds: int = Field(
        86_400,
        ge=1,
        description="how long changes are kept for replicas, in seconds; one further behind loads "
        "everything anew",
    )
    index_file: Path | None = Field(
        None,
        description="file of this process that keeps the codes for a quick start; written hourly "
        "and at the end",
    )
    import_folder: Path | None = Field(
        None, description="folder that `POST /jobs/import` may read; without it there is none"
    )
    image_store: str = Field(
        "data/images", description="folder or fsspec URL for original images, or `none`"
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if isinstance(value, str):
            keys = tuple(key.strip() for key in value.split(",") if key.strip())
            if NONE in map(str.lower, keys):
                raise ValueError(
                    f"{NONE} would be a key that anybody guesses; for no keys unset it"
                )
            return keys
        return value

    @field_validator("index_file", "import_folder", mode="before")
    @classmethod
    def _unset_none(cls, value: object) -> object:
        return None if value == NONE else value

    @model_validator(mode="after")
    def _safe_to_listen(self) -> "Settings":
        if not (is_loopback(self.host) or self.api_keys or self.allow_anonymous):
            raise ValueError(
                f"GPQ_HOST={self.host} is reachable from elsewhere: set GPQ_API_KEYS, or "
                "GPQ_ALLOW_ANONYMOUS=true if something else controls access"
            )
        return self


def misspelt(names: Iterable[str]) -> list[str]:
    """A line for each of the environment's ``GPQ_*`` names that is no setting."""
    known = {PREFIX + field.upper() for field in Settings.model_fields} | {BENCH_DATA}
    lines = []
    for name in sorted(set(names) - known):
        if name.startswith(PREFIX):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; is {near[0]} meant?" if near else ""
            lines.append(f"{name} is no setting of this version and changes nothing{hint}")
    return lines


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
