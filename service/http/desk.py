"""The handlers of the desk: the page, and the files that the page loads."""

from typing import Annotated, Literal

from service import desk
from service.fields import word
from service.http.answers import Asset, Html, SameAsset, asset, html, same_asset
from service.http.calls import Call
from service.http.conditional import tag_of
from service.http.edge import NothingThere

File = Annotated[str, word(Literal[*desk.FILES])]
"""The name of a file that the desk loads."""


async def show_desk(_: Call) -> Html[str]:
    """Show the registrar's desk, a page in which an office works all day."""
    return html(desk.content(desk.PAGE), desk.POLICY)


async def show_desk_file(call: Call, file: File) -> Asset[bytes] | SameAsset:
    """Show a file that the desk loads, unless the browser has it as it is."""
    if file not in desk.FILES:
        raise NothingThere
    content = (file == desk.WORDS and call.app.state.desk_words) or desk.content(file)
    if (tag := tag_of(content)) in call.header(b"if-none-match"):
        return same_asset(tag)
    return asset(content, desk.media_type(file), tag)
