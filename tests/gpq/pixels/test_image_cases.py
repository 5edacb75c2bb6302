"""Every kind of image file is decoded upright, in its colours and without clipping."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image

from gpq.errors import BrokenImage, UnknownFormat
from gpq.pixels import decode, formats
from gpq.pixels.decode import load
from gpq.pixels.preprocess import JPEG_SCALED, Preprocess
from harness.images import encoded
from tests.image_cases import CASES, icc_profile, png16, png_chunk, quarters, tiff, tolerance

EXPECTED = np.asarray(quarters()).astype(int)
EDGE = 3  # pixels beside an edge that lossy formats blur


def inner(pixels: np.ndarray) -> np.ndarray:
    """Removes the rows and columns around the edges between the quarters."""
    keep = [n for n in range(32) if abs(n - 15.5) > EDGE]
    return pixels[np.ix_(keep, keep)]


@pytest.fixture(autouse=True, scope="module")
def _openers() -> None:
    formats.formats()  # also lets Pillow write HEIF


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_image_shows_the_quarters(name: str) -> None:
    image = load(CASES[name]())
    assert (image.mode, image.size) == ("RGB", (32, 32))
    difference = np.abs(inner(np.asarray(image).astype(int)) - inner(EXPECTED))
    assert difference.max() <= tolerance(name)


def ramp(bits: int) -> np.ndarray:
    """Grey pixels (32,32) that rise from black to white, row by row."""
    values = np.linspace(0, 2**bits - 1, 1024).round().reshape(32, 32)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


GREYS = {
    "PNG 8-bit": (lambda: encoded(Image.fromarray(ramp(8))), ramp(8)),
    "PNG 16-bit": (lambda: encoded(Image.fromarray(ramp(16))), ramp(16) / 257),
    "PNG 16-bit and alpha": (
        lambda: png16(np.stack([ramp(16), np.full((32, 32), 65535, np.uint16)], axis=2)),
        ramp(16) / 257,
    ),
    "PNG 16-bit RGB": (lambda: png16(np.stack([ramp(16)] * 3, axis=2)), ramp(16) / 257),
    "TIFF 8-bit, white is zero": (lambda: tiff(255 - ramp(8), 0), ramp(8)),
    "TIFF 16-bit, little-endian": (lambda: tiff(ramp(16), 1, "<"), ramp(16) / 257),
    "TIFF 16-bit, big-endian": (lambda: tiff(ramp(16), 1, ">"), ramp(16) / 257),
    "TIFF 16-bit, white is zero": (lambda: tiff(65535 - ramp(16), 0), ramp(16) / 257),
    "TIFF 32-bit of 16-bit values": (lambda: tiff(ramp(16).astype(np.int32), 1), ramp(16) / 257),
    "JPEG": (lambda: encoded(Image.fromarray(ramp(8)), "JPEG", quality=100), ramp(8)),
}


@pytest.mark.parametrize("name", GREYS)
def test_greys_keep_every_shade(name: str) -> None:
    make, expected = GREYS[name]
    pixels = np.asarray(load(make())).astype(float)
    assert np.abs(pixels - expected[..., None]).max() <= (2 if name == "JPEG" else 1)
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit_is_black_and_white(format: str) -> None:
    board = (np.indices((32, 32)).sum(axis=0) // 4 % 2 * 255).astype(np.uint8)
    image = Image.fromarray(board).convert("1", dither=Image.Dither.NONE)
    assert (np.asarray(load(encoded(image, format))) == board[..., None]).all()
    fax = encoded(image, "TIFF", compression="group4")
    assert (np.asarray(load(fax)) == board[..., None]).all()


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float32])
def test_pixels_without_an_agreed_range_are_refused_by_name(dtype: type) -> None:
    pixels = np.linspace(-9, 10**6, 64).reshape(8, 8).astype(dtype)
    with pytest.raises(BrokenImage, match=r"range|the TIFF file cannot be decoded"):
        load(tiff(pixels, 1))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 30_000), (30_000, 1), (65_000, 3)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "BMP"])
def test_tiny_and_extreme_images(size: tuple[int, int], format: str) -> None:
    image = load(encoded(Image.new("RGB", size, (0, 128, 255)), format))
    assert image.size == size
    square = Preprocess(32).pixels(image).astype(int)
    assert np.abs(square - [0, 128, 255]).max() <= 4


def test_a_hundred_megapixels_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", decode.DEFAULT_MAX_PIXELS)
    image = Image.new("RGB", (10_000, 10_000), "blue")
    image.paste("red", (0, 0, 10_000, 5_000))
    for format in ("JPEG", "PNG"):
        loaded = load(encoded(image, format, quality=90, compress_level=1))
        assert loaded.size == (10_000, 10_000)
        assert np.allclose(loaded.getpixel((5000, 100)), (255, 0, 0), atol=3)
        assert np.allclose(loaded.getpixel((5000, 9900)), (0, 0, 255), atol=3)


def test_heic_without_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = CASES["HEIF"]()
    monkeypatch.setattr(formats, "formats", lambda: formats.FORMATS)
    with pytest.raises(UnknownFormat, match=r"gpq\[heic\]"):
        load(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_heic_is_broken(share: float) -> None:
    data = encoded(quarters().resize((300, 300)), "HEIF")
    with pytest.raises(BrokenImage):
        load(data[: int(len(data) * share)])


def test_a_shrunk_load_is_the_same_image_and_never_too_small() -> None:
    large = encoded(quarters().resize((1600, 1600), Image.Resampling.NEAREST), "JPEG", quality=95)
    small = load(large, shrink_to=256)
    assert 256 <= small.width < 1600
    pixels = np.asarray(small.resize((32, 32))).astype(int)
    assert np.abs(inner(pixels) - inner(EXPECTED)).max() <= 8
    assert load(encoded(quarters()), shrink_to=8).size == (32, 32)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_shrunk_image_knows_how_large_it_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # At an eighth of the size both sides are equal, so the decoded sides don't show the rotation.
    data = encoded(Image.new("RGB", (1007, 1001)), "JPEG", exif=exif)
    found = decode.decode(data, shrink_to=100)
    assert found.image.size == (126, 126)
    upright = (1001, 1007) if orientation > 4 else (1007, 1001)
    assert (found.width, found.height) == upright


def test_models_see_nearly_the_same_however_a_jpeg_is_decoded() -> None:
    grain = np.random.default_rng(0).normal(0, 10, (1500, 2000, 3))
    large = np.asarray(quarters().resize((2000, 1500), Image.Resampling.BICUBIC)) + grain
    data = encoded(Image.fromarray(large.clip(0, 255).astype(np.uint8)), "JPEG", quality=85)
    rules = Preprocess(32, jpeg=JPEG_SCALED)
    assert load(data, shrink_to=rules.shrink_to).size == (250, 188)
    seen = [rules.pixels(load(data, shrink_to=s)).astype(int) for s in (None, rules.shrink_to)]
    difference = np.abs(seen[0] - seen[1])
    assert difference.mean() < 0.5
    assert difference.max() <= 24  # at the edges of the quarters


def grey_profile() -> bytes:
    """A grey profile of gamma 1: a stored 64 is light 64/255, which is 137 in sRGB."""
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    return icc_profile((b"kTRC", curve), kind=b"mntr", space=b"GRAY", pcs=b"XYZ ")


@pytest.mark.parametrize("kind", ["L", "LA", "key", "JPEG"])
def test_a_grey_profile_holds_with_and_without_transparency(kind: str) -> None:
    grey = Image.new("L", (8, 8), 64)
    profile = {"icc_profile": grey_profile()}
    data = {
        "L": lambda: encoded(grey, **profile),
        "LA": lambda: encoded(grey.convert("LA"), **profile),
        "key": lambda: encoded(grey, transparency=3, **profile),
        "JPEG": lambda: encoded(grey, "JPEG", **profile),
    }[kind]()
    assert np.allclose(load(data).getpixel((4, 4)), 137, atol=1)


def png_with_key(bits: int, pixels: list[int], key: int) -> bytes:
    """Encodes one row of grey samples of ``bits``, of which ``key`` is transparent."""
    row = int("".join(f"{pixel:0{bits}b}" for pixel in pixels), 2)
    packed = b"\0" + row.to_bytes(len(pixels) * bits // 8, "big")
    header = struct.pack(">IIBBBBB", len(pixels), 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", key))]
    chunks += [(b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth(bits: int) -> None:
    most = 2**bits - 1
    for key in {0, 1, most // 2, most}:
        image = load(png_with_key(bits, [0, 1, most // 2, most] * 4, key))
        for x, value in enumerate([0, 1, most // 2, most]):
            shown = 255 if value == key else round(value * 255 / most)
            assert abs(image.getpixel((x, 0))[0] - shown) <= 1, (key, value)


def test_a_transparent_colour_of_16_bits() -> None:
    pixels = np.zeros((1, 2, 3), dtype=np.uint16)
    pixels[0, 1] = (257, 2 * 257, 40_000)
    plain = png16(pixels)
    place = plain.index(b"IDAT") - 4
    keyed = plain[:place] + png_chunk(b"tRNS", struct.pack(">3H", *pixels[0, 1])) + plain[place:]
    assert load(keyed).getpixel((0, 0)) == (0, 0, 0)
    assert load(keyed).getpixel((1, 0)) == (255, 255, 255)


def test_12_bits_are_scaled_as_12_bits() -> None:
    data = bytearray(tiff(np.zeros((1, 2), np.uint16), 1))
    bits = data.index(struct.pack("<HHI", 258, 3, 1)) + 8
    data[bits : bits + 2] = struct.pack("<H", 12)
    data[-4:-1] = bytes([0xFF, 0xF8, 0x00])  # 4095 and 2048
    image = load(bytes(data))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == (128, 128, 128)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_texts_of_a_png_cost_it_nothing(kind: bytes) -> None:
    plain = encoded(quarters())
    text = b"mxfile\0\0" + zlib.compress(b"a" * 20_000_000)
    for place in (33, len(plain) - 12):
        chunk = bytearray(png_chunk(kind, text))
        chunk[-1] ^= 255  # damages the checksum
        image = load(plain[:place] + bytes(chunk) + plain[place:])
        assert (np.asarray(image) == np.asarray(quarters())).all()


def test_heic_of_a_general_brand_is_heic() -> None:
    data = bytearray(CASES["HEIF"]())
    data[8:12] = b"mif1"
    assert formats.signature(bytes(data)) == "HEIF"
    assert formats.media_type(bytes(data)) == "image/heif"
    assert load(bytes(data)).size == (32, 32)


def test_what_a_gif_does_not_paint_is_white() -> None:
    frame = encoded(Image.new("RGB", (8, 8), "black"), "GIF")
    image = frame.index(b"\x2c", 13 + 3 * 2 ** ((frame[10] & 7) + 1))
    assert frame[image + 5 : image + 9] == struct.pack("<HH", 8, 8)
    data = bytearray(frame)
    data[6:10] = struct.pack("<HH", 16, 16)  # a larger screen, whose last quarter the frame paints
    data[image + 1 : image + 5] = struct.pack("<HH", 8, 8)
    shown = load(bytes(data))
    assert shown.size == (16, 16)
    assert shown.getpixel((2, 2)) == (255, 255, 255)
    assert shown.getpixel((12, 12)) == (0, 0, 0)


def test_a_fourth_byte_of_a_bmp_that_nobody_filled_is_no_alpha() -> None:
    plain = bytearray(encoded(quarters().convert("RGBA"), "BMP"))
    pixels = int.from_bytes(plain[10:14], "little")
    plain[pixels + 3 :: 4] = bytes(len(plain[pixels + 3 :: 4]))
    assert (np.asarray(load(bytes(plain))) == np.asarray(quarters())).all()


def jpeg_with(before: bytes) -> bytes:
    """Inserts bytes before the first segment of a JPEG."""
    plain = encoded(quarters(), "JPEG")
    return plain[:2] + before + plain[2:]


def png_with(before: bytes) -> bytes:
    """Inserts bytes behind the first chunk of a PNG."""
    plain = encoded(quarters())
    return plain[:33] + before + plain[33:]


@pytest.mark.parametrize(
    ("with_", "one", "most"),
    [
        (jpeg_with, b"\xff\xe1\0\x09Exif\0\0x", 64),
        (jpeg_with, b"\xff\xe9\0\x02", 9_900),
        (jpeg_with, b"\xff\xd0", 9_900),
        (jpeg_with, b"\xff", 65_536),
        (jpeg_with, b"\xff\0", 32_768),
        (png_with, png_chunk(b"prVt", b""), 9_900),
        (png_with, png_chunk(b"tEXt", b"a\0b"), 9_900),
    ],
)
def test_more_parts_than_an_image_has_are_refused(
    with_: Callable[[bytes], bytes], one: bytes, most: int
) -> None:
    assert load(with_(one * most)).size == quarters().size
    with pytest.raises(BrokenImage, match="more than"):
        load(with_(one * (most + 200)))


def test_bytes_between_the_segments_of_a_jpeg_are_bounded() -> None:
    app = b"\xff\xe9\0\x04ab"
    assert load(jpeg_with((app + b"x" * 1000) * 60)).size == quarters().size
    with pytest.raises(BrokenImage, match="between"):
        load(jpeg_with((app + b"x" * 1000) * 70))


def test_a_jpeg_without_an_end_to_its_segments_is_broken() -> None:
    for data in (b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe0\xff\xff" + b"x" * 80_000):
        with pytest.raises(BrokenImage):
            load(data)
