"""A file that cannot be written: the service does not start on it, and is not ready once it became so."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from conftest import ROOT, Server
from starlette.testclient import TestClient
from stores import held, open_store, wal

from service import Settings, create_app, migrate
from service.errors import SetupError, StorageUnavailable
from service.students import StudentRecord, insert_student, list_students

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="Only root can become another user.")


@pytest.fixture
def folder(empty_database: Path) -> Iterator[Path]:
    """Give a folder that everybody may enter, with a migrated database that everybody may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(empty_database, folder / "school.db")
        for each in (folder, folder / "school.db"):
            each.chmod(0o777)
        yield folder


def start(path: Path, *, migrate: bool = False) -> str:
    """Start the app on a file, use it, and tell why it refuses, or nothing."""
    try:
        with TestClient(create_app(Settings(database_url=str(path)), migrate=migrate)) as client:
            assert client.post("/students", json={"name": "Ada"}).status_code == 201
            return "" if client.get("/health/ready").status_code == 200 else "not ready"
    except SetupError as error:
        return str(error)


def modes(folder: Path) -> dict[str, int]:
    """Give the mode of each file in a folder."""
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_a_new_database_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    """Whatever the umask, a new file, its -wal and its -shm may be read and written by their owner, and nobody else."""
    path = tmp_path / "school.db"
    before = os.umask(umask)
    try:
        migrate(path)
        assert modes(tmp_path) == {"school.db": 0o600}
        with TestClient(create_app(Settings(database_url=str(path)))) as client:
            assert client.post("/students", json={"name": "Ada"}).status_code == 201
            assert modes(tmp_path) == {"school.db": 0o600, "school.db-wal": 0o600, "school.db-shm": 0o600}
    finally:
        os.umask(before)


def test_a_new_database_is_its_owners_alone_behind_a_link(tmp_path: Path) -> None:
    """The file that a symbolic link leads to, and that is to be made, is its owner's alone too."""
    (tmp_path / "far").mkdir()
    (tmp_path / "link.db").symlink_to("far/school.db")
    migrate(tmp_path / "link.db")
    assert modes(tmp_path / "far") == {"school.db": 0o600}


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path, empty_database: Path) -> None:
    """Whoever has let others read the database goes on to, whether the file is empty or migrated already."""
    for name, mode in ("empty.db", 0o640), ("full.db", 0o664):
        path = tmp_path / name
        path.write_bytes(b"" if name == "empty.db" else empty_database.read_bytes())
        path.chmod(mode)
        assert start(path, migrate=True) == ""
        assert path.stat().st_mode & 0o777 == mode


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without any rights until the block ends."""
    groups, group, user = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)


def start_as_nobody(path: Path, *, migrate: bool = False) -> str:
    """Start the app as a user without any rights."""
    with nobody():
        return start(path, migrate=migrate)


@pytest.mark.parametrize("migrate", [False, True])
def test_a_read_only_file_is_refused_at_the_start(folder: Path, *, migrate: bool) -> None:
    """Even root, who may write anything, is told how to mend a file that nobody may write; then it works."""
    path = folder / "school.db"
    path.chmod(0o444)
    assert start(path, migrate=migrate) == f"The database {path} is read-only. Run: chmod u+w {path}"
    path.chmod(0o644)
    assert start(path, migrate=migrate) == ""


def test_the_server_says_so_too(folder: Path) -> None:
    """`serve` ends with one line and exit code 1."""
    (folder / "school.db").chmod(0o444)
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--database-url", str(folder / "school.db")]
    ended = subprocess.run(command, cwd=ROOT, check=False, timeout=20, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == (f"Error: The database {folder}/school.db is read-only. Run: chmod u+w {folder}/school.db\n")


def test_a_file_that_becomes_read_only_is_not_ready(serve: Callable[[], Server], path: Path) -> None:
    """A server is not ready as long as its file may not be written, and says why; then it is ready again."""
    with httpx2.Client(base_url=serve().url) as client:
        assert client.get("/health/ready").status_code == 200
        path.chmod(0o444)
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert "is read-only. Run: chmod u+w" in answer.json()["detail"]
        path.chmod(0o644)
        assert client.get("/health/ready").status_code == 200


def test_an_app_on_a_file_that_becomes_read_only_is_not_ready(client: TestClient, path: Path) -> None:
    """What holds for a server holds for an app in a program of its host's."""
    path.chmod(0o444)
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")


@as_root
@pytest.mark.parametrize("migrate", [False, True])
def test_a_file_of_another_user_is_refused(folder: Path, *, migrate: bool) -> None:
    """A user who may read the file and not write it is told so."""
    path = folder / "school.db"
    assert start_as_nobody(path, migrate=migrate) == ""
    path.chmod(0o644)
    assert start_as_nobody(path, migrate=migrate) == (
        f"The database {path} may not be written by the user that runs the service: give it to them."
    )


@as_root
def test_a_folder_in_which_nothing_can_be_made_is_refused(folder: Path) -> None:
    """Where SQLite cannot make its -wal the service does not start; where it is there already, it does."""
    path = folder / "school.db"
    folder.chmod(0o755)
    assert start_as_nobody(path) == (
        f"SQLite keeps school.db-wal and school.db-shm beside the database {path}, and may not write them: "
        f"let the user that runs the service write in {folder}."
    )
    with held(path, "SELECT * FROM students"):
        assert start_as_nobody(path) == ""


@as_root
def test_a_file_that_cannot_be_reached_is_refused(folder: Path) -> None:
    """A folder that the user may not enter is named as the reason."""
    path = folder / "school.db"
    folder.chmod(0o700)
    assert start_as_nobody(path) == f"The database {path} cannot be reached: Permission denied."


@as_root
def test_a_user_who_may_not_look_lets_go_in_silence(folder: Path) -> None:
    """A program that gave up its rights closes what it opened before, and leaves everything as it is."""
    path = folder / "school.db"
    with closing(open_store(path)) as store:
        asyncio.run(store.write(insert_student, "Ada"))
        folder.chmod(0o700)
        with nobody():
            with pytest.raises(StorageUnavailable, match="Permission denied"):
                asyncio.run(store.read(list_students))
            store.close()
        assert wal(path).exists()
        assert asyncio.run(store.read(list_students)) == [StudentRecord(1, "Ada")]
    assert not wal(path).exists()


def test_a_link_to_a_file_is_judged_by_the_file(folder: Path) -> None:
    """What counts is what a link leads to, and the folder in which that is."""
    link = folder / "links" / "link.db"
    link.parent.mkdir()
    link.symlink_to(folder / "school.db")
    assert start(link) == ""
    (folder / "school.db").chmod(0o444)
    assert "is read-only" in start(link)
