"""Set-up: the wheel in an environment of its own, the Makefile, and what the checks run on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import httpx2
import postgresql
import pytest
from conftest import ROOT, Server
from test_docs import OPERATING, blocks

RUNNING = ["run", "migrate", "migration", "rollback", "openapi"]
TESTING = ["test", "schema", "lint", "typecheck", "coverage", "check"]
# What a `make` around these tests, or whoever runs them, has set is not for what they start.
OURS = re.compile("MAKE.*|MFLAGS|PYTHON.*|HOST|PORT|DATABASE_URL|KEEP_ALIVE|NAME|YES")
ENVIRON = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)} | {"PYTHON": sys.executable}


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] = ENVIRON) -> str:
    """Run a command that must succeed; give what it prints."""
    ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy what the repository holds of the program, without what was made from it."""
    tree = tmp_path / "tree"
    for folder in ("service", "migrations"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    files = ("Makefile", "README.md", "pyproject.toml", "requirements.txt", ".ci/run")
    for file in (*files, "tests/requirements.txt", "tests/schema_sql.py", "tests/postgresql.py"):
        (tree / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tree / file)
    return tree


def serve(*command: str | Path, cwd: Path) -> list[object]:
    """Start a server with a command, ask it for the students, and kill all that was started."""
    with subprocess.Popen(
        command, cwd=cwd, env=ENVIRON, text=True, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout
            students: list[object] = httpx2.get(f"{Server(process, process.stdout.readline()).url}/students").json()
            return students
        finally:
            os.killpg(process.pid, signal.SIGKILL)


HOST_PROGRAM = """
from service import Settings, connect, courses, create_app, enrollments, migrate, students

migrate("school.db")
db = connect("school.db")
ada: int = students.insert_student(db, "Ada").id
logic: int = courses.insert_course(db, "Logic", "1", capacity=1).id
seat: enrollments.EnrollmentRecord = enrollments.enroll(db, ada, logic)
names: list[str] = [row.name for row in enrollments.list_roster(db, logic)]
create_app(Settings(database_url="school.db", busy_timeout=1.5)).routes

wrong: str = students.insert_student(db, "Grace").id  # error: assignment
Settings(colour="red")  # error: call-arg
from service import nothing_that_is_there  # error: attr-defined
"""


@pytest.fixture
def wheel(tree: Path, tmp_path: Path) -> Path:
    """Build the wheel where an earlier build has left a migration that is gone, and pages of documentation are new."""
    for stale in ("build/lib/service/migrations/099_gone.py", "build/lib/service/gone.py", "dist/service/gone.py"):
        (tree / stale).parent.mkdir(parents=True, exist_ok=True)
        (tree / stale).write_text("This is not Python.")
    (tree / "service" / "docs").mkdir(exist_ok=True)
    for name in ("page.md", "page.html", "query.sql"):
        (tree / "service" / "docs" / name).write_text(name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, tree, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


def test_wheel_has_what_the_source_has(wheel: Path, tree: Path) -> None:
    """The wheel has each file of the package and each migration, whatever its kind but a picture, and nothing else."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {path.relative_to(tree).as_posix() for path in (tree / "service").rglob("*") if path.is_file()}
    there = {name for name in there if not name.startswith("service/docs/pictures/")}
    assert packed == there | {f"service/migrations/{path.name}" for path in (tree / "migrations").iterdir()}
    assert {"service/py.typed", "service/docs/page.html", "service/docs/query.sql"} < packed


@pytest.mark.long
def test_wheel(wheel: Path, tmp_path: Path) -> None:
    """In an empty environment the wheel brings all that it needs: it migrates and serves, and a host's types check."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty", cwd=tmp_path)
    python = tmp_path / "empty" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    # Without the hashes, which pip would want for the wheel too.
    (tmp_path / "versions.txt").write_text("\n".join(pin.partition("\n")[0].rstrip("\\") for pin in pins(ROOT)))
    run(*pip, "install", "--no-compile", "--quiet", "--constraint", "versions.txt", wheel, cwd=tmp_path)
    host = tmp_path / "host"
    (host / "migrations").mkdir(parents=True)
    (host / "migrations" / "001_host.py").write_text("Another program's migrations are none of ours.")
    applied = [f"applied {path.stem}" for path in sorted((ROOT / "migrations").glob("0*.py"))]
    assert run(python, "-m", "service", "migrate", cwd=host).splitlines()[:-1] == applied
    assert serve(python, "-m", "service", "serve", "--port", "0", cwd=host) == []
    assert (host / "enrollment.db").exists()

    script = python.with_name("enrollment")
    assert run(script, "--help", cwd=host).startswith("Usage: enrollment [OPTIONS] COMMAND")
    assert "up to date" in run(script, "migrate", cwd=host)
    assert serve(script, "serve", "--port", "0", cwd=host) == []
    (version,) = re.findall("^Version: (.*)$", metadata(wheel), re.MULTILINE)
    for command in ([script], [python, "-m", "service"]):
        assert run(*command, "--version", cwd=host) == f"enrollment-service {version}\n"

    (host / "host.py").write_text(HOST_PROGRAM)
    check = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "host.py")
    checked = subprocess.run(check, cwd=host, env=ENVIRON, capture_output=True, text=True, check=False)
    found = re.findall(r"^host\.py:(\d+): error: .*\[(.*)\]$", checked.stdout, re.MULTILINE)
    lines = [line.partition("# error: ")[2] for line in HOST_PROGRAM.splitlines()]
    assert found == [(str(number), mistake) for number, mistake in enumerate(lines, 1) if mistake], checked.stdout


def metadata(wheel: Path) -> str:
    """Give what a wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def pins(folder: Path) -> list[str]:
    """Give each package in a folder's requirements.txt, with its version, its marker and its hashes."""
    text = re.sub("^#.*", "", (folder / "requirements.txt").read_text(), flags=re.MULTILINE)
    return re.split(r"(?<!\\)\n", text.strip())


@pytest.mark.parametrize("folder", [".", "service/storage/postgres", "tests", "tests/bench", "tests/contract"])
def test_every_pin_has_its_hashes(folder: str) -> None:
    """What is installed for running, testing and measuring is named by its version, and each of its files by a hash."""
    exact = re.compile(r"[\w.-]+(\[[\w,]+\])?==[\w.]+( ; \S+ \S+ \S+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [pin for pin in pins(ROOT / folder) if pin and not exact.fullmatch(pin)] == []


@pytest.mark.long
def test_it_is_installed_as_shown(tree: Path, tmp_path: Path) -> None:
    """The commands for a server refuse a package with another hash, and install a service that migrates and serves."""
    commands, *_ = blocks("sh", OPERATING.section("systemd"))
    commands = commands.replace("/opt", str(tmp_path)).replace("python3", sys.executable)
    make, first, second = commands.splitlines()
    run("sh", "-c", make, cwd=tree)
    requirements = tree / "requirements.txt"
    right = requirements.read_text()
    requirements.write_text(re.sub(r"(?<=sha256:)\w", lambda digit: f"{int(digit[0], 16) ^ 1:x}", right))
    with pytest.raises(AssertionError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        run("sh", "-c", first, cwd=tree)
    requirements.write_text(right)
    for command in (first, second):
        run("sh", "-c", command, cwd=tree)
    python = tmp_path / "enrollment" / "bin" / "python"
    assert run(python, "-m", "pip", "check", cwd=tmp_path) == "No broken requirements found.\n"
    assert serve(python, "-m", "service", "serve", "--migrate", "--port", "0", cwd=tmp_path) == []


def test_make_help(tree: Path) -> None:
    """The default target lists every target, in order, with its own comment; all those promised are there."""
    documented = re.findall(r"^([a-z]+):.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in run("make", cwd=tree).splitlines()]
    assert listed == [[f"make {target}", comment] for target, comment in documented]
    assert {target for target, _ in documented} >= {"help", "lock", "clean", *RUNNING, *TESTING}
    assert run("make", "help", cwd=tree) == run("make", cwd=tree)


@pytest.mark.parametrize("target", [*RUNNING, *TESTING])
def test_make_makes_the_environment_first(tree: Path, target: str) -> None:
    """Where there is no .venv, a target that needs it makes it first, with the Python that was asked for."""
    made, _, installed, *_ = run("make", "-n", target, "NAME=x", cwd=tree).splitlines()
    assert made == f"{sys.executable} -m venv --clear .venv"
    pins = "requirements.txt" if target in RUNNING else "tests/requirements.txt"
    assert re.fullmatch(rf"\.venv/bin/pip install .*-r {pins}", installed)


def test_make_keeps_the_environment_of_its_python(tree: Path, ready: Path) -> None:
    """An environment that is made, for this Python and these requirements, is not made again."""
    assert "venv --clear" not in run("make", "-n", "run", cwd=ready)
    (tree / "requirements.txt").touch()
    assert "pip install" in run("make", "-n", "run", cwd=ready)
    assert "venv --clear" in run("make", "-n", "run", f"PYTHON={ready / 'python9.9'}", cwd=ready)


@pytest.fixture
def ready(tree: Path) -> Path:
    """Give the tree a .venv that is made already, and stands on the one that the tests run in."""
    folder = tree / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "pw_migrate"):
        (folder / name).write_text(f'#!/bin/sh\nexec {Path(sys.executable).with_name(name)} "$@"\n')
        (folder / name).chmod(0o755)
    (tree / "python9.9").write_text("#!/bin/sh\necho 9.9\n")
    (tree / "python9.9").chmod(0o755)
    version = run("make", "-n", "run", cwd=tree).split("made-")[1].split()[0]
    for marker in (f"made-{version}", *(f"made-{version}-{what}" for what in ("run", "run-postgresql", "test"))):
        (tree / ".venv" / marker).touch()
    return tree


def test_make_run(ready: Path) -> None:
    """`make run` migrates and serves; what make is told on its command line reaches the service."""
    assert serve("make", "run", "PORT=0", f"DATABASE_URL=sqlite:///{ready}/x.db", cwd=ready) == []
    assert (ready / "x.db").exists()
    assert not (ready / "enrollment.db").exists()


def test_make_run_on_postgresql(tree: Path, ready: Path, server: postgresql.Server) -> None:
    """With a URL of PostgreSQL, `make run` installs the driver first, and nothing else makes it do so."""
    with server.database() as url:
        assert serve("make", "run", "PORT=0", f"DATABASE_URL={url}", cwd=ready) == []
    shutil.rmtree(tree / ".venv")
    driver = "service/storage/postgres/requirements.txt"
    assert f"-r {driver}\n" in run("make", "-n", "run", f"DATABASE_URL={url}", cwd=tree)
    assert driver not in run("make", "-n", "run", "DATABASE_URL=sqlite:///postgresql.db", cwd=tree)
    # All that is needed on SQLite is needed here too, in the same version.
    assert {*pins(ROOT)} < {*pins(ROOT / "service" / "storage" / "postgres")}


SCHEMA = Path("service/storage/sqlite/schema.sql")


@pytest.mark.long
def test_make_migration(ready: Path) -> None:
    """`make migration` writes the next migration, which `make migrate` and `make rollback YES=1` then run as it is."""
    run("make", "migration", "NAME=add_rooms", cwd=ready)
    (made,) = ready.glob("migrations/*_add_rooms.py")
    assert f"applied {made.stem}\n" in run("make", "migrate", cwd=ready)
    with pytest.raises(AssertionError, match="Nothing was changed"):
        run("make", "rollback", cwd=ready)
    assert run("make", "rollback", "YES=1", cwd=ready).endswith(f"\nrolled back {made.stem}\n")


@pytest.mark.long
def test_make_schema(ready: Path) -> None:
    """After a new migration `make schema` writes what the migrations make, which databases are then compared with."""
    kept = (ready / SCHEMA).read_text()
    run("make", "schema", cwd=ready)
    assert (ready / SCHEMA).read_text() == kept
    added = 'def migrate(migrator, database, *, fake=False):\n    migrator.sql("CREATE TABLE rooms (id INTEGER)")\n'
    (ready / "migrations" / "999_rooms.py").write_text(added)
    run("make", "schema", cwd=ready)
    assert (ready / SCHEMA).read_text() == f"{kept}\nCREATE TABLE rooms (\n    id INTEGER\n);\n"
    run("make", "migrate", cwd=ready)
    assert "pending   none" in run(sys.executable, "-m", "service", "status", cwd=ready)


def test_ci(tree: Path, tmp_path: Path) -> None:
    """The checks run in full on one Python, then the tests on each other one that is found, once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    versions = {"python3": "3.11", "python3.11": "3.11", "python3.12": "3.12", "python3.13": "3.13"}
    for name, version in versions.items():
        (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
    spare = tmp_path / "pyenv" / "versions" / "3.12.9" / "bin"
    spare.mkdir(parents=True)
    shutil.copy(folder / "python3.12", spare / "python")
    (folder / "pyenv").write_text(f"#!/bin/sh\necho {tmp_path / 'pyenv'}\n")
    for script in (*folder.iterdir(), spare / "python"):
        script.chmod(0o755)
    (tree / "Makefile").write_text(
        "check fuzz hammer contract:\n\t@echo $@ $(SECONDS)\ntest:\n\t@echo test $(PYTHON)\n"
    )
    said = run(tree / ".ci" / "run", cwd=tmp_path, env={**ENVIRON, "PATH": f"{folder}:{ENVIRON['PATH']}"})
    assert said.splitlines() == ["check", "fuzz 60", "hammer 60", "contract 60", "test python3.12", "test python3.13"]
