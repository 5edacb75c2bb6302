"""Limits the pixels that all processes decode at the same time, and so their memory."""

import threading
from collections import deque
from collections.abc import Callable

LOOK_SECONDS = 0.25  # between looks at whether a turn is still wanted


class PixelBudget:
    """``limit``: pixels of all images together. A larger image is decoded alone.

    Images get their turn in the order of asking.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = limit, 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take_now(self, pixels: int) -> bool:
        """Takes pixels if there is room and nobody waits for his turn; returns whether."""
        with self._changed:
            there_is = not self._waiting and self._has_room(pixels)
            self._taken += pixels if there_is else 0
            return there_is

    def take(self, pixels: int, wanted: Callable[[], bool]) -> bool:
        """Waits for its turn. Returns False, and takes nothing, if ``wanted`` becomes false."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while wanted():
                    if self._waiting[0] is turn and self._has_room(pixels):
                        self._taken += pixels
                        return True
                    self._changed.wait(LOOK_SECONDS)
                return False
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def give(self, pixels: int) -> None:
        """Returns what was taken."""
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        return self._taken == 0 or self._taken + pixels <= self._limit
