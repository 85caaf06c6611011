"""The API: the table of routes, and for each a handler that asks the rules and answers."""

import asyncio
from collections.abc import Callable, Mapping

from service import bulk, courses, enrollments, events, students
from service.body import EdgeError
from service.errors import ServiceError
from service.payloads import (
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
from service.problems import PROBLEMS
from service.wire import Handler, Request, Response, created, no_content, ok, page
from service.wire import bulk as bulk_answer

MAX_ROWS = 10_000
"""Rows in a bulk, at most."""
MAX_WHOLE = 2_000
"""Rows in a bulk that is one transaction, at most: it holds the writer to its end."""


async def create_student(request: Request) -> Response:
    """Add a student."""
    payload = await request.payload(NewStudent)
    student = await request.store.write(students.insert_student, payload.name)
    return created(student, request.url(f"/students/{student.id}"))


async def list_students(request: Request, query: StudentQuery) -> Response:
    """List students by id, or those whose name begins so, by (name, id)."""
    rows = await request.store.read(students.list_students, query.name, _key(query), query.limit + 1)
    return page(request, rows, query.limit, _cursor(request, query))


async def show_student(request: Request) -> Response:
    """Show one student."""
    student_id = request.path_id("student_id")
    return ok(await request.store.read(students.find_student, student_id))


async def update_student(request: Request) -> Response:
    """Change a student."""
    student_id = request.path_id("student_id")
    changes = given(await request.payload(StudentChanges))
    return ok(await request.store.write(students.update_student, student_id, changes))


async def delete_student(request: Request) -> Response:
    """Remove a student who has no enrollments."""
    student_id = request.path_id("student_id")
    await request.store.write(students.delete_student, student_id)
    return no_content()


async def create_course(request: Request) -> Response:
    """Add a course."""
    payload = await request.payload(NewCourse)
    course = await request.store.write(
        courses.insert_course, payload.name, payload.level, payload.capacity, payload.waitlist_capacity
    )
    return created(course, request.url(f"/courses/{course.id}"))


async def list_courses(request: Request, query: CourseQuery) -> Response:
    """List courses by id, or those whose name begins so, by (name, id); of one level or of all."""
    rows = await request.store.read(courses.list_courses, query.name, query.level, _key(query), query.limit + 1)
    return page(request, rows, query.limit, _cursor(request, query))


async def show_course(request: Request) -> Response:
    """Show one course."""
    course_id = request.path_id("course_id")
    return ok(await request.store.read(courses.find_course, course_id))


async def update_course(request: Request) -> Response:
    """Change a course."""
    course_id = request.path_id("course_id")
    changes = given(await request.payload(CourseChanges))
    return ok(await request.store.write(courses.update_course, course_id, changes))


async def delete_course(request: Request) -> Response:
    """Remove a course that has no enrollments."""
    course_id = request.path_id("course_id")
    await request.store.write(courses.delete_course, course_id)
    return no_content()


async def enroll(request: Request) -> Response:
    """Enroll a student in a course."""
    student_id = request.path_id("student_id")
    payload = await request.payload(NewEnrollment)
    enrollment = await request.store.write(enrollments.enroll, student_id, payload.course_id)
    return created(enrollment, _enrollment_url(request, enrollment))


async def ensure_enrolled(request: Request) -> Response:
    """Enroll a student in a course unless it is done already."""
    student_id, course_id = request.path_id("student_id"), request.path_id("course_id")
    enrollment, new = await request.store.write(enrollments.ensure_enrolled, student_id, course_id)
    return created(enrollment, _enrollment_url(request, enrollment)) if new else ok(enrollment)


async def show_enrollment(request: Request) -> Response:
    """Show one enrollment."""
    student_id, course_id = request.path_id("student_id"), request.path_id("course_id")
    return ok(await request.store.read(enrollments.find_enrollment, student_id, course_id))


async def drop(request: Request) -> Response:
    """Take a student out of a course."""
    student_id, course_id = request.path_id("student_id"), request.path_id("course_id")
    await request.store.write(enrollments.drop, student_id, course_id)
    return no_content()


async def show_schedule(request: Request, query: ScheduleQuery) -> Response:
    """List the courses of one student."""
    student_id = request.path_id("student_id")
    after = query.after[1] if query.after else 0
    rows = await request.store.read(enrollments.list_schedule, student_id, query.status, after, query.limit + 1)
    return page(request, rows, query.limit, lambda row: request.cursor(row.id))


async def show_roster(request: Request, query: PageQuery) -> Response:
    """List the students of one course."""
    course_id = request.path_id("course_id")
    after = query.after[1] if query.after else 0
    rows = await request.store.read(enrollments.list_roster, course_id, after, query.limit + 1)
    return page(request, rows, query.limit, lambda row: request.cursor(row.id))


async def show_waitlist(request: Request, query: PageQuery) -> Response:
    """List who waits for a seat in one course, first come first."""
    course_id = request.path_id("course_id")
    after = query.after[1] if query.after else 0
    places = await request.store.read(enrollments.list_waitlist, course_id, after, query.limit + 1)
    place_of = {row.id: place for place, row in places}
    return page(request, [row for _, row in places], query.limit, lambda row: request.cursor(place_of[row.id]))


async def show_events(request: Request, query: EventQuery) -> Response:
    """Follow what happened, oldest first."""
    found = await request.store.read(
        events.list_events, query.after, query.student_id, query.course_id, query.limit + 1
    )
    return page(request, found, query.limit, lambda event: str(event.id))


async def enroll_many(request: Request, query: BulkQuery) -> Response:
    """Enroll many students in many courses, slice by slice so that others get their turn."""
    whole = query.atomic or query.dry_run
    rows = await request.rows(MAX_WHOLE if whole else MAX_ROWS)
    results: list[enrollments.Result] = []
    if whole:
        results = await request.store.write(bulk.enroll_all, rows, query.atomic, query.dry_run, alone=True)
    while len(results) < len(rows):
        try:
            results += await request.store.write(bulk.enroll_many, rows[len(results) :], alone=True)
        except ServiceError as error:
            if not results:
                raise
            # What is committed stays; each row that is left gets the refusal.
            results += [error] * (len(rows) - len(results))
    return await asyncio.to_thread(bulk_answer, request, results)


async def show_live(_: Request) -> Response:
    """Say that the process answers."""
    return ok({"status": "live"})


async def show_ready(request: Request) -> Response:
    """Say that a write would be kept."""
    await request.store.check_ready()
    return ok({"status": "ready"})


async def show_problem(request: Request) -> Response:
    """Explain a problem's code."""
    code = request.path("code")
    if code not in PROBLEMS:
        raise unknown_path()
    row = PROBLEMS[code]
    return ok({"code": code, "status": row.status, "title": row.title, "advice": row.advice})


def unknown_path() -> EdgeError:
    """Make the refusal of a path that is not in the table."""
    return EdgeError("not_found", "There is nothing at this path.")


def _key(query: StudentQuery) -> tuple[str | bytes, int] | tuple[int] | None:
    return query.after if query.name is not None or query.after is None else query.after[1:]


def _cursor(request: Request, query: StudentQuery) -> Callable[[students.Student | courses.Course], str]:
    return lambda row: request.cursor(row.id) if query.name is None else request.cursor(row.id, row.name)


def _enrollment_url(request: Request, enrollment: enrollments.Enrollment) -> str:
    return request.url(f"/students/{enrollment.student_id}/courses/{enrollment.course_id}")


ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/students/{student_id}/courses": {"GET": show_schedule, "POST": enroll},
    "/students/{student_id}/courses/{course_id}": {"GET": show_enrollment, "PUT": ensure_enrolled, "DELETE": drop},
    "/enrollments": {"POST": enroll_many},
    "/events": {"GET": show_events},
    "/students": {"GET": list_students, "POST": create_student},
    "/students/{student_id}": {"GET": show_student, "PATCH": update_student, "DELETE": delete_student},
    "/courses": {"GET": list_courses, "POST": create_course},
    "/courses/{course_id}": {"GET": show_course, "PATCH": update_course, "DELETE": delete_course},
    "/courses/{course_id}/students": {"GET": show_roster},
    "/courses/{course_id}/waitlist": {"GET": show_waitlist},
    "/health/live": {"GET": show_live},
    "/health/ready": {"GET": show_ready},
    "/problems/{code}": {"GET": show_problem},
}
"""Path to method to handler; the most asked for come first, as the router tries them in turn."""
