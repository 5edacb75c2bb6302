"""The parts of a running service, and whether they are ready."""

import logging
import threading

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from gpq import scan
from gpq.errors import ScanError
from gpq.model.model import Model
from gpq.pixels.decode import limit_decoding
from gpq.system import device, memory
from service.catalogue.images import Catalogue
from service.catalogue.searcher import Searcher
from service.concurrency.admission import Gate
from service.database.migrate import NewerSchema, migrate
from service.database.records import OtherModel
from service.database.store import Store
from service.index.feed import Feed
from service.index.index import Codes, Index
from service.jobs.host import JobHost
from service.jobs.import_folder import ImportFolder
from service.maintenance import Upkeep
from service.models import artifacts
from service.models.encoder import Encoder
from service.models.loader import Lineup
from service.originals import open_originals
from service.problems import Problem, unavailable
from service.settings import LIGHT_THREADS, STOP_SECONDS, WORKER_THREADS, Settings
from service.telemetry.latency import Latency
from service.telemetry.metrics import Metrics

RETRY_SECONDS = 1.0
DATABASE_DOWN = "the database does not answer; trying again"
log = logging.getLogger("gpq.service")


class Runtime:
    """Built from settings alone; ``start`` opens the database and loads the index.

    Raises GPQError or ValueError where settings point to something unusable.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = device.pick(settings.device)
        self.engine, self.engine_reason = scan.choose(settings.scan)
        limit_decoding(settings.max_pixels)
        memory.keep_tensors()
        self.originals = open_originals(settings.image_store)
        self.store = Store(settings.database_url)
        self.upkeep = Upkeep(self.store, self.originals, settings.feed_seconds)
        self.metrics, self.latency = Metrics(), Latency()
        self.encoder = Encoder(
            settings.max_pixels,
            settings.decode_threads,
            settings.encode_threads,
            self.metrics.batch.labels("encode").observe,
            self.metrics.device_full.inc,
            self.device.type,
        )
        # Of their own, so that no flood of the others keeps a search waiting.
        self.gate, self.light = (
            Gate(settings.max_waiting, threads, settings.wait_seconds)
            for threads in (WORKER_THREADS, LIGHT_THREADS)
        )
        given = artifacts.find(settings.model)
        self._given = artifacts.use(given, self.device)
        self._given_files = artifacts.read(given)
        self._serve(self._given)
        self._measure()
        self.jobs = JobHost(self.store, ImportFolder(settings))
        self.not_ready: str | None = "starting"
        self._stop = threading.Event()
        self._starter = threading.Thread(target=self._start, name="start", daemon=True)

    def _serve(self, model: Model) -> None:
        self.encoder.learn(model)
        self.feed = Feed(
            self.store, self._new_index, model.id, self.settings.index_file, self.latency.p99
        )
        self.lineup = Lineup(self.store, self.feed, self.encoder, self.device)
        self.catalogue = Catalogue(self.store, self.feed, self.encoder, self.lineup, self.originals)
        self.searcher = Searcher(
            self.catalogue,
            self.store,
            self.feed,
            self.encoder,
            self.gate,
            self.metrics.batch.labels("scan").observe,
        )

    def _measure(self) -> None:
        gauge = self.metrics.gauge
        gauge("gpq_images", "Pictures found by a search", lambda: len(self.feed.index))
        gauge("gpq_ready", "1 where it can search", lambda: self.ready)
        gauge("gpq_requests_inside", "Requests with pictures", lambda: self.gate.inside)
        gauge("gpq_feed_applied", "Feed number of the index", lambda: self.feed.applied)

    @property
    def ready(self) -> bool:
        try:
            self.require_ready()
        except Problem:
            return False
        return True

    @property
    def model(self) -> Model:
        """The active one."""
        return self.encoder.models[self.feed.model]

    def _new_index(self, model: str, codes: Codes | None) -> Index:
        return Index(self.encoder.models[model].codebook.M, self.settings.scan, codes)

    def start(self) -> None:
        """Open the database and load the index in the background; see ``not_ready``."""
        log.info("scan engine %s: %s", self.engine, self.engine_reason)
        self._starter.start()

    def stop(self) -> None:
        self._stop.set()
        self._starter.join(timeout=STOP_SECONDS)
        self.jobs.stop()
        self.upkeep.stop()
        self.lineup.stop()
        self.feed.stop()
        self.searcher.close()
        self.encoder.close()
        self.store.close()

    def require_ready(self) -> None:
        """Raises Problem 503 with the reason."""
        if self.feed.other_model is not None:
            raise unavailable(
                f"model {self.feed.other_model} is active, and its codes are not loaded here yet"
            )
        if self.not_ready is not None:
            raise unavailable(self.not_ready)
        if self.feed.down:
            raise unavailable(DATABASE_DOWN)

    def _start(self) -> None:
        while not self._stop.is_set():
            try:
                self._open()
                return
            except SQLAlchemyError as error:
                self._try_later(_why(error), str(error).partition("\n")[0])
            except Problem as error:  # the image store's
                self._try_later(error.detail)
            except OtherModel as error:  # it may be active soon, or not be any more
                self._try_later(str(error))
            except (NewerSchema, ScanError) as error:
                self.not_ready = str(error)
                log.error(self.not_ready)
                return
            except Exception:
                self.not_ready = "start failed with an unexpected error; it is in the log"
                log.exception(self.not_ready)
                return

    def _try_later(self, why: str, cause: str = "") -> None:
        if self.not_ready != why:  # said once, not at every try
            log.error(f"{why}: {cause}" if cause else why)
        self.not_ready = why
        self._stop.wait(RETRY_SECONDS)

    def _open(self) -> None:
        migrate(self.store.database)
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it would tell every try
        active = self.store.models.adopt(self._given.id, self._given_files)
        if active == self._given.id:
            self._serve(self._given)
        else:
            self._serve_stored(active)
        self.upkeep.claim()
        self.not_ready = "loading the index"
        self.feed.load()
        # Nothing raises from here on: what has begun would be begun twice.
        self.feed.start()
        self.upkeep.start()
        self.lineup.start()
        self.jobs.start()
        self.not_ready = None
        log.info("ready: %d images, model %s", len(self.feed.index), self.model.id)

    def _serve_stored(self, active: str) -> None:
        """The active model, as the database has it. Raises OtherModel where it has it not, or
        where GPQ_MODEL was set to a model that the database has never seen."""
        files = self.store.models.files(active)
        chosen = "model" in self.settings.model_fields_set
        unknown = chosen and not self.store.models.ever_known(self._given.id)
        if unknown or not files:
            raise OtherModel(self._other_model(active))
        self._serve(artifacts.load(files, self.device))
        log.info(
            "the active model is %s, from the database; GPQ_MODEL, %s, is for empty databases",
            active,
            self.settings.model,
        )

    def _other_model(self, stored: str) -> str:
        return (
            f"the stored codes are of model {stored}, and GPQ_MODEL is {self._given.id}: set "
            "GPQ_MODEL to the folder of the first, and to change over run `python -m service "
            "models add` with the folder of the second; or set GPQ_DATABASE_URL and "
            "GPQ_IMAGE_STORE to new places and index the pictures again; nothing was changed"
        )


def _why(error: SQLAlchemyError) -> str:
    if isinstance(error, DBAPIError) and not isinstance(error, OperationalError | InterfaceError):
        return f"the database refuses; trying again: {str(error.orig).partition(chr(10))[0]}"
    return DATABASE_DOWN
