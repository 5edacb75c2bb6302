"""Defines the values of copies that go into the database and come out of it."""

from dataclasses import dataclass

from service.database.records import StoredImage


@dataclass(frozen=True)
class CopyRow:
    """A perceptual hash in the database. ``number``: in commit order. ``hash``: None if it says
    nothing, because the image is plain or cannot be read."""

    number: int
    seq: int
    hash: bytes | None


@dataclass(frozen=True)
class CopyCounts:
    """``hashed``: images that can be compared. ``plain``: images that are too plain for it.
    ``unreadable``: images whose originals are not kept or cannot be read. ``waiting``: images whose
    hashes are still to be computed."""

    hashed: int
    plain: int
    unreadable: int
    waiting: int


@dataclass(frozen=True)
class CopyMember:
    """An image of a group of copies, and its perceptual hash."""

    image: StoredImage
    hash: bytes


@dataclass(frozen=True)
class CopyGroup:
    """Images that are copies of each other.

    ``first``: the seq by which the group is known. ``size``: of the group; ``members``: some.
    """

    first: int
    size: int
    members: list[CopyMember]
