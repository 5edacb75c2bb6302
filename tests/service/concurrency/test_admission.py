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
    """A batcher that takes 0.2 s for each batch."""
    with closing(Batcher("slow", lambda key, items: (time.sleep(0.2), items)[1], 1)) as batcher:
        yield batcher


def test_the_waits_in_all_queues_spend_one_budget(slow: Batcher[str, int, int]) -> None:
    admission = Admission(9, 1, 0.3)

    async def main() -> list[object]:
        found: list[object] = [None, None]

        async def request(n: int, work: Callable[[], object]) -> None:
            try:
                with admission.admit():
                    found[n] = await admission.run(work)
            except WaitedTooLong as error:
                found[n] = type(error)

        async with anyio.create_task_group() as group:
            group.start_soon(request, 0, lambda: time.sleep(0.2))
            await anyio.sleep(0.01)
            group.start_soon(request, 1, lambda: submit_behind_another(slow))
        return found

    assert anyio.run(main) == [None, WaitedTooLong]


def submit_behind_another(batcher: Batcher[str, int, int]) -> Sequence[int]:
    """Submits a batch while the batcher works on another one, and returns its result."""
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
        submit_behind_another(slow)


def test_the_same_work_runs_as_often_as_it_is_submitted() -> None:
    admission, began = Admission(9, 2), threading.Barrier(2, timeout=10)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(admission.run, began.wait)

    anyio.run(main)


def test_requests_that_only_query_the_database_have_their_own_limit(
    random_model: Path, tmp_path: Path
) -> None:
    app = create_app(
        Settings(model=random_model, database_url=f"sqlite:///{tmp_path}/a.db", image_store="none")
    )

    async def get(path: str) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            return await client.get(path)

    runtime = app.state.runtime
    runtime.image_requests.limit = 0
    assert anyio.run(get, "/metrics").status_code == 200
    runtime.database_requests.limit = 0
    refused = anyio.run(get, "/metrics")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert anyio.run(get, "/livez").status_code == 200


def test_every_route_is_a_coroutine_and_so_never_queues_for_a_thread() -> None:
    modules = [index, search, images, models, jobs, system]
    routes = [r for module in modules for r in module.router.routes if isinstance(r, APIRoute)]
    assert len(routes) > 20
    assert [r.path for r in routes if not inspect.iscoroutinefunction(r.endpoint)] == []
