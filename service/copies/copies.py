"""Finds the stored copies of an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.copies.hashes import distance_tables, nearest_turn
from service.copies.index import CopyIndex, nearest, within
from service.database.copies import LEAST_QUALITY, CopyTable
from service.database.copy_records import CopyCounts, CopyMember
from service.database.records import CopyHash, StoredImage

RESOLVED_TOGETHER = 200  # hashes whose images are read at a time
MOST_FOUND = 10_000  # hashes looked at for one way to turn an image

Chosen = Callable[[StoredImage], bool]


@dataclass(frozen=True)
class Copy:
    """A stored image that is a copy of another one, or of an upload.

    ``distance``: bits in which their hashes differ. ``turn``: how the stored one is turned beside
    the other (``perceptual.turned``). ``image``: None if it is an upload of the same request, whose
    id is then the one that it gets.
    """

    id: str
    distance: int
    turn: int
    image: StoredImage | None = None

    @property
    def mirrored(self) -> bool:
        """Whether it is mirrored left to right, before it is turned."""
        return self.turn >= 4

    @property
    def turned(self) -> int:
        """By how many degrees it is turned clockwise."""
        return 90 * (self.turn % 4)


@dataclass(frozen=True)
class CopyAnswer:
    """Copies, the nearest first, and whether they are all that there are."""

    copies: list[Copy]
    complete: bool


class Copies:
    """Searches for copies among all images whose hashes are known.

    Methods block, and raise SQLAlchemyError.
    """

    def __init__(self, table: CopyTable, index: CopyIndex) -> None:
        self.table, self.index = table, index

    def find(
        self, hash: CopyHash, distance: int, most: int, chosen: Chosen = lambda image: True
    ) -> CopyAnswer:
        """Returns at most ``most`` stored copies of an image within a distance.

        ``chosen``: which images count. A plain image has no copies: its hash says nothing.
        """
        if hash.quality < LEAST_QUALITY:
            return CopyAnswer([], complete=True)
        index = self.index.catch_up()
        found, complete = within(index, distance_tables(hash.hash), distance, MOST_FOUND)
        best = nearest(found)
        numbers = sorted(best, key=lambda number: (best[number][0], number))
        copies: list[Copy] = []
        # The nearest first, and no more than are wanted: their metadata may be large.
        for first in range(0, len(numbers), RESOLVED_TOGETHER):
            part = numbers[first : first + RESOLVED_TOGETHER]
            stored = self.table.images(part)
            self.index.forget([number for number in part if number not in stored])
            copies += [
                Copy(stored[number].id, *best[number], stored[number])
                for number in part
                if number in stored and chosen(stored[number])
            ]
            if len(copies) > most:
                break
        return CopyAnswer(copies[:most], complete and len(copies) <= most)

    def of_image(self, id: str) -> CopyHash | None:
        """Returns the hash of a stored image, if it could be computed."""
        return self.table.of_image(id)

    def counts(self) -> CopyCounts:
        """Counts the images by what is known of their hashes."""
        return self.table.counts()


def among(hash: CopyHash, others: Sequence[tuple[str, CopyHash]], distance: int) -> list[Copy]:
    """Returns which of other uploads, given with their ids, an image is a copy of."""
    usable = [(id, other) for id, other in others if other.quality >= LEAST_QUALITY]
    if hash.quality < LEAST_QUALITY or not usable:
        return []
    distances, turns = nearest_turn(hash.hash, [other.hash for _, other in usable])
    return [
        Copy(id, int(d), int(turn))
        for (id, _), d, turn in zip(usable, distances, turns, strict=True)
        if d <= distance
    ]


def beside_first(members: Sequence[CopyMember]) -> list[Copy]:
    """Returns the members of a group, with their distance and turn beside the first of them."""
    distances, turns = nearest_turn(members[0].hash, [member.hash for member in members])
    return [
        Copy(member.image.id, int(d), int(turn), member.image)
        for member, d, turn in zip(members, distances, turns, strict=True)
    ]
