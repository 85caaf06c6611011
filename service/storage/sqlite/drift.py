"""Find how a database's schema differs from the one that the migrations make, which is in `schema.sql`.

Other tools rebuild tables, and lose triggers, checks and collations without a word. The SQL is compared token by token,
so white space, quotes, letter case and the order of a table's columns do not count. What another program added is no
difference: its tables, views, triggers and indexes, and its columns and constraints on a table of the service.

`ours` is what the migrations make, `other` or `found` what the database has.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import attrs
import peewee as pw

from service.storage import fetch
from service.storage.sqlite.words import FILLED

SCHEMA = Path(__file__).parent / "schema.sql"
"""The schema as the migrations leave it."""

Tokens = Sequence[tuple[str, str]]
"""SQL in pieces: each is (the white space and comments before a token, the token)."""
Key = tuple[str, ...]
"""SQL in a form to compare: its tokens, with names unquoted and all but strings in lower case."""

AUTOINCREMENT: Key = ("autoincrement",)
BACKUP = "Restore a backup."

_TOKEN = re.compile(
    r"""((?: \s | --[^\n]* | /\*.*?\*/ )*)
    ( '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | [\w$]+
      | <> | [<>=!]= | \|\| | << | >> | \S | \Z )""",
    re.DOTALL | re.VERBOSE,
)
_MADE = re.compile(r"CREATE (?:UNIQUE )?(\w+) (\w+)(?:.*?\bON (\w+))?", re.DOTALL)
_OF_A_TABLE = {"constraint", "primary", "unique", "check", "foreign"}
_OF_A_COLUMN = {
    *("constraint", "primary", "unique", "check", "references"),
    *("not", "null", "default", "collate", "generated", "as"),
}
# Pairs of words of which the second goes on with the first one's clause, though it may begin a clause elsewhere.
_GO_ON = {("not", "null"), ("default", "null"), ("set", "null"), ("set", "default"), ("always", "as")}


@attrs.frozen
class Object:
    """A table, view, index or trigger in the schema; `table` is the table that it is on, or itself."""

    type: str
    name: str
    table: str
    sql: str


@attrs.frozen
class Difference:
    """One difference, in words; `mend` tells a person what to do, and is empty if `repair` can mend it."""

    type: str
    name: str
    text: str
    mend: str = ""


@attrs.frozen
class Constraint:
    """The SQL of a constraint, in the form for a whole table, and the column that it was written at, if any."""

    sql: str
    column: str | None = None


@attrs.frozen
class Table:
    """A CREATE TABLE, taken apart.

    `definitions` has each column's SQL; `attributes` the SQL of each column's type, NOT NULL and so on, by first word.
    """

    definitions: dict[str, str] = attrs.Factory(dict)
    attributes: dict[str, dict[str, str]] = attrs.Factory(dict)
    constraints: dict[Key, Constraint] = attrs.Factory(dict)
    options: set[Key] = attrs.Factory(set)


@cache
def expected() -> Mapping[str, Object]:
    """Give all that the migrations make, by name: each table, then its indexes and triggers."""
    found = {}
    for sql in re.split(r";\n\n(?=CREATE )", SCHEMA.read_text("utf-8").removesuffix(";\n").partition("\n\n")[2]):
        ((kind, name, place),) = _MADE.findall(sql)
        found[name] = Object(kind.lower(), name, name if kind in {"TABLE", "VIEW"} else place, sql)
    return found


@cache
def tables() -> Mapping[str, Table]:
    """Give the service's tables as the migrations make them, by name."""
    return {name: parse(each.sql) for name, each in expected().items() if each.type == "table"}


def existing(db: pw.Database) -> list[Object]:
    """Give all objects that have a name of the service's or are on a table of the service's, oldest first."""
    names, places = (
        ", ".join(f"'{name}'" for name in each)
        for each in (expected(), {each.table: 0 for each in expected().values()})
    )
    rows = fetch(
        db,
        f"""SELECT type, lower(name), lower(tbl_name), sql FROM sqlite_master
        WHERE sql IS NOT NULL AND (lower(name) IN ({names}) OR lower(tbl_name) IN ({places}))
        ORDER BY rowid""",
    )
    return [Object(*row) for row in rows]


def compare(db: pw.Database) -> list[Difference]:
    """Give all differences of a database's schema from the migrations' schema."""
    found = {(each.type, each.name): each for each in existing(db)}
    return [
        difference
        for name, each in expected().items()
        for difference in _differences(each, found.get((each.type, name)))
    ]


def _differences(ours: Object, found: Object | None) -> Iterator[Difference]:
    what = f"the {ours.type} {ours.name}"
    if found is None:
        lost = ours.type == "table" and ours.name not in FILLED
        yield Difference(ours.type, ours.name, f"{what} is missing", BACKUP if lost else "")
    elif found.sql == ours.sql or key(found.sql) == key(ours.sql):
        return
    elif ours.type != "table":
        yield Difference(ours.type, ours.name, f"{what} is not the service's own")
    else:
        table, other = tables()[ours.name], parse(found.sql)
        for text, mend in _of_columns(ours.name, table, other):
            yield Difference("table", ours.name, f"the column {ours.name}.{text}", mend)
        for text in _of_constraints(table, other):
            yield Difference("table", ours.name, f"{what} {text}")


DERIVED = {
    ("courses", "enrolled"): "0",
    ("courses", "waitlisted"): "0",
    ("courses", "event_id"): "NULL",
    ("enrollments", "event_id"): "NULL",
    ("enrollment_events", "filed"): "1",
}
"""Columns that `repair` can compute from other rows, each with the value that it first gives a column that is gone."""


def _of_columns(name: str, ours: Table, other: Table) -> Iterator[tuple[str, str]]:
    for column, attributes in ours.attributes.items():
        if column not in other.attributes:
            mended = name in FILLED or (name, column) in DERIVED
            yield f"{column} is missing", "" if mended else _give_back(name, ours, column)
            continue
        for text in _declared(attributes, other.attributes[column]):
            yield f"{column} is {text}", ""


def _of_constraints(ours: Table, other: Table) -> Iterator[str]:
    yield from (f"lost the {each.sql}" for clause, each in ours.constraints.items() if clause not in other.constraints)
    yield from (
        f"has the {each.sql}"
        for clause, each in other.constraints.items()
        if clause not in ours.constraints and not is_a_hosts(ours, clause, each)
    )
    for option in sorted(ours.options ^ other.options):
        yield f"{'lost' if option in ours.options else 'has'} {' '.join(option).upper()}"


def is_a_hosts(ours: Table, clause: Key, constraint: Constraint) -> bool:
    """Tell whether a constraint that is unlike the service's is another program's; else it is a spoilt own one."""
    kind = clause[2 if clause[0] == "constraint" else 0]
    return (
        kind in {"check", "unique"}
        or (constraint.column is not None and constraint.column not in ours.definitions)
        or (kind == "foreign" and clause[clause.index("references") + 1] not in tables())
    )


def _give_back(name: str, table: Table, column: str) -> str:
    renamed = f"If it was renamed: ALTER TABLE {name} RENAME COLUMN its_other_name TO {column}"
    if "not" in table.attributes[column] and "default" not in table.attributes[column]:
        return f"{renamed}. If it is gone, restore a backup."
    added = f"ALTER TABLE {name} ADD COLUMN {table.definitions[column]}"
    return f"{renamed}. If it is gone, add it with its values: {added}"


def _declared(ours: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    for word in {**ours, **other}:
        if word not in ours:
            yield f"declared {other[word]}"
        elif word not in other:
            yield f"not declared {ours[word]}{', and compares with regard to case' if word == 'collate' else ''}"
        elif key(other[word]) != key(ours[word]):
            yield f"declared {other[word]}, not {ours[word]}"


@lru_cache(maxsize=64)
def key(sql: str) -> Key:
    """Give the form of some SQL to compare: SQL with equal keys means the same to SQLite."""
    return _key(_tokens(sql))


def _tokens(sql: str) -> Tokens:
    return [token for token in _TOKEN.findall(sql) if token[1]]


def _key(tokens: Tokens) -> Key:
    return tuple(token if token[0] == "'" else _unquoted(token).lower() for _, token in tokens)


def _unquoted(token: str) -> str:
    if token[0] in '"`':
        return token[1:-1].replace(token[0] * 2, token[0])
    return token.strip("[]") or token


def quoted(name: str) -> str:
    """Put a name in quotes, as SQL needs it."""
    return '"' + name.replace('"', '""') + '"'


def _sql(tokens: Tokens) -> str:
    return "".join(f"{' ' if gap else ''}{token}" for gap, token in tokens).strip()


def parse(sql: str) -> Table:
    """Take a CREATE TABLE apart."""
    table, depth = Table(), 0
    parts: list[tuple[int, list[tuple[str, str]]]] = [(0, [])]
    for token in _tokens(sql):
        before, depth = depth, depth + (token[1] == "(") - (token[1] == ")")
        if (token[1] in {"(", ")"} and 0 in {before, depth}) or (token[1] == "," and depth <= 1):
            parts.append((depth, []))
        else:
            parts[-1][1].append(token)
    for place, tokens in parts[1:]:
        if not place:
            table.options.update([_key(tokens)] if tokens else [])
        elif tokens[0][1].lower() in _OF_A_TABLE:
            _constrain(table, tokens)
        else:
            _define(table, tokens)
    return table


def create_table(name: str, table: Table) -> str:
    """Give the CREATE TABLE of a table that was taken apart."""
    parts = [*table.definitions.values(), *(each.sql for each in table.constraints.values() if each.column is None)]
    options = ", ".join(" ".join(words).upper() for words in table.options - {AUTOINCREMENT})
    body = ",\n    ".join(parts)
    return f"CREATE TABLE {name} (\n    {body}\n) {options}".rstrip()


def _define(table: Table, tokens: Tokens) -> None:
    (name,) = _key(tokens[:1])
    table.definitions[name] = _sql(tokens)
    attributes = table.attributes[name] = {}
    for clause in _clauses(tokens[1:]):
        word = clause[0][1].lower()
        if word in _OF_A_TABLE | {"references"}:
            _constrain(table, clause, tokens[0][1])
        elif word != "null":
            attributes[word if word in _OF_A_COLUMN else "type"] = _sql(clause)


def _clauses(tokens: Tokens) -> Iterator[Tokens]:
    """Split the SQL that follows a column's name into the column's type and each of its constraints."""
    begin = depth = 0
    for at, (_, text) in enumerate(tokens):
        *before, word = [each.lower() for _, each in tokens[max(at - 2, 0) : at + 1]]
        goes_on = (*before[-1:], word) in _GO_ON or before[:-1] == ["constraint"]
        if at > begin and not depth and word in _OF_A_COLUMN and not goes_on:
            yield tokens[begin:at]
            begin = at
        depth += (text == "(") - (text == ")")
    if tokens:
        yield tokens[begin:]


def _constrain(table: Table, tokens: Tokens, column: str | None = None) -> None:
    words = [token.lower() for _, token in tokens]
    if "autoincrement" in words:
        table.options.add(AUTOINCREMENT)
        tokens = [token for token, word in zip(tokens, words, strict=True) if word != "autoincrement"]
    if column is not None:  # Write it as a constraint of the table, so that both ways to write it have one key.
        named = 2 if words[0] == "constraint" else 0
        at, text = {"primary": (2, " ({})"), "unique": (1, " ({})"), "references": (0, " FOREIGN KEY ({})")}.get(
            words[named], (0, "")
        )
        tokens = [*tokens[: named + at], *_tokens(text.format(column)), *tokens[named + at :]]
    table.constraints[_key(tokens)] = Constraint(_sql(tokens), column and _unquoted(column).lower())
