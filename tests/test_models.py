"""The models: one schema with the migrations, bound to nothing, and the query of a page."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee as pw
import pytest
from conftest import ROOT

from service.storage import fetch
from service.storage.models import Course, Enrollment, Student
from service.storage.sqlite.backend import list_rows
from service.storage.sqlite.connections import open_database
from service.storage.texts import readable

OURS = [model for model in pw.Model.__subclasses__() if model.__module__ == Student.__module__]
CHECKS = re.compile(r"CHECK (\((?:[^()]|\([^()]*\))*\))")


def describe(path: Path) -> dict[str, Any]:
    """Give all that SQLite knows of the schema but the triggers; of the text that made it, only the checks."""
    with closing(sqlite3.connect(path)) as connection:

        def rows(sql: str, *params: str) -> list[Any]:
            return connection.execute(sql, params).fetchall()

        made = "SELECT name, type, sql FROM sqlite_master WHERE name NOT GLOB 'sqlite_*' AND tbl_name NOT GLOB ?"
        return {
            name: {
                "type": kind,
                "columns": rows("SELECT * FROM pragma_table_xinfo(?)", name),
                "references": sorted(row[2:] for row in rows("SELECT * FROM pragma_foreign_key_list(?)", name)),
                "indexes": {
                    row[1]: (row[2:], rows("SELECT * FROM pragma_index_xinfo(?)", row[1]))
                    for row in rows("SELECT * FROM pragma_index_list(?)", name)
                },
                "words": sorted(re.findall(r"\b(AUTOINCREMENT|WITHOUT ROWID|STRICT|COLLATE \w+|CHECK)\b", sql)),
                "checks": sorted(CHECKS.findall(sql)),
            }
            for name, kind, sql in rows(made, "enrollment_migrations")
            if kind not in {"trigger", "view"}  # The migrations alone have those.
        }


def test_models_and_migrations_describe_one_schema(path: Path, tmp_path: Path) -> None:
    """The tables that the models make are those that the migrations make, to the last index, check and collation."""
    db = open_database(tmp_path / "models.db", create=True)
    for model in OURS:
        pw.SchemaManager(model, db).create_all(safe=False)
    db.close()
    migrated = describe(path)
    assert describe(tmp_path / "models.db") == migrated
    assert {"students", "courses", "enrollments", "enrollment_events"} < set(migrated)
    assert migrated["students"]["words"] == ["AUTOINCREMENT", "COLLATE NOCASE"]
    assert migrated["enrollments"]["words"] == ["CHECK", "WITHOUT ROWID"]
    assert all(len(table["checks"]) == table["words"].count("CHECK") for table in migrated.values())
    assert len(migrated["courses"]["checks"]) == 2
    assert [row[4] for row in migrated["enrollments"]["references"]] == ["RESTRICT", "RESTRICT"]


@pytest.fixture
def school(db: pw.SqliteDatabase) -> pw.SqliteDatabase:
    """Give a database where Ada takes two of three courses, and Bob one of hers."""
    for name in ("Ada", "Bob"):
        Student.insert(name=name).execute(db)
    for name in ("Basket", "Welding", "Cooking"):
        Course.insert(name=name, level="A2").execute(db)
    for student, course in ((1, 1), (1, 3), (2, 3)):
        Enrollment.insert(student=student, course=course, enrolled_at="2026-01-01T00:00:00.000Z").execute(db)
    return db


def test_many_to_many_with_a_database(school: pw.SqliteDatabase) -> None:
    """A student's courses and a course's students are read through the enrollments, from the database given."""
    student = Student.select().where(Student.name == "Ada").get(school)
    course: Any = Course.select().where(Course.name == "Cooking").get(school)
    assert sorted(found.name for found in student.courses.execute(school)) == ["Basket", "Cooking"]
    assert sorted(found.name for found in course.students.execute(school)) == ["Ada", "Bob"]
    assert Student.courses.get_through_model() is Enrollment


@pytest.mark.parametrize(
    "use",
    [
        lambda _: Student(name="Eve").save(),
        lambda _: Student.create(name="Eve"),
        lambda _: list(Student.select()),
        lambda student: list(student.courses),
        lambda student: student.courses.add(2),
        lambda student: student.delete_instance(),
        lambda student: student.enrollment_set.get(),
        lambda _: Enrollment(student=1, course=2).student,
        lambda _: Student.create_table(),
    ],
)
def test_unbound_models_fail_loudly(school: pw.SqliteDatabase, use: Callable[[Any], Any]) -> None:
    """What forgets to name its database is an error, and never lands in some other one."""
    student = Student.select().get(school)
    with pytest.raises((pw.InterfaceError, pw.ImproperlyConfigured), match="database"):
        use(student)


def test_import_binds_no_model(tmp_path: Path) -> None:
    """Importing the service, making an app and migrating change no model's database, the host's or peewee-migrate's."""
    script = """if True:
        import pkgutil, sys
        import peewee as pw
        import peewee_migrate
        from peewee_migrate.models import MigrateHistory

        class Room(pw.Model):
            class Meta:
                database = pw.SqliteDatabase("host.db")

        def bound(model=pw.Model):
            found = {each: (each._meta.database, each._meta.table_name) for each in model.__subclasses__()}
            return found | {each: of for child in found for each, of in bound(child).items()}

        before = bound()
        assert before[MigrateHistory][0] is None and before[Room][0] is not None
        import service, service.storage.models
        for module in pkgutil.iter_modules(service.__path__, "service."):
            __import__(module.name)
        service.create_app(service.Settings(database_url=sys.argv[1]), migrate=True)
        service.connect(sys.argv[1]).close()
        after = bound()
        assert {model: after[model] for model in before} == before
        assert {of for model, (of, _) in after.items() if model.__module__ == "service.storage.models"} == {None}
    """
    command = [sys.executable, "-c", script, str(tmp_path / "school.db")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(("model", "values"), [(Student, {"name": "x"}), (Course, {"name": "x", "level": "y"})])
def test_ids_are_never_reused(db: pw.SqliteDatabase, model: type[pw.Model], values: dict[str, str]) -> None:
    """The id of a row that is gone is not given again, not even the last one's."""
    first = model.insert(values).execute(db)
    model.delete().execute(db)
    assert model.insert(values).execute(db) > first


NAMES = [
    "ada",
    "Bob",
    "ADAM",
    "Ada",
    "ad\U0010ffff",
    "ae",
    "ad",
    "Ådå",
    "ad" + 298 * "\U0010ffff",
    "@",
    "@a",
    "[",
    "Zoe",
    "{",
]


@pytest.mark.parametrize(
    ("prefix", "after", "ids"),
    [
        (None, None, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
        (None, (12,), [13, 14]),
        ("ad", None, [7, 1, 4, 3, 5, 9]),
        ("AD", ("ad", 7), [1, 4, 3, 5, 9]),
        ("ad", ("ADA", 1), [4, 3, 5, 9]),
        ("", None, [10, 11, 12, 7, 1, 4, 3, 5, 9, 6, 2, 13, 14, 8]),
        ("@", None, [10, 11]),
        ("Z", None, [13]),
        ("\U0010ffff", None, []),
        ("ad\U0010ffff", None, [5, 9]),
        ("å", None, []),
        ("%", None, []),
    ],
)
def test_page(db: pw.SqliteDatabase, prefix: str | None, after: tuple[Any, ...] | None, ids: list[int]) -> None:
    """A page is by id, or of a prefix by (name, id); ASCII letters fold, others do not, and nothing is a wildcard."""
    for name in NAMES:
        Student.insert(name=name).execute(db)
    for limit in (2, 100):
        assert [row[0] for row in list_rows(db, "students", "id, name", {}, prefix, after, limit)] == ids[:limit]


@pytest.mark.parametrize(
    ("table", "level", "prefix", "after", "index"),
    [
        ("students", None, None, None, ""),
        ("students", None, None, (5,), "PRIMARY KEY"),
        ("students", None, "a", None, "student_name_id"),
        ("students", None, "", None, "student_name_id"),
        ("students", None, "a", ("ab", 5), "student_name_id"),
        ("students", None, "a", (readable(b"a\xff"), 5), "student_name_id"),
        ("students", None, "\U0010ffff", (b"a\xff", 5), "student_name_id"),
        ("courses", None, None, (5,), "PRIMARY KEY"),
        ("courses", None, "a", ("ab", 5), "course_name_id"),
        ("courses", "A2", None, None, "course_level_id"),
        ("courses", "A2", None, (5,), "course_level_id"),
        ("courses", "A2", "a", None, "course_level_name_id"),
        ("courses", "A2", "a", ("ab", 5), "course_level_name_id"),
    ],
)
def test_page_is_one_index_range(  # noqa: PLR0913, PLR0917
    db: pw.SqliteDatabase, table: str, level: str | None, prefix: str | None, after: tuple[Any, ...] | None, index: str
) -> None:
    """However a page is asked for, SQLite walks one index in its order: it sorts nothing."""
    asked: list[pw.QueryEvent] = []
    db.query_hooks.append(asked.append)
    list_rows(db, table, "*", {"level": level} if level else {}, prefix, after, 9)
    *_, event = asked  # The first ones set the connection up.
    (step,) = fetch(db, f"EXPLAIN QUERY PLAN {event.sql}", *event.params)
    assert index in step[3]
