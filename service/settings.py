"""Defines the settings, from ``GPQ_*`` environment variables, and limits that packages share."""

import difflib
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gpq.pixels.decode import DEFAULT_MAX_PIXELS
from gpq.system.processors import processors

ROOT = Path(__file__).resolve().parent.parent  # the folder that the program is in
MODELS = ROOT / "models"

PREFIX = "GPQ_"
NONE = "none"  # what people write for a setting that they do not want
BENCH_DATA = "GPQ_DATA"  # read by ``make gpu``, not by the service
FEATURE_CACHE = "GPQ_CACHE"  # read by the trainer

HOST_PATTERN = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"
ID_PATTERN = r"[A-Za-z0-9._:~-]{1,128}"  # of an image
MOST_DECODE_THREADS = 4  # by default
IMAGE_THREADS = 16  # requests that handle images and block at the same time
DATABASE_THREADS = 4  # requests that only query the database, at the same time
FEED_POLL_SECONDS = 0.5  # how long a write of another process may go unnoticed
DATABASE_STALL_SECONDS = 30  # how long the service waits for a lock, or for a silent server
STOP_SECONDS = 5  # how long the service waits for each thread when it stops


def decode_threads() -> int:
    """Returns the default number of processes that decode images.

    The network may use every processor too: decoding and encoding of one request follow each
    other, and either can be the bottleneck.
    """
    return min(MOST_DECODE_THREADS, processors())


class Settings(BaseSettings):
    """The settings of a service. The field descriptions are repeated in docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    database_url: str = Field(
        "sqlite:///data/gpq.db", description="SQLAlchemy URL of the database, SQLite or Postgres"
    )
    model: Path = Field(
        MODELS / "photos",
        description="folder of the model artifact, relative to the current folder or else to the "
        "program's; a database that holds images keeps its own model",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device that encodes images")
    engine: Literal["auto", "openvino", "onnxruntime", "torch"] = Field(
        "auto",
        description="what runs the network; `auto` is `torch` on CUDA, else `openvino`, else "
        "`onnxruntime`, whichever is installed and computes the model's golden vectors",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="precision of the network's multiplications; `auto` is the one that the model "
        "is made for",
    )
    scan: Literal["auto", "reference", "native", "cuda"] = Field(
        "auto",
        description="scan engine; `auto` is `cuda` if there is a CUDA device, else `native` if it "
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
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated names, besides loopback ones, that clients use for the "
        "service; if unset, any name will do with keys and beyond loopback",
    )
    fetch: str = Field(
        "off",
        description="which servers images may be fetched from: off, public, or comma-separated "
        "names; a name with a port may be in your own network",
    )
    fetch_seconds: float = Field(
        10, gt=0, le=60, description="seconds that fetching one image may take"
    )
    max_body_bytes: int = Field(256 * 2**20, ge=2**10, description="largest request body, in bytes")
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, le=10**12, description="largest image, in pixels (width × height)"
    )
    max_images: int = Field(1000, ge=1, le=10_000, description="most images in one request")
    max_waiting: int = Field(
        64,
        ge=1,
        description="requests with images handled at once, and as many others; more get 429",
    )
    wait_seconds: float = Field(
        30,
        gt=0,
        description="seconds that a request may wait in all queues before it gets 503",
    )
    decode_threads: int = Field(
        default_factory=decode_threads,
        ge=1,
        description="processes that decode images; large images among them wait for each other",
    )
    decode_seconds: float = Field(
        10,
        gt=0,
        le=3600,
        description="processor seconds that decoding one image may take before it is refused",
    )
    request_seconds: float = Field(
        300,
        gt=0,
        le=86_400,
        description="processor seconds that decoding all images of one request may take; the rest "
        "is refused",
    )
    encode_threads: int = Field(
        default_factory=processors,
        ge=1,
        description="threads of the network on the CPU; set fewer if other programs share it",
    )
    filter_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="memory of the filters that searches used last, in bytes, and as much again "
        "of facets; one may take more",
    )
    copies: bool = Field(
        False, description="keeps a perceptual hash of each image, by which copies are found"
    )
    rate_limit: int | None = Field(
        None,
        ge=1,
        description="requests a second of each key, or of each address without one; more get 429",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="lines of the log: text, or JSON with the id of each request"
    )
    audit_log: Path | None = Field(
        None,
        description="file that gets a JSON line for each write and each act of administration over "
        "HTTP or by a command",
    )
    feed_seconds: int = Field(
        86_400,
        ge=1,
        description="how long changes are kept for replicas, in seconds; a replica that is further "
        "behind reloads all codes",
    )
    index_file: Path | None = Field(
        None,
        description="file that keeps this process's codes for a quick start; written hourly and "
        "when the service stops",
    )
    import_folder: Path | None = Field(
        None, description="folder that `POST /jobs/import` may read; if unset, the route is off"
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
                    f"{NONE!r} is a key that anybody guesses; unset GPQ_API_KEYS to use no keys"
                )
            if any(not (key.isascii() and key.isprintable() and " " not in key) for key in keys):
                raise ValueError(
                    "a key has characters that an Authorization header cannot carry: use letters, "
                    "digits and signs of ASCII"
                )
            return keys
        return value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value == NONE:
            return ()
        hosts = tuple(host_name(host.strip()) for host in value.split(","))
        for host in hosts:
            if not (re.fullmatch(HOST_PATTERN, host) or is_address(host)):
                raise ValueError(
                    f"{host!r} is not a host name or an address: give names such as "
                    "images.example.org, without https:// and without a port"
                )
        return hosts

    @field_validator("index_file", "import_folder", "audit_log", mode="before")
    @classmethod
    def _unset_none(cls, value: object) -> object:
        return None if value == NONE else value

    @model_validator(mode="after")
    def _safe_to_listen(self) -> "Settings":
        if not (is_loopback(self.host) or self.api_keys or self.allow_anonymous):
            raise ValueError(
                f"GPQ_HOST={self.host} is reachable from other machines: set GPQ_API_KEYS, or "
                "GPQ_ALLOW_ANONYMOUS=true if something else controls access"
            )
        return self


def misspelt(names: Iterable[str]) -> list[str]:
    """Returns a warning for each ``GPQ_*`` name of the environment that is not a setting."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    known |= {BENCH_DATA, FEATURE_CACHE}
    lines = []
    for name in sorted(set(names) - known):
        if name.startswith(PREFIX):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"{name} is not a setting of this version and has no effect{hint}")
    return lines


def host_name(host: str) -> str:
    """Returns the usual form of a name or an address: lower case, no last dot, no brackets."""
    host = host.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    return str(ipaddress.ip_address(host)) if is_address(host) else host


def is_address(host: str) -> bool:
    """Returns True for IPv4 and IPv6 addresses."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Returns True for localhost and loopback addresses."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
