"""The databases of PostgreSQL that tests borrow: nothing that one test leaves behind reaches the next one."""

from contextlib import closing
from urllib.parse import urlsplit

import pytest
from answers import open_school
from postgresql import Server
from schools import Schools

from service import connect
from service.storage import fetch
from service.students import insert_student

psycopg = pytest.importorskip("psycopg")

TABLES = ["terms", "students", "courses", "enrollments", "enrollment_events", "event_notes", "api_tokens"]
LEFT = {
    "a trigger": """
        CREATE FUNCTION host() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER host BEFORE INSERT ON students FOR EACH ROW EXECUTE FUNCTION host()""",
    "a trigger that is off": "ALTER TABLE enrollments DISABLE TRIGGER enrollment_kept",
    "a table": "CREATE TABLE host (id int)",
    "a table in another schema": "CREATE SCHEMA host CREATE TABLE host (id int)",
    "a column": "ALTER TABLE students ADD host int",
    "a column that is gone": "ALTER TABLE students DROP email",
    "an index that is gone": "DROP INDEX student_name_id",
    "another function": "CREATE OR REPLACE FUNCTION host() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a setting": "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END$$",
    "a limit": "DO $$BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 9', current_database()); END$$",
    "what was granted": "GRANT SELECT ON students TO PUBLIC",
    "statistics": "INSERT INTO students (name) VALUES ('Ada'); ANALYZE students",
    "a migration that is gone": "DELETE FROM enrollment_migrations WHERE id = 8",
    "a letter that is another": "UPDATE letters SET letter = letter WHERE letter = (SELECT min(letter) FROM letters)",
    "many rows": "INSERT INTO students (name) SELECT 'Ada' FROM generate_series(1, 2000)",
    "nothing at all": "DROP SCHEMA public CASCADE",
}
"""What a test may leave behind in a database, beside rows."""


def test_the_next_test_finds_no_rows(schools: Schools) -> None:
    """The same database comes again, without its rows, and counts its ids from 1."""
    with schools.lent() as first, closing(connect(first)) as db:
        open_school(db)
    with schools.lent() as second, closing(connect(second)) as db:
        assert second == first
        assert [fetch(db, f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)
        assert insert_student(db, "Ada").id == 1


@pytest.mark.parametrize("what", LEFT)
def test_the_next_test_gets_another_database(schools: Schools, what: str) -> None:
    """A database in which anything else was changed is dropped."""
    with schools.lent() as first, psycopg.connect(first) as db:
        db.execute(LEFT[what].encode())
        db.commit()
    with schools.lent() as second, closing(connect(second)) as found:
        assert second != first
        assert fetch(found, "SELECT count(*) FROM students") == [(0,)]
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


def test_what_a_test_still_holds_is_taken_from_it(schools: Schools) -> None:
    """A transaction that a test has left open is ended, with its locks."""
    with schools.lent() as url:
        left = psycopg.connect(url)
        left.execute("LOCK TABLE students")
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    with schools.lent() as again, closing(connect(again)) as db:
        assert again == url
        insert_student(db, "Ada")


def test_a_test_may_end_every_connection(schools: Schools, server: Server) -> None:
    """A database whose connections a test has all ended is made anew, and so is one that a test has dropped."""
    for statement in (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        "DROP DATABASE {} WITH (FORCE)",
    ):
        with schools.lent() as url:
            server.execute(statement.format(urlsplit(url).path[1:]))
        with schools.lent() as another:
            assert another != url
