"""Tests of the page's parts that need copies or filter fields."""

import json
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from harness import ROOT
from harness.images import encoded, png
from harness.models import SHIPPED
from harness.server import Server
from tests.waiting import until

HATS = sorted((ROOT / "examples" / "hat").glob("*.jpg"))[:6]
WIDE, NARROW = 1200, 320


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves six hats, copies of three of them, and the field brand."""
    with Server(tmp_path_factory.mktemp("copies"), model=SHIPPED, copies=True) as running:
        assert running.http.put("/fields/brand").status_code == 200
        images, ids, about = [], [], []
        for n, path in enumerate(HATS):
            image = Image.open(path).convert("RGB")
            small = image.resize((image.width // 2, image.height // 2))
            mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for name, copy in (("", image), ("-small", small), ("-mirrored", mirrored)):
                if name == "" or n < 2 or (n == 2 and name == "-small"):
                    images.append(encoded(copy, "JPEG", quality=90))
                    ids.append(f"hat-{n}{name}")
                    about.append({"product": n, "brand": "acme" if n % 2 else "bird & son, 7"})
        running.index(*images, ids=json.dumps(ids), metadata=json.dumps(about))
        until(lambda: running.http.get("/fields").json()["fields"][0]["complete"])
        yield running


def names(page: Page, grid: str) -> list[str]:
    return page.locator(f"#{grid} .name").all_inner_texts()


def test_one_image_of_each_product_is_shown(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_label("One image of each").fill("product")
    page.locator("#query").set_input_files(HATS[0])
    expect(page.locator("#results-note")).to_contain_text("6 images nearest to")
    assert len({name[:5] for name in names(page, "results")}) == 6
    expect(page.locator("#results")).to_contain_text("product: 3")
    page.get_by_label("One image of each").fill("")
    page.get_by_label("One image of each").press("Enter")
    expect(page.locator("#results-note")).to_contain_text("11 images nearest to")


def test_values_of_filter_fields_limit_the_search(page: Page, server: Server) -> None:
    page.goto(server.url)
    expect(page.locator("#state")).to_contain_text("11 images")
    page.locator("#query").set_input_files(HATS[0])
    expect(page.locator("#facets")).to_contain_text("acme (5)")
    page.get_by_role("button", name="bird & son, 7 (6)").click()
    expect(page.locator("#results-note")).to_contain_text("6 images nearest to")
    assert page.locator("#filter").input_value() == '{"brand":"bird & son, 7"}'
    expect(page.locator("#catalogue li")).to_have_count(6)
    expect(page.locator("#facets")).to_be_hidden()
    page.locator("#filter").fill("product < 4")
    page.locator("#filter").press("Enter")
    page.get_by_role("button", name="acme (4)").click()
    assert page.locator("#filter").input_value() == "product < 4, brand = acme"
    expect(page.locator("#results-note")).to_contain_text("4 images nearest to")


def test_a_field_with_too_many_values_does_not_keep_people_from_searching(
    page: Page, server: Server
) -> None:
    assert server.http.put("/fields/many").status_code == 200
    for first in range(0, 101, 50):
        rows = [{"many": [*range(100 * n, 100 * n + 100)]} for n in range(first, first + 50)]
        images = [png(n) for n in range(first, first + 50)]
        assert server.index(*images, metadata=json.dumps(rows)).status_code == 200
    until(lambda: all(each["complete"] for each in server.http.get("/fields").json()["fields"]))
    page.goto(server.url)
    expect(page.locator("#state")).to_contain_text("161 images")
    page.locator("#query").set_input_files(HATS[0])
    expect(page.locator("#results-note")).to_contain_text("24 images nearest to")
    expect(page.locator("#facets")).to_contain_text("acme (5)")


def test_the_copies_of_an_image_are_found(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="hat-0", exact=True).click()
    page.get_by_role("button", name="Find copies").click()
    expect(page.locator("#results-note")).to_contain_text("2 images that may be copies of hat-0")
    assert set(names(page, "results")) == {"hat-0-small", "hat-0-mirrored"}
    expect(page.locator("#results")).to_contain_text("bits differ, mirrored")


def test_all_copies_are_shown_side_by_side_and_deleted(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Find all copies").click()
    expect(page.locator("#duplicates > li")).to_have_count(3)
    assert names(page, "duplicates")[:3] == ["hat-0", "hat-0-small", "hat-0-mirrored"]
    expect(page.locator("#duplicates > li").first).to_contain_text("the first that was stored")
    assert Axe().run(page).violations_count == 0
    page.get_by_role("button", name="Delete hat-0-small").click()
    expect(page.locator("#duplicates > li").first.locator("li")).to_have_count(2)
    page.get_by_role("button", name="Delete hat-2-small").click()
    expect(page.locator("#duplicates > li")).to_have_count(2)
    stored = {image["id"] for image in server.http.get("/images").json()["images"]}
    assert stored.isdisjoint({"hat-0-small", "hat-2-small"})
    assert len(stored) == 9


def test_a_service_without_copies_does_not_offer_them(page: Page, empty: Server) -> None:
    page.goto(empty.url)
    expect(page.locator("#state")).to_contain_text("0 images")
    expect(page.locator("#duplicates-section")).to_be_hidden()
    empty.index(png(3), ids='["noise"]')
    page.reload()
    page.get_by_role("button", name="noise").click()
    expect(page.locator("#viewer-facts")).to_contain_text("looks like")
    expect(page.get_by_role("button", name="Find copies")).to_be_hidden()


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("empty"), model=SHIPPED) as running:
        yield running


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_groups_fit_the_screen(width: int, browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(server.url)
    page.locator("#query").set_input_files(HATS[0])
    page.get_by_role("button", name="Find all copies").click()
    expect(page.locator("#duplicates > li")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
