"""Refuses files with more parts than a real image has, before they are decoded.

Each function raises ValueError, and takes a time that is bounded or linear in the file's bytes.
"""

import re

from PIL import Image

from gpq.pixels.orientation import entries

MAX_EXIF_BYTES = 2**20  # where Pillow itself reads all of them

MAX_JPEG_SCANS = 100  # a progressive file has about ten; each costs a pass over all pixels
MAX_JPEG_SCANNED_PIXELS = 2_000_000_000  # 20 scans of an image of 100 megapixels
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# Pillow reads segments one by one before the image data, and joins all Exif segments again for
# each one that it reads.
MAX_JPEG_EXIFS, MAX_JPEG_SEGMENTS, MAX_JPEG_JUNK_BYTES = 64, 10_000, 65_536
JPEG_FORMATS = ("JPEG", "MPO")  # a JPEG with more images behind the first is an MPO to Pillow
JPEG_EXIF, SCAN, FILL, STUFFED = b"Exif\0\0", 0xDA, 0xFF, 0x00
JPEG_ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment

MAX_PNG_PIXEL_CHUNKS, MAX_PNG_OTHER_CHUNKS = 100_000, 10_000
PNG_SIGNATURE_BYTES = 8
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

MAX_TIFF_PARTS = 65_536  # strips, tiles, or numbers of another tag
TIFF_OFFSETS = (273, 324)  # of strips and tiles; TIFF 6.0, sections 8 and 15
TIFF_BYTES = (1, 2, 6, 7)  # types that Pillow does not convert one by one

# Pillow decodes runs in Python.
MAX_BMP_RUN_PIXELS, MAX_BMP_RUN_BYTES = 16_000_000, 16 * 2**20
BMP_RUNS = "bmp_rle"  # Pillow's name of the decoder


def check(name: str, data: bytes) -> None:
    """Checks a file of the format ``name``."""
    if name == "JPEG":
        _check_jpeg(data)
    elif name == "TIFF":
        _check_tiff(data)
    elif name == "AVIF":
        _check_avif(data)


def check_open(image: Image.Image, data: bytes) -> None:
    """Checks a file again when Pillow has read its header."""
    pixels = image.width * image.height
    if image.format in JPEG_FORMATS:
        scans = sum(1 for _ in JPEG_SCAN.finditer(data))
        if scans > MAX_JPEG_SCANS or scans * pixels > MAX_JPEG_SCANNED_PIXELS:
            raise ValueError(
                f"{scans} scans of {pixels:,} pixels are more than an image needs; save it as a "
                "baseline JPEG"
            )
    runs = any(tile[0] == BMP_RUNS for tile in getattr(image, "tile", []))
    if runs and (pixels > MAX_BMP_RUN_PIXELS or len(data) > MAX_BMP_RUN_BYTES):
        raise ValueError(
            f"a run-length encoded file may have {MAX_BMP_RUN_PIXELS:,} pixels and "
            f"{MAX_BMP_RUN_BYTES // 2**20} MiB; save it without compression"
        )


def without_texts(data: bytes) -> bytes:
    """Returns a PNG without its text chunks, which may be damaged or large and are not needed."""
    chunks = _png_chunks(data)
    if not any(kind in PNG_TEXTS for kind, _, _ in chunks):
        return data
    kept = [data[place:end] for kind, place, end in chunks if kind not in PNG_TEXTS]
    return data[:PNG_SIGNATURE_BYTES] + b"".join(kept)


def _check_jpeg(data: bytes) -> None:
    if data.count(JPEG_EXIF) > MAX_JPEG_EXIFS:
        raise ValueError(f"more than {MAX_JPEG_EXIFS} Exif segments")
    segments = junk = exif = place = 0
    while (marker := data.find(b"\xff", place, -3)) >= 0:
        junk += marker - place
        kind = data[marker + 1]
        if kind == SCAN:
            return
        if kind == FILL:
            junk, place = junk + 1, marker + 1
        elif kind == STUFFED:
            junk, place = junk + 2, marker + 2
        elif kind in JPEG_ALONE:
            segments, place = segments + 1, marker + 2
        else:
            length = int.from_bytes(data[marker + 2 : marker + 4], "big")
            if data.startswith(JPEG_EXIF, marker + 4):
                exif += length
            segments, place = segments + 1, marker + 2 + max(2, length)
        if segments > MAX_JPEG_SEGMENTS:
            raise ValueError(f"more than {MAX_JPEG_SEGMENTS:,} segments before the image data")
        if exif > MAX_EXIF_BYTES:
            raise ValueError(f"more than {MAX_EXIF_BYTES:,} bytes of Exif data")
        if junk > MAX_JPEG_JUNK_BYTES:
            raise ValueError(f"more than {MAX_JPEG_JUNK_BYTES:,} bytes between its segments")


def _png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Returns the kind, the beginning and the end of each chunk."""
    chunks, place, others = [], PNG_SIGNATURE_BYTES, 0
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = len(data) if kind == b"IEND" else place + 12 + length
        chunks.append((kind, place, end))
        others += kind != b"IDAT"
        if others > MAX_PNG_OTHER_CHUNKS:
            raise ValueError(f"more than {MAX_PNG_OTHER_CHUNKS:,} chunks besides those of pixels")
        if len(chunks) - others > MAX_PNG_PIXEL_CHUNKS:
            raise ValueError(f"more than {MAX_PNG_PIXEL_CHUNKS:,} chunks of pixels")
        place = end
    return chunks


def _check_tiff(data: bytes) -> None:
    for tag, kind, count, _ in entries(data):
        if not MAX_TIFF_PARTS < count <= len(data):  # Pillow skips what exceeds the file
            continue
        if tag in TIFF_OFFSETS or kind not in TIFF_BYTES:
            what = "strips or tiles" if tag in TIFF_OFFSETS else f"values of tag {tag}"
            raise ValueError(f"more than {MAX_TIFF_PARTS:,} {what}")


def _check_avif(data: bytes) -> None:
    from PIL import _avif  # some installations of Pillow lack it

    # Pillow converts the Exif data as it opens the file; its decoder tells their size before.
    exif = _avif.AvifDecoder(data, "auto", 1).get_info()[4]
    if exif is not None and len(exif) > MAX_EXIF_BYTES:
        raise ValueError(f"more than {MAX_EXIF_BYTES:,} bytes of Exif data")
