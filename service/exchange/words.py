"""What a refused row is told: its code, the column that is at fault, and a sentence that says what to do."""

from collections.abc import Mapping
from urllib.parse import unquote

from service.errors import InvalidPayload, ServiceError
from service.exchange.parts import LIMITS, UNLIMITED, Part, Refused, Row

_STUDENT, _COURSE = ("student_external_id", "student_id"), ("course_external_id", "course_id")
_TERM, _OWN = ("term_external_id", "term_id"), ("external_id", "id")

LIMIT = f"must be a whole number without signs, such as 30, or the word {UNLIMITED}"
"""What a limit must be, in a file, where nothing is null."""

WORDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "student_not_found": (
        (*_STUDENT, *_OWN),
        "No student has the number {value}. Check it, or import the student first.",
    ),
    "course_not_found": (
        (*_COURSE, *_OWN),
        "No course has the number {value}. Check it, or import the course first.",
    ),
    "term_not_found": ((*_TERM, *_OWN), "No term has the number {value}. Check it, or import the term first."),
    "course_full": (
        _COURSE,
        "The course {value} is full, and so is its waitlist. Raise its capacity, or import with an override.",
    ),
    "enrollment_not_open": (
        _COURSE,
        "The course {value} opens for enrolling at {opens_at}. Import the row then, or with an override.",
    ),
    "enrollment_closed": (
        _COURSE,
        "The course {value} closed for enrolling at {closes_at}. Let it close later, or import with an override.",
    ),
    "external_id_taken": (("external_id",), "Another row of the database has the number {value}. Give each its own."),
    "capacity_below_enrolled": (
        ("capacity",),
        "More students are enrolled than {value}. Write a larger number, or drop students first.",
    ),
    "waitlist_capacity_below_waitlisted": (
        ("waitlist_capacity",),
        "More students wait than {value}. Write a larger number, or drop students from the waitlist first.",
    ),
    "repeated": (
        _OWN,
        "Line {line} of {file} says something else of {value}, and was taken. Leave one of the two rows.",
    ),
    "constraint_violated": (
        (),
        "A rule of the database, which the service did not make, refuses the row: {rule}. Ask who runs the service.",
    ),
}
"""For each code: the fields of which the first that the row has is at fault, and the sentence."""


def refused(part: Part | None, row: Row, error: ServiceError) -> Refused:
    """Say in words for people why a row was refused."""
    columns = part.columns if part else {}
    if isinstance(error, InvalidPayload):
        fields = [unquote(where.removeprefix("#/")) for where, _ in error.faults]
        names = [columns.get(field, field) for field in fields]
        whats = [LIMIT if field in LIMITS else what for field, (_, what) in zip(fields, error.faults, strict=True)]
        detail = " ".join(f"{name} {what}." for name, what in zip(names, whats, strict=True))
        detail += " Mend the row, and import it again."
        return Refused(row.line, names[0], row.values.get(fields[0]), error.code, detail, row.values)
    choices, sentence = WORDS.get(error.code, ((), "{detail}"))
    field = next((each for each in choices if row.values.get(each) is not None), None)
    value = row.values[field] if field else None
    told = {"detail": error.detail, **vars(error), "value": value}
    column = columns.get(field, field) if field else None
    return Refused(row.line, column, value, error.code, sentence.format(**told), row.values)
