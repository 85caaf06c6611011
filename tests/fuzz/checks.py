"""What must hold of every answer, whatever was sent: its frame is whole, and the service declares what it says."""

import json
import re
from collections.abc import Iterator, Sequence

import attrs
import h11

from fuzz.cases import Case
from fuzz.values import Asked
from service import desk
from service.http import exposition
from service.http.answers import ALWAYS, ASSET
from service.http.files import Csv, Zip
from service.http.imports import Lines
from service.http.problems import PROBLEMS

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
DEFECTS = {"internal_error", "storage_unavailable"}
"""The codes that never come: nothing is wrong with the service, or with its file."""
GOOD = {200, 201, 204, 303, 304}
BARE = {204, 303, 304}
"""The statuses of answers that have no body."""
PAGE = b"text/html; charset=utf-8"
JSON = b"application/json"
FILES = {
    *(kind.MEDIA_TYPE.encode() for kind in (Csv, Zip, Lines)),
    *(desk.media_type(file).encode() for file in desk.FILES),
    exposition.TYPE.encode(),
} - {JSON}
TYPES = {JSON, PAGE, *FILES}
BAD = {row.status for code, row in PROBLEMS.items() if code not in DEFECTS}
REFUSALS = {"bad_request", "headers_too_large", "request_timeout", "uri_too_long", "busy"}
"""The codes that may answer what is no whole request; behind one of them the connection ends."""
ANYWHERE = {"request_timeout", "uri_too_long", "busy"}
"""The codes by which HTTP itself may refuse a request that is one: it came too slowly, or is too large for now."""


class Broken(Exception):
    """Something that must hold does not: `args[0]` says what, in a sentence."""


@attrs.frozen
class Answer:
    """An answer, as a client sees it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    bodiless: bool
    """Whether it answers HEAD."""

    def values(self, name: bytes) -> list[bytes]:
        """Give the values of the header fields with this name, which is in small letters."""
        return [value for each, value in self.fields if each == name]

    @property
    def closes(self) -> bool:
        """Whether the connection ends behind it."""
        return self.values(b"connection") == [b"close"]

    @property
    def code(self) -> str:
        """The code of a problem, or else the status."""
        return str(self.status if self.status < 400 or self.bodiless else json.loads(self.body)["code"])


def judge(case: Case, came: bytes, *, whole: bool) -> list[Answer]:
    """Check all that came on the connection of a case, and give the answers; `whole` is whether nothing got lost.

    Raises Broken.
    """
    found: list[Answer] = []
    for answer in read(came, case, whole=whole):
        if found and found[-1].closes:
            raise Broken("Behind an answer that ends the connection there is more.")
        check(answer)
        found.append(answer)
    if case.asked is not None:
        _check_asked(case.asked, found, whole=whole)
    else:
        refused = bool(found) and found[-1].closes and found[-1].code in REFUSALS
        # Where a proxy sees fewer requests than the service, it gives the answer to one client to another one.
        if len(found) - refused > (count := most_requests(case.sent)):
            raise Broken(f"There are {len(found)} answers to {count} requests.")
    return found


def most_requests(sent: bytes) -> int:
    """Count the requests as h11 reads them; where it does not, nothing is a request that does not name its version."""
    parser, found = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20), 0
    parser.receive_data(sent)
    try:
        while (event := parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED, h11.ConnectionClosed()):
            found += isinstance(event, h11.Request)  # It may be answered before its body is there.
            if isinstance(event, h11.EndOfMessage):
                parser.send(h11.Response(status_code=204, headers=[]))
                parser.send(h11.EndOfMessage())
                if parser.our_state is h11.MUST_CLOSE:
                    break
                parser.start_next_cycle()
    except h11.ProtocolError:
        return len(re.findall(rb"(?:HTTP|RTSP|ICE)/1", sent))
    return found


def read(data: bytes, case: Case, *, whole: bool) -> Iterator[Answer]:
    """Read the answers with h11, a parser that has nothing in common with the service's. Raises Broken."""
    while data:
        if data.startswith(INTERIM):
            data = data.removeprefix(INTERIM)
            continue
        _, _, rest = data.partition(b"\r\n\r\n")
        # Only a client knows which answer is to HEAD. Where the bytes may be anything, the answer itself has to tell: a
        # body of the service never looks like the next answer.
        bodiless = b"HEAD" in case.sent and (not rest or rest.startswith(b"HTTP/1.1 "))
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="HEAD" if bodiless else "GET", target="/", headers=[("Host", "school")]))
        parser.send(h11.EndOfMessage())
        try:
            parser.receive_data(data)
            head = parser.next_event()
            body = b""
            while isinstance(event := parser.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError as error:
            raise Broken(f"An answer is not HTTP/1.1: {error}.") from error
        if not isinstance(head, h11.Response) or not isinstance(event, h11.EndOfMessage):
            if whole:
                raise Broken("An answer is cut off.")
            return
        if head.http_version != b"1.1":
            raise Broken("An answer is in another version than HTTP/1.1.")
        yield Answer(head.status_code, list(head.headers), body, bodiless)
        data, _ = parser.trailing_data


def check(answer: Answer) -> None:
    """Check what must hold of each answer by itself. Raises Broken."""
    is_asset = answer.values(b"etag") and answer.values(b"cache-control") == [b"no-cache"]
    for name, value in ASSET if is_asset else ALWAYS:
        if answer.values(name) != [value]:
            raise Broken(f"An answer has not the header {name.decode()} that every answer has.")
    if len(answer.values(b"date")) != 1:
        raise Broken("An answer has not one date.")
    if answer.status not in (GOOD if answer.status < 400 else BAD):
        raise Broken(f"An answer has the status {answer.status}.")
    kinds = TYPES if answer.status < 400 else {b"application/problem+json"}
    if {*answer.values(b"content-type")} - kinds or bool(answer.values(b"content-type")) == (answer.status in BARE):
        raise Broken("An answer has the wrong content type.")
    if (answer.status == 503) != bool(answer.values(b"retry-after")):
        raise Broken("Of all answers those with 503 have Retry-After.")
    if not answer.bodiless and answer.status not in BARE and not {*answer.values(b"content-type")} & {PAGE, *FILES}:
        _check_body(answer)


def _check_body(answer: Answer) -> None:
    try:
        told = json.loads(answer.body)
    except ValueError as error:
        raise Broken("The body of an answer is not JSON.") from error
    if answer.status >= 400:
        row = PROBLEMS.get(told.get("code"))
        if row is None or told["code"] in DEFECTS or not row.status == told["status"] == answer.status:
            raise Broken("A refusal has a code that its status does not have.")


def _check_asked(asked: Sequence[Asked], found: Sequence[Answer], *, whole: bool) -> None:
    """Check that each request has one answer, as long as the connection goes on, and one that is declared."""
    if len(found) > len(asked) or (whole and len(found) < len(asked) and not (found and found[-1].closes)):
        raise Broken(f"{len(asked)} requests got {len(found)} answers.")
    for request, answer in zip(asked, found, strict=False):
        allowed = declared(request)
        if answer.bodiless:
            allowed = {str(PROBLEMS[code].status) if code in PROBLEMS else code for code in allowed}
        if answer.code not in allowed:
            raise Broken(f"The operation does not declare {answer.code}.")


def declared(asked: Asked) -> set[str]:
    """Give the statuses and codes that may answer a request."""
    if asked.method == "OPTIONS":
        return ANYWHERE | {"204", "invalid_query"}
    if asked.operation is None:
        return ANYWHERE | {"method_not_allowed"}
    return ANYWHERE | {*map(str, asked.operation.gives)} | {each.code for each in asked.operation.refuses}
