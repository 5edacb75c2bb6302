"""The parts of a running service, and whether they are ready."""

import logging
import threading
from functools import partial

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from gpq import artifact, device, scan
from gpq.decode import limit_decoding
from service.catalogue import Catalogue
from service.encoder import Encoder
from service.feed import Feed
from service.gate import Gate
from service.index import Index
from service.migrate import NewerSchema, migrate
from service.originals import open_originals
from service.problems import unavailable
from service.records import OtherModel
from service.searcher import Searcher
from service.settings import STOP_SECONDS, Settings
from service.store import Store
from service.upkeep import Upkeep

RETRY_SECONDS = 1.0
DATABASE_DOWN = "the database does not answer; trying again"
log = logging.getLogger("gpq.service")


class Runtime:
    """Built from settings alone; ``start`` opens the database and loads the index.

    Raises GPQError or ValueError where settings point to something unusable.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = artifact.load(settings.model, device.pick(settings.device))
        limit_decoding(settings.max_pixels)
        self.encoder = Encoder(self.model, settings.max_pixels, settings.decode_threads)
        self.engine, self.engine_reason = scan.choose(settings.scan)
        new_index = partial(Index, self.model.codebook.M, self.engine)
        self.originals = open_originals(settings.image_store)
        self.store = Store(settings.database_url)
        self.feed = Feed(self.store, new_index, self.model.id, settings.index_file)
        self.upkeep = Upkeep(self.store, self.originals, settings.feed_seconds)
        self.catalogue = Catalogue(self.store, self.feed, self.encoder, self.originals)
        self.searcher = Searcher(self.catalogue, self.store, self.feed, self.encoder)
        self.gate = Gate(settings.max_waiting)
        self.not_ready: str | None = "starting"
        self._stop = threading.Event()
        self._starter = threading.Thread(target=self._start, name="start", daemon=True)

    def start(self) -> None:
        """Open the database and load the index in the background; see ``not_ready``."""
        log.info("scan engine %s: %s", self.engine, self.engine_reason)
        self._starter.start()

    def stop(self) -> None:
        self._stop.set()
        self._starter.join(timeout=STOP_SECONDS)
        self.upkeep.stop()
        self.feed.stop()
        self.store.close()

    def require_ready(self) -> None:
        """Raises Problem 503 with the reason."""
        if self.feed.other_model is not None:
            raise unavailable(self._other_model(self.feed.other_model))
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
                self.not_ready = _why(error)
                log.warning("%s: %s", self.not_ready, error)
                self._stop.wait(RETRY_SECONDS)
            except (NewerSchema, OtherModel) as error:
                self.not_ready = str(error)
                log.error(self.not_ready)
                return
            except Exception:
                self.not_ready = "start failed with an unexpected error; it is in the log"
                log.exception(self.not_ready)
                return

    def _open(self) -> None:
        self.not_ready = "opening the database"
        migrate(self.store.database)
        stored = self.store.adopt_model(self.model.id)
        if stored != self.model.id:
            raise OtherModel(self._other_model(stored))
        self.not_ready = "loading the index"
        self.feed.load()
        self.feed.start()
        self.upkeep.start()
        self.not_ready = None
        log.info("ready: %d images, model %s", len(self.feed.index), self.model.id)

    def _other_model(self, stored: str) -> str:
        return (
            f"the stored codes are of model {stored}, and GPQ_MODEL is model {self.model.id}: set "
            "GPQ_MODEL to the folder of the first, or GPQ_DATABASE_URL and GPQ_IMAGE_STORE to new "
            "places and index the pictures again; nothing was changed"
        )


def _why(error: SQLAlchemyError) -> str:
    if isinstance(error, DBAPIError) and not isinstance(error, OperationalError | InterfaceError):
        return f"the database refuses; trying again: {str(error.orig).partition(chr(10))[0]}"
    return DATABASE_DOWN
