"""python -m service import and jobs: long works, done here or looked at."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Never

from tqdm import tqdm

from service.database.jobs import JobStore
from service.database.migrate import migrate
from service.database.records import Job, JobError, JobState
from service.database.store import Store
from service.jobs.run import JobRun
from service.settings import MAX_JOB_FAILURES, REINDEX_SHARE, Settings

SHOWN_FAILURES = 20
SHOWN_JOBS = 50


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder, .csv or .jsonl manifest, or .tar")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="what there is, the newest first")
    for name, about in (
        ("run", "do one here, or the rest of it, as services do what they are asked for"),
        ("cancel", "its process ends after what it is at"),
        ("failures", "what it could not use, and why"),
    ):
        actions.add_parser(name, help=about, description=about).add_argument("number", type=int)


def run_import(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 1 where pictures could not be used. Raises as ``work.work``."""
    store = _open(settings)
    try:
        number = store.jobs.ask("import", str(arguments.source.resolve()), by_service=False)
        return at_it(store, settings, number)
    finally:
        store.close()


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 1 where pictures could not be used. Raises as ``work.work``."""
    store = _open(settings)
    try:
        if arguments.action == "list":
            known = store.jobs.page(SHOWN_JOBS)
            print("\n".join(map(_line, known)) or "there are no jobs")
            return 0
        if arguments.action == "cancel":
            if not store.jobs.cancel(arguments.number):
                raise JobError(f"there is no job {arguments.number} that has not ended")
            return 0
        if arguments.action == "failures":
            _print_failures(store.jobs, arguments.number)
            return 0
        return at_it(store, settings, arguments.number, leave="waiting")
    finally:
        store.close()


def at_it(
    store: Store,
    settings: Settings,
    number: int,
    *,
    share: float = REINDEX_SHARE,
    leave: JobState = "stopped",
) -> int:
    """Do a job with a progress bar, until the end or a signal; then it is left as ``leave``."""
    with tqdm(unit="picture", disable=None) as bar:
        run = JobRun(store.jobs, number, leave=leave, watch=lambda job: _show(bar, job))
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, lambda *_: run.break_off())
        with run:
            from service.jobs.worker import work  # torch is slow to import, and others need it not

            work(store, settings, run, share)
    job = run.job
    outcome = f"; this time {run.outcome}" if run.outcome else ""
    print(f"{job.state}: {job.done - job.failed} of {job.total} pictures{outcome}")
    _tell_failures(store.jobs, job)
    return 1 if job.failed or job.state != "done" else 0


def _open(settings: Settings) -> Store:
    store = Store(settings.database_url)
    migrate(store.database)
    return store


def _show(bar: "tqdm[Never]", job: Job) -> None:
    if bar.disable:
        return
    if bar.initial == 0 and bar.n == 0:
        bar.initial = job.done  # of an earlier time: not of this one's speed
    bar.total, bar.n = job.total, job.done
    bar.set_postfix_str(f"failed={job.failed} {job.detail}".strip(), refresh=False)
    bar.update(0)


def _tell_failures(jobs: JobStore, job: Job) -> None:
    for failure in jobs.failures(job.number, 0, SHOWN_FAILURES):
        print(f"{failure.name}: {failure.reason}", file=sys.stderr)
    if job.failed > SHOWN_FAILURES:
        more = job.failed - SHOWN_FAILURES
        print(f"… and {more} more: python -m service jobs failures {job.number}", file=sys.stderr)


def _print_failures(jobs: JobStore, number: int) -> None:
    """Raises JobError where there is no such job."""
    if jobs.get(number) is None:
        raise JobError(f"there is no job {number}")
    for failure in jobs.failures(number, 0, MAX_JOB_FAILURES):
        print(f"{failure.name}: {failure.reason}")


def _line(job: Job) -> str:
    total = "?" if job.total is None else job.total
    failed = f", {job.failed} failed" if job.failed else ""
    what = f"{job.kind} {job.source}".strip()
    return f"{job.number}  {job.state:9}  {job.done} of {total}{failed}  {what}  {job.detail}"
