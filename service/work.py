"""What each kind of job does."""

import os
from pathlib import Path

import torch

from gpq import artifact, device
from gpq.decode import limit_decoding
from service import artifacts
from service.encoder import Encoder
from service.imports import Import
from service.ingest import Ingest
from service.jobrun import JobRun
from service.originals import Originals, open_originals
from service.records import OtherModel
from service.reindex import Reindex
from service.settings import Settings
from service.sources import open_source
from service.store import Store

NICENESS = 10  # beside a service on the same machine


def work(store: Store, settings: Settings, run: JobRun, share: float = 1.0) -> None:
    """Do a job, or the rest of it. share: of the time, at most, that a re-index takes.

    Raises GPQError, ModelError, SourceError, Problem, SQLAlchemyError.
    """
    os.nice(NICENESS)
    limit_decoding(settings.max_pixels)
    place = device.pick(settings.device)
    encoder = Encoder(settings.max_pixels, settings.decode_threads)
    originals = open_originals(settings.image_store)
    if run.job.kind == "reindex":
        _reindex(store, Reindex(store, encoder, originals, share), place, run)
    else:
        _import(store, settings, Ingest(encoder, originals), place, run)


def _reindex(store: Store, reindex: Reindex, place: torch.device, run: JobRun) -> None:
    rows = [row for row in store.models.all() if not row.whole]
    run.expect(sum(store.models.count_missing(row.number) for row in rows), done=0)
    for row in rows:
        reindex.run(row, artifacts.load(store.models.files(row.id), place), run)


def _import(
    store: Store, settings: Settings, ingest: Ingest, place: torch.device, run: JobRun
) -> None:
    _begin(store, settings, ingest.originals, place)
    within = settings.import_folder if run.job.by_service else None
    source = open_source(Path(run.job.source), within, settings.max_body_bytes)
    while not run.stop.is_set():
        files = [store.models.files(row.id) for row in store.models.all()]
        models = [artifacts.load(each, place) for each in files]
        try:
            Import(store, ingest, models).run(source, run)
            return
        except OtherModel:  # one was added or taken out meanwhile
            continue


def _begin(store: Store, settings: Settings, originals: Originals, place: torch.device) -> None:
    """As a service does with a new database: it begins with GPQ_MODEL, and the image store is
    its own."""
    if not store.models.all():
        model = artifact.load(settings.model, place)
        store.models.adopt(model.id, artifacts.read(settings.model))
    originals.claim(store.identity())
