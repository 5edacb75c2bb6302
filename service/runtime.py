"""Builds the parts of a running service, and says whether they are ready."""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from gpq import scan
from gpq.engine import engines
from gpq.errors import ArtifactError, ScanError
from gpq.model.graph import GRAPH
from gpq.model.model import Model
from gpq.pixels import perceptual
from gpq.pixels.decode import limit_decoding
from gpq.system import device, memory
from service.access.audit import Audit
from service.access.keys import KeyRing
from service.access.rates import Rates
from service.catalogue.images import Catalogue
from service.catalogue.ingest import ImageWriter, Ingest
from service.concurrency.admission import Admission
from service.copies.copies import Copies
from service.copies.filler import CopyFiller
from service.copies.index import CopyIndex
from service.copies.search import CopySearch
from service.database.migrate import migrate
from service.database.store import Store
from service.decoding.decoder import open_decoder
from service.errors import ModelChanged, ModelError, NewerSchema, StorageFull, Unavailable
from service.fetch.fetcher import Fetcher
from service.fetch.rules import Rules
from service.filters.columns import Columns
from service.filters.fields import FilterFields
from service.filters.masks import Masks
from service.index.follower import FeedFollower
from service.index.index import Codes, Index
from service.jobs.host import JobHost
from service.maintenance import Maintenance
from service.models import artifacts
from service.models.encoder import Encoder
from service.models.loader import ModelLoader
from service.originals.originals import open_originals
from service.search.exact import ExactSearch
from service.search.queries import Queries
from service.search.searcher import Searcher
from service.settings import DATABASE_THREADS, IMAGE_THREADS, STOP_SECONDS, Settings
from service.sources.import_folder import ImportFolder
from service.telemetry.latency import Latency
from service.telemetry.metrics import Metrics

RETRY_SECONDS = 1.0  # between attempts to open the database
DATABASE_DOWN = "the database does not answer; trying again"
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Serving:
    """The parts that need the active model. They are built together once it is known."""

    follower: FeedFollower
    loader: ModelLoader
    catalogue: Catalogue
    writer: ImageWriter
    exact: ExactSearch
    cursor_key: bytes
    searcher: Searcher
    copy_search: CopySearch | None
    copy_filler: CopyFiller | None


class Runtime:
    """Holds what lives as long as the process, and a ``Serving`` once the database is open.

    ``start`` opens the database and loads the index in the background. The constructor raises
    GPQError, ValueError or OSError if the settings name something unusable.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = device.pick(settings.device)
        self.engine, self.engine_reason = scan.choose(settings.scan)
        limit_decoding(settings.max_pixels)  # of the images in a model's files
        if settings.copies and (why := perceptual.missing()):
            raise ValueError(f"GPQ_COPIES is on, but {why}")
        memory.share_one_arena()
        memory.keep_tensors()
        self.originals = open_originals(settings.image_store)
        self.store = Store(settings.database_url)
        configured = [key.get_secret_value() for key in settings.api_keys]
        self.keys = KeyRing(self.store.keys, configured)
        self.rates, self.audit = Rates(settings.rate_limit), Audit(settings.audit_log)
        self.audit.check()
        self.maintenance = Maintenance(self.store, self.originals, settings.feed_seconds)
        self.fields = FilterFields(self.store.fields)
        self.metrics, self.latency = Metrics(), Latency()
        self.decoder = open_decoder(settings, killed=self.metrics.decoders_ended.inc)
        self.encoder = Encoder(self.metrics.batch.labels("encode").observe, self.device)
        # Two limits, so that a flood of one kind of request does not delay the other kind.
        self.image_requests, self.database_requests = (
            Admission(
                settings.max_waiting, threads, settings.wait_seconds, settings.request_seconds
            )
            for threads in (IMAGE_THREADS, DATABASE_THREADS)
        )
        self.options = engines.Options(  # how to run networks
            engine=settings.engine,
            precision=settings.precision,
            device=self.device,
            threads=settings.encode_threads,
            on_full=self.metrics.device_full.inc,
        )
        self.fetcher = Fetcher(
            Rules.parse(settings.fetch), settings.max_body_bytes, settings.fetch_seconds
        )
        folder = artifacts.find(settings.model)
        self._configured = engines.load(folder, self.options)  # the model of GPQ_MODEL
        # Read now, because the folder may hold another model when the database answers.
        self._files = artifacts.read(folder)
        self._serving: Serving | None = None
        self._add_gauges()
        self.jobs = JobHost(self.store, ImportFolder(settings))
        self.not_ready: str | None = "starting"
        self._stop = threading.Event()
        self._starter = threading.Thread(target=self._start, name="start", daemon=True)

    @property
    def serving(self) -> Serving:
        """The current ``Serving``. Raises Unavailable until the active model is known."""
        if self._serving is None:
            raise Unavailable(self.not_ready or DATABASE_DOWN)
        return self._serving

    @property
    def model(self) -> Model:
        """The active model; before the database is open, the model of GPQ_MODEL."""
        if self._serving is None:
            return self._configured
        return self.encoder.models[self._serving.follower.model]

    @property
    def ready(self) -> bool:
        try:
            self.require_ready()
        except Unavailable:
            return False
        return True

    def require_ready(self) -> None:
        """Raises Unavailable with the reason why the service cannot search."""
        missing = self._serving and self._serving.follower.missing_model
        if missing is not None:
            raise Unavailable(f"model {missing} is active, but its codes are not loaded here yet")
        if self.not_ready is not None:
            raise Unavailable(self.not_ready)
        if self.serving.follower.down:
            raise Unavailable(DATABASE_DOWN)

    def start(self) -> None:
        """Opens the database and loads the index in the background; see ``not_ready``."""
        log.info("scan engine %s: %s", self.engine, self.engine_reason)
        self._starter.start()

    def stop(self) -> None:
        self._stop.set()
        self._starter.join(timeout=STOP_SECONDS)
        self.jobs.stop()
        self.maintenance.stop()
        self.fields.stop()
        self.keys.stop()
        if self._serving is not None:
            if self._serving.copy_filler is not None:
                self._serving.copy_filler.stop()
            self._serving.loader.stop()
            self._serving.follower.stop()
            self._serving.exact.close()
        self.decoder.close()
        self.encoder.close()
        self.store.close()

    def _add_gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("gpq_images", "Images that searches can find", self._images)
        gauge("gpq_ready", "1 if the service can search", lambda: self.ready)
        admitted = "Requests with images in progress"
        gauge("gpq_requests_inside", admitted, lambda: self.image_requests.admitted)
        gauge("gpq_feed_applied", "Feed number that the index has reached", self._applied)

    def _images(self) -> int:
        return len(self._serving.follower.index) if self._serving else 0

    def _applied(self) -> int:
        return self._serving.follower.applied if self._serving else 0

    def _build_serving(self, model: Model) -> Serving:
        self.encoder.learn(model)
        follower = FeedFollower(
            self.store, self._new_index, model.id, self.settings.index_file, self.latency.p99
        )
        loader = ModelLoader(self.store, follower, self.encoder, self.options)
        ingest = Ingest(self.decoder, self.encoder, self.originals, self.settings.copies)
        copies = copy_search = copy_filler = None
        if self.settings.copies:
            index = CopyIndex(self.store.copies, follower, self.settings.scan)
            copies = Copies(self.store.copies, index)
            copy_search = CopySearch(self.store, copies, self.originals, self.decoder)
            copy_filler = CopyFiller(self.store, index, self.originals, self.decoder)
        watch = self.metrics.batch.labels("scan").observe
        masks = Masks(self.store.feed, self.store.fields, follower, self.settings.filter_bytes)
        exact = ExactSearch(self.store.feed, follower, masks, watch)
        columns = Columns(self.store.feed, follower, self.settings.filter_bytes)
        queries = Queries(self.store.images, self.originals, self.decoder)
        return Serving(
            follower=follower,
            loader=loader,
            catalogue=Catalogue(self.store, follower, self.decoder, self.encoder, self.originals),
            writer=ImageWriter(self.store, follower, loader, ingest, copies),
            exact=exact,
            cursor_key=self.store.state.cursor_key(),
            copy_search=copy_search,
            copy_filler=copy_filler,
            searcher=Searcher(queries, self.encoder, follower, exact, columns, self.image_requests),
        )

    def _new_index(self, model: str, codes: Codes | None) -> Index:
        return Index(model, self.encoder.models[model].codebook.M, self.settings.scan, codes)

    def _start(self) -> None:
        while not self._stop.is_set():
            try:
                self._open()
                return
            except SQLAlchemyError as error:
                self._retry_later(_reason(error), str(error).partition("\n")[0])
            # Worth retrying: the image store may answer, or another model may become active, or
            # get its graph.
            except (Unavailable, StorageFull) as error:
                self._retry_later(str(error))
            except (NewerSchema, ModelError, ScanError) as error:
                self.not_ready = str(error)
                log.error(self.not_ready)
                return
            except Exception:
                self.not_ready = "start failed with an unexpected error; the log has the details"
                log.exception(self.not_ready)
                return

    def _retry_later(self, reason: str, cause: str = "") -> None:
        if self.not_ready != reason:  # logged once, not at every attempt
            log.error(f"{reason}: {cause}" if cause else reason)
        self.not_ready = reason
        self._stop.wait(RETRY_SECONDS)

    def _open(self) -> None:
        migrate(self.store.database)
        logging.getLogger("alembic").setLevel(logging.WARNING)  # or alembic would log every attempt
        active = self.store.models.adopt(self._configured.id, self._files)
        model = self._configured if active == self._configured.id else self._stored(active)
        self.keys.refresh()
        serving = self._build_serving(model)
        self._serving = serving
        self.maintenance.claim()
        self.not_ready = "loading the index"
        serving.follower.load()
        # Nothing below may raise: a retry would start the threads twice.
        serving.follower.start()
        self.maintenance.start()
        self.fields.start()
        serving.loader.start()
        if serving.copy_filler is not None:
            serving.copy_filler.start()
        self.keys.start()
        self.jobs.start()
        self._files = {}  # the database has them
        self.not_ready = None
        with suppress(Unavailable):  # otherwise they start with their first image
            self.decoder.start()
        log.info("ready: %d images, model %s", len(serving.follower.index), self.model.id)

    def _stored(self, active: str) -> Model:
        """Loads the active model from the database.

        Raises ModelChanged if the database lacks its files, or if GPQ_MODEL was set to a model
        that the database has never known; Unavailable if it cannot run here.
        """
        files = self.store.models.files(active)
        if files and GRAPH not in files and (folder := artifacts.shipped(active)):
            self.store.models.add(active, artifacts.read(folder))
            files = self.store.models.files(active)
        chosen = "model" in self.settings.model_fields_set
        unknown = chosen and not self.store.models.ever_known(self._configured.id)
        if unknown or not files:
            raise ModelChanged(
                f"the stored codes are of model {active}, but GPQ_MODEL is {self._configured.id}. "
                "Set GPQ_MODEL to the folder of the first; to change to the second, run `python -m "
                "service models add` with its folder. To start afresh, set GPQ_DATABASE_URL and "
                "GPQ_IMAGE_STORE to new places. Nothing was changed"
            )
        log.info(
            "using the database's active model %s; GPQ_MODEL (%s) is for empty databases only",
            active,
            self.settings.model,
        )
        try:
            return artifacts.load(files, self.options)
        except ArtifactError as error:
            raise Unavailable(f"model {active} cannot be loaded here: {error}") from error


def _reason(error: SQLAlchemyError) -> str:
    if isinstance(error, DBAPIError) and not isinstance(error, OperationalError | InterfaceError):
        line = str(error.orig).partition("\n")[0]
        return f"the database reports an error; trying again: {line}"
    return DATABASE_DOWN
