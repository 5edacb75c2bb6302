"""Defines the bodies of replies about copies."""

from typing import Any, ClassVar

from service.catalogue.metadata import decode_metadata
from service.copies.copies import Copy, beside_first
from service.database.copy_records import CopyGroup
from service.database.records import StoredImage
from service.http.replies.base import Reply
from service.http.replies.images import CopyReply, ImageReply


class FoundCopy(CopyReply):
    metadata: dict[str, Any] | None

    @classmethod
    def found(cls, copy: Copy) -> "FoundCopy":
        metadata = None if copy.image is None else decode_metadata(copy.image.metadata)
        return cls(**CopyReply.of(copy).model_dump(), metadata=metadata)


class CopiesReply(Reply):
    copies: list[FoundCopy]
    complete: bool
    quality: int
    plain: bool
    took_ms: float

    example = {
        "copies": [{**CopyReply.example, "metadata": {"shelf": 3}}],
        "complete": True,
        "quality": 100,
        "plain": False,
        "took_ms": 14.1,
    }


class MemberReply(ImageReply):
    distance: int
    mirrored: bool
    turned: int

    @classmethod
    def member(cls, image: StoredImage, copy: Copy) -> "MemberReply":
        about = CopyReply.of(copy).model_dump(exclude={"id"})
        return cls(**ImageReply.of(image).model_dump(), **about)

    example = {**ImageReply.example, "distance": 0, "mirrored": False, "turned": 0}


class GroupReply(Reply):
    size: int
    images: list[MemberReply]

    @classmethod
    def of(cls, group: CopyGroup) -> "GroupReply":
        copies = beside_first(group.members)
        return cls(
            size=group.size,
            images=[
                MemberReply.member(member.image, copy)
                for member, copy in zip(group.members, copies, strict=True)
            ],
        )

    example: ClassVar[dict[str, Any]] = {
        "size": 2,
        "images": [
            MemberReply.example,
            {**MemberReply.example, "id": "cat-2", "seq": 31, "distance": 6},
        ],
    }


class DuplicatesReply(Reply):
    groups: list[GroupReply]
    job: int | None
    next_cursor: str | None

    example = {"groups": [GroupReply.example], "job": 4, "next_cursor": "17"}
