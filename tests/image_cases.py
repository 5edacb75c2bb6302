"""Image files of every kind that users may have.

Each case is a file that shows the ``quarters`` image, however it is encoded: red and lime above,
blue and white below.
"""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

from harness.images import encoded, noise, quarters

TURNED = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def turned(orientation: int, format: str) -> bytes:
    """Encodes the image as a camera held at another angle stores it (TIFF/EXIF tag 274)."""
    how = TURNED[orientation]
    image = quarters() if how is None else quarters().transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    options = lossless.get(format, {"quality": 95} if format in ("AVIF", "HEIF") else {})
    return encoded(image, format, exif=exif.tobytes(), **options)


def cmyk(image: Image.Image) -> Image.Image:
    """Converts RGB to CMYK without black: ink is 255 minus light."""
    white = Image.new("RGB", image.size, "white")
    return Image.merge(
        "CMYK", [*ImageChops.subtract(white, image).split(), Image.new("L", image.size, 0)]
    )


def jpeg_cmyk() -> bytes:
    """A CMYK file as Photoshop writes it: inverted values, and an Adobe marker that says so."""
    return encoded(cmyk(quarters()), "JPEG", quality=100, subsampling=0)


def jpeg_cmyk_without_marker() -> bytes:
    """A CMYK file with inverted values but without marker, which browsers show correctly."""
    data = jpeg_cmyk()
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    assert data[start + 4 : start + 9] == b"Adobe"
    return data[:start] + data[start + 2 + length :]


def jpeg_ycck() -> bytes:
    """Adobe's YCCK: inverted values whose CMY is turned into YCbCr; the marker has transform 2."""
    *inks, black = cmyk(quarters()).split()
    ycc = Image.merge("RGB", inks).convert("YCbCr")
    # Pillow inverts the values that it stores, but YCbCr must be stored unchanged.
    stored = Image.merge("CMYK", [*map(ImageChops.invert, ycc.split()), black])
    data = bytearray(encoded(stored, "JPEG", quality=100, subsampling=0))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    return bytes(data)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(pixels: NDArray[np.uint16]) -> bytes:
    """Encodes a PNG of 16 bits a channel: (H,W,3) RGB, (H,W,4) RGBA, (H,W,2) grey and alpha."""
    height, width, channels = pixels.shape
    colour = {2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def tiff(pixels: NDArray[np.generic], photometric: int, order: str = "<") -> bytes:
    """Encodes an uncompressed TIFF of (H,W) or (H,W,C) pixels of any bit depth (TIFF 6.0)."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = {
        256: [width], 257: [height], 258: [pixels.dtype.itemsize * 8] * channels, 259: [1],
        262: [photometric], 273: [0], 277: [channels], 278: [height], 279: [len(data)],
    }  # fmt: skip
    beside = 8 + 2 + 12 * len(tags) + 4
    bits = struct.pack(f"{order}{channels}H", *tags[258])
    entries = b""
    for tag, values in tags.items():
        if tag == 273:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, beside + len(bits))
        elif len(values) > 2:
            entries += struct.pack(f"{order}HHII", tag, 3, len(values), beside)
        elif tag == 279:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, values[0])
        else:
            entries += struct.pack(f"{order}HHI", tag, 3, len(values))
            entries += struct.pack(f"{order}{len(values)}H", *values).ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + bits + data


def rgb16() -> NDArray[np.uint16]:
    return np.asarray(quarters()).astype(np.uint16) * 257


def rgba16() -> NDArray[np.uint16]:
    """The image with 16 bits a channel; its white quarter is black and transparent."""
    pixels = np.concatenate([rgb16(), np.full((32, 32, 1), 65535, np.uint16)], axis=2)
    pixels[16:, 16:] = 0
    return pixels


def transparent() -> Image.Image:
    """The image in RGBA; its white quarter is black and transparent."""
    image = quarters().convert("RGBA")
    image.paste((0, 0, 0, 0), (16, 16, 32, 32))
    return image


def palette(transparency: bool) -> Image.Image:
    """The image in P; with transparency, its white quarter is black and transparent."""
    image = quarters().quantize(4)
    if transparency:
        white = image.getpixel((28, 28))
        colours = image.getpalette()
        colours[3 * white : 3 * white + 3] = [0, 0, 0]
        image.putpalette(colours)
        image.info["transparency"] = white
    return image


def icc_profile(*tags: tuple[bytes, bytes], kind: bytes, space: bytes, pcs: bytes) -> bytes:
    """Builds an ICC profile of version 2 with these tags (ICC.1:2001-04)."""
    text = b"text\0\0\0\0made for a test\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    name = b"made for a test\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(4 + 4 + 2 + 1 + 67)
    entries = [(b"desc", described), (b"cprt", text), (b"wtpt", white), *tags]
    table, body = struct.pack(">I", len(entries)), b""
    start = 128 + 4 + 12 * len(entries)
    for tag, data in entries:
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = bytearray(128)
    header[0:4] = struct.pack(">I", start + len(body))
    header[8:12] = b"\x02\x20\0\0"
    header[12:24] = kind + space + pcs
    header[36:40] = b"acsp"
    header[68:80] = white[8:]
    return bytes(header) + table + body


def swapped_profile() -> bytes:
    """An RGB profile whose first channel is the blue of sRGB and whose third channel is its red."""
    red, green, blue = (
        (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141),
    )  # fmt: skip

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = [round(65535 * (v / 255) ** 2.2) for v in range(256)]
    curves = b"curv\0\0\0\0" + struct.pack(">I256H", 256, *curve)
    tags = [(b"rXYZ", xyz(blue)), (b"gXYZ", xyz(green)), (b"bXYZ", xyz(red))]
    tags += [(name, curves) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return icc_profile(*tags, kind=b"mntr", space=b"RGB ", pcs=b"XYZ ")


def ink_profile() -> bytes:
    """A CMYK profile whose cyan ink is red, magenta is lime, yellow is blue; paper is white."""
    lab = {
        (0, 0, 0): (255, 128, 128), (1, 0, 0): (138, 209, 198), (0, 1, 0): (224, 49, 209),
        (0, 0, 1): (75, 196, 16),
    }  # fmt: skip
    corners = [(c, m, y) for c in (0, 1) for m in (0, 1) for y in (0, 1)]
    grid = b"".join(bytes(lab.get(corner, (0, 128, 128))) * 2 for corner in corners)
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(round(65536 * (n % 4 == 0)) for n in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3
    return icc_profile((b"A2B0", table), kind=b"prtr", space=b"CMYK", pcs=b"Lab ")


def with_ink_profile() -> bytes:
    inks = Image.new("CMYK", (32, 32))
    inks.paste((255, 0, 0, 0), (0, 0, 16, 16))
    inks.paste((0, 255, 0, 0), (16, 0, 32, 16))
    inks.paste((0, 0, 255, 0), (0, 16, 16, 32))
    return encoded(inks, "JPEG", quality=100, subsampling=0, icc_profile=ink_profile())


def with_swapped_profile(format: str, mode: str = "RGB") -> bytes:
    red, green, blue = quarters().split()
    image = Image.merge("RGB", (blue, green, red))
    if mode == "P":
        image = image.quantize(4)
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    profile = swapped_profile()
    return encoded(image, format, icc_profile=profile, **lossless.get(format, {}))


def lab() -> bytes:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    return encoded(ImageCms.applyTransform(quarters(), transform), "TIFF")


def animated(format: str, **options: object) -> bytes:
    others = [noise(seed, (32, 32)) for seed in range(3)]
    return encoded(quarters(), format, save_all=True, append_images=others, **options)


def apng_with_a_cover() -> bytes:
    """The default image is not a frame of the animation; other programs show it."""
    frames = [noise(seed, (32, 32)) for seed in range(3)]
    return encoded(quarters(), "PNG", save_all=True, default_image=True, append_images=frames)


def tiff_compressed(compression: str) -> bytes:
    return encoded(quarters(), "TIFF", compression=compression)


CASES: dict[str, Callable[[], bytes]] = {
    **{
        f"{format} orientation {n}": lambda n=n, format=format: turned(n, format)
        for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
        for n in range(1, 9)
    },
    "JPEG progressive": lambda: encoded(quarters(), "JPEG", quality=100, progressive=True),
    "JPEG CMYK with Adobe marker": jpeg_cmyk,
    "JPEG CMYK without Adobe marker": jpeg_cmyk_without_marker,
    "JPEG YCCK": jpeg_ycck,
    "JPEG of two images": lambda: animated("MPO", quality=100, subsampling=0),
    "JPEG and more after its end": lambda: encoded(quarters(), "JPEG", quality=100) + b"x" * 999,
    "JPEG ICC": lambda: with_swapped_profile("JPEG"),
    "JPEG CMYK ICC": with_ink_profile,
    "PNG ICC": lambda: with_swapped_profile("PNG"),
    "PNG palette ICC": lambda: with_swapped_profile("PNG", "P"),
    "WEBP ICC": lambda: with_swapped_profile("WEBP"),
    "TIFF ICC": lambda: with_swapped_profile("TIFF"),
    "PNG RGBA": lambda: encoded(transparent()),
    "PNG palette": lambda: encoded(palette(False)),
    "PNG palette transparent": lambda: encoded(palette(True)),
    "PNG 16-bit RGB": lambda: png16(rgb16()),
    "PNG 16-bit RGBA": lambda: png16(rgba16()),
    "APNG": lambda: animated("PNG"),
    "APNG with a cover": apng_with_a_cover,
    "WEBP RGBA": lambda: encoded(transparent(), "WEBP", lossless=True),
    "WEBP animated": lambda: animated("WEBP", lossless=True),
    "WEBP lossy": lambda: encoded(quarters(), "WEBP", quality=100),
    "GIF": lambda: encoded(quarters(), "GIF"),
    "GIF transparent": lambda: encoded(palette(True), "GIF"),
    "GIF animated": lambda: animated("GIF"),
    "AVIF": lambda: encoded(quarters(), "AVIF", quality=95),
    "AVIF RGBA": lambda: encoded(transparent(), "AVIF", quality=95),
    "AVIF animated": lambda: animated("AVIF", quality=95),
    "HEIF": lambda: encoded(quarters(), "HEIF", quality=95),
    "HEIF RGBA": lambda: encoded(transparent(), "HEIF", quality=95),
    "BMP": lambda: encoded(quarters(), "BMP"),
    "BMP palette": lambda: encoded(palette(False), "BMP"),
    "TIFF RGBA": lambda: encoded(transparent(), "TIFF"),
    "TIFF CMYK": lambda: encoded(cmyk(quarters()), "TIFF"),
    "TIFF LAB": lab,
    "TIFF LZW": lambda: tiff_compressed("tiff_lzw"),
    "TIFF deflate": lambda: tiff_compressed("tiff_adobe_deflate"),
    "TIFF JPEG": lambda: tiff_compressed("jpeg"),
    "TIFF of many pages": lambda: animated("TIFF"),
    "TIFF 16-bit RGB, little-endian": lambda: tiff(rgb16(), 2, "<"),
    "TIFF 16-bit RGB, big-endian": lambda: tiff(rgb16(), 2, ">"),
    "TIFF 16-bit CMYK": lambda: tiff(np.asarray(cmyk(quarters())).astype(np.uint16) * 257, 5),
}

# JPEG, AVIF and HEIF are lossy, and profiles convert through other colour spaces.
TOLERANCE = {"JPEG": 6, "AVIF": 14, "HEIF": 14, "WEBP lossy": 14, "TIFF JPEG": 14, "TIFF LAB": 24}


def tolerance(name: str) -> int:
    """Returns the largest allowed difference of a pixel in a case."""
    if "ICC" in name:
        return 20
    return TOLERANCE.get(name, TOLERANCE.get(name.split()[0], 0))
