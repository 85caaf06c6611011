"""Whatever is sent to whatever path, it is taken, or refused for what it is: no input is a failure."""

from urllib.parse import quote, urlencode

import peewee as pw
import pytest
from answers import BULK, LISTS, WRITES, body, cursor, open_school, pages, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.students import insert_student


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
    | values.map(lambda key: cursor(key).encode())
)
pairs = st.lists(st.tuples(words, words), max_size=4).map(urlencode)
queries = pairs | st.text(max_size=50).map(lambda text: quote(text, "=&%;+"))


@anything
@given(url=st.sampled_from([*LISTS, "/events", "/students/1", "/health/live"]), query=queries)
def test_no_query_is_a_failure(school: TestClient, url: str, query: str) -> None:
    """Whatever is asked for, it is served or refused for what it is."""
    answer = school.get(f"{url}?{query}")
    assert answer.status_code == 200 or refusal(answer) == (422, "invalid_query")


letters = st.sampled_from("aAbBzZ[_`@{ éÉİKß\U0010ffff") | st.characters(exclude_categories=["Cc", "Cs"])
names = st.text(letters, min_size=1, max_size=6) | st.sampled_from(["a" * 200, "A" * 199 + "b", "\U0010ffff" * 200])


@anything
@given(
    given_names=st.lists(names, max_size=10),
    prefix=st.text(letters, max_size=2) | names,
    cut=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 6)),
    limit=st.integers(1, 5),
)
def test_paging_by_name_gives_exactly_the_names_that_begin_so(  # noqa: PLR0913, PLR0917
    client: TestClient,
    db: pw.Database,
    given_names: list[str],
    prefix: str,
    cut: tuple[int, int] | None,
    limit: int,
) -> None:
    """Any prefix of any set of names gives those that begin so, in either case of ASCII, each once and in order."""
    with db.atomic():
        db.execute_sql("DELETE FROM students")
        rows = [insert_student(db, name) for name in given_names]
    if cut and rows:  # A prefix that is there, in the other case.
        prefix = given_names[cut[0] % len(rows)][: cut[1]].swapcase()
    # bytes.lower folds ASCII only, and UTF-8 sorts as its characters do.
    expected = sorted(
        (row.name.encode().lower(), row.id)
        for row in rows
        if row.name.encode().lower().startswith(prefix.encode().lower())
    )
    found = pages(client, f"/students?{urlencode({'name': prefix, 'limit': limit})}")
    assert [(row["name"].encode().lower(), row["id"]) for page in found for row in page] == expected
    assert all(len(page) == limit for page in found[:-1])
