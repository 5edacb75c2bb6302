"""Tests of timings and metrics, and of a service under too much load."""

import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.images import encoded, noise, png
from harness.server import Server

LARGE = encoded(noise(1, (1000, 800)))


def scores(reply: httpx.Response) -> list[float]:
    return [hit["score"] for hit in reply.json()["results"]]


def metrics(server: Server) -> dict[tuple[str, tuple[str, ...]], float]:
    """Returns the values of all metrics, by name and the values of their labels."""
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_reply_reports_where_its_time_went(server: Server) -> None:
    server.index(png(1), ids='["timed"]')
    replies = {
        "search": server.search(png(1)),
        "readyz": server.http.get("/readyz"),
        "missing": server.http.get("/nowhere"),
    }
    timing = {
        name: dict(re.findall(r"(\w+);dur=([0-9.]+)", reply.headers["Server-Timing"]))
        for name, reply in replies.items()
    }
    assert timing["search"].keys() == {"decode", "queue", "encode", "scan", "db", "total"}
    assert timing["readyz"].keys() == timing["missing"].keys() == {"total"}
    spent = {name: float(value) for name, value in timing["search"].items()}
    assert 0 < sum(spent.values()) - spent["total"] <= spent["total"] + 0.1


def test_metrics_have_the_cost_of_requests(server: Server) -> None:
    before = metrics(server)
    searched, listed = [server.search(LARGE) for _ in range(3)], server.http.get("/images")
    after = metrics(server)

    def grown(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0)

    search, images = ("POST", "/search"), ("GET", "/images")
    assert grown("gpq_request_cpu_seconds_count", *search) == 3
    assert 0.005 < grown("gpq_request_cpu_seconds_sum", *search) < 30  # decoding takes more
    assert 0 < grown("gpq_request_cpu_seconds_sum", *images) < 1
    assert 0 <= grown("gpq_received_bytes_total", *search) - 3 * len(LARGE) < 3000
    assert grown("gpq_received_bytes_total", *images) == 0
    assert grown("gpq_sent_bytes_total", *search) == sum(len(each.content) for each in searched)
    assert grown("gpq_sent_bytes_total", *images) == len(listed.content)


def test_metrics_count_requests_by_route_and_never_by_path(server: Server) -> None:
    before = metrics(server)
    server.search(png(1))
    server.search(b"not an image")
    for n in range(3):
        server.http.get(f"/images/none-{n}")
        server.http.get(f"/nowhere-{n}")
    after = metrics(server)

    def grown(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0)

    assert grown("gpq_requests_total", "POST", "/search", "200") == 1
    assert grown("gpq_requests_total", "POST", "/search", "415") == 1
    assert grown("gpq_requests_total", "GET", "/images/{id}", "404") == 3
    assert grown("gpq_requests_total", "(none)", "(none)", "404") == 3
    assert grown("gpq_request_seconds_count", "POST", "/search") == 2
    assert grown("gpq_stage_seconds_count", "encode") == 1
    assert grown("gpq_batch_size_sum", "scan") == 1
    assert after["gpq_images", ()] == server.http.get("/stats").json()["images"]
    assert after["gpq_ready", ()] == 1
    assert not any("nowhere" in "".join(labels) for _, labels in after)


def test_requests_over_the_limit_are_refused_and_the_others_answered_correctly(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, max_waiting=4) as server:
        for n in range(20):
            assert server.index(png(n), ids=f'["p{n}"]').status_code == 200
        expected = [scores(server.search(png(n), k=3)) for n in range(20)]

        def search(n: int) -> tuple[int, bool, float]:
            started = time.perf_counter()
            with httpx.Client(base_url=server.url, timeout=60) as client:
                reply = client.post("/search", files={"image": png(n % 20)}, data={"k": 3})
            if reply.status_code == 429:
                assert reply.headers["Retry-After"]
                return 429, True, time.perf_counter() - started
            # Images pass the network in batches, so that scores differ in the last digit.
            right = scores(reply) == pytest.approx(expected[n % 20], abs=1e-5)
            return reply.status_code, right, time.perf_counter() - started

        with ThreadPoolExecutor(40) as pool:
            outcomes = list(pool.map(search, range(400)))
        counts = Counter(status for status, _, _ in outcomes)
        assert counts.keys() == {200, 429}, counts
        assert all(right for _, right, _ in outcomes)
        assert metrics(server)["gpq_requests_inside", ()] == 0


def test_a_request_whose_turn_does_not_come_in_time_is_503(
    random_model: Path, tmp_path: Path
) -> None:
    large = encoded(noise(1, (4000, 3000)))
    settings = {"wait_seconds": 0.2, "decode_threads": 1, "image_store": "none"}
    with Server(tmp_path, model=random_model, **settings) as server:
        server.index(png(1))
        with ThreadPoolExecutor(30) as pool:
            replies = list(pool.map(lambda n: server.search(large), range(30)))
        statuses = Counter(reply.status_code for reply in replies)
        assert statuses.keys() == {200, 503}, statuses
        late = next(reply for reply in replies if reply.status_code == 503)
        assert "its turn" in late.json()["detail"] and late.headers["Retry-After"]
        assert server.search(png(1)).status_code == 200


def test_requests_in_progress_are_answered_when_the_service_stops(
    random_model: Path, tmp_path: Path
) -> None:
    large = encoded(noise(1, (4000, 3000)))
    with Server(tmp_path, model=random_model, decode_threads=1) as server:
        statuses: list[int] = []

        def store(n: int) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                files = {"images": large}
                reply = client.post("/index", files=files, data={"ids": f'["p{n}"]'})
            statuses.append(reply.status_code)

        threads = [threading.Thread(target=store, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        while metrics(server)["gpq_requests_inside", ()] < 4:
            time.sleep(0.01)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
        assert statuses == [200] * 4
        server.start()
        server.wait_until_ready()
        assert server.http.get("/stats").json()["images"] == 4
