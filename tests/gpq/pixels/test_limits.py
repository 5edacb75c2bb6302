"""Tests that no small file costs much, and that limits leave real images alone."""

import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from gpq.errors import BrokenImage
from gpq.pixels.decode import load
from gpq.pixels.orientation import orientation
from harness import hostile
from harness.images import encoded, noise

SECONDS = 2.0  # each took 4 to 20 seconds without the limits

REFUSED = {
    "BMP, RLE8": (lambda: hostile.bmp_runs(8, 60_000_000), "run-length"),
    "BMP, RLE4": (lambda: hostile.bmp_runs(4, 60_000_000), "run-length"),
    "TIFF, strips": (hostile.tiff_of_tiny_strips, "strips or tiles"),
    "TIFF, another tag": (lambda: hostile.large_exif(hostile.SHORT), "values of tag 50000"),
    "AVIF, Exif": (lambda: hostile.avif_with_exif(hostile.RATIONAL), "bytes of Exif data"),
    "JPEG, Exif": (hostile.jpeg_with_exifs, "bytes of Exif data"),
    "JPEG, scans": (hostile.jpeg_of_refinements, "scans"),
    "PNG, chunks": (lambda: hostile.png_of_empty_chunks(2 * 2**20), "chunks of pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_costly_files_are_refused_quickly(name: str) -> None:
    make, why = REFUSED[name]
    data = make()
    began = time.process_time()
    with pytest.raises(BrokenImage, match=why):
        load(data)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("make", [hostile.png_with_exif, hostile.webp_with_exif])
@pytest.mark.parametrize("kind", [hostile.SHORT, hostile.RATIONAL])
def test_large_exif_data_cost_nothing_but_are_obeyed(
    make: Callable[[int], bytes], kind: int
) -> None:
    data = make(kind)
    began = time.process_time()
    assert load(data).size == (32, 40)  # 40×32, turned by its orientation
    assert time.process_time() - began < SECONDS


def test_run_length_encoded_images_of_usual_size_are_decoded() -> None:
    assert load(hostile.bmp_runs(8, 3000, 2000)).size == (3000, 2000)


def test_a_progressive_photograph_may_have_its_scans() -> None:
    data = encoded(Image.effect_noise((3000, 3000), 50), "JPEG", progressive=True)
    assert load(data).size == (3000, 3000)


def test_a_tiff_may_have_a_strip_for_each_row() -> None:
    data = encoded(Image.new("L", (2, 10_000)), "TIFF", strip_size=1)
    assert load(data).size == (2, 10_000)


def with_exif(entries: list[tuple[int, int, int, bytes]]) -> Image.Image:
    image = noise(1)
    image.info["exif"] = b"Exif\0\0" + hostile.exif(entries)
    return image


@pytest.mark.parametrize(
    ("kind", "format"), [(3, "<H"), (4, "<I"), (6, "<b"), (8, "<h"), (9, "<i"), (13, "<I")]
)
def test_an_orientation_may_be_any_integer(kind: int, format: str) -> None:
    for value in range(1, 9):
        packed = struct.pack(format, value)
        image = with_exif([(271, 2, 4, b"abc\0"), (hostile.ORIENTATION, kind, 1, packed)])
        assert orientation(image) == value == image.getexif()[hostile.ORIENTATION]


@pytest.mark.parametrize(
    "entry", [(3, 1, b"\x09\0"), (3, 2, b"\6\0\6\0"), (2, 2, b"6\0"), (1, 1, b"\6"), (99, 1, b"\6")]
)
def test_what_is_no_orientation_leaves_the_image_as_it_is(entry: tuple[int, int, bytes]) -> None:
    assert orientation(with_exif([(hostile.ORIENTATION, *entry)])) == 1


def test_xmp_counts_where_exif_has_no_orientation() -> None:
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    image = with_exif([])
    image.info["xmp"] = xmp
    assert orientation(image) == 6
    image = with_exif([(hostile.ORIENTATION, hostile.SHORT, 1, b"\3\0")])
    image.info["xmp"] = xmp
    assert orientation(image) == 3


def test_a_directory_that_never_ends_is_read_to_the_end_of_the_data() -> None:
    image = noise(1)
    image.info["exif"] = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\0" * 100
    assert orientation(image) == 1


def test_transparency_of_a_large_image_is_that_of_a_small_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 3000, 4), dtype=np.uint8)
    whole = np.asarray(load(encoded(Image.fromarray(pixels), compress_level=1)))
    for top in (0, 1400, 2950):
        part = np.asarray(load(encoded(Image.fromarray(pixels[top : top + 50]))))
        assert np.array_equal(whole[top : top + 50], part)


def test_a_tiff_is_turned_by_its_tag_and_never_by_xmp() -> None:
    image = Image.new("RGB", (40, 20))
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    assert load(encoded(image, "TIFF", tiffinfo={274: 1, 700: xmp})).size == (40, 20)
    assert load(encoded(image, "TIFF", tiffinfo={274: 6})).size == (20, 40)
