"""Tests of the web page at /, one user task per test."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from harness import ROOT
from harness.images import png
from harness.models import DEFAULT
from harness.server import Server

SHOES = ROOT / "examples" / "shoes" / "0002.jpg"


@pytest.fixture
def empty(random_model: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, model=random_model) as server:
        yield server


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the example images; tests must not change them."""
    folder = tmp_path_factory.mktemp("page")
    files = sorted((ROOT / "examples").rglob("*.jpg"))
    names = [f"{path.parent.name}-{path.stem}" for path in files]
    with Server(folder, model=DEFAULT) as server:
        reply = server.index(*(path.read_bytes() for path in files), ids=json.dumps(names))
        assert reply.json()["errors"] is False
        yield server


def names(page: Page, grid: str) -> list[str]:
    return page.locator(f"#{grid} .name").all_inner_texts()


def assert_accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_an_empty_database_takes_the_examples_with_one_click(page: Page, empty: Server) -> None:
    page.goto(empty.url)
    expect(page.locator("#catalogue-note")).to_contain_text("No images are stored yet")
    assert_accessible(page)
    page.get_by_role("button", name="Load the 300 example images").click()
    expect(page.locator("#state")).to_contain_text("300 images", timeout=60_000)
    expect(page.get_by_role("button", name="Load the 300")).to_be_hidden()
    expect(page.locator("#failures")).to_be_hidden()
    assert names(page, "catalogue")[:2] == ["hat-0000", "hat-0001"]
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#catalogue li")).to_have_count(120)


def test_a_chosen_image_finds_the_nearest_but_not_itself(page: Page, examples: Server) -> None:
    page.goto(examples.url)
    page.locator("#query").set_input_files(SHOES)
    expect(page.locator("#results-note")).to_contain_text("24 images nearest to 0002.jpg, found in")
    found = names(page, "results")
    assert len(found) == 24
    assert "shoes-0002" not in found
    assert sum(name.startswith("shoes") for name in found[:10]) >= 8
    scores = [float(text.split()[1]) for text in page.locator(".score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    image = page.locator("#results img").first
    expect(image).to_have_js_property("naturalWidth", 160)
    assert_accessible(page)
    page.get_by_label("Show at most").select_option("12")
    page.locator("#query").set_input_files(SHOES)
    expect(page.locator("#results li")).to_have_count(12)


def test_a_dropped_and_a_pasted_image_are_searched(page: Page, examples: Server) -> None:
    page.goto(examples.url)
    give = """([bytes, kind]) => {
      const file = new File([new Uint8Array(bytes)], `${kind}.jpg`, { type: "image/jpeg" });
      const data = new DataTransfer();
      data.items.add(file);
      const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
      document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [list(SHOES.read_bytes()), kind])
        expect(page.locator("#results-note")).to_contain_text(f"nearest to {kind}.jpg")


def test_a_hit_is_shown_large_and_searched_by(page: Page, examples: Server) -> None:
    page.goto(examples.url)
    page.locator("#query").set_input_files(SHOES)
    first = page.locator("#results button").first
    name = first.locator(".name").inner_text()
    first.press("Enter")
    viewer = page.get_by_role("dialog", name=name)
    expect(viewer).to_be_visible()
    expect(viewer.get_by_role("img")).to_have_js_property("naturalWidth", 160)
    expect(viewer).to_contain_text("160 × 213 pixels")
    assert_accessible(page)
    viewer.get_by_role("button", name="Search with this image").click()
    expect(page.locator("#results-note")).to_contain_text(f"nearest to {name}")
    assert name not in names(page, "results")
    page.locator("#results button").first.click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_folder_is_added_and_what_fails_is_named(
    page: Page, empty: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "holiday"
    (folder / "sub").mkdir(parents=True)
    for n in range(45):
        (folder / f"p{n:02}.png").write_bytes(png(n))
    (folder / "sub" / "notes.txt").write_text("not an image")
    page.goto(empty.url)
    page.locator("#folder").set_input_files(folder)
    expect(page.locator("#state")).to_contain_text("45 images", timeout=20_000)
    failures = page.locator("#failures")
    expect(failures.locator("summary")).to_have_text("1 of 46 files could not be added")
    failures.locator("summary").click()
    expect(failures.get_by_role("listitem")).to_contain_text("holiday/sub/notes.txt: not an image")
    assert "holiday-p00.png" in names(page, "catalogue")


def test_an_image_is_deleted(page: Page, empty: Server) -> None:
    empty.index(png(1), png(2), ids='["stays","goes"]')
    page.goto(empty.url)
    page.get_by_role("button", name="goes").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#state")).to_contain_text("1 image")
    assert names(page, "catalogue") == ["stays"]
    assert empty.http.get("/images/goes").status_code == 404


def test_a_bad_query_shows_what_is_wrong(page: Page, empty: Server, tmp_path: Path) -> None:
    page.goto(empty.url)
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"not an image")
    page.locator("#query").set_input_files(wrong)
    note = page.locator("#results-note")
    expect(note).to_contain_text("The search failed: not an image of a supported format")
    wrong.write_bytes(png(1))
    page.locator("#query").set_input_files(wrong)
    expect(note).to_have_text("No other image is stored.")


def test_a_service_that_goes_away_is_shown(page: Page, empty: Server) -> None:
    page.goto(empty.url)
    expect(page.locator("#state")).to_contain_text("0 images")
    page.context.set_offline(True)
    expect(page.locator("#state")).to_have_text(
        "Not ready: the service cannot be reached", timeout=15_000
    )
    page.context.set_offline(False)
    expect(page.locator("#state")).to_contain_text("0 images", timeout=15_000)


def test_a_key_is_asked_for_once_and_kept_in_memory_only(
    page: Page, random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, api_keys="open-sesame") as server:
        server.http.headers["authorization"] = "Bearer open-sesame"
        server.index(png(1), ids='["secret"]')
        page.goto(server.url)
        asking = page.get_by_role("dialog", name="This service requires a key")
        for key in ("wrong", "open-sesame"):
            expect(asking).to_be_visible()
            asking.get_by_label("Key").fill(key)
            asking.get_by_role("button", name="Use this key").click()
        expect(page.locator("#state")).to_contain_text("1 image")
        expect(asking).to_be_hidden()
        expect(page.locator("#catalogue img")).to_have_js_property("naturalWidth", 40)
        kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        assert "sesame" not in kept
        page.reload()
        expect(asking).to_be_visible()


def test_ids_and_metadata_are_shown_as_text_not_markup(page: Page, empty: Server) -> None:
    metadata = json.dumps([{"note": "<img src=x onerror=alert(1)>"}])
    empty.index(png(1), ids='["named"]', metadata=metadata)
    page.goto(empty.url)
    page.get_by_role("button", name="named").click()
    expect(page.get_by_role("dialog")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#viewer-facts img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_every_screen_is_accessible(
    width: int, scheme: str, browser: Browser, examples: Server
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(examples.url)
    page.locator("#query").set_input_files(SHOES)
    expect(page.locator("#results-note")).to_contain_text("nearest")
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_the_page_runs_only_its_own_scripts(empty: Server) -> None:
    reply = empty.http.get("/")
    policy = reply.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", reply.text)
    assert empty.http.get("/page/..%2f..%2fstore.py").status_code == 404
