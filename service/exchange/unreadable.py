"""The refusal of a file that an import cannot read."""

from service.errors import SetupError


class UnreadableFile(SetupError):
    """A file of an import cannot be read; the text says which file, what is wrong with it, and what to do about it."""
