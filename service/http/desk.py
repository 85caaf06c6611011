"""The handlers of the desk: the page, and the files that the page loads."""

from typing import Annotated, Literal

from service import desk
from service.fields import word
from service.http.answers import Asset, Html, asset, html
from service.http.calls import Call
from service.http.edge import NothingThere

File = Annotated[str, word(Literal[*desk.FILES])]
"""The name of a file that the desk loads."""


async def show_desk(_: Call) -> Html[str]:
    """Show the registrar's desk, a page in which an office works all day."""
    return html(desk.content(desk.PAGE), desk.POLICY)


async def show_desk_file(_: Call, file: File) -> Asset[bytes]:
    """Show a file that the desk loads."""
    if file not in desk.FILES:
        raise NothingThere
    return asset(desk.content(file), desk.media_type(file))
