"""The SELECTs that find the rows that break an invariant; `invariants.py` says what each invariant is.

The feed is the table enrollment_events, which has an event for each change of an enrollment.
"""

FORM = "%Y-%m-%dT%H:%M:%fZ"
"""RFC 3339 in UTC, to the millisecond, as SQLite's strftime writes it."""


def in_form(time: str) -> str:
    """Give the SQL condition that a time is in the form FORM.

    The modifier '+0 days' makes SQLite compute the date; without a modifier it accepts February 30.
    """
    return f"(strftime('{FORM}', {time}) IS {time} AND date({time}, '+0 days') IS substr({time}, 1, 10))"


PAIR = "'student ' || quote(student_id) || ' in course ' || quote(course_id)"
EVENT = "'event ' || quote(id)"
NAMES = {
    "students": "'student ' || quote(id)",
    "courses": "'course ' || quote(id)",
    "enrollments": PAIR,
    "enrollment_events": EVENT,
    "terms": "'term ' || quote(id)",
    "event_notes": "'the note of event ' || quote(event_id)",
    "api_tokens": "'token ' || quote(id)",
    "api_sessions": "'a session of token ' || quote(token_id)",
}
_KEYS = {
    "enrollments": "student_id, course_id",
    "event_notes": "event_id",
    "api_tokens": "id",
    "api_sessions": "hash",
}
"""The primary key of a table, where it is not an `id` that SQLite gives."""

COUNTED = """
    WITH counted AS (
        SELECT course_id, count(*) - count(waiting) AS seats, count(waiting) AS places
        FROM enrollments
        GROUP BY course_id)"""
# For each student in each course: `told` is the last event in the feed, `stands` is the row in the table enrollments,
# which is a seat or a place in line.
SIDES = """
    WITH sides AS (
        SELECT student_id, course_id, substr(max(event), 21) AS told, max(enrollment) AS stands
        FROM (
            SELECT student_id, course_id, printf('%019d ', id) || type || ' ' || at AS event, NULL AS enrollment
            FROM enrollment_events
            UNION ALL
            SELECT student_id, course_id, NULL, CASE WHEN waiting IS NULL THEN 'seat ' || coalesce(enrolled_at, '')
                                                     ELSE 'place' END
            FROM enrollments)
        GROUP BY student_id, course_id)"""
AGREES = """
    coalesce(CASE WHEN stands IS NULL THEN told LIKE 'dropped %'
                  WHEN stands = 'place' THEN told LIKE 'waitlisted %'
                  ELSE told IN ('enrolled' || substr(stands, 5), 'promoted' || substr(stands, 5)) END, FALSE)"""
# Events that cannot follow the event before them of the same student and course, such as "promoted" after "dropped".
# `over` tells whether a later "dropped" has ended the enrollment, so that the state now is right again.
MISTOLD = """
    SELECT steps.id, steps.student_id, steps.course_id, coalesce(steps.id <= drops.latest, FALSE) AS over
    FROM (
        SELECT id, student_id, course_id, type, coalesce(lag(type) OVER pair, 'dropped') AS before
        FROM enrollment_events
        WINDOW pair AS (PARTITION BY student_id, course_id ORDER BY id)) AS steps
    LEFT JOIN (
        SELECT student_id, course_id, max(id) AS latest
        FROM enrollment_events
        WHERE type = 'dropped'
        GROUP BY student_id, course_id) AS drops
      ON drops.student_id = steps.student_id AND drops.course_id = steps.course_id
    WHERE (steps.before, steps.type) NOT IN (
        VALUES ('dropped', 'enrolled'), ('dropped', 'waitlisted'), ('waitlisted', 'promoted'),
               ('enrolled', 'dropped'), ('waitlisted', 'dropped'), ('promoted', 'dropped'))"""
# The place in line that the feed gives to each student who waits: the id of the last event "waitlisted".
PLACES = """
    SELECT student_id, course_id, max(id) AS place
    FROM enrollment_events
    WHERE type = 'waitlisted'
    GROUP BY student_id, course_id"""
# Events that a student's feed would leave out: it finds an event in the index of events by student, which has those
# with `filed` alone, or by the column event_id of the enrollment. These events are found in neither way.
UNFILED = """
    SELECT enrollment_events.id FROM enrollment_events
    LEFT JOIN enrollments
      ON enrollments.student_id = enrollment_events.student_id
     AND enrollments.course_id = enrollment_events.course_id
     AND enrollments.event_id = enrollment_events.id
    WHERE NOT enrollment_events.filed AND enrollments.student_id IS NULL"""
# SQLite never gave an id so high: another program chose the number itself, and the next ids must not follow it.
BEYOND = 1 << 62
LATEST = " UNION ALL ".join(
    f"""
    SELECT '{table}' AS name, max(
        coalesce((SELECT max(id) FROM {table}), 0),
        coalesce((SELECT max({column}) FROM enrollment_events WHERE {column} < {BEYOND}), 0)) AS last"""
    for table, column in (("students", "student_id"), ("courses", "course_id"))
)
SEQUENCE = f"""
    SELECT 'the table ' || name FROM ({LATEST})
    LEFT JOIN sqlite_sequence USING (name)
    WHERE last > coalesce(seq, 0)"""
IDS = " UNION ALL ".join(
    f"SELECT {label} FROM {table} GROUP BY {_KEYS.get(table, 'id')} "
    f"HAVING count(*) > 1{'' if table in _KEYS else ' OR id < 1'}"
    for table, label in NAMES.items()
)
STANDING = f"SELECT {PAIR} FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL)"
REFERENCES = f"""
    SELECT {PAIR} FROM (
        SELECT enrollments.student_id, enrollments.course_id FROM enrollments
        LEFT JOIN students ON students.id = enrollments.student_id
        LEFT JOIN courses ON courses.id = enrollments.course_id
        WHERE students.id IS NULL OR courses.id IS NULL)"""
LIMITS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id || ' with ' || coalesce(counted.seats, 0) || ' enrolled and '
           || coalesce(counted.places, 0) || ' waiting'
    FROM courses
    LEFT JOIN counted ON counted.course_id = courses.id
    WHERE counted.seats > courses.capacity OR counted.places > courses.waitlist_capacity
       OR courses.capacity < 0 OR courses.waitlist_capacity < 0"""
COUNTS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id
    FROM courses
    LEFT JOIN counted ON counted.course_id = courses.id
    WHERE (courses.enrolled, courses.waitlisted) IS NOT (coalesce(counted.seats, 0), coalesce(counted.places, 0))"""
SEATS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id
    FROM courses
    LEFT JOIN counted ON counted.course_id = courses.id
    WHERE coalesce(counted.places, 0) > 0 AND (courses.capacity IS NULL OR counted.seats < courses.capacity)"""
LINE = f"""
    SELECT {PAIR} FROM (
        SELECT told.student_id, told.course_id,
               count(*) OVER (PARTITION BY told.course_id, enrollments.waiting) AS sharing,
               row_number() OVER (PARTITION BY told.course_id ORDER BY enrollments.waiting) AS position,
               row_number() OVER (PARTITION BY told.course_id ORDER BY told.place) AS turn
        FROM enrollments
        CROSS JOIN ({PLACES}) AS told
          ON told.student_id = enrollments.student_id AND told.course_id = enrollments.course_id
        WHERE enrollments.waiting IS NOT NULL)
    WHERE position <> turn OR sharing > 1"""
HISTORY = f"SELECT {EVENT}, over FROM ({MISTOLD})"
STATE = f"{SIDES} SELECT {PAIR} FROM sides WHERE NOT {AGREES}"
# Events that gave a seat (at the event `until`) although a student who came earlier to the same course was still in
# line, and that were no override. That student was so if the event that took the student out of the line came after
# `until`, or never came, for which the largest integer stands.
TURNS = """
    WITH steps AS (
        SELECT id, course_id, type, lead(id) OVER pair AS following, lead(type) OVER pair AS next
        FROM enrollment_events
        WINDOW pair AS (PARTITION BY student_id, course_id ORDER BY id)),
    arrivals AS (
        SELECT id, course_id, type = 'enrolled' OR coalesce(next = 'promoted', FALSE) AS seated,
               CASE type WHEN 'enrolled' THEN id ELSE coalesce(following, 9223372036854775807) END AS until
        FROM steps
        WHERE type IN ('enrolled', 'waitlisted'))
    SELECT 'event ' || until, others < 9223372036854775807 FROM (
        SELECT seated, until, max(until) OVER (
            PARTITION BY course_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS others
        FROM arrivals)
    WHERE seated AND others > until AND until NOT IN (SELECT event_id FROM event_notes WHERE override)"""
TIMES = f"""
    SELECT {PAIR}, FALSE FROM enrollments WHERE enrolled_at IS NOT NULL AND NOT {in_form("enrolled_at")}
    UNION ALL
    SELECT {EVENT}, TRUE FROM enrollment_events WHERE NOT {in_form("at")}"""
WINDOWS = f"""
    SELECT 'course ' || id FROM courses
    WHERE opens_at IS NOT NULL AND NOT {in_form("opens_at")} OR closes_at IS NOT NULL AND NOT {in_form("closes_at")}
       OR closes_at <= opens_at
    UNION ALL
    SELECT 'term ' || id FROM terms
    WHERE date(starts_on, '+0 days') IS NOT starts_on OR date(ends_on, '+0 days') IS NOT ends_on
       OR ends_on < starts_on
    UNION ALL
    SELECT {NAMES["api_tokens"]} FROM api_tokens
    WHERE NOT ({in_form("created_at")} AND {in_form("coalesce(expires_at, created_at)")}
               AND {in_form("coalesce(previous_until, created_at)")})
    UNION ALL
    SELECT {NAMES["api_sessions"]} FROM api_sessions WHERE NOT {in_form("ends_at")}"""
TAKEN = " UNION ALL ".join(
    f"SELECT '{table}, external id ' || quote(external_id) FROM {table} WHERE external_id IS NOT NULL "
    "GROUP BY external_id HAVING count(*) > 1 OR external_id = ''"
    for table in ("students", "courses", "terms")
)
NO_EVENT = "event_id NOT IN (SELECT id FROM enrollment_events)"
NOTES = f"SELECT {NAMES['event_notes']} FROM event_notes WHERE {NO_EVENT}"
FILED = f"SELECT {EVENT} FROM ({UNFILED})"
