"""Select the rows of a file as lines of CSV (RFC 4180), which the database itself makes, a page of rows at a time.

While the database makes the lines of a page, the thread that waits for them lets other threads run Python. Beside an
export of a million rows a page of a roster takes 1.4 times as long as alone, and 1.7 times where each row is handed to
Python, which then makes the line.

The SQL is portable. The numbers that it is made with are ids, which the service itself has found.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import peewee as pw

from service.exchange.parts import UNLIMITED
from service.fields import MAX_ID
from service.storage import backend_of, fetch, fetch_one

PAGE = 1_000
"""How many rows of a table one statement goes through, so that no more than their lines is in memory."""
END = "\r\n"
BOM = "\ufeff".encode()
"""What tells Excel that a file is in UTF-8."""
_LITERAL = re.compile("'(?:[^']|'')*'")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run as a formula (OWASP, "CSV Injection")."""

Page = tuple[bytes, int]
"""The lines of some rows in UTF-8, and how many rows they are."""
Tick = Callable[[str], object]
"""Is told now and then which file is being written."""


@attrs.frozen
class Scan:
    """Rows that stand one after the other in a file."""

    cells: Sequence[str]
    """The SQL of each cell's text, which is never null."""
    source: str
    """What comes behind FROM, with a condition at its end."""
    key: str = ""
    """A column of integers by which the pages go, or nothing where there is but one page."""
    base: str = ""
    """What comes behind FROM to find where pages end: the table with the key, and a condition."""
    order: str = ""
    """More columns that the rows are sorted by, behind the key."""
    after: int = -MAX_ID
    """The key that all rows come behind."""
    numbered: bool = False
    """Whether the first ? in the cells takes how many rows came before the page."""


@attrs.frozen
class Sheet:
    """A file of rows."""

    columns: Sequence[str]
    scans: Iterable[Scan]
    """In the order of the rows."""

    @property
    def header(self) -> bytes:
        """Give the line with the names of the columns."""
        return (",".join(self.columns) + END).encode()


def bare(sql: str) -> str:
    """Give the SQL of a cell with a number or a time, which is empty for null."""
    return f"coalesce(CAST({sql} AS TEXT), '')"


def limit(sql: str) -> str:
    """Give the SQL of a cell with the number of seats or places, of which there may be any number."""
    return f"coalesce(CAST({sql} AS TEXT), '{UNLIMITED}')"


def text(sql: str, *, excel: bool = False) -> str:
    """Give the SQL of a cell with a text, which is empty for null; with `excel`, no text is a formula."""
    begins = ", ".join(f"'{sign}'" for sign in FORMULA)
    sign = f"CASE WHEN substr({sql}, 1, 1) IN ({begins}) THEN '''' ELSE '' END || " if excel else ""
    special = " OR ".join(f"{sql} LIKE '%{mark}%'" for mark in (",", '"', "\r", "\n"))
    return f"coalesce(CASE WHEN {special} THEN {quoted(sql, sign)} ELSE {sign}{sql} END, '')"


def quoted(sql: str, sign: str = "") -> str:
    """Give the SQL of a text in quotes; `sign` is the SQL of what stands before the text."""
    return f"""'"' || {sign}replace({sql}, '"', '""') || '"'"""


def pages(db: pw.Database, scan: Scan) -> Iterator[Page]:
    """Give the lines of the rows, page by page."""
    order = ", ".join(filter(None, (scan.key, scan.order)))
    within = f" AND {scan.key} > ? AND {scan.key} <= ?" if scan.key else ""
    sql = f"""
        SELECT {backend_of(db).JOINED.format("line")}, count(*)
        FROM (SELECT {_line(scan.cells)} AS line FROM {scan.source}{within} ORDER BY {order}) AS page"""
    before = 0
    for bounds in _bounds(db, scan):
        ((lines, count),) = fetch(db, sql, *([before] if scan.numbered else []), *bounds)
        before += count
        if count:
            yield _utf_8(lines), count


def _line(cells: Sequence[str]) -> str:
    """Give the SQL of a line; where literals stand side by side, as between empty cells, they become one."""
    made = ["''"]
    rest = (piece for cell in cells[1:] for piece in ("','", cell))
    for each in (cells[0], *rest, f"'{END}'"):
        if _LITERAL.fullmatch(made[-1]) and _LITERAL.fullmatch(each):
            made[-1] = made[-1][:-1] + each[1:]
        else:
            made.append(each)
    return " || ".join(made)


def _bounds(db: pw.Database, scan: Scan) -> Iterator[tuple[int, ...]]:
    if not scan.key:
        yield ()
        return
    ends = f"SELECT {scan.key} FROM {scan.base} AND {scan.key} > ? ORDER BY {scan.key} LIMIT 1 OFFSET {PAGE - 1:d}"
    after = scan.after
    while after < MAX_ID:
        found = fetch_one(db, ends, after)
        end = found[0] if found else MAX_ID
        yield after, end
        after = end


def _utf_8(lines: Any) -> bytes:
    """Put U+FFFD for what is not UTF-8, which another program may have written."""
    given = bytes(lines)
    try:
        given.decode()
    except UnicodeDecodeError:
        return given.decode(errors="replace").encode()
    return given
