"""Takes the screenshot docs/page.jpg of the page at / after a search among the example images.

python -m bench.page
"""

import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness import ROOT
from harness.images import EXAMPLES
from harness.models import DEFAULT
from harness.server import Server

QUERY = EXAMPLES / "shoes" / "0002.jpg"
SCREENSHOT = ROOT / "docs" / "page.jpg"


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder), model=DEFAULT) as server,
        sync_playwright() as playwright,
    ):
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        page = browser.new_page(viewport={"width": 1100, "height": 860})
        page.goto(server.url)
        page.locator("#examples").click()
        page.locator("#state", has_text=re.compile("^300 ")).wait_for(timeout=60_000)
        page.locator("#query").set_input_files(QUERY)
        page.get_by_text("nearest to").wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=SCREENSHOT, type="jpeg", quality=85)
        browser.close()


if __name__ == "__main__":
    main()
