"""Runs python -m service import, duplicates and jobs."""

import argparse
import math
import signal
import sys
from pathlib import Path
from typing import Never

from tqdm import tqdm

from service.copies.hashes import DEFAULT_DISTANCE, LARGEST_DISTANCE
from service.database.job_records import Job, JobState
from service.database.jobs import MAX_JOB_FAILURES, JobTable
from service.database.migrate import migrate
from service.database.store import Store
from service.errors import JobError, NoSuchJob, SourceError
from service.jobs.progress import JobRun
from service.jobs.throttle import DEFAULT_SHARE
from service.settings import Settings
from service.sources.remote import is_url

SHOWN_FAILURES = 20
WATCH_SECONDS, LEAST_WATCH_SECONDS = 3600, 5  # between passes over a watched folder
SHOWN_JOBS = 50


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="folder, .csv or .jsonl manifest, .tar, or a URL such as s3://bucket/folder"
    )
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="delete images that came from this source by --mirror or --watch and are gone from it",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="mirror a folder, and go on when its files change, until Ctrl-C",
    )
    parser.add_argument(
        "--every",
        type=_seconds,
        metavar="SECONDS",
        help=f"with --watch: look at all files so often (default: {WATCH_SECONDS})",
    )
    parser.add_argument(
        "--delete-all",
        action="store_true",
        help="with --mirror or --watch: delete images also if more than half are gone",
    )


def add_duplicates_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distance",
        type=int,
        choices=range(LARGEST_DISTANCE + 1),
        metavar=f"0-{LARGEST_DISTANCE}",
        default=DEFAULT_DISTANCE,
        help=f"most bits of 256 in which copies differ (default: {DEFAULT_DISTANCE})",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="list the jobs, the newest first")
    for name, about in (
        ("run", "run a waiting job in this process, as services do"),
        ("cancel", "cancel a job; it stops after the images in progress"),
        ("failures", "list the images that a job could not use, and why"),
    ):
        actions.add_parser(name, help=about, description=about).add_argument("number", type=int)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not LEAST_WATCH_SECONDS <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"at least {LEAST_WATCH_SECONDS}")
    return seconds


def run_import(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status: 1 if images could not be used. Raises as ``worker.work`` does."""
    source = arguments.source
    if not is_url(source):
        source = str(Path(source).resolve())
    elif arguments.watch:
        raise SourceError("--watch needs a folder: run --mirror from time to time instead")
    elif arguments.mirror and not source.startswith("s3://"):
        # The generic listing of fsspec takes a folder that cannot be read for an empty one.
        raise SourceError("--mirror reads folders, manifests, archives and s3:// alone")
    if arguments.delete_all and not (arguments.mirror or arguments.watch):
        raise SourceError("--delete-all needs --mirror or --watch")
    store = _open(settings)
    try:
        if arguments.watch:
            every = arguments.every or WATCH_SECONDS
            return watch(store, settings, source, every, delete_all=arguments.delete_all)
        number = store.jobs.request("import", source, by_service=False)
        delete_all = arguments.delete_all if arguments.mirror else None
        return run_job(store, settings, number, delete_all=delete_all)
    finally:
        store.close()


def watch(store: Store, settings: Settings, source: str, every: float, *, delete_all: bool) -> int:
    """Mirrors a folder until a signal comes. Returns the exit status.

    Raises SourceError, GPQError.
    """
    # These load engines, which other commands don't need.
    from service.jobs import worker
    from service.jobs.importer import Importer
    from service.jobs.watching import Watcher
    from service.sources.files import Folder

    if not Path(source).is_dir():
        raise SourceError(f"there is no folder {source}")
    originals, options = worker.prepare(settings)
    mirroring = worker.Mirroring(delete_all, _tell)
    with Importer(store, settings, originals, options) as importer:
        running: list[JobRun] = []

        def full_pass() -> Job:
            number = store.jobs.request("import", source, by_service=False)
            with tqdm(unit="image", disable=None) as bar:
                run = JobRun(store.jobs, number, watch=lambda job: _show(bar, job))
                running[:] = [run]
                folder = Folder(Path(source), None, settings.max_body_bytes)
                with run:
                    worker.import_source(store, importer, folder, run, mirroring)
            _tell(f"{run.job.total} images; {run.job.detail or run.outcome}")
            _warn_of_failures(store.jobs, run.job)
            return run.job

        watcher = Watcher(
            store,
            importer,
            Path(source),
            full_pass,
            every,
            _tell,
            settings.max_body_bytes,
            delete_all=delete_all,
        )

        def stop(*_: object) -> None:
            watcher.stop.set()
            for run in running:
                run.interrupt()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        _tell(f"watching {source}; Ctrl-C ends it")
        watcher.run()
    return 0


def run_duplicates(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status. Raises as ``worker.work`` does."""
    store = _open(settings)
    try:
        number = store.jobs.request("duplicates", str(arguments.distance), by_service=False)
        return run_job(store, settings, number)
    finally:
        store.close()


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status: 1 if images could not be used. Raises as ``worker.work`` does."""
    store = _open(settings)
    try:
        if arguments.action == "list":
            known = store.jobs.page(SHOWN_JOBS)
            print("\n".join(map(_line, known)) or "there are no jobs")
            return 0
        if arguments.action == "cancel":
            if not store.jobs.cancel(arguments.number):
                raise JobError(f"there is no unfinished job {arguments.number}")
            return 0
        if arguments.action == "failures":
            _print_failures(store.jobs, arguments.number)
            return 0
        return run_job(store, settings, arguments.number, interrupted_state="waiting")
    finally:
        store.close()


def run_job(
    store: Store,
    settings: Settings,
    number: int,
    *,
    share: float = DEFAULT_SHARE,
    interrupted_state: JobState = "stopped",
    delete_all: bool | None = None,
) -> int:
    """Runs a job with a progress bar until it ends, or a signal interrupts it. ``delete_all``: as
    in ``Mirroring``; None if an import does not mirror its source."""
    with tqdm(unit="image", disable=None) as bar:
        run = JobRun(
            store.jobs,
            number,
            interrupted_state=interrupted_state,
            watch=lambda job: _show(bar, job),
        )
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, lambda *_: run.interrupt())
        with run:
            from service.jobs import worker  # loads engines, which other commands don't need

            mirroring = None if delete_all is None else worker.Mirroring(delete_all, _tell)
            refused = worker.work(store, settings, run, share, mirroring)
    job = run.job
    outcome = f"; in this run {run.outcome}" if run.outcome else ""
    print(f"{job.state}: {job.done - job.failed} of {job.total} images{outcome}")
    _warn_of_failures(store.jobs, job)
    if refused is not None:
        raise refused
    return 1 if job.failed or job.state != "done" else 0


def _tell(text: str) -> None:
    tqdm.write(text)
    sys.stdout.flush()


def _open(settings: Settings) -> Store:
    store = Store(settings.database_url)
    migrate(store.database)
    return store


def _show(bar: "tqdm[Never]", job: Job) -> None:
    if bar.disable:
        return
    if bar.initial == 0 and bar.n == 0:
        bar.initial = job.done  # an earlier run did these; they don't count for the speed
    bar.total, bar.n = job.total, job.done
    bar.set_postfix_str(f"failed={job.failed} {job.detail}".strip(), refresh=False)
    bar.update(0)


def _warn_of_failures(jobs: JobTable, job: Job) -> None:
    for failure in jobs.failures(job.number, 0, SHOWN_FAILURES):
        print(f"{failure.name}: {failure.reason}", file=sys.stderr)
    if job.failed > SHOWN_FAILURES:
        more = job.failed - SHOWN_FAILURES
        print(f"… and {more} more: python -m service jobs failures {job.number}", file=sys.stderr)


def _print_failures(jobs: JobTable, number: int) -> None:
    """Raises NoSuchJob."""
    if jobs.get(number) is None:
        raise NoSuchJob(number)
    for failure in jobs.failures(number, 0, MAX_JOB_FAILURES):
        print(f"{failure.name}: {failure.reason}")


def _line(job: Job) -> str:
    total = "?" if job.total is None else job.total
    failed = f", {job.failed} failed" if job.failed else ""
    what = f"{job.kind} {job.source}".strip()
    return f"{job.number}  {job.state:9}  {job.done} of {total}{failed}  {what}  {job.detail}"
