"""Say what a OneRoster file set of the school has: the CSV binding 1.2.1, bulk or delta.

https://www.imsglobal.org/spec/oneroster/v1p2/bind/csv

A course becomes a course and a class, a student a user with the role student, a term an academic session, and a seat an
enrollment, which is named by the event that began it. Who waits has no place in OneRoster.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date

import attrs
import peewee as pw

from service.exchange.selecting import END, Scan, Sheet, limit
from service.exchange.sourcing import (
    BOTH_NAMES,
    CHANGED,
    CHANGES,
    DATED,
    FAMILY,
    FILED,
    GIVEN,
    GIVEN_SEATS,
    IN_COURSES,
    LOST_SEATS,
    OWN,
    PREFIXES,
    SCHOOL_YEAR,
    SEATED,
    SEATS,
    TERM_OF_COURSE,
    SourcedId,
    cell,
    literal,
    school_year,
    sourced_id,
)
from service.fields import MAX_ID
from service.storage import backend_of

FILES: Sequence[str] = (
    *("academicSessions", "categories", "classes", "classResources", "courses", "courseResources", "demographics"),
    *("enrollments", "lineItemLearningObjectiveIds", "lineItems", "lineItemScoreScales", "orgs", "resources"),
    *("resultLearningObjectiveIds", "results", "resultScoreScales", "roles", "scoreScales", "userProfiles"),
    *("userResources", "users"),
)
"""All files of the binding, each of which the manifest tells of."""
ORG = "org-1"
"""The sourcedId of the only organization."""

COLUMNS: Mapping[str, Sequence[str]] = {
    name: ("sourcedId", "status", "dateLastModified", *more.split())
    for name, more in {
        "academicSessions": "title type startDate endDate parentSourcedId schoolYear metadata.madeUp",
        "orgs": "name type identifier parentSourcedId",
        "courses": "schoolYearSourcedId title courseCode grades orgSourcedId subjects subjectCodes",
        "classes": "title grades courseSourcedId classCode classType location schoolSourcedId termSourcedIds subjects "
        "subjectCodes periods metadata.level metadata.capacity metadata.waitlistCapacity",
        "users": "enabledUser username userIds givenName familyName middleName identifier email sms phone "
        "agentSourcedIds grades password userMasterIdentifier preferredGivenName preferredMiddleName "
        "preferredFamilyName primaryOrgSourcedId pronouns metadata.name metadata.givenName metadata.familyName",
        "roles": "userSourcedId roleType role beginDate endDate orgSourcedId userProfileSourcedId",
        "enrollments": "classSourcedId schoolSourcedId userSourcedId role primary beginDate endDate",
    }.items()
}
"""The columns of each file that is exported, in the order of the binding."""
CODE = cell("coalesce(courses.external_id, CAST(courses.id AS TEXT))")


@attrs.frozen
class Rosters:
    """The files of one export: of a term or of all, all rows or what has changed since an event."""

    school: str
    """The name of the organization."""
    today: date
    moment: str
    """The time of the export, as RFC 3339 in UTC."""
    term_id: int | None = None
    since: int | None = None
    """The id of an event. Only enrollments that later events have changed are exported, and what those refer to."""

    @property
    def word(self) -> str:
        """Give what the manifest says of a file that is there."""
        return "bulk" if self.since is None else "delta"

    def manifest(self, there: Iterable[str]) -> bytes:
        """Give the manifest, once it is known which files are there."""
        words = dict.fromkeys(FILES, "absent") | dict.fromkeys(there, self.word)
        rows = {"manifest.version": "1.0", "oneroster.version": "1.2"}
        rows |= {f"file.{name}": word for name, word in words.items()}
        rows["source.systemName"] = "Enrollment service"
        return "".join(f"{name},{value}{END}" for name, value in {"propertyName": "value", **rows}.items()).encode()

    def sheets(self, db: pw.Database) -> Iterator[tuple[str, Sheet]]:
        """Give each file that may have rows, by its name."""
        student, course, term = (sourced_id(db, table) for table in PREFIXES)
        filed = backend_of(db).FILED
        for name, scans in {
            "academicSessions": self._sessions(term),
            "orgs": [self._org()],
            "courses": [self._courses()],
            "classes": [self._classes(course, term)],
            "users": [self._users(student)],
            "roles": [self._roles(student)],
            "enrollments": self._enrollments(student, course),
        }.items():
            yield (
                name,
                Sheet(COLUMNS[name], [attrs.evolve(scan, source=scan.source.replace(FILED, filed)) for scan in scans]),
            )

    def _scan(self, file: str, source: str, key: str, base: str, **cells: str) -> Scan:
        """Give the rows of a file. A cell that is not named is empty."""
        state = {} if self.since is None else {"status": "'active'", "dateLastModified": literal(self.moment)}
        made = {"status": "''", **state, **cells}
        return Scan([made.get(column.replace(".", "_"), "''") for column in COLUMNS[file]], source, key, base)

    def _of(self, table: str) -> str:
        """Give the condition of the students or the courses that are exported."""
        of_term = self._of_term
        if self.since is not None:
            found = CHANGED[table].format(since=self.since, of_term=of_term)
        else:
            found = SEATED.format(of_term=of_term) if table == "students" and of_term else ""
        return found + (f" AND courses.term_id = {self.term_id:d}" if table == "courses" and of_term else "")

    @property
    def _of_term(self) -> str:
        """Give the condition of enrollments and of events."""
        return "" if self.term_id is None else IN_COURSES.format(term_id=self.term_id)

    @property
    def _year(self) -> str:
        """Give the sourcedId of the school year in which courses are that have no term with both days."""
        return f"school-year-{school_year(self.today)}"

    def _sessions(self, term: SourcedId) -> Sequence[Scan]:
        """Give the terms, and the school year for courses without one, unless a term stands for it already."""
        held = f"EXISTS (SELECT 1 FROM courses WHERE courses.term_id = terms.id{self._of('courses')})"
        terms = DATED if self.since is None and self.term_id is None else f"{DATED} AND {held}"
        year = school_year(self.today)
        undated = f"SELECT 1 FROM {TERM_OF_COURSE} WHERE terms.id IS NULL{self._of('courses')}"
        there = f"SELECT 1 FROM terms WHERE external_id = {literal(self._year)} AND {terms}"
        source = f"(SELECT 1 AS id) AS year WHERE EXISTS ({undated}) AND NOT EXISTS ({there})"
        return (
            self._scan(
                "academicSessions",
                *(f"terms WHERE {terms}", "terms.id", "terms WHERE TRUE"),
                sourcedId=cell(term("terms.id")),
                title=cell("terms.name"),
                type="'term'",
                startDate="terms.starts_on",
                endDate="terms.ends_on",
                schoolYear=f"CAST({SCHOOL_YEAR} AS TEXT)",
            ),
            self._scan(
                "academicSessions",
                *(source, "year.id", "(SELECT 1 AS id) AS year WHERE TRUE"),
                sourcedId=literal(self._year),
                title=f"'{year - 1}/{year}'",
                type="'schoolYear'",
                startDate=f"'{year - 1}-08-01'",
                endDate=f"'{year}-07-31'",
                schoolYear=f"'{year}'",
                metadata_madeUp="'true'",
            ),
        )

    def _org(self) -> Scan:
        source = one = "(SELECT 1 AS id) AS org WHERE TRUE"
        if self.since is not None:
            source = f"{one} AND EXISTS ({CHANGES.format(since=self.since)}{self._of_term})"
        name = cell(literal(self.school))
        return self._scan("orgs", source, "org.id", one, sourcedId=literal(ORG), name=name, type="'school'")

    def _courses(self) -> Scan:
        return self._scan(
            "courses",
            *(f"courses WHERE TRUE{self._of('courses')}", "courses.id", "courses WHERE TRUE"),
            sourcedId="'course-' || CAST(courses.id AS TEXT)",
            title=cell("courses.name"),
            courseCode=CODE,
            orgSourcedId=literal(ORG),
        )

    def _classes(self, course: SourcedId, term: SourcedId) -> Scan:
        session = f"CASE WHEN terms.id IS NULL THEN {literal(self._year)} ELSE {term('terms.id')} END"
        return self._scan(
            "classes",
            *(f"{TERM_OF_COURSE} WHERE TRUE{self._of('courses')}", "courses.id", "courses WHERE TRUE"),
            sourcedId=cell(course("courses.id")),
            title=cell("courses.name"),
            courseSourcedId="'course-' || CAST(courses.id AS TEXT)",
            classCode=CODE,
            classType="'scheduled'",
            schoolSourcedId=literal(ORG),
            termSourcedIds=cell(session),
            metadata_level=cell("courses.level"),
            metadata_capacity=limit("courses.capacity"),
            metadata_waitlistCapacity=limit("courses.waitlist_capacity"),
        )

    def _users(self, student: SourcedId) -> Scan:
        return self._scan(
            "users",
            *(f"students WHERE TRUE{self._of('students')}", "students.id", "students WHERE TRUE"),
            sourcedId=cell(student("students.id")),
            enabledUser="'true'",
            username=cell(student("students.id")),
            givenName=cell(GIVEN),
            familyName=cell(FAMILY),
            identifier=cell("students.external_id"),
            email=cell("students.email"),
            primaryOrgSourcedId=literal(ORG),
            **{f"metadata_{name}": f"CASE WHEN {BOTH_NAMES} THEN '' ELSE {cell(sql)} END" for name, sql in OWN.items()},
        )

    def _roles(self, student: SourcedId) -> Scan:
        return self._scan(
            "roles",
            *(f"students WHERE TRUE{self._of('students')}", "students.id", "students WHERE TRUE"),
            sourcedId="'role-' || CAST(students.id AS TEXT)",
            userSourcedId=cell(student("students.id")),
            roleType="'primary'",
            role="'student'",
            orgSourcedId=literal(ORG),
        )

    def _enrollments(self, student: SourcedId, course: SourcedId) -> Sequence[Scan]:
        cells = {
            "sourcedId": "'enr-' || coalesce(CAST(seat.began AS TEXT), "
            "CAST(seat.student_id AS TEXT) || '-' || CAST(seat.course_id AS TEXT))",
            "classSourcedId": cell(course("seat.course_id")),
            "schoolSourcedId": literal(ORG),
            "userSourcedId": cell(student("seat.student_id")),
            "role": "'student'",
            "beginDate": "seat.begins",
            "endDate": "seat.ends",
        }

        def scan(seats: str, key: str, base: str, after: int = -MAX_ID, **state: str) -> Scan:
            source = f"""({seats}) AS seat
                LEFT JOIN students ON students.id = seat.student_id
                LEFT JOIN courses ON courses.id = seat.course_id
                WHERE TRUE"""
            of_term = "" if self.term_id is None else f" AND courses.term_id = {self.term_id:d}"
            found = self._scan("enrollments", source + of_term, key, base, **cells, **state)
            return attrs.evolve(found, order="seat.course_id", after=after)

        if self.since is None:
            return (scan(SEATS, "seat.student_id", "enrollments AS seat WHERE TRUE"),)
        base = "enrollment_events AS seat WHERE TRUE"
        return (
            scan(LOST_SEATS, "seat.id", base, self.since, status="'tobedeleted'", dateLastModified="seat.at"),
            scan(GIVEN_SEATS, "seat.id", base, self.since, status="'active'", dateLastModified="seat.at"),
        )
