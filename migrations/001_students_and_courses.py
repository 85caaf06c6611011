"""The tables of students and courses. Their ids are AUTOINCREMENT: SQLite never gives the id of a deleted row again."""

import peewee as pw
from peewee_migrate import Migrator


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Create both tables; a table of the same name that is there already is an error."""
    migrator.sql("""
        CREATE TABLE students (
            id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            name VARCHAR(200) NOT NULL COLLATE NOCASE
        )""")
    migrator.sql("CREATE INDEX student_name_id ON students (name, id)")
    migrator.sql("""
        CREATE TABLE courses (
            id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            name VARCHAR(200) NOT NULL COLLATE NOCASE,
            level VARCHAR(200) NOT NULL
        )""")
    migrator.sql("CREATE INDEX course_name_id ON courses (name, id)")
    migrator.sql("CREATE INDEX course_level_id ON courses (level, id)")
    migrator.sql("CREATE INDEX course_level_name_id ON courses (level, name, id)")


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Drop both tables with their rows."""
    migrator.sql("DROP TABLE courses")
    migrator.sql("DROP TABLE students")
