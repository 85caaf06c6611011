"""The search by words: it finds what its plain definition finds, page by page, whatever program wrote the rows."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unicodedata import category

import peewee as pw
import pytest
from drifted import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import check
from programs import LEAVE_OUT, host_rule, run_sql

from service import connect, migrate
from service.courses import insert_course, list_courses
from service.errors import InvalidQuery
from service.storage import fetch
from service.storage.letters import is_told, letters, plain
from service.storage.sqlite.drift import expected
from service.storage.sqlite.schema import repair, rollback
from service.storage.sqlite.words import MISSPELT
from service.students import insert_student, list_students

pytestmark = pytest.mark.both

Person = tuple[str, str | None, str | None]
"""(name, external_id, email)"""

# The definition, in plain Python


def begun(text: str) -> list[str]:
    """Give the words of a text: each goes from a place behind white space or punctuation to the next white space."""
    spelled = "".join(letters().get(letter, letter) for letter in text[:200])
    tokens = [token.split("-") for token in spelled.split()]
    return [word for parts in tokens for at in range(len(parts)) if (word := "".join(parts[at:]))]


def finds(q: str, name: str, external_id: str | None, email: str | None) -> bool:
    """Tell whether every word of `q` begins a word, and where all are short, the first one begins the name."""
    sought = "".join(letters().get(letter, letter) for letter in q).replace("-", "").split()
    words = begun(name) + begun(external_id or "") + begun((email or "").partition("@")[0])
    whole = all(any(word.startswith(each) for word in words) for each in sought)
    if sought and all(len(each) < 3 for each in sought):
        return whole and bool(begun(name)) and begun(name)[0].startswith(sought[0])
    return whole


def in_order(row: tuple[int, str]) -> tuple[bytes, int]:
    """Give the key of a page: the name, for which A to Z are a to z, then the id."""
    return row[1].encode().lower(), row[0]


def pages(db: pw.Database, q: str, limit: int, prefix: str | None = None) -> list[tuple[int, str]]:
    """Give all that a search finds, page by page, each after the last row seen."""
    found: list[tuple[int, str]] = []
    while page := list_students(db, prefix, (found[-1][1], found[-1][0]) if found else None, limit, q=q):
        found += [(student.id, student.name) for student in page]
    return found


def add(connection: Any, people: list[Person]) -> None:
    """Insert students as another program would."""
    connection.executemany("INSERT INTO students (name, external_id, email) VALUES (?, ?, ?)", people)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file that the examples of this module share."""
    path = tmp_path_factory.mktemp("search") / "school.db"
    migrate(path)
    return path


@pytest.fixture(scope="module")
def shared(place: Path) -> Iterator[pw.Database]:
    """Give a connection to the file, in which nothing is committed."""
    database = connect(place)
    yield database
    database.close()


ALPHABET = "aAáÁbBc kKøßẞæİ\u0131łŁ1-.'\u2019_@ \t\u00a0\u0301\u200dΣς漢한😀^,\"\\[]"
TEXT = st.text(ALPHABET, max_size=12) | st.sampled_from(["Éva Kovács", "Eva Kovacsova", "kov a-k", "BIO-101"])
PEOPLE = st.lists(st.tuples(TEXT, st.none(), TEXT.filter(bool) | st.none()), max_size=8)
QUERY = TEXT.map(lambda text: re.sub(r"[\t\u200d]", "", text)) | st.sampled_from(["eva k", "kov", "ko a", "a", "ab c"])


@settings(max_examples=100)
@given(people=PEOPLE, ids=st.sets(TEXT.filter(bool), max_size=4), q=QUERY, few=st.sampled_from([1, 2, 4000]))
def test_it_finds_what_the_definition_finds(
    shared: pw.Database, people: list[Person], ids: set[str], q: str, few: int
) -> None:
    """Any words find exactly the students of the definition, in order, for a word of few rows and of many alike."""
    with shared.atomic() as transaction, pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.storage.sqlite.words.FEW", few)
        given_ids = [*ids, *[None] * len(people)]
        add(shared.connection(), [(name, given_ids[at], email) for at, (name, _, email) in enumerate(people)])
        rows = fetch(shared, "SELECT id, name, external_id, email FROM students")
        want = sorted(((id, name) for id, name, *more in rows if finds(q.strip(), name, *more)), key=in_order)
        assert pages(shared, q, 2) == want
        assert pages(shared, q, 100, "a") == [row for row in want if row[1][:1] in {"a", "A"}]
        assert fetch(shared, MISSPELT) == []
        transaction.rollback()


@pytest.mark.both(False, because="PostgreSQL has one row of words for each student")
def test_words_that_begin_alike_in_one_name(db: pw.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student with many such words is found once, be they taken for few or for many."""
    add(db.connection(), [("Kovacs Kovacsova Kovacsek", None, "kovacsik@x.org"), ("Ann Kovacs", None, None)])
    for few in (1, 3, 4, 4000):
        monkeypatch.setattr("service.storage.sqlite.words.FEW", few)
        for q in ("kova", "kovacs", "kova kovacs"):
            assert pages(db, q, 1) == [(2, "Ann Kovacs"), (1, "Kovacs Kovacsova Kovacsek")]


@settings(max_examples=100)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_sql_and_python_spell_alike(shared: pw.Database, text: str) -> None:
    """Of any text, the triggers make the words of the definition."""
    with shared.atomic() as transaction:
        add(shared.connection(), [(text, None, None)])
        ((words,),) = fetch(shared, "SELECT coalesce(max(words), ',^') FROM student_words")
        assert words.split(",")[1:-1] == [*dict.fromkeys(begun(text))]
        transaction.rollback()


def test_every_letter(shared: pw.Database) -> None:
    """The table has every letter that is not plain, and what stands for it is plain itself."""
    assert dict(fetch(shared, "SELECT letter, plain FROM letters")) == letters()
    every = (chr(code) for code in range(1, 0x110000))
    hangul = range(0xAC00, 0xD7A4)
    changed = {
        each
        for each in every
        if category(each) not in {"Cs", "Cn", "Co"} and ord(each) not in hangul and plain(each) != each
    }
    chinese = {each for each in changed - letters().keys() if ord(each) in range(0x3100, 0xA000)}
    assert all(category(each) == "Lo" for each in changed - letters().keys() - chinese)
    assert {
        part for found in letters().values() if found not in {" ", "-"} for part in found
    } & letters().keys() == set()
    assert is_told("é")
    assert not is_told("\U0001e900")


@pytest.mark.parametrize(
    ("name", "qs"),
    [
        ("Éva Kovács", ["eva", "EVA", "Éva", "e\u0301va", "kov", "eva kov", "kovács e", "e", "É", "ev", "e k"]),
        ("Łódź", ["lodz", "łódź", "LODZ", "lo"]),
        ("Straße", ["strasse", "STRASSE", "straße", "straẞe", "str"]),
        ("Søren Æbelø", ["soren", "aebelo", "sør"]),
        ("O'Brien", ["obrien", "o'brien", "o\u2019brien", "brien", "o'b", "O"]),
        ("Jean-Luc", ["jeanluc", "jean-luc", "luc", "JEAN", "jean luc"]),
        ("Ἀχιλλεύς", ["αχιλλευσ", "ΑΧΙΛ"]),
        ("Юлия Ёлкина", ["юли", "ЕЛК", "ёлк"]),
        ("İpek Iş\u0131k", ["ipek", "IPEK", "isik", "\u0131ş\u0131k"]),
        ("\uff37\uff49\uff44\uff45", ["wide"]),
        ("李小龍", ["李", "李小", "李小龍"]),
        ("- 'Tis", ["tis", "t", "'t"]),
    ],
)
def test_case_and_accents_do_not_count(db: pw.Database, name: str, qs: list[str]) -> None:
    """A name is found by the beginnings of its words, however they are typed."""
    insert_student(db, name)
    insert_student(db, "Nobody")
    for q in qs:
        assert [student.name for student in list_students(db, q=q)] == [name], q


def test_texts(db: pw.Database) -> None:
    """The external id counts, and of an email the part before @; within words, behind @ and elsewhere nothing does."""
    db.execute_sql(
        "INSERT INTO students (name, external_id, given_name, email) "
        "VALUES ('Ada Byron', 'BIO-101', 'Augusta', 'a.lovelace@school.org')"
    )
    for q in ("bio101", "bio-1", "101", "ada 10", "lovelace", "alove", "a.lo", "byr a", "ad"):
        assert len(list_students(db, q=q)) == 1, q
    for q in (
        "school",
        "org",
        "augusta",
        "yron",
        "da",
        "1",
        "by",
        "ada bio-2",
        "1 a",
        "a z",
        "adaa",
        "ada z",
        "lovelace byron z",
    ):
        assert list_students(db, q=q) == [], q


def test_courses(db: pw.Database) -> None:
    """Courses are searched by name and external id, within a level, and with a prefix of the name."""
    for name, level in (("Organic Chemistry", "A1"), ("Chemistry", "A2"), ("Chess", "A1")):
        insert_course(db, name, level)
    db.execute_sql("UPDATE courses SET external_id = 'CHE-' || id")
    assert [course.name for course in list_courses(db, q="che")] == ["Chemistry", "Chess", "Organic Chemistry"]
    assert [course.name for course in list_courses(db, q="chem")] == ["Chemistry", "Organic Chemistry"]
    assert [course.name for course in list_courses(db, q="chem", level="A1")] == ["Organic Chemistry"]
    assert [course.name for course in list_courses(db, "c", "A1", q="che")] == ["Chess"]
    assert [course.name for course in list_courses(db, q="che-2")] == ["Chemistry"]
    assert [course.name for course in list_courses(db, None, None, ("Chemistry", 2), q="che")] == [
        "Chess",
        "Organic Chemistry",
    ]


@pytest.mark.parametrize("q", ["", " ", "-", "\u2019 .", "\u0301"])
def test_without_a_word(db: pw.Database, q: str) -> None:
    """Punctuation alone is no word, so it finds all, by name."""
    for name in ("b", "A", "c"):
        insert_student(db, name)
    assert [student.name for student in list_students(db, q=q)] == ["A", "b", "c"]
    assert [student.name for student in list_students(db, "B", q=q)] == ["b"]
    assert [student.name for student in list_students(db, None, ("a", 2), q=q)] == ["b", "c"]


def test_what_cannot_be_sought(db: pw.Database) -> None:
    """What cannot be in a name is refused, with every fault."""
    for q in ("x" * 201, "a\0b", "\ud800", 5):
        with pytest.raises(InvalidQuery):
            list_students(db, q=q)  # type: ignore[arg-type]
        with pytest.raises(InvalidQuery):
            list_courses(db, q=q)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery) as raised:
        list_students(db, "x" * 201, q="x" * 201)
    assert len(raised.value.faults) == 2


def test_long_and_hostile_texts(db: pw.Database) -> None:
    """A name of the most words that fit has a bounded number of rows; behind its 200th letter no word is found.

    PostgreSQL stores no longer texts, whoever writes.
    """
    insert_student(db, "a-" * 99 + "aa")
    if isinstance(db, pw.SqliteDatabase):
        ((rows, size),) = fetch(db, "SELECT count(*), sum(length(words)) FROM student_words")
        assert rows < 105
    else:
        ((size,),) = fetch(db, "SELECT sum(pg_column_size(words)) FROM students")
    assert size < 600_000
    assert len(list_students(db, q="a" * 101)) == 1
    assert list_students(db, q="a" * 102) == []
    cut = None if isinstance(db, pw.SqliteDatabase) else 200
    person = [text[:cut] for text in ("x" * 195 + " abcdefgh", "y" * 300, "z" * 300)]
    db.execute_sql("INSERT INTO students (name, external_id, email) VALUES (?, ?, ?)", person)
    for q, count in {"abcd": 1, "abcde": 0, "y" * 200: 1, "z" * 200: 1}.items():
        assert len(list_students(db, q=q)) == count


# Whatever program writes


WRITES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "INSERT INTO students (id, name, external_id, email) VALUES (:id, :name, :key, :email)",
                "INSERT INTO students (name, email) VALUES (:name, :email)",
                "INSERT OR REPLACE INTO students (id, name, email) VALUES (:id, :name, :email)",
                "REPLACE INTO students (id, name, external_id) VALUES (:id, :name, :key)",
                "INSERT OR IGNORE INTO students (id, name) VALUES (:id, :name)",
                "INSERT INTO students (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING",
                "INSERT INTO students (id, name) VALUES (:id, :name) ON CONFLICT (id) DO UPDATE SET name = :name",
                "UPDATE students SET name = :name WHERE id = :id",
                "UPDATE students SET external_id = :key, name = upper(name) WHERE id >= :id",
                "UPDATE OR REPLACE students SET external_id = :key WHERE id = :id",
                "UPDATE students SET email = :email",
                "DELETE FROM students WHERE id = :id",
                "DELETE FROM students WHERE id > :id",
                "INSERT OR ROLLBACK INTO students (id, name) VALUES (:id, :name)",
                "PRAGMA recursive_triggers = 1",
            ]
        ),
        st.fixed_dictionaries(
            {"id": st.integers(1, 4), "name": TEXT, "key": TEXT | st.none(), "email": TEXT | st.none()}
        ),
    ),
    max_size=12,
)


@pytest.mark.long
@settings(max_examples=100)
@given(writes=WRITES)
def test_any_program_may_write(place: Path, writes: list[tuple[str, dict[str, Any]]]) -> None:
    """After any statements of a program that knows nothing of the search, the words are those of the rows."""
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("DELETE FROM students")
        for sql, values in writes:
            try:
                connection.execute(sql, values)
            except sqlite3.IntegrityError:
                continue
        assert connection.execute(MISSPELT).fetchall() == []
        connection.execute("DELETE FROM students")
        assert connection.execute("SELECT count(*) FROM student_words").fetchone() == (0,)


def test_a_write_that_a_host_turns_into_nothing(db: pw.Database, path: Path | str) -> None:
    """Where another program's trigger leaves a row as it is, its words stay; a later write finds nothing left over."""
    run_sql(path, "INSERT INTO students (name) VALUES ('Ada Lovelace'), ('Bob')")
    for event, write in (("DELETE", "DELETE FROM students"), ("UPDATE", "UPDATE students SET name = 'x'")):
        with host_rule(path, f"BEFORE {event} ON students", LEAVE_OUT, when="OLD.id = 1"):
            run_sql(path, write)
    more = "UPDATE students SET name = name || ' Jr' WHERE id = NEW.id"
    with host_rule(path, "AFTER INSERT ON students", more):
        run_sql(path, "INSERT INTO students (id, name) VALUES (1, 'y') ON CONFLICT DO NOTHING")
        run_sql(path, "INSERT INTO students (name) VALUES ('Carl')")
    assert [student.name for student in list_students(db, q="")] == ["Ada Lovelace", "Carl Jr"]
    assert [student.name for student in list_students(db, q="lovelace")] == ["Ada Lovelace"]
    assert [student.name for student in list_students(db, q="carl jr")] == ["Carl Jr"]
    check(path)


@pytest.mark.both(False, because="PostgreSQL stores no text that is not UTF-8")
def test_a_name_that_is_not_utf_8(path: Path) -> None:
    """A garbled name is found by its other words, and the page after it is found as well."""
    run_script(
        path,
        "INSERT INTO students (name) VALUES (CAST(x'416461ff' AS TEXT)), (CAST(x'4164612042ff' AS TEXT)), ('Ada C')",
    )
    with closing(connect(path)) as db:
        found = list_students(db, q="ada")
        assert [student.id for student in found] == [2, 3, 1]
        (_, last, _) = found
        assert [student.id for student in list_students(db, None, (last.name, last.id), q="ada")] == [1]
        after = (found[0].name, found[0].id)
        assert [student.id for student in list_students(db, None, after, q="ada")] == [3, 1]


# The migration, the check and the repair


NAMES = [
    "Éva Kovács",
    "",
    " ",
    "---",
    "'t Hooft-Smith",
    "a\tb",
    "ß" * 300,
    "x" * 199 + "é",
    "nul\0nothing",
    "Ab",
    "😀 ok",
]


@pytest.mark.both(False, because="only files have older schemas")
def test_the_migration_fills_the_words(path: Path) -> None:
    """Names that were there before have the words that the triggers would have given them."""
    rollback(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executemany("INSERT INTO students (name) VALUES (?)", [(name,) for name in NAMES])
        connection.executemany("INSERT INTO courses (name, level) VALUES (?, '1')", [(name,) for name in NAMES])
        connection.execute("INSERT INTO students (name) VALUES (CAST(x'416461ff2042c389' AS TEXT))")
    migrate(path)
    check(path)
    with closing(connect(path)) as db:
        assert [student.id for student in list_students(db, q="hooftsm")] == [5]
        assert [student.id for student in list_students(db, q="ad bé")] == [12]
        assert [course.id for course in list_courses(db, q="eva")] == [1]


LOST = {
    "a trigger": ("DROP TRIGGER student_words_changed; UPDATE students SET name = 'Bob'", True),
    "every trigger": (
        "".join(
            f"DROP TRIGGER {each.name};"
            for each in expected().values()
            if "_words_" in each.name and each.type == "trigger"
        )
        + "INSERT INTO students (name) VALUES ('Bob'); DELETE FROM students WHERE id = 2",
        True,
    ),
    "a view": ("DROP VIEW words_of_students", True),
    "another view": ("DROP VIEW words_of_courses; CREATE VIEW words_of_courses AS SELECT 1 AS beginning", True),
    "the words": ("DROP TABLE student_words", True),
    "all": ("".join(f"DROP TABLE {table};" for table in ("letters", "course_words", "course_words_before")), True),
    "a key": ("DROP TABLE student_words; CREATE TABLE student_words (beginning, name, student_id)", True),
    "a note's key": ("DROP TABLE course_words_before; CREATE TABLE course_words_before (course_id)", True),
    "rows": ("DELETE FROM student_words WHERE beginning = 'eva'; UPDATE course_words SET words = ''", False),
    "letters": ("DELETE FROM letters WHERE plain = 'e'; UPDATE students SET name = 'Ève' WHERE id = 2", False),
}


@pytest.mark.both(False, because="the words have a table of their own in SQLite alone")
@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_comes_back(path: Path, name: str) -> None:
    """A trigger, view, table or row of the search that is lost is seen, and put back with the words of all rows."""
    run_script(
        path,
        "INSERT INTO students (name) VALUES ('Éva'), ('Ada'); INSERT INTO courses (name, level) VALUES ('Go', '1')",
    )
    sql, is_of_schema = LOST[name]
    run_script(path, sql)
    said = repair(path)
    assert any(line.endswith(("put back.", "rebuilt.")) for line in said) == is_of_schema, said
    check(path)
    assert repair(path) == []
    with closing(connect(path)) as db:
        insert_student(db, "Bobby")
        names = [student.name for student in list_students(db)]
        for student in names:
            assert student in [found.name for found in list_students(db, q=student)]
        assert [course.name for course in list_courses(db, q="go")] == ["Go"]
    check(path)


# What it costs


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pw.Database]:
    """Give a file of 8,000 students, of whom an eighth is called Maria, and a quarter Smith."""
    path = tmp_path_factory.mktemp("crowd") / "school.db"
    migrate(path)
    database = connect(path)
    given_names, family_names = (
        ("Maria", "Marta", "Jan", "Bo", "Eva", "Ada", "Leo", "Kim"),
        ("Smith", "Kovács", "Lee", "Ng"),
    )
    with database.atomic():
        add(
            database.connection(),
            [(f"{given_names[at % 8]} {family_names[at // 8 % 4]}", f"S{at:07d}", None) for at in range(8_000)],
        )
    yield database
    database.close()


QUERIES = ["mar", "maria", "maria smith", "m s", "ma", "s", "s00", "s0000123", "s000", "marian", "smith jan kovacs"]


@pytest.mark.parametrize("q", QUERIES)
def test_a_page_takes_few_steps(crowd: pw.Database, q: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement scans a table or sorts more than FEW rows, and a page, however deep, takes few steps of SQLite."""
    monkeypatch.setattr("service.storage.sqlite.words.FEW", 100)
    found = list_students(crowd, q=q, limit=10_000)
    assert (len(found) == 0) == (q in {"marian", "smith jan kovacs", "s"})
    middle = found[len(found) // 2 :][:1]
    for after in (None, *((student.name, student.id) for student in middle)):
        asked: list[pw.QueryEvent] = []
        steps = 0

        def tick() -> None:
            nonlocal steps
            steps += 1

        crowd.query_hooks.append(asked.append)
        crowd.connection().set_progress_handler(tick, 1)
        try:
            list_students(crowd, None, after, 20, q=q)
        finally:
            crowd.connection().set_progress_handler(None, 1)
            crowd.query_hooks.clear()
        assert steps < (30_000 if q == "smith jan kovacs" else 10_000), steps
        assert len(asked) <= 8
        for event in asked:
            plan = [detail for *_, detail in fetch(crowd, f"EXPLAIN QUERY PLAN {event.sql}", *event.params or ())]
            assert not [step for step in plan if step.startswith("SCAN") and not step.startswith("SCAN (")], plan
            assert "DISTINCT" in event.sql or not [step for step in plan if "TEMP B-TREE" in step], plan
