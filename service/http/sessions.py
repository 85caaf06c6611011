"""The handlers of sessions, by which the browser of whoever has a token may use the API."""

from service import sessions
from service.http.answers import NoContent, Ok, no_content, ok
from service.http.calls import Call
from service.http.edge import InvalidToken
from service.http.payloads import NewSession
from service.sessions import SessionRecord
from service.tokens import Unusable, find_token


async def open_session(call: Call, payload: NewSession) -> Ok[SessionRecord]:
    """Begin a session of a browser with a token; the cookie is in the header Set-Cookie."""
    cookies = call.own_cookies()
    try:
        await call.store.read(find_token, payload.token)  # A token that does not count costs no write.
        cookie, session = await call.store.write(sessions.open_session, payload.token)
    except Unusable as error:
        raise InvalidToken(str(error)) from None
    return ok(session, (cookies.give(cookie),))


async def show_session(call: Call) -> Ok[SessionRecord]:
    """Tell who makes the request, and what that one may do."""
    return ok(await call.store.read(sessions.show_session, call.granted))


async def close_session(call: Call) -> NoContent:
    """End the session of a browser; nothing is left to do where there is none."""
    cookies = call.own_cookies()
    if cookie := call.cookie():
        await call.store.write(sessions.close_session, cookie)
        cookies.forget()
    return no_content((cookies.take(),))
