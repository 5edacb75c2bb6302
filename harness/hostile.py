"""Makes small image files that cost much to decode.

Each function returns the bytes of one file. ``FILES`` has one of each kind, at the size that it has
in an attack.
"""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from harness.images import encoded, noise

BYTE, SHORT, LONG, RATIONAL = 1, 3, 4, 5  # types of TIFF 6.0, section 2
ORIENTATION, PRIVATE = 274, 50_000


def bmp_runs(bits: int, width: int = 100_000_000, height: int = 1) -> bytes:
    """A run-length encoded BMP with one run and an end of line for each row."""
    compression = {8: 1, 4: 2}[bits]
    palette = b"".join(bytes((n, n, n, 0)) for n in range(2**bits))
    runs = b"\x05\x11\0\0" * height + b"\0\1"
    start = 14 + 40 + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(runs), 0, 0, 2**bits, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


def exif(entries: list[tuple[int, int, int, bytes]], start: int = 8) -> bytes:
    """Returns a little-endian TIFF header and directory: (tag, type, count, data) for each entry.

    Data of more than 4 bytes lies behind the directory.
    """
    after = start + 2 + 12 * len(entries) + 4
    directory, data = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        place = struct.pack("<I", after + len(data)) if len(value) > 4 else value.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, count) + place
        data += value if len(value) > 4 else b""
    return b"II*\0" + struct.pack("<I", start) + directory + b"\0\0\0\0" + data


def large_exif(kind: int, size: int = 16 * 2**20) -> bytes:
    """Exif data with an orientation and one array of shorts or rationals."""
    unit = {SHORT: 2, RATIONAL: 8}[kind]
    array = np.full(size // 4, 0x00010001, dtype="<u4").tobytes()
    return exif(
        [(ORIENTATION, SHORT, 1, b"\6\0"), (PRIVATE, kind, size // unit, array)],
    )


def png_with_exif(kind: int, size: int = 16 * 2**20) -> bytes:
    return encoded(noise(1), "PNG", exif=large_exif(kind, size))


def webp_with_exif(kind: int, size: int = 16 * 2**20) -> bytes:
    return encoded(noise(1), "WEBP", exif=large_exif(kind, size))


def avif_with_exif(kind: int, size: int = 16 * 2**20) -> bytes:
    # Pillow would write the orientation as a property, and leave the array.
    return encoded(noise(1), "AVIF", exif=large_exif(kind, size))


def jpeg_with_exifs(segments: int = 64) -> bytes:
    """A JPEG whose Exif segments are joined to one array of rationals."""
    data = encoded(noise(1), "JPEG")
    whole = large_exif(RATIONAL, segments * 65_000)
    parts = [whole[place : place + 65_000] for place in range(0, segments * 65_000, 65_000)]
    made = [b"Exif\0\0" + part for part in parts]
    return (
        data[:2]
        + b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in made)
        + data[2:]
    )


def jpeg_of_refinements(scans: int = 99, side: int = 5_000) -> bytes:
    """A progressive grey JPEG whose last scan, a refinement, is repeated."""
    image = Image.new("L", (side, side), 100)
    data = encoded(image, "JPEG", progressive=True, quality=90)
    starts = [n for n in range(len(data) - 1) if data[n : n + 2] == b"\xff\xda"]
    last, end = starts[-1], data.rindex(b"\xff\xd9")
    between = data.rfind(b"\xff\xc4", starts[-2], last)  # its Huffman table
    scan = data[between if between > 0 else last : end]
    return data[:end] + scan * (scans - len(starts)) + data[end:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_empty_chunks(size: int = 64 * 2**20) -> bytes:
    """A PNG with IDAT chunks of no bytes before the real one."""
    data = encoded(noise(1))
    place = data.index(b"IDAT") - 4
    empty = png_chunk(b"IDAT", b"")
    return data[:place] + empty * (size // len(empty)) + data[place:]


def tiff_of_tiny_strips(size: int = 4 * 2**20) -> bytes:
    """A grey TIFF with tiles of 8×8 pixels whose offsets are bytes."""
    offsets = b"\x08" * size
    return exif(
        [
            (256, LONG, 1, struct.pack("<I", 16_384)),
            (257, LONG, 1, struct.pack("<I", 6_000)),
            (258, SHORT, 1, b"\x08\0"),
            (259, SHORT, 1, b"\1\0"),
            (262, SHORT, 1, b"\1\0"),
            (277, SHORT, 1, b"\1\0"),
            (322, SHORT, 1, b"\x08\0"),
            (323, SHORT, 1, b"\x08\0"),
            (324, BYTE, size, offsets),
        ]
    )


def transparent_png(side: int = 10_000) -> bytes:
    """A PNG of RGB and alpha; by default of 100 megapixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    pack = zlib.compressobj(9)
    row = b"\0" + b"\x10\x20\x30\x40" * side
    rows = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def black_png(side: int = 9_900) -> bytes:
    """A small PNG of one bit a pixel."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


FILES: dict[str, Callable[[], bytes]] = {
    "BMP, RLE8, 100,000,000×1": lambda: bmp_runs(8),
    "BMP, RLE4, 100,000,000×1": lambda: bmp_runs(4),
    "TIFF, 4 MiB of offsets, tiles of 8×8": tiff_of_tiny_strips,
    "PNG, 16 MiB of Exif rationals": lambda: png_with_exif(RATIONAL),
    "PNG, 16 MiB of Exif shorts": lambda: png_with_exif(SHORT),
    "WebP, 16 MiB of Exif rationals": lambda: webp_with_exif(RATIONAL),
    "AVIF, 16 MiB of Exif rationals": lambda: avif_with_exif(RATIONAL),
    "JPEG, 64 Exif segments": jpeg_with_exifs,
    "JPEG, 99 scans of 25 megapixels": jpeg_of_refinements,
    "PNG, 64 MiB of empty chunks": png_of_empty_chunks,
    "PNG, 100 megapixels with transparency": transparent_png,
}
