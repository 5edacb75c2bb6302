"""Tests of the interactive API documentation in Chromium."""

from pathlib import Path

from playwright.sync_api import Page, expect

from harness.images import png
from harness.server import Server


def test_the_documentation_shows_without_the_internet(
    page: Page, random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model) as server:
        page.goto(f"{server.url}/docs")
        expect(page.get_by_role("heading", name="GPQ image search")).to_be_visible()


def test_an_image_is_stored_and_found_from_the_documentation(
    page: Page, random_model: Path, tmp_path: Path
) -> None:
    """Uses only the forms of the page: chooses a file, executes, and reads the reply."""
    image = tmp_path / "cat.png"
    image.write_bytes(png(1))
    with Server(tmp_path, model=random_model) as server:
        page.goto(f"{server.url}/docs")
        for operation in ("index_index", "search_search"):
            section = page.locator(f"#operations-images-{operation}_post")
            section.locator(".opblock-summary-control").click()
            section.get_by_role("button", name="Try it out").click()
            section.locator("input[type=file]").first.set_input_files(image)
            section.get_by_role("button", name="Execute").click()
            reply = section.locator(".live-responses-table .response-col_status").last
            expect(reply).to_contain_text("200", timeout=20_000)
        assert server.http.get("/stats").json()["images"] == 1
