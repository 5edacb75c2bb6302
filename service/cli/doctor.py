"""Runs python -m service doctor: checks an installation part by part, and changes nothing."""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from gpq import scan
from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import GPQError
from gpq.model import artifact
from gpq.model.model import Model
from gpq.system import device
from service.access.audit import Audit
from service.database import engine
from service.database.feed import current_time
from service.database.migrate import revisions
from service.database.store import Store
from service.decoding.decoder import open_decoder
from service.errors import ServiceError
from service.index.index import Codes, Index
from service.models import artifacts
from service.originals.originals import open_originals
from service.settings import NONE, Settings

CLOCK_SECONDS = 5.0  # how far the clock of the database may be off
FREE_BYTES = 2**30
SEARCHED, SEARCHED_PARTS = 10, 100  # hits, and parts of the codes, which memory must hold
UPLOADS = "uploads"
WRONG = (GPQError, ServiceError, SQLAlchemyError, OSError, ValueError)


def rights(status: Path = Path("/proc/self/status")) -> str:
    """Says what the process may do on its machine; most of it is known on Linux alone."""
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    place = "read-only" if os.statvfs("/").f_flag & os.ST_RDONLY else "not read-only"
    known: dict[str, str] = {}
    with suppress(OSError):
        known = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
    if "CapEff" not in known:
        return f"runs as {user}; the root folder is {place}"
    capabilities = int(known["CapEff"], 16).bit_count()
    gains = "cannot gain rights" if known.get("NoNewPrivs") == "1" else "can gain rights"
    calls = "filtered" if known.get("Seccomp") == "2" else "not filtered"
    return (
        f"runs as {user} with {capabilities or 'no'} capabilities and {gains}; system calls are "
        f"{calls}; the root folder is {place}"
    )


class Doctor:
    """Checks that follow each other; those that need what another found come after it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.new = engine.missing_file(settings.database_url)
        # Opening a new one would create its folder.
        self.store = None if self.new else Store(settings.database_url)
        self.tables = False  # whether the database has the tables of this version
        self.model: Model | None = None

    def close(self) -> None:
        if self.store is not None:
            self.store.close()

    def checks(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("settings", self.access),
            ("rights", rights),
            ("database", self.database),
            ("clock", self.clock),
            ("image store", self.image_store),
            ("disk", self.disk),
            ("decoding", self.decoding),
            ("model", self.network),
            ("scan engine", self.scan_engine),
            ("feed", self.feed),
            ("search", self.search),
        ]

    def access(self) -> str:
        settings = self.settings
        Audit(settings.audit_log).check()
        return f"listens on {settings.host} port {settings.port}"

    def database(self) -> str:
        if self.store is None:
            return f"{self.new} does not exist yet; the service creates it when it starts"
        revision, newest = revisions(self.store.database)
        if revision is None:
            return "it answers, and is empty; the service creates its tables when it starts"
        if revision != newest:
            raise ValueError(
                f"its schema has revision {revision}, this version of the program {newest}: the "
                "service migrates an older one when it starts, and refuses a newer one"
            )
        self.tables = True
        images, keys = self.store.images.count(), self._keys()
        url = sa.make_url(self.settings.database_url).render_as_string(hide_password=True)
        return f"{url} answers and holds {images:,} images; requests {keys}"

    def _keys(self) -> str:
        assert self.store is not None
        stored = self.store.keys.all()
        valid = sum(key.valid(time.time()) for key in stored) + len(self.settings.api_keys)
        if not stored and not self.settings.api_keys:
            return "need no key"
        if not valid:
            raise ValueError("all keys have expired or are revoked: create one, `gpq keys create`")
        return f"need one of {valid} keys"

    def clock(self) -> str:
        if self.store is None:
            return "not compared, there is no database yet"
        with self.store.database.read() as connection:
            off = current_time(connection) - time.time()
        if abs(off) > CLOCK_SECONDS:
            raise ValueError(
                f"the database's clock is {off:+.0f} s from this machine's: set both by NTP, or "
                "keys expire and processes count as dead at the wrong time"
            )
        return f"the database's clock is {abs(off):.1f} s from this machine's"

    def image_store(self) -> str:
        place = self.settings.image_store
        if place == NONE:
            return "GPQ_IMAGE_STORE is none: no thumbnails, and no re-index"
        folder = Path(place.removeprefix("file://"))
        if "://" not in str(place).removeprefix("file://") and not folder.is_dir():
            return f"{place} does not exist yet; the service creates it when it starts"
        open_originals(place).has("0" * 64, 0)
        return "it answers"

    def disk(self) -> str:
        lines = []
        for what, folder in self._folders().items():
            free = shutil.disk_usage(folder).free
            if free < (2 * self.settings.max_body_bytes if what == UPLOADS else FREE_BYTES):
                raise ValueError(f"only {free / 2**20:,.0f} MB are free for {what} in {folder}")
            if not os.access(folder, os.W_OK):
                raise ValueError(f"{what}: {folder} cannot be written by this user")
            lines.append(f"{free / 2**30:,.0f} GB for {what}")
        return "free: " + ", ".join(lines)

    def decoding(self) -> str:
        with closing(open_decoder(self.settings)) as decoder:
            decoder.thumbnail(_picture())
        return f"{self.settings.decode_threads} processes decode images, and one was tried"

    def network(self) -> str:
        settings = self.settings
        options = Options(
            settings.engine, settings.precision, device.pick(settings.device), threads=1
        )
        files = self._files()
        if files:
            self.model = artifacts.load(files, options)
        else:
            self.model = engines.load(artifacts.find(settings.model), options)
        self._check_configured()
        origin = "of the database" if files else f"{settings.model}"
        return (
            f"{self.model.id[:12]} ({origin}) computes its golden codes with "
            f"{self.model.network.engine} on {self.model.network.device}"
        )

    def _check_configured(self) -> None:
        """Raises ValueError if GPQ_MODEL was set to a model that the database has never known."""
        if self.store is None or not self.tables or not self.store.models.all():
            return
        if "model" in self.settings.model_fields_set:
            wanted = artifact.load(artifacts.find(self.settings.model)).id
            if not self.store.models.ever_known(wanted):
                raise ValueError(
                    f"GPQ_MODEL is {wanted[:12]}, which the database has never known: the service "
                    "does not start with it; see docs/operating.md on changing the model"
                )

    def scan_engine(self) -> str:
        name, reason = scan.choose(self.settings.scan)
        return f"{name}: {reason}"

    def feed(self) -> str:
        if self.store is None or not self.tables:
            return "not read, there are no tables yet"
        head = self.store.feed.head()
        alive = self.store.replicas.alive()
        behind = [each.name for each in alive if head - each.applied > 0]
        if behind:
            time.sleep(2 * CLOCK_SECONDS)
            later = {each.name: each.applied for each in self.store.replicas.alive()}
            stuck = [name for name in behind if later.get(name, head) < head]
            if stuck:
                raise ValueError(f"these processes do not follow the feed: {', '.join(stuck)}")
        return f"at change {head:,}; {len(alive)} running processes follow it"

    def search(self) -> str:
        if self.model is None:
            raise ValueError("not tried, because the model cannot be loaded")
        model, began = self.model, time.perf_counter()
        codes = None
        if self.store is not None and self.tables:
            with self.store.feed.snapshot(model.id) as snapshot:
                some = islice(snapshot.parts, SEARCHED_PARTS)
                codes = Codes.gather(some, model.code_bytes)
        index = Index(model.id, model.codebook.M, self.settings.scan, codes)
        with closing(open_decoder(self.settings)) as decoder:
            image = decoder.decode_one(_picture(), model)
        table = model.lut(image.pixels[model.id][None])
        hits = len(index.search(table, SEARCHED)[0]) if len(index) else 0
        if len(index) and not hits:
            raise ValueError(f"no hits among {len(index):,} codes")
        seconds = time.perf_counter() - began
        return f"{hits} hits among {len(index):,} codes, {seconds:.1f} s with loading them"

    def _files(self) -> dict[str, bytes]:
        """Returns the files of the active model of the database, if it has one."""
        if self.store is None or not self.tables:
            return {}
        active = [model.id for model in self.store.models.all() if model.active]
        return self.store.models.files(active[0]) if active else {}

    def _folders(self) -> dict[str, Path]:
        found = {UPLOADS: Path(tempfile.gettempdir())}
        store = self.settings.image_store
        if "://" not in store and store != NONE:
            found["originals"] = _existing(Path(store))
        url = sa.make_url(self.settings.database_url)
        if url.database and url.get_backend_name() == "sqlite":
            found["the database"] = _existing(Path(url.database).parent)
        return found


def run(settings: Settings) -> int:
    """Prints a line for each check. Returns the exit status: 1 if a check failed."""
    failed = 0
    with closing(Doctor(settings)) as doctor:
        for name, check in doctor.checks():
            try:
                print(f"ok      {name}: {check()}", flush=True)
            except WRONG as error:
                failed += 1
                print(f"FAILED  {name}: {_line(error)}", flush=True)
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return folder if folder.is_dir() else _existing(folder.parent)


def _picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
