"""Guards: what is stored keeps its rules whoever writes, and with references checked or not.

SQLite checks references only on connections that ask for it, gives a column any type that it is sent, and lets every
program overwrite a count. Triggers refuse that now, each with a message of its own: a refusal that the service knows
begins with its code. And a plain INSERT of a student's and a course's id is enough to enroll: the triggers give the
seat, or the place in line, and put the time into its form.
"""

import peewee as pw
from peewee_migrate import Migrator

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
FORM = "????-??-??T??:??:??.???Z"
"""A time in RFC 3339, in UTC, to the millisecond, as a pattern of GLOB; that it is a time, julianday() tells."""
NO_TIME = "raise(ABORT, 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one')"
NEWEST = "(SELECT max(id) FROM enrollment_events)"
NEXT = "(SELECT coalesce(max(id), 0) + 1 FROM enrollment_events)"
IN_BETWEEN = f"""(SELECT coalesce(event_id, 0) FROM courses
              WHERE id = (SELECT course_id FROM enrollment_events WHERE id = {NEWEST})) < {NEWEST}"""
"""Whether an event is written and the counts of its course have not moved yet: a trigger on the events is at work. What
that one enrolled would be neither counted nor told, as SQLite does not run a trigger within itself."""
BY_EVENT = "raise(ABORT, 'a trigger on enrollment_events cannot enroll: let it be on enrollments')"
FULL = "raise(ABORT, 'course_full: no seat is free, and no place on the waitlist')"

# A trigger, a passage of it, and what takes its place.
CHANGED = (
    (
        "enrollment_refused",
        """
        BEFORE INSERT ON enrollments BEGIN
            SELECT raise(ABORT, 'already enrolled or waiting')
            FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id;
            SELECT raise(ABORT, 'no seat, no place in line, or a seat instead of one')
            FROM courses
            WHERE id = NEW.course_id
              AND CASE WHEN NEW.waiting IS NULL THEN enrolled >= capacity
                       ELSE capacity IS NULL OR enrolled < capacity OR waitlisted >= waitlist_capacity
                         OR NEW.waiting <> (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events) END;
        END""",
        f"""
        BEFORE INSERT ON enrollments
        WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
          OR NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
          OR NEW.event_id IS NULL AND {IN_BETWEEN}
        BEGIN
            SELECT CASE
                WHEN NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
                THEN raise(ABORT, 'student_not_found: no student has this id')
                WHEN (SELECT waiting IS NULL FROM enrollments
                      WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
                THEN raise(ABORT, 'already_enrolled: the student has a seat in the course')
                WHEN EXISTS (SELECT 1 FROM enrollments
                             WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
                THEN raise(ABORT, 'already_waitlisted: the student waits for a seat in the course')
                ELSE {BY_EVENT} END;
        END""",
    ),
    (
        "enrollment_added",
        f"""
        AFTER INSERT ON enrollments BEGIN
            UPDATE courses
            SET enrolled = enrolled + (NEW.waiting IS NULL), waitlisted = waitlisted + (NEW.waiting IS NOT NULL)
            WHERE id = NEW.course_id;
            INSERT INTO enrollment_events (filed, type, at, student_id, course_id) VALUES (
                NEW.event_id IS NOT (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events),
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, {NOW}), NEW.student_id, NEW.course_id);
        END""",
        f"""
        AFTER INSERT ON enrollments BEGIN
            INSERT INTO enrollment_events (filed, type, at, student_id, course_id) VALUES (
                NEW.event_id IS NOT {NEXT},
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, {NOW}), NEW.student_id, NEW.course_id);
            UPDATE courses
            SET enrolled = CASE WHEN NEW.waiting IS NOT NULL THEN enrolled
                                WHEN enrolled >= capacity THEN {FULL} ELSE enrolled + 1 END,
                waitlisted = CASE WHEN NEW.waiting IS NULL THEN waitlisted
                                  WHEN waitlisted >= waitlist_capacity OR enrolled < capacity OR capacity IS NULL
                                  THEN {FULL} ELSE waitlisted + 1 END,
                event_id = last_insert_rowid()
            WHERE id = NEW.course_id;
            SELECT raise(ABORT, 'course_not_found: no course has this id') WHERE changes() = 0;
        END""",
    ),
    (
        "enrollment_changed",
        "AND type = 'promoted' AND id > OLD.waiting)",
        # The index of events by student, which has those that are filed, is used only where the statement says so.
        "AND type = 'promoted' AND id > OLD.waiting AND filed)",
    ),
    (
        "enrollment_dropped",
        """ON enrollments BEGIN
""",
        """ON enrollments BEGIN
            SELECT raise(ABORT, 'no event tells of this enrollment, or a trigger drops it while it is added')
            WHERE NOT EXISTS (SELECT 1 FROM enrollment_events
                              WHERE id = OLD.event_id AND student_id = OLD.student_id AND course_id = OLD.course_id)
              AND NOT EXISTS (SELECT 1 FROM enrollment_events
                              WHERE student_id = OLD.student_id AND course_id = OLD.course_id AND filed);
""",
    ),
    (
        "enrollment_dropped",
        """waitlisted = waitlisted - (OLD.waiting IS NOT NULL)
            WHERE id = OLD.course_id;""",
        """waitlisted = waitlisted - (OLD.waiting IS NOT NULL),
                event_id = last_insert_rowid()
            WHERE id = OLD.course_id;
            UPDATE courses SET capacity = capacity WHERE id = OLD.course_id AND waitlisted > 0;""",
    ),
    # Not OF enrolled: an enrollment, which changes that too, would pay for the size of this trigger.
    ("seats_freed", "AFTER UPDATE OF capacity, enrolled ON courses", "AFTER UPDATE OF capacity ON courses"),
    (
        "seats_freed",
        "waitlisted = waitlisted - min(waitlisted, coalesce(capacity - enrolled, waitlisted))",
        """waitlisted = waitlisted - min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                event_id = last_insert_rowid()""",
    ),
    (
        "event_added",
        """WHEN EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id)
        BEGIN SELECT raise(ABORT, 'events are never changed'); END""",
        f"""
        WHEN EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id)
          OR NEW.filed AND (NEW.at NOT GLOB '{FORM}' OR julianday(NEW.at) IS NULL)
        BEGIN
            SELECT raise(ABORT, 'events are never changed')
            WHERE EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id);
            SELECT {NO_TIME};
        END""",
    ),
)

COURSE_COLUMNS = """
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'courses.name is a text')
    WHEN typeof(NEW.level) <> 'text' THEN raise(ABORT, 'courses.level is a text')
    WHEN typeof(NEW.capacity) <> 'integer' AND NEW.capacity IS NOT NULL OR NEW.capacity < 0
    THEN raise(ABORT, 'courses.capacity is a whole number from 0, or null')
    WHEN typeof(NEW.waitlist_capacity) <> 'integer' AND NEW.waitlist_capacity IS NOT NULL
      OR NEW.waitlist_capacity < 0
    THEN raise(ABORT, 'courses.waitlist_capacity is a whole number from 0, or null')
    WHEN NEW.capacity < NEW.enrolled
    THEN raise(ABORT, 'capacity_below_enrolled: more students are enrolled than this capacity')
    WHEN NEW.waitlist_capacity < NEW.waitlisted
    THEN raise(ABORT, 'waitlist_capacity_below_waitlisted: more students wait than this waitlist_capacity')"""

# Checked AFTER an INSERT, which an UPSERT that updates, or an INSERT OR IGNORE that is ignored, does not come to.
ADDED = {
    "enrollment_asked": f"""
        BEFORE INSERT ON enrollments
        WHEN CASE WHEN NEW.waiting IS NOT NULL
                  THEN NEW.waiting <> {NEXT}
                    OR (SELECT waitlisted >= waitlist_capacity FROM courses WHERE id = NEW.course_id)
                  WHEN NEW.event_id IS NOT NULL THEN NEW.enrolled_at IS NULL
                  ELSE coalesce(NEW.enrolled_at NOT GLOB '{FORM}', 1)
                    OR (SELECT enrolled >= capacity FROM courses WHERE id = NEW.course_id) END
        BEGIN
            SELECT {BY_EVENT} WHERE {IN_BETWEEN};
            INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting, event_id) VALUES (
                NEW.student_id, NEW.course_id,
                CASE WHEN (SELECT enrolled >= capacity FROM courses WHERE id = NEW.course_id) THEN NULL
                     WHEN coalesce(NEW.enrolled_at, '') = '' THEN {NOW}
                     WHEN NEW.enrolled_at GLOB '????-??-??*' AND julianday(NEW.enrolled_at) IS NOT NULL
                     THEN strftime('%Y-%m-%dT%H:%M:%fZ', NEW.enrolled_at)
                     ELSE {NO_TIME} END,
                (SELECT CASE WHEN enrolled < capacity OR capacity IS NULL THEN NULL
                             WHEN waitlisted >= waitlist_capacity AND EXISTS (
                                 SELECT 1 FROM students WHERE id = NEW.student_id
                             ) AND NOT EXISTS (
                                 SELECT 1 FROM enrollments
                                 WHERE student_id = NEW.student_id AND course_id = NEW.course_id
                             ) THEN {FULL} ELSE {NEXT} END
                 FROM courses WHERE id = NEW.course_id),
                {NEXT});
            SELECT raise(IGNORE);
        END""",
    "student_added": """
        AFTER INSERT ON students WHEN typeof(NEW.name) <> 'text'
        BEGIN SELECT raise(ABORT, 'students.name is a text'); END""",
    "student_changed": """
        BEFORE UPDATE OF id, name ON students WHEN NEW.id IS NOT OLD.id OR typeof(NEW.name) <> 'text' BEGIN
            SELECT raise(ABORT, 'students.name is a text') WHERE NEW.id IS OLD.id;
            SELECT raise(ABORT, 'the id of a student never changes');
        END""",
    "student_deleted": """
        BEFORE DELETE ON students WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'student_has_enrollments: the student is enrolled or waits'); END""",
    "course_added": f"""
        AFTER INSERT ON courses BEGIN
            SELECT CASE {COURSE_COLUMNS}
                WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (0, 0, NULL)
                  OR EXISTS (SELECT 1 FROM enrollments WHERE course_id = NEW.id)
                THEN raise(ABORT, 'the counts of a course belong to its enrollments') END;
        END""",
    "course_changed": f"""
        BEFORE UPDATE OF id, name, level, capacity, waitlist_capacity ON courses BEGIN
            SELECT CASE WHEN NEW.id IS NOT OLD.id THEN raise(ABORT, 'the id of a course never changes')
                {COURSE_COLUMNS} END;
        END""",
    "course_counted": """
        BEFORE UPDATE OF enrolled, waitlisted, event_id ON courses
        WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (OLD.enrolled, OLD.waitlisted, OLD.event_id)
          AND NOT coalesce(NEW.event_id > coalesce(OLD.event_id, 0) AND NEW.event_id = last_insert_rowid(), 0)
        BEGIN SELECT raise(ABORT, 'the counts of a course belong to its enrollments'); END""",
    "course_deleted": """
        BEFORE DELETE ON courses WHEN EXISTS (SELECT 1 FROM enrollments WHERE course_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'course_has_enrollments: students are enrolled or wait'); END""",
}


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Note with each course which event its counts last moved for, and set the triggers; no row is changed."""
    migrator.sql("ALTER TABLE courses ADD COLUMN event_id INTEGER")
    migrator.sql("UPDATE courses SET event_id = (SELECT max(id) FROM enrollment_events WHERE course_id = courses.id)")
    for name, before, after in CHANGED:
        migrator.run(_edit_trigger, database, name, before, after)
    for name, body in ADDED.items():
        migrator.sql(f"CREATE TRIGGER {name} {body}")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Take the guards away."""
    for name in ADDED:
        migrator.sql(f"DROP TRIGGER {name}")
    for name, before, after in reversed(CHANGED):
        migrator.run(_edit_trigger, database, name, after, before)
    migrator.sql("ALTER TABLE courses DROP COLUMN event_id")


def _edit_trigger(database: pw.Database, name: str, before: str, after: str) -> None:
    found = database.execute_sql(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = ?", (name,)
    ).fetchone()
    if found is None or found[0].count(before) != 1:
        message = f"the trigger {name} is not as an earlier migration made it"
        raise ValueError(message)
    database.execute_sql(f"DROP TRIGGER {name}")
    database.execute_sql(found[0].replace(before, after))
