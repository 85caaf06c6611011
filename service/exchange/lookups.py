"""Look things up that one file of an import says about another, whatever their number.

They lie in a database of SQLite in the import's folder for its work, because those of a whole country are too many for
the memory.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from service.exchange.errors import UnreadableFile

Find = Callable[[str], str | None]
"""Gives the value of a key, or None."""


class Lookups:
    """Tables of keys and values, each made when it is first used. Whoever gives the folder removes it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._made: set[str] = set()

    @contextmanager
    def use(self, name: str, pairs: Callable[[], Iterable[tuple[str, str]]]) -> Iterator[Find]:
        """Give the function that looks a key up in a table; of several values for a key, the first counts.

        Raises UnreadableFile where the folder cannot be written, and what `pairs` raises.
        """
        try:
            # A generator may be begun in one thread and go on in another, but is never in two at once.
            db = sqlite3.connect(self._work / f"lookup-{name}.db", isolation_level=None, check_same_thread=False)
            with ExitStack() as opened:
                opened.enter_context(closing(db))
                if name not in self._made:
                    _make(db, pairs())
                    self._made.add(name)
                # Within one transaction SQLite does not lock the file anew for every key.
                db.execute("BEGIN")
                opened.pop_all()
        except sqlite3.Error as error:
            raise UnreadableFile(f"The folder {self._work} cannot be worked in: {error}.") from error

        def find(key: str) -> str | None:
            row: tuple[str] | None = db.execute("SELECT value FROM pairs WHERE key = ?", (key,)).fetchone()
            return None if row is None else row[0]

        with closing(db):
            yield find


def _make(db: sqlite3.Connection, pairs: Iterable[tuple[str, str]]) -> None:
    # The file is of no use to anyone once the program has ended, however that comes.
    db.executescript("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; DROP TABLE IF EXISTS pairs;")
    db.execute("CREATE TABLE pairs (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    db.execute("BEGIN")
    db.executemany("INSERT OR IGNORE INTO pairs VALUES (?, ?)", (pair for pair in pairs if pair[0]))
    db.execute("COMMIT")
