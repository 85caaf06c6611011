"""Notice that something else writes to the file, and warn where this version of SQLite may damage the file then.

SQLite before 3.51.3 has the WAL-reset bug (https://sqlite.org/wal.html#walresetbug): where two connections write, or
copy the -wal to the database, at the same moment, the database can be damaged, though very rarely.
"""

import logging
import sqlite3

import peewee as pw

from service.storage import fetch

logger = logging.getLogger(__name__)

Version = tuple[int, ...]


def may_damage(version: Version) -> bool:
    """Tell whether a version of SQLite has the WAL-reset bug, which was mended on two older branches as well."""
    return version < (3, 44, 6) or (3, 45) <= version < (3, 50, 7) or (3, 51) <= version < (3, 51, 3)


class Others:
    """Looks whether anything but the writer thread writes to the file, and warns once."""

    def __init__(self, version: Version = sqlite3.sqlite_version_info) -> None:
        """Have seen nothing yet; where SQLite is new enough, nothing is looked at."""
        self._version = version
        self._looking = may_damage(version)
        self._seen: tuple[object, object] = None, None
        """The writer thread's connection at the last look, and its `PRAGMA data_version` then."""

    def look(self, db: pw.SqliteDatabase) -> None:
        """Look at the writer thread's connection: its data_version changes with each commit of another connection."""
        if not self._looking:
            return
        (before, old), self._seen = self._seen, (db.connection(), fetch(db, "PRAGMA data_version"))
        connection, new = self._seen
        if before is connection and old != new:
            self._looking = False
            logger.warning(
                "The service does not write alone: another connection writes to the database too. SQLite %s may damage "
                "the database then, though very rarely. Run the service on a Python with SQLite 3.51.3 or newer, or "
                "stop the other program.",
                ".".join(map(str, self._version)),
            )
