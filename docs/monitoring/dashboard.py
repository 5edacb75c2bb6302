"""Writes dashboard.json, a dashboard for Grafana, from the panels below.

python docs/monitoring/dashboard.py
"""

import json
from pathlib import Path

TITLE = "GPQ image search"
RATE = "[$__rate_interval]"
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Ready", "short", [("gpq_ready", "{{instance}}")]),
    ("Images", "short", [("gpq_images", "{{instance}}")]),
    (
        "Requests a second by route",
        "reqps",
        [(f"sum by (route) (rate(gpq_requests_total{RATE}))", "{{route}}")],
    ),
    (
        "Replies a second by status",
        "reqps",
        [(f"sum by (status) (rate(gpq_requests_total{RATE}))", "{{status}}")],
    ),
    (
        "Time of POST /search",
        "s",
        [
            (
                f"histogram_quantile({q}, sum by (le) "
                f'(rate(gpq_request_seconds_bucket{{route="/search"}}{RATE})))',
                f"{int(q * 100)} %",
            )
            for q in (0.5, 0.99)
        ],
    ),
    (
        "Time by stage, a request",
        "s",
        [
            (
                f"sum by (stage) (rate(gpq_stage_seconds_sum{RATE})) / "
                f"sum by (stage) (rate(gpq_stage_seconds_count{RATE}))",
                "{{stage}}",
            )
        ],
    ),
    (
        "Processor time a second, by route",
        "s",
        [(f"sum by (route) (rate(gpq_request_cpu_seconds_sum{RATE}))", "{{route}}")],
    ),
    (
        "Bytes a second, by route",
        "Bps",
        [
            (f"sum by (route) (rate(gpq_received_bytes_total{RATE}))", "to {{route}}"),
            (f"sum by (route) (rate(gpq_sent_bytes_total{RATE}))", "from {{route}}"),
        ],
    ),
    ("Requests with images in progress", "short", [("gpq_requests_inside", "{{instance}}")]),
    (
        "Images or queries in a batch",
        "short",
        [
            (
                f"sum by (work) (rate(gpq_batch_size_sum{RATE})) / "
                f"sum by (work) (rate(gpq_batch_size_count{RATE}))",
                "{{work}}",
            )
        ],
    ),
    (
        "Changes not yet applied",
        "short",
        [("scalar(max(gpq_feed_applied)) - gpq_feed_applied", "{{instance}}")],
    ),
    (
        "Decoding processes ended, device full",
        "short",
        [
            ("increase(gpq_decoders_ended_total[10m])", "ended {{instance}}"),
            ("increase(gpq_device_full_total[10m])", "full {{instance}}"),
        ],
    ),
]
WIDTH, HEIGHT, COLUMNS = 12, 8, 2


def panel(number: int, title: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, object]:
    """Returns a panel with a line for each query."""
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "gridPos": {
            "x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT,
        },
        "targets": [
            {"refId": chr(ord("A") + n), "expr": query, "legendFormat": legend}
            for n, (query, legend) in enumerate(queries)
        ],
    }  # fmt: skip


def dashboard() -> dict[str, object]:
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "title": TITLE,
        "uid": "gpq",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [panel(n, *each) for n, each in enumerate(PANELS)],
    }


if __name__ == "__main__":
    Path(__file__).with_name("dashboard.json").write_text(json.dumps(dashboard(), indent=1) + "\n")
