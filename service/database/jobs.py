"""Reads and writes jobs: what must be done, which process does it, and its progress."""

from collections.abc import Sequence
from dataclasses import fields, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from service.database.engine import Database, now
from service.database.job_records import Job, JobFailure, JobKind, JobState
from service.database.schema import job_failures, jobs
from service.errors import JobError

MAX_JOB_FAILURES = 10_000  # failures kept for one job; more are only counted
LOST_SECONDS = 10  # a running job without a report for so long has lost its process
OPEN = ("waiting", "running", "stopped", "failed")
ENDED = ("done", "cancelled")
Failures = Sequence[tuple[str, str]]  # (name, reason)


class JobTable:
    """The jobs table. A running job has one owner, a process that reports every second.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def request(self, kind: JobKind, source: str, *, by_service: bool) -> int:
        """Adds a job, or lets an interrupted one of that kind and source continue.

        Returns its number. Raises JobError if such a job is running already.
        """

        def request(connection: Connection) -> int:
            same = (jobs.c.kind == kind) & (jobs.c.source == source)
            query = _jobs().where(same, jobs.c.state.in_(OPEN)).order_by(jobs.c.number.desc())
            known = connection.execute(query.limit(1)).one_or_none()
            if known is None:
                return _insert(connection, kind, source, by_service)
            job = _job(known)
            if job.state == "running" or (job.state == "waiting" and job.by_service):
                raise JobError(
                    f"job {job.number} already does this: cancel it first, or, if its process was "
                    f"killed, try again in {LOST_SECONDS} seconds"
                )
            change = {"state": "waiting", "detail": "", "by_service": by_service}
            _change(connection, job.number, **change)
            return job.number

        return self.database.write(request)

    def claim(self, owner: str, number: int) -> Job | None:
        """Assigns a job to ``owner``; None if another process runs it, or it has ended."""

        def claim(connection: Connection) -> Job | None:
            query = _jobs().where(_is_unclaimed(), jobs.c.number == number)
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            _change(connection, number, state="running", owner=owner, seen=now(), detail="")
            return replace(_job(found), detail="")

        return self.database.write(claim)

    def waiting(self) -> list[Job]:
        """Returns the jobs that a service must run and that no process runs, the oldest first."""
        query = _jobs().where(_is_unclaimed(), jobs.c.by_service).order_by(jobs.c.number)
        with self.database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def explain(self, number: int, detail: str) -> None:
        """Sets the detail of a job that still waits."""

        def explain(connection: Connection) -> None:
            change = sa.update(jobs).where(_is_unclaimed(), jobs.c.number == number)
            connection.execute(change.values(detail=detail))

        self.database.write(explain)

    def report(
        self, job: Job, owner: str, failures: Failures = (), *, restarted: bool = False
    ) -> bool:
        """Writes the progress of a job, and its failures since the last report.

        ``restarted``: the failures written before are deleted first. Returns False if the owner
        must stop, because the job was cancelled or another process took it over.
        """

        def report(connection: Connection) -> bool:
            mine = (jobs.c.number == job.number) & (jobs.c.owner == owner)
            change = sa.update(jobs).where(mine, jobs.c.state == "running")
            values = {
                "state": job.state, "done": job.done, "failed": job.failed, "total": job.total,
                "cursor": job.cursor, "detail": job.detail, "seconds": job.seconds,
            }  # fmt: skip
            if connection.execute(change.values(**values, seen=now())).rowcount == 0:
                return False
            if restarted:
                connection.execute(sa.delete(job_failures).where(job_failures.c.job == job.number))
            count = sa.select(sa.func.count()).where(job_failures.c.job == job.number)
            known = connection.scalar(count) or 0
            rows = [
                {"job": job.number, "number": known + n, "name": name, "reason": reason}
                for n, (name, reason) in enumerate(failures[: MAX_JOB_FAILURES - known], 1)
            ]
            if rows:
                connection.execute(sa.insert(job_failures), rows)
            return True

        return self.database.write(report)

    def cancel(self, number: int) -> bool:
        """Cancels a job; its process stops after the entries in progress.

        Returns False if the job has ended.
        """

        def cancel(connection: Connection) -> bool:
            change = sa.update(jobs).where(jobs.c.number == number, jobs.c.state.in_(OPEN))
            return connection.execute(change.values(state="cancelled", detail="")).rowcount == 1

        return self.database.write(cancel)

    def prune(self, seconds: float) -> None:
        """Deletes jobs that ended more than ``seconds`` ago, failed ones too."""

        def prune(connection: Connection) -> None:
            old = (jobs.c.seen < now() - seconds) & jobs.c.state.in_((*ENDED, "failed"))
            numbers = list(connection.scalars(sa.select(jobs.c.number).where(old)))
            for table, column in ((job_failures, job_failures.c.job), (jobs, jobs.c.number)):
                connection.execute(sa.delete(table).where(column.in_(numbers)))

        self.database.write(prune)

    def mark_lost(self, number: int, owner: str, detail: str) -> None:
        """Marks a running job as failed, because its process ended without a report."""

        def mark_lost(connection: Connection) -> None:
            mine = (jobs.c.number == number) & (jobs.c.owner == owner)
            change = sa.update(jobs).where(mine, jobs.c.state == "running")
            connection.execute(change.values(state="failed", detail=detail))

        self.database.write(mark_lost)

    def get(self, number: int) -> Job | None:
        """Returns a job, or None."""
        with self.database.read() as connection:
            found = connection.execute(_jobs().where(jobs.c.number == number)).one_or_none()
        return None if found is None else _job(found)

    def page(self, limit: int) -> list[Job]:
        """Returns the newest ``limit`` jobs, the newest first."""
        with self.database.read() as connection:
            query = _jobs().order_by(jobs.c.number.desc()).limit(limit)
            return [_job(row) for row in connection.execute(query)]

    def failures(self, number: int, after: int, limit: int) -> list[JobFailure]:
        """Returns the failures of a job in order, from the first after failure ``after``."""
        columns = job_failures.c.number, job_failures.c.name, job_failures.c.reason
        query = sa.select(*columns).where(job_failures.c.job == number, columns[0] > after)
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(columns[0]).limit(limit))
            return [JobFailure(*row) for row in rows]


def _jobs() -> sa.Select[tuple[object, ...]]:
    return sa.select(*jobs.c, (now() - jobs.c.seen).label("silent"))


def _is_unclaimed() -> sa.ColumnElement[bool]:
    silent = now() - jobs.c.seen
    lost = (jobs.c.state == "running") & ~silent.between(-LOST_SECONDS, LOST_SECONDS)
    return (jobs.c.state == "waiting") | lost


def _insert(connection: Connection, kind: JobKind, source: str, by_service: bool) -> int:
    values = {
        "kind": kind, "source": source, "state": "waiting", "owner": "", "by_service": by_service,
        "done": 0, "failed": 0, "total": None, "cursor": "", "detail": "", "seconds": 0,
        "created": now(), "seen": now(),
    }  # fmt: skip
    inserted = sa.insert(jobs).values(**values).returning(jobs.c.number)
    return int(connection.execute(inserted).scalar_one())


def _change(connection: Connection, number: int, **values: object) -> None:
    connection.execute(sa.update(jobs).where(jobs.c.number == number).values(**values))


def _job(row: Row[tuple[object, ...]]) -> Job:
    values = row._mapping
    state: JobState = values["state"]
    if state == "running" and abs(values["silent"]) > LOST_SECONDS:
        state = "waiting" if values["by_service"] else "stopped"
    names = {field.name for field in fields(Job)} - {"state"}
    return Job(state=state, **{name: values[name] for name in names})
