"""Tests of the page's ways to search: filters, parts of the query, examples."""

import json
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from harness import ROOT
from harness.models import DEFAULT
from harness.server import Server

SHOES = ROOT / "examples" / "shoes" / "0002.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves a few images of each kind, with their kind and a number. No test changes them."""
    files = [path for path in sorted((ROOT / "examples").rglob("*.jpg")) if path.stem < "0012"]
    names = [f"{path.parent.name}-{path.stem}" for path in files]
    about = [{"kind": path.parent.name, "n": int(path.stem)} for path in files]
    with Server(tmp_path_factory.mktemp("search"), model=DEFAULT) as running:
        fields = {"ids": json.dumps(names), "metadata": json.dumps(about)}
        assert running.index(*(path.read_bytes() for path in files), **fields).status_code == 200
        yield running


def names(page: Page, grid: str) -> list[str]:
    return page.locator(f"#{grid} .name").all_inner_texts()


def search(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.locator("#query").set_input_files(SHOES)
    expect(page.locator("#results-note")).to_contain_text("nearest to 0002.jpg")


def choose(page: Page, text: str) -> None:
    page.get_by_label("Only those whose metadata match").fill(text)
    page.get_by_label("Only those whose metadata match").press("Enter")


def test_a_filter_limits_the_results_and_the_catalogue(page: Page, server: Server) -> None:
    search(page, server)
    choose(page, "kind = hat, n < 5")
    expect(page.locator("#results-note")).to_contain_text("5 images nearest to 0002.jpg")
    assert set(names(page, "results")) == {f"hat-000{n}" for n in range(5)}
    expect(page.locator("#catalogue li")).to_have_count(5)
    choose(page, '{"or": [{"kind": "shoes"}, {"n": 11}], "not": {"n": {"lt": 10}}}')
    expect(page.locator("#catalogue li")).to_have_count(7)
    expect(page.locator("#results li")).to_have_count(7)
    assert "shoes-0010" in names(page, "results")
    page.locator("#catalogue button").first.click()
    page.get_by_role("button", name="Search with this image").click()
    expect(page.locator("#results-note")).to_contain_text("6 images nearest to")
    choose(page, "kind is hat")
    expect(page.locator("#results-note")).to_contain_text("write brand = acme, price < 20")
    choose(page, '{"kind": {"less": 1}}')
    expect(page.locator("#results-note")).to_contain_text("filter.kind.less")
    choose(page, "kind = none")
    expect(page.locator("#catalogue-note")).to_contain_text("No image matches kind = none.")
    choose(page, "")
    expect(page.locator("#catalogue li")).to_have_count(60)


def test_a_box_on_the_query_is_searched_for(page: Page, server: Server) -> None:
    search(page, server)
    whole = page.locator("#results .score").all_inner_texts()
    frame = page.locator("#region-frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.9, steps=4)
    page.mouse.up()
    expect(page.locator("#results-note")).to_contain_text("nearest to a part of 0002.jpg")
    assert page.locator("#results .score").all_inner_texts() != whole
    assert float(page.get_by_label("left").input_value()) == pytest.approx(10, abs=1)
    assert float(page.get_by_label("width").input_value()) == pytest.approx(50, abs=2)
    expect(page.locator("#region-box")).to_be_visible()
    assert Axe().run(page).violations_count == 0
    frame.click()
    expect(page.locator("#results-note")).to_contain_text("nearest to 0002.jpg")
    assert page.locator("#results .score").all_inner_texts() == whole
    expect(page.locator("#region-box")).to_be_hidden()
    page.get_by_label("width").fill("40")
    page.get_by_label("width").press("Enter")
    expect(page.locator("#results-note")).to_contain_text("nearest to a part of 0002.jpg")


def test_a_box_on_a_hit_is_searched_for(page: Page, server: Server) -> None:
    search(page, server)
    page.locator("#results li > button").first.click()
    page.get_by_role("button", name="Search with this image").click()
    expect(page.locator("#results-note")).not_to_contain_text("0002.jpg")
    page.get_by_label("height").fill("50")
    page.get_by_label("height").press("Enter")
    expect(page.locator("#results-note")).to_contain_text("nearest to a part of ")


def test_hits_are_marked_as_examples(page: Page, server: Server) -> None:
    search(page, server)
    first, *_, last = names(page, "results")
    page.get_by_role("button", name=f"More like {first}").click()
    page.get_by_role("button", name=f"Less like {last}").click()
    expect(page.locator("#marked-note")).to_have_text("1 more like this, 1 less like this")
    expect(page.get_by_role("button", name=f"More like {first}")).to_have_attribute(
        "aria-pressed", "true"
    )
    assert Axe().run(page).violations_count == 0
    page.get_by_role("button", name="Search again by these examples").click()
    expect(page.locator("#results-note")).to_contain_text("nearest to 0002.jpg and 2 examples")
    found = names(page, "results")
    assert first not in found and last not in found
    page.get_by_role("button", name="Forget them").click()
    expect(page.locator("#marked")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 1200])
def test_the_ways_to_search_fit_the_screen(width: int, browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    search(page, server)
    page.locator("#results .mark").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
