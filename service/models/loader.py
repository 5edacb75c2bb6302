"""Keeps the models of this process in step with the database."""

import logging
import threading
from collections.abc import Collection

from gpq.engine.engines import Options
from gpq.errors import GPQError
from gpq.model.model import Model
from service.concurrency.periodic import PeriodicThread
from service.database.store import Store
from service.errors import Unavailable
from service.index.follower import FeedFollower
from service.models import artifacts
from service.models.encoder import Encoder
from service.settings import FEED_POLL_SECONDS

log = logging.getLogger("gpq.service")


class ModelLoader:
    """Loads added models, then their codes once these are complete, and drops deleted models.

    So any of them can become active at once. ``models``: the models of which every put must have
    a code.
    """

    def __init__(
        self, store: Store, follower: FeedFollower, encoder: Encoder, options: Options
    ) -> None:
        self.store, self.follower, self.encoder = store, follower, encoder
        self.options = options  # how to run networks
        self.models: Collection[Model] = [encoder.models[follower.model]]
        self._unused: set[str] = set()
        self._refreshing = threading.Lock()
        self._thread = PeriodicThread("models", self._load, FEED_POLL_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def refresh(self) -> None:
        """Loads and drops models. Raises Unavailable if one cannot be loaded, SQLAlchemyError."""
        with self._refreshing:
            known = [model.id for model in self.store.models.all()]
            for id in known:
                if id not in self.encoder.models:
                    self._learn(id)
            self.models = [self.encoder.models[id] for id in known]
            # A search may still use a model that has just ceased to be active, so a model is
            # dropped only if it was unused before too.
            unused = self.encoder.models.keys() - {*known, self.follower.model}
            for id in unused & self._unused:
                self.encoder.forget(id)
            self._unused = unused

    def _learn(self, id: str) -> None:
        try:
            self.encoder.learn(artifacts.load(self.store.models.files(id), self.options))
        except GPQError as error:
            raise Unavailable(f"model {id} cannot be loaded here: {error}") from error
        log.info("loaded model %s", id)

    def _load(self) -> None:
        self.refresh()
        self._load_codes()

    def _load_codes(self) -> None:
        """Loads the codes of complete models, and drops the codes of all others."""
        models = self.store.models.all()
        complete = {m.id for m in models if m.complete and m.id in self.encoder.models}
        for id in self.follower.indexes.keys() - complete - {self.follower.model}:
            self.follower.drop_model(id)
        for id in complete - self.follower.indexes.keys():
            self.follower.load_model(id)
            log.info("loaded the codes of model %s", id)
