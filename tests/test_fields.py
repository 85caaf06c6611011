"""The rules of fields: said once, and the same over HTTP and in the plain functions."""

import time
from collections.abc import Callable, Mapping
from typing import Any, get_args
from unicodedata import normalize

import peewee as pw
import pytest
from answers import STUDENT
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service import courses, enrollments, students
from service.errors import CourseNotFound, InvalidPayload, InvalidQuery, StudentNotFound
from service.events import list_events
from service.fields import (
    CAPACITY,
    ID,
    LEVEL,
    MAX_ID,
    MAX_NAME,
    NAME,
    PREFIX,
    Availability,
    Change,
    Flag,
    Status,
    checked,
    word,
)
from service.http.queries import Limit, Number

pytestmark = pytest.mark.both

BLANKS = [
    *(" ", "\t", "\r\n", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u3000", "\u2800"),
    *("\xad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180e", "\u3164", "\ufeff", "\uffa0", "\ufff0"),
    *map(chr, range(0x200B, 0x2010)),
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2060, 0x2070)),
    *("\ufe0f", "\U0001d173", "\U000e0001", "\U000e0061", "\U000e007f", "\U000e0100", "\U000e0fff"),
]
"""White space, and what is not seen."""

SHAPED = {
    "a heart as an emoji": "I \u2764\ufe0f",
    "a family": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "the flag of Scotland": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "a Japanese name with a chosen glyph": "\u845b\U000e0100",
    "a Persian name with a ZWNJ in it": "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",
    "a Malayalam name that ends with a chillu of old": "\u0d06\u0d24\u0d3f\u0d30\u0d28\u0d4d\u200d",
    "a Mongolian letter in another form": "\u1820\u180b",
    "a word joiner between two words": "Ada\u2060Lovelace",
}
"""Names in which what is not seen does something."""

texts = st.text(
    st.sampled_from([*"".join(BLANKS), *"aAe\u0301\u0323\u0308Åå\ufb01\u212a\u0d4d", *"".join(SHAPED.values())])
    | st.characters()
)


def kept(rule: Any, text: object) -> object:
    """Give what a rule keeps of a value, or its words."""
    try:
        return rule.check(text)
    except ValueError as error:
        return error


# Names and levels


@pytest.mark.parametrize("blank", BLANKS, ids=ascii)
def test_a_name_begins_and_ends_with_what_is_seen(client: TestClient, blank: str) -> None:
    """White space and invisible marks are taken from both ends of a name and of a level, and stay within."""
    name, found = f"{blank}{blank}A{blank}da{blank}\u200b{blank}", f"A{blank}da"
    if blank < " " or blank == "\x85":  # Within a name those are control characters.
        name, found = f"{blank}Ada{blank}", "Ada"
    shaping = "\ufe0f\U000e0061\U000e007f\U000e0100"  # Those belong to the character before.
    found += blank if blank in shaping else ""
    given = client.post("/courses", json={"name": name, "level": name}).json()
    assert (given["name"], given["level"]) == (found, found)
    changed = client.patch("/courses/1", json={"name": f"{name}", "level": f"{name}"}).json()
    assert changed == given
    assert client.post("/students", json={"name": name}).json()["name"] == found


@pytest.mark.parametrize("blank", ["", *BLANKS, "".join(BLANKS)], ids=ascii)
def test_a_name_of_nothing_visible_is_refused(client: TestClient, db: pw.Database, blank: str) -> None:
    """A name, or a level, in which nothing can be seen is refused in words that say so."""
    answer = client.post("/courses", json={"name": blank, "level": blank * 2})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"detail": "must have a character that can be seen", "pointer": pointer} for pointer in ("#/name", "#/level")
    ]
    with pytest.raises(InvalidPayload) as refusal:
        students.insert_student(db, blank)
    assert refusal.value.faults == [("#/name", "must have a character that can be seen")]


@pytest.mark.parametrize("name", SHAPED.values(), ids=SHAPED)
def test_what_shapes_a_name_stays(client: TestClient, name: str) -> None:
    """What is not seen, and yet shapes the character before it, stays; emoji, flags and scripts are not broken."""
    client.post("/students", json={"name": f"\ufeff {name} \u200b"})
    assert client.get("/students", params={"name": name}).json() == [{"id": 1, "name": name, **STUDENT}]


@pytest.mark.parametrize(
    ("given", "name"), [("Ame\u0301lie", "Am\xe9lie"), ("\u212bsa", "\xc5sa"), ("\u1112\u1161\u11ab", "\ud55c")]
)
def test_a_name_is_kept_and_found_in_nfc(client: TestClient, db: pw.Database, given: str, name: str) -> None:
    """However a name was typed it is kept in NFC, and found however it is typed; so is a level."""
    assert students.insert_student(db, given).name == name
    assert students.update_student(db, 1, {"name": given}).name == name
    course = courses.insert_course(db, given, given)
    assert (course.name, course.level) == (name, name)
    for typed in (given, name, f"\u200e {given}", f"{name}\ufeff"):
        assert len(students.list_students(db, typed)) == len(courses.list_courses(db, typed, f"{typed} ")) == 1
        assert len(client.get("/students", params={"name": typed}).json()) == 1
        assert len(client.get("/courses", params={"name": typed, "level": f"{typed} "}).json()) == 1


def test_white_space_at_the_end_of_a_prefix_counts(client: TestClient, db: pw.Database) -> None:
    """Who looks for a word and a blank looks for that word whole; before it, and for marks, that is not so."""
    for name in ("Ada Lovelace", "Adam", "Ada\u3000Byron"):
        students.insert_student(db, name)
    for prefix, found in (
        ("Ada", [1, 2, 3]),
        (" Ada ", [1]),
        ("Ada \u200b", [1]),
        ("Ada\u3000", [3]),
        (" ", [1, 2, 3]),
    ):
        rows = client.get("/students", params={"name": prefix}).json()
        assert sorted(row["id"] for row in rows) == found
        assert [row.id for row in students.list_students(db, prefix)] == [row["id"] for row in rows]


@settings(deadline=None)
@given(text=texts)
def test_what_is_kept_is_kept_as_it_is(text: str) -> None:
    """A value that a rule gave is one that the rule gives again, and each of its forms leads to it."""
    for rule in (NAME, PREFIX, LEVEL):
        found = kept(rule, text)
        if isinstance(found, str):
            assert kept(rule, found) == found == normalize("NFC", found)
            assert len(found) <= MAX_NAME
    name = kept(NAME, text)
    if isinstance(name, str):
        assert name == name.strip()
        assert kept(NAME, f"\ufeff\u200b {normalize('NFD', name)} \u2060") == name
        for end in range(len(name)):
            assert name.startswith(str(kept(PREFIX, name[:end])))


@pytest.mark.parametrize("character", ["a", "\xe9", "\u1ebf", "\u1f82", "\ud55c"])
def test_the_length_is_that_of_nfc(character: str) -> None:
    """A name has 200 characters at most as it is kept, however many it was typed with."""
    assert kept(NAME, f"{normalize('NFD', character * 200)}  ") == character * 200
    assert str(kept(NAME, normalize("NFD", character * 201))) == "must have at most 200 characters"


def test_no_character_becomes_more_than_four() -> None:
    """A text of more than four times the length is not put in NFC at all, as no name of that length comes of it."""
    assert max(len(normalize("NFD", chr(code))) for code in range(0x110000)) == 4


@pytest.mark.parametrize(
    "text",
    [
        *(" " * 2**20, f"a{' ' * 2**20}b", f"a{' ' * 2**20}", "\u200b\ufe0f" * 2**19, "\u0301\u0323" * 2**19),
        *("\u0d4d\u200d" * 2**19, "\u3164a" * 2**19, "\0" * 2**20),
    ],
    ids=lambda text: ascii(text[:3]),
)
def test_a_long_name_takes_no_time(text: str) -> None:
    """However a body of a mebibyte is made, its name is judged in a moment."""
    started = time.thread_time()
    for rule in (NAME, PREFIX, LEVEL):
        kept(rule, text)
    assert time.thread_time() - started < 1


# The plain functions


NO_NAMES: list[object] = [None, True, 1, b"Ada", ["Ada"], "", " \u200b", "a" * 201, "a\0b", "a\x9fb", "\ud800"]
NO_CAPACITIES: list[object] = [True, False, 1.0, "5", "", -1, 2**63, 10**400, [], b"1"]


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_a_rule_checks_a_name(db: pw.Database, name: Any) -> None:
    """Without HTTP a name that breaks its rule is refused all the same, by that name, and nothing is kept."""
    ada, music = students.insert_student(db, "Ada"), courses.insert_course(db, "Music", "A1")
    calls: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: students.insert_student(db, name), ["#/name"]),
        (lambda: students.update_student(db, 1, {"name": name}), ["#/name"]),
        (lambda: courses.insert_course(db, name, name), ["#/name", "#/level"]),
        (lambda: courses.update_course(db, 1, {"level": name, "capacity": 5}), ["#/level"]),
    ]
    for call, places in calls:
        with pytest.raises(InvalidPayload) as refusal:
            call()
        assert [place for place, _ in refusal.value.faults] == places
        assert all(words for _, words in refusal.value.faults)
    assert students.list_students(db) == [ada]
    assert courses.list_courses(db) == [music]


@pytest.mark.parametrize("capacity", NO_CAPACITIES, ids=ascii)
def test_a_rule_checks_a_capacity(db: pw.Database, capacity: Any) -> None:
    """Without HTTP a capacity that breaks its rule is refused all the same, with every other fault."""
    music = courses.insert_course(db, "Music", "A1")
    with pytest.raises(InvalidPayload) as refusal:
        courses.insert_course(db, "", "A1", capacity, capacity)
    assert [place for place, _ in refusal.value.faults] == ["#/name", "#/capacity", "#/waitlist_capacity"]
    with pytest.raises(InvalidPayload) as refusal:
        courses.update_course(db, 1, {"waitlist_capacity": capacity, "name": "Song"})
    words = f"must be null or an integer from 0 to {MAX_ID}"
    assert refusal.value.faults == [("#/waitlist_capacity", words)]
    assert courses.list_courses(db) == [music]


@pytest.mark.parametrize(
    "changes", [{"id": 7}, {"enrolled": 0}, {"name": "Bo", "a/b": 1, "": 2}, {5: 1}, {"courses": []}]
)
def test_a_rule_changes_what_may_be_changed(db: pw.Database, changes: Mapping[Any, Any]) -> None:
    """Without HTTP an update takes the fields that it takes over HTTP, and names each other one."""
    students.insert_student(db, "Ada"), courses.insert_course(db, "Music", "A1")
    updates: list[Callable[..., object]] = [students.update_student, courses.update_course]
    for update in updates:
        with pytest.raises(InvalidPayload) as refusal:
            update(db, 1, changes)
        unknown = [f"#/{name}".replace("a/b", "a~1b") for name in changes if name != "name"]
        assert refusal.value.faults == [(place, "is not known here") for place in unknown]
    assert (students.find_student(db, 1).name, courses.find_course(db, 1).name) == ("Ada", "Music")


@pytest.mark.parametrize("text", [5, b"a", "a\0", "\ud800", "a" * 201], ids=ascii)
def test_a_rule_checks_what_is_looked_for(db: pw.Database, text: Any) -> None:
    """Without HTTP a filter has the rules of what it filters, and every fault comes at once."""
    for call, names in (
        (lambda: students.list_students(db, text), ["name"]),
        (lambda: courses.list_courses(db, text, text), ["name", "level"]),
    ):
        with pytest.raises(InvalidQuery) as refusal:
            call()
        assert [name for name, _ in refusal.value.faults] == names


@pytest.mark.parametrize(
    "no_id", [0, -1, 2**63, -(2**63), 10**400, "1", True, 1.0, None, b"1", [1]], ids=lambda no_id: ascii(no_id)[:9]
)
def test_what_is_no_id_is_nobodys(db: pw.Database, no_id: Any) -> None:
    """What cannot be an id is not found: SQLite does not take it for one, nor the driver for an error."""
    ada, music = students.insert_student(db, "Ada"), courses.insert_course(db, "Music", "A1")
    enrollments.enroll(db, 1, 1)
    calls: dict[type[Exception], list[Callable[[], object]]] = {
        StudentNotFound: [
            lambda: students.find_student(db, no_id),
            lambda: students.update_student(db, no_id, {"name": "Bo"}),
            lambda: students.update_student(db, no_id, {}),
            lambda: students.delete_student(db, no_id),
        ],
        CourseNotFound: [
            lambda: courses.find_course(db, no_id),
            lambda: courses.update_course(db, no_id, {"name": "Song", "waitlist_capacity": 3}),
            lambda: courses.update_course(db, no_id, {}),
            lambda: courses.delete_course(db, no_id),
        ],
    }
    for error, several in calls.items():
        for call in several:
            with pytest.raises(error):
                call()
    if no_id is not None:
        assert list_events(db, student_id=no_id) == list_events(db, course_id=no_id) == []
    assert students.list_students(db) == [ada]
    assert [course.name for course in courses.list_courses(db)] == [music.name]


# JSON Schema


def fits(value: object, schema: Mapping[str, Any]) -> bool:
    """Judge a value by those words of JSON Schema that the fields use."""
    kinds = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
    assert schema.keys() <= {"type", "minLength", "maxLength", "minimum", "maximum", "enum"}
    if "type" in schema and kinds.get(type(value), "another") not in (
        [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    ):
        return False
    if type(value) is str and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return False
    if type(value) is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    return "enum" not in schema or value in schema["enum"]


VALUES: list[object] = [None, True, False, 1.5, [], {}, "", "a", "a" * 200, "a" * 201, "enrolled", "open", "Enrolled"]
VALUES += [-1, 0, 1, 1000, 1001, MAX_ID, MAX_ID + 1]
FIELDS = {
    "name": NAME,
    "prefix": PREFIX,
    "level": LEVEL,
    "id": ID,
    "capacity": CAPACITY,
    "status": word(Status),
    "availability": word(Availability),
    "change": word(Change),
    **{name: get_args(kind)[1] for name, kind in {"flag": Flag, "limit": Limit, "number": Number}.items()},
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_schema_says_what_its_rule_says(name: str) -> None:
    """What a field's JSON Schema takes its rule takes as it is, and nothing else of plain values."""
    field = FIELDS[name]
    for value in VALUES:
        found = kept(field, value)
        assert (not isinstance(found, ValueError) and type(found) is type(value)) == fits(value, field.schema), value


def test_checked_gives_what_is_kept() -> None:
    """The values come back as they are kept, by name and in order."""
    assert [*checked({"b": NAME, "a": ID}, {"a": 1, "b": " x "}).items()] == [("a", 1), ("b", "x")]
