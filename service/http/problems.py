"""List every problem type: PROBLEMS gives the HTTP status, the title and the advice for each refusal's code.

`GET /problems/{code}` answers with an entry of PROBLEMS, because RFC 9457, section 3.1.1, wants the type of a problem
to be a URL that leads to documentation.
"""

from typing import Self

import attrs
import msgspec


@attrs.frozen
class Problem:
    """An HTTP status (RFC 9110), a title that never varies, and what a client should do."""

    status: int
    title: str
    advice: str


class Explanation(msgspec.Struct, frozen=True):
    """What the code of a problem means, as GET /problems/{code} tells it."""

    code: str
    status: int
    title: str
    advice: str

    @classmethod
    def of(cls, code: str) -> Self:
        """Explain a code that is in PROBLEMS."""
        row = PROBLEMS[code]
        return cls(code, row.status, row.title, row.advice)


PROBLEMS = {
    "bad_request": Problem(
        400,
        "The request is not HTTP/1.1",
        "Send a request as RFC 9112 has it, with one Host, at most one Content-Type, and one length. Tags in If-Match "
        "and If-None-Match are in quotation marks, as the header ETag has them.",
    ),
    "request_timeout": Problem(
        408,
        "The request did not come in time",
        "Send the whole head within HEAD_TIMEOUT seconds, and the body without a pause of BODY_TIMEOUT seconds.",
    ),
    "uri_too_long": Problem(
        414,
        "The target is too long",
        "Send a path and a query of at most 65,536 bytes.",
    ),
    "headers_too_large": Problem(
        431,
        "The header fields are too large",
        "Send at most 100 header fields and trailers, of at most 65,536 bytes.",
    ),
    "malformed_json": Problem(
        400,
        "The body is not JSON",
        "Send one JSON value in UTF-8, as RFC 8259 has it. NaN and Infinity are not JSON.",
    ),
    "unauthorized": Problem(
        401,
        "A token is needed",
        "Send the header Authorization: Bearer TOKEN. Whoever runs the service makes a token with "
        "python -m service token create. In a browser, begin a session with POST /session.",
    ),
    "invalid_token": Problem(
        401,
        "The token does not count",
        "`detail` says whether the token is mistyped, unknown, replaced, revoked or expired. Whoever runs the service "
        "makes a new one.",
    ),
    "insufficient_scope": Problem(
        403,
        "The token is not for this",
        "`scope` names what the token would have to be for. Whoever runs the service makes a token with that scope.",
    ),
    "foreign_origin": Problem(
        403,
        "A page of another site may not write",
        "A browser sent the request for a page of another site, or of a file. If the page is the service's own and a "
        "proxy changes the Host, whoever runs the service sets PUBLIC_URL. Programs send no Origin, and a token: with "
        "the cookie of a session only the service's own pages may write.",
    ),
    "not_found": Problem(
        404,
        "There is nothing at this path",
        "Check the path. A trailing slash makes it another path.",
    ),
    "student_not_found": Problem(
        404,
        "There is no such student",
        "Check the id: an integer from 1 to 9223372036854775807. GET /students lists them all, "
        "and GET /students?external_id= finds one by the school's own number. "
        "Ids are not used again, so a deleted student's id stays empty.",
    ),
    "course_not_found": Problem(
        404,
        "There is no such course",
        "Check the id: an integer from 1 to 9223372036854775807. GET /courses lists them all, "
        "and GET /courses?external_id= finds one by the school's own number. "
        "Ids are not used again, so a deleted course's id stays empty.",
    ),
    "term_not_found": Problem(
        404,
        "There is no such term",
        "Check the id, or the external id. GET /terms lists them all.",
    ),
    "enrollment_not_found": Problem(
        404,
        "The student is not enrolled in the course",
        "GET /students/{student_id}/courses lists what the student is enrolled in. "
        "After a DELETE that was sent twice this is the second answer: nothing is left to do.",
    ),
    "method_not_allowed": Problem(
        405,
        "The method is not allowed here",
        "The Allow header lists the methods that this path has.",
    ),
    "token_not_found": Problem(
        404,
        "There is no such token",
        "GET /tokens lists all of them. The id is the second part of a token, between its two underscores.",
    ),
    "already_enrolled": Problem(
        409,
        "The student is already enrolled in the course",
        "Nothing is left to do. To enroll so that a retry is safe, use PUT /students/{student_id}/courses/{course_id}.",
    ),
    "already_waitlisted": Problem(
        409,
        "The student is already on the course's waitlist",
        "Nothing is left to do: a seat that falls free goes to the head of the list. "
        "GET /students/{student_id}/courses/{course_id} tells the position.",
    ),
    "course_full": Problem(
        409,
        "The course is full",
        "Try later or choose another course: GET /courses shows `availability` for each.",
    ),
    "enrollment_not_open": Problem(
        409,
        "The course is not open for enrolling yet",
        "Send the request again at `opens_at`, or later.",
    ),
    "enrollment_closed": Problem(
        409,
        "The course is closed for enrolling",
        "Dropping is still possible. Whoever runs the course can change `closes_at`, or override it for one student.",
    ),
    "token_ended": Problem(
        409,
        "The token was revoked or has expired",
        "It never counts again. Make a new one with POST /tokens.",
    ),
    "external_id_taken": Problem(
        409,
        "Another row has this external id",
        "GET the path …/by-external-id/{external_id} to see which one. To add a row or to change the one that has the "
        "external id, whichever it is, use PUT on the same path.",
    ),
    "capacity_below_enrolled": Problem(
        409,
        "The capacity is below the number of students enrolled",
        "Drop students first, or choose a capacity of at least the course's `enrolled`.",
    ),
    "waitlist_capacity_below_waitlisted": Problem(
        409,
        "The waitlist's capacity is below the number of students waiting",
        "Raise `capacity` in the same request, drop students from the list first, "
        "or choose at least the course's `waitlisted`.",
    ),
    "bulk_refused": Problem(
        409,
        "Some rows were refused, so none was kept",
        "`errors` names each refused row and its `code`. Mend or remove those rows and send all again, "
        "or send without atomic=true to keep the others.",
    ),
    "student_has_enrollments": Problem(
        409,
        "The student is enrolled or waiting somewhere",
        "Drop each first, waiting or enrolled: DELETE /students/{student_id}/courses/{course_id}.",
    ),
    "course_has_enrollments": Problem(
        409,
        "The course has students enrolled or waiting",
        "Drop each first, waiting or enrolled: DELETE /students/{student_id}/courses/{course_id}.",
    ),
    "term_has_courses": Problem(
        409,
        "The term has courses",
        "GET /courses?term_id= lists them. Delete them, or give them another term_id, first.",
    ),
    "too_many_drops": Problem(
        409,
        "Too many enrollments are not in the files",
        "Nothing was imported. A dry run lists whom it would drop. If the files are right, allow more: `max_drops`.",
    ),
    "repeated": Problem(
        409,
        "Two rows of the files say different things of the same one",
        "The first one was taken. Leave one of the two rows, and import again.",
    ),
    "constraint_violated": Problem(
        409,
        "A rule of the database refuses this",
        "Nothing was kept. `detail` has the rule's own words, or its name or its table's. "
        "The service did not make the rule: ask who runs it what the rule wants.",
    ),
    "feed_rewound": Problem(
        410,
        "The feed ends before that event",
        "The database was put back to an earlier state, such as a backup. Read the state anew, from the schedules or "
        "from the events after 0, and follow from `newest_id` on.",
    ),
    "precondition_failed": Problem(
        412,
        "The record is not as the request wants it",
        "GET the record again, see what has changed, and send the request with the new ETag in If-Match. A tag that "
        "begins with W/, as a proxy that compresses may make it, never holds there. If-None-Match: * holds while there "
        "is no record. Where `detail` says that no single record is changed, send neither header.",
    ),
    "payload_too_large": Problem(
        413,
        "The body is too large",
        "Send at most 1 MiB, or to POST /enrollments 4 MiB.",
    ),
    "unsupported_media_type": Problem(
        415,
        "The body is of a type that is not accepted",
        "Send Content-Type: application/json, in UTF-8 and without Content-Encoding. PATCH takes "
        "application/merge-patch+json too, POST /enrollments application/x-ndjson.",
    ),
    "misdirected_request": Problem(
        421,
        "The service does not answer to this host",
        "Send a Host that names the service. Whoever runs the service lists its names in ALLOWED_HOSTS; IP addresses "
        "and localhost are always answered.",
    ),
    "invalid_payload": Problem(
        422,
        "The payload breaks its rules",
        "`errors` lists the faults, at most 20; `pointer` (RFC 6901) says where in the body each is.",
    ),
    "invalid_query": Problem(
        422,
        "The query breaks its rules",
        "`errors` lists the faults, at most 20, and the `parameter` that has each. Take `after` only from "
        "the Link header of the page before it, with the same filters; in GET /events it is the last id seen.",
    ),
    "unreadable_file": Problem(
        422,
        "The file cannot be read",
        "`detail` says what is wrong with it, and what to do about it. Nothing was imported.",
    ),
    "invalid_row": Problem(
        422,
        "A row of a file cannot be understood",
        "The report names the file, the line and the column. Mend the row, and import it again.",
    ),
    "internal_error": Problem(
        500,
        "The service failed",
        "This is a defect of the service; its log has the traceback.",
    ),
    "busy": Problem(
        503,
        "The service is busy",
        "Nothing was kept. Wait for Retry-After seconds and send the request again.",
    ),
    "storage_unavailable": Problem(
        503,
        "The database cannot be used",
        "`detail` says whether anything can have been kept. Wait for Retry-After seconds and "
        "send the request again; PUT, PATCH and DELETE are safe to repeat.",
    ),
}
