"""Students over HTTP: add, list, show, change, remove."""

import re

import peewee as pw
import pytest
from answers import STUDENT, body, faults, pages, refusal
from starlette.testclient import TestClient

from service.students import insert_student

pytestmark = pytest.mark.both

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
SURROGATES = ["\ud800", "\udbff", "\udc00", "\udfff"]


def add(db: pw.Database, *names: str) -> None:
    """Add students, with the ids that come next."""
    with db.atomic():
        for name in names:
            insert_student(db, name)


def test_a_new_student_is_found_at_its_location(client: TestClient) -> None:
    """A student who is added is trimmed, and served at the Location of the answer."""
    answer = client.post("/students", json={"name": "\t Ada Lovelace \n"})
    assert (answer.status_code, answer.json()) == (201, {"id": 1, "name": "Ada Lovelace", **STUDENT})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == "/students/1"
    shown = client.get("/students/1")
    assert (shown.status_code, shown.json()) == (200, answer.json())


@pytest.mark.parametrize("name", ["é", "a" * 200, "  " + "🎓" * 200 + "  ", "a  b", "O'Brien; --", "\U0010ffff", "%_*"])
def test_a_name_is_kept_as_it_is(client: TestClient, name: str) -> None:
    """A name of 1 to 200 characters, whatever they are, comes back as it was, but for the space around it."""
    client.post("/students", json={"name": name})
    assert client.get("/students/1").json() == {"id": 1, "name": name.strip(), **STUDENT}


@pytest.mark.parametrize("name", [None, True, 1, 1.5, [], ["Ada"], {}, "", " \t\n", "a" * 201])
def test_a_name_that_breaks_its_rules_is_refused(client: TestClient, name: object) -> None:
    """A name that is no string, or is empty once trimmed, or too long, is refused; a POST and a PATCH agree."""
    client.post("/students", json={"name": "Ada"})
    for answer in (client.post("/students", json={"name": name}), client.patch("/students/1", json={"name": name})):
        assert faults(answer) == ["#/name"]
    assert client.get("/students").json() == [{"id": 1, "name": "Ada", **STUDENT}]


def test_no_name_has_a_control_character_or_half_a_pair(client: TestClient) -> None:
    """Every character of Unicode's category Cc, and every lone surrogate, is refused in a name and in a prefix."""
    for character in CONTROLS + SURROGATES:
        assert faults(client.post("/students", **body({"name": f"a{character}b"}))) == ["#/name"]
    for character in CONTROLS:
        assert faults(client.get("/students", params={"name": f"a{character}b"})) == ["name"]


def test_students_are_listed_by_id(client: TestClient, db: pw.Database) -> None:
    """The list is ordered by id, and its pages, followed to the end, hold everybody once."""
    assert client.get("/students").json() == []
    add(db, "E", "D", "C", "B", "A")
    found = pages(client, "/students?limit=2")
    assert [[row["id"] for row in page] for page in found] == [[1, 2], [3, 4], [5]]
    assert found[0][0] == {"id": 1, "name": "E", **STUDENT}


def test_a_link_is_a_path_that_keeps_the_filters(client: TestClient, db: pw.Database) -> None:
    """The Link of RFC 8288 has no scheme and no host, and keeps the other parameters; a last page has none."""
    add(db, "Anaïs & Bo", "anaïs & C")
    answer = client.get("/students", params={"name": "ANAïS &", "limit": 1})
    link = r'</students\?name=ANA%C3%AFS\+%26&limit=1&after=[\w-]+>; rel="next"'
    assert re.fullmatch(link, answer.headers["link"])
    assert "link" not in client.get(answer.links["next"]["url"]).headers


def test_a_page_has_100_rows_unless_told(client: TestClient, db: pw.Database) -> None:
    """Without a limit a page has 100 rows; with one it has up to 1000, and no Link when that was all."""
    add(db, *["Ada"] * 1001)
    assert [len(page) for page in pages(client, "/students")] == [*[100] * 10, 1]
    assert [len(page) for page in pages(client, "/students?limit=1000")] == [1000, 1]
    assert [len(page) for page in pages(client, "/students?limit=1000&name=a")] == [1000, 1]
    assert [len(page) for page in pages(client, "/students?limit=143")] == [143] * 7


def test_students_are_found_by_how_their_names_begin(client: TestClient, db: pw.Database) -> None:
    """With a prefix, in either case of ASCII, the list is ordered by name and then by id."""
    add(db, "bo", "ADA", "Éa", "adam", "Ada", "éa", "a_b", "Ad")
    found = pages(client, "/students?name=aD&limit=2")
    assert [[(row["name"], row["id"]) for row in page] for page in found] == [
        [("Ad", 8), ("ADA", 2)],
        [("Ada", 5), ("adam", 4)],
    ]
    assert [row["id"] for row in client.get("/students?name=a_").json()] == [7]
    assert [row["id"] for row in client.get("/students", params={"name": "é"}).json()] == [6]
    assert [row["id"] for row in client.get("/students?name=").json()] == [7, 8, 2, 5, 4, 1, 3, 6]
    assert client.get("/students?name=adamant").json() == []


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json"])
@pytest.mark.parametrize(("changes", "name"), [('{"name": " Bo "}', "Bo"), ("{}", "Ada")])
def test_a_patch_changes_what_it_names(client: TestClient, media_type: str, changes: str, name: str) -> None:
    """A merge patch (RFC 7396) changes the keys that it has and keeps the rest."""
    client.post("/students", json={"name": "Ada"})
    answer = client.patch("/students/1", content=changes, headers={"content-type": media_type})
    assert (answer.status_code, answer.json()) == (200, {"id": 1, "name": name, **STUDENT})
    assert client.get("/students/1").json() == answer.json()


def test_a_deleted_student_is_gone(client: TestClient, db: pw.Database) -> None:
    """A student who is deleted is found no more; the others stay."""
    add(db, "Ada", "Bo")
    answer = client.delete("/students/1")
    assert (answer.status_code, answer.content) == (204, b"")
    assert refusal(client.delete("/students/1")) == (404, "student_not_found")
    assert client.get("/students").json() == [{"id": 2, "name": "Bo", **STUDENT}]


def test_a_deleted_students_id_is_not_given_again(client: TestClient, db: pw.Database) -> None:
    """The id of the last student, and of the only one, is not used again after a delete."""
    add(db, "Ada", "Bo")
    for last in (2, 3):
        client.delete(f"/students/{last}")
        assert client.post("/students", json={"name": "Cy"}).json() == {"id": last + 1, "name": "Cy", **STUDENT}
    client.delete("/students/1")
    client.delete("/students/4")
    assert client.post("/students", json={"name": "Di"}).json()["id"] == 5


@pytest.mark.parametrize("student_id", [2, 2**63 - 1])
def test_a_student_who_does_not_exist_is_not_found(client: TestClient, student_id: int) -> None:
    """An id that nobody has is a 404, to show, change or delete."""
    client.post("/students", json={"name": "Ada"})
    url = f"/students/{student_id}"
    for answer in (client.get(url), client.patch(url, json={}), client.patch(url, json={"name": "Bo"})):
        assert refusal(answer) == (404, "student_not_found")
    assert refusal(client.delete(url)) == (404, "student_not_found")
    assert client.get("/students").json() == [{"id": 1, "name": "Ada", **STUDENT}]
