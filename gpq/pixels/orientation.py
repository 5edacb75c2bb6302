"""Finds how an image must be turned to be upright.

Reads one entry of the Exif data. Pillow would convert all of them, which may take seconds.
"""

import re
import struct
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

UPRIGHT = 1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
ON_ITS_SIDE = (5, 6, 7, 8)  # orientations that swap width and height
ORIENTATION = 274  # TIFF 6.0, section 8
EXIF_PREFIX = re.compile(rb"(Exif\0\0){1,2}")
BIG = ord("+")  # Pillow reads the file as BigTIFF if its third byte is this
BYTE_ORDERS = {b"II": "<", b"MM": ">"}
VERSIONS = (b"*\0", b"\0*", b"+\0", b"\0+")  # 42, and 43 of BigTIFF, in either byte order
INTEGERS = {3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L"}  # types of TIFF 6.0, section 2
OTHER_TYPES = (1, 2, 5, 7, 10, 11, 12)
XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

Entry = tuple[int, int, int, bytes]  # tag, type, count, and the value or its place


def orientation(image: Image.Image) -> int:
    """Returns 1 to 8 (TIFF 6.0, section 8) from the Exif data of a loaded image, or else from its
    XMP data; 1 if neither has one that can be read."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return UPRIGHT  # Pillow has turned it as it was loaded
    exif = image.info.get("exif")
    found = _of_exif(exif) if isinstance(exif, bytes) else None
    if found is None and isinstance(xmp := image.info.get("xmp"), bytes):
        match = XMP.search(xmp)
        found = int(match[1]) if match else None
    return found if found in TURNS else UPRIGHT


def entries(data: bytes) -> Iterator[Entry]:
    """Yields the entries of the first directory of a TIFF file; none if there is no directory."""
    order = BYTE_ORDERS.get(data[:2])
    if order is None or data[2:4] not in VERSIONS:
        return
    if data[2] == BIG:
        at, first, count, entry = "Q", 8, "Q", "HHQ8s"
    else:
        at, first, count, entry = "L", 4, "H", "HHL4s"
    try:
        (place,) = struct.unpack_from(order + at, data, first)
        (number,) = struct.unpack_from(order + count, data, place)
        place += struct.calcsize(order + count)
        for n in range(number):
            yield struct.unpack_from(
                order + entry, data, place + n * struct.calcsize(order + entry)
            )
    except (struct.error, OverflowError):  # the data ends early
        return


def _of_exif(exif: bytes) -> int | None:
    """Returns the orientation; a number that is none, if it cannot be read; None without one."""
    prefix = EXIF_PREFIX.match(exif)
    data = exif[prefix.end() :] if prefix else exif
    for tag, kind, count, value in entries(data):
        if tag == ORIENTATION and kind in INTEGERS and count == 1:
            found: int
            (found,) = struct.unpack_from(BYTE_ORDERS[data[:2]] + INTEGERS[kind], value)
            return found
        if tag == ORIENTATION and kind in OTHER_TYPES:
            return 0
    return None
