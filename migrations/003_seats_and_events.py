"""Seats, waitlists and history. The database itself keeps the counts, the limits and the feed.

A course's row counts who is enrolled and who waits, and its CHECKs are the limits. Triggers
refuse what would unsettle them, move the counts, promote from the waitlist and write the
event, all within the statement that adds or drops; so every writer obeys them, this service
or not, and whatever its OR clause.
"""

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


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Count what is there, give each row that it finds one event, and set the triggers."""
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

    migrator.run(refuse_while_anyone_waits)
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
    migrator.sql("CREATE INDEX enrollment_course_id_student_id ON enrollments (course_id, student_id)")
    for column in ("enrolled", "waitlisted", "capacity", "waitlist_capacity"):
        migrator.sql(f"ALTER TABLE courses DROP COLUMN {column}")
