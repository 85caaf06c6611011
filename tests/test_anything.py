"""Whatever is sent to whatever path, it is taken, or refused for what it is: no input is a failure."""

from pathlib import Path
from urllib.parse import quote, urlencode

import peewee as pw
import pytest
from answers import BULK, LISTS, WRITES, body, faults, forged, open_school, pages, refusal, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.fields import PREFIX
from service.students import list_students

pytestmark = pytest.mark.both


@pytest.fixture
def school(client: TestClient, db: pw.Database) -> TestClient:
    """Give a client of the small school."""
    open_school(db)
    return client


anything = settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(st.characters(), max_size=8) | st.sampled_from(["Ada", "a" * 200, "a" * 201])
scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([1, 2**63 - 1, 2**63, 2**64]) | st.floats() | texts
)
keys = st.sampled_from(["name", "level", "capacity", "waitlist_capacity", "course_id", "student_id"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | texts, inner, max_size=3), max_leaves=8
)
payloads = st.dictionaries(keys, scalars | st.just(10**4000), max_size=3) | values
endpoints = st.sampled_from([*WRITES, BULK, ("PUT", "/students/1/courses/1")])


@pytest.mark.long
@anything
@given(endpoint=endpoints, value=payloads | st.lists(payloads, max_size=3))
def test_no_json_is_a_failure(school: TestClient, endpoint: tuple[str, str], value: object) -> None:
    """Whatever JSON is sent to whatever writes, it is taken, or refused for what it is; in bulk so is every row."""
    answer = school.request(*endpoint, **body(value))
    assert answer.status_code < 300 or refusal(answer)[0] in (400, 404, 409, 422)
    if endpoint == BULK and answer.is_success:
        assert {result["status"] for result in answer.json()["results"]} <= {201, 404, 409, 422}


words = (
    st.sampled_from(["limit", "after", "name", "level", "status", "enrolled", "course_id", "1", "1000", "0", ""])
    | st.binary(max_size=8)
    | texts.map(lambda text: text.encode(errors="surrogatepass"))
)
pairs = st.lists(st.tuples(words, words), max_size=4).map(urlencode)
queries = pairs | st.text(max_size=50).map(lambda text: quote(text, "=&%;+"))


@anything
@given(url=st.sampled_from([*LISTS, "/events", "/students/1", "/health/live"]), query=queries)
def test_no_query_is_a_failure(school: TestClient, url: str, query: str) -> None:
    """Whatever is asked for, it is served or refused for what it is."""
    answer = school.get(f"{url}?{query}")
    assert answer.status_code == 200 or refusal(answer) in ((422, "invalid_query"), (410, "feed_rewound"))


cursor_keys = st.binary() | st.builds(
    lambda row_id, kind, name: b"%d%s%s" % (row_id, kind, name),
    st.integers(),
    st.sampled_from([b" ", b"="]),
    st.binary(),
)


@anything
@given(
    url=st.sampled_from([f"{url}?" for url in LISTS] + ["/students?name=1", "/courses?level=1&name=%21"]),
    key=cursor_keys,
)
def test_no_cursor_is_a_failure(school: TestClient, url: str, key: bytes) -> None:
    """Whatever a cursor of the list holds, a page is served, or the cursor is refused."""
    answer = school.get(f"{url}&after={forged(url, key)}")
    assert answer.status_code == 200 or refusal(answer) == (422, "invalid_query")


letters = st.sampled_from("aAbBzZ[_`@{ éÉİKße\u0301\u200d\U0010ffff") | st.characters(exclude_categories=["Cc", "Cs"])
prefixes = st.text(letters, max_size=6)
pieces = st.sampled_from([*b"aA@[{\0\r\xff", *"éZ".encode()]).map(lambda byte: bytes([byte]))
texts_in_the_file = (
    st.lists(pieces, max_size=5).map(b"".join) | prefixes.map(str.encode) | st.just(b"\xf4\x8f\xbf\xbf" * 250)
)


@pytest.mark.long
@anything
@given(
    stored=st.lists(texts_in_the_file, max_size=10),
    prefix=prefixes,
    cut=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 6)),
    limit=st.integers(1, 5),
)
def test_paging_by_name_gives_exactly_the_names_that_begin_so(  # noqa: PLR0913, PLR0917
    client: TestClient,
    db: pw.Database,
    path: Path | str,
    stored: list[bytes],
    prefix: str,
    cut: tuple[int, int] | None,
    limit: int,
) -> None:
    """Whatever texts are in the file, a prefix gives those that begin so, each once, in the order of their bytes.

    PostgreSQL has no text that is not UTF-8, nor one with a NUL. Case does not matter for the letters of ASCII. Over
    HTTP the pages are chained by Link, without it by the last row.
    """
    db.execute_sql("DELETE FROM students")
    if isinstance(path, Path):
        write(path, "INSERT INTO students (name) VALUES (CAST(? AS TEXT))", [(text,) for text in stored])
    else:
        stored = [text for text in stored if text == text.decode(errors="ignore").replace("\0", "").encode()]
        for text in stored:
            db.execute_sql("INSERT INTO students (name) VALUES (?)", (text.decode()[:200],))
    if cut and stored:  # A prefix that is there, in the other case.
        prefix = stored[cut[0] % len(stored)].decode(errors="ignore")[: cut[1]].swapcase()
    try:
        begin = PREFIX.check(prefix).encode().lower()  # As bytes.lower folds, so do the databases: ASCII only.
    except ValueError:
        assert faults(client.get("/students", params={"name": prefix})) == ["name"]
        return
    blob = "CAST(name AS BLOB)" if isinstance(path, Path) else "convert_to(name, 'UTF8')"
    rows = [(row_id, bytes(name)) for row_id, name in db.execute_sql(f"SELECT id, {blob} FROM students")]
    rows.sort(key=lambda row: (row[1].lower(), row[0]))
    expected = [(row_id, name.decode(errors="replace")) for row_id, name in rows if name.lower().startswith(begin)]

    found = pages(client, f"/students?{urlencode({'name': prefix, 'limit': limit})}")
    assert [(row["id"], row["name"]) for page in found for row in page] == expected
    assert all(len(page) == limit for page in found[:-1])

    after, listed = None, []
    while rows_of_page := list_students(db, prefix, after, limit):
        listed += [(row.id, row.name) for row in rows_of_page]
        after = rows_of_page[-1].name, rows_of_page[-1].id
    assert listed == expected
