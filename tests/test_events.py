"""The feed: every change writes its event in its own transaction, and who follows it misses nothing."""

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import peewee as pw
import pytest
from conftest import Server
from programs import another_school, host_rule
from starlette.testclient import TestClient
from test_migrations import ALL
from test_seats import add_course, audit, leave, post, put, refusal, run_script

from service import Settings, connect, create_app, migrate
from service.courses import insert_course, update_course
from service.enrollments import drop, enroll
from service.errors import FeedRewound
from service.events import list_events
from service.storage.sqlite.drift import compare
from service.storage.sqlite.schema import rollback
from service.students import insert_student

pytestmark = pytest.mark.both


@pytest.fixture(autouse=True)
def _students(db: pw.SqliteDatabase) -> None:
    """Have the students 1 to 4."""
    for name in ("Ada", "Bo", "Cy", "Di"):
        insert_student(db, name)


def told(events: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Shorten events to (type, student, course)."""
    return [(event["type"], event["student_id"], event["course_id"]) for event in events]


def follow(client: httpx2.Client, query: str = "limit=3", after: int = 0) -> list[dict[str, Any]]:
    """Read the feed behind an id to its end as a consumer does: by the last id seen, no links."""
    found: list[dict[str, Any]] = []
    while page := client.get(f"/events?{query}&after={after}").json():
        assert page[0]["id"] > after
        found += page
        after = page[-1]["id"]
    return found


def test_each_change_is_told(client: TestClient) -> None:
    """Each change adds its events, and no other, by the time that it is answered."""
    seen = 0
    url = add_course(client, 1, None)
    changes: list[tuple[Callable[[], object], list[tuple[str, int, int]]]] = [
        (lambda: put(client, 3, 1), [("enrolled", 3, 1)]),
        (lambda: put(client, 3, 1), []),
        (lambda: post(client, 2, 1), [("waitlisted", 2, 1)]),
        (lambda: put(client, 1, 1), [("waitlisted", 1, 1)]),
        (lambda: put(client, 4, 1), [("waitlisted", 4, 1)]),
        (lambda: leave(client, 2, 1), [("dropped", 2, 1)]),
        (lambda: leave(client, 3, 1), [("dropped", 3, 1), ("promoted", 1, 1)]),
        (lambda: put(client, 3, 1), [("waitlisted", 3, 1)]),
        (lambda: client.patch(url, json={"capacity": 5, "name": "New"}), [("promoted", 4, 1), ("promoted", 3, 1)]),
        (lambda: client.patch(url, json={"capacity": 3}), []),
    ]
    for change, expected in changes:
        change()
        events = follow(client, after=seen)
        assert told(events) == expected
        ids = [seen] + [event["id"] for event in events]
        assert ids == sorted(set(ids))
        seen = ids[-1]
        for event in events:
            assert event.keys() == {"id", "type", "at", "student_id", "course_id", "actor", "reason"}
            if event["type"] in ("enrolled", "promoted"):
                enrollment = client.get(f"/students/{event['student_id']}/courses/1").json()
                assert enrollment["enrolled_at"] == event["at"]
    times = [event["at"] for event in follow(client)]
    assert times == sorted(times)
    assert all(len(at) == 24 and at[10] == "T" and at[-1] == "Z" for at in times)


@pytest.mark.parametrize(
    ("method", "url", "payload"),
    [
        ("POST", "/students/1/courses", {"course_id": 1}),
        ("POST", "/students/2/courses", {"course_id": 1}),
        ("POST", "/students/3/courses", {"course_id": 1}),
        ("PUT", "/students/3/courses/1", None),
        ("PUT", "/students/9/courses/1", None),
        ("PUT", "/students/3/courses/9", None),
        ("DELETE", "/students/3/courses/1", None),
        ("PATCH", "/courses/1", {"capacity": 0}),
        ("PATCH", "/courses/1", {"waitlist_capacity": 0}),
        ("PATCH", "/courses/2", {"waitlist_capacity": 1, "capacity": 1}),
        ("DELETE", "/students/2", None),
        ("DELETE", "/courses/1", None),
        ("POST", "/enrollments?atomic=true", [{"student_id": 4, "course_id": 2}, {}]),
    ],
)
def test_what_is_refused_is_not_told(client: TestClient, path: Path, method: str, url: str, payload: object) -> None:
    """A refused write leaves no event, even one that had promoted somebody before it was refused."""
    add_course(client, 1, 1, 1, 2)
    add_course(client, 0, 3, 1, 2, 3)
    before = follow(client)
    assert refusal(client.request(method, url, json=payload))[0] in (404, 409)
    assert follow(client) == before
    audit(path)


def test_what_a_host_rolls_back_is_not_told(db: pw.SqliteDatabase, client: TestClient) -> None:
    """In a host's transaction events show with their rows when it commits, and go with them when it does not."""
    insert_course(db, "Logic", "A1", 1, None)
    for keep in (False, True):
        with db.atomic() as transaction:
            for student in (1, 2, 3):
                enroll(db, student, 1, datetime(2026, 9, 1, tzinfo=UTC))
            drop(db, 1, 1)
            update_course(db, 1, {"capacity": 2})
            assert list_events(db)[0].at == "2026-09-01T00:00:00.000Z"
            assert [event.type for event in list_events(db)][-2:] == ["promoted", "promoted"]
            assert client.get("/events").json() == client.get("/courses/1/students").json() == []
            if not keep:
                transaction.rollback()
        assert len(client.get("/courses/1/students").json()) == (2 if keep else 0)
        assert len(client.get("/events").json()) == (6 if keep else 0)


def test_the_feed_of_a_student_or_a_course(client: TestClient) -> None:
    """The feed is of all, of a student, of a course or of one in the other, in pages that go on from the last id."""
    for _ in range(3):
        add_course(client, None, 0, 1, 2)
        add_course(client, 0, None, 3, 1)
    for student, course in ((1, 1), (3, 2), (1, 3)):
        leave(client, student, course)
        put(client, student, course)
    leave(client, 1, 2)
    everything = follow(client)
    assert len(everything) == 19
    for query, rule in [
        ("", {}),
        ("&student_id=1", {"student_id": 1}),
        ("&course_id=2", {"course_id": 2}),
        ("&student_id=1&course_id=3", {"student_id": 1, "course_id": 3}),
        ("&student_id=4", {"student_id": 4}),
        ("&course_id=0", {"course_id": 0}),
        ("&student_id=0&course_id=9223372036854775807", {"student_id": 0}),
    ]:
        expected = [event for event in everything if event.items() >= rule.items()]
        assert follow(client, f"limit=2{query}") == follow(client, f"limit=1000{query}") == expected
        url, pages = f"/events?limit=2{query}", []
        while url:
            answer = client.get(url)
            pages.append(answer.json())
            url = answer.links.get("next", {}).get("url", "")
            assert not url or f"after={pages[-1][-1]['id']}" in url
        assert [event for page in pages for event in page] == expected
        assert len(pages) == max(1, -(-len(expected) // 2))
    assert client.get("/events").json() == everything


def rewound(answer: httpx2.Response) -> int:
    """Check that the feed refuses to go on from there, and give the newest id that it tells."""
    assert refusal(answer) == (410, "feed_rewound")
    problem = answer.json()
    assert str(problem["newest_id"]) in problem["detail"]
    newest_id: int = problem["newest_id"]
    return newest_id


def test_a_feed_that_was_rewound_says_so(
    client: TestClient, db: pw.Database, path: Path | str, request: pytest.FixtureRequest
) -> None:
    """Who has seen more than a restored database holds is told so, and from where to follow."""
    for query in ("after=0", "after=0&student_id=1", "limit=1"):
        assert client.get(f"/events?{query}").json() == []
    assert rewound(client.get("/events?after=1")) == 0
    add_course(client, None, 0, 1, 2)
    leave(client, 2, 1)
    put(client, 2, 1)
    last = follow(client)[-1]["id"]
    with (
        another_school(path, request) as backup,
        TestClient(create_app(Settings(database_url=str(backup)))) as restored,
    ):
        for name in ("Ada", "Bo"):
            restored.post("/students", json={"name": name})
        add_course(restored, None, 0, 1, 2)
        for query in ("", "&limit=1", "&student_id=1", "&student_id=1&course_id=1", "&course_id=9", "&student_id=0"):
            assert client.get(f"/events?after={last}{query}").json() == []
            assert rewound(restored.get(f"/events?after={last}{query}")) == 2
            assert rewound(restored.get(f"/events?after=9223372036854775807{query}")) == 2
            assert restored.get(f"/events?after=2{query}").json() == []
        assert told(follow(restored, after=1)) == [("enrolled", 2, 1)]
        assert restored.get("/events?after=1&student_id=1").json() == []
        assert restored.head("/events?after=3").status_code == 410
        advice = restored.get("/problems/feed_rewound").json()["advice"]
        assert "newest_id" in advice
        leave(restored, 2, 1)
        assert told(restored.get("/events?after=2").json()) == [("dropped", 2, 1)]
    assert list_events(db, 4) == list_events(db, 4, 1) == list_events(db, 4, None, 9) == []
    for after in (5, 2**63 - 1, 2**63, 10**400):
        for whose in ((), (1,), (None, 1), (2, 1), (2**63, 2**63)):
            with pytest.raises(FeedRewound) as error:
                list_events(db, after, *whose)
            assert error.value.newest_id == 4


def test_the_newest_event_is_asked_for_only_where_nothing_is_new(client: TestClient, db: pw.Database) -> None:
    """A page of the feed is one statement, and one more where it is empty and not the first."""

    def statements(after: int, events: int) -> int:
        asked: list[pw.QueryEvent] = []
        db.query_hooks.append(asked.append)
        assert len(list_events(db, after)) == events
        db.query_hooks.clear()
        return len(asked)

    assert statements(0, 0) == 1
    add_course(client, None, 0, 1, 2)
    assert [statements(after, 2 - after) for after in range(3)] == [1, 1, 2]


@pytest.mark.both(False, because="what is refused here reaches no database")
@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("after=-1", ["after"]),
        ("after=WzFd", ["after"]),
        ("after=9223372036854775808&limit=1001", ["after", "limit"]),
        ("after=1&after=2", ["after"]),
        ("limit=0&student_id=x&course_id=1.5", ["course_id", "limit", "student_id"]),
        ("student_id=&type=dropped", ["student_id", "type"]),
    ],
)
def test_a_query_that_is_no_query(client: TestClient, query: str, parameters: list[str]) -> None:
    """Each parameter of the feed that is wrong, repeated or unknown is named."""
    answer = client.get(f"/events?{query}")
    assert refusal(answer) == (422, "invalid_query")
    assert sorted(error["parameter"] for error in answer.json()["errors"]) == parameters


def test_events_outlive_what_they_name(client: TestClient, path: Path) -> None:
    """When student and course are gone, what happened to them is still told, and their ids are not used again."""
    url = add_course(client, 0, 1, 4)
    leave(client, 4, 1)
    assert client.delete("/students/4").status_code == client.delete(url).status_code == 204
    assert add_course(client, 1, 0) == "/courses/2"
    assert client.post("/students", json={"name": "Di"}).json()["id"] == 5
    for query in ("limit=9", "student_id=4", "course_id=1"):
        assert told(follow(client, query)) == [("waitlisted", 4, 1), ("dropped", 4, 1)]
    audit(path)


@pytest.mark.both(False, because="on PostgreSQL every event is in the index")
def test_an_enrollment_is_its_events_entry_by_student(client: TestClient, path: Path) -> None:
    """The event that began an enrollment is not in the index of events by student before the enrollment is gone."""
    filed = "SELECT type, student_id, course_id FROM enrollment_events WHERE filed ORDER BY id"
    add_course(client, 1, 1, 1, 2)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(filed).fetchall() == []
        leave(client, 1, 1)
        expected = [("enrolled", 1, 1), ("dropped", 1, 1), ("promoted", 2, 1)]
        assert connection.execute(filed).fetchall() == expected
    assert audit(path) == [expected[0], ("waitlisted", 2, 1), *expected[1:]]


@pytest.mark.parametrize(("when", "older"), [("BEFORE", False), ("AFTER", False), ("BEFORE", True), ("AFTER", True)])
@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (NEW.student_id, 2, NEW.enrolled_at)",
        "INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (2, 2, NEW.enrolled_at)",
        "DELETE FROM enrollments WHERE course_id = 3",
    ],
)
def test_a_host_that_enrolls_along(client: TestClient, path: Path | str, when: str, older: bool, change: str) -> None:
    """Where a host's own trigger enrolls or drops with an enrollment, every feed still tells each event once."""
    for _ in range(2):
        add_course(client, None, 0)
    add_course(client, None, 0, 1, 2)
    with host_rule(path, f"{when} INSERT ON enrollments", change, when="NEW.course_id = 1"):
        if isinstance(path, Path) and older:  # The triggers of the service are made anew, behind that of the host.
            while rollback(path) != "006_registrar":
                pass
            migrate(path)
        assert post(client, 1, 1).status_code == 201
        assert len(audit(path)) == (5 if change.startswith("DELETE") else 4)
        leave(client, 1, 1)
        assert audit(path)[-1] == ("dropped", 1, 1)


@pytest.mark.both(False, because="on PostgreSQL no enrollment leads to its event")
def test_a_promotion_keeps_what_leads_to_its_event(client: TestClient, path: Path) -> None:
    """Not even a host's trigger in the midst of a promotion makes an enrollment forget the event that began it."""
    add_course(client, 1, 1, 1, 2)
    before = audit(path)
    promoted = "UPDATE enrollments SET enrolled_at = NEW.at, waiting = NULL, event_id = NULL WHERE student_id = 2"
    run_script(
        path, f"CREATE TRIGGER x AFTER INSERT ON enrollment_events WHEN NEW.type = 'promoted' BEGIN {promoted}; END"
    )
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("DELETE FROM enrollments WHERE student_id = 1")
    assert audit(path) == before


@pytest.mark.both(False, because="only files have older schemas")
def test_events_of_an_older_schema(client: TestClient, path: Path) -> None:
    """What happened before a migration, and after it, is in every feed, and still is when it is taken back."""
    add_course(client, 2, None, 1, 2, 3, 4)
    leave(client, 3, 1)
    before = audit(path)
    while rollback(path) != "004_lean_indexes":
        pass
    run_script(path, "DELETE FROM enrollments WHERE student_id = 1; DELETE FROM enrollments WHERE student_id = 2")
    migrate(path)
    before += [("dropped", 1, 1), ("promoted", 4, 1), ("dropped", 2, 1)]
    assert audit(path) == before
    put(client, 1, 1)
    leave(client, 4, 1)
    assert audit(path) == [*before, ("enrolled", 1, 1), ("dropped", 4, 1)]


@pytest.mark.both(False, because="only files have older schemas")
@pytest.mark.parametrize("name", ["enrollment_added", "enrollment_dropped", "event_changed", "seats_freed"])
@pytest.mark.parametrize("version", ALL[2:4])
@pytest.mark.parametrize("other", ["", "CREATE TRIGGER {} AFTER DELETE ON enrollments WHEN 0 BEGIN SELECT 1; END;"])
def test_a_trigger_that_another_tool_dropped_or_changed(path: Path, name: str, version: str, other: str) -> None:
    """A file of an earlier version whose triggers are not as they were is migrated, and has them all then."""
    while rollback(path) != ALL[ALL.index(version) + 1]:
        pass
    run_script(path, f"DROP TRIGGER {name}; {other.format(name)}")
    migrate(path)
    with closing(connect(path)) as db:
        assert compare(db) == []


@pytest.mark.both(False, because="SQLite has its own words; those of PostgreSQL are in tests/test_postgresql_rules.py")
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE enrollment_events SET type = 'dropped'",
        "UPDATE OR IGNORE enrollment_events SET id = 9 WHERE id = 1",
        "DELETE FROM enrollment_events",
        "DELETE FROM enrollment_events WHERE id = 2",
        "INSERT OR REPLACE INTO enrollment_events VALUES (1, 'dropped', '', 1, 1, 1)",
        "INSERT OR REPLACE INTO enrollment_events VALUES (2, 'dropped', '', 1, 1, 1)",
        "INSERT INTO enrollment_events VALUES (2, 'dropped', '', 1, 1, 1) ON CONFLICT DO UPDATE SET type = 'dropped'",
    ],
)
def test_history_is_not_rewritten(client: TestClient, path: Path, sql: str) -> None:
    """No program changes or deletes an event, and the service has no request for it."""
    add_course(client, None, 0, 1, 2)
    before = follow(client)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(sql)
    assert follow(client) == before
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert refusal(client.request(method, "/events")) == (405, "method_not_allowed")


def churn(url: str, seed: int) -> int:
    """Enroll and drop at random, and give how many changes were acknowledged."""
    random, changes = Random(seed), 0
    with httpx2.Client(base_url=url) as client:
        for _ in range(100):
            where = f"/students/{random.randint(1, 4)}/courses/{random.randint(1, 2)}"
            status = client.request(random.choice(["PUT", "DELETE"]), where).status_code
            assert status in (200, 201, 204, 404, 409)
            changes += status in (201, 204)
    return changes


@pytest.mark.long
def test_a_consumer_misses_nothing(
    db: pw.SqliteDatabase, serve: Callable[..., Server], path: Path, client: TestClient
) -> None:
    """Who polls by the last id seen, while clients of two processes write, sees each event once, in its order."""
    for _ in range(2):
        insert_course(db, "Logic", "A1", 1, 2)
    urls = [serve().url, serve().url]
    seen: list[dict[str, Any]] = []
    polls = 0
    with ThreadPoolExecutor(4) as pool, httpx2.Client(base_url=urls[0]) as consumer:
        writers = [pool.submit(churn, urls[seed % 2], seed) for seed in range(4)]
        deadline = time.monotonic() + 30
        while not all(writer.done() for writer in writers):
            assert time.monotonic() < deadline
            seen += follow(consumer, after=seen[-1]["id"] if seen else 0)
            polls += 1
        seen += follow(consumer, after=seen[-1]["id"])
    assert polls > 10
    assert seen == follow(client, "limit=1000")
    assert told(seen) == audit(path)
    changes = sum(writer.result() for writer in writers)
    assert changes == sum(event["type"] != "promoted" for event in seen) > 100
