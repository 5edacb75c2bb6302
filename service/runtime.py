"""The parts of a running service, and whether they are ready."""

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from gpq import artifact, device
from gpq.preprocess import limit_decoding
from service.catalogue import Catalogue
from service.encoder import Encoder
from service.feed import Feed
from service.gate import Gate
from service.index import Index
from service.originals import open_originals
from service.problems import unavailable
from service.settings import SWEEP_SECONDS, Settings
from service.store import Store

RETRY_SECONDS = 1.0
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
        self.index = Index(self.model.codebook.M, settings.scan)
        self.originals = open_originals(settings.image_store)
        self.store = Store(settings.database_url)
        self.feed = Feed(self.store, self.index, self.model.id)
        self.catalogue = Catalogue(self.store, self.feed, self.encoder, self.originals)
        self.gate = Gate(settings.max_waiting)
        self.not_ready: str | None = "starting"
        self._stop = threading.Event()
        self._starter = threading.Thread(target=self._start, name="start", daemon=True)

    def start(self) -> None:
        """Open the database and load the index in the background; see ``not_ready``."""
        self._starter.start()

    def stop(self) -> None:
        self._stop.set()
        self._starter.join()
        self.feed.stop()
        self.store.close()

    def require_ready(self) -> None:
        """Raises Problem 503 with the reason."""
        if self.feed.other_model is not None:
            raise unavailable(self._other_model(self.feed.other_model))
        if self.not_ready is not None:
            raise unavailable(self.not_ready)

    def _start(self) -> None:
        while not self._stop.is_set():
            try:
                self._open()
                break
            except SQLAlchemyError as error:
                self.not_ready = "the database does not answer; trying again"
                log.warning("%s: %s", self.not_ready, error)
                self._stop.wait(RETRY_SECONDS)
            except Exception:
                self.not_ready = "start failed with an unexpected error; it is in the log"
                log.exception(self.not_ready)
                return
        while self.not_ready is None and not self._stop.wait(SWEEP_SECONDS):
            self._sweep()

    def _open(self) -> None:
        self.not_ready = "opening the database"
        self.store.migrate()
        stored = self.store.adopt_model(self.model.id)
        if stored != self.model.id:
            self.not_ready = self._other_model(stored)
            log.error(self.not_ready)
            return
        self.not_ready = "loading the index"
        self.feed.load()
        self.feed.start()
        self.not_ready = None
        log.info("ready: %d images, model %s", len(self.index), self.model.id)
        self._sweep()

    def _other_model(self, stored: str) -> str:
        return (
            f"the stored codes are of model {stored}, and {self.settings.model} is model "
            f"{self.model.id}: set GPQ_MODEL to the folder of the first, or GPQ_DATABASE_URL "
            "to a new database and index the pictures again; nothing was changed"
        )

    def _sweep(self) -> None:
        try:
            removed = self.originals.sweep(self.store.originals_in_use)
        except (OSError, SQLAlchemyError) as error:
            log.warning("originals nothing points to could not be swept: %s", error)
        else:
            if removed:
                log.info("swept %d originals nothing points to", removed)
