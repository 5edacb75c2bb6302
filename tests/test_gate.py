import inspect
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi.routing import APIRoute

from service import patience
from service.app import create_app
from service.batcher import Batcher
from service.gate import Gate
from service.problems import Problem
from service.routes import images, index, jobs, models, search, system
from service.settings import Settings


def test_waiting_is_counted_in_all_queues_together() -> None:
    batcher = Batcher(lambda key, items: (time.sleep(0.2), items)[1], 1)
    gate = Gate(9, 1, 0.3)

    async def main() -> list[object]:
        found: list[object] = [None, None]

        async def ask(n: int, work: Callable[[], object]) -> None:
            try:
                found[n] = await gate.run(work)
            except Problem as problem:
                found[n] = problem.status

        async with anyio.create_task_group() as group:
            group.start_soon(ask, 0, lambda: time.sleep(0.2))
            await anyio.sleep(0.01)
            group.start_soon(ask, 1, lambda: behind(batcher))
        return found

    assert anyio.run(main) == [None, 503]


def behind(batcher: Batcher[str, int, int]) -> list[int]:
    """Ask for a batch while another, of 0.2 s, is done."""
    begun = threading.Thread(target=batcher.do, args=("first", [1]))
    begun.start()
    time.sleep(0.02)
    try:
        return batcher.do("a", [1])
    finally:
        begun.join()


def test_work_does_not_use_up_patience() -> None:
    batcher = Batcher(lambda key, items: items, 1)

    def work() -> list[int]:
        time.sleep(0.1)
        return batcher.do("a", [1])

    assert anyio.run(Gate(1, 1, 0.05).run, work) == [1]
    with patience.of(0.05), pytest.raises(Problem):
        behind(Batcher(lambda key, items: (time.sleep(0.2), items)[1], 1))


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
    runtime.gate.inside = runtime.gate.limit
    assert anyio.run(get, "/metrics").status_code == 200
    runtime.light.inside = runtime.light.limit
    refused = anyio.run(get, "/metrics")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert anyio.run(get, "/livez").status_code == 200


def test_no_route_queues_for_a_thread_without_bound() -> None:
    routers = [index, search, images, models, jobs, system]
    routes = [r for of in routers for r in of.router.routes if isinstance(r, APIRoute)]
    assert len(routes) > 20
    assert [r.path for r in routes if not inspect.iscoroutinefunction(r.endpoint)] == []
