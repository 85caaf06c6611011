"""Read what a school has by the API's own names of the fields, one file for each kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from service.exchange.files import File, Files, Read
from service.exchange.lookups import Lookups
from service.exchange.parts import Kind, Part, Row
from service.exchange.shapes import Format, Shape
from service.exchange.tables import Record

SHAPES: Mapping[str, Shape] = {
    "terms": Shape("external_id", "name starts_on ends_on", "id"),
    "courses": Shape(
        "external_id",
        "name level capacity waitlist_capacity term_external_id term_id opens_at closes_at",
        "id enrolled waitlisted seats_left availability term_name",
    ),
    "students": Shape("external_id", "name given_name family_name email", "id"),
    "enrollments": Shape(
        "student_external_id|student_id course_external_id|course_id",
        "action status",
        "id position enrolled_at student_name course_name name level external_id given_name family_name email",
    ),
}
KINDS: Sequence[Kind] = ("terms", "courses", "students", "enrollments")
DROPS = ("drop", "dropped")
ACTIONS = {
    **dict.fromkeys(("enroll", "enrol", "enrolled", "waitlisted", "active"), "enroll"),
    **dict.fromkeys(DROPS, "drop"),
}
"""What an enrollment's action or status may say; an exported one says which place the student has."""


def parts(files: Files, _: Lookups) -> Iterator[Part]:
    """Give a part for each file."""
    for kind in KINDS:
        shape = SHAPES[kind]
        fields: dict[str, Sequence[str]] = {name: (name,) for name in shape.read}
        read: Callable[[File, Record], Read] = _noun
        if kind == "enrollments":
            fields["action"] = (*fields["action"], *fields.pop("status"))
            read = _enrollment
        for file in files[kind]:
            yield file.part(kind, fields, partial(_rows, read), DROPS)


def _rows(read: Callable[[File, Record], Read], file: File) -> Iterator[Read]:
    return file.each(partial(read, file))


def _noun(file: File, row: Record) -> Read:
    """Read a student, a course or a term: by its external id it is known again."""
    if fault := file.without(row, "external_id"):
        return fault
    if row.cells.keys() >= {"term_external_id", "term_id"}:
        return Row(row.line, {name: cell for name, cell in row.cells.items() if name != "term_id"})
    return Row(row.line, row.cells)


def _enrollment(file: File, row: Record) -> Read:
    # Of the two ids of each, the school's own counts.
    cells = row.cells
    student = "student_external_id" if "student_external_id" in cells else "student_id"
    course = "course_external_id" if "course_external_id" in cells else "course_id"
    if student not in cells:
        return file.lacking(row, "student_external_id", "student_id")
    if course not in cells:
        return file.lacking(row, "course_external_id", "course_id")
    said = "action" if "action" in cells else "status"
    action = ACTIONS.get(cells.get(said, "enroll").casefold())
    if action is None:
        return file.refused(row, said, "The word is not known here: write enroll or drop.")
    return Row(row.line, {student: cells[student], course: cells[course], "action": action})


FORMAT = Format("csv", SHAPES, parts)
