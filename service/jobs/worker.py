"""Does the work of a job in this process."""

import gc
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model.model import Model
from gpq.pixels.decode import limit_decoding
from gpq.system import device, memory
from service.catalogue.ingest import Ingest
from service.database.records import StoredModel
from service.database.store import Store
from service.decoding.decoder import IMPORT_GROUP_BYTES, open_decoder
from service.errors import ModelChanged, ModelError
from service.jobs.duplicates import find_duplicates
from service.jobs.importing import IMPORT_BATCH, Import
from service.jobs.progress import JobRun
from service.jobs.reindexing import Reindex
from service.jobs.throttle import Throttle
from service.models import artifacts
from service.models.encoder import Encoder
from service.originals.originals import Originals, open_originals
from service.settings import Settings
from service.sources.import_folder import ImportFolder
from service.sources.opening import open_source

NICENESS = 10  # beside a service on the same machine


def work(store: Store, settings: Settings, run: JobRun, share: float) -> None:
    """Does a job, or the rest of it. ``share``: largest share of the time that a re-index takes.

    Raises GPQError, ServiceError, SQLAlchemyError.
    """
    os.nice(NICENESS)
    limit_decoding(settings.max_pixels)
    memory.keep_tensors()
    gc.freeze()  # spares the collector from looking at all imported objects again and again
    options = Options(settings.engine, settings.precision, device.pick(settings.device))
    originals = open_originals(settings.image_store)
    match run.job.kind:
        case "import":
            _import(store, settings, originals, options, run)
        case "reindex":
            _reindex(store, settings, originals, options, run, share)
        case "duplicates":
            find_duplicates(store, int(run.job.source), settings.scan, run)
        case kind:
            assert_never(kind)


def _reindex(
    store: Store,
    settings: Settings,
    originals: Originals,
    options: Options,
    run: JobRun,
    share: float,
) -> None:
    incomplete = [model for model in store.models.all() if not model.complete]
    missing = sum(store.models.count_missing(model.number) for model in incomplete)
    total = max(missing, run.job.total or 0)  # codes that an earlier run wrote count as done
    run.expect(total, done=total - missing)
    options = replace(options, threads=settings.encode_threads)
    encoder = Encoder(device=options.device, together=IMPORT_BATCH)
    decoder = open_decoder(settings)
    throttle = Throttle(share, store.replicas.latencies)
    with closing(decoder), closing(encoder):
        reindex = Reindex(store.models, decoder, encoder, originals, throttle)
        for stored in incomplete:
            try:
                reindex.run(stored, _load(store, stored, options), run)
            except ModelChanged as error:
                raise ModelError(str(error)) from error


def _import(
    store: Store, settings: Settings, originals: Originals, options: Options, run: JobRun
) -> None:
    _prepare_database(store, settings, originals, options)
    if run.job.by_service:
        source = ImportFolder(settings).open(run.job.source)
    else:
        source = open_source(Path(run.job.source), None, settings.max_body_bytes)
    # One network for each processor: threads that share a batch wait for each other at every layer.
    options = replace(options, threads=1, streams=settings.encode_threads)
    encoder = Encoder(
        device=options.device, together=IMPORT_BATCH, networks=settings.encode_threads
    )
    decoder = open_decoder(settings, IMPORT_GROUP_BYTES)
    with closing(decoder), closing(encoder):
        ingest = Ingest(decoder, encoder, originals, settings.copies)
        while not run.stop.is_set():
            try:
                models = [_load(store, stored, options) for stored in store.models.all()]
                Import(store, ingest, models).run(source, run)
                return
            except ModelChanged:  # a model was added or deleted meanwhile
                continue


def _prepare_database(
    store: Store, settings: Settings, originals: Originals, options: Options
) -> None:
    """Adopts GPQ_MODEL in a new database and claims the image store, as a service does."""
    if not store.models.all():
        folder = artifacts.find(settings.model)
        store.models.adopt(engines.load(folder, options).id, artifacts.read(folder))
    originals.claim(store.state.identity(), store.feed.head())


def _load(store: Store, stored: StoredModel, options: Options) -> Model:
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
