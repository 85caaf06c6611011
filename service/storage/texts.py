"""Handle texts that are not UTF-8, which another program may have written into the database."""


class Garbled(str):
    """A text that is not UTF-8, in the form that is shown: U+FFFD stands for each part that cannot be read."""

    __slots__ = ("stored",)
    stored: bytes
    """The bytes of the text in the database."""


def readable(text: bytes) -> str:
    """Make a text of the bytes in the database; it is a `Garbled` if they are not UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        garbled = Garbled(text.decode(errors="replace"))
        garbled.stored = text
        return garbled


def stored(text: str | bytes) -> bytes:
    """Give the bytes in the database of a text, or of a BLOB that another program wrote in the place of a text."""
    if isinstance(text, bytes):
        return text
    return text.stored if isinstance(text, Garbled) else text.encode()
