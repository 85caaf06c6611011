"""Starlette's hello, as on the first page of its documentation."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def homepage(_: Request) -> JSONResponse:
    """Say hello."""
    return JSONResponse({"hello": "world"})


app = Starlette(routes=[Route("/", homepage)])
