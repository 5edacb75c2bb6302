"""Does the work of a job in this process."""

import gc
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from gpq.engine.engines import Options
from gpq.pixels.decode import limit_decoding
from gpq.system import device, memory
from service.database.store import Store
from service.decoding.decoder import open_decoder
from service.errors import ModelChanged, ModelError, TooMuchGone
from service.jobs.duplicates import find_duplicates
from service.jobs.importer import Importer, load
from service.jobs.importing import IMPORT_BATCH
from service.jobs.mirror import Mirror
from service.jobs.progress import JobRun
from service.jobs.reindexing import Reindex
from service.jobs.throttle import Throttle
from service.models.encoder import Encoder
from service.originals.originals import Originals, open_originals
from service.settings import Settings
from service.sources.import_folder import ImportFolder
from service.sources.opening import Source, open_source
from service.sources.remote import Remote, is_url

NICENESS = 10  # beside a service on the same machine


@dataclass(frozen=True)
class Mirroring:
    """How a source is mirrored: whether to delete images however many are gone, and what tells
    people about them."""

    delete_all: bool
    tell: Callable[[str], object]


def prepare(settings: Settings) -> tuple[Originals, Options]:
    """Prepares this process for work beside a service; returns the image store, and how to run
    networks."""
    os.nice(NICENESS)
    limit_decoding(settings.max_pixels)
    memory.keep_tensors()
    gc.freeze()  # spares the collector from looking at all imported objects again and again
    options = Options(settings.engine, settings.precision, device.pick(settings.device))
    return open_originals(settings.image_store), options


def work(
    store: Store,
    settings: Settings,
    run: JobRun,
    share: float,
    mirroring: Mirroring | None = None,
) -> TooMuchGone | None:
    """Does a job, or the rest of it. ``share``: largest share of the time that a re-index takes.
    ``mirroring``: of an import. Returns why images that are gone were not deleted, if so.

    Raises GPQError, ServiceError, SQLAlchemyError.
    """
    originals, options = prepare(settings)
    match run.job.kind:
        case "import":
            return _import(store, settings, originals, options, run, mirroring)
        case "reindex":
            _reindex(store, settings, originals, options, run, share)
        case "duplicates":
            find_duplicates(store, int(run.job.source), settings.scan, run)
        case kind:
            assert_never(kind)
    return None


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
                reindex.run(stored, load(store, stored, options), run)
            except ModelChanged as error:
                raise ModelError(str(error)) from error


def _import(
    store: Store,
    settings: Settings,
    originals: Originals,
    options: Options,
    run: JobRun,
    mirroring: Mirroring | None,
) -> TooMuchGone | None:
    if run.job.by_service:
        source = ImportFolder(settings).open(run.job.source)
    elif is_url(run.job.source):
        source = Remote(run.job.source, settings.max_body_bytes)
    else:
        source = open_source(Path(run.job.source), None, settings.max_body_bytes)
    with Importer(store, settings, originals, options) as importer:
        return import_source(store, importer, source, run, mirroring)


def import_source(
    store: Store, importer: Importer, source: Source, run: JobRun, mirroring: Mirroring | None
) -> TooMuchGone | None:
    """Imports a source; if it is mirrored, deletes the images of entries that are gone from it.

    Returns why they were not deleted, if so: the import has ended well all the same. Raises as
    ``Importer.run``.
    """
    if mirroring is None:
        importer.run(source, run)
        return None
    mirror = Mirror(store, run.job.source)
    # A job that continues an import would not see the entries that are done, and delete them.
    run.expect(run.job.total or 0, done=0)
    importer.run(source, run, mirror)
    if mirror.unnamed:
        mirroring.tell("some entries cannot be told apart, so nothing is deleted")
    gone = [] if run.stop.is_set() else mirror.gone()
    if not gone:
        return None
    mirroring.tell(f"{len(gone)} images are gone from the source")
    try:
        deleted = mirror.delete(gone, all_of_them=mirroring.delete_all)
    except TooMuchGone as error:
        run.outcome = str(error)
        return error
    run.outcome = ", ".join(filter(None, [run.outcome, f"{deleted} deleted"]))
    return None
