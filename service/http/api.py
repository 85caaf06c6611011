"""List the API: every path and its methods, and for each method the right that a client needs, and the refusals.

The signature of a handler says what its operation takes and gives. The refusals that every query, body, read or write
may end in are not listed here: `operation` adds them. `conditional` adds what a path that is one record has: the header
ETag, and the conditions of requests.
"""

from service.errors import (
    AlreadyEnrolled,
    AlreadyWaitlisted,
    BulkRefused,
    Busy,
    CapacityBelowEnrolled,
    ConstraintViolated,
    CourseFull,
    CourseHasEnrollments,
    CourseNotFound,
    EnrollmentClosed,
    EnrollmentNotFound,
    EnrollmentNotOpen,
    ExternalIdTaken,
    FeedRewound,
    StorageUnavailable,
    StudentHasEnrollments,
    StudentNotFound,
    TermHasCourses,
    TermNotFound,
    WaitlistCapacityBelowWaitlisted,
)
from service.exchange.errors import TooManyDrops, UnreadableUpload
from service.http import desk, exports, exposition, handlers, imports, office, sessions, tokens
from service.http.conditional import conditional
from service.http.described import Described
from service.http.edge import InvalidToken, NothingThere
from service.http.operations import Api, operation
from service.tokens import TokenEnded, TokenNotFound

NO_SEAT = (EnrollmentNotOpen, EnrollmentClosed, CourseFull)
CAPACITIES = (CapacityBelowEnrolled, WaitlistCapacityBelowWaitlisted)
DESCRIBED = Described(lambda: API)

# The paths that clients ask for most come first, because Starlette's router tries one path after the other.
TABLE: Api = {
    "/students/{student_id}/courses": {
        "GET": operation("read", handlers.show_schedule, StudentNotFound),
        "POST": operation(
            "enroll",
            handlers.enroll,
            *(StudentNotFound, CourseNotFound, AlreadyEnrolled, AlreadyWaitlisted, *NO_SEAT),
        ),
    },
    "/students/{student_id}/courses/{course_id}": {
        "GET": operation("read", handlers.show_enrollment, EnrollmentNotFound),
        "PUT": operation("enroll", handlers.ensure_enrolled, StudentNotFound, CourseNotFound, *NO_SEAT),
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
        "POST": operation("write", handlers.create_student, ExternalIdTaken),
    },
    "/students/{student_id}": {
        "GET": operation("read", handlers.show_student, StudentNotFound),
        "PATCH": operation("write", handlers.update_student, StudentNotFound, ExternalIdTaken),
        "DELETE": operation("write", handlers.delete_student, StudentNotFound, StudentHasEnrollments),
    },
    "/courses": {
        "GET": operation("read", handlers.list_courses),
        "POST": operation("write", handlers.create_course, TermNotFound, ExternalIdTaken),
    },
    "/courses/{course_id}": {
        "GET": operation("read", handlers.show_course, CourseNotFound),
        "PATCH": operation(
            "write",
            handlers.update_course,
            *(CourseNotFound, TermNotFound, ExternalIdTaken, *CAPACITIES),
        ),
        "DELETE": operation("write", handlers.delete_course, CourseNotFound, CourseHasEnrollments),
    },
    "/courses/{course_id}/students": {
        "GET": operation("read", handlers.show_roster, CourseNotFound),
    },
    "/courses/{course_id}/waitlist": {
        "GET": operation("read", handlers.show_waitlist, CourseNotFound),
    },
    "/students/{student_id}/swap": {
        "POST": operation(
            "enroll",
            office.swap,
            *(StudentNotFound, CourseNotFound, EnrollmentNotFound, AlreadyEnrolled, AlreadyWaitlisted, *NO_SEAT),
        ),
    },
    "/students/{student_id}/withdraw": {
        "POST": operation("enroll", office.withdraw, StudentNotFound),
    },
    "/students/{student_id}/erase": {
        "POST": operation("write", office.erase, StudentNotFound),
    },
    "/students/{student_id}/export": {
        "GET": operation("read", office.export, StudentNotFound),
    },
    "/courses/{course_id}/cancel": {
        "POST": operation("enroll", office.cancel, CourseNotFound),
    },
    "/terms": {
        "GET": operation("read", office.list_terms),
        "POST": operation("write", office.create_term, ExternalIdTaken),
    },
    "/terms/{term_id}": {
        "GET": operation("read", office.show_term, TermNotFound),
        "PATCH": operation("write", office.update_term, TermNotFound, ExternalIdTaken),
        "DELETE": operation("write", office.delete_term, TermNotFound, TermHasCourses),
    },
    "/students/by-external-id/{external_id:path}": {
        "GET": operation("read", handlers.show_student_by_external_id, StudentNotFound),
        "PUT": operation("write", handlers.put_student),
    },
    "/courses/by-external-id/{external_id:path}": {
        "GET": operation("read", handlers.show_course_by_external_id, CourseNotFound),
        "PUT": operation("write", handlers.put_course, TermNotFound, *CAPACITIES),
    },
    "/terms/by-external-id/{external_id:path}": {
        "GET": operation("read", office.show_term_by_external_id, TermNotFound),
        "PUT": operation("write", office.put_term),
    },
    "/exports/students.csv": {
        "GET": operation("read", exports.export_students, TermNotFound),
    },
    "/exports/courses.csv": {
        "GET": operation("read", exports.export_courses, TermNotFound),
    },
    "/exports/terms.csv": {
        "GET": operation("read", exports.export_terms, TermNotFound),
    },
    "/exports/enrollments.csv": {
        "GET": operation("read", exports.export_enrollments, TermNotFound),
    },
    "/exports/courses/{course_id}/roster.csv": {
        "GET": operation("read", exports.export_roster, CourseNotFound),
    },
    "/exports/oneroster.zip": {
        "GET": operation("read", exports.export_oneroster, TermNotFound, FeedRewound),
    },
    "/imports": {
        "POST": operation("import", imports.import_files, UnreadableUpload, TooManyDrops),
    },
    "/session": {
        "GET": operation("read", sessions.show_session),
        "POST": operation(None, sessions.open_session, InvalidToken, NothingThere, Busy, StorageUnavailable),
        "DELETE": operation(None, sessions.close_session, NothingThere, Busy, StorageUnavailable),
    },
    "/tokens": {
        "GET": operation("admin", tokens.list_tokens, NothingThere),
        "POST": operation("admin", tokens.create_token, NothingThere, ConstraintViolated),
    },
    "/tokens/{token_id}": {
        "GET": operation("admin", tokens.show_token, NothingThere, TokenNotFound),
        "DELETE": operation("admin", tokens.revoke_token, NothingThere, TokenNotFound, ConstraintViolated),
    },
    "/tokens/{token_id}/rotate": {
        "POST": operation(
            "admin",
            tokens.rotate_token,
            *(NothingThere, TokenNotFound, TokenEnded, ConstraintViolated),
        ),
    },
    "/health/live": {
        "GET": operation(None, handlers.show_live),
    },
    "/health/ready": {
        "GET": operation(None, handlers.show_ready, Busy, StorageUnavailable),
    },
    "/metrics": {
        "GET": operation("metrics", exposition.show_metrics),
    },
    "/problems/{code}": {
        "GET": operation(None, handlers.show_problem, NothingThere),
    },
    "/": {
        "GET": operation(None, DESCRIBED.show_home),
    },
    "/desk": {
        "GET": operation(None, desk.show_desk),
    },
    "/desk/{file}": {
        "GET": operation(None, desk.show_desk_file, NothingThere),
    },
    "/docs": {
        "GET": operation(None, DESCRIBED.show_docs),
    },
    "/openapi.json": {
        "GET": operation(None, DESCRIBED.show_openapi),
    },
}

API: Api = conditional(TABLE)
