"""The settings, and the database file that they name."""

import sqlite3
from contextlib import closing
from pathlib import Path

import peewee as pw
import pytest

from service import Settings, connect, migrate
from service.database import database_path, fetch_all, fetch_one, is_locked, open_database
from service.errors import SetupError


def test_defaults() -> None:
    """Without an environment the service keeps enrollment.db and listens to this machine alone."""
    assert Settings.from_environ({}) == Settings()
    assert (Settings().database_url, Settings().host, Settings().port) == ("sqlite:///enrollment.db", "127.0.0.1", 8000)


def test_environment() -> None:
    """Each setting is read from the variable of its name in capitals; others are none of ours."""
    environ = {
        "DATABASE_URL": "sqlite:////srv/school.db",
        "HOST": "::1",
        "PORT": "0",
        "BUSY_TIMEOUT": "0.25",
        "MAX_PENDING_WRITES": "7",
        "database_url": "no",
        "PATH": "/bin",
    }
    assert Settings.from_environ(environ) == Settings(
        database_url="sqlite:////srv/school.db", host="::1", port=0, busy_timeout=0.25, max_pending_writes=7
    )


def test_empty_variables() -> None:
    """A variable that is set to nothing keeps the default, as `PORT= make run` would have it."""
    assert Settings.from_environ(dict.fromkeys(["DATABASE_URL", "HOST", "PORT", "BUSY_TIMEOUT"], "")) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("PORT", "9" * 5000),
        ("BUSY_TIMEOUT", "soon"),
        ("BUSY_TIMEOUT", "-0.1"),
        ("BUSY_TIMEOUT", "nan"),
        ("BUSY_TIMEOUT", "inf"),
        ("MAX_PENDING_WRITES", "0"),
        ("MAX_PENDING_WRITES", "many"),
    ],
)
def test_bad_variable(name: str, value: str) -> None:
    """A value that does not fit is refused with the variable's name."""
    with pytest.raises(ValueError, match=f"{name}='{value}' is not valid: "):
        Settings.from_environ({name: value})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("school.db", "school.db"),
        (Path("data/school.db"), "data/school.db"),
        ("/srv/school.db", "/srv/school.db"),
        ("sqlite:///school.db", "school.db"),
        ("sqlite:////srv/school.db", "/srv/school.db"),
        ("sqlite:///my%20school%3F.db", "my school?.db"),
        ("100%20?#.db", "100%20?#.db"),
    ],
)
def test_database_path(url: str | Path, path: str) -> None:
    """A path is taken as it stands, a URL as SQLAlchemy writes it: three slashes relative, four absolute."""
    assert database_path(url) == Path.cwd() / path


@pytest.mark.parametrize(
    "url",
    [
        "",
        ":memory:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://school.db",
        "sqlite://host/school.db",
        "sqlite:///school.db?mode=ro",
        "sqlite:///school.db#1",
        "sqlite://[",
        "postgresql://localhost/school",
        "http://localhost:8000",
    ],
)
def test_no_database_path(url: str) -> None:
    """What does not name one file is refused in words."""
    with pytest.raises(SetupError, match=r"is not a database URL: write sqlite:///|The database is a file"):
        database_path(url)


@pytest.mark.parametrize("name", ["with space.db", "50%25?mode=memory#.db", "学生.db", "file:x.db", "'quoted\".db"])
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    """Whatever a file is called, it is that file which is opened, and no other."""
    migrate(tmp_path / name)
    connect(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """Unless it is told to, a connection does not make the file."""
    db = open_database(tmp_path / "none.db")
    with pytest.raises(pw.OperationalError, match="unable to open"):
        db.connect()
    assert not list(tmp_path.iterdir())


def test_every_connection_is_durable_and_checks_references(db: pw.SqliteDatabase) -> None:
    """Commits are synced (FULL is 2), in write-ahead logging, and references are enforced."""
    names = ("synchronous", "foreign_keys", "journal_mode", "busy_timeout")
    assert [fetch_one(db, f"PRAGMA {name}") for name in names] == [(2,), (1,), ("wal",), (5000,)]


def test_rows(db: pw.SqliteDatabase) -> None:
    """One row, all rows, or none."""
    assert fetch_all(db, "SELECT 1 UNION SELECT ?", 2) == [(1,), (2,)]
    assert fetch_one(db, "SELECT 1 UNION SELECT ?", 2) == (1,)
    assert fetch_one(db, "SELECT 1 WHERE ? = 2", 1) is None


def test_is_locked(path: Path) -> None:
    """A lock that another connection holds is told from every other error."""
    db = open_database(path, busy_timeout=0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, closing(db):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(pw.OperationalError) as raised, db.atomic("IMMEDIATE"):
            pass
        assert is_locked(raised.value)
        with pytest.raises(pw.OperationalError) as raised:
            db.execute_sql("SELECT * FROM nothing")
        assert not is_locked(raised.value)
    assert not is_locked(OSError("no database at all"))
