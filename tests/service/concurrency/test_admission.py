import inspect
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi.routing import APIRoute

from service.app import create_app
from service.concurrency import wait_budget
from service.concurrency.admission import Admission
from service.concurrency.batcher import Batcher
from service.errors import WaitedTooLong
from service.http.routes import images, index, jobs, models, search, system
from service.settings import Settings


@pytest.fixture
def slow() -> Iterator[Batcher[str, int, int]]:
    """Each batch takes 0.2 s."""
    with closing(Batcher("slow", lambda key, items: (time.sleep(0.2), items)[1], 1)) as batcher:
        yield batcher


def test_waiting_is_counted_in_all_queues_together(slow: Batcher[str, int, int]) -> None:
    admission = Admission(9, 1, 0.3)

    async def main() -> list[object]:
        found: list[object] = [None, None]

        async def ask(n: int, work: Callable[[], object]) -> None:
            try:
                with admission.admit():
                    found[n] = await admission.run(work)
            except WaitedTooLong as error:
                found[n] = type(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, 0, lambda: time.sleep(0.2))
            await anyio.sleep(0.01)
            group.start_soon(ask, 1, lambda: behind(slow))
        return found

    assert anyio.run(main) == [None, WaitedTooLong]


def behind(batcher: Batcher[str, int, int]) -> Sequence[int]:
    """Ask for a batch while another is done."""
    with wait_budget.limited(9):
        batcher.submit("first", [1])
    return batcher.submit("a", [1]).result(10)


def test_work_does_not_spend_the_wait_budget(slow: Batcher[str, int, int]) -> None:
    admission = Admission(1, 1, 0.3)

    def work() -> Sequence[int]:
        time.sleep(0.4)
        return slow.submit("a", [1]).result(10)

    async def main() -> Sequence[int]:
        with admission.admit():
            return await admission.run(work)

    assert anyio.run(main) == [1]
    with wait_budget.limited(0.05), pytest.raises(WaitedTooLong):
        behind(slow)


def test_the_same_work_takes_a_turn_each_time_it_is_asked_for() -> None:
    admission, began = Admission(9, 2), threading.Barrier(2, timeout=10)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(admission.run, began.wait)

    anyio.run(main)


def test_what_only_asks_the_database_has_places_of_its_own(
    random_model: Path, tmp_path: Path
) -> None:
    app = create_app(
        Settings(model=random_model, database_url=f"sqlite:///{tmp_path}/a.db", image_store="none")
    )

    async def get(path: str) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here"
        ) as client:
            return await client.get(path)

    runtime = app.state.runtime
    runtime.image_requests.admitted = runtime.image_requests.limit
    assert anyio.run(get, "/metrics").status_code == 200
    runtime.database_requests.admitted = runtime.database_requests.limit
    refused = anyio.run(get, "/metrics")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert anyio.run(get, "/livez").status_code == 200


def test_no_route_queues_for_a_thread_without_bound() -> None:
    routers = [index, search, images, models, jobs, system]
    routes = [r for of in routers for r in of.router.routes if isinstance(r, APIRoute)]
    assert len(routes) > 20
    assert [r.path for r in routes if not inspect.iscoroutinefunction(r.endpoint)] == []
