"""The table of enrollments: which student is in which course, a many-to-many."""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Create the table, and the index that a course's roster is read from; no row of students and courses changes."""
    migrator.sql("""
        CREATE TABLE enrollments (
            student_id INTEGER NOT NULL REFERENCES students (id) ON DELETE RESTRICT,
            course_id INTEGER NOT NULL REFERENCES courses (id) ON DELETE RESTRICT,
            enrolled_at VARCHAR(24) NOT NULL,
            PRIMARY KEY (student_id, course_id)
        ) WITHOUT ROWID""")
    migrator.sql("CREATE INDEX enrollment_course_id_student_id ON enrollments (course_id, student_id)")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Drop the enrollments; students and courses are not touched."""
    migrator.sql("DROP TABLE enrollments")
