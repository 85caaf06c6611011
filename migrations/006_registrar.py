"""Registrar: the school's own numbers and names, terms, windows, overrides, who wrote and why, and the search by words.

No row that is there changes, so beside the words of the names, the migration of a large file takes as long as the check
of the references does. An override is an INSERT that asks for a seat with `event_id` 0: the course grows by the seat if
it is full, so nobody else moves. Who wrote and why is told beside the events, in the table event_notes, because most
events have nothing there.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import peewee as pw
from peewee_migrate import Migrator

from service.storage.letters import letters

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
FORM = "????-??-??T??:??:??.???Z"
"""A time in RFC 3339, in UTC, to the millisecond, as a pattern of GLOB."""
NO_TIME = "raise(ABORT, 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one')"
NEXT = "(SELECT coalesce(max(id), 0) + 1 FROM enrollment_events)"
FULL = "raise(ABORT, 'course_full: no seat is free, and no place on the waitlist')"
IN_BETWEEN = """(SELECT id > (SELECT coalesce(event_id, 0) FROM courses WHERE id = course_id)
              FROM enrollment_events ORDER BY id DESC LIMIT 1)"""
EVENT = "INSERT INTO enrollment_events (type, at, student_id, course_id)"
BY_EVENT = "raise(ABORT, 'a trigger on enrollment_events cannot enroll: let it be on enrollments')"
NOT_OPEN = "raise(ABORT, 'enrollment_not_open: the course is not open for enrolling yet')"
CLOSED = "raise(ABORT, 'enrollment_closed: the course is closed for enrolling')"

TABLES = (
    """
    CREATE TABLE terms (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        external_id VARCHAR(200),
        name VARCHAR(200) NOT NULL,
        starts_on VARCHAR(10),
        ends_on VARCHAR(10)
    )""",
    "CREATE UNIQUE INDEX term_external_id ON terms (external_id) WHERE external_id IS NOT NULL",
    """
    CREATE TABLE event_notes (
        event_id INTEGER NOT NULL PRIMARY KEY,
        actor VARCHAR(200),
        reason VARCHAR(200),
        override INTEGER NOT NULL DEFAULT 0
    )""",
)
COLUMNS = {
    "students": {
        "external_id": "VARCHAR(200)",
        "given_name": "VARCHAR(200)",
        "family_name": "VARCHAR(200)",
        "email": "VARCHAR(254)",
    },
    "courses": {
        "external_id": "VARCHAR(200)",
        "term_id": "INTEGER REFERENCES terms (id) ON DELETE RESTRICT",
        "opens_at": "VARCHAR(24)",
        "closes_at": "VARCHAR(24)",
    },
}
# An index has only the rows that have the value, so it is empty where a school does not use it.
INDEXES = {
    "student_external_id": "UNIQUE INDEX student_external_id ON students (external_id) WHERE external_id IS NOT NULL",
    "course_external_id": "UNIQUE INDEX course_external_id ON courses (external_id) WHERE external_id IS NOT NULL",
    "course_term_id_id": "INDEX course_term_id_id ON courses (term_id, id) WHERE term_id IS NOT NULL",
    "course_term_id_name_id": "INDEX course_term_id_name_id ON courses (term_id, name, id) WHERE term_id IS NOT NULL",
}


def _text(table: str, column: str) -> str:
    return f"""
    WHEN typeof(NEW.{column}) NOT IN ('text', 'null') OR NEW.{column} = ''
    THEN raise(ABORT, '{table}.{column} is a text with a character, or null')"""


def _when(table: str, column: str, form: str, same: str, words: str) -> str:
    return f"""
    WHEN NEW.{column} IS NOT NULL AND (typeof(NEW.{column}) <> 'text' OR NEW.{column} NOT GLOB '{form}'
      OR {same} OR date(NEW.{column}, '+0 days') IS NOT substr(NEW.{column}, 1, 10))
    THEN raise(ABORT, '{table}.{column} {words}, or null')"""


def _date(column: str) -> str:
    return _when("terms", column, "????-??-??", "FALSE", "is a date such as 2026-09-01")


def _moment(column: str) -> str:
    return _when(
        "courses", column, FORM, f"julianday(NEW.{column}) IS NULL", "is a time such as 2026-09-01T08:30:00.000Z"
    )


OLD_COURSE_COLUMNS = """
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'courses.name is a text')
    WHEN typeof(NEW.level) <> 'text' THEN raise(ABORT, 'courses.level is a text')
    WHEN typeof(NEW.capacity) <> 'integer' AND NEW.capacity IS NOT NULL OR NEW.capacity < 0
    THEN raise(ABORT, 'courses.capacity is a whole number from 0, or null')
    WHEN typeof(NEW.waitlist_capacity) <> 'integer' AND NEW.waitlist_capacity IS NOT NULL
      OR NEW.waitlist_capacity < 0
    THEN raise(ABORT, 'courses.waitlist_capacity is a whole number from 0, or null')
    WHEN NEW.capacity < NEW.enrolled
    THEN raise(ABORT, 'capacity_below_enrolled: more students are enrolled than this capacity')
    WHEN NEW.waitlist_capacity < NEW.waitlisted
    THEN raise(ABORT, 'waitlist_capacity_below_waitlisted: more students wait than this waitlist_capacity')"""
COURSE_COLUMNS = (
    OLD_COURSE_COLUMNS
    + _text("courses", "external_id")
    + _moment("opens_at")
    + _moment("closes_at")
    + """
    WHEN NEW.closes_at <= NEW.opens_at THEN raise(ABORT, 'courses.closes_at is after opens_at')
    WHEN NEW.term_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM terms WHERE id = NEW.term_id)
    THEN raise(ABORT, 'term_not_found: no term has this id')"""
)
STUDENT_COLUMNS = """
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'students.name is a text')""" + "".join(
    _text("students", column) for column in COLUMNS["students"]
)
TERM_COLUMNS = (
    """
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'terms.name is a text')"""
    + _text("terms", "external_id")
    + _date("starts_on")
    + _date("ends_on")
    + """
    WHEN NEW.ends_on < NEW.starts_on THEN raise(ABORT, 'terms.ends_on is not before starts_on')"""
)


def _taken(table: str) -> str:
    """Give a trigger that keeps INSERT OR REPLACE from taking a row away that another row's external id belongs to.

    SQLite runs no trigger for the row that it takes away, and checks its references only where a program asks for that.
    """
    return f"""
        BEFORE INSERT ON {table} WHEN NEW.external_id IS NOT NULL
          AND EXISTS (SELECT 1 FROM {table} WHERE external_id = NEW.external_id AND id IS NOT NEW.id)
        BEGIN SELECT raise(ABORT, 'external_id_taken: another row of {table} has this external_id'); END"""


def _kept(table: str, noun: str) -> str:
    """Give the conditions under which an UPDATE is refused, before those of the columns."""
    return f"""WHEN NEW.id IS NOT OLD.id THEN raise(ABORT, 'the id of a {noun} never changes')
                {_taken_by_another(table)}"""


def _taken_by_another(table: str) -> str:
    return f"""WHEN NEW.external_id IS NOT OLD.external_id
                  AND EXISTS (SELECT 1 FROM {table} WHERE external_id = NEW.external_id)
                THEN raise(ABORT, 'external_id_taken: another row of {table} has this external_id')"""


# In the UPDATE of a course's counts: whether the window of enrolling is shut. No bound is the usual case.
WINDOW = f"""CASE
                    WHEN opens_at IS NOT NULL AND opens_at > {NOW} THEN {NOT_OPEN}
                    WHEN closes_at IS NOT NULL AND closes_at <= {NOW} THEN {CLOSED}
                    ELSE last_insert_rowid() END"""
# Where no seat is free and no place in line: a window that is shut is told first.
REFUSED = f"CASE WHEN opens_at > {NOW} THEN {NOT_OPEN} WHEN closes_at <= {NOW} THEN {CLOSED} ELSE {FULL} END"
UNLESS_OVERRIDE = "WHEN NEW.event_id IS NOT 0 OR NEW.waiting IS NOT NULL "

TRIGGERS = {
    "enrollment_refused": f"""
        BEFORE INSERT ON enrollments
        WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
          OR NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
          OR coalesce(NEW.event_id, 0) = 0 AND {IN_BETWEEN}
        BEGIN
            SELECT CASE
                WHEN NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
                THEN raise(ABORT, 'student_not_found: no student has this id')
                WHEN (SELECT waiting IS NULL FROM enrollments
                      WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
                THEN raise(ABORT, 'already_enrolled: the student has a seat in the course')
                WHEN EXISTS (SELECT 1 FROM enrollments
                             WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
                THEN raise(ABORT, 'already_waitlisted: the student waits for a seat in the course')
                ELSE {BY_EVENT} END;
        END""",
    "enrollment_asked": f"""
        BEFORE INSERT ON enrollments
        WHEN CASE WHEN NEW.waiting IS NOT NULL
                  THEN NEW.waiting <> {NEXT}
                    OR (SELECT waitlisted >= waitlist_capacity FROM courses WHERE id = NEW.course_id)
                  WHEN NEW.event_id IS NOT NULL THEN NEW.enrolled_at IS NULL
                  ELSE coalesce(NEW.enrolled_at NOT GLOB '{FORM}', 1)
                    OR (SELECT enrolled >= capacity FROM courses WHERE id = NEW.course_id) END
        BEGIN
            SELECT {BY_EVENT} WHERE {IN_BETWEEN};
            INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting, event_id) VALUES (
                NEW.student_id, NEW.course_id,
                CASE WHEN (SELECT enrolled >= capacity FROM courses WHERE id = NEW.course_id) THEN NULL
                     WHEN coalesce(NEW.enrolled_at, '') = '' THEN {NOW}
                     WHEN NEW.enrolled_at GLOB '????-??-??*' AND julianday(NEW.enrolled_at) IS NOT NULL
                      AND date(substr(NEW.enrolled_at, 1, 10), '+0 days') = substr(NEW.enrolled_at, 1, 10)
                     THEN strftime('%Y-%m-%dT%H:%M:%fZ', NEW.enrolled_at)
                     ELSE {NO_TIME} END,
                (SELECT CASE WHEN enrolled < capacity OR capacity IS NULL THEN NULL
                             WHEN waitlisted >= waitlist_capacity AND EXISTS (
                                 SELECT 1 FROM students WHERE id = NEW.student_id
                             ) AND NOT EXISTS (
                                 SELECT 1 FROM enrollments
                                 WHERE student_id = NEW.student_id AND course_id = NEW.course_id
                             ) THEN {REFUSED} ELSE {NEXT} END
                 FROM courses WHERE id = NEW.course_id),
                {NEXT});
            SELECT raise(IGNORE);
        END""",
    "enrollment_added": f"""
        AFTER INSERT ON enrollments {UNLESS_OVERRIDE}BEGIN
            INSERT INTO enrollment_events (filed, type, at, student_id, course_id) VALUES (
                NEW.event_id IS NOT {NEXT},
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, {NOW}), NEW.student_id, NEW.course_id);
            UPDATE courses
            SET enrolled = CASE WHEN NEW.waiting IS NOT NULL THEN enrolled
                                WHEN enrolled >= capacity THEN {FULL} ELSE enrolled + 1 END,
                waitlisted = CASE WHEN NEW.waiting IS NULL THEN waitlisted
                                  WHEN waitlisted >= waitlist_capacity OR enrolled < capacity OR capacity IS NULL
                                  THEN {FULL} ELSE waitlisted + 1 END,
                event_id = {WINDOW}
            WHERE id = NEW.course_id;
            SELECT raise(ABORT, 'course_not_found: no course has this id') WHERE changes() = 0;
        END""",
    "enrollment_overridden": f"""
        AFTER INSERT ON enrollments WHEN NEW.event_id = 0 AND NEW.waiting IS NULL BEGIN
            {EVENT} VALUES ('enrolled', NEW.enrolled_at, NEW.student_id, NEW.course_id);
            INSERT INTO event_notes (event_id, override) VALUES (last_insert_rowid(), 1);
            UPDATE courses
            SET capacity = capacity + (enrolled >= capacity), enrolled = enrolled + 1, event_id = last_insert_rowid()
            WHERE id = NEW.course_id;
            SELECT raise(ABORT, 'course_not_found: no course has this id') WHERE changes() = 0;
        END""",
    "note_added": """
        BEFORE INSERT ON event_notes
        WHEN EXISTS (SELECT 1 FROM event_notes WHERE event_id = NEW.event_id)
          OR NOT EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.event_id)
        BEGIN
            SELECT raise(ABORT, 'the note of an event is never changed')
            WHERE EXISTS (SELECT 1 FROM event_notes WHERE event_id = NEW.event_id);
            SELECT raise(ABORT, 'no event has this id');
        END""",
    # The override is noted by a trigger, and who asked for it and why by the program, in the same transaction.
    "note_changed": """
        BEFORE UPDATE ON event_notes
        WHEN NEW.event_id IS NOT OLD.event_id OR NEW.override IS NOT OLD.override
          OR (NEW.actor IS NOT OLD.actor OR NEW.reason IS NOT NULL)
             AND (OLD.actor IS NOT NULL OR OLD.reason IS NOT NULL OR EXISTS (
                 SELECT 1 FROM enrollment_events AS told
                 JOIN enrollment_events AS later ON later.course_id = told.course_id AND later.id > told.id
                 WHERE told.id = NEW.event_id AND later.student_id = told.student_id))
        BEGIN SELECT raise(ABORT, 'the note of an event is never changed, but its reason may be made null'); END""",
    "note_deleted": "BEFORE DELETE ON event_notes BEGIN SELECT raise(ABORT, 'events are never deleted'); END",
    "student_external_id_taken": _taken("students"),
    "student_added": f"""
        AFTER INSERT ON students BEGIN SELECT CASE {STUDENT_COLUMNS} END; END""",
    "student_changed": f"""
        BEFORE UPDATE ON students BEGIN
            SELECT CASE {_kept("students", "student")} {STUDENT_COLUMNS} END;
        END""",
    "course_external_id_taken": _taken("courses"),
    "course_added": f"""
        AFTER INSERT ON courses BEGIN
            SELECT CASE {COURSE_COLUMNS}
                WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (0, 0, NULL)
                  OR EXISTS (SELECT 1 FROM enrollments WHERE course_id = NEW.id)
                THEN raise(ABORT, 'the counts of a course belong to its enrollments') END;
        END""",
    "course_changed": f"""
        BEFORE UPDATE OF name, level, capacity, waitlist_capacity, {", ".join(COLUMNS["courses"])} ON courses BEGIN
            SELECT CASE {_taken_by_another("courses")}
                {COURSE_COLUMNS} END;
        END""",
    # The column id has another name too: an UPDATE of rowid is none of id.
    "course_moved": """
        BEFORE UPDATE ON courses WHEN NEW.id IS NOT OLD.id
        BEGIN SELECT raise(ABORT, 'the id of a course never changes'); END""",
    "term_external_id_taken": _taken("terms"),
    "term_added": f"""
        AFTER INSERT ON terms BEGIN SELECT CASE {TERM_COLUMNS} END; END""",
    "term_changed": f"""
        BEFORE UPDATE ON terms BEGIN SELECT CASE {_kept("terms", "term")} {TERM_COLUMNS} END; END""",
    "term_deleted": """
        BEFORE DELETE ON terms WHEN EXISTS (SELECT 1 FROM courses WHERE term_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'term_has_courses: the term has courses'); END""",
}

# The triggers as migration 005 left them.
BEFORE = {
    "enrollment_refused": TRIGGERS["enrollment_refused"].replace(
        "coalesce(NEW.event_id, 0) = 0", "NEW.event_id IS NULL"
    ),
    "enrollment_asked": TRIGGERS["enrollment_asked"].replace(REFUSED, FULL),
    "enrollment_added": TRIGGERS["enrollment_added"]
    .replace(WINDOW, "last_insert_rowid()")
    .replace(UNLESS_OVERRIDE, ""),
    "student_added": """
        AFTER INSERT ON students WHEN typeof(NEW.name) <> 'text'
        BEGIN SELECT raise(ABORT, 'students.name is a text'); END""",
    "student_changed": """
        BEFORE UPDATE OF id, name ON students WHEN NEW.id IS NOT OLD.id OR typeof(NEW.name) <> 'text' BEGIN
            SELECT raise(ABORT, 'students.name is a text') WHERE NEW.id IS OLD.id;
            SELECT raise(ABORT, 'the id of a student never changes');
        END""",
    "course_added": TRIGGERS["course_added"].replace(COURSE_COLUMNS, OLD_COURSE_COLUMNS),
    "course_changed": f"""
        BEFORE UPDATE OF id, name, level, capacity, waitlist_capacity ON courses BEGIN
            SELECT CASE WHEN NEW.id IS NOT OLD.id THEN raise(ABORT, 'the id of a course never changes')
                {OLD_COURSE_COLUMNS} END;
        END""",
}

# The search. A row of student_words is one beginning that finds a student: the first three letters of a word, a longer
# word whole and, behind ^, the first letter and the first two of the first word of the name. Each row has the name and
# all words of the student, so a page of a search is one range of the primary key, in the order of the page.
#
# A text is split at white space. A word goes on behind punctuation, and another word begins there: O'Brien has the
# words obrien and brien. The table letters has what each letter is without case and accents, a space for white space
# and a hyphen for punctuation. Only the first 200 characters of a text are looked at: the service stores no longer
# ones.
WORDS = {
    "students": ("student", "substr(coalesce(email, ''), 1, instr(coalesce(email, '') || '@', '@') - 1)"),
    "courses": ("course", "''"),
}
"""The noun of each table that is searched, and its third text beside the name and the external id."""

LETTERS = """
    CREATE TABLE letters (
        letter TEXT NOT NULL PRIMARY KEY,
        plain TEXT NOT NULL
    ) WITHOUT ROWID"""


def _words(noun: str) -> tuple[str, str]:
    """Give the table of the words, and the table of the keys in it of a row that a statement is about to change.

    SQLite runs no trigger for a row that INSERT OR REPLACE takes away, and once a row is gone nothing else tells which
    words it had.
    """
    return (
        f"""
    CREATE TABLE {noun}_words (
        beginning TEXT NOT NULL,
        name VARCHAR(200) NOT NULL COLLATE NOCASE,
        {noun}_id INTEGER NOT NULL,
        words TEXT NOT NULL,
        PRIMARY KEY (beginning, name, {noun}_id)
    ) WITHOUT ROWID""",
        f"""
    CREATE TABLE {noun}_words_before (
        {noun}_id INTEGER NOT NULL,
        beginning TEXT NOT NULL,
        name VARCHAR(200) NOT NULL COLLATE NOCASE,
        PRIMARY KEY ({noun}_id, beginning, name)
    ) WITHOUT ROWID""",
    )


def _words_of(table: str, noun: str, third: str) -> str:
    """Give the view of the rows that the table of the words is to have; a row may be there more than once.

    A tab stands behind the name, and as the word ^ it tells later which words are the name's. `piece` begins at each
    place where a word does.
    """
    return f"""
        CREATE VIEW words_of_{table} AS
        SELECT CASE WHEN size < 3 THEN '^' ELSE '' END || substr(word.value, 1, size) AS beginning,
            searched.name AS name, searched.id AS {noun}_id, trim(replace(word.json, '"', ''), '[]') AS words
        FROM (SELECT texts.id AS id, texts.name AS name, (
            WITH RECURSIVE
            whole (text) AS (SELECT texts.text),
            folded (text) AS (
                SELECT replace(CASE
                    WHEN text NOT GLOB '*[^a-zA-Z0-9 ._''' || char(9) || '-]*'
                    THEN lower(replace(replace(replace(text, '.', '-'), '_', '-'), '''', '-'))
                    ELSE (
                        WITH RECURSIVE each (letter, rest) AS (
                            SELECT substr(text, 1, 1), substr(text, 2)
                            UNION ALL
                            SELECT substr(rest, 1, 1), substr(rest, 2) FROM each WHERE rest <> '')
                        SELECT group_concat(
                            coalesce((
                                SELECT plain FROM letters
                                WHERE letters.letter = each.letter AND letters.letter <> char(9)), letter), '')
                        FROM each)
                    END, char(9), ' ^ ')
                FROM whole),
            piece (word, rest) AS (
                SELECT '', text FROM folded
                UNION ALL
                SELECT replace(substr(rest, 1, instr(rest || ' ', ' ') - 1), '-', ''),
                    substr(rest, min(instr(rest || ' ', ' '), instr(rest || '-', '-')) + 1)
                FROM piece WHERE rest <> '')
            SELECT group_concat(DISTINCT word) FROM piece WHERE word <> '') AS words
            FROM (
                SELECT id AS id, name AS name, substr(replace(name, char(9), ' '), 1, 200) || char(9)
                    || substr(coalesce(external_id, ''), 1, 200) || ' ' || substr({third}, 1, 200) AS text
                FROM {table}) AS texts) AS searched
        CROSS JOIN json_each('["","' || replace(searched.words, ',', '","') || '"]') AS word
        CROSS JOIN (SELECT 1 AS size UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 10000) AS beginnings
        WHERE word.value NOT IN ('', '^')
          AND CASE WHEN size < 3 THEN word.key = 1 WHEN size = 3 THEN TRUE ELSE length(word.value) > 3 END"""


def _word_triggers(table: str, noun: str, third: str) -> dict[str, str]:
    """Give the triggers that keep the words: before a row changes its keys are noted, after it they are taken away."""
    texts = "name, external_id, email" if "email" in third else "name, external_id"
    changed = " OR ".join(f"NEW.{text} IS NOT OLD.{text}" for text in texts.split(", "))

    def note(row: str) -> str:
        return f"""BEGIN
            INSERT OR IGNORE INTO {noun}_words_before ({noun}_id, beginning, name)
            SELECT {noun}_id, beginning, name FROM words_of_{table} WHERE {noun}_id = {row}.id
            ON CONFLICT DO NOTHING;
        END"""

    def forget(row: str) -> str:
        return f"""BEGIN
            DELETE FROM {noun}_words_before WHERE {noun}_id = {row}.id;"""

    learn = f"""{forget("NEW")}
            INSERT INTO {noun}_words (beginning, name, {noun}_id, words)
            SELECT beginning, name, {noun}_id, words FROM words_of_{table} WHERE {noun}_id = NEW.id
            ON CONFLICT DO NOTHING;
        END"""
    return {
        f"{noun}_words_replaced": f"""
        BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) {note("NEW")}""",
        f"{noun}_words_added": f"""
        AFTER INSERT ON {table} {learn}""",
        f"{noun}_words_changing": f"""
        BEFORE UPDATE OF {texts} ON {table} WHEN {changed} {note("OLD")}""",
        f"{noun}_words_changed": f"""
        AFTER UPDATE OF {texts} ON {table} WHEN {changed} {learn}""",
        f"{noun}_words_deleting": f"""
        BEFORE DELETE ON {table} {note("OLD")}""",
        # By its own statement for each key: SQLite would find the rows of many keys by their beginning alone.
        f"{noun}_words_forgotten": f"""
        AFTER DELETE ON {noun}_words_before BEGIN
            DELETE FROM {noun}_words
            WHERE beginning = OLD.beginning AND name = OLD.name AND {noun}_id = OLD.{noun}_id;
        END""",
        f"{noun}_words_deleted": f"""
        AFTER DELETE ON {table} {forget("OLD")}
        END""",
    }


def _fill_words(database: pw.Database) -> None:
    """Fill the tables with what the views say; no external id and no email is there yet.

    In Python and with one sort at the end it takes a quarter of the time that the views take: 25 s for a million names.
    A name that is no text of UTF-8 is left to the view.
    """
    connection = database.connection()
    connection.executemany("INSERT INTO letters (letter, plain) VALUES (?, ?)", letters().items())
    plain = {ord(letter): found for letter, found in letters().items()}
    connection.execute("CREATE TEMP TABLE unsorted (beginning TEXT, name TEXT COLLATE NOCASE, id INTEGER, words TEXT)")
    for table, (noun, _) in WORDS.items():
        unread: list[tuple[int]] = []
        connection.executemany("INSERT INTO unsorted VALUES (?, ?, ?, ?)", _rows(connection, table, plain, unread))
        key = f"beginning, name, {noun}_id"
        connection.execute(f"INSERT INTO {noun}_words SELECT * FROM unsorted ORDER BY beginning, name, id")
        connection.executemany(
            f"INSERT INTO {noun}_words ({key}, words) SELECT {key}, words FROM words_of_{table} WHERE {noun}_id = ?"
            " ON CONFLICT DO NOTHING",
            unread,
        )
        connection.execute("DELETE FROM unsorted")
    connection.execute("DROP TABLE unsorted")


def _rows(
    connection: Any, table: str, plain: Mapping[int, str], unread: list[tuple[int]]
) -> Iterator[tuple[str, str, int, str]]:
    for id, stored in connection.execute(f"SELECT id, CAST(name AS BLOB) FROM {table}"):
        try:
            name = stored.decode()
        except UnicodeDecodeError:
            unread.append((id,))
            continue
        words = dict.fromkeys(_pieces(name.partition("\0")[0][:200].translate(plain)))
        words.pop("", None)
        all_words = ",".join(["", *words, "^"])
        beginnings = {*words, *[word[:3] for word in words]}
        for word in [*words][:1]:
            beginnings |= {f"^{word[:1]}", f"^{word[:2]}"}
        for beginning in beginnings:
            yield beginning, name, id, all_words


def _pieces(text: str) -> list[str]:
    pieces = text.split(" ")
    if "-" in text:
        pieces = ["".join(parts[at:]) for parts in [piece.split("-") for piece in pieces] for at in range(len(parts))]
    return pieces


def migrate(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Add the tables and columns, and set the triggers that know them; no row is changed."""
    _drop_triggers(migrator, BEFORE)
    for sql in TABLES:
        migrator.sql(sql)
    for table, columns in COLUMNS.items():
        for column, declared in columns.items():
            migrator.sql(f"ALTER TABLE {table} ADD COLUMN {column} {declared}")
    for sql in INDEXES.values():
        migrator.sql(f"CREATE {sql}")
    migrator.sql(LETTERS)
    for table, (noun, third) in WORDS.items():
        for sql in (*_words(noun), _words_of(table, noun, third)):
            migrator.sql(sql)
    migrator.run(_fill_words, database)
    _set_triggers(migrator, TRIGGERS)
    for table, (noun, third) in WORDS.items():
        _set_triggers(migrator, _word_triggers(table, noun, third))


def rollback(migrator: Migrator, database: pw.Database, *, fake: bool = False) -> None:
    """Take away what only this migration brought: external ids, names in parts, terms, windows, notes, and words."""
    _drop_triggers(migrator, TRIGGERS)
    for table, (noun, third) in WORDS.items():
        _drop_triggers(migrator, _word_triggers(table, noun, third))
        migrator.sql(f"DROP VIEW IF EXISTS words_of_{table}")
        migrator.sql(f"DROP TABLE {noun}_words")
        migrator.sql(f"DROP TABLE {noun}_words_before")
    migrator.sql("DROP TABLE letters")
    for index in INDEXES:
        migrator.sql(f"DROP INDEX IF EXISTS {index}")
    for table, columns in COLUMNS.items():
        for column in columns:
            migrator.sql(f"ALTER TABLE {table} DROP COLUMN {column}")
    migrator.sql("DROP TABLE event_notes")
    migrator.sql("DROP TABLE terms")
    _set_triggers(migrator, BEFORE)


def _drop_triggers(migrator: Migrator, triggers: Mapping[str, str]) -> None:
    for name in triggers:
        migrator.sql(f"DROP TRIGGER IF EXISTS {name}")


def _set_triggers(migrator: Migrator, triggers: Mapping[str, str]) -> None:
    for name, body in triggers.items():
        migrator.sql(f"CREATE TRIGGER {name} {body}")
