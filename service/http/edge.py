"""The refusals of HTTP itself: the branch `Edge` of the tree of refusals, which `service/errors.py` draws whole."""

import attrs

from service.errors import ServiceError, with_data

Headers = tuple[tuple[bytes, bytes], ...]  # As ASGI has them: names in small letters.


class Edge(ServiceError):
    """A request that HTTP itself refuses, before any rule is run; `headers` are those that the status calls for."""

    headers: Headers = ()


@with_data
class MisdirectedRequest(Edge):
    """The request is for a host of another name; `host` is what its header Host says."""

    code = "misdirected_request"
    sentence = "The service does not answer to the host {host!r}. Whoever runs the service can add it to ALLOWED_HOSTS."
    host: str


@with_data
class ForeignOrigin(Edge):
    """A page of another site sent the request through a browser; `origin` is what the browser says of that page."""

    code = "foreign_origin"
    sentence = "A page of another site ({origin}) may change nothing here."
    origin: str


REALM = 'Bearer realm="enrollment"'
"""How a request is to say who makes it (RFC 6750, section 3)."""


def _challenge(**members: str) -> Headers:
    said = "".join(f', {name}="{value}"' for name, value in members.items())
    return ((b"www-authenticate", f"{REALM}{said}".encode()),)


@with_data
class Unauthorized(Edge):
    """The operation is not open to everyone, and the request brings neither a token nor a session."""

    code = "unauthorized"
    sentence = "This needs a token, in the header Authorization: Bearer TOKEN."
    headers: Headers = _challenge()


@with_data
class InvalidToken(Edge):
    """The request brings a token that does not count; `reason` says why, in words that its holder may know."""

    code, sentence = "invalid_token", "{reason}"
    reason: str
    headers: Headers = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: _challenge(error="invalid_token", error_description=self.reason), takes_self=True
        ),
    )


@with_data
class InsufficientScope(Edge):
    """Who makes the request may do other things, but not this one, which needs `scope`."""

    code, sentence = "insufficient_scope", "This needs the scope {scope}, which the request does not have."
    scope: str
    headers: Headers = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _challenge(error="insufficient_scope", scope=self.scope), takes_self=True),
    )


@with_data
class MalformedJson(Edge):
    """The body is not JSON; `reason` is what the parser says."""

    code, sentence = "malformed_json", "The body is not JSON: {reason}."
    reason: str


@with_data
class NothingThere(Edge):
    """The path is not one of the API's."""

    code, sentence = "not_found", "There is nothing at this path."


@with_data
class MethodNotAllowed(Edge):
    """The path has other methods, which the header Allow lists."""

    code, sentence = "method_not_allowed", "This path does not have that method."
    headers: Headers = ()


@with_data
class PreconditionFailed(Edge):
    """The record is not as If-Match or If-None-Match wants it; `reason` says in what way, in a sentence."""

    code, sentence = "precondition_failed", "{reason}"
    reason: str


@with_data
class PayloadTooLarge(Edge):
    """The body has more than `limit` bytes."""

    code, sentence = "payload_too_large", "The body is over {limit:,} bytes."
    limit: int


@with_data
class UnsupportedMediaType(Edge):
    """The body is of a type, a charset or a coding that is not accepted; `reason` says what came, and what is."""

    code, sentence = "unsupported_media_type", "{reason}"
    reason: str
    headers: Headers = ()


@with_data
class BadRequest(Edge):
    """The bytes of the request are not HTTP/1.1; `reason` says why, in a sentence."""

    code, sentence = "bad_request", "{reason}"
    reason: str


@with_data
class RequestTimeout(Edge):
    """The request did not come, or did not come on, in time."""

    code, sentence = "request_timeout", "The request did not come in time."


@with_data
class UriTooLong(Edge):
    """The target of the request has too many bytes."""

    code, sentence = "uri_too_long", "The target of the request has more than 65,536 bytes."


@with_data
class HeadersTooLarge(Edge):
    """The head of the request, or its trailers, are too much."""

    code, sentence = "headers_too_large", "The head or the trailers have more than 65,536 bytes or 100 fields."
