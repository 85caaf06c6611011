"""Every command does the same on a file and on PostgreSQL."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from postgresql import Server

from service import connect
from service.__main__ import cli
from service.courses import insert_course
from service.enrollments import enroll
from service.students import insert_student

pytestmark = pytest.mark.both

NEWEST = max(path.stem for path in (ROOT / "migrations").glob("0*.py"))


@pytest.fixture
def url(path: Path) -> str:
    """Give the URL of a school with two students, of whom one waits."""
    with closing(connect(path)) as db:
        for name in ("Ada", "Grace"):
            insert_student(db, name, external_id=name.upper())
        insert_course(db, "Logic", "1", 1, 1, external_id="LOGIC")
        enroll(db, 1, 1)
        enroll(db, 2, 1)
    return str(path)


def run(url: str, *words: str | Path) -> Result:
    """Run a command on a database."""
    return CliRunner().invoke(cli, [*map(str, words), "--database-url", url])


def test_status(url: str) -> None:
    """The version and the rows are shown; what differs is an error, which `repair` mends."""
    told = run(url, "status")
    assert told.exit_code == 0
    assert told.stdout.splitlines()[:7] == [
        f"database  {url}",
        f"version   {NEWEST}",
        "pending   none",
        "students                     2",
        "courses                      1",
        "enrollments                  2",
        "enrollment_events            2",
    ]
    with closing(connect(url)) as db:
        db.execute_sql("DROP INDEX student_name_id")
    told = run(url, "status")
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (1, "differs   the index student_name_id is missing")
    assert "repair --database-url" in told.stderr
    assert run(url, "check").exit_code == 1
    assert run(url, "repair").stdout == "the index student_name_id is missing: put back.\n"
    assert run(url, "repair").stdout == "Nothing was to be done.\n"


def test_check(url: str) -> None:
    """Each invariant has a line, and each holds."""
    told = run(url, "check")
    assert told.exit_code == 0
    names = [line[:14].strip() for line in told.stdout.splitlines() if line[14:].startswith("ok  (")]
    assert len(names) == len(told.stdout.splitlines())
    assert {"schema", "references", "limits", "counts", "line", "history", "state", "turns", "words"} < {*names}


def test_rollback_and_migrate(url: str) -> None:
    """Whatever a rollback takes, the next `migrate` makes again; a server that is connected is in the way."""
    assert run(url, "migrate").stdout == f"{url} is up to date.\n"
    told = run(url, "rollback")
    assert (told.exit_code, told.stdout.splitlines()[0][:26]) == (1, f"Rolling back {NEWEST}"[:26])
    assert run(url, "rollback", "--yes").stdout.endswith(f"\nrolled back {NEWEST}\n")
    assert run(url, "migrate").stdout == f"applied {NEWEST}\n{url} is up to date.\n"
    assert run(url, "check").exit_code == 0


def test_tokens(url: str) -> None:
    """A token is made, listed, changed and revoked."""
    made = run(url, "token", "create", "--name", "reports", "--scope", "read")
    assert made.stdout.startswith("enr_")
    (listed,) = json.loads(run(url, "token", "list", "--json").stdout)
    assert (listed["name"], listed["scopes"]) == ("reports", ["read"])
    rotated = run(url, "token", "rotate", listed["id"], "--grace", "1h")
    assert rotated.stdout.startswith("enr_")
    assert rotated.stdout != made.stdout
    assert run(url, "token", "revoke", listed["id"]).exit_code == 0
    assert json.loads(run(url, "token", "list", "--json").stdout)[0]["revoked_at"]
    assert run(url, "token", "revoke", "nobody00").exit_code == 1


def test_import_and_export(url: str, tmp_path: Path) -> None:
    """What is exported can be imported; a dry run tells the same as the import, and keeps nothing."""
    assert run(url, "export", f"{tmp_path}/").exit_code == 0
    head, *rows = (tmp_path / "students.csv").read_text().splitlines()
    students = tmp_path / "more.csv"
    students.write_text("\n".join([head, rows[0].replace("Ada", "Ada Lovelace"), rows[0].replace("ADA", "ALAN"), ""]))
    dry = run(url, "import", students, "--dry-run", "--json", "--progress", "none")
    assert (dry.exit_code, dry.stderr) == (0, "")
    before = json.loads(dry.stdout)
    assert run(url, "status").stdout.splitlines()[3].split() == ["students", "2"]
    after = json.loads(run(url, "import", students, "--json", "--progress", "none").stdout)
    assert {**after, "seconds": 0, "dry_run": True} == {**before, "seconds": 0, "dry_run": True}
    assert run(url, "status").stdout.splitlines()[3].split() == ["students", "3"]
    assert run(url, "export", tmp_path / "students.csv").stdout.split() == ["students.csv", "3", "rows"]
    assert "Ada Lovelace" in (tmp_path / "students.csv").read_text()
    told = run(url, "export", tmp_path / "all.zip", "--format", "oneroster")
    assert told.exit_code == 0, told.output
    assert run(url, "check").exit_code == 0


def test_backup(url: str, tmp_path: Path) -> None:
    """A file is copied; for PostgreSQL, the error names what copies it."""
    told = run(url, "backup", tmp_path / "copy.db")
    if url.startswith("postgresql:"):
        assert (told.exit_code, told.stdout) == (1, "")
        assert f"pg_dump --format=custom --file={tmp_path / 'copy.db'} '{url}'" in told.stderr
    else:
        assert told.exit_code == 0
        assert (tmp_path / "copy.db").exists()


def test_no_password_is_shown(server: Server) -> None:
    """What a command prints has the URL without its password, also where it fails."""
    with server.database() as url:
        secret = url.replace("postgres@", "postgres:hush@")
        for command in ("migrate", "status", "check", "repair", "migrate"):
            told = run(secret, command)
            assert told.exit_code == 0, told.output
            assert "hush" not in told.output
        for command in ("rollback", "backup x", "status"):
            told = run(secret.replace("school_", "none_"), *command.split())
            assert told.exit_code == 1
            assert "hush" not in told.output
