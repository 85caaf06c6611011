"""The handlers: each asks a rule for what one operation is about, and answers."""

from collections.abc import Callable

from service import bulk, courses, enrollments, events, students
from service.courses import CourseRecord
from service.enrollments import EnrollmentRecord, RosterRow, ScheduleRow
from service.events import EventRecord
from service.fields import Id
from service.http.answers import (
    BulkResults,
    Created,
    Health,
    NoContent,
    Ok,
    Page,
    bulk_results,
    created,
    no_content,
    ok,
    page,
)
from service.http.calls import Call, Rows
from service.http.edge import NothingThere
from service.http.payloads import (
    BulkQuery,
    CourseChanges,
    CourseQuery,
    EventQuery,
    NewCourse,
    NewEnrollment,
    NewStudent,
    PageQuery,
    ScheduleQuery,
    StudentChanges,
    StudentQuery,
    given,
)
from service.http.problems import PROBLEMS, Explanation
from service.students import StudentRecord


async def create_student(call: Call, payload: NewStudent) -> Created[StudentRecord]:
    """Add a student."""
    student = await call.store.write(students.insert_student, payload.name)
    return created(student, call.url(f"/students/{student.id}"))


async def list_students(call: Call, query: StudentQuery) -> Page[StudentRecord]:
    """List students by id, or those whose name begins so, by (name, id)."""
    rows = await call.store.read(students.list_students, query.name, _key(query), query.limit + 1)
    return page(call, rows, query.limit, _cursor(call, query))


async def show_student(call: Call, student_id: Id) -> Ok[StudentRecord]:
    """Show one student."""
    return ok(await call.store.read(students.find_student, student_id))


async def update_student(call: Call, student_id: Id, changes: StudentChanges) -> Ok[StudentRecord]:
    """Change a student."""
    return ok(await call.store.write(students.update_student, student_id, given(changes)))


async def delete_student(call: Call, student_id: Id) -> NoContent:
    """Remove a student who has no enrollments."""
    await call.store.write(students.delete_student, student_id)
    return no_content()


async def create_course(call: Call, payload: NewCourse) -> Created[CourseRecord]:
    """Add a course."""
    course = await call.store.write(
        courses.insert_course, payload.name, payload.level, payload.capacity, payload.waitlist_capacity
    )
    return created(course, call.url(f"/courses/{course.id}"))


async def list_courses(call: Call, query: CourseQuery) -> Page[CourseRecord]:
    """List courses by id, or those whose name begins so, by (name, id); of one level or of all."""
    rows = await call.store.read(courses.list_courses, query.name, query.level, _key(query), query.limit + 1)
    return page(call, rows, query.limit, _cursor(call, query))


async def show_course(call: Call, course_id: Id) -> Ok[CourseRecord]:
    """Show one course."""
    return ok(await call.store.read(courses.find_course, course_id))


async def update_course(call: Call, course_id: Id, changes: CourseChanges) -> Ok[CourseRecord]:
    """Change a course; a raised capacity gives seats to those who wait."""
    return ok(await call.store.write(courses.update_course, course_id, given(changes)))


async def delete_course(call: Call, course_id: Id) -> NoContent:
    """Remove a course that has no enrollments."""
    await call.store.write(courses.delete_course, course_id)
    return no_content()


async def enroll(call: Call, student_id: Id, payload: NewEnrollment) -> Created[EnrollmentRecord]:
    """Enroll a student in a course: a seat, or else the last place in line."""
    enrollment = await call.store.write_row(enrollments.enroll_each, (student_id, payload.course_id))
    return created(enrollment, _enrollment_url(call, enrollment))


async def ensure_enrolled(
    call: Call, student_id: Id, course_id: Id
) -> Created[EnrollmentRecord] | Ok[EnrollmentRecord]:
    """Enroll a student in a course unless it is done already."""
    enrollment, new = await call.store.write(enrollments.ensure_enrolled, student_id, course_id)
    return created(enrollment, _enrollment_url(call, enrollment)) if new else ok(enrollment)


async def show_enrollment(call: Call, student_id: Id, course_id: Id) -> Ok[EnrollmentRecord]:
    """Show one enrollment."""
    return ok(await call.store.read(enrollments.find_enrollment, student_id, course_id))


async def drop(call: Call, student_id: Id, course_id: Id) -> NoContent:
    """Take a student out of a course; the seat goes to who waits longest."""
    await call.store.write(enrollments.drop, student_id, course_id)
    return no_content()


async def show_schedule(call: Call, student_id: Id, query: ScheduleQuery) -> Page[ScheduleRow]:
    """List the courses of one student."""
    after = query.after[1] if query.after else 0
    rows = await call.store.read(enrollments.list_schedule, student_id, query.status, after, query.limit + 1)
    return page(call, rows, query.limit, lambda row: call.cursor(row.id))


async def show_roster(call: Call, course_id: Id, query: PageQuery) -> Page[RosterRow]:
    """List the students of one course."""
    after = query.after[1] if query.after else 0
    rows = await call.store.read(enrollments.list_roster, course_id, after, query.limit + 1)
    return page(call, rows, query.limit, lambda row: call.cursor(row.id))


async def show_waitlist(call: Call, course_id: Id, query: PageQuery) -> Page[RosterRow]:
    """List who waits for a seat in one course, first come first."""
    after = query.after[1] if query.after else 0
    places = await call.store.read(enrollments.list_waitlist, course_id, after, query.limit + 1)
    place_of = {row.id: place for place, row in places}
    return page(call, [row for _, row in places], query.limit, lambda row: call.cursor(place_of[row.id]))


async def show_events(call: Call, query: EventQuery) -> Page[EventRecord]:
    """Follow what happened, oldest first."""
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


async def show_problem(_: Call, code: str) -> Ok[Explanation]:
    """Explain a problem's code."""
    if code not in PROBLEMS:
        raise NothingThere
    return ok(Explanation.of(code))


def _key(query: StudentQuery) -> tuple[str | bytes, int] | tuple[int] | None:
    return query.after if query.name is not None or query.after is None else query.after[1:]


def _cursor(call: Call, query: StudentQuery) -> Callable[[StudentRecord | CourseRecord], str]:
    return lambda row: call.cursor(row.id) if query.name is None else call.cursor(row.id, row.name)


def _enrollment_url(call: Call, enrollment: EnrollmentRecord) -> str:
    return call.url(f"/students/{enrollment.student_id}/courses/{enrollment.course_id}")
