"""List the API: every path and its methods, and for each method the right that a client needs, and the refusals.

The signature of a handler says what its operation takes and gives. The refusals that every query, body, read or write
may end in are not listed here: `operation` adds them.
"""

from collections.abc import Mapping

from service.errors import (
    AlreadyEnrolled,
    AlreadyWaitlisted,
    BulkRefused,
    Busy,
    CapacityBelowEnrolled,
    CourseFull,
    CourseHasEnrollments,
    CourseNotFound,
    EnrollmentNotFound,
    FeedRewound,
    StorageUnavailable,
    StudentHasEnrollments,
    StudentNotFound,
    WaitlistCapacityBelowWaitlisted,
)
from service.http import handlers
from service.http.edge import NothingThere
from service.http.operations import Operation, operation

# The paths that clients ask for most come first, because Starlette's router tries one path after the other.
API: Mapping[str, Mapping[str, Operation]] = {
    "/students/{student_id}/courses": {
        "GET": operation("read", handlers.show_schedule, StudentNotFound),
        "POST": operation(
            "enroll",
            handlers.enroll,
            *(StudentNotFound, CourseNotFound, AlreadyEnrolled, AlreadyWaitlisted, CourseFull),
        ),
    },
    "/students/{student_id}/courses/{course_id}": {
        "GET": operation("read", handlers.show_enrollment, EnrollmentNotFound),
        "PUT": operation("enroll", handlers.ensure_enrolled, StudentNotFound, CourseNotFound, CourseFull),
        "DELETE": operation("enroll", handlers.drop, EnrollmentNotFound),
    },
    "/enrollments": {
        "POST": operation("enroll", handlers.enroll_many, BulkRefused),
    },
    "/events": {
        "GET": operation("read", handlers.show_events, FeedRewound),
    },
    "/students": {
        "GET": operation("read", handlers.list_students),
        "POST": operation("write", handlers.create_student),
    },
    "/students/{student_id}": {
        "GET": operation("read", handlers.show_student, StudentNotFound),
        "PATCH": operation("write", handlers.update_student, StudentNotFound),
        "DELETE": operation("write", handlers.delete_student, StudentNotFound, StudentHasEnrollments),
    },
    "/courses": {
        "GET": operation("read", handlers.list_courses),
        "POST": operation("write", handlers.create_course),
    },
    "/courses/{course_id}": {
        "GET": operation("read", handlers.show_course, CourseNotFound),
        "PATCH": operation(
            "write",
            handlers.update_course,
            *(CourseNotFound, CapacityBelowEnrolled, WaitlistCapacityBelowWaitlisted),
        ),
        "DELETE": operation("write", handlers.delete_course, CourseNotFound, CourseHasEnrollments),
    },
    "/courses/{course_id}/students": {
        "GET": operation("read", handlers.show_roster, CourseNotFound),
    },
    "/courses/{course_id}/waitlist": {
        "GET": operation("read", handlers.show_waitlist, CourseNotFound),
    },
    "/health/live": {
        "GET": operation(None, handlers.show_live),
    },
    "/health/ready": {
        "GET": operation(None, handlers.show_ready, Busy, StorageUnavailable),
    },
    "/problems/{code}": {
        "GET": operation(None, handlers.show_problem, NothingThere),
    },
}
