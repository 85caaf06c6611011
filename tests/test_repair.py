"""`python -m service repair`: what other tools lost comes back, rows and feed agree again, and all else stays."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from drifted import DRIFTED, HOST, SPOILT, rebuilt, run_script
from invariants import check

from service import connect
from service.__main__ import cli
from service.courses import insert_course, update_course
from service.enrollments import drop, enroll
from service.errors import CourseFull, SetupError
from service.events import list_events
from service.storage import fetch
from service.storage.sqlite.check import run
from service.storage.sqlite.drift import expected, quoted, tables
from service.storage.sqlite.schema import migrate, repair, rollback
from service.students import insert_student, list_students

ALL = sorted(path.stem for path in (ROOT / "migrations").glob("0*.py"))
LONG_AGO = "2026-01-01T00:00:00.000Z"
SEAT = "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES"
PLACE = "INSERT INTO enrollments (student_id, course_id, waiting) VALUES"
EVENT = "INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES"
TABLES = ("students", "courses", "enrollments", "enrollment_events")
SCHOOL = ("Algebra", None, 0), ("Logic", 1, 3), ("Music", 2, 2)


@pytest.fixture
def school(path: Path) -> Path:
    """Give a file where 1 and 2 are in Algebra, 2 has the seat in Logic, for which 3 and 4 wait, and 1 is in Music."""
    with closing(connect(path)) as db:
        for number in range(1, 7):
            insert_student(db, f"Student {number}")
        for name, *limits in SCHOOL:
            insert_course(db, name, "A1", *limits)
        for student, course in ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (4, 2)):
            enroll(db, student, course)
        drop(db, 1, 2)
        enroll(db, 1, 3)
    return path


def dump(path: Path) -> list[str]:
    """Give the statements that make the file anew."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def rows(path: Path, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    """Give all that tables hold."""
    with closing(sqlite3.connect(path)) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}


def feed(path: Path, after: int = 0) -> list[tuple[str, int, int]]:
    """Give what the feed tells after an event."""
    with closing(sqlite3.connect(path)) as connection:
        sql = "SELECT type, student_id, course_id FROM enrollment_events WHERE id > ? ORDER BY id"
        return connection.execute(sql, [after]).fetchall()


def without_triggers(path: Path, sql: str) -> None:
    """Run SQL in a file that has lost the service's triggers, without references."""
    dropped = "".join(f"DROP TRIGGER {each.name};" for each in expected().values() if each.type == "trigger")
    run_script(path, dropped + sql)


def spoil(path: Path, table: str, *changes: tuple[str, str]) -> None:
    """Rebuild a table with a part of its definition changed, as a tool does that keeps triggers and indexes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        ((made,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", [table]).fetchall()
        others = connection.execute("SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql <> ?", [table, made])
        columns = ", ".join(quoted(row[1]) for row in connection.execute(f"PRAGMA table_info({table})").fetchall())
        statements = [sql for (sql,) in others.fetchall()]
        for change in changes:
            assert change[0] in made
            made = made.replace(*change)
        for sql in (
            "PRAGMA legacy_alter_table = ON",
            made.replace(table, "made", 1),
            f"INSERT INTO made ({columns}) SELECT {columns} FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE made RENAME TO {table}",
            *statements,
        ):
            connection.execute(sql)


def sound(path: Path) -> bool:
    """Tell whether every invariant holds now."""
    with closing(connect(path)) as db:
        return not any(result.broken for result in run(db))


def command(path: Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["repair", "--database-url", str(path)])


def test_nothing_to_do(school: Path) -> None:
    """A sound file is not touched."""
    before = school.read_bytes()
    assert repair(school) == []
    result = command(school)
    assert (result.exit_code, result.output) == (0, "Nothing was to be done.\n")
    assert school.read_bytes() == before


@pytest.mark.parametrize("name", DRIFTED)
def test_the_schema_comes_back(school: Path, name: str) -> None:
    """What is missing or differs is put back or rebuilt, each said in a line, and no row is changed."""
    sql, found = DRIFTED[name]
    ids = rows(school, "sqlite_sequence")
    run_script(school, sql)
    before = rows(school, *TABLES) | ids
    result = command(school)
    assert result.exit_code == 0
    said = [line.rpartition(": ") for line in result.output.splitlines() if not line.startswith("the next id in")]
    assert [line[0] for line in said] == found
    assert {line[2] for line in said} <= {"put back.", "rebuilt."}
    assert rows(school, *before) == before
    check(school)
    assert repair(school) == []


def test_what_comes_back_is_as_the_migrations_made_it(school: Path) -> None:
    """After everything was lost and repaired, the migrations can be taken back, and forth."""
    run_script(school, "DELETE FROM enrollments WHERE waiting IS NOT NULL")
    for table in TABLES:
        spoil(school, table, ("NOT NULL", ""))
    without_triggers(school, "")
    assert repair(school)
    assert [rollback(school) for _ in ALL] == ALL[::-1]
    assert migrate(school) == ALL
    check(school)


def test_ids_are_not_given_again(school: Path) -> None:
    """The ids of rows that are gone stay theirs, whether SQLite's own note of them, or just the feed, knows them."""
    with closing(connect(school)) as db:
        for _ in range(3):
            insert_student(db, "x")
            insert_course(db, "x", "x")
        enroll(db, 8, 5)
        drop(db, 8, 5)
    run_script(school, "DELETE FROM students WHERE id > 6; DELETE FROM courses WHERE id > 3")
    run_script(school, rebuilt("students", ("name VARCHAR(200)", "name TEXT")))  # SQLite's note is kept: 9.
    run_script(school, "UPDATE sqlite_sequence SET seq = 9 WHERE name = 'students'")
    run_script(school, rebuilt("courses", (" AUTOINCREMENT", "")))  # It is lost, and the feed tells of 5.
    said = repair(school)
    assert "the next id in courses may have been given before: it goes on after that." in said
    with closing(connect(school)) as db:
        assert insert_student(db, "new").id == 10
        assert insert_course(db, "new", "x").id == 6


def test_a_file_that_counts_no_ids(school: Path) -> None:
    """Where all tables have lost AUTOINCREMENT, and a dump SQLite's note of the ids, they come back."""
    for table in ("students", "courses", "terms"):
        run_script(school, rebuilt(table, (" AUTOINCREMENT", "")))
    script = "\n".join(line for line in dump(school) if "sqlite_sequence" not in line)
    school.unlink()
    run_script(school, script)
    assert repair(school)
    assert rows(school, "sqlite_sequence") == {"sqlite_sequence": [("courses", 3), ("students", 6), ("terms", 0)]}
    check(school)


@pytest.mark.parametrize("table", TABLES)
def test_a_host_keeps_what_is_its_own(school: Path, table: str) -> None:
    """A rebuilt table keeps a host's columns with their values, constraints, indexes and triggers; all else stays."""
    run_script(school, HOST)
    run_script(school, """UPDATE students SET contact = id || '@, ('; UPDATE courses SET "check" = id * 7""")
    theirs = f"""
        SELECT type, name, tbl_name, CASE WHEN tbl_name NOT IN ({str(TABLES)[1:-1]}) OR type <> 'table' THEN sql END
        FROM sqlite_master
        WHERE sql IS NOT NULL AND name NOT IN ({str([*expected()])[1:-1]})
        ORDER BY 1, 2"""
    with closing(sqlite3.connect(school)) as connection:
        before = connection.execute(theirs).fetchall()
    change = {
        "students": ("name VARCHAR(200)", "name TEXT UNIQUE CONSTRAINT short CHECK (length(name) < 20)"),
        "courses": ("VARCHAR", "CHAR"),
        "enrollments": ("waiting INTEGER", "waiting BIGINT REFERENCES rooms (id)"),
        "enrollment_events": ("VARCHAR", "CHAR"),
    }[table]
    spoil(school, table, change)
    content = rows(school, *TABLES, "log", "rooms", "grades")
    said = repair(school)
    assert said
    assert all(line.endswith("rebuilt.") for line in said)
    assert rows(school, *content) == content
    with closing(sqlite3.connect(school)) as connection:
        assert connection.execute(theirs).fetchall() == before
        references = connection.execute("SELECT `table` FROM pragma_foreign_key_list(?)", [table]).fetchall()
        assert (("rooms",) in references) == (table in {"courses", "enrollments"})
        if table == "students":
            for sql, rule in {
                "INSERT INTO students (name) VALUES ('Student 1')": "UNIQUE",
                "INSERT INTO students (name) VALUES ('long, longer, longest')": "CHECK constraint failed: short",
                "INSERT INTO students (name, contact) VALUES ('x', 'x')": "CHECK constraint failed: contact",
            }.items():
                with pytest.raises(sqlite3.IntegrityError, match=rule):
                    connection.execute(sql)
    check(school)
    with closing(connect(school)) as db:
        logged = len(fetch(db, "SELECT * FROM log"))
        enroll(db, 6, 1)
        assert len(fetch(db, "SELECT * FROM log")) == logged + 2


# The rows, and the feed


@pytest.mark.parametrize(
    ("spell", "said", "told"),
    [
        ("UPDATE courses SET enrolled = 0, waitlisted = 0", "put right course 1; course 2; course 3.", []),
        ("DELETE FROM enrollments WHERE course_id = 3", "the feed lacked events: told dropped", [("dropped", 1, 3)]),
        (
            "DELETE FROM enrollments WHERE student_id = 2",
            "a seat was free while others waited: promoted student 3 in course 2.",
            [("dropped", 2, 1), ("dropped", 2, 2), ("promoted", 3, 2)],
        ),
        (
            "DELETE FROM enrollments WHERE student_id = 3",
            "told dropped student 3 in course 2.",
            [("dropped", 3, 2)],
        ),
        (
            f"{SEAT} (5, 1, '{LONG_AGO}')",
            "told enrolled student 5 in course 1.",
            [("enrolled", 5, 1)],
        ),
        (
            f"{PLACE} (5, 2, 1)",
            "told waitlisted student 5 in course 2.",
            [("waitlisted", 5, 2)],
        ),
        (
            f"{PLACE} (5, 3, 9), (6, 3, 8), (4, 3, 8)",
            "a seat was free while others waited: promoted student 4 in course 3.",
            [("waitlisted", 4, 3), ("waitlisted", 6, 3), ("waitlisted", 5, 3), ("promoted", 4, 3)],
        ),
        (
            f"""UPDATE enrollments SET waiting = NULL, enrolled_at = '{LONG_AGO}' WHERE student_id = 3;
            DELETE FROM enrollments WHERE student_id = 2 AND course_id = 2""",
            "told dropped student 2 in course 2; promoted student 3 in course 2.",
            [("dropped", 2, 2), ("promoted", 3, 2)],
        ),
        (
            "UPDATE enrollments SET waiting = 3, enrolled_at = NULL WHERE course_id = 2",
            "a seat was free while others waited: promoted student 3 in course 2.",
            [("dropped", 2, 2), ("waitlisted", 2, 2), ("promoted", 3, 2)],
        ),
        (
            f"UPDATE enrollments SET enrolled_at = '{LONG_AGO}' WHERE course_id = 3",
            "told dropped student 1 in course 3; enrolled student 1 in course 3.",
            [("dropped", 1, 3), ("enrolled", 1, 3)],
        ),
        (
            f"{EVENT} ('enrolled', '{LONG_AGO}', 1, 3)",
            "told dropped student 1 in course 3; enrolled student 1 in course 3.",
            [("enrolled", 1, 3), ("dropped", 1, 3), ("enrolled", 1, 3)],
        ),
        (
            f"{EVENT} ('waitlisted', '{LONG_AGO}', 3, 2)",
            "told dropped student 3 in course 2; waitlisted student 3 in course 2.",
            [("waitlisted", 3, 2), ("dropped", 3, 2), ("waitlisted", 3, 2)],
        ),
        (
            f"{EVENT} ('enrolled', '{LONG_AGO}', 5, 3)",
            "told dropped student 5 in course 3.",
            [("enrolled", 5, 3), ("dropped", 5, 3)],
        ),
        ("UPDATE enrollments SET waiting = 11 - waiting WHERE waiting > 0", "put right 2.", []),
        ("UPDATE enrollments SET waiting = 5 WHERE waiting > 0", "put right 1.", []),
        (
            "UPDATE enrollment_events SET filed = 0; UPDATE enrollments SET event_id = NULL",
            "left events out: filed 9.",
            [],
        ),
        ("UPDATE courses SET capacity = NULL", "promoted student 3", [("promoted", 3, 2), ("promoted", 4, 2)]),
        ("UPDATE courses SET capacity = 2 WHERE id = 2", "promoted student 3 in course 2.", [("promoted", 3, 2)]),
        (
            "UPDATE courses SET capacity = 2, waitlisted = 0, waitlist_capacity = 1 WHERE id = 2",
            "promoted student 3 in course 2.",
            [("promoted", 3, 2)],
        ),
    ],
)
def test_rows_and_feed_agree_again(school: Path, spell: str, said: str, told: list[tuple[str, int, int]]) -> None:
    """After a spell without triggers the feed is told what it missed, in order; seats are given, and counts right."""
    before = rows(school, "enrollment_events")["enrollment_events"]
    without_triggers(school, spell)
    done = repair(school)
    assert any(said in line for line in done), done
    assert feed(school, 9) == told
    # Nothing that was told is changed: but for the index that has it.
    after = rows(school, "enrollment_events")["enrollment_events"]
    assert {event[:5] for event in before} <= {event[:5] for event in after}
    assert sound(school)
    assert repair(school) == []


def test_counts_that_no_limit_held(school: Path) -> None:
    """Counts that a table without its checks let rise beyond the limits are no hindrance to have the checks back."""
    for count in ("enrolled", "waitlisted"):
        _, _, check_after = tables()["courses"].definitions[count].partition("CHECK")
        spoil(school, "courses", (f"CHECK{check_after}", ""))
    without_triggers(school, "UPDATE courses SET enrolled = 9, waitlisted = 9")
    assert any("put right course 1; course 2; course 3." in line for line in repair(school))
    check(school)


def test_times_are_put_into_their_form(school: Path) -> None:
    """A time that another program wrote in its own form is told in the promised one; what is no time is now."""
    times = {1: "2026-01-01 10:00:00", 2: "2026-01-01T12:30:00+02:00", 3: "yesterday", 4: "2026-02-30", 5: "7"}
    without_triggers(
        school,
        f"DELETE FROM enrollments WHERE course_id = 1; {SEAT}"
        + ", ".join(f"({student}, 1, '{time}')" for student, time in times.items()),
    )
    repair(school)
    with closing(connect(school)) as db:
        found = dict(fetch(db, "SELECT student_id, enrolled_at FROM enrollments WHERE course_id = 1"))
        at = {event.student_id: event.at for event in list_events(db, course_id=1) if event.type == "enrolled"}
    assert found == at
    assert [found[1], found[2], found[4]] == [
        "2026-01-01T10:00:00.000Z",
        "2026-01-01T10:30:00.000Z",
        "2026-03-02T00:00:00.000Z",
    ]
    assert found[3] == found[5] > "2026-03-02T00:00:00.000Z"
    assert sound(school)


def test_who_was_passed_over_is_named(school: Path) -> None:
    """Who waits while others got a seat past them cannot be helped by a repair, which does all else and says so."""
    without_triggers(
        school,
        f"UPDATE courses SET capacity = 2; INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES "
        f"(5, 2, '{LONG_AGO}')",
    )
    left = (
        "Left as it is: turns: event 10: it gave a seat while another was longer in line. "
        "Give the others a seat too: raise the capacity of the course."
    )
    result = command(school)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, left)
    assert feed(school, 9) == [("enrolled", 5, 2)]
    again = command(school)
    assert (again.exit_code, again.output) == (0, f"{left}\n")
    with closing(connect(school)) as db:
        assert [result.invariant.name for result in run(db) if result.broken] == ["turns"]
        update_course(db, 2, {"capacity": 4})
    assert sound(school)
    assert repair(school) == []


# What a person has to mend first


NOT_MENDED = {
    **{name: (sql, words[:1]) for name, (sql, words) in SPOILT.items()},
    "another's trigger": (
        SPOILT["another's trigger"][0],
        ["the trigger seats_freed is on the table x, so another program's. Give it another name."],
    ),
    "a column": (
        "ALTER TABLE courses RENAME COLUMN waitlist_capacity TO queue",
        [
            "the column courses.waitlist_capacity is missing. If it was renamed: ALTER TABLE courses RENAME COLUMN ",
            "If it is gone, add it with its values: ALTER TABLE courses ADD COLUMN waitlist_capacity INTEGER DEFAULT 0",
        ],
    ),
    "no text": (
        "UPDATE students SET name = x'00ff' WHERE id IN (2, 3)",
        [
            "types: student 2, name; student 3, name: the value is not of its column's type. Write another, as in: ",
        ],
    ),
    "no name": (
        rebuilt("students", ("VARCHAR(200) NOT NULL", "TEXT")).partition(";CREATE TRIGGER")[0]
        + "; UPDATE students SET name = NULL WHERE id = 5",
        ["types: student 5, name: ", "SQLite says: NOT NULL constraint failed: repaired.name."],
    ),
    "no number": ("UPDATE courses SET capacity = '' WHERE id = 1", ["types: course 1, capacity: "]),
    "too many": (
        f"{SEAT} (5, 2, '{LONG_AGO}')",
        ["limits: course 2 with 2 enrolled and 2 waiting: ", "UPDATE courses SET capacity = 31 WHERE id = 1"],
    ),
    "too many wait": (
        f"{PLACE} (5, 2, 1), (6, 2, 1)",
        ["limits: course 2 with 1 enrolled and 4 waiting: "],
    ),
    "orphans": (
        f"{SEAT} (77, 1, '{LONG_AGO}'); DELETE FROM students WHERE id = 4; DELETE FROM courses WHERE id = 3",
        [
            "references: ",
            "student 4 in course 2",
            "student 77 in course 1",
            "student 1 in course 3",
            "DELETE FROM enrollments WHERE student_id NOT IN (SELECT id FROM students)",
        ],
    ),
    "both": (
        rebuilt("enrollments", ("CHECK ((enrolled_at IS NULL) <> (waiting IS NULL))", "CHECK (1)")).partition(
            ";CREATE TRIGGER"
        )[0]
        + f"; UPDATE enrollments SET waiting = 1, enrolled_at = '{LONG_AGO}' WHERE course_id = 3",
        ["standing: student 1 in course 3: it is neither a seat nor a place in line, or both."],
    ),
    "twice": (
        rebuilt("enrollments", ("PRIMARY KEY (student_id, course_id),", ""), (") WITHOUT ROWID", ")")).partition(
            ";CREATE TRIGGER"
        )[0]
        + "; INSERT INTO enrollments SELECT * FROM enrollments WHERE course_id = 3",
        ["ids: student 1 in course 3: it is there twice"],
    ),
}


def suffer(path: Path, spell: str) -> None:
    """Run SQL without the service's triggers, unless it says itself which of them go."""
    (run_script if "TRIGGER" in spell else without_triggers)(path, spell)


@pytest.mark.parametrize("name", NOT_MENDED)
def test_what_cannot_be_repaired_is_named(school: Path, name: str) -> None:
    """What needs a person is named with its rows and with what would mend it, and then nothing is changed."""
    spell, said = NOT_MENDED[name]
    suffer(school, spell)
    before = dump(school)
    result = command(school)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "Error: Nothing was repaired, the database is as it was. This has to be mended first:\n"
    )
    for words in said:
        assert words in result.stderr
    assert dump(school) == before


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("too many", "UPDATE courses SET capacity = 2 WHERE id = 2"),
        ("too many wait", "UPDATE courses SET waitlist_capacity = NULL WHERE id = 2"),
        ("no number", "UPDATE courses SET capacity = 30 WHERE id = 1"),
        ("no name", "UPDATE students SET name = 'found' WHERE id = 5"),
        ("no text", "UPDATE students SET name = 'found' WHERE id < 4"),
        (
            "orphans",
            """DELETE FROM enrollments WHERE student_id NOT IN (SELECT id FROM students)
            OR course_id NOT IN (SELECT id FROM courses)""",
        ),
        ("both", "DELETE FROM enrollments WHERE (enrolled_at IS NULL) = (waiting IS NULL)"),
        ("twice", "DELETE FROM enrollments WHERE rowid IN (SELECT max(rowid) FROM enrollments WHERE course_id = 3)"),
        (
            "a column",
            """ALTER TABLE courses ADD COLUMN waitlist_capacity INTEGER DEFAULT 0;
            UPDATE courses SET waitlist_capacity = queue""",
        ),
        (
            "no column",
            "ALTER TABLE students RENAME COLUMN full_name TO name",
        ),
    ],
)
def test_once_that_is_mended_it_is_repaired(school: Path, name: str, mend: str) -> None:
    """The statement that is named does mend it, for the repair to do the rest."""
    spell, _ = NOT_MENDED[name]
    suffer(school, spell)
    with pytest.raises(SetupError):
        repair(school)
    run_script(school, mend)
    assert repair(school)
    with closing(connect(school)) as db:
        assert {result.invariant.name for result in run(db) if result.broken} <= {"turns"}


def test_names_compare_without_regard_to_case_again(school: Path) -> None:
    """A search finds names in any case again, and a full course is full again."""
    run_script(school, rebuilt("students", (" COLLATE NOCASE", "")) + ";" + rebuilt("courses", (" COLLATE NOCASE", "")))
    repair(school)
    with closing(connect(school)) as db:
        assert len(list_students(db, "STUDENT")) == 6
        assert enroll(db, 5, 2).position == 3
        with pytest.raises(CourseFull):
            enroll(db, 6, 2)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happened_without_triggers(school: Path, seed: int) -> None:
    """Whatever was done to rows without the rules, a repair makes it sound, keeps who has a seat, and what was told."""
    pick = random.Random(seed)
    statements = []
    for _ in range(pick.randint(1, 25)):
        student, course, number = pick.randint(1, 6), pick.randint(1, 3), pick.randint(1, 12)
        where = f"WHERE student_id = {student} AND course_id = {course}"
        kind = pick.choice(["enrolled", "waitlisted", "promoted", "dropped"])
        choices = [
            f"DELETE FROM enrollments {where}",
            f"{SEAT.replace('INSERT', 'REPLACE')} ({student}, {course}, '{LONG_AGO}')",
            f"{PLACE.replace('INSERT', 'REPLACE')} ({student}, {course}, {number})",
            f"UPDATE enrollments SET waiting = NULL, enrolled_at = '{LONG_AGO}', event_id = {number} {where}",
            f"{EVENT} ('{kind}', '{LONG_AGO}', {student}, {course})",
            f"UPDATE enrollment_events SET filed = 0 WHERE id = {number}",
            f"UPDATE courses SET enrolled = {number % 2}, waitlisted = 0 WHERE id = {course}",
        ]
        statements.append(pick.choice(choices))
    without_triggers(
        school,
        "; ".join(["UPDATE courses SET capacity = coalesce(capacity, 9) + 6, waitlist_capacity = NULL", *statements])
        + "; UPDATE courses SET capacity = max(enrolled, (SELECT count(*) FROM enrollments "
        + f"WHERE course_id = courses.id AND waiting IS NULL) + {pick.randint(0, 2)})",
    )
    seats = "SELECT student_id, course_id FROM enrollments WHERE waiting IS NULL"
    told = feed(school)
    with closing(sqlite3.connect(school)) as connection:
        before = set(connection.execute(seats).fetchall())
    repair(school)
    assert feed(school)[: len(told)] == told
    with closing(connect(school)) as db:
        assert {result.invariant.name for result in run(db) if result.broken} <= {"turns"}
        assert before <= set(fetch(db, seats))
        assert (
            set(fetch(db, seats)) - before
            == {event[1:] for event in feed(school, len(told)) if event[0] == "promoted"} - before
        )


def test_a_long_repair_shows_what_it_does(school: Path) -> None:
    """Who listens hears of each invariant, and of each table that is rebuilt."""
    run_script(school, rebuilt("courses", ("VARCHAR", "CHAR")))
    heard: list[str] = []
    repair(school, lambda what, _: heard.append(what))
    assert [what for what in heard if heard.count(what) == 1] == ["table courses", "indexes", "rows"]


def test_plain_sql_goes_on_after_a_repair(path: Path) -> None:
    """After events were added for rows that came in past the triggers, a plain INSERT enrolls as before."""
    run_script(
        path,
        """INSERT INTO students (name) VALUES ('Ada'), ('Bo');
        INSERT INTO courses (name, level) VALUES ('Logic', 'A1'), ('Chess', 'A1');
        DROP TRIGGER enrollment_added;
        INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (1, 1, '2026-01-01T00:00:00.000Z');""",
    )
    assert repair(path)
    run_script(path, "INSERT INTO enrollments (student_id, course_id) VALUES (2, 2)")
    check(path)
