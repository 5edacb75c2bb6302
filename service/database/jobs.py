"""The statements on jobs: what there is to do, who is at it, how far it is."""

from collections.abc import Sequence
from dataclasses import fields, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from service.database.engine import Database, now
from service.database.records import Job, JobError, JobKind, JobState
from service.database.schema import job_failures, jobs
from service.settings import JOB_LOST_SECONDS, MAX_JOB_FAILURES

OPEN = ("waiting", "running", "stopped", "failed")
ENDED = ("done", "cancelled")
Failures = Sequence[tuple[str, str]]  # names and reasons


class JobStore:
    """A job has one owner at a time, which says every second that it is alive.

    Every method raises SQLAlchemyError where the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def ask(self, kind: JobKind, source: str, *, by_service: bool) -> int:
        """A job of that kind and source, to be done; one that was broken off goes on.

        Raises JobError where one is under way.
        """

        def ask(connection: Connection) -> int:
            same = (jobs.c.kind == kind) & (jobs.c.source == source)
            query = _jobs().where(same, jobs.c.state.in_(OPEN)).order_by(jobs.c.number.desc())
            known = connection.execute(query.limit(1)).one_or_none()
            if known is None:
                return _insert(connection, kind, source, by_service)
            job = _job(known)
            if job.state == "running" or (job.state == "waiting" and job.by_service):
                raise JobError(
                    f"job {job.number} is at it already: cancel that one first, or, where its "
                    "process was killed, ask again in ten seconds"
                )
            change = {"state": "waiting", "detail": "", "by_service": by_service}
            _change(connection, job.number, **change)
            return job.number

        return self.database.write(ask)

    def claim(self, owner: str, number: int) -> Job | None:
        """Take a job; None where another process is at it, or it has ended."""

        def claim(connection: Connection) -> Job | None:
            query = _jobs().where(_free(), jobs.c.number == number)
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            _change(connection, number, state="running", owner=owner, seen=now(), detail="")
            return replace(_job(found), detail="")

        return self.database.write(claim)

    def waiting(self) -> list[Job]:
        """Those that services are to do, and none is at; the oldest first."""
        query = _jobs().where(_free(), jobs.c.by_service).order_by(jobs.c.number)
        with self.database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def explain(self, number: int, detail: str) -> None:
        """Why it waits, where it still does."""

        def explain(connection: Connection) -> None:
            change = sa.update(jobs).where(_free(), jobs.c.number == number)
            connection.execute(change.values(detail=detail))

        self.database.write(explain)

    def tell(self, job: Job, owner: str, failures: Failures = (), *, anew: bool = False) -> bool:
        """Store how far it is, and what could not be used since it was told last; anew: since
        it began again. False where the owner is to end: it was cancelled, or taken over."""

        def tell(connection: Connection) -> bool:
            mine = (jobs.c.number == job.number) & (jobs.c.owner == owner)
            change = sa.update(jobs).where(mine, jobs.c.state == "running")
            values = {
                "state": job.state, "done": job.done, "failed": job.failed, "total": job.total,
                "cursor": job.cursor, "detail": job.detail, "seconds": job.seconds,
            }  # fmt: skip
            if connection.execute(change.values(**values, seen=now())).rowcount == 0:
                return False
            if anew:
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

        return self.database.write(tell)

    def cancel(self, number: int) -> bool:
        """Its process ends after what it is at. False where it has ended already."""

        def cancel(connection: Connection) -> bool:
            change = sa.update(jobs).where(jobs.c.number == number, jobs.c.state.in_(OPEN))
            return connection.execute(change.values(state="cancelled", detail="")).rowcount == 1

        return self.database.write(cancel)

    def prune(self, seconds: float) -> None:
        """Forget jobs that ended so long ago, also where they might have gone on."""

        def prune(connection: Connection) -> None:
            old = (jobs.c.seen < now() - seconds) & jobs.c.state.in_((*ENDED, "failed"))
            numbers = list(connection.scalars(sa.select(jobs.c.number).where(old)))
            for table, column in ((job_failures, job_failures.c.job), (jobs, jobs.c.number)):
                connection.execute(sa.delete(table).where(column.in_(numbers)))

        self.database.write(prune)

    def lost(self, number: int, owner: str, detail: str) -> None:
        """Its process has ended without a word."""

        def lost(connection: Connection) -> None:
            mine = (jobs.c.number == number) & (jobs.c.owner == owner)
            change = sa.update(jobs).where(mine, jobs.c.state == "running")
            connection.execute(change.values(state="failed", detail=detail))

        self.database.write(lost)

    def get(self, number: int) -> Job | None:
        with self.database.read() as connection:
            found = connection.execute(_jobs().where(jobs.c.number == number)).one_or_none()
        return None if found is None else _job(found)

    def page(self, limit: int) -> list[Job]:
        """The newest first."""
        with self.database.read() as connection:
            query = _jobs().order_by(jobs.c.number.desc()).limit(limit)
            return [_job(row) for row in connection.execute(query)]

    def failures(self, number: int, after: int, limit: int) -> list[Row[tuple[int, str, str]]]:
        """(number, name, reason) of what a job could not use, from the first past ``after``."""
        columns = job_failures.c.number, job_failures.c.name, job_failures.c.reason
        query = sa.select(*columns).where(job_failures.c.job == number, columns[0] > after)
        with self.database.read() as connection:
            return list(connection.execute(query.order_by(columns[0]).limit(limit)))


def _jobs() -> sa.Select[tuple[object, ...]]:
    return sa.select(*jobs.c, (now() - jobs.c.seen).label("silent"))


def _free() -> sa.ColumnElement[bool]:
    silent = now() - jobs.c.seen
    lost = (jobs.c.state == "running") & ~silent.between(-JOB_LOST_SECONDS, JOB_LOST_SECONDS)
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
    if state == "running" and abs(values["silent"]) > JOB_LOST_SECONDS:
        state = "waiting" if values["by_service"] else "stopped"
    names = {field.name for field in fields(Job)} - {"state"}
    return Job(state=state, **{name: values[name] for name in names})
