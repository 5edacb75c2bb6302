"""Builds the application from settings. Nothing is built at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from gpq import __version__
from service.http import handlers
from service.http.middleware.body_limit import BodyLimit, HeadAsGet
from service.http.middleware.boundary import Boundary, ResponseHeaders
from service.http.middleware.reply_limit import ReplyLimit
from service.http.middleware.request_timer import RequestTimer
from service.http.middleware.tracing import open_tracing
from service.http.replies.images import ProblemReply
from service.http.routes import (
    copies,
    fields,
    images,
    index,
    jobs,
    keys,
    models,
    page,
    search,
    system,
)
from service.http.security import allow, allow_images
from service.runtime import Runtime
from service.settings import Settings

PROBLEM = {handlers.MEDIA_TYPE: {"schema": ProblemReply.model_json_schema()}}


def create_app(settings: Settings) -> FastAPI:
    """Builds the application.

    Raises GPQError, ValueError, OSError or ArgumentError if a setting names something unusable.
    """
    tracing = open_tracing()
    runtime = Runtime(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime.start()
        yield
        # On a new thread: the others may all wait for a silent database.
        await to_thread.run_sync(runtime.stop, limiter=CapacityLimiter(1))
        if tracing is not None:
            await to_thread.run_sync(tracing.close)

    app = FastAPIOffline(
        title="GPQ image search",
        version=__version__,
        description="Stores images and finds the nearest ones: exact search over learned codes.",
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would repeat the Host header
        responses={"default": {"description": "RFC 9457 problem", "content": PROBLEM}},
    )
    app.state.runtime = runtime
    handlers.install(app)
    app.add_middleware(Boundary, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(ReplyLimit)
    app.add_middleware(RequestTimer, metrics=runtime.metrics, audit=runtime.audit, tracing=tracing)
    app.add_middleware(HeadAsGet)
    app.add_middleware(ResponseHeaders)
    if tracing is not None:
        tracing.install(app)
    for router, check in (
        (index.router, allow("index")),
        (search.router, allow("search")),
        (copies.router, allow("search")),
        (images.router, allow_images),
    ):
        app.include_router(router, tags=["images"], dependencies=[Depends(check)])
    for router in (models.router, copies.jobs, jobs.router):
        app.include_router(router, tags=["models and jobs"], dependencies=[Depends(allow("admin"))])
    app.include_router(fields.router, tags=["filters"], dependencies=[Depends(allow("admin"))])
    app.include_router(keys.router, tags=["keys"], dependencies=[Depends(allow("admin"))])
    anybody = allow("search", "index", early=True)  # metrics tell that the database is down
    app.include_router(system.router, tags=["service"], dependencies=[Depends(anybody)])
    app.include_router(system.public, tags=["service"])
    app.include_router(page.router)
    page.mount(app)
    return app
