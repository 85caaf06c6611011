"""Repair a school: make its schema as the migrations make it, and its rows as the rules want them.

All triggers rest meanwhile, also those of another program, so that no trigger acts on a repair that is half done. The
feed is the table enrollment_events, which clients follow: an event there is never changed, and events that are missing
are added at the end. If something cannot be repaired, an error names it, and nothing is changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import peewee as pw

from service.storage import fetch
from service.storage.checks import Names, Result, Tick
from service.storage.letters import letters
from service.storage.migrating import TABLES
from service.storage.postgres import drift
from service.storage.postgres.breaches import (
    AGREES,
    COUNTED,
    LATEST,
    MISTOLD,
    NO_EVENT,
    PAIR,
    PLACES,
    SIDES,
    WORDS_OF_COURSE,
    WORDS_OF_STUDENT,
)
from service.storage.postgres.check import run, watched
from service.storage.postgres.drift import Object
from service.storage.repairing import refusal, repaired

# Functions that are made again keep this search path, as in migration 008.
PATH = "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', TRUE)"
TRIGGERS = """
    SELECT relname, quote_ident(tgname), tgenabled::text FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relname = ANY(?::text[]) AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
      AND NOT tgisinternal AND tgenabled <> 'D'"""
ENABLE = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}


def _add_events(what: str, rows: str, order: str) -> str:
    """Give the statement that adds an event for each row of (at, student_id, course_id), in an order."""
    return f"""
        INSERT INTO enrollment_events (id, type, at, student_id, course_id)
        SELECT (SELECT coalesce(max(id), 0) FROM enrollment_events) + row_number() OVER (ORDER BY {order}),
               {what}, at, student_id, course_id
        FROM ({rows}) AS told"""


# `untold` gets each pair of student and course whose enrollment is not as the feed says. If the feed says that the
# student waits, and the student has a seat, an event "promoted" is missing. For all other pairs the repair adds events
# that end the state that the feed tells, and begin the state that the table enrollments has.
FIND_UNTOLD = f"""
    CREATE TEMP TABLE untold ON COMMIT DROP AS {SIDES}
    SELECT student_id, course_id, promoted, coalesce(told NOT LIKE 'dropped %', FALSE) AND NOT promoted AS leaves
    FROM (
        SELECT *, coalesce(stands LIKE 'seat %' AND told LIKE 'waitlisted %' AND NOT mistold, FALSE) AS promoted
        FROM (
            SELECT *, (student_id, course_id) IN (
                SELECT student_id, course_id FROM ({MISTOLD}) AS steps WHERE NOT over) AS mistold
            FROM sides) AS sides
        WHERE mistold OR NOT {AGREES}) AS wrong"""
NOW = "enrollment_now() AS at"
TELL = (
    """UPDATE enrollments
    SET enrolled_at = CASE WHEN waiting IS NOT NULL THEN NULL
                           WHEN enrollment_is_time(enrolled_at) THEN enrolled_at
                           ELSE enrollment_now() END
    WHERE (student_id, course_id) IN (SELECT student_id, course_id FROM untold)""",
    _add_events("'dropped'", f"SELECT {NOW}, student_id, course_id FROM untold WHERE leaves", "course_id, student_id"),
    _add_events(
        "CASE WHEN promoted THEN 'promoted' ELSE 'enrolled' END",
        """SELECT enrolled_at AS at, student_id, course_id, promoted
        FROM untold JOIN enrollments USING (student_id, course_id) WHERE waiting IS NULL""",
        "at, course_id, student_id",
    ),
    _add_events(
        "'waitlisted'",
        f"""SELECT {NOW}, student_id, course_id, waiting
        FROM untold JOIN enrollments USING (student_id, course_id) WHERE waiting IS NOT NULL""",
        "course_id, waiting, student_id",
    ),
)
LINE_UP = f"""
    UPDATE enrollments SET waiting = told.place
    FROM ({PLACES}) AS told
    WHERE told.student_id = enrollments.student_id AND told.course_id = enrollments.course_id
      AND enrollments.waiting <> told.place"""
FIND_NEXT = f"""
    CREATE TEMP TABLE next ON COMMIT DROP AS {COUNTED}
    SELECT student_id, course_id, position, {NOW} FROM (
        SELECT enrollments.student_id, enrollments.course_id,
               coalesce(courses.capacity - counted.seats, counted.places) AS free,
               row_number() OVER (PARTITION BY enrollments.course_id ORDER BY enrollments.waiting) AS position
        FROM enrollments
        JOIN courses ON courses.id = enrollments.course_id
        JOIN counted ON counted.course_id = enrollments.course_id
        WHERE enrollments.waiting IS NOT NULL) AS line
    WHERE position <= free"""
PROMOTE = (
    _add_events("'promoted'", "SELECT * FROM next", "course_id, position"),
    """UPDATE enrollments SET waiting = NULL, enrolled_at = next.at
    FROM next
    WHERE next.student_id = enrollments.student_id AND next.course_id = enrollments.course_id""",
)
COUNT = f"""
    UPDATE courses SET enrolled = counted.seats, waitlisted = counted.places
    FROM ({COUNTED} SELECT courses.id, coalesce(counted.seats, 0) AS seats, coalesce(counted.places, 0) AS places
          FROM courses LEFT JOIN counted ON counted.course_id = courses.id) AS counted
    WHERE counted.id = courses.id
      AND (courses.enrolled, courses.waitlisted) IS DISTINCT FROM (counted.seats, counted.places)"""
# courses.event_id is the event for which the counts last changed. A trigger refuses a change of the counts that does
# not name a newer event.
MARK = """
    UPDATE courses SET event_id = latest.id
    FROM (SELECT course_id, max(id) AS id FROM enrollment_events GROUP BY course_id) AS latest
    WHERE latest.course_id = courses.id AND courses.event_id IS DISTINCT FROM latest.id"""
FORGET = f"DELETE FROM event_notes WHERE {NO_EVENT}"
WORDS = (
    "DELETE FROM letters",
    f"UPDATE students SET words = {WORDS_OF_STUDENT} WHERE words IS DISTINCT FROM {WORDS_OF_STUDENT}",
    f"UPDATE courses SET words = {WORDS_OF_COURSE} WHERE words IS DISTINCT FROM {WORDS_OF_COURSE}",
)
FILL_LETTERS = "INSERT INTO letters SELECT * FROM unnest(?::text[], ?::text[])"


def mend(db: pw.Database, tick: Tick) -> list[str]:
    """Repair a school within the caller's transaction, and give a sentence for each thing that was done.

    `tick` is called now and then with what is at work. Raises SetupError, which names what a person has to mend first.
    """
    return repaired(lambda: run(db, tick), lambda broken: _mend(db, tick, broken), "PostgreSQL")


def _mend(db: pw.Database, tick: Tick, broken: Mapping[str, Result]) -> list[str]:
    differences = drift.compare(db)
    if reasons := [f"{each.text}. {each.mend}" for each in differences if each.mend]:
        raise refusal(reasons)
    wrong = [each.ours for each in differences]
    fetch(db, PATH)
    for each in wrong:
        if each.kind == "function":
            db.execute_sql(each.sql)
    with _triggers_at_rest(db, [each for each in wrong if each.kind == "trigger"]):
        with watched("rows", tick):
            done = _mend_rows(db, broken)
        with watched("schema", tick):
            for each in wrong:
                _put_back(db, each)
    return [f"{each.text}: put back." for each in differences] + done


@contextmanager
def _triggers_at_rest(db: pw.Database, wrong: Sequence[Object]) -> Iterator[None]:
    there = fetch(db, TRIGGERS, [*TABLES])
    for table, name, _ in there:
        db.execute_sql(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
    yield
    for table, name, state in there:
        db.execute_sql(f"ALTER TABLE {table} {ENABLE[state]} TRIGGER {name}")
    for each in wrong:
        db.execute_sql(f"DROP TRIGGER IF EXISTS {each.name} ON {each.table}")
        db.execute_sql(each.sql)


def _put_back(db: pw.Database, ours: Object) -> None:
    if ours.kind == "constraint":
        db.execute_sql(f"ALTER TABLE {ours.table} DROP CONSTRAINT IF EXISTS {ours.name}")
        db.execute_sql(f"ALTER TABLE {ours.table} ADD CONSTRAINT {ours.name} {ours.sql}")
    elif ours.kind == "index":
        db.execute_sql(f"DROP INDEX IF EXISTS {ours.name}")
        db.execute_sql(ours.sql)


def _mend_rows(db: pw.Database, broken: Mapping[str, Result]) -> list[str]:
    ((last,),) = fetch(db, "SELECT coalesce(max(id), 0) FROM enrollment_events")
    for statement in (FIND_UNTOLD, *TELL):
        db.execute_sql(statement)
    told = _names(db, f"SELECT type || ' ' || {PAIR} FROM enrollment_events WHERE id > {last} ORDER BY id")
    lined_up = db.execute_sql(LINE_UP).rowcount
    db.execute_sql(FIND_NEXT)
    promoted = _names(db, f"SELECT {PAIR} FROM next ORDER BY course_id, position")
    for statement in (*PROMOTE, COUNT, MARK):
        db.execute_sql(statement)
    forgotten = db.execute_sql(FORGET).rowcount
    given = [(table, highest) for table, highest, given in fetch(db, LATEST) if highest is not None and highest > given]
    for table, highest in given:
        fetch(db, f"SELECT setval('{table}_id_seq', ?)", highest)
    if misspelt := {"letters", "words"} & broken.keys():
        clear, *spell = WORDS
        db.execute_sql(clear)
        db.execute_sql(FILL_LETTERS, ([*letters()], [*letters().values()]))
        for statement in spell:
            db.execute_sql(statement)
    said = {
        f"the feed lacked events: told {told}.": told,
        f"places in line were not as the feed tells: put right {lined_up:,}.": lined_up,
        f"a seat was free while others waited: promoted {promoted}.": promoted,
        f"notes were of no event: deleted {forgotten:,}.": forgotten,
        **{f"the next id in {table} may have been given before: it goes on after that.": True for table, _ in given},
        "the words of the search were not those of the names: put in anew.": misspelt,
    }
    if "counts" in broken:
        said[f"counts were not those of the enrollments: put right {broken['counts'].broken}."] = True
    return [sentence for sentence, done in said.items() if done]


def _names(db: pw.Database, sql: str) -> Names:
    names = Names()
    for (name,) in fetch(db, sql):
        names.add(name)
    return names
