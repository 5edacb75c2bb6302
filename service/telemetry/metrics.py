"""Counts and measures what a process does, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one application; each has its own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "gpq_requests", "Replies", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "gpq_request_seconds",
            "Seconds from the first byte of a request to the last byte of the reply",
            ["method", "route"],
            registry=registry,
            buckets=SECONDS,
        )
        self.stage_seconds = Histogram(
            "gpq_stage_seconds",
            "Seconds of one request in one stage, summed over threads",
            ["stage"],
            registry=registry,
            buckets=SECONDS,
        )
        self.cpu_seconds = Histogram(
            "gpq_request_cpu_seconds",
            "Processor seconds of the threads and decoding processes that worked for a request",
            ["method", "route"],
            registry=registry,
            buckets=SECONDS,
        )
        self.received_bytes = Counter(
            "gpq_received_bytes", "Bytes of bodies received", ["method", "route"], registry=registry
        )
        self.sent_bytes = Counter(
            "gpq_sent_bytes", "Bytes of bodies sent", ["method", "route"], registry=registry
        )
        self.batch = Histogram(
            "gpq_batch_size",
            "Images encoded, or queries scanned, in one batch",
            ["work"],
            registry=registry,
            buckets=BATCHES,
        )
        self.decoders_ended = Counter(
            "gpq_decoders_ended",
            "Decoding processes that an image, or a lack of memory, has ended",
            registry=registry,
        )
        self.device_full = Counter(
            "gpq_device_full",
            "Times that the device ran out of memory",
            registry=registry,
        )

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Adds a gauge whose value is read at each scrape."""
        Gauge(name, about, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self.registry)
