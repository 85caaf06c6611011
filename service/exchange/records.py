"""Say what the CSV files of an export have: the records of the API, under the API's own names.

An import reads the same files, and comes to the same state: those who wait stand behind those with seats, in the order
of their lines.
"""

from collections.abc import Iterator, Mapping, Sequence

import peewee as pw

from service.exchange.parts import LIMITS, Kind
from service.exchange.selecting import Scan, Sheet, bare, limit, text
from service.storage import backend_of, fetch

KINDS: Sequence[Kind] = ("students", "courses", "terms", "enrollments")
TERM = "term_external_id"

_TEXTS = {"name", "level", "given_name", "family_name", "email"}
"""The columns with texts of people's own, beside the external ids."""
_COLUMNS: Mapping[str, Sequence[str]] = {
    "students": ("id", "external_id", "name", "given_name", "family_name", "email"),
    "courses": (
        *("id", "external_id", "name", "level", "capacity", "waitlist_capacity", TERM, "opens_at", "closes_at"),
        *("enrolled", "waitlisted"),
    ),
    "terms": ("id", "external_id", "name", "starts_on", "ends_on"),
    "enrollments": (
        *("student_id", "student_external_id", "course_id", "course_external_id"),
        *("status", "position", "enrolled_at"),
    ),
    "roster": ("external_id", "family_name", "given_name", "name", "email", "enrolled_at"),
}
_FROM = {
    "students": "students WHERE TRUE",
    "courses": "courses LEFT JOIN terms ON terms.id = courses.term_id WHERE TRUE",
    "terms": "terms WHERE TRUE",
}
_OF_TERM = {
    "students": """
        AND EXISTS (SELECT 1 FROM enrollments JOIN courses ON courses.id = enrollments.course_id
                    WHERE enrollments.student_id = students.id AND courses.term_id = {:d})""",
    "courses": " AND courses.term_id = {:d}",
    "terms": " AND terms.id = {:d}",
    "enrollments": " AND courses.term_id = {:d}",
}
_ENROLLMENTS = """enrollments
    JOIN students ON students.id = enrollments.student_id
    JOIN courses ON courses.id = enrollments.course_id
    WHERE """
_ALIASES = {
    TERM: "terms.external_id",
    "student_external_id": "students.external_id",
    "course_external_id": "courses.external_id",
    "student_id": "enrollments.student_id",
    "course_id": "enrollments.course_id",
    "enrolled_at": "enrollments.enrolled_at",
}
"""The SQL of the columns that are not in the table of their own file."""
LINES = "SELECT id FROM courses WHERE waitlisted > 0{} ORDER BY id"


def sheet(db: pw.Database, kind: Kind, term_id: int | None = None, *, excel: bool = False) -> Sheet:
    """Give the file of a kind of records, of one term or of all.

    The students of a term have a seat, or wait, in a course of the term. With `excel`, no cell is a formula.
    """
    of_term = "" if term_id is None else _OF_TERM[kind].format(term_id)
    scans = _enrollments(db, of_term, excel) if kind == "enrollments" else [_nouns(kind, of_term, excel)]
    return Sheet(_COLUMNS[kind], scans)


def roster(db: pw.Database, course_id: int, *, excel: bool = False) -> Sheet:
    """Give the class list of a course: who has a seat, by family name, then by given name."""
    cells = _cells("roster", "students", excel)
    source = f"{_ENROLLMENTS} enrollments.course_id = {course_id:d} AND enrollments.waiting IS NULL"
    return Sheet(_COLUMNS["roster"], [Scan(cells, source, order=backend_of(db).BY_NAME)])


def _cells(kind: str, table: str, excel: bool, **others: str) -> Sequence[str]:
    made = {
        name: text(sql, excel=excel) if name in _TEXTS or name.endswith("external_id") else bare(sql)
        for name in _COLUMNS[kind]
        for sql in [_ALIASES.get(name, f"{table}.{name}")]
    }
    limits = {name: limit(f"{table}.{name}") for name in LIMITS if name in made}
    return [*(made | limits | others).values()]


def _nouns(kind: Kind, of_term: str, excel: bool) -> Scan:
    return Scan(_cells(kind, kind, excel), f"{_FROM[kind]}{of_term}", f"{kind}.id", f"{kind} WHERE TRUE")


def _enrollments(db: pw.Database, of_term: str, excel: bool) -> Iterator[Scan]:
    """Give all seats, by student, and then each course's line: no seat is given to who waits while one is to come."""
    seats = _cells("enrollments", "enrollments", excel, status="'enrolled'", position="''")
    yield Scan(
        seats,
        f"{_ENROLLMENTS} enrollments.waiting IS NULL{of_term}",
        *("enrollments.student_id", "enrollments WHERE TRUE", "enrollments.course_id"),
    )
    place = "? + row_number() OVER (ORDER BY enrollments.waiting)"
    lines = _cells("enrollments", "enrollments", excel, status="'waitlisted'", position=bare(place), enrolled_at="''")
    for (course_id,) in fetch(db, LINES.format(of_term)):
        line = f"enrollments.course_id = {course_id:d}"
        yield Scan(lines, f"{_ENROLLMENTS} {line}", "enrollments.waiting", f"enrollments WHERE {line}", numbered=True)
