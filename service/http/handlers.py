"""The handlers: each asks a rule for what one operation is about, and answers."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from service import bulk, courses, enrollments, events, students
from service.courses import CourseRecord
from service.enrolling import EnrollmentRecord, enroll_each, find_enrollment
from service.enrollments import RosterRow, ScheduleRow
from service.events import EventRecord
from service.fields import Id, word
from service.http.answers import (
    BulkResults,
    Created,
    Health,
    NoContent,
    Ok,
    Page,
    Stream,
    bulk_results,
    created,
    no_content,
    ok,
    page,
)
from service.http.calls import Call, Rows
from service.http.edge import NothingThere
from service.http.payloads import (
    CourseChanges,
    CourseValues,
    NewCourse,
    NewEnrollment,
    NewStudent,
    StudentChanges,
    StudentValues,
    given,
)
from service.http.problems import PROBLEMS, Explanation
from service.http.queries import (
    BulkQuery,
    CourseQuery,
    EventQuery,
    PageQuery,
    ReasonQuery,
    RosterQuery,
    ScheduleQuery,
    StudentQuery,
    both_names,
    joined,
)
from service.rows import ExternalId
from service.students import StudentRecord

Code = Annotated[str, word(Literal[*PROBLEMS])]
"""The code of a problem."""


async def create_student(call: Call, payload: NewStudent) -> Created[StudentRecord]:
    """Add a student."""
    student = await call.store.write(partial(students.insert_student, **given(payload)))
    return created(student, call.url(f"/students/{student.id}"))


async def list_students(call: Call, query: StudentQuery) -> Page[StudentRecord]:
    """List students by id, or those whose name begins so, by (name, id)."""
    asked = partial(students.list_students, q=query.q, external_id=query.external_id)
    rows = await call.store.read(asked, query.name, _key(query), query.limit + 1)
    return page(call, rows, query.limit, _cursor(call, query))


async def show_student(call: Call, student_id: Id) -> Ok[StudentRecord]:
    """Show one student."""
    return ok(await call.store.read(students.find_student, student_id))


async def show_student_by_external_id(call: Call, external_id: ExternalId) -> Ok[StudentRecord]:
    """Show the student with an external id."""
    return ok(await call.store.read(students.find_student, external_id))


async def put_student(
    call: Call, external_id: ExternalId, values: StudentValues
) -> Created[StudentRecord] | Ok[StudentRecord]:
    """Add the student with an external id, or change the one who has it."""
    student, new = await call.store.write(students.put_student, external_id.text, given(values))
    return created(student, call.url(f"/students/{student.id}")) if new else ok(student)


async def update_student(call: Call, student_id: Id, changes: StudentChanges) -> Ok[StudentRecord]:
    """Change a student."""
    return ok(await call.store.write(students.update_student, student_id, given(changes)))


async def delete_student(call: Call, student_id: Id) -> NoContent:
    """Remove a student who has no enrollments."""
    await call.store.write(students.delete_student, student_id)
    return no_content()


async def create_course(call: Call, payload: NewCourse) -> Created[CourseRecord]:
    """Add a course."""
    course = await call.store.write(partial(courses.insert_course, **given(payload)))
    return created(course, call.url(f"/courses/{course.id}"))


async def list_courses(call: Call, query: CourseQuery) -> Page[CourseRecord]:
    """List courses by id, or those whose name begins so, by (name, id); of one level or of all."""
    asked = partial(courses.list_courses, q=query.q, external_id=query.external_id, term_id=query.term_id)
    rows = await call.store.read(asked, query.name, query.level, _key(query), query.limit + 1)
    return page(call, rows, query.limit, _cursor(call, query))


async def show_course(call: Call, course_id: Id) -> Ok[CourseRecord]:
    """Show one course."""
    return ok(await call.store.read(courses.find_course, course_id))


async def show_course_by_external_id(call: Call, external_id: ExternalId) -> Ok[CourseRecord]:
    """Show the course with an external id."""
    return ok(await call.store.read(courses.find_course, external_id))


async def put_course(
    call: Call, external_id: ExternalId, values: CourseValues
) -> Created[CourseRecord] | Ok[CourseRecord]:
    """Add the course with an external id, or change the one that has it."""
    course, new = await call.store.write(courses.put_course, external_id.text, given(values))
    return created(course, call.url(f"/courses/{course.id}")) if new else ok(course)


async def update_course(call: Call, course_id: Id, changes: CourseChanges) -> Ok[CourseRecord]:
    """Change a course; a raised capacity gives seats to those who wait."""
    return ok(await call.store.write(courses.update_course, course_id, given(changes)))


async def delete_course(call: Call, course_id: Id) -> NoContent:
    """Remove a course that has no enrollments."""
    await call.store.write(courses.delete_course, course_id)
    return no_content()


async def enroll(call: Call, student_id: Id, payload: NewEnrollment) -> Created[EnrollmentRecord]:
    """Enroll a student in a course: a seat, or else the last place in line."""
    enrollment = await call.store.write_row(enroll_each, call.asked(student_id, payload))
    return created(enrollment, _enrollment_url(call, enrollment))


async def ensure_enrolled(
    call: Call, student_id: Id, course_id: Id, query: ReasonQuery
) -> Created[EnrollmentRecord] | Ok[EnrollmentRecord]:
    """Enroll a student in a course unless it is done already."""
    rule = call.telling(enrollments.ensure_enrolled, query.reason)
    enrollment, new = await call.store.write(rule, student_id, course_id)
    return created(enrollment, _enrollment_url(call, enrollment)) if new else ok(enrollment)


async def show_enrollment(call: Call, student_id: Id, course_id: Id) -> Ok[EnrollmentRecord]:
    """Show one enrollment."""
    return ok(await call.store.read(find_enrollment, student_id, course_id))


async def drop(call: Call, student_id: Id, course_id: Id, query: ReasonQuery) -> NoContent:
    """Take a student out of a course; the seat goes to who waits longest."""
    await call.store.write(call.telling(enrollments.drop, query.reason), student_id, course_id)
    return no_content()


async def show_schedule(call: Call, student_id: Id, query: ScheduleQuery) -> Page[ScheduleRow]:
    """List the courses of one student."""
    after = query.after[1] if query.after else 0
    rows = await call.store.read(enrollments.list_schedule, student_id, query.status, after, query.limit + 1)
    return page(call, rows, query.limit, lambda row: call.cursor(row.id))


async def show_roster(call: Call, course_id: Id, query: RosterQuery) -> Page[RosterRow]:
    """List the students of one course, by id or by family name and given name."""
    after = query.after[1] if query.after else 0
    if query.order == "id":
        rows = await call.store.read(enrollments.list_roster, course_id, after, query.limit + 1)
        return page(call, rows, query.limit, lambda row: call.cursor(row.id))
    behind = (*both_names(query.after[0]), after) if query.after else None
    found = await call.store.read(enrollments.list_roster_by_name, course_id, behind, query.limit + 1)
    names_of = {row.id: joined(*names) for (*names, _), row in found}
    return page(call, [row for _, row in found], query.limit, lambda row: call.cursor(row.id, names_of[row.id]))


async def show_waitlist(call: Call, course_id: Id, query: PageQuery) -> Page[RosterRow]:
    """List who waits for a seat in one course, first come first."""
    after = query.after[1] if query.after else 0
    places = await call.store.read(enrollments.list_waitlist, course_id, after, query.limit + 1)
    place_of = {row.id: place for place, row in places}
    return page(call, [row for _, row in places], query.limit, lambda row: call.cursor(place_of[row.id]))


async def show_events(call: Call, query: EventQuery) -> Page[EventRecord] | Stream:
    """Follow what happened, oldest first."""
    if call.prefers("text/event-stream", "application/json"):
        stream: Stream = await call.app.feeds.listen(call, query)
        return stream
    found = await call.store.read(events.list_events, query.after, query.student_id, query.course_id, query.limit + 1)
    return page(call, found, query.limit, lambda event: str(event.id))


async def enroll_many(call: Call, query: BulkQuery, rows: Rows) -> Ok[BulkResults]:
    """Enroll many students in many courses; each row is answered as it would be alone."""
    results = await bulk.enroll_rows(call.store, rows, atomic=query.atomic, dry_run=query.dry_run)
    return await bulk_results(call, results)


async def show_live(_: Call) -> Ok[Health]:
    """Say that the process answers; the database is not asked."""
    return ok(Health("live"))


async def show_ready(call: Call) -> Ok[Health]:
    """Say that a write would be kept."""
    await call.store.check_ready()
    return ok(Health("ready"))


async def show_problem(_: Call, code: Code) -> Ok[Explanation]:
    """Explain a problem's code."""
    if code not in PROBLEMS:
        raise NothingThere
    return ok(Explanation.of(code))


def _key(query: StudentQuery) -> tuple[str | bytes, int] | tuple[int] | None:
    return query.after if query.by_name or query.after is None else query.after[1:]


def _cursor(call: Call, query: StudentQuery) -> Callable[[StudentRecord | CourseRecord], str]:
    return lambda row: call.cursor(row.id, row.name) if query.by_name else call.cursor(row.id)


def _enrollment_url(call: Call, enrollment: EnrollmentRecord) -> str:
    return call.url(f"/students/{enrollment.student_id}/courses/{enrollment.course_id}")
