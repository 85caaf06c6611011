"""What the files of a format look like: which columns tell what is in a file, and which of them are read."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Literal

import attrs

from service.exchange.errors import UnreadableFile
from service.exchange.files import File, Files
from service.exchange.lookups import Lookups
from service.exchange.parts import ADDED, Part
from service.exchange.tables import Table

FormatName = Literal["csv", "oneroster", "canvas"]
MOST_LISTED = 30
"""How many names a sentence has at most."""


def _split(text: str) -> Sequence[str]:
    return text.split()


def _words(text: str) -> Sequence[Sequence[str]]:
    """Split a text at white space, and each word of it at its bars."""
    return [word.split("|") for word in text.split()]


@attrs.frozen
class Shape:
    """The columns of one file of a format, by the names that the format gives them."""

    required: Sequence[Sequence[str]] = attrs.field(converter=_words)
    """The columns that the file must have; of several in one place, one is enough."""
    used: Sequence[str] = attrs.field(converter=_split)
    """More columns that are read where they are there."""
    ignored: Sequence[str] = attrs.field(default="", converter=_split)
    """Columns that the format has, but an import has no use for."""

    @property
    def read(self) -> Sequence[str]:
        """Give all columns that are read."""
        return [*(name for names in self.required for name in names), *self.used]

    def missing(self, table: Table) -> Sequence[Sequence[str]]:
        """Give the required columns that a table lacks."""
        there = {squashed(name) for name in table.header}
        return [names for names in self.required if there.isdisjoint(map(squashed, names))]

    def count(self, table: Table) -> int:
        """Count the columns of a table that the format knows."""
        known = {*map(squashed, self.read), *map(squashed, self.ignored)}
        return len(known.intersection(map(squashed, table.header)))


@attrs.frozen
class Format:
    """The files of a format, and what becomes of them."""

    title: FormatName
    shapes: Mapping[str, Shape]
    parts: Callable[[Files, Lookups], Iterator[Part]]
    others: frozenset[str] = frozenset()
    """The names, in small letters, of files that the format has, but an import has no use for."""
    notes: Callable[[Files], Iterator[str]] = lambda _: iter(())
    """Give what is to be said of the files, beside what is said of any file."""
    tells_nothing: Callable[[Files], bool] = lambda _: False
    """Tell whether files say themselves that there is nothing to import."""
    is_delta: Callable[[Files], bool] = lambda _: False
    """Tell whether files have only what has changed."""

    def count(self, table: Table) -> int:
        """Count the columns of a table that the shape has of which the table has most."""
        return max(shape.count(table) for shape in self.shapes.values())

    def fitting(self, table: Table) -> Sequence[str]:
        """Give the names of the shapes whose columns a table has."""
        return [name for name, shape in self.shapes.items() if not shape.missing(table)]

    def named(self, table: Table) -> str | None:
        """Give the shape that the table's name speaks of, if it is one."""
        stem = PurePath(table.name).stem.casefold()
        found = [name for name in self.shapes if name.casefold().removesuffix("s") in stem]
        return found[0] if len(found) == 1 else None

    def shape_of(self, table: Table) -> str | None:
        """Give the shape of a table by its columns; None if the table is to be left out. Raises UnreadableFile."""
        if PurePath(table.name).stem.casefold() in self.others or {*map(squashed, table.header)} == {*ADDED}:
            return None
        fitting, named = self.fitting(table), self.named(table)
        if not fitting:
            if not (table.loose or named):
                return None
            raise UnreadableFile(self._unfit(table, named))
        counts = {name: self.shapes[name].count(table) for name in fitting}
        best = [name for name in fitting if counts[name] == max(counts.values())]
        if named in best or (len(best) == 1 and named not in fitting):
            return named if named in best else best[0]
        raise UnreadableFile(
            f"{table.file} may be {' or '.join(best)} by its columns, which are {_columns(table)}"
            + (f", and {named} by its name" if named else "")
            + f". Name it {' or '.join(dict.fromkeys([*best, named or best[0]]))} (over HTTP with file_name), or add a"
            " column that only one of them has."
        )

    def files(self, tables: Sequence[Table]) -> tuple[Files, list[str], list[str]]:
        """Sort tables by their shapes; give the names of those to be left out too, and what is to be said of them.

        Raises UnreadableFile.
        """
        found: dict[str, list[File]] = {name: [] for name in self.shapes}
        left_out: list[str] = []
        notes: list[str] = []
        for table in tables:
            shape = self.shape_of(table)
            if shape is None:
                left_out.append(table.file)
                continue
            file, unknown = self.file(table, shape)
            found[shape].append(file)
            notes += table.notes
            if unknown:
                notes.append(
                    f"{table.file}: nothing was read from the column{'s'[: len(unknown) != 1]} {listed(unknown)}."
                )
            if table.empty:
                notes.append(f"{table.file} has no row after its header.")
        return found, left_out, [*notes, *self.notes(found)]

    def _unfit(self, table: Table, named: str | None) -> str:
        """Say which columns a table lacks, and which of its columns may be meant."""
        # Where the name does not tell, the shape of which the table has most.
        name = named or max(self.shapes, key=lambda each: self.shapes[each].count(table))
        missing = self.shapes[name].missing(table)
        there = {squashed(column): column for column in table.header}
        meant = [
            f" Is {there[close[0]]} meant for {column}?"
            for names in missing
            for column in names
            if (close := get_close_matches(squashed(column), there, 1, 0.7))
        ]
        return (
            f"{table.file} lacks what {name} need in the format {self.title}: the column"
            f"{'s'[: len(missing) != 1]} {listed([' or '.join(names) for names in missing])}. Its columns are "
            f"{_columns(table)}.{''.join(meant)} Rename the columns in the first row that has a text, take out what is "
            "above them, or name the format."
        )

    def file(self, table: Table, shape: str) -> tuple[File, Sequence[str]]:
        """Give a table as a file of a shape, and the names of the columns that nobody knows. Raises UnreadableFile."""
        reads = {squashed(name): name for name in self.shapes[shape].read}
        ignored = {"", *map(squashed, self.shapes[shape].ignored), *(ADDED if is_refused(table) else ())}
        columns: dict[str, int] = {}
        unknown = []
        for place, header in enumerate(table.header):
            if name := reads.get(squashed(header)):
                if name in columns:
                    both = f"{table.header[columns[name]]!r} and {header!r}"
                    raise UnreadableFile(f"{table.file} has two columns for {name}, {both}: take one of them out.")
                columns[name] = place
            elif squashed(header) not in ignored and not squashed(header).startswith("metadata"):
                unknown.append(header)
        return File(table, columns), unknown


def is_refused(table: Table) -> bool:
    """Tell whether a table has the refused rows of an earlier import, whose columns are always the API's fields."""
    return {*ADDED} <= {*map(squashed, table.header)}


def squashed(name: str) -> str:
    """Give the name of a column without what people write in many ways: case, and what is no letter or digit."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _columns(table: Table) -> str:
    """List the columns of a table that have a name."""
    return listed([name for name in table.header if name])


def listed(names: Sequence[str]) -> str:
    """List names in a sentence, at most MOST_LISTED of them."""
    more = len(names) - MOST_LISTED
    *most, last = [*names[:MOST_LISTED], *[f"{more} more"] * (more > 0)]
    return f"{', '.join(most)} and {last}" if most else last
