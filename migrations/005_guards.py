"""Guards: what is stored keeps its rules whoever writes, and with references checked or not.

SQLite checks references only on connections that ask for it, gives a column any type that it is sent, and lets every
program overwrite a count. Triggers refuse that now, each with a message of its own: a refusal that the service knows
begins with its code. And a plain INSERT of a student's and a course's id is enough to enroll: the triggers give the
seat, or the place in line, and put the time into its form.
"""

from collections.abc import Mapping

import peewee as pw
from peewee_migrate import Migrator

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
FORM = "????-??-??T??:??:??.???Z"
"""A time in RFC 3339, in UTC, to the millisecond, as a pattern of GLOB. That it is a time, julianday() tells, but for
February 30, which date() with a modifier gives as March 2."""
NO_TIME = "raise(ABORT, 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one')"
NEXT = "(SELECT coalesce(max(id), 0) + 1 FROM enrollment_events)"
FULL = "raise(ABORT, 'course_full: no seat is free, and no place on the waitlist')"

# Whether the newest event is written and the counts of its course have not moved yet: a trigger on enrollment_events is
# at work. What that trigger enrolled would be neither counted nor told, as SQLite does not run a trigger within itself.
IN_BETWEEN = """(SELECT id > (SELECT coalesce(event_id, 0) FROM courses WHERE id = course_id)
              FROM enrollment_events ORDER BY id DESC LIMIT 1)"""
EVENT = "INSERT INTO enrollment_events (type, at, student_id, course_id)"
BY_EVENT = "raise(ABORT, 'a trigger on enrollment_events cannot enroll: let it be on enrollments')"
# As many as there are free seats, from the head of the line.
HEAD = """
    FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
    LIMIT min(NEW.waitlisted, coalesce(NEW.capacity - NEW.enrolled, NEW.waitlisted))"""
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

# What an UPSERT that updates, or an INSERT OR IGNORE that is ignored, must not come to is checked AFTER an INSERT.
TRIGGERS = {
    "enrollment_refused": f"""
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
    # A row that is not as the course has it to give is left out, and the one that is takes its place. It is not one
    # trigger with enrollment_refused, as SQLite does not run a trigger within itself: what a trigger of another program
    # enrolls because of the row that takes the place would not be checked.
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
                      AND date(substr(NEW.enrolled_at, 1, 10), '+0 days') = substr(NEW.enrolled_at, 1, 10)
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
    "enrollment_added": f"""
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
    # The index of events by student, which has those that are filed, is used only where the statement says so.
    "enrollment_changed": """
        BEFORE UPDATE ON enrollments
        WHEN NEW.student_id <> OLD.student_id OR NEW.course_id <> OLD.course_id OR NEW.waiting IS NOT NULL
          OR NEW.event_id IS NOT OLD.event_id
          OR NOT EXISTS (SELECT 1 FROM enrollment_events
                         WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                           AND type = 'promoted' AND id > OLD.waiting AND filed)
        BEGIN SELECT raise(ABORT, 'an enrollment is added, promoted by a free seat, or dropped'); END""",
    "enrollment_dropped": f"""
        AFTER DELETE ON enrollments BEGIN
            SELECT raise(ABORT, 'no event tells of this enrollment, or a trigger drops it while it is added')
            WHERE NOT EXISTS (SELECT 1 FROM enrollment_events
                              WHERE id = OLD.event_id AND student_id = OLD.student_id AND course_id = OLD.course_id)
              AND NOT EXISTS (SELECT 1 FROM enrollment_events
                              WHERE student_id = OLD.student_id AND course_id = OLD.course_id AND filed);
            UPDATE enrollment_events SET filed = 1 WHERE id = OLD.event_id;
            {EVENT} VALUES ('dropped', {NOW}, OLD.student_id, OLD.course_id);
            UPDATE courses
            SET enrolled = enrolled - (OLD.waiting IS NULL), waitlisted = waitlisted - (OLD.waiting IS NOT NULL),
                event_id = last_insert_rowid()
            WHERE id = OLD.course_id;
            UPDATE courses SET capacity = capacity WHERE id = OLD.course_id AND waitlisted > 0;
        END""",
    # Not OF enrolled: an enrollment, which changes that too, would pay for the size of this trigger.
    "seats_freed": f"""
        AFTER UPDATE OF capacity ON courses
        WHEN NEW.waitlisted > 0 AND (NEW.capacity IS NULL OR NEW.enrolled < NEW.capacity) BEGIN
            {EVENT}
            SELECT 'promoted', {NOW}, student_id, course_id {HEAD};
            UPDATE enrollments SET enrolled_at = {NOW}, waiting = NULL
            WHERE course_id = NEW.id AND waiting <= (SELECT max(head) FROM (SELECT waiting AS head {HEAD}));
            UPDATE courses
            SET enrolled = enrolled + min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                waitlisted = waitlisted - min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                event_id = last_insert_rowid()
            WHERE id = NEW.id;
        END""",
    "event_added": f"""
        BEFORE INSERT ON enrollment_events
        WHEN EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id)
          OR NEW.filed AND (NEW.at NOT GLOB '{FORM}' OR julianday(NEW.at) IS NULL
                            OR date(NEW.at, '+0 days') IS NOT substr(NEW.at, 1, 10))
        BEGIN
            SELECT raise(ABORT, 'events are never changed')
            WHERE EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id);
            SELECT {NO_TIME};
        END""",
    "event_changed": """BEFORE UPDATE ON enrollment_events
        WHEN NEW.filed <> 1 OR (NEW.id, NEW.type, NEW.at, NEW.student_id, NEW.course_id)
          IS NOT (OLD.id, OLD.type, OLD.at, OLD.student_id, OLD.course_id)
        BEGIN SELECT raise(ABORT, 'events are never changed'); END""",
    "event_deleted": "BEFORE DELETE ON enrollment_events BEGIN SELECT raise(ABORT, 'events are never deleted'); END",
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

# The triggers as migration 004 left them.
BEFORE = {
    "enrollment_refused": """
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
    "seats_freed": f"""
        AFTER UPDATE OF capacity, enrolled ON courses
        WHEN NEW.waitlisted > 0 AND (NEW.capacity IS NULL OR NEW.enrolled < NEW.capacity) BEGIN
            {EVENT} SELECT 'promoted', {NOW}, student_id, course_id {HEAD};
            UPDATE enrollments SET enrolled_at = {NOW}, waiting = NULL
            WHERE course_id = NEW.id AND waiting IN (SELECT waiting {HEAD});
            UPDATE courses
            SET enrolled = enrolled + min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                waitlisted = waitlisted - min(waitlisted, coalesce(capacity - enrolled, waitlisted))
            WHERE id = NEW.id;
        END""",
    "event_added": """
        BEFORE INSERT ON enrollment_events WHEN EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id)
        BEGIN SELECT raise(ABORT, 'events are never changed'); END""",
    "event_deleted": TRIGGERS["event_deleted"],
    "enrollment_added": f"""
        AFTER INSERT ON enrollments BEGIN
            UPDATE courses
            SET enrolled = enrolled + (NEW.waiting IS NULL), waitlisted = waitlisted + (NEW.waiting IS NOT NULL)
            WHERE id = NEW.course_id;
            INSERT INTO enrollment_events (filed, type, at, student_id, course_id) VALUES (
                NEW.event_id IS NOT (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events),
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, {NOW}), NEW.student_id, NEW.course_id);
        END""",
    "enrollment_changed": """
        BEFORE UPDATE ON enrollments
        WHEN NEW.student_id <> OLD.student_id OR NEW.course_id <> OLD.course_id OR NEW.waiting IS NOT NULL \
OR NEW.event_id IS NOT OLD.event_id
          OR NOT EXISTS (SELECT 1 FROM enrollment_events
                         WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                           AND type = 'promoted' AND id > OLD.waiting)
        BEGIN SELECT raise(ABORT, 'an enrollment is added, promoted by a free seat, or dropped'); END""",
    "enrollment_dropped": f"""
        AFTER DELETE ON enrollments BEGIN
            UPDATE enrollment_events SET filed = 1 WHERE id = OLD.event_id;
            {EVENT} VALUES ('dropped', {NOW}, OLD.student_id, OLD.course_id);
            UPDATE courses
            SET enrolled = enrolled - (OLD.waiting IS NULL), waitlisted = waitlisted - (OLD.waiting IS NOT NULL)
            WHERE id = OLD.course_id;
        END""",
    "event_changed": TRIGGERS["event_changed"],
}


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Note with each course which event its counts last moved for, and set all triggers anew; no row is changed.

    Whatever another tool made of the triggers that were there, they are the service's own then.
    """
    _drop_triggers(migrator, BEFORE)
    migrator.sql("ALTER TABLE courses ADD COLUMN event_id INTEGER")
    migrator.sql("UPDATE courses SET event_id = (SELECT max(id) FROM enrollment_events WHERE course_id = courses.id)")
    _set_triggers(migrator, TRIGGERS)


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Take the guards away."""
    _drop_triggers(migrator, TRIGGERS)
    migrator.sql("ALTER TABLE courses DROP COLUMN event_id")
    _set_triggers(migrator, BEFORE)


def _drop_triggers(migrator: Migrator, triggers: Mapping[str, str]) -> None:
    for name in triggers:
        migrator.sql(f"DROP TRIGGER IF EXISTS {name}")


def _set_triggers(migrator: Migrator, triggers: Mapping[str, str]) -> None:
    for name, body in triggers.items():
        migrator.sql(f"CREATE TRIGGER {name} {body}")
