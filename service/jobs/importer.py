"""Imports sources with the models of the database, which stay loaded from one to the next."""

from dataclasses import replace
from typing import Any

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model.model import Model
from service.catalogue.ingest import Ingest
from service.database.records import StoredModel
from service.database.store import Store
from service.decoding.decoder import IMPORT_GROUP_BYTES, open_decoder
from service.errors import ModelChanged, ModelError
from service.jobs.importing import IMPORT_BATCH, Import, Run
from service.jobs.mirror import Mirror
from service.models import artifacts
from service.models.encoder import Encoder
from service.originals.originals import Originals
from service.settings import Settings
from service.sources.opening import Source


class Importer:
    """A context with processes that decode, and networks. In a new database it adopts GPQ_MODEL and
    claims the image store, as a service does."""

    def __init__(
        self, store: Store, settings: Settings, originals: Originals, options: Options
    ) -> None:
        self.store = store
        if not store.models.all():
            folder = artifacts.find(settings.model)
            store.models.adopt(engines.load(folder, options).id, artifacts.read(folder))
        originals.claim(store.state.identity(), store.feed.head())
        # One network for each processor: threads that share a batch wait for each other at every
        # layer.
        self._options = replace(options, threads=1, streams=settings.encode_threads)
        self._encoder = Encoder(
            device=options.device, together=IMPORT_BATCH, networks=settings.encode_threads
        )
        self._decoder = open_decoder(settings, IMPORT_GROUP_BYTES)
        self._ingest = Ingest(self._decoder, self._encoder, originals, settings.copies)
        self._models: dict[str, Model] = {}

    def __enter__(self) -> "Importer":
        return self

    def __exit__(self, *_: Any) -> None:
        self._decoder.close()
        self._encoder.close()

    def run(self, source: Source, run: Run, mirror: Mirror | None = None) -> None:
        """Imports a source, or the rest of it. Raises as ``Import.run``, but for ModelChanged."""
        while not run.stop.is_set():
            try:
                stored = self.store.models.all()
                self._models = {
                    each.id: self._models.get(each.id) or load(self.store, each, self._options)
                    for each in stored
                }
                Import(self.store, self._ingest, [*self._models.values()], mirror).run(source, run)
                return
            except ModelChanged:  # a model was added or deleted meanwhile
                continue


def load(store: Store, stored: StoredModel, options: Options) -> Model:
    """Loads a model from the database.

    Raises ModelChanged if it was deleted meanwhile, ModelError if its files were never kept.
    """
    files = store.models.files(stored.id)
    if files:
        return artifacts.load(files, options)
    if stored.number not in {model.number for model in store.models.all()}:
        raise ModelChanged(f"model {stored.id} was deleted meanwhile")
    if stored.active:
        advice = (
            "start a service over it once, with GPQ_MODEL set to that model's folder, to keep them"
        )
    else:
        advice = "delete that model (`python -m service models prune`); it can be added again"
    raise ModelError(f"the database has codes of model {stored.id}, but not its files: {advice}")
