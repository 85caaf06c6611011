"""The files of a set, of which it is known what their rows are, and what becomes of a row."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial

import attrs
import msgspec

from service.exchange.parts import Kind, Part, Refused, Row, Skipped
from service.exchange.tables import Record, Table, records

Read = Row | Skipped | Refused
"""What becomes of a row of a file."""
Fields = Mapping[str, Sequence[str]]
"""The columns that each field of the API is read from: the first one that has a text counts."""

UNCLEAR = "The date can be understood in several ways, or in none: write it as year, month and day, such as 2026-09-01."
_YEAR_FIRST = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})(?:[T ].*)?", re.DOTALL)


@attrs.frozen
class File:
    """A table of which it is known what its rows are."""

    table: Table
    columns: Mapping[str, int]
    """The place of each column that is read, by the name that the format gives it."""
    fields: Fields = attrs.field(factory=dict[str, Sequence[str]])
    """The fields of the API by which a refused row has its cells."""

    def header(self, name: str) -> str:
        """Give the name that the file itself gives a column."""
        return self.table.header[self.columns[name]]

    def rows(self) -> Iterator[Record | Refused]:
        """Read the rows, by the names that the format gives the columns."""
        return records(self.table, self.columns)

    def each(self, read: Callable[[Record], Read]) -> Iterator[Read]:
        """Read the rows, and give what becomes of each that can be taken at all."""
        for row in self.rows():
            yield read(row) if isinstance(row, Record) else self._kept(row)

    def _kept(self, row: Refused) -> Refused:
        """Give a row that cannot even be read with its cells by field, which it has by the names of the file itself."""
        read = {name: row.values.get(self.header(name)) for name in self.columns}
        cells = {name: cell for name, cell in read.items() if cell}
        return msgspec.structs.replace(row, values=self.picked(Record(row.line, cells), self.fields))

    def part(
        self, kind: Kind, fields: Fields, rows: Callable[["File"], Iterator[Read]], drops: Iterable[str] = ()
    ) -> Part:
        """Give the part that the file is: each field of the API is read from the first of some columns.

        Only a row with one of the words `drops` drops anybody.
        """
        columns: dict[str, str] = {}
        for field, names in fields.items():
            for name in names:
                if name in self.columns:
                    columns.setdefault(field, self.header(name))
        table, file = self.table, attrs.evolve(self, fields=fields)
        return Part(
            kind,
            table.file,
            columns,
            partial(rows, file),
            table.size,
            table.count,
            lambda: any(map(table.has, drops)),
        )

    def without(self, row: Record, *names: str) -> Refused | None:
        """Refuse a row in which none of some columns has a text."""
        return None if any(name in row.cells for name in names) else self.lacking(row, *names)

    def lacking(self, row: Record, *names: str) -> Refused:
        """Refuse a row, because none of some columns has a text."""
        found = [self.header(name) for name in names if name in self.columns]
        detail = f"The row has nothing in {' or '.join(found)}: fill the cell, or take the row out."
        return Refused(row.line, found[0], None, "invalid_row", detail, self.picked(row, self.fields))

    def picked(self, row: Record, fields: Fields) -> dict[str, str]:
        """Give each field of the API from the first of its columns that has a text."""
        values: dict[str, str] = {}
        for field, names in fields.items():
            for name in names:
                if name in row.cells:
                    values.setdefault(field, row.cells[name])
        return values

    def term(self, row: Record, fields: Fields) -> Row | Refused:
        """Read a term, whose days may be times, as long as there is one way to understand them."""
        values = self.picked(row, fields)
        for field in ("starts_on", "ends_on"):
            if field in values:
                found = day(values[field])
                if found is None:
                    return self.refused(row, fields[field][0], UNCLEAR)
                values[field] = found
        return Row(row.line, values)

    def refused(self, row: Record, name: str, detail: str) -> Refused:
        """Refuse a cell of a row."""
        values = self.picked(row, self.fields)
        return Refused(row.line, self.header(name), row.cells[name], "invalid_row", detail, values)


def taken(files: Iterable[File]) -> Iterator[Record]:
    """Read the rows of several files that can be taken at all."""
    return (row for file in files for row in file.rows() if isinstance(row, Record))


Files = Mapping[str, Sequence[File]]
"""The files of a set, by the names of their shapes; a name may have none."""


def day(text: str) -> str | None:
    """Give a date, or the date of a time, as YYYY-MM-DD; None where the year does not come first, or is no date."""
    found = _YEAR_FIRST.fullmatch(text)
    try:
        return found and date(int(found[1]), int(found[3]), int(found[4])).isoformat()
    except ValueError:
        return None
