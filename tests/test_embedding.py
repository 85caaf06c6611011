"""The service inside another program: mounted in its app, called from its own code, or a plugin of Datasette."""

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, closing, contextmanager
from pathlib import Path
from shutil import copy
from typing import Any
from urllib.parse import quote

import httpx2
import peewee as pw
import pytest
from conftest import ROOT
from fastapi import FastAPI
from peewee_migrate import Router
from programs import is_file, open_program
from starlette.applications import Starlette
from starlette.testclient import TestClient

from service import (
    Settings,
    bulk,
    connect,
    courses,
    create_app,
    enrollments,
    errors,
    migrate,
    students,
)
from service.storage import migrating, models
from service.storage.sqlite import schema

OURS = ("students", "courses", "enrollments", "enrollment_events", migrating.HISTORY)

HOST_MIGRATION = """
def migrate(migrator, database, *, fake=False):
    migrator.sql("CREATE TABLE {0} (id INTEGER PRIMARY KEY, name TEXT)")
    migrator.sql("INSERT INTO {0} (name) VALUES ('first'), ('second')")

def rollback(migrator, database, *, fake=False):
    migrator.sql("DROP TABLE {0}")
"""

PLUGIN = """
from datasette import hookimpl
from service import Settings, create_app
from starlette.routing import Mount, Router

@hookimpl
def asgi_wrapper(datasette):
    settings = Settings(database_url=datasette.get_database("school").path)
    enrollment = Mount("/-/enrollment", create_app(settings, migrate=True))
    return lambda app: Router([enrollment], default=app)
"""


def content(path: Path | str, *tables: str) -> dict[str, list[Any]]:
    """Give each table's definition, of a file, and all its rows, as another program would find them."""
    if not is_file(path):
        with closing(open_program(path)) as program:
            return {table: sorted(program.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables}
    definition = "SELECT sql FROM sqlite_schema WHERE tbl_name = ? ORDER BY name"
    with closing(sqlite3.connect(path)) as db:
        return {
            table: db.execute(definition, [table]).fetchall() + db.execute(f"SELECT * FROM {table}").fetchall()
            for table in tables
        }


@pytest.fixture(
    params=[(kind, under) for kind in (Starlette, FastAPI) for under in ("", "/campus/2026")],
    ids=lambda param: f"{param[0].__name__}{param[1]}",
)
def host(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> tuple[Starlette, dict[str, Path]]:
    """Give a program of each kind with two apps mounted in it, directly and one mount deeper, and the apps' files."""
    kind, under = request.param
    program, files = kind(), {}
    for name in ("north", "south wing"):
        path = files[f"{under}/{name}"] = Path(copy(empty_database, tmp_path / f"{name}.db"))
        program.mount(f"/{name}", create_app(Settings(database_url=str(path))))
    if under:
        program, inner = kind(), program
        program.mount(under, inner)
    return program, files


def test_mounted_apps_never_mix(host: tuple[Starlette, dict[str, Path]]) -> None:
    """Two apps on two files in one program, asked at the same time and without a lifespan, never mix."""
    program, files = host

    async def enroll(client: httpx2.AsyncClient, at: str, number: int) -> None:
        name = f"{at} {number}"
        student = (await client.post(f"{at}/students", json={"name": name})).json()
        course = (await client.post(f"{at}/courses", json={"name": name, "level": at})).json()
        schedule = f"{at}/students/{student['id']}/courses"
        assert (await client.post(schedule, json={"course_id": course["id"]})).status_code == 201
        assert [row["name"] for row in (await client.get(schedule)).json()] == [name]

    async def ask_both() -> None:
        transport = httpx2.ASGITransport(app=program)
        async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
            await asyncio.gather(*(enroll(client, at, number) for number in range(20) for at in files))

    asyncio.run(ask_both())
    for at, path in files.items():
        assert schema.status(path)[1] == dict.fromkeys(
            ["students", "courses", "enrollments", "enrollment_events"], 20
        ) | dict.fromkeys(["terms", "event_notes", "api_tokens", "api_sessions"], 0)
        with closing(connect(path)) as db:
            assert {row.name for row in students.list_students(db)} == {f"{at} {number}" for number in range(20)}


def test_urls_include_the_mount_path(host: tuple[Starlette, dict[str, Path]]) -> None:
    """Location, Link and a problem's type include the mount path, and lead where they say."""
    program, files = host
    client = TestClient(program)
    for at in map(quote, files):
        student = client.post(f"{at}/students", json={"name": "Ada"})
        assert student.headers["location"] == f"{at}/students/1"
        assert client.get(student.headers["location"]).json() == student.json()

        for number in (1, 2):
            client.post(f"{at}/courses", json={"name": "Algebra", "level": "1"})
            enrollment = client.put(f"{at}/students/1/courses/{number}")
            assert enrollment.headers["location"] == f"{at}/students/1/courses/{number}"
            assert client.get(enrollment.headers["location"]).json() == enrollment.json()

        page = client.get(f"{at}/students/1/courses?limit=1")
        assert page.headers["link"].startswith(f"<{at}/students/1/courses?limit=1&after=")
        assert [row["id"] for row in client.get(page.links["next"]["url"]).json()] == [2]

        for path, code in ("/students/9", "student_not_found"), ("/nowhere", "not_found"):
            problem = client.get(at + path).json()
            assert problem["type"] == f"{at}/problems/{code}"
            assert client.get(problem["type"]).json()["code"] == code


def test_host_tables_and_history_are_untouched(tmp_path: Path) -> None:
    """A program's tables and peewee-migrate history in the same file go on as if the service were not there."""
    path = tmp_path / "school.db"
    host_db = pw.SqliteDatabase(str(path))
    router: Any = Router(host_db, migrate_dir=tmp_path / "migrations")
    assert router.todo == []  # This makes the directory.
    (router.migrate_dir / "001_rooms.py").write_text(HOST_MIGRATION.format("rooms"))
    router.run()
    theirs = content(path, "rooms", "migratehistory")

    migrate(path)
    with closing(connect(path)) as db:
        enrollments.enroll(db, students.insert_student(db, "Ada").id, courses.insert_course(db, "Algebra", "1").id)
    assert content(path, *theirs) == theirs
    assert router.done == ["001_rooms"]

    ours = content(path, *OURS)
    (router.migrate_dir / "002_desks.py").write_text(HOST_MIGRATION.format("desks"))
    assert Router(host_db, migrate_dir=router.migrate_dir).run() == ["002_desks"]
    router.rollback()
    assert content(path, *OURS) == ours

    while schema.status(path)[1]:
        schema.rollback(path)
    assert content(path, *theirs) == theirs
    assert not host_db.table_exists("students")
    router.rollback()
    assert router.done == []
    host_db.close()


@pytest.mark.parametrize("form", ["school.db", "{}", "sqlite:///school.db", "sqlite:///{}"])
def test_connect_takes_a_path_or_a_url(form: str, path: Path) -> None:
    """Without HTTP, a path or a URL, relative or absolute, is all that it takes to use the rules."""
    with chdir(path.parent), closing(connect(form.format(path))) as db:
        students.insert_student(db, "Ada")
    assert content(path, "students")["students"][-1][:2] == (1, "Ada")


@pytest.fixture
def school(db: pw.Database, path: Path | str) -> Path | str:
    """Have students, courses, of which the third is full with one in line, and a table of the host's."""
    for name in ("Ada", "Grace", "Edsger"):
        students.insert_student(db, name)
    for name, *limits in (("Ada",), ("Grace",), ("Edsger", 1, 1)):
        courses.insert_course(db, name, "1", *limits)
    for student_id, course_id in ((1, 1), (1, 3), (2, 3)):
        enrollments.enroll(db, student_id, course_id)
    db.execute_sql("CREATE TABLE notes (text TEXT)")
    return path


@pytest.mark.both
def test_host_rolls_back(db: pw.Database, school: Path | str) -> None:
    """What a rule did inside the host's transaction goes when the host rolls back, and stays when it commits."""
    before = content(school, "notes", *OURS)
    with db.atomic() as transaction:
        db.execute_sql("INSERT INTO notes VALUES ('mine')")
        enrollments.enroll(db, 1, 2)
        enrollments.ensure_enrolled(db, 2, 2)
        enrollments.drop(db, 1, 3)
        enrollments.enroll(db, 3, 3)
        courses.update_course(db, 3, {"capacity": 2})
        bulk.enroll_all(db, [(2, 1), (3, 1)])
        enrollments.drop(db, 1, 1)
        students.insert_student(db, "Alan")
        courses.delete_course(db, courses.insert_course(db, "Physics", "1").id)
        assert content(school, *before) == before
        transaction.rollback()
    assert content(school, *before) == before
    with db.atomic():
        enrollments.enroll(db, 1, 2)
    assert [row.id for row in enrollments.list_roster(db, 2)] == [1]


@pytest.mark.both
@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (lambda db: enrollments.enroll(db, 1, 1), errors.AlreadyEnrolled),
        (lambda db: enrollments.enroll(db, 9, 9), errors.StudentNotFound),
        (lambda db: enrollments.enroll(db, 1, 9), errors.CourseNotFound),
        (lambda db: enrollments.enroll(db, 2, 3), errors.AlreadyWaitlisted),
        (lambda db: enrollments.enroll(db, 3, 3), errors.CourseFull),
        (lambda db: enrollments.ensure_enrolled(db, 9, 9), errors.StudentNotFound),
        (lambda db: enrollments.ensure_enrolled(db, 1, 9), errors.CourseNotFound),
        (lambda db: enrollments.ensure_enrolled(db, 3, 3), errors.CourseFull),
        (lambda db: enrollments.drop(db, 2, 1), errors.EnrollmentNotFound),
        (lambda db: students.update_student(db, 9, {"name": "Alan"}), errors.StudentNotFound),
        (lambda db: students.delete_student(db, 1), errors.StudentHasEnrollments),
        (lambda db: courses.update_course(db, 9, {"level": "2"}), errors.CourseNotFound),
        (lambda db: courses.update_course(db, 3, {"level": "2", "capacity": 0}), errors.CapacityBelowEnrolled),
        (
            lambda db: courses.update_course(db, 3, {"level": "2", "waitlist_capacity": 0}),
            errors.WaitlistCapacityBelowWaitlisted,
        ),
        (lambda db: courses.delete_course(db, 1), errors.CourseHasEnrollments),
        (lambda db: bulk.enroll_all(db, [(2, 1), (3, 3)], atomic=True), errors.BulkRefused),
    ],
)
def test_refusal_in_host_transaction(
    db: pw.Database,
    school: Path | str,
    rule: Callable[[pw.Database], object],
    error: type[errors.ServiceError],
    *,
    commits: bool,
) -> None:
    """A rule that refuses leaves nothing of its own behind, and the host's transaction as it was."""
    before = content(school, "notes", *OURS)
    with db.atomic() as transaction:
        db.execute_sql("INSERT INTO notes VALUES ('earlier')")
        with pytest.raises(error):
            rule(db)
        db.execute_sql("INSERT INTO notes VALUES ('later')")
        assert content(school, *before) == before
        if not commits:
            transaction.rollback()
    notes = [("earlier",), ("later",)] if commits else []
    assert content(school, *before) == before | {"notes": before["notes"] + notes}


@pytest.mark.both
@pytest.mark.usefixtures("school")
def test_threads_share_a_database(db: pw.Database) -> None:
    """Each thread has a transaction of its own, and of those that want one enrollment exactly one gets it."""
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        start.wait(10)
        with db.connection_context():
            with db.atomic() as transaction:
                enrollments.enroll(db, students.insert_student(db, str(number)).id, 1)
                if number % 2:
                    transaction.rollback()
            return enrollments.ensure_enrolled(db, 2, 2)[1]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1
    assert {row.name for row in enrollments.list_roster(db, 1)} == {"Ada", "0", "2", "4", "6"}
    assert [row.name for row in enrollments.list_roster(db, 2)] == ["Grace"]


def by_rule(path: Path, name: str) -> None:
    """Add a student with the plain function."""
    with closing(connect(path)) as db:
        students.insert_student(db, name)


def by_peewee(path: Path, name: str) -> None:
    """Add a student with a Peewee database of the host's own."""
    with pw.SqliteDatabase(str(path), pragmas={"foreign_keys": 1}) as db:
        models.Student.insert(name=name).execute(db)


def by_driver(path: Path, name: str) -> None:
    """Add a student with Python's own driver."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO students (name) VALUES (?)", (name,))


def by_another_app(path: Path, name: str) -> None:
    """Add a student through another app on the same file."""
    with TestClient(create_app(Settings(database_url=str(path)))) as client:
        assert client.post("/students", json={"name": name}).status_code == 201


@pytest.mark.parametrize("write", [by_rule, by_peewee, by_driver, by_another_app])
def test_a_host_sees_what_it_has_just_written(path: Path, write: Callable[[Path, str], None]) -> None:
    """A request in the same turn of the event loop as the host's own write, and as a request before it, has it."""

    async def ask_twice() -> list[Any]:
        transport = httpx2.ASGITransport(create_app(Settings(database_url=str(path))))
        async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
            answers = [(await client.get("/students")).json()]
            for name in ("Ada", "Ben"):
                write(path, name)
                answers.append((await client.get("/students")).json())
            return [[row["name"] for row in rows] for rows in answers]

    assert asyncio.run(ask_twice()) == [[], ["Ada"], ["Ada", "Ben"]]


@pytest.mark.both
@pytest.mark.parametrize("snapshot_per_turn", [False, True])
def test_what_was_acknowledged_is_read(path: Path | str, *, snapshot_per_turn: bool) -> None:
    """A GET behind the answer to a POST has what that wrote, while other reads go on in every turn."""
    app = create_app(Settings(database_url=str(path)), snapshot_per_turn=snapshot_per_turn)

    async def write_and_read(client: httpx2.AsyncClient, number: int) -> None:
        for n in range(20):
            name = f"{number}-{n}"
            made = (await client.post("/students", json={"name": name})).json()
            assert (await client.get(f"/students/{made['id']}")).json() == made

    async def read_on(client: httpx2.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await client.get("/students")
            await asyncio.sleep(0)

    async def use() -> None:
        stop = asyncio.Event()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://host") as client:
            reading = asyncio.ensure_future(read_on(client, stop))
            await asyncio.gather(*(write_and_read(client, number) for number in range(4)))
            stop.set()
            await reading

    asyncio.run(use())


@contextmanager
def datasette(*options: str | Path) -> Iterator[str]:
    """Run Datasette on a free port until the block ends, and give its URL."""
    command = [sys.executable, "-m", "datasette", *options, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            log = ""
            while not (found := re.search(r"running on (http://\S+)", log)):
                line = process.stderr.readline()
                assert line, f"Datasette did not start: {log}"
                log += line
            yield found[1]
            process.terminate()
            process.wait(10)
        finally:
            process.kill()


@pytest.mark.long
def test_datasette_plugin(tmp_path: Path) -> None:
    """Datasette and, through a plugin, the service answer on one file: what one enrolls, the other shows."""
    database = tmp_path / "school.db"
    with closing(sqlite3.connect(database)) as db:
        db.executescript("CREATE TABLE rooms (name); INSERT INTO rooms VALUES ('blue')")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/enrollment.py").write_text(PLUGIN)
    with (
        datasette(database, "--plugins-dir", tmp_path / "plugins") as url,
        httpx2.Client(base_url=url) as client,
    ):

        def shown(table: str) -> Any:
            return client.get(f"/school/{table}.json", params={"_shape": "array"}).json()

        service = "/-/enrollment"
        assert shown("enrollments") == []
        student = client.post(f"{service}/students", json={"name": "Ada"})
        assert student.headers["location"] == f"{service}/students/1"
        assert client.post(f"{service}/courses", json={"name": "Algebra", "level": "1"}).status_code == 201
        enrollment = client.post(f"{service}/students/1/courses", json={"course_id": 1})
        assert enrollment.status_code == 201
        kept = {key: enrollment.json()[key] for key in ("student_id", "course_id", "enrolled_at")}
        assert shown("enrollments") == [kept | {"waiting": None, "event_id": 1}]
        assert client.delete(enrollment.headers["location"]).status_code == 204
        assert shown("enrollments") == []
        told = [{**event, "actor": None, "reason": None} for event in shown("enrollment_events")]
        assert told == [event | {"filed": 1} for event in client.get(f"{service}/events").json()]
        assert shown("students") == [student.json()] == client.get(f"{service}/students").json()
        assert [row["name"] for row in shown("rooms")] == ["blue"]
