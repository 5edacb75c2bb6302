"""What each kind of job does."""

import gc
import os
from contextlib import closing
from pathlib import Path

import torch

from gpq.model import artifact
from gpq.model.model import Model
from gpq.pixels.decode import limit_decoding
from gpq.system import device, memory
from service.catalogue.ingest import Ingest
from service.database.records import ModelError, ModelRow, OtherModel
from service.database.store import Store
from service.jobs.import_folder import ImportFolder
from service.jobs.importing import Import
from service.jobs.reindexing import Reindex
from service.jobs.run import JobRun
from service.jobs.sources import open_source
from service.jobs.throttle import Throttle
from service.models import artifacts
from service.models.encoder import GROUP_BYTES, IMPORT_GROUP_BYTES, Encoder
from service.originals import Originals, open_originals
from service.settings import IMPORT_BATCH, Settings

NICENESS = 10  # beside a service on the same machine


def work(store: Store, settings: Settings, run: JobRun, share: float) -> None:
    """Do a job, or the rest of it. share: of the time, at most, that a re-index takes.

    Raises GPQError, ModelError, SourceError, Problem, SQLAlchemyError.
    """
    os.nice(NICENESS)
    limit_decoding(settings.max_pixels)
    memory.keep_tensors()
    gc.freeze()  # what is imported by now: the collector would look at it again and again
    place = device.pick(settings.device)
    originals = open_originals(settings.image_store)
    if run.job.kind == "reindex":
        throttle = Throttle(share, store.replicas.latencies)
        with closing(_encoder(settings, place, settings.encode_threads)) as encoder:
            _reindex(store, Reindex(store, encoder, originals, throttle), place, run)
    else:
        with closing(_encoder_of_import(settings, place)) as encoder:
            _import(store, settings, Ingest(encoder, originals), place, run)


def _encoder(
    settings: Settings,
    place: torch.device,
    threads: int,
    networks: int = 1,
    group_bytes: int = GROUP_BYTES,
) -> Encoder:
    return Encoder(
        settings.max_pixels,
        settings.decode_threads,
        threads,
        device=place.type,
        together=IMPORT_BATCH,
        networks=networks,
        group_bytes=group_bytes,
    )


def _encoder_of_import(settings: Settings, place: torch.device) -> Encoder:
    # Threads that share a batch wait for each other at every layer, and for what else is done
    # meanwhile: each has its own.
    return _encoder(settings, place, 1, settings.encode_threads, IMPORT_GROUP_BYTES)


def _reindex(store: Store, reindex: Reindex, place: torch.device, run: JobRun) -> None:
    rows = [row for row in store.models.all() if not row.whole]
    missing = sum(store.models.count_missing(row.number) for row in rows)
    total = max(missing, run.job.total or 0)  # what is not missing any more is done
    run.expect(total, done=total - missing)
    for row in rows:
        try:
            reindex.run(row, _model(store, row, place), run)
        except OtherModel as error:
            raise ModelError(str(error)) from error


def _model(store: Store, row: ModelRow, place: torch.device) -> Model:
    """Raises OtherModel where it was taken out meanwhile, ModelError where its files were never
    kept."""
    files = store.models.files(row.id)
    if files:
        return artifacts.load(files, place)
    if row.number not in {known.number for known in store.models.all()}:
        raise OtherModel(f"model {row.id} was taken out meanwhile")
    if row.active:
        todo = (
            "start a service over it once with GPQ_MODEL set to that model's folder: it keeps them"
        )
    else:
        todo = "take that model out (`python -m service models prune`); it can be added again"
    raise ModelError(f"the database has codes of model {row.id}, but not its files: {todo}")


def _import(
    store: Store, settings: Settings, ingest: Ingest, place: torch.device, run: JobRun
) -> None:
    _begin(store, settings, ingest.originals, place)
    if run.job.by_service:
        source = ImportFolder(settings).open(run.job.source)
    else:
        source = open_source(Path(run.job.source), None, settings.max_body_bytes)
    while not run.stop.is_set():
        try:
            models = [_model(store, row, place) for row in store.models.all()]
            Import(store, ingest, models).run(source, run)
            return
        except OtherModel:  # one was added or taken out meanwhile
            continue


def _begin(store: Store, settings: Settings, originals: Originals, place: torch.device) -> None:
    """As a service does with a new database: it begins with GPQ_MODEL, and the image store is
    its own."""
    if not store.models.all():
        folder = artifacts.find(settings.model)
        store.models.adopt(artifact.load(folder, place).id, artifacts.read(folder))
    originals.claim(store.identity(), store.reader.head())
