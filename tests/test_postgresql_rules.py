"""The rules on PostgreSQL: what its triggers keep, whoever writes, in whatever statement and at whatever isolation."""

import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import peewee as pw
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from invariants import check
from programs import REFUSED, open_program, rows_of
from psycopg import errors
from test_search import PEOPLE, QUERY, TEXT, finds, in_order, pages
from test_seats import audit

from service import bulk, connect, courses, enrollments, events, registrar, students
from service.errors import ConstraintViolated, ExternalIdTaken, ServiceError, StudentHasEnrollments
from service.rows import ExternalId
from service.storage import backend_of, fetch
from service.storage.postgres.enrolling import MOST, PIECE, insert_each

Connect = Callable[[], psycopg.Connection[Any]]
DO_ALSO = "CREATE RULE seen AS ON INSERT TO enrollments DO ALSO INSERT INTO seen VALUES (1)"
JUDGED = "SELECT set_config('enrollment.judged', pg_current_xact_id()::text, TRUE)"
"""Says of a transaction what enroll_many says of its own rows."""
LONG_AGO = "2026-01-01T00:00:00.000Z"
TOUCHED = ("enrollments", "enrollment_events", "courses")


@pytest.fixture
def path(school: str) -> str:
    """Give the URL of a database with the students 1 to 8, and four courses.

    The first has one seat, taken by 1, and 3 and 2 wait; in the second all may enroll; the third has one seat, taken by
    4, and 5 waits in the one place in line; the fourth is not open yet.
    """
    with closing(connect(school)) as db:
        for name in ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal"):
            students.insert_student(db, name)
        for capacity, waitlist_capacity, line in ((1, 3, (1, 3, 2)), (None, 0, ()), (1, 1, (4, 5))):
            course = courses.insert_course(db, "Logic", "A1", capacity, waitlist_capacity)
            for student in line:
                enrollments.enroll(db, student, course.id)
        courses.insert_course(db, "Later", "A1", opens_at="2999-01-01T00:00:00Z")
    return school


@pytest.fixture
def other(path: str) -> Iterator[Connect]:
    """Give a function that connects as another program, which commits each statement."""
    opened: list[psycopg.Connection[Any]] = []

    def connected() -> psycopg.Connection[Any]:
        opened.append(psycopg.connect(path, autocommit=True))
        return opened[-1]

    yield connected
    for each in opened:
        each.close()


# Other programs


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("INSERT INTO enrollments (student_id, course_id) VALUES (6, 2)", [("enrolled", 6, 2)]),
        ("INSERT INTO enrollments VALUES (6, 1, '2026-01-01', NULL, NULL)", [("waitlisted", 6, 1)]),
        ("INSERT INTO enrollments VALUES (6, 2, '', 100, 100)", [("enrolled", 6, 2)]),
        ("INSERT INTO enrollments VALUES (6, 3, '2026-01-01', NULL, 0)", [("enrolled", 6, 3)]),
        (
            "INSERT INTO enrollments (student_id, course_id) VALUES (6, 2), (6, 1), (7, 2) ON CONFLICT DO NOTHING",
            [("enrolled", 6, 2), ("waitlisted", 6, 1), ("enrolled", 7, 2)],
        ),
        (
            "INSERT INTO enrollments (student_id, course_id) VALUES (6, 2), (1, 1), (6, 2) ON CONFLICT DO NOTHING",
            [("enrolled", 6, 2)],
        ),
        (
            "INSERT INTO enrollments VALUES (3, 1) ON CONFLICT (student_id, course_id) DO UPDATE SET waiting = 1",
            "an enrollment is added, promoted by a free seat, or dropped",
        ),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (6, 3)", "course_full: no seat is free"),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (6, 4)", "enrollment_not_open: "),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (99, 4)", "student_not_found: "),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (99, 2)", "enrollments_student_id_fkey"),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (6, 99)", "course_not_found: "),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (1, 1)", "enrollments_pkey"),
        ("INSERT INTO enrollments VALUES (6, 2, '2026-02-30', NULL, NULL)", "a time is written as"),
        ("INSERT INTO enrollments VALUES (6, 2, 'tomorrow', NULL, NULL)", "a time is written as"),
        ("DELETE FROM enrollments WHERE student_id = 1", [("dropped", 1, 1), ("promoted", 3, 1)]),
        ("DELETE FROM enrollments WHERE student_id = 3", [("dropped", 3, 1)]),
        (
            "DELETE FROM enrollments WHERE student_id IN (1, 3)",
            [("dropped", 3, 1), ("dropped", 1, 1), ("promoted", 2, 1)],
        ),
        ("DELETE FROM enrollments WHERE course_id = 3", [("dropped", 5, 3), ("dropped", 4, 3)]),
        (
            "DELETE FROM enrollments WHERE student_id IN (1, 3, 4)",
            [("dropped", 3, 1), ("dropped", 1, 1), ("promoted", 2, 1), ("dropped", 4, 3), ("promoted", 5, 3)],
        ),
        ("UPDATE courses SET capacity = 2", [("promoted", 3, 1), ("promoted", 5, 3)]),
        ("UPDATE courses SET capacity = NULL WHERE id = 1", [("promoted", 3, 1), ("promoted", 2, 1)]),
        ("UPDATE courses SET capacity = 0 WHERE id = 1", "capacity_below_enrolled: "),
        ("UPDATE courses SET waitlist_capacity = 1 WHERE id = 1", "waitlist_capacity_below_waitlisted: "),
        ("UPDATE courses SET enrolled = 0", "the counts of a course belong to its enrollments"),
        ("UPDATE courses SET event_id = 99", "the counts of a course belong to its enrollments"),
        ("UPDATE courses SET enrolled = 0, event_id = NULL", "the counts of a course belong to its enrollments"),
        ("UPDATE courses SET id = 9 WHERE id = 2", "the id of a course never changes"),
        ("UPDATE courses SET term_id = 9", "courses_term_id_fkey"),
        ("UPDATE courses SET opens_at = '2026-02-29T00:00:00.000Z'", "courses.opens_at is a time such as"),
        ("UPDATE courses SET closes_at = opens_at WHERE id = 4", "courses.closes_at is after opens_at"),
        ("UPDATE courses SET external_id = ''", "courses.external_id is a text with a character, or null"),
        ("INSERT INTO courses (name, level, enrolled) VALUES ('', '', 1)", "the counts of a course belong"),
        ("INSERT INTO courses (name, level, capacity) VALUES ('', '', -1)", "courses.capacity is a whole number"),
        ("INSERT INTO terms (name, starts_on) VALUES ('', '2026-2-1')", "terms.starts_on is a date such as"),
        ("INSERT INTO terms (name, ends_on) VALUES ('', '2026-02-01T')", "value too long|terms.ends_on is a date"),
        (
            "INSERT INTO terms (name, starts_on, ends_on) VALUES ('', '2028-02-29', '2028-02-28')",
            "terms.ends_on is not before starts_on",
        ),
        ("UPDATE students SET id = 9 WHERE id = 8", "the id of a student never changes"),
        ("UPDATE students SET email = ''", "students.email is a text with a character, or null"),
        ("DELETE FROM students WHERE id = 1", "enrollments_student_id_fkey"),
        ("DELETE FROM courses WHERE id = 1", "enrollments_course_id_fkey"),
        ("UPDATE enrollments SET course_id = 2 WHERE student_id = 1", "an enrollment is added, promoted"),
        ("UPDATE enrollments SET waiting = NULL, enrolled_at = enrollment_now()", "an enrollment is added, promoted"),
        ("UPDATE enrollment_events SET type = 'dropped'", "events are never changed"),
        ("DELETE FROM enrollment_events", "events are never deleted"),
        ("INSERT INTO enrollment_events VALUES (1, 'dropped', '2026-01-01T00:00:00.000Z', 1, 1)", "events_pkey"),
        ("INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('dropped', '', 1, 1)", "a time is"),
        ("INSERT INTO event_notes (event_id) VALUES (99)", "no event has this id"),
        ("TRUNCATE courses CASCADE", "enrollments are dropped one by one"),
        ("TRUNCATE enrollment_events", "events are never deleted"),
        ("TRUNCATE event_notes", "events are never deleted"),
    ],
)
def test_another_program_obeys_the_same_rules(path: str, other: Connect, sql: str, told: Any) -> None:
    """What another program writes with plain SQL is limited, counted, promoted and told as if the service did it."""
    before = audit(path)
    if isinstance(told, str):
        with pytest.raises(psycopg.DatabaseError, match=told):
            other().execute(sql)
        told = []
    else:
        other().execute(sql)
    assert audit(path) == before + told


@pytest.mark.parametrize("sql", ["UPDATE event_notes SET actor = 'Eve'", "UPDATE event_notes SET override = FALSE"])
def test_a_note_is_not_rewritten(path: str, other: Connect, sql: str) -> None:
    """A note never changes, but for its reason, which may be made null."""
    with closing(connect(path)) as db:
        enrollments.enroll(db, 6, 3, override=True, actor="Di", reason="late")
        for refused in (sql, "DELETE FROM event_notes"):
            with pytest.raises(psycopg.IntegrityError, match="never"):
                other().execute(refused)
        other().execute("UPDATE event_notes SET reason = NULL")
        (last,) = [event for event in events.list_events(db) if event.actor]
        assert (last.student_id, last.actor, last.reason) == (6, "Di", None)
        assert registrar.export_student(db, 6).overrides == [last.id]


def test_a_cancelled_course_is_counted_once(path: str) -> None:
    """The work grows with the students and not with their square, as it would if each left a version of the course."""
    changed = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relid = 'courses'::regclass"
    with closing(connect(path)) as db:
        courses.update_course(db, 3, {"waitlist_capacity": None})
        for student in (1, 2, 3):
            enrollments.enroll(db, student, 3, override=student < 3)
        with db.atomic("IMMEDIATE"):
            ((before,),) = fetch(db, changed)
            assert registrar.cancel(db, 3) == 5
            assert fetch(db, changed) == [(before + 2,)]  # For those in line, and for those with a seat.
        assert [event.student_id for event in events.list_events(db, course_id=3)[-5:]] == [5, 3, 1, 2, 4]


def test_each_seat_of_many_goes_to_the_head_of_the_line(path: str, other: Connect) -> None:
    """A statement that drops several seats tells behind each of them who has it; the rest is counted once."""
    with closing(connect(path)) as db:
        courses.update_course(db, 3, {"capacity": 4, "waitlist_capacity": None})
        for student in (1, 2, 3, 6, 7, 8):
            enrollments.enroll(db, student, 3)
        other().execute("DELETE FROM enrollments WHERE course_id = 3 AND student_id IN (4, 5, 1, 2, 6)")
        assert [(event.type, event.student_id) for event in events.list_events(db, course_id=3)[-8:]] == [
            *(("dropped", 6), ("dropped", 1), ("promoted", 3)),
            *(("dropped", 2), ("promoted", 7), ("dropped", 4), ("promoted", 8), ("dropped", 5)),
        ]
    assert audit(path)


def test_ids_are_never_given_twice(path: str, other: Connect) -> None:
    """An id that another program chose is not given again, nor is that of a row that is gone."""
    with closing(connect(path)) as db:
        other().execute("INSERT INTO students (id, name) VALUES (100, 'Ida'), (50, 'Jo')")
        other().execute("DELETE FROM students WHERE id = 100")
        assert students.insert_student(db, "Kim").id == 101


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize(
    ("meanwhile", "sql"),
    [
        ("INSERT INTO enrollments (student_id, course_id) VALUES (7, 2)", "VALUES (6, 2)"),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (7, 1)", "VALUES (6, 2)"),
        ("DELETE FROM enrollments WHERE student_id = 1", "VALUES (1, 1)"),
        ("DELETE FROM enrollments WHERE student_id = 1", "VALUES (1, 1) ON CONFLICT DO NOTHING"),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (6, 2)", "VALUES (6, 2) ON CONFLICT DO NOTHING"),
        ("INSERT INTO enrollments (student_id, course_id) VALUES (7, 1)", "SELECT FROM enroll_many('{6}', '{2}', '')"),
    ],
)
def test_an_old_snapshot(path: str, other: Connect, level: psycopg.IsolationLevel, meanwhile: str, sql: str) -> None:
    """Who writes by what was true before the turn came is told to try again, and no row is there without its event."""
    late = other()
    late.autocommit, late.isolation_level = False, level
    late.execute("SELECT 1 FROM students")
    other().execute(meanwhile)
    before = audit(path)
    with pytest.raises(errors.SerializationFailure):
        late.execute(sql if sql.startswith("SELECT") else f"INSERT INTO enrollments (student_id, course_id) {sql}")
    late.rollback()
    assert audit(path) == before


def test_another_search_path(path: str, other: Connect) -> None:
    """A program whose search path has tables of the same names first writes to the school all the same."""
    stranger = other()
    stranger.execute("CREATE TEMP TABLE courses (id bigint)")
    stranger.execute("SET search_path = pg_catalog")
    stranger.execute("INSERT INTO public.enrollments (student_id, course_id) VALUES (6, 2)")
    assert audit(path)[-1] == ("enrolled", 6, 2)


@pytest.mark.long
@given(pairs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=20, max_size=40))
@example(pairs=[])
@settings(max_examples=30)
def test_many_at_once_are_as_one_after_the_other(path: str, pairs: list[tuple[int, int]]) -> None:
    """Many pairs leave the same rows, and have the same outcomes, as with a host's trigger: then each has an INSERT."""
    found = []
    with closing(connect(path)) as db:
        for statements in ((), trigger("BEFORE INSERT", "RETURN NEW;")):
            with db.atomic() as undone:
                db.execute_sql("INSERT INTO courses VALUES (5, 'Small', '', 2, 1)")
                for statement in statements:
                    db.execute_sql(statement)
                told = insert_each(db, pairs, LONG_AGO, math.inf)
                left = [fetch(db, f"SELECT * FROM {table} ORDER BY 1, 2") for table in TOUCHED]
                found.append((told, left))
                undone.rollback()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "values",
    [
        "(1, 1, '{at}', NULL, {id})",
        "(1, 1, NULL, {id}, {id})",
        "(6, 1, '{at}', NULL, {id})",
        "(1, 2, '{at}', NULL, {id})",
        "(1, 1, '2026-01-01', NULL, {id})",
        "(3, 1, NULL, 2, 2)",
    ],
)
def test_a_row_with_an_event_that_is_not_its_own(path: str, other: Connect, values: str) -> None:
    """A row that claims to be told of already, by an event of another row or of long ago, is counted and told of."""
    other().execute("DELETE FROM enrollments WHERE course_id = 1")
    with closing(connect(path)) as db:
        told = next(event for event in events.list_events(db) if (event.student_id, event.course_id) == (1, 1))
    other().execute(f"INSERT INTO enrollments VALUES {values.format(at=told.at, id=told.id)}")
    assert audit(path)[-1][0] == "enrolled"


@pytest.mark.usefixtures("path")
def test_a_row_with_an_event_that_counts_nothing(other: Connect) -> None:
    """A row that claims an event with which no counts have moved is counted, and told of itself."""
    with other().transaction() as begun:
        begun.connection.execute(f"INSERT INTO enrollment_events VALUES (99, 'enrolled', '{LONG_AGO}', 6, 2)")
        begun.connection.execute(f"INSERT INTO enrollments VALUES (6, 2, '{LONG_AGO}', NULL, 99)")
        ((enrolled,),) = begun.connection.execute("SELECT enrolled FROM courses WHERE id = 2").fetchall()
        assert enrolled == 1
        raise psycopg.Rollback


def test_what_is_judged_ends_with_the_function(path: str, other: Connect) -> None:
    """Rows that come after those of enroll_many, in its transaction too, obey the rules; so they do whatever is set."""
    with other().transaction() as begun:
        for _ in range(2):
            told = begun.connection.execute("SELECT outcome FROM enroll_many('{6,7}', '{2,2}', '')").fetchall()
            begun.connection.execute("INSERT INTO enrollments (student_id, course_id) VALUES (8, 2)")
            begun.connection.execute("DELETE FROM enrollments WHERE course_id = 2 AND student_id >= 6")
        assert told == [("enrolled",), ("enrolled",)]
    connection = other()
    connection.execute("SET enrollment.judged = 'on'")
    connection.execute("INSERT INTO enrollments (student_id, course_id) VALUES (6, 2), (7, 2)")
    assert audit(path)[-2:] == [("enrolled", 6, 2), ("enrolled", 7, 2)]


def test_a_function_of_another_role(path: str, other: Connect) -> None:
    """Who may only call a function of the owner's cannot make it pass over the rules."""
    owner = other()
    owner.execute("UPDATE courses SET capacity = 0 WHERE id = 2")
    owner.execute("""
        CREATE FUNCTION let_in(student bigint) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
        AS 'INSERT INTO enrollments (student_id, course_id) VALUES (student, 2)'
    """)
    role = f"guest_{os.getpid()}"
    owner.execute(f"CREATE ROLE {role} LOGIN")
    try:
        guest = psycopg.connect(path, user=role)
        with closing(guest):
            guest.execute(JUDGED)
            with pytest.raises(psycopg.IntegrityError, match="course_full"):
                guest.execute("SELECT let_in(6)")
    finally:
        owner.execute("DROP FUNCTION let_in")
        owner.execute(f"DROP ROLE {role}")


def test_a_rule_of_another_program_on_the_table(path: str, other: Connect) -> None:
    """Where a host has made a rule of PostgreSQL for a table, many are enrolled at once nevertheless."""
    program = other()
    program.execute("CREATE TABLE seen (id bigint)")
    program.execute(DO_ALSO)
    try:
        with closing(connect(path)) as db, db.atomic():
            told = insert_each(db, [(6, 2), (7, 2)], LONG_AGO, math.inf)
            assert [isinstance(outcome, tuple) and outcome[0] for outcome in told] == ["enrolled", "enrolled"]
            assert fetch(db, "SELECT count(*) FROM seen") == [(2,)]
    finally:
        program.execute("DROP RULE seen ON enrollments")
        program.execute("DROP TABLE seen")


def test_the_time_is_looked_at_after_each_piece(path: str) -> None:
    """Of many pairs, a piece is enrolled in one go; where the time is over then, the rest is left for later."""
    host(path, *trigger("AFTER INSERT", "PERFORM pg_sleep(0.2); RETURN NULL;"))
    with closing(connect(path)) as db, db.atomic():
        pairs = [(6, 2)] * (PIECE + 1)
        assert len(insert_each(db, pairs, LONG_AGO, time.monotonic() + 0.2)) == PIECE
        assert len(insert_each(db, pairs[PIECE:], LONG_AGO, 0)) == 1


def test_pieces_grow_while_there_is_time(path: str) -> None:
    """While there is time each piece has twice as many pairs as the one before, up to the most; all at last."""
    asked: list[pw.QueryEvent] = []
    pairs = [(6, 2)] * 3 * MOST
    with closing(connect(path)) as db, db.atomic():
        db.query_hooks.append(asked.append)
        assert len(insert_each(db, pairs, LONG_AGO, time.monotonic() + 60)) == len(pairs)
        assert len(insert_each(db, pairs, LONG_AGO, math.inf)) == len(pairs)
    sizes = [event.params[0].count(",") + 1 for event in asked]
    assert sizes == [50, 100, 200, 400, 800, MOST, 450, *[MOST] * 3]


def copy_in(other: Any, table: str, *rows: str) -> None:
    """Send rows by COPY, which is how PostgreSQL's own tools fill a table."""
    with other.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
        copy.write("".join(f"{row}\n" for row in rows))


def test_copied_rows_obey_the_rules(school: str) -> None:
    """Rows that come by COPY get seats and places in line one by one; one that is refused takes all with it."""
    with closing(open_program(school)) as other:
        copy_in(other, "students (id, name)", *(f"{number},Student" for number in range(11, 19)))
        copy_in(other, "courses (id, name, level, capacity, waitlist_capacity)", "11,Logic,1,2,1", "12,Chess,1,,0")
        copy_in(other, "enrollments (student_id, course_id)", "11,11", "12,11", "13,11", "11,12")
        check(school)
        before = rows_of(school)
        for table, *rows in (
            ("enrollments (student_id, course_id)", "14,12", "14,11"),
            ("enrollments (student_id, course_id)", "14,12", "99,12"),
            ("enrollments", f"14,12,{LONG_AGO},,", "14,12,,,"),
            ("courses (name, level, enrolled)", "Go,1,3"),
            ("courses (name, level, capacity)", "Go,1,-1"),
            ("enrollment_events", f"1,dropped,{LONG_AGO},11,11"),
            ("event_notes (event_id, actor)", "99,Eve"),
        ):
            with pytest.raises(REFUSED):
                copy_in(other, table, *rows)
            assert rows_of(school) == before
    with closing(connect(school)) as db:
        assert enrollments.list_waitlist(db, 11)[0][1].id == 13
        assert students.insert_student(db, "Ada").id == 19


def test_a_role_that_owns_nothing(school: str) -> None:
    """A program that may write rows and no more enrolls by the rules, and cannot put them out of force."""
    role = f"clerk_{os.getpid()}"
    with closing(open_program(school)) as other:
        other.execute(f"CREATE ROLE {role}")
        try:
            for what in ("INSERT, SELECT, UPDATE, DELETE, TRUNCATE ON ALL TABLES", "ALL ON ALL SEQUENCES"):
                other.execute(f"GRANT {what} IN SCHEMA public TO {role}")
            other.execute(f"SET ROLE {role}")
            other.execute("INSERT INTO students (name) VALUES ('Ada'), ('Bo'), ('Cy')")
            other.execute(
                "INSERT INTO courses (id, name, level, capacity, waitlist_capacity) VALUES (7, 'Go', '1', 1, 1)"
            )
            other.execute("INSERT INTO enrollments (student_id, course_id) VALUES (1, 7), (2, 7)")
            other.execute("DELETE FROM enrollments WHERE student_id = 1")
            assert other.execute("SELECT outcome, place FROM enroll_many('{1,3,1}', '{7,7,7}', '')").fetchall() == [
                ("waitlisted", 1),
                ("course_full", None),
                ("already_waitlisted", None),
            ]
            with other.transaction():
                other.execute(JUDGED)
                other.execute("DELETE FROM enrollments WHERE student_id = 1")
                other.execute("INSERT INTO enrollments (student_id, course_id) VALUES (1, 7)")
            with pytest.raises(REFUSED):
                other.execute("TRUNCATE enrollments")
            for sql in (
                "SET session_replication_role = replica",
                "ALTER TABLE enrollments DISABLE TRIGGER ALL",
                "DROP TRIGGER enrollment_dropped ON enrollments",
                (
                    "CREATE OR REPLACE FUNCTION enrollment_changing() RETURNS trigger LANGUAGE plpgsql"
                    " AS 'BEGIN RETURN NEW; END'"
                ),
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    other.execute(sql)
        finally:
            other.execute("RESET ROLE")
            other.execute(f"DROP OWNED BY {role}")
            other.execute(f"DROP ROLE {role}")
    seats, line = check(school)[7]
    assert ([*seats], line) == ([2], [1])


# A host's own rules


def host(path: str, *statements: str) -> None:
    """Run statements of a host program's schema."""
    with psycopg.connect(path, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def quiet(done: int, of: int) -> None:
    """Do not show how far a copy has come."""
    assert done <= of


def trigger(when: str, body: str, table: str = "enrollments") -> tuple[str, str]:
    """Give the statements of a host's trigger for each row."""
    return (
        f"CREATE FUNCTION host() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER host {when} ON {table} FOR EACH ROW EXECUTE FUNCTION host()",
    )


def outcomes(path: str, *pairs: tuple[int, int]) -> list[object]:
    """Enroll pairs in one go, and give what came of each: the place, or the refusal."""
    with closing(connect(path)) as db:
        found = bulk.enroll_many(db, pairs, seconds=10)
    return [each.detail if isinstance(each, ServiceError) else (each.status, each.position) for each in found]


NO_EVEN = "IF NEW.student_id % 2 = 0 THEN RAISE 'no even ones'; END IF; RETURN NEW;"
RULE = "A rule of the database refuses this: {}."


@pytest.mark.parametrize("when", ["BEFORE INSERT", "AFTER INSERT"])
def test_a_row_that_a_host_refuses(path: str, when: str) -> None:
    """A host's trigger refuses its rows alone, in its own words; the others are as without it."""
    host(path, *trigger(when, NO_EVEN))
    told = outcomes(path, (7, 2), (6, 1), (8, 2), (5, 1), (7, 2), (1, 99))
    refused = RULE.format("no even ones")
    taken = "Student 7 is already enrolled in course 2."
    assert told == [("enrolled", None), refused, refused, ("waitlisted", 3), taken, "No course has this id."]
    assert audit(path)[-2:] == [("enrolled", 7, 2), ("waitlisted", 5, 1)]


def test_a_row_that_a_host_leaves_out(path: str) -> None:
    """A host's trigger that leaves a row out is told of, and the next row is not."""
    host(path, *trigger("BEFORE INSERT", "RETURN CASE WHEN NEW.student_id <> 6 THEN NEW END;"))
    silent = RULE.format("a trigger left the row as it was, and said nothing")
    assert outcomes(path, (6, 2), (7, 2)) == [silent, ("enrolled", None)]
    audit(path)


def test_a_host_that_drops_what_was_enrolled(path: str) -> None:
    """An outcome is that of the statement: a row that a host's trigger drops at once got what its event tells."""
    drop = "IF NEW.student_id > 5 THEN DELETE FROM enrollments WHERE student_id = NEW.student_id; END IF; RETURN NULL;"
    host(path, *trigger("AFTER INSERT", drop))
    assert outcomes(path, (6, 2), (7, 1), (5, 2)) == [("enrolled", None), ("waitlisted", 3), ("enrolled", None)]
    assert audit(path)[-2:] == [("dropped", 7, 1), ("enrolled", 5, 2)]


@pytest.mark.parametrize(
    "body", ["NEW.course_id := 2; RETURN NEW;", "RETURN CASE WHEN NEW.course_id = 2 THEN NEW END;"]
)
def test_a_host_whose_trigger_is_named_as_those_of_the_service(path: str, body: str) -> None:
    """Whatever a host's trigger is named, what it does to a row leaves no count and no event of what is not there."""
    create, on = trigger("BEFORE INSERT", body)
    host(path, create.replace("host", "enrollment_host"), on.replace("host()", "enrollment_host()"))
    assert outcomes(path, (6, 1), (7, 2))[1] == ("enrolled", None)
    assert audit(path)[-1] == ("enrolled", 7, 2)


def test_a_host_that_enrolls_another(path: str) -> None:
    """Where a host's trigger takes the last place for another student, nothing of the statement is kept."""
    also = (
        "IF NEW.student_id = 6 THEN INSERT INTO enrollments (student_id, course_id) VALUES (7, 1); END IF; RETURN NEW;"
    )
    host(path, *trigger("BEFORE INSERT", also))
    full = "course_full: no seat is free, and no place on the waitlist"
    assert outcomes(path, (6, 1), (8, 1)) == [RULE.format(full), ("waitlisted", 3)]
    assert audit(path)[-1] == ("waitlisted", 8, 1)


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        ("CREATE TABLE badges (owner bigint REFERENCES students (id))", "rows of the table badges refer to it"),
        (
            'CREATE TABLE badges (owner bigint CONSTRAINT "badges stay" REFERENCES students (id) ON DELETE RESTRICT)',
            "rows of the table badges refer to it",
        ),
    ],
)
def test_a_row_that_a_host_refers_to(path: str, schema: str, rule: str) -> None:
    """A student whom a row of a host's table refers to is not deleted, and the refusal names the table."""
    host(path, schema, "INSERT INTO badges VALUES (8)")
    with closing(connect(path)) as db:
        with pytest.raises(ConstraintViolated, match=rule):
            students.delete_student(db, 8)
        with pytest.raises(StudentHasEnrollments):
            students.delete_student(db, 1)
        with db.atomic():  # A host's own transaction goes on after that.
            with pytest.raises(StudentHasEnrollments):
                students.delete_student(db, 1)
            assert students.find_student(db, 1).name == "Ada"


def test_a_host_whose_reference_breaks_at_the_commit(path: str) -> None:
    """A reference that PostgreSQL checks at the end of a transaction is told by the tables."""
    host(
        path,
        "CREATE TABLE badges (owner bigint REFERENCES students (id) DEFERRABLE INITIALLY DEFERRED)",
        *trigger("AFTER INSERT", "INSERT INTO badges VALUES (NEW.id + 1); RETURN NULL;", "students"),
    )
    with closing(connect(path)) as db:
        with pytest.raises(pw.IntegrityError) as raised, db.atomic():
            students.insert_student(db, "Ida")
        refusal = backend_of(db).explain(db, raised.value)
        assert refusal.detail == RULE.format("a row of badges would refer to a row of students that is not there")


def test_what_refuses_is_told_by_its_name(path: str) -> None:
    """A host's constraint is told in PostgreSQL's words, which name it; an external id of the service's by its code."""
    host(path, "ALTER TABLE students ADD CONSTRAINT \"no Bobs\" CHECK (name <> 'Bob')")
    with closing(connect(path)) as db:
        with pytest.raises(ConstraintViolated, match='violates check constraint "no Bobs"'):
            students.insert_student(db, "Bob")
        students.insert_student(db, "Ida", external_id="S1")
        with pytest.raises(ExternalIdTaken):
            students.insert_student(db, "Jo", external_id="S1")
        assert backend_of(db).explain(db, ExternalIdTaken("students", "S1")).code == "external_id_taken"
        with pytest.raises(KeyError):
            backend_of(db).explain(db, KeyError())
        with pytest.raises(pw.ProgrammingError) as raised:
            db.execute_sql("SELECT 1 FROM nowhere")
        assert backend_of(db).explain(db, raised.value).code == "storage_unavailable"


# Lists


@pytest.mark.long
@settings(max_examples=60)
@given(people=PEOPLE, ids=TEXT.filter(bool), q=QUERY, few=st.sampled_from([1, 2, 4000]))
def test_it_finds_what_the_definition_finds(
    searched: pw.Database, people: list[tuple[str, str | None, str | None]], ids: str, q: str, few: int
) -> None:
    """Any words find exactly the students of the definition, in order, be they few or many."""
    with searched.atomic() as transaction, pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.storage.postgres.backend.NEXT", few)
        for at, (name, _, email) in enumerate(people):
            fetch(
                searched,
                "INSERT INTO students (name, external_id, email) VALUES (?, ?, ?) RETURNING id",
                *(name, ids if at == 0 else None, email),
            )
        rows = fetch(searched, "SELECT id, name, external_id, email FROM students")
        want = sorted(((id, name) for id, name, *more in rows if finds(q.strip(), name, *more)), key=in_order)
        assert pages(searched, q, 2) == want
        assert pages(searched, q, 100, "a") == [row for row in want if row[1][:1] in {"a", "A"}]
        transaction.rollback()


@pytest.fixture
def searched(school: str) -> Iterator[pw.Database]:
    """Give a connection to a school with nobody in it."""
    with closing(connect(school)) as db:
        yield db


@pytest.mark.parametrize("name", ["a", "A@", "Z\U0010ffff", "\U0010ffff", "\ud7ff", "É"])
def test_a_prefix_at_the_end_of_the_letters(searched: pw.Database, name: str) -> None:
    """Whatever a prefix ends with, it finds the names that begin with it, with A to Z as a to z."""
    for each in (name, f"{name.lower()}b", f"{name}\U0010ffff", "y", "É", "é", "b"):
        students.insert_student(searched, each)
    found = [row.name for row in students.list_students(searched, name)]
    every = [row.name for row in students.list_students(searched)]
    assert sorted(found) == sorted(each for each in every if each.encode().lower().startswith(name.encode().lower()))


LISTS: dict[str, Callable[[pw.Database], object]] = {
    "roster": lambda db: enrollments.list_roster(db, 1, 40, 50),
    "waitlist": lambda db: enrollments.list_waitlist(db, 1, 0, 10),
    "schedule": lambda db: enrollments.list_schedule(db, 50, None, 0, 10),
    "events": lambda db: events.list_events(db, 10, limit=50),
    "events of a course": lambda db: events.list_events(db, 0, None, 1, 50),
    "events of a student": lambda db: events.list_events(db, 0, 50, None, 50),
    "events of both": lambda db: events.list_events(db, 0, 50, 1, 50),
    "students by name": lambda db: students.list_students(db, "s", None, 50),
    "students behind one by name": lambda db: students.list_students(db, "s", ("Student 5", 5), 50),
    "students by id": lambda db: students.list_students(db, None, (100,), 50),
    "courses by name": lambda db: courses.list_courses(db, "c", limit=2),
    "courses by level and name": lambda db: courses.list_courses(db, "c", level="A1", limit=2),
    "courses of a term by name": lambda db: courses.list_courses(db, "c", term_id=1, limit=2),
    "student by external id": lambda db: students.find_student(db, ExternalId("S-50")),
    "an enrollment": lambda db: enrollments.find_enrollment(db, 50, 1),
}
FEW = {"events of a student", "events of both"}
"""Lists of two rows here, which PostgreSQL sorts, as that costs less than to read them in the order of the index."""


@pytest.fixture(scope="module")
def large(server: Any, empty_school: str) -> Iterator[pw.Database]:
    """Give a school with a large course, which has a line, among many others."""
    with server.database(empty_school) as url, closing(connect(url)) as db:
        fetch(db, "INSERT INTO students (name) SELECT 'Student ' || n FROM generate_series(1, 3000) AS n RETURNING 1")
        fetch(db, "INSERT INTO terms (name) SELECT 'T' FROM generate_series(1, 50) RETURNING 1")
        fetch(
            db,
            "INSERT INTO courses (name, level, term_id, capacity, waitlist_capacity)"
            " SELECT 'C' || n, 'A' || n % 9, 1 + n % 40, CASE n WHEN 1 THEN 2000 END, NULL"
            " FROM generate_series(1, 2000) AS n RETURNING 1",
        )
        bulk.enroll_all(db, [(student, 1) for student in range(1, 2501)])
        bulk.enroll_all(db, [(student, 2 + student % 1000) for student in range(1, 3001)])
        students.update_student(db, 50, {"external_id": "S-50"})
        fetch(db, "INSERT INTO event_notes (event_id, actor) SELECT id, 'Di' FROM enrollment_events RETURNING 1")
        db.execute_sql("ANALYZE")
        yield db


@pytest.mark.parametrize("generic", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", LISTS)
def test_no_list_is_sorted_or_scanned(
    large: pw.Database, name: str, generic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is one range of an index, whether or not PostgreSQL plans it for the values that it has."""
    asked: list[tuple[str, Any]] = []
    run: Any = large.execute_sql

    def noting(sql: str, params: Any = None) -> Any:
        asked.append((sql, params))
        return run(sql, params)

    with monkeypatch.context() as patch:
        patch.setattr(large, "execute_sql", noting)
        LISTS[name](large)
    assert asked
    run(f"SET plan_cache_mode = {generic}")
    wrong = r"Seq Scan on (students|courses|enrollments|enrollment_events)"
    if name not in FEW:
        wrong += r"|\bSort\b"
    for sql, params in asked:
        plan = "\n".join(line for (line,) in run(f"EXPLAIN {sql}", params).fetchall())
        assert not re.search(wrong, plan), plan


# A trial


def test_a_trial_holds_nobody_up(path: str, other: Connect) -> None:
    """What is tried out has all that the school has, others go on writing meanwhile, and nothing of it is kept."""
    before = audit(path)
    with closing(connect(path)) as db:
        with backend_of(db).copied(db, quiet) as copy:
            other().execute("INSERT INTO enrollments (student_id, course_id) VALUES (7, 2)")
            assert students.insert_student(copy, "Ida").id == 9
            with backend_of(copy).atomic(copy):
                assert enrollments.enroll(copy, 9, 1).position == 3
            enrollments.drop(copy, 1, 1)
            with suppress(ConstraintViolated), backend_of(copy).atomic(copy) as undo:
                enrollments.enroll(copy, 8, 2)
                undo.rollback()
            assert [row.id for row in enrollments.list_roster(copy, 1)] == [3]
            assert enrollments.list_roster(copy, 2) == []
            other().execute("INSERT INTO enrollments (student_id, course_id) VALUES (8, 2)")
        assert [row.id for row in enrollments.list_roster(db, 2)] == [7, 8]
        assert [row.id for row in enrollments.list_roster(db, 1)] == [1]
        with db.atomic(), backend_of(db).copied(db, quiet) as copy:
            enrollments.drop(copy, 1, 1)
            with closing(connect(path, busy_timeout=0.1)) as another, backend_of(db).copied(another, quiet):
                enrollments.drop(another, 1, 1)
    assert audit(path) == [*before, ("enrolled", 7, 2), ("enrolled", 8, 2)]


def test_others_are_noticed(path: str, other: Connect) -> None:
    """Who has the school's turn is noticed."""
    with closing(connect(path)) as db:
        alone = backend_of(db).others_wrote(db)
        with other().transaction():
            connection = other()
            connection.autocommit = False
            connection.execute("INSERT INTO students (name) VALUES ('Ida')")
            assert backend_of(db).others_wrote(db) != alone
            connection.rollback()
        assert backend_of(db).others_wrote(db) == alone
