"""The web page at / and its files. They need no key; the page asks for one."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from service.settings import ROOT

PAGE = Path(__file__).parent.parent / "page"
EXAMPLES = ROOT / "examples"
# Only files of this service; the script fetches images and shows them as blobs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cache-Control": "no-cache",
    }
    return FileResponse(PAGE / "index.html", headers=headers)


@router.get("/page/examples")
def examples() -> list[str]:
    """Returns the paths of the bundled images below /page/examples/."""
    return sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.jpg"))


def mount(app: FastAPI) -> None:
    """Serves the files below the routes of this module; call it after they are included."""
    app.mount("/page/examples", StaticFiles(directory=EXAMPLES, check_dir=False))
    app.mount("/page", StaticFiles(directory=PAGE))
