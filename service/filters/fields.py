"""Keeps the values of filter fields up to date, on a background thread."""

from service.concurrency.periodic import PeriodicThread
from service.database.fields import FieldTable
from service.filters.values import field_values

LOOK_SECONDS = 0.5  # between looks at the feed
PAUSE_SECONDS = 0.01  # between pages, so that other writes get their turn


class FilterFields:
    """Applies the feed to the filter fields. Every process runs one; each page is one transaction,
    so they take turns."""

    def __init__(self, table: FieldTable) -> None:
        self.table = table
        self._thread = PeriodicThread("fields", self._follow, LOOK_SECONDS, at_once=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _follow(self) -> None:
        stopping = self._thread.stopping
        while self.table.advance(field_values) and not stopping.wait(PAUSE_SECONDS):
            pass
