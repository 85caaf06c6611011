"""Read a SIS import of Canvas: its sections become courses, and whom enrollments call a student becomes a student.

A course of Canvas becomes a course too where no section stands for it. The columns are those of "SIS Import Format" in
the documentation of Canvas.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial

import attrs
import msgspec

from service.exchange.files import Fields, File, Files, Read, taken
from service.exchange.lookups import Find, Lookups
from service.exchange.parts import Kind, Part, Refused, Row, Skipped
from service.exchange.shapes import Format, Shape
from service.exchange.tables import Record
from service.fields import MAX_NAME

SHAPES = {
    "terms": Shape("term_id name", "status start_date end_date", "integration_id date_override_enrollment_type"),
    "courses": Shape(
        "course_id long_name|short_name",
        "term_id status",
        "integration_id account_id start_date end_date course_format blueprint_course_id grade_passback_setting "
        "homeroom_course friendly_name",
    ),
    "sections": Shape("section_id course_id name", "status", "integration_id start_date end_date"),
    "users": Shape(
        "user_id login_id|first_name|full_name|sortable_name|short_name",
        "integration_id last_name email status",
        "password ssha_password authentication_provider_id pronouns declared_user_type canvas_password_notification "
        "home_account",
    ),
    "enrollments": Shape(
        "section_id|course_id user_id|user_integration_id role|role_id status",
        "",
        "root_account start_date end_date associated_user_id limit_section_privileges notify "
        "temporary_enrollment_source_user_id",
    ),
}
OTHERS = (
    "accounts xlists groups group_categories groups_membership group_memberships admins logins user_observers "
    "change_sis_id change_sis_ids differentiation_tags differentiation_tag_sets differentiation_tags_membership"
)

STUDENT = {"student", "studentenrollment"}
DROPS = ("deleted", "inactive", "completed", "deleted_last_completed")
ACTIONS = {"active": "enroll", **dict.fromkeys(DROPS, "drop")}

MENDED = "In a file of refused rows, write enroll or drop in the column action, or take the row out."


@attrs.frozen
class _Set:
    """What the files of one set say about each other."""

    files: Files
    lookups: Lookups

    def courses(self) -> AbstractContextManager[Find]:
        """Look up a course's status, term and long name, which are the lines of a text."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["courses"]):
                about = [row.cells.get(name, "") for name in ("status", "term_id", "long_name")]
                yield row.cells.get("course_id", ""), "\n".join(" ".join(text.split()) for text in about)

        return self.lookups.use("courses", pairs)

    def without_section(self) -> AbstractContextManager[Find]:
        """Look up whether an enrollment names a course, and no section of it."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["enrollments"]):
                if "section_id" not in row.cells:
                    yield row.cells.get("course_id", ""), ""

        return self.lookups.use("without-section", pairs)

    def students(self) -> AbstractContextManager[Find]:
        """Look up whether a student's enrollment names a user, by a text of the id's column and the id."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["enrollments"]):
                if row.cells.get("role", "").casefold() in STUDENT:
                    for name in {"user_id", "user_integration_id"} & row.cells.keys():
                        yield f"{name.removeprefix('user_')} {row.cells[name]}", ""

        return self.lookups.use("students", pairs)

    def users(self) -> AbstractContextManager[Find]:
        """Look up a user by the integration id."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["users"]):
                if row.cells.keys() >= {"integration_id", "user_id"}:
                    yield row.cells["integration_id"], row.cells["user_id"]

        return self.lookups.use("users", pairs)


def parts(files: Files, lookups: Lookups) -> Iterator[Part]:
    """Give terms, courses and sections as courses, users as students, and enrollments."""
    of_set = _Set(files, lookups)
    for name, (kind, fields, rows) in PARTS.items():
        for file in files[name]:
            yield file.part(kind, fields, partial(rows, of_set), DROPS)


def _gone(row: Record) -> Skipped | None:
    return Skipped(row.line, "deleted") if row.cells.get("status", "").casefold() == "deleted" else None


def _terms(_: _Set, file: File) -> Iterator[Read]:
    return file.each(lambda row: _gone(row) or file.without(row, "term_id") or file.term(row, TERM))


def _courses(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.without_section() as without_section:

        def course(row: Record) -> Read:
            if fault := _gone(row) or file.without(row, "course_id"):
                return fault
            if of_set.files["sections"] and without_section(row.cells["course_id"]) is None:
                return Skipped(row.line, "its sections are the courses")
            return Row(row.line, file.picked(row, COURSE))

        yield from file.each(course)


def _sections(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.courses() as courses:

        def section(row: Record) -> Read:
            if fault := _gone(row) or file.without(row, "section_id"):
                return fault
            values = file.picked(row, SECTION)
            status, term, course = (courses(row.cells.get("course_id", "")) or "\n\n").split("\n")
            if status.casefold() == "deleted":
                return Skipped(row.line, "its course is deleted")
            values["name"] = _section_name(values.get("name", ""), course)
            values["term_external_id"] = term
            return Row(row.line, {field: text for field, text in values.items() if text})

        yield from file.each(section)


def _section_name(section: str, course: str) -> str:
    """Put the course's name before a section's, which is often nothing but a number; not where both are too long."""
    both = f"{course}, {section}" if course and section else course or section
    begins = section.casefold().startswith(course.casefold())
    return section if section and (begins or len(both) > MAX_NAME) else both


def _users(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.students() as students:

        def user(row: Record) -> Read:
            if fault := _gone(row) or file.without(row, "user_id"):
                return fault
            ids = {"user_id", "integration_id"} & row.cells.keys()
            named = (students(f"{name.removeprefix('user_')} {row.cells[name]}") is not None for name in ids)
            if of_set.files["enrollments"] and not any(named):
                return Skipped(row.line, "no student's enrollment")
            return Row(row.line, _names(row, file.picked(row, USER)))

        yield from file.each(user)


def _names(row: Record, values: dict[str, str]) -> dict[str, str]:
    """Put the names of a user right: `sortable_name` is the family name, a comma and the given name."""
    cells = row.cells
    family, comma, given = (text.strip() for text in (cells.get("sortable_name") or "").partition(","))
    values["given_name"] = cells.get("first_name") or given
    values["family_name"] = cells.get("last_name") or (family if comma else "")
    if not (values["given_name"] and values["family_name"]):
        # The API makes a name of both, and of one alone it makes none.
        values.setdefault("name", values["given_name"] or values["family_name"] or family)
    return {field: text for field, text in values.items() if text}


def _enrollments(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.users() as users:
        yield from file.each(partial(_enrollment, file, users))


def _enrollment(file: File, users: Find, row: Record) -> Read:
    cells = row.cells
    role = cells.get("role")
    if role is None:
        return file.without(row, "role", "role_id") or _unknown_role(file, row)
    if role.casefold() not in STUDENT:
        return Skipped(row.line, f"role {role}")
    student = cells.get("user_id") or users(cells.get("user_integration_id", ""))
    course = cells.get("section_id") or cells.get("course_id")
    action = ACTIONS.get(cells.get("status", "").casefold())
    if student and course and action:
        return Row(row.line, {"student_external_id": student, "course_external_id": course, "action": action})
    if not student and "user_integration_id" in cells:
        return file.refused(row, "user_integration_id", "No user in the files has this integration_id.")
    return (
        file.without(row, "user_id", "user_integration_id")
        or file.without(row, "section_id", "course_id")
        or file.without(row, "status")
        or file.refused(row, "status", f"The word is not known here: write {' or '.join(ACTIONS)}. {MENDED}")
    )


def _unknown_role(file: File, row: Record) -> Refused:
    """Refuse a role that only Canvas knows, so that the row, as it is kept, is refused again unless it is mended."""
    detail = "Only Canvas knows which role this number is: add the column role with the role's name. "
    fault = file.refused(row, "role_id", detail + MENDED)
    return msgspec.structs.replace(fault, values={**fault.values, "action": f"role {row.cells['role_id']}"})


TERM = {"external_id": ["term_id"], "name": ["name"], "starts_on": ["start_date"], "ends_on": ["end_date"]}
COURSE = {"external_id": ["course_id"], "name": ["long_name", "short_name"], "term_external_id": ["term_id"]}
SECTION = {"external_id": ["section_id"], "name": ["name"]}
USER = {
    "external_id": ["user_id"],
    "name": ["short_name", "full_name"],
    "given_name": ["first_name", "sortable_name"],
    "family_name": ["last_name", "sortable_name"],
    "email": ["email"],
}
ENROLLMENT = {
    "student_external_id": ["user_id", "user_integration_id"],
    "course_external_id": ["section_id", "course_id"],
    "action": ["status"],
}
PARTS: Mapping[str, tuple[Kind, Fields, Callable[[_Set, File], Iterator[Read]]]] = {
    "terms": ("terms", TERM, _terms),
    "courses": ("courses", COURSE, _courses),
    "sections": ("courses", SECTION, _sections),
    "users": ("students", USER, _users),
    "enrollments": ("enrollments", ENROLLMENT, _enrollments),
}

FORMAT = Format("canvas", SHAPES, parts, frozenset(OTHERS.split()))
