"""The models of this process, kept as the database has them."""

import logging
import threading
from collections.abc import Collection

import torch
from sqlalchemy.exc import SQLAlchemyError

from gpq.errors import GPQError
from gpq.model.model import Model
from service import problems
from service.database.store import Store
from service.index.feed import Feed
from service.models import artifacts
from service.models.encoder import Encoder
from service.settings import FEED_POLL_SECONDS, STOP_SECONDS

log = logging.getLogger("gpq.service")


class Lineup:
    """Loads models that were added, then their codes once there are all, and forgets both of
    models that were taken out: so that the active one can be any of them at once.

    kept: those that every picture that is put gets a code of.
    """

    def __init__(self, store: Store, feed: Feed, encoder: Encoder, device: torch.device) -> None:
        self.store, self.feed, self.encoder, self.device = store, feed, encoder, device
        self.kept: Collection[Model] = [encoder.models[feed.model]]
        self._idle: set[str] = set()
        self._refreshing = threading.Lock()
        self._said = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lineup", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)

    def refresh(self) -> None:
        """Know the models there are; raises Problem 503 where one cannot be loaded."""
        with self._refreshing:
            known = [row.id for row in self.store.models.all()]
            for id in known:
                if id not in self.encoder.models:
                    self._learn(id)
            self.kept = [self.encoder.models[id] for id in known]
            # A search may have asked which is active just before it was another one.
            idle = self.encoder.models.keys() - {*known, self.feed.model}
            for id in idle & self._idle:
                self.encoder.forget(id)
            self._idle = idle

    def _learn(self, id: str) -> None:
        try:
            self.encoder.learn(artifacts.load(self.store.models.files(id), self.device))
        except (GPQError, KeyError) as error:
            raise problems.unavailable(f"model {id} cannot be loaded here: {error}") from error
        log.info("loaded model %s", id)

    def _run(self) -> None:
        while not self._stop.wait(FEED_POLL_SECONDS):
            try:
                self.refresh()
                self._hold()
            except Exception as error:  # the thread must live
                if str(error) != self._said:
                    known = isinstance(error, SQLAlchemyError | problems.Problem)
                    log.warning("models: %s", error, exc_info=None if known else error)
                self._said = str(error)
            else:
                self._said = ""

    def _hold(self) -> None:
        """Have the codes of the models that are whole, and of no others."""
        rows = self.store.models.all()
        whole = {row.id for row in rows if row.whole and row.id in self.encoder.models}
        for id in self.feed.indexes.keys() - whole - {self.feed.model}:
            self.feed.drop(id)
        for id in whole - self.feed.indexes.keys():
            self.feed.hold(id)
            log.info("loaded the codes of model %s", id)
