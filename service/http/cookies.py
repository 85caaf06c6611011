"""The cookie of a session: its name, what it says to the browser, and how it is read."""

from collections.abc import Callable

import attrs
from starlette.types import Scope

from service.sessions import LASTS


@attrs.frozen
class Cookies:
    """The cookie of the service's sessions; `secure` is whether browsers reach the service over https.

    A browser takes a cookie whose name begins with `__Host-` only over https, for that very host and all of its paths,
    so that no other site, and no name below or above the host, can put one there.
    """

    secure: bool
    forget: Callable[[], None]
    """Lets what was found of sessions and tokens be forgotten, so that what is changed here counts here at once."""

    @property
    def name(self) -> str:
        """Give the name of the cookie."""
        return "__Host-enrollment" if self.secure else "enrollment"

    def give(self, value: str, seconds: int = int(LASTS.total_seconds())) -> tuple[bytes, bytes]:
        """Give the header that puts a cookie into the browser, for so many seconds."""
        secure = "; Secure" if self.secure else ""
        said = f"{self.name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        return b"set-cookie", said.encode()

    def take(self) -> tuple[bytes, bytes]:
        """Give the header that takes the cookie out of the browser."""
        return self.give("", 0)

    def read(self, scope: Scope) -> bytes:
        """Give the value of the cookie that a request brings, or no bytes."""
        for name, header in scope["headers"]:
            if name == b"cookie":
                for each in header.split(b";"):
                    key, _, value = each.strip().partition(b"=")
                    if key.decode("latin-1") == self.name:
                        return bytes(value)
        return b""
