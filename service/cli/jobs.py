"""Runs python -m service import, duplicates and jobs."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Never

from tqdm import tqdm

from service.copies.hashes import DEFAULT_DISTANCE, LARGEST_DISTANCE
from service.database.jobs import MAX_JOB_FAILURES, JobTable
from service.database.migrate import migrate
from service.database.records import Job, JobState
from service.database.store import Store
from service.errors import JobError, NoSuchJob
from service.jobs.progress import JobRun
from service.jobs.throttle import DEFAULT_SHARE
from service.settings import Settings

SHOWN_FAILURES = 20
SHOWN_JOBS = 50


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder, .csv or .jsonl manifest, or .tar")


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


def run_import(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status: 1 if images could not be used. Raises as ``worker.work`` does."""
    store = _open(settings)
    try:
        number = store.jobs.request("import", str(arguments.source.resolve()), by_service=False)
        return run_job(store, settings, number)
    finally:
        store.close()


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
) -> int:
    """Runs a job with a progress bar until it ends, or a signal interrupts it."""
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
            from service.jobs.worker import work  # loads engines, which other commands don't need

            work(store, settings, run, share)
    job = run.job
    outcome = f"; in this run {run.outcome}" if run.outcome else ""
    print(f"{job.state}: {job.done - job.failed} of {job.total} images{outcome}")
    _warn_of_failures(store.jobs, job)
    return 1 if job.failed or job.state != "done" else 0


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
