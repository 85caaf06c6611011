"""Kills the leader of a real cluster of Patroni under load: `.venv/bin/python -m tests.patroni [FOLDER]`.

Three nodes of PostgreSQL, etcd, two nodes of the service and HAProxy run on this machine, with the configuration that
the page "Scaling out" shows, and clients enroll. It needs etcd, haproxy and patroni: `apt-get install etcd-server
haproxy`, and `pip install 'patroni[psycopg3,etcd3]'` in an environment whose `bin` is in the PATH. Prints for how long
no write was taken after each blow, what the clients heard, and whether anything that was acknowledged is lost.
"""

import asyncio
import itertools
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import click
import httpx2

sys.path.insert(0, str(Path(__file__).parent))

from conftest import serving
from postgresql import _reachable

from service import connect, migrate
from service.errors import SetupError
from service.storage import fetch
from service.storage.postgres import schema

ETCD, PEER, HTTP, API, SQL = 23790, 23800, 18080, 18010, 15430
"""The ports of etcd and of the proxy, and the first of those of Patroni and of PostgreSQL."""
NODES = ("db1", "db2", "db3")
CLIENTS, STUDENTS, COURSES = 16, 400, 250
"""No client enrolls a student twice in a course."""
PAGE = (Path(__file__).parent.parent / "service" / "docs" / "scaling.md").read_text("utf-8")


def shown(language: str, ours: Mapping[str, str]) -> str:
    """Give a file that the page shows, with what it is here in place of what is shown."""
    text = PAGE.partition(f"```{language}\n")[2].partition("```")[0]
    for there, here in ours.items():
        assert there in text, there
        text = text.replace(there, here)
    return text


class Cluster:
    """The processes of a cluster, in a folder of their user's own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Start etcd and all nodes."""
        self.folder, self.stack = folder, stack
        self.user: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL does not run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.programs = _reachable(folder)
        client, peer = f"http://127.0.0.1:{ETCD}", f"http://127.0.0.1:{PEER}"
        words = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        words += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        self.start("etcd", "etcd", "--data-dir", str(folder / "etcd"), *words)
        self.nodes = {name: self.node(at) for at, name in enumerate(NODES)}

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start a program, which is ended with the others."""
        log = self.stack.enter_context((self.folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self.user
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        return process

    def node(self, at: int) -> "subprocess.Popen[bytes]":
        """Start a node."""
        api, sql = (f"127.0.0.1:{port + at}" for port in (API, SQL))
        ours = {
            "name: db1": f"name: {NODES[at]}",
            "db1.example.org:8008": api,
            "db1.example.org:5432": sql,
            "etcd1.example.org:2379, etcd2.example.org:2379, etcd3.example.org:2379": f"127.0.0.1:{ETCD}",
            "/var/lib/postgresql/school": str(self.folder / NODES[at]),
            "/usr/lib/postgresql/18/bin": str(self.programs),
        }
        here = f"  pgpass: {self.folder}/{NODES[at]}.pgpass\n  parameters: {{unix_socket_directories: {self.folder}}}\n"
        file = self.folder / f"{NODES[at]}.yml"
        file.write_text(shown("yaml", ours) + here)
        return self.start(NODES[at], "patroni", str(file))

    def members(self) -> dict[str, str]:
        """Give the role of each node that runs, as any of them tells it."""
        for at in range(len(NODES)):
            with suppress(OSError), urlopen(f"http://127.0.0.1:{API + at}/cluster", timeout=2) as answer:
                return {
                    each["name"]: each["role"]
                    for each in json.load(answer)["members"]
                    if each["state"] in {"running", "streaming"}
                }
        return {}

    def whole(self) -> str:
        """Wait until there is a leader, and all others are synchronous; give its name."""
        until = time.monotonic() + 90
        while sorted((roles := self.members()).values()) != ["leader", "quorum_standby", "quorum_standby"]:
            assert time.monotonic() < until, f"The cluster did not become whole: {roles}; see {self.folder}."
            time.sleep(0.2)
        return next(name for name, role in roles.items() if role == "leader")

    def kill_postgresql(self, name: str) -> None:
        """Kill PostgreSQL under a Patroni that lives."""
        os.kill(int((self.folder / name / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def kill_node(self, name: str) -> None:
        """Kill a whole node, Patroni first, so that it tells nobody."""
        self.nodes[name].kill()
        self.kill_postgresql(name)

    def switch_over(self, name: str) -> None:
        """Ask for another leader."""
        data = json.dumps({"leader": name}).encode()
        urlopen(Request(f"http://127.0.0.1:{API + NODES.index(name)}/switchover", data), timeout=60).close()


class Load:
    """Clients that enroll, and what they heard."""

    def __init__(self) -> None:
        """Have heard nothing yet."""
        self.kept: list[tuple[int, int]] = []
        self.moments: list[float] = []
        self.heard: Counter[str] = Counter()
        self.stopped = False

    async def run(self, client: int) -> None:
        """Enroll one student after the other, as fast as answers come."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{HTTP}", timeout=30) as http:
            for course in range(1, COURSES + 1):
                for student in range(client + 1, STUDENTS + 1, CLIENTS):
                    if self.stopped:
                        return
                    try:
                        answer = await http.post(f"/students/{student}/courses", json={"course_id": course})
                    except httpx2.TransportError:
                        self.heard["no answer"] += 1
                        continue
                    self.heard[f"{answer.status_code} {_words(answer)}".strip()] += 1
                    if answer.status_code == 201:
                        self.kept.append((student, course))
                        self.moments.append(time.monotonic())
                    else:
                        await asyncio.sleep(0.1)

    def gap(self, since: float) -> float:
        """Give the longest time without an acknowledged write since a moment, in seconds."""
        moments = [since, *(each for each in self.moments if each >= since), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(moments))


def _words(answer: httpx2.Response) -> str:
    if answer.status_code < 500:
        return ""
    with suppress(ValueError):
        return str(answer.json()["detail"]).split(". ")[-1]
    return "of the proxy"


async def blows(cluster: Cluster, load: Load) -> None:
    """Deal the blows, each to a whole cluster, and print what they cost."""
    clients = [asyncio.create_task(load.run(client)) for client in range(CLIENTS)]
    for name, blow in {
        "PostgreSQL of the leader killed": cluster.kill_postgresql,
        "another leader asked for": cluster.switch_over,
        "the whole node of the leader killed": cluster.kill_node,
    }.items():
        leader = await asyncio.to_thread(cluster.whole)
        await asyncio.sleep(2)
        began, before = time.monotonic(), len(load.kept)
        await asyncio.to_thread(blow, leader)
        while time.monotonic() < began + 60 and len(load.kept) < before + 500:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        click.echo(f"{name:<40}{load.gap(began):>6.1f} s without a write")
    load.stopped = True
    await asyncio.gather(*clients)


@contextmanager
def service(url: str, folder: Path) -> Iterator[None]:
    """Run two nodes of the service, and the proxy in front of them."""
    with serving("--database-url", url, AUTH="none") as one, serving("--database-url", url, AUTH="none") as two:
        ours = {"one.example.org:8000": one.url[7:], "two.example.org:8000": two.url[7:], "*:80": f"127.0.0.1:{HTTP}"}
        (folder / "haproxy.cfg").write_text(shown("haproxy", ours))
        with subprocess.Popen(["haproxy", "-f", str(folder / "haproxy.cfg")]) as proxy:
            try:
                yield
            finally:
                proxy.terminate()


def main() -> None:
    """Run it all."""
    with TemporaryDirectory(prefix="patroni-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        cluster, load = Cluster(Path(name), stack), Load()
        cluster.whole()
        places = ",".join(f"127.0.0.1:{SQL + at}" for at in range(len(NODES)))
        url = f"postgresql://postgres:change-me@{places}/postgres"
        migrate(url)
        with closing(connect(url)) as db:
            fetch(
                db,
                f"INSERT INTO students (name) SELECT 'Ada ' || n FROM generate_series(1, {STUDENTS}) AS n RETURNING 1",
            )
            fetch(
                db, f"INSERT INTO courses (name, level) SELECT 'C', '1' FROM generate_series(1, {COURSES}) RETURNING 1"
            )
        with service(url, Path(name)):
            asyncio.run(blows(cluster, load))
        with closing(connect(url)) as db:
            there = {*fetch(db, "SELECT student_id, course_id FROM enrollments")}
        broken = [str(result) for result in schema.prove(url) if result.broken or result.over]
        for told, count in load.heard.most_common():
            click.echo(f"{count:>8,} times {told}")
        click.echo(f"{len({*load.kept} - there):>8,} acknowledged enrollments lost; check: {broken or 'sound'}")
        if len({*load.kept} - there) or broken:
            raise SetupError("A promise was broken.")


if __name__ == "__main__":
    main()
