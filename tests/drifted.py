"""What other programs do to a file: a host that adds what is its own, and tools that lose what is the service's."""

import sqlite3
from contextlib import closing
from pathlib import Path

from service.storage.sqlite.drift import expected, key, parse, tables


def run_script(path: Path, sql: str) -> None:
    """Run SQL as another program would, with SQLite's own defaults."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


HOST = """
    CREATE TABLE rooms (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE grades (student REFERENCES students (id), course REFERENCES courses (id), grade CHECK (grade <> ''));
    CREATE TABLE log (what);
    CREATE INDEX log_what ON log (what);
    CREATE INDEX room_of_course ON courses (level DESC) WHERE capacity IS NOT NULL;
    CREATE UNIQUE INDEX one_name ON students (name COLLATE BINARY, id);
    CREATE VIEW full AS SELECT * FROM courses WHERE enrolled >= capacity;
    CREATE INDEX [it's "one] ON courses (name, capacity);
    CREATE TRIGGER [log "Added"] AFTER INSERT ON enrollments BEGIN INSERT INTO log VALUES (NEW.student_id); END;
    CREATE TRIGGER log_told AFTER INSERT ON enrollment_events BEGIN INSERT INTO log VALUES (NEW.type); END;
    CREATE TRIGGER log_logged AFTER DELETE ON log BEGIN UPDATE courses SET level = level WHERE id = OLD.what; END;
    ALTER TABLE students ADD COLUMN contact TEXT COLLATE NOCASE CHECK (contact LIKE '%@%, (%');
    ALTER TABLE courses ADD COLUMN "check" INTEGER NOT NULL DEFAULT 2;
    ALTER TABLE courses ADD COLUMN room INTEGER REFERENCES rooms (id) ON DELETE SET NULL;
    ALTER TABLE courses ADD COLUMN places AS (capacity + waitlist_capacity);
    ALTER TABLE courses ADD COLUMN [say "hi"] DEFAULT 'hi';
    ALTER TABLE enrollments ADD COLUMN note TEXT DEFAULT 'a, b) c';
    ALTER TABLE enrollment_events ADD COLUMN sent;
"""
# Names that the statements of the service have for something else.
HOST += "".join(
    f"ALTER TABLE {table} ADD COLUMN {column};"
    for table, columns in {
        "students": "student_id course_id told enrolled_at",
        "courses": "student_id course_id seats waiting position enrolled_at",
        "enrollments": "id place promoted capacity name untold type turn",
        "enrollment_events": "waiting place before seats over name",
    }.items()
    for column in columns.split()
)


def rebuilt(table: str, *changes: tuple[str, str]) -> str:
    """Give the SQL that rebuilds a table with some of its definition changed, as other tools do; all else is kept."""
    made = expected()[table].sql
    for before, after in changes:
        assert before in made
        made = made.replace(before, after)
    columns = ", ".join(column for column in tables()[table].definitions if column in parse(made).definitions)
    others = [each.sql for each in expected().values() if each.table == table and each.type != "table"]
    return ";".join(
        [
            "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON",
            made.replace(f"TABLE {table}", "TABLE made"),
            f"INSERT INTO made ({columns}) SELECT {columns} FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE made RENAME TO {table}",
            *others,
        ]
    )


# What is done, and how it is told.
DRIFTED = {
    "no trigger": ("DROP TRIGGER seats_freed", ["the trigger seats_freed is missing"]),
    "no index": (
        "DROP INDEX course_name_id; DROP TRIGGER event_deleted",
        ["the index course_name_id is missing", "the trigger event_deleted is missing"],
    ),
    "another trigger": (
        """DROP TRIGGER event_deleted;
        CREATE TRIGGER event_deleted BEFORE DELETE ON enrollment_events BEGIN SELECT 1; END""",
        ["the trigger event_deleted is not the service's own"],
    ),
    "another index": (
        "DROP INDEX event_student_id_id; CREATE INDEX event_student_id_id ON enrollment_events (student_id, id)",
        ["the index event_student_id_id is not the service's own"],
    ),
    "no check": (
        rebuilt("courses", ("CHECK (enrolled >= 0 AND enrolled <= capacity)", "")),
        ["the table courses lost the CHECK (enrolled >= 0 AND enrolled <= capacity)"],
    ),
    "no null": (
        "UPDATE courses SET capacity = 9 WHERE capacity IS NULL;"
        + rebuilt(
            "courses",
            ("capacity INTEGER,\n", "capacity INTEGER CHECK (1) DEFAULT 9 NOT NULL,\n"),
            ("level VARCHAR(200)", "level"),
        ),
        [
            "the column courses.level is not declared VARCHAR(200)",
            "the column courses.capacity is declared DEFAULT 9",
            "the column courses.capacity is declared NOT NULL",
        ],
    ),
    "no collation": (
        rebuilt(
            "students", ("\n    name VARCHAR(200)", "\n    name TEXT"), (" COLLATE NOCASE", ""), (" AUTOINCREMENT", "")
        ),
        [
            "the column students.name is declared TEXT, not VARCHAR(200)",
            "the column students.name is not declared COLLATE NOCASE, and compares with regard to case",
            "the table students lost AUTOINCREMENT",
        ],
    ),
    "no reference": (
        rebuilt("enrollments", (" ON DELETE RESTRICT,\n    course", ",\n    course"), (") WITHOUT ROWID", ")")),
        [
            "the table enrollments lost the FOREIGN KEY (student_id) REFERENCES students (id) ON DELETE RESTRICT",
            "the table enrollments has the FOREIGN KEY (student_id) REFERENCES students (id)",
            "the table enrollments lost WITHOUT ROWID",
        ],
    ),
    "no key": (
        rebuilt("enrollments", ("PRIMARY KEY (student_id, course_id),", ""), (") WITHOUT ROWID", ")")),
        [
            "the table enrollments lost the PRIMARY KEY (student_id, course_id)",
            "the table enrollments lost WITHOUT ROWID",
        ],
    ),
    "more references": (
        rebuilt(
            "enrollment_events", ("student_id INTEGER NOT NULL", "student_id INTEGER NOT NULL REFERENCES students")
        ),
        ["the table enrollment_events has the FOREIGN KEY (student_id) REFERENCES students"],
    ),
}
"""What `repair` mends."""
if sqlite3.sqlite_version_info >= (3, 37):
    DRIFTED |= {
        "strict": (
            rebuilt(
                "enrollment_events",
                ("VARCHAR(10)", "TEXT"),
                ("VARCHAR(24)", "TEXT"),
                ("filed INTEGER NOT NULL DEFAULT 1\n)", "filed INTEGER DEFAULT 0\n) STRICT"),
            ),
            [
                "the column enrollment_events.type is declared TEXT, not VARCHAR(10)",
                "the column enrollment_events.at is declared TEXT, not VARCHAR(24)",
                "the column enrollment_events.filed is not declared NOT NULL",
                "the column enrollment_events.filed is declared DEFAULT 0, not DEFAULT 1",
                "the table enrollment_events has STRICT",
            ],
        ),
    }
SPOILT = {
    "another's trigger": (
        "DROP TRIGGER seats_freed; CREATE TABLE x (y);CREATE TRIGGER seats_freed AFTER DELETE ON x BEGIN SELECT 1; END",
        ["the trigger seats_freed is not the service's own"],
    ),
    "no table": (
        "DROP TABLE enrollment_events; CREATE VIEW enrollment_events AS SELECT 1",
        [
            f"the {each.type} {each.name} is missing"
            for each in expected().values()
            if each.table == "enrollment_events"
        ],
    ),
    "no column": (
        "ALTER TABLE students RENAME COLUMN name TO full_name",
        [
            "the column students.name is missing",
            *(
                f"the {each.type} {each.name} is not the service's own"
                for each in expected().values()
                if each.name == "words_of_students"
                or (each.table == "students" and each.type == "index" and "name" in key(each.sql))
                or (each.table == "students" and each.type == "trigger" and "NEW.name" in each.sql)
            ),
        ],
    ),
}
"""What it cannot mend."""
