"""Read the CSV binding of OneRoster 1.2 or 1.1, bulk and delta: its classes become courses.

Whom an enrollment calls a student becomes a student. The specification is at
https://www.imsglobal.org/spec/oneroster/v1p2/bind/csv; what real files do beside it is borne where it has one meaning.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain

import attrs

from service.exchange.files import Fields, File, Files, Read, taken
from service.exchange.lookups import Find, Lookups
from service.exchange.parts import Kind, Part, Row, Skipped
from service.exchange.shapes import Format, Shape
from service.exchange.tables import Record

SHAPES = {
    "manifest": Shape("propertyName value", ""),
    "academicSessions": Shape(
        "sourcedId title startDate endDate",
        "status metadata.madeUp",
        "dateLastModified type parentSourcedId schoolYear",
    ),
    "courses": Shape(
        "sourcedId title courseCode|orgSourcedId|schoolYearSourcedId",
        "status grades",
        "dateLastModified subjects subjectCodes",
    ),
    "classes": Shape(
        "sourcedId courseSourcedId classType|classCode|termSourcedIds",
        "status title grades metadata.level metadata.capacity metadata.waitlistCapacity",
        "dateLastModified location schoolSourcedId subjects subjectCodes periods",
    ),
    "users": Shape(
        "sourcedId givenName|familyName",
        "status role email metadata.name metadata.givenName metadata.familyName",
        "dateLastModified enabledUser username userIds middleName identifier sms phone agentSourcedIds grades password "
        "userMasterIdentifier resourceSourcedIds preferredGivenName preferredMiddleName preferredFamilyName "
        "primaryOrgSourcedId orgSourcedIds pronouns",
    ),
    "roles": Shape(
        "userSourcedId role roleType",
        "status",
        "sourcedId dateLastModified beginDate endDate orgSourcedId userProfileSourcedId",
    ),
    "enrollments": Shape(
        "classSourcedId userSourcedId role",
        "status",
        "sourcedId dateLastModified schoolSourcedId primary beginDate endDate",
    ),
}
OTHERS = (
    "categories classResources courseResources demographics lineItemLearningObjectiveIds lineItems lineItemScoreScales "
    "orgs resources resultLearningObjectiveIds results resultScoreScales scoreScales userProfiles userResources"
)
GONE = "tobedeleted"
"""The status of a row that says that something is no longer there."""
VERSIONS = ("1.1", "1.2")


@attrs.frozen
class _Set:
    """What the files of one set say about each other."""

    files: Files
    lookups: Lookups
    delta: bool
    """Whether the files of the set have only what has changed."""

    def courses(self) -> AbstractContextManager[Find]:
        """Look up a course's grades and title, which are the lines of a text."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["courses"]):
                about = [row.cells.get(name, "") for name in ("grades", "title")]
                yield row.cells.get("sourcedId", ""), "\n".join(" ".join(text.split()) for text in about)

        return self.lookups.use("courses", pairs)

    def made_up(self) -> AbstractContextManager[Find]:
        """Look up whether an academic session stands for no term, but for the courses that have none."""

        def pairs() -> Iterator[tuple[str, str]]:
            return (
                (row.cells.get("sourcedId", ""), "")
                for row in taken(self.files["academicSessions"])
                if "metadata.madeUp" in row.cells
            )

        return self.lookups.use("made-up", pairs)

    def sessions(self) -> AbstractContextManager[Find]:
        """Look up whether a class is held in an academic session."""

        def pairs() -> Iterator[tuple[str, str]]:
            return ((_session(row), "") for row in taken(self.files["classes"]))

        return self.lookups.use("sessions", pairs)

    def students(self) -> AbstractContextManager[Find]:
        """Look up whether a student's enrollment names a user."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["enrollments"]):
                if row.cells.get("role", "").casefold() == "student":
                    yield row.cells.get("userSourcedId", ""), ""

        return self.lookups.use("students", pairs)

    def roles(self) -> AbstractContextManager[Find]:
        """Look up the role of a user: student, if that is one of them."""

        def pairs() -> Iterator[tuple[str, str]]:
            for row in taken(self.files["roles"]):
                if not _gone(row):
                    yield row.cells.get("userSourcedId", ""), row.cells.get("role", "").casefold()

        return self.lookups.use("roles", lambda: chain((pair for pair in pairs() if pair[1] == "student"), pairs()))


def parts(files: Files, lookups: Lookups) -> Iterator[Part]:
    """Give academic sessions as terms, classes as courses, users as students, and enrollments."""
    of_set = _Set(files, lookups, is_delta(files))
    for name, (kind, fields, rows) in PARTS.items():
        for file in files[name]:
            yield file.part(kind, fields, partial(rows, of_set), [GONE])


def _manifest(files: Files) -> Mapping[str, str]:
    """Give the manifest's values, in small letters, by its properties' names, in small letters."""
    rows = taken(files["manifest"])
    return {row.cells.get("propertyName", "").casefold(): row.cells.get("value", "").casefold() for row in rows}


def notes(files: Files) -> Iterator[str]:
    """Say where the manifest says something else than the files."""
    if not files["manifest"]:
        return
    said = _manifest(files)
    if (version := said.get("oneroster.version")) not in VERSIONS:
        yield f"manifest.csv has {version or 'nothing'} for oneroster.version, and was read as {VERSIONS[-1]}."
    for name in SHAPES:
        word = said.get(f"file.{name}".casefold())
        if files[name] and name != "manifest" and word not in {"bulk", "delta"}:
            yield f"{name}.csv is {word or 'missing'} in manifest.csv, and was read all the same."
        elif not files[name] and word in {"bulk", "delta"}:
            yield f"{name}.csv is {word} in manifest.csv, but it is not there."


def is_delta(files: Files) -> bool:
    """Tell whether the manifest says that files have only what has changed."""
    return "delta" in _manifest(files).values()


def tells_nothing(files: Files) -> bool:
    """Tell whether the manifest says that no file is there, as in a delta of a time without changes."""
    words = {_manifest(files).get(f"file.{name}".casefold()) for name in PARTS}
    return bool(files["manifest"]) and words <= {"absent"}


def _gone(row: Record) -> Skipped | None:
    return Skipped(row.line, GONE) if row.cells.get("status", "").casefold() == GONE else None


def _session(row: Record) -> str:
    """Give the session of a class, which is the first if there are several."""
    return row.cells.get("termSourcedIds", "").partition(",")[0].strip()


def _sessions(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.sessions() as sessions:

        def session(row: Record) -> Read:
            if fault := _gone(row) or file.without(row, "sourcedId"):
                return fault
            if "metadata.madeUp" in row.cells:
                return Skipped(row.line, "it stands for no term")
            if of_set.files["classes"] and sessions(row.cells["sourcedId"]) is None:
                return Skipped(row.line, "no class is held in it")
            return file.term(row, SESSION)

        yield from file.each(session)


def _classes(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.courses() as courses, of_set.made_up() as made_up:

        def course(row: Record) -> Read:
            if fault := _gone(row) or file.without(row, "sourcedId"):
                return fault
            grades, title = (courses(row.cells.get("courseSourcedId", "")) or "\n").split("\n")
            term = _session(row)
            values = {"name": title, "level": grades, **file.picked(row, CLASS)}
            values["term_external_id"] = "" if made_up(term) is not None else term
            return Row(row.line, {field: text for field, text in values.items() if text})

        yield from file.each(course)


def _users(of_set: _Set, file: File) -> Iterator[Read]:
    with of_set.students() as students, of_set.roles() as roles:

        def user(row: Record) -> Read:
            if fault := _gone(row) or file.without(row, "sourcedId"):
                return fault
            sourced_id = row.cells["sourcedId"]
            role = row.cells.get("role", "").casefold() or roles(sourced_id) or ""
            if students(sourced_id) is None:
                if role not in {"", "student"}:
                    return Skipped(row.line, f"role {role}")
                # A delta need not have the enrollment of a student whose name has changed.
                if of_set.files["enrollments"] and not (of_set.delta and role):
                    return Skipped(row.line, "no student's enrollment")
            values = file.picked(row, OWN_USER if "metadata.name" in row.cells else USER)
            names = values.keys() & {"given_name", "family_name"}
            if len(names) == 1 and "name" not in values:
                # The API makes a name of both, and of one alone it makes none.
                values["name"] = values[names.pop()]
            return Row(row.line, values)

        yield from file.each(user)


def _enrollments(_: _Set, file: File) -> Iterator[Read]:
    return file.each(partial(_enrollment, file))


def _enrollment(file: File, row: Record) -> Read:
    cells = row.cells
    role = cells.get("role")
    if role and role.casefold() != "student":
        return Skipped(row.line, f"role {role}")
    for name in ("role", "userSourcedId", "classSourcedId"):
        if fault := file.without(row, name):
            return fault
    return Row(
        row.line,
        {
            "student_external_id": cells["userSourcedId"],
            "course_external_id": cells["classSourcedId"],
            "action": "drop" if _gone(row) else "enroll",
        },
    )


SESSION = {"external_id": ["sourcedId"], "name": ["title"], "starts_on": ["startDate"], "ends_on": ["endDate"]}
CLASS = {
    "external_id": ["sourcedId"],
    "name": ["title"],
    "level": ["metadata.level", "grades"],
    "capacity": ["metadata.capacity"],
    "waitlist_capacity": ["metadata.waitlistCapacity"],
    "term_external_id": ["termSourcedIds"],
}
USER = {
    "external_id": ["sourcedId"],
    "given_name": ["givenName"],
    "family_name": ["familyName"],
    "email": ["email"],
}
OWN_USER = {
    **USER,
    "name": ["metadata.name"],
    "given_name": ["metadata.givenName"],
    "family_name": ["metadata.familyName"],
}
"""What an export of this service has, where the names that OneRoster wants are not those of the student."""
ENROLLMENT = {
    "student_external_id": ["userSourcedId"],
    "course_external_id": ["classSourcedId"],
    "action": ["status"],
}
PARTS: Mapping[str, tuple[Kind, Fields, Callable[[_Set, File], Iterator[Read]]]] = {
    "academicSessions": ("terms", SESSION, _sessions),
    "classes": ("courses", CLASS, _classes),
    "users": ("students", USER, _users),
    "enrollments": ("enrollments", ENROLLMENT, _enrollments),
}

FORMAT = Format("oneroster", SHAPES, parts, frozenset(OTHERS.casefold().split()), notes, tells_nothing, is_delta)
