"""The settings, and the database file that they name."""

import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import peewee as pw
import pytest

from service import Settings, connect, create_app, migrate
from service.errors import SetupError
from service.storage import fetch, fetch_one
from service.storage.sqlite.connections import open_database
from service.storage.sqlite.schema import rollback, status
from service.storage.sqlite.urls import database_path
from service.storage.sqlite.violations import is_locked


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
        "KEEP_ALIVE": "0.5",
        "MAX_PENDING_WRITES": "7",
        "database_url": "no",
        "PATH": "/bin",
    }
    assert Settings.from_environ(environ) == Settings(
        database_url="sqlite:////srv/school.db",
        host="::1",
        port=0,
        busy_timeout=0.25,
        keep_alive=0.5,
        max_pending_writes=7,
    )


def test_empty_variables() -> None:
    """A variable that is set to nothing keeps the default, as `PORT= make run` would have it."""
    assert (
        Settings.from_environ(dict.fromkeys(["DATABASE_URL", "HOST", "PORT", "BUSY_TIMEOUT", "KEEP_ALIVE"], ""))
        == Settings()
    )


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
        ("KEEP_ALIVE", "long"),
        ("KEEP_ALIVE", "-1"),
        ("KEEP_ALIVE", "nan"),
        ("KEEP_ALIVE", "86401"),
        ("MAX_PENDING_WRITES", "0"),
        ("MAX_PENDING_WRITES", "many"),
        ("SCHOOL_NAME", " "),
        ("SCHOOL_NAME", "a" * 201),
    ],
)
def test_bad_variable(name: str, value: str) -> None:
    """A value that does not fit is refused with the variable's name."""
    with pytest.raises(ValueError, match=f"{name}='{value}' is not valid: "):
        Settings.from_environ({name: value})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that has a folder in it, and be at home there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("school.db", "school.db"),
        (Path("data/school.db"), "data/school.db"),
        ("/tmp/school.db", "/tmp/school.db"),  # noqa: S108
        ("sqlite:///school.db", "school.db"),
        ("sqlite:///data/school.db", "data/school.db"),
        ("sqlite:////tmp/school.db", "/tmp/school.db"),  # noqa: S108
        ("sqlite:///my%20school%3F.db", "my school?.db"),
        ("100%20?#.db", "100%20?#.db"),
        ("./school:2026.db", "school:2026.db"),
        ("a:b.db", "a:b.db"),
        (Path("./a:b.db"), "a:b.db"),
        ("my school: 2026.db", "my school: 2026.db"),
        ("sqlite:///school:2026.db", "school:2026.db"),
        ("sqlite.db", "sqlite.db"),
        ("~.db", "~.db"),
        ("école 学生.db", "école 学生.db"),
        ('"half.db', '"half.db'),
        ("sqlite:///%20.db%20", " .db "),
    ],
)
def test_database_path(here: Path, url: str | Path, path: str) -> None:
    """A path is taken as it stands, a URL as SQLAlchemy writes it: three slashes relative, four absolute."""
    assert database_path(url) == here / path


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("sqlite:school.db", "sqlite:///school.db"),
        ("sqlite3:school.db", "sqlite:///school.db"),
        ("sqlite3:///school.db", "sqlite:///school.db"),
        ("sqlite:/srv/school.db", "sqlite:////srv/school.db"),
        ("sqlite://school.db", "sqlite:///school.db"),
        ("sqlite://host/school.db", "sqlite:///host/school.db"),
        ("SQLITE:///school.db", "sqlite:///school.db"),
        ("sqlite+aiosqlite:///school.db", "sqlite:///school.db"),
        ("sqlite+pysqlite:////srv/school.db", "sqlite:////srv/school.db"),
        ("sqliteext:///school.db", "sqlite:///school.db"),
        ("jdbc:sqlite:school.db", "sqlite:///school.db"),
        ("jdbc:sqlite:/srv/school.db", "sqlite:////srv/school.db"),
        ("file:school.db", "sqlite:///school.db"),
        ("file:./school.db?connection_limit=1", "sqlite:///./school.db"),
        ("file:/srv/school.db", "sqlite:////srv/school.db"),
        ("FILE:///srv/school.db", "sqlite:////srv/school.db"),
        ("file://localhost/srv/school.db", "sqlite:////srv/school.db"),
        ("sqlite:///file:school.db?mode=ro&uri=true", "sqlite:///school.db"),
        ("sqlite:///school.db?mode=ro", "sqlite:///school.db"),
        ("sqlite:///school.db#1", "sqlite:///school.db"),
        (Path("sqlite:///school.db"), "sqlite:////school.db"),
        ("~/school.db", "{home}/school.db"),
        (Path("~/school.db"), "{home}/school.db"),
        ("sqlite:///~/school.db", "sqlite:///{home}/school.db"),
        ("file:~/school.db", "sqlite:///{home}/school.db"),
        (" school.db", "school.db"),
        ("sqlite:///school.db \r\n", "sqlite:///school.db"),
        ("\ufeffschool.db", "school.db"),
        ("'school.db'", "school.db"),
        ('"sqlite:///school.db"\n', "sqlite:///school.db"),
        ("school.db/", "{home}/school.db"),
        ("sqlite:///school.db/", "{home}/school.db"),
        ("data", "{home}/data/enrollment.db"),
        ("sqlite:///data/", "{home}/data/enrollment.db"),
    ],
)
def test_a_database_in_another_form(here: Path, url: str | Path, right: str) -> None:
    """What other tools and env files write is refused with the form that is right here, which is then taken."""
    right = right.format(home=here)
    with pytest.raises(SetupError, match=f"is not a database URL: .*{re.escape(repr(right))}\\.$") as raised:
        database_path(url)
    assert str(raised.value).startswith(repr(str(url)))
    if "/srv/" not in right and "host" not in right:
        assert database_path(right).name in ("school.db", "enrollment.db")


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "''",
        ":memory:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite::memory:",
        "file:x?mode=memory",
    ],
)
def test_no_file(url: str) -> None:
    """What names no file, or one in memory, is refused in words."""
    with pytest.raises(SetupError, match=r"The database is a file, as sqlite:///school\.db is"):
        database_path(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://ada:secret@localhost/school", "'postgresql:...' is not a database URL: write sqlite:///"),
        ("jdbc:mysql://localhost/school", "'mysql:...' is not a database URL: write sqlite:///"),
        ("http://localhost:8000", "'http:...' is not a database URL: write sqlite:///"),
        ("school:2026.db", r"'school:\.\.\.' is not a database URL: .* a path, with \./ before a name that begins so"),
        ("sqlite:///school%00.db", "without control characters"),
        ("school\0.db", "without control characters"),
        ("sqlite:///a%0Ab.db", "without control characters"),
        ("sqlite:///school%FF.db", "in UTF-8"),
        ("school\udcff.db", "in UTF-8"),
        ("x" * 300, "cannot be reached: File name too long"),
        ("school.db/school.db", "cannot be reached: Not a directory"),
    ],
)
def test_no_database_path(here: Path, url: str, reason: str) -> None:
    """What cannot be a file's name is refused in one line that says why, and has no password in it."""
    (here / "school.db").touch()
    with pytest.raises(SetupError, match=reason) as raised:
        database_path(url)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "start",
    [
        migrate,
        status,
        rollback,
        lambda url: connect(url).close(),
        lambda url: create_app(Settings(database_url=url)),
    ],
)
def test_a_folder_that_is_missing(here: Path, start: Callable[[str], object]) -> None:
    """Whatever is to be done, the folder is named with the command that makes it, and nothing is made."""
    (here / "link.db").symlink_to("far away/school.db")
    for url, folder, name in ("no/school.db", "no", "school.db"), ("sqlite:///link.db", "far away", "link.db"):
        with pytest.raises(SetupError, match=f"There is no folder {here / folder} for the database {name}") as raised:
            start(url)
        assert not (here / folder).exists()
        subprocess.run(["sh", "-c", str(raised.value).partition("make it with: ")[2]], check=True)
        migrate(url)
        start(url)


@pytest.mark.parametrize("name", ["with space.db", "50%25?mode=memory#.db", "学生.db", "file:x.db", "'quoted\".db"])
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    """Whatever a file is called, it is that file which is opened, and no other."""
    migrate(tmp_path / name)
    connect(tmp_path / name).close()
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
    assert fetch(db, "SELECT 1 UNION SELECT ?", 2) == [(1,), (2,)]
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
