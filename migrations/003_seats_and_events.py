"""Seats, waitlists and history, which the database itself keeps.

The row of a course counts who is enrolled in the course and who waits for it, and CHECK constraints on the counts are
the course's limits. Triggers on enrollments change the counts, promote who waits longest when a seat falls free, and
write an event, all within the one INSERT or DELETE that a program runs. So every program that writes to the file obeys
the limits, whether it is this service or not, and whatever OR clause its statement has.

The migration makes the table of enrollments anew. The triggers and indexes that another program has on the table are
put back on the new one; where one of them cannot be, the migration fails and names it.
"""

import re
from typing import Any

import peewee as pw
from peewee_migrate import Migrator

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
# A rename that neither looks at a host's views nor follows its references, as they are to the new table.
RENAME = (
    "PRAGMA legacy_alter_table = ON",
    "ALTER TABLE enrollments_new RENAME TO enrollments",
    "PRAGMA legacy_alter_table = OFF",
)
EVENT = "INSERT INTO enrollment_events (type, at, student_id, course_id)"

# As many as there are free seats, from the head of the list.
HEAD = """
    FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
    LIMIT min(NEW.waitlisted, coalesce(NEW.capacity - NEW.enrolled, NEW.waitlisted))"""

TRIGGERS = {
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
    "enrollment_added": f"""
        AFTER INSERT ON enrollments BEGIN
            UPDATE courses
            SET enrolled = enrolled + (NEW.waiting IS NULL), waitlisted = waitlisted + (NEW.waiting IS NOT NULL)
            WHERE id = NEW.course_id;
            {EVENT} VALUES (
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, {NOW}), NEW.student_id, NEW.course_id);
        END""",
    "enrollment_changed": """
        BEFORE UPDATE ON enrollments
        WHEN NEW.student_id <> OLD.student_id OR NEW.course_id <> OLD.course_id OR NEW.waiting IS NOT NULL
          OR NOT EXISTS (SELECT 1 FROM enrollment_events
                         WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                           AND type = 'promoted' AND id > OLD.waiting)
        BEGIN SELECT raise(ABORT, 'an enrollment is added, promoted by a free seat, or dropped'); END""",
    "enrollment_dropped": f"""
        AFTER DELETE ON enrollments BEGIN
            {EVENT} VALUES ('dropped', {NOW}, OLD.student_id, OLD.course_id);
            UPDATE courses
            SET enrolled = enrolled - (OLD.waiting IS NULL), waitlisted = waitlisted - (OLD.waiting IS NOT NULL)
            WHERE id = OLD.course_id;
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
    "event_changed": "BEFORE UPDATE ON enrollment_events BEGIN SELECT raise(ABORT, 'events are never changed'); END",
    "event_deleted": "BEFORE DELETE ON enrollment_events BEGIN SELECT raise(ABORT, 'events are never deleted'); END",
}


OURS = {*TRIGGERS, "enrollment_course_id_student_id", "enrollment_course_id_waiting_student_id"}


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Count what is there, give each row that it finds one event, and set the triggers."""
    theirs: list[tuple[str, str, str]] = []
    migrator.run(_note, database, theirs, {"student_id", "course_id", "enrolled_at"})
    migrator.sql("ALTER TABLE courses ADD COLUMN capacity INTEGER")
    migrator.sql("ALTER TABLE courses ADD COLUMN waitlist_capacity INTEGER DEFAULT 0")
    migrator.sql("""
        ALTER TABLE courses ADD COLUMN enrolled INTEGER NOT NULL DEFAULT 0
        CHECK (enrolled >= 0 AND enrolled <= capacity)""")
    migrator.sql("""
        ALTER TABLE courses ADD COLUMN waitlisted INTEGER NOT NULL DEFAULT 0
        CHECK (waitlisted >= 0 AND waitlisted <= waitlist_capacity)""")
    migrator.sql("UPDATE courses SET enrolled = (SELECT count(*) FROM enrollments WHERE course_id = courses.id)")
    migrator.sql("""
        CREATE TABLE enrollments_new (
            student_id INTEGER NOT NULL REFERENCES students (id) ON DELETE RESTRICT,
            course_id INTEGER NOT NULL REFERENCES courses (id) ON DELETE RESTRICT,
            enrolled_at VARCHAR(24),
            waiting INTEGER,
            PRIMARY KEY (student_id, course_id),
            CHECK ((enrolled_at IS NULL) <> (waiting IS NULL))
        ) WITHOUT ROWID""")
    migrator.sql("INSERT INTO enrollments_new SELECT student_id, course_id, enrolled_at, NULL FROM enrollments")
    migrator.sql("DROP TABLE enrollments")
    for statement in RENAME:
        migrator.sql(statement)
    migrator.run(_put_back, database, theirs)
    migrator.sql("""
        CREATE INDEX enrollment_course_id_waiting_student_id
        ON enrollments (course_id, waiting, student_id)""")
    migrator.sql("""
        CREATE TABLE enrollment_events (
            id INTEGER NOT NULL PRIMARY KEY,
            type VARCHAR(10) NOT NULL,
            at VARCHAR(24) NOT NULL,
            student_id INTEGER NOT NULL,
            course_id INTEGER NOT NULL
        )""")
    migrator.sql(f"""
        {EVENT} SELECT 'enrolled', enrolled_at, student_id, course_id
        FROM enrollments ORDER BY enrolled_at, student_id, course_id""")
    migrator.sql("CREATE INDEX event_student_id_id ON enrollment_events (student_id, id)")
    migrator.sql("CREATE INDEX event_course_id_id ON enrollment_events (course_id, id)")
    for name, body in TRIGGERS.items():
        migrator.sql(f"CREATE TRIGGER {name} {body}")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Give up seats, waitlists and history; refused while anyone waits, as there would be no place for them."""

    def refuse_while_anyone_waits() -> None:
        (waiting,) = database.execute_sql("SELECT count(*) FROM enrollments WHERE waiting IS NOT NULL").fetchone()
        if waiting:
            message = f"{waiting} on waitlists would be lost; promote or drop them first"
            raise ValueError(message)

    theirs: list[tuple[str, str, str]] = []
    migrator.run(refuse_while_anyone_waits)
    migrator.run(_note, database, theirs, {"student_id", "course_id", "enrolled_at", "waiting"})
    for name in TRIGGERS:
        migrator.sql(f"DROP TRIGGER {name}")
    migrator.sql("DROP TABLE enrollment_events")
    migrator.sql("""
        CREATE TABLE enrollments_new (
            student_id INTEGER NOT NULL REFERENCES students (id) ON DELETE RESTRICT,
            course_id INTEGER NOT NULL REFERENCES courses (id) ON DELETE RESTRICT,
            enrolled_at VARCHAR(24) NOT NULL,
            PRIMARY KEY (student_id, course_id)
        ) WITHOUT ROWID""")
    migrator.sql("INSERT INTO enrollments_new SELECT student_id, course_id, enrolled_at FROM enrollments")
    migrator.sql("DROP TABLE enrollments")
    for statement in RENAME:
        migrator.sql(statement)
    migrator.run(_put_back, database, theirs)
    migrator.sql("CREATE INDEX enrollment_course_id_student_id ON enrollments (course_id, student_id)")
    for column in ("enrolled", "waitlisted", "capacity", "waitlist_capacity"):
        migrator.sql(f"ALTER TABLE courses DROP COLUMN {column}")


def _note(database: pw.Database, theirs: list[tuple[str, str, str]], columns: set[str]) -> None:
    """Note another program's triggers and indexes on the table; its columns would be lost."""
    found = {row[1].lower() for row in database.execute_sql("PRAGMA table_info(enrollments)").fetchall()}
    if lost := sorted(found - columns):
        message = f"the columns {', '.join(lost)} of another program on enrollments would be lost"
        raise ValueError(message)
    rows: list[Any] = database.execute_sql("""
        SELECT type, name, sql FROM sqlite_master
        WHERE type IN ('index', 'trigger') AND lower(tbl_name) = 'enrollments' AND sql IS NOT NULL
        ORDER BY rowid""").fetchall()
    theirs.extend(row for row in rows if row[1] not in OURS)


def _put_back(database: pw.Database, theirs: list[tuple[str, str, str]]) -> None:
    """Make them again, on the new table."""
    columns = {row[1].lower() for row in database.execute_sql("PRAGMA table_info(enrollments)").fetchall()}
    failures = []
    for kind, name, sql in theirs:
        try:
            database.execute_sql(sql)
        except pw.DatabaseError as error:
            failures.append(f"the {kind} {name} ({error})")
        # SQLite takes a trigger on a column that is gone, and never fires it.
        named = re.search(r"\bUPDATE\s+OF\s+(.+?)\s+ON\b", sql, re.IGNORECASE | re.DOTALL)
        if named and (gone := {column.strip(' \n\t"`[]').lower() for column in named[1].split(",")} - columns):
            failures.append(f"the {kind} {name} (no such column: {min(gone)})")
    if failures:
        message = f"what another program has on enrollments cannot be put back: {', '.join(failures)}"
        raise ValueError(message)
