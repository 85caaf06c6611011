"""The SELECTs that find the rows of a school on PostgreSQL that break an invariant; `invariants.py` says what each is.

The feed is the table enrollment_events, which has an event for each change of an enrollment.
"""

PAIR = "'student ' || student_id || ' in course ' || course_id"
EVENT = "'event ' || id"
COUNTED = """
    WITH counted AS (
        SELECT course_id, count(*) - count(waiting) AS seats, count(waiting) AS places
        FROM enrollments
        GROUP BY course_id)"""
# For each student in each course: `told` is the last event in the feed, `stands` is the row in the table enrollments,
# which is a seat or a place in line.
SIDES = """
    WITH
    latest AS (
        SELECT DISTINCT ON (student_id, course_id) student_id, course_id, type || ' ' || at AS told
        FROM enrollment_events
        ORDER BY student_id, course_id, id DESC),
    sides AS (
        SELECT student_id, course_id, told, CASE WHEN waiting IS NOT NULL THEN 'place'
                                                 WHEN enrolled_at IS NOT NULL THEN 'seat ' || enrolled_at END AS stands
        FROM latest
        FULL JOIN enrollments USING (student_id, course_id))"""
AGREES = """
    coalesce(CASE WHEN stands IS NULL THEN told LIKE 'dropped %'
                  WHEN stands = 'place' THEN told LIKE 'waitlisted %'
                  ELSE told IN ('enrolled' || substr(stands, 5), 'promoted' || substr(stands, 5)) END, FALSE)"""
# Events that cannot follow the event before them of the same student and course, such as "promoted" after "dropped".
# `over` tells whether a later "dropped" has ended the enrollment, so that the state now is right again.
MISTOLD = """
    SELECT id, student_id, course_id, coalesce(id <= latest, FALSE) AS over
    FROM (
        SELECT id, student_id, course_id, type, coalesce(lag(type) OVER (pair ORDER BY id), 'dropped') AS before,
               max(id) FILTER (WHERE type = 'dropped') OVER pair AS latest
        FROM enrollment_events
        WINDOW pair AS (PARTITION BY student_id, course_id)) AS steps
    WHERE (before, type) NOT IN (
        VALUES ('dropped', 'enrolled'), ('dropped', 'waitlisted'), ('waitlisted', 'promoted'),
               ('enrolled', 'dropped'), ('waitlisted', 'dropped'), ('promoted', 'dropped'))"""
# The place in line that the feed gives to each student who waits: the id of the last event "waitlisted".
PLACES = """
    SELECT student_id, course_id, max(id) AS place
    FROM enrollment_events
    WHERE type = 'waitlisted'
    GROUP BY student_id, course_id"""


def given_in(table: str) -> str:
    """Give the SELECT of the highest id that the sequence of a table has given."""
    return f"(SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {table}_id_seq)"


# The highest id of each table that the rows and the feed tell of. An id beyond 2^62 was chosen by another program, and
# the next ids need not follow it.
LATEST = " UNION ALL ".join(
    f"""
    SELECT '{table}' AS name, greatest((SELECT max(id) FROM {table}), {event}) AS last, {given_in(table)} AS given"""
    for table, event in (
        ("students", "(SELECT max(student_id) FROM enrollment_events WHERE student_id < 1::bigint << 62)"),
        ("courses", "(SELECT max(course_id) FROM enrollment_events WHERE course_id < 1::bigint << 62)"),
        ("terms", "NULL"),
    )
)
SEQUENCE = f"SELECT 'the table ' || name FROM ({LATEST}) AS latest WHERE last > given"
IDS = " UNION ALL ".join(
    f"SELECT '{noun} ' || id FROM {table} WHERE id < 1"
    for table, noun in (
        ("students", "student"),
        ("courses", "course"),
        ("terms", "term"),
        ("enrollment_events", "event"),
    )
)
REFERENCES = f"""
    SELECT {PAIR} FROM enrollments
    WHERE NOT EXISTS (SELECT FROM students WHERE id = student_id)
       OR NOT EXISTS (SELECT FROM courses WHERE id = course_id)
    UNION ALL
    SELECT 'course ' || id || ' without its term' FROM courses
    WHERE term_id IS NOT NULL AND NOT EXISTS (SELECT FROM terms WHERE terms.id = term_id)
    UNION ALL
    SELECT 'a session without its token ' || token_id FROM api_sessions
    WHERE NOT EXISTS (SELECT FROM api_tokens WHERE id = token_id)"""
STANDING = f"SELECT {PAIR} FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL) OR event_id IS NOT NULL"
LIMITS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id || ' with ' || coalesce(seats, 0) || ' enrolled and ' || coalesce(places, 0)
           || ' waiting'
    FROM courses
    LEFT JOIN counted ON course_id = courses.id
    WHERE seats > capacity OR places > waitlist_capacity OR capacity < 0 OR waitlist_capacity < 0"""
COUNTS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id
    FROM courses
    LEFT JOIN counted ON course_id = courses.id
    WHERE (enrolled, waitlisted) IS DISTINCT FROM (coalesce(seats, 0), coalesce(places, 0))"""
SEATS = f"""
    {COUNTED}
    SELECT 'course ' || courses.id
    FROM courses
    JOIN counted ON course_id = courses.id
    WHERE places > 0 AND (capacity IS NULL OR seats < capacity)"""
LINE = f"""
    SELECT {PAIR} FROM (
        SELECT student_id, course_id,
               count(*) OVER (PARTITION BY course_id, waiting) AS sharing,
               row_number() OVER (PARTITION BY course_id ORDER BY waiting) AS position,
               row_number() OVER (PARTITION BY course_id ORDER BY place) AS turn
        FROM enrollments
        JOIN ({PLACES}) AS told USING (student_id, course_id)
        WHERE waiting IS NOT NULL) AS line
    WHERE position <> turn OR sharing > 1"""
HISTORY = f"SELECT {EVENT}, over FROM ({MISTOLD}) AS mistold"
STATE = f"{SIDES} SELECT {PAIR} FROM sides WHERE NOT {AGREES}"
# Events that gave a seat (at the event `until`) although a student who came earlier to the same course was still in
# line, and that were no override. That student was so if the event that took the student out of the line came after
# `until`, or never came, for which the largest integer stands.
TURNS = """
    WITH
    steps AS (
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
        FROM arrivals) AS seats
    WHERE seated AND others > until AND NOT EXISTS (SELECT FROM event_notes WHERE event_id = until AND override)"""
# Each second, and each end with the milliseconds, is looked at once: there are fewer of them than there are times.
TIMES = f"""
    WITH
    times AS (SELECT enrolled_at AS at FROM enrollments UNION ALL SELECT at FROM enrollment_events),
    seconds AS MATERIALIZED (SELECT DISTINCT left(at, 19) AS part FROM times),
    ends AS MATERIALIZED (SELECT DISTINCT substr(at, 20) AS part FROM times),
    wrong AS (
        SELECT part FROM seconds WHERE NOT enrollment_is_time(part || '.000Z')
        UNION ALL
        SELECT part FROM ends WHERE part !~ '^[.][0-9][0-9][0-9]Z$')
    SELECT {PAIR}, FALSE FROM enrollments
    WHERE left(enrolled_at, 19) IN (SELECT part FROM wrong) OR substr(enrolled_at, 20) IN (SELECT part FROM wrong)
    UNION ALL
    SELECT {EVENT}, TRUE FROM enrollment_events
    WHERE left(at, 19) IN (SELECT part FROM wrong) OR substr(at, 20) IN (SELECT part FROM wrong)"""
WINDOWS = """
    SELECT 'course ' || id FROM courses
    WHERE NOT enrollment_is_time(opens_at) OR NOT enrollment_is_time(closes_at) OR closes_at <= opens_at
    UNION ALL
    SELECT 'term ' || id FROM terms
    WHERE NOT (enrollment_is_day(starts_on) AND length(starts_on) = 10)
       OR NOT (enrollment_is_day(ends_on) AND length(ends_on) = 10) OR ends_on < starts_on
    UNION ALL
    SELECT 'token ' || id FROM api_tokens
    WHERE NOT enrollment_is_time(created_at) OR NOT enrollment_is_time(expires_at)
       OR NOT enrollment_is_time(previous_until)
    UNION ALL
    SELECT 'a session of token ' || token_id FROM api_sessions WHERE NOT enrollment_is_time(ends_at)"""
TAKEN = " UNION ALL ".join(
    f"SELECT '{table}, external id ' || quote_literal(external_id) FROM {table} WHERE external_id IS NOT NULL "
    "GROUP BY external_id HAVING count(*) > 1 OR external_id = ''"
    for table in ("students", "courses", "terms")
)
NO_EVENT = "NOT EXISTS (SELECT FROM enrollment_events WHERE id = event_id)"
NOTES = f"SELECT 'the note of event ' || event_id FROM event_notes WHERE {NO_EVENT}"
WORDS_OF_STUDENT = "enrollment_words(name, concat_ws(' ', external_id, left(split_part(email, '@', 1), 200)))"
WORDS_OF_COURSE = "enrollment_words(name, external_id)"
MISSPELT = f"""
    SELECT 'student ' || id FROM students WHERE words IS DISTINCT FROM {WORDS_OF_STUDENT}
    UNION ALL
    SELECT 'course ' || id FROM courses WHERE words IS DISTINCT FROM {WORDS_OF_COURSE}"""
