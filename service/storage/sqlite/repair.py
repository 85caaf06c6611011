"""Repair a database: make its schema as the migrations make it, and its rows as the rules want them.

All triggers are dropped meanwhile and created again at the end, also those of another program, so that no trigger acts
on a repair that is half done. The feed is the table enrollment_events, which clients follow: an event there is never
changed, and events that are missing are added at the end. If something cannot be repaired, an error names it, and
nothing is changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import peewee as pw

from service.storage import fetch
from service.storage.checks import Names, Result, Tick
from service.storage.repairing import refusal, repaired
from service.storage.sqlite import drift
from service.storage.sqlite.breaches import (
    AGREES,
    COUNTED,
    FORM,
    LATEST,
    MISTOLD,
    NO_EVENT,
    PAIR,
    PLACES,
    SIDES,
    UNFILED,
    in_form,
)
from service.storage.sqlite.check import run, watched
from service.storage.sqlite.drift import Object, quoted
from service.storage.sqlite.words import FILLED, fill

NOW = f"strftime('{FORM}', 'now')"
ADD_EVENTS = "INSERT INTO enrollment_events (type, at, student_id, course_id)"

# `untold` gets each pair of student and course whose enrollment is not as the feed says. If the feed says that the
# student waits, and the student has a seat, an event "promoted" is missing. For all other pairs the repair adds events
# that end the state that the feed tells, and begin the state that the table enrollments has.
FIND_UNTOLD = f"""
    CREATE TEMP TABLE untold AS {SIDES}
    SELECT student_id, course_id, promoted, coalesce(told NOT LIKE 'dropped %', FALSE) AND NOT promoted AS leaves
    FROM (
        SELECT *, coalesce(stands LIKE 'seat %' AND told LIKE 'waitlisted %' AND NOT mistold, FALSE) AS promoted
        FROM (
            SELECT *, (student_id, course_id) IN (
                SELECT student_id, course_id FROM ({MISTOLD}) WHERE NOT over) AS mistold
            FROM sides)
        WHERE mistold OR NOT {AGREES})"""
TELL = (
    f"""UPDATE enrollments
    SET enrolled_at = CASE
        WHEN waiting IS NOT NULL THEN NULL
        WHEN {in_form("enrolled_at")} THEN enrolled_at
        WHEN enrolled_at GLOB '[0-9][0-9][0-9][0-9]-*'
        THEN coalesce(strftime('{FORM}', enrolled_at, '+0 days'), {NOW})
        ELSE {NOW} END
    WHERE (student_id, course_id) IN (SELECT student_id, course_id FROM untold)""",
    f"""{ADD_EVENTS}
    SELECT 'dropped', {NOW}, student_id, course_id FROM untold
    WHERE leaves
    ORDER BY course_id, student_id""",
    f"""{ADD_EVENTS}
    SELECT CASE WHEN untold.promoted THEN 'promoted' ELSE 'enrolled' END, enrollments.enrolled_at,
           enrollments.student_id, enrollments.course_id
    FROM untold
    JOIN enrollments ON enrollments.student_id = untold.student_id AND enrollments.course_id = untold.course_id
    WHERE enrollments.waiting IS NULL
    ORDER BY enrollments.enrolled_at, enrollments.course_id, enrollments.student_id""",
    f"""{ADD_EVENTS}
    SELECT 'waitlisted', {NOW}, enrollments.student_id, enrollments.course_id
    FROM untold
    JOIN enrollments ON enrollments.student_id = untold.student_id AND enrollments.course_id = untold.course_id
    WHERE enrollments.waiting IS NOT NULL
    ORDER BY enrollments.course_id, enrollments.waiting, enrollments.student_id""",
)
LINE_UP = f"""
    UPDATE enrollments SET waiting = told.place
    FROM ({PLACES}) AS told
    WHERE told.student_id = enrollments.student_id AND told.course_id = enrollments.course_id
      AND enrollments.waiting <> told.place"""
FIND_NEXT = f"""
    CREATE TEMP TABLE next AS {COUNTED}
    SELECT student_id, course_id, {NOW} AS at FROM (
        SELECT enrollments.student_id, enrollments.course_id,
               coalesce(courses.capacity - counted.seats, counted.places) AS free,
               row_number() OVER (PARTITION BY enrollments.course_id ORDER BY enrollments.waiting) AS position
        FROM enrollments
        JOIN courses ON courses.id = enrollments.course_id
        JOIN counted ON counted.course_id = enrollments.course_id
        WHERE enrollments.waiting IS NOT NULL)
    WHERE position <= free
    ORDER BY course_id, position"""
PROMOTE = (
    f"{ADD_EVENTS} SELECT 'promoted', at, student_id, course_id FROM next ORDER BY rowid",
    """UPDATE enrollments SET waiting = NULL, enrolled_at = next.at
    FROM next
    WHERE next.student_id = enrollments.student_id AND next.course_id = enrollments.course_id""",
)
COUNT = f"""
    UPDATE courses SET (enrolled, waitlisted) = (counted.seats, counted.places)
    FROM ({COUNTED} SELECT courses.id, coalesce(counted.seats, 0) AS seats, coalesce(counted.places, 0) AS places
          FROM courses LEFT JOIN counted ON counted.course_id = courses.id) AS counted
    WHERE counted.id = courses.id
      AND (courses.enrolled, courses.waitlisted) IS NOT (counted.seats, counted.places)"""
# courses.event_id is the event for which the counts last changed. The trigger course_counted refuses a change of the
# counts that does not name a newer event.
MARK = """
    UPDATE courses SET event_id = (SELECT max(id) FROM enrollment_events WHERE course_id = courses.id)"""
FORGET = f"DELETE FROM event_notes WHERE {NO_EVENT}"
FILE = f"UPDATE enrollment_events SET filed = 1 WHERE id IN ({UNFILED})"


def mend(db: pw.Database, tick: Tick) -> list[str]:
    """Repair a database within the caller's transaction, and give a sentence for each thing that was done.

    `tick` is called now and then with what is at work. Raises SetupError, which names what a person has to mend first.
    """
    return repaired(lambda: run(db, tick), lambda broken: _mend(db, tick, broken), "SQLite")


def _mend(db: pw.Database, tick: Tick, broken: Mapping[str, Result]) -> list[str]:
    differences, there = drift.compare(db), drift.existing(db)
    ours = drift.expected()
    reasons = [f"{each.text}. {each.mend}" for each in differences if each.mend] + [
        f"the {each.type} {each.name} is on the table {each.table}, so another program's. Give it another name."
        for each in there
        if each.name in ours and each.type == ours[each.name].type and each.table != ours[each.name].table
    ]
    if reasons:
        raise refusal(reasons)
    wrong = {each.name: each.type for each in differences}
    with _triggers_at_rest(db, [each for each in there if each.type == "trigger"], wrong):
        for each in there:
            if wrong.get(each.name) == each.type == "table" and each.name not in FILLED:
                with watched(db, f"table {each.name}", tick):
                    _rebuild(db, each)
        for name, kind in wrong.items():
            if kind == "view" or name in FILLED:
                db.execute_sql(f"DROP {kind.upper()} IF EXISTS {name}")
                db.execute_sql(ours[name].sql)
        with watched(db, "indexes", tick):
            _put_indexes_back(db, [each for each in there if each.type == "index"], wrong)
        with watched(db, "rows", tick):
            done = _mend_rows(db, broken)
        if {"letters", "words"} & broken.keys():
            with watched(db, "words", tick):
                fill(db)
            done.append("the words of the search were not those of the names: put in anew.")
    return [f"{each.text}: {'rebuilt' if each.type == 'table' else 'put back'}." for each in differences] + done


@contextmanager
def _triggers_at_rest(db: pw.Database, there: Sequence[Object], wrong: Mapping[str, str]) -> Iterator[None]:
    for each in there:
        db.execute_sql(f"DROP TRIGGER {quoted(each.name)}")
    yield
    again = {each.name: each.sql for each in there}
    again |= {name: drift.expected()[name].sql for name, kind in wrong.items() if kind == "trigger"}
    for sql in again.values():
        db.execute_sql(sql)


def _put_indexes_back(db: pw.Database, there: Sequence[Object], wrong: Mapping[str, str]) -> None:
    again = {each.name: each.sql for each in there if wrong.get(each.table) == "table"}
    again |= {name: drift.expected()[name].sql for name, kind in wrong.items() if kind == "index"}
    for name, sql in again.items():
        db.execute_sql(f"DROP INDEX IF EXISTS {quoted(name)}")
        db.execute_sql(sql)


def _rebuild(db: pw.Database, found: Object) -> None:
    """Make a table anew and move its rows to it, in the way that SQLite documents for ALTER TABLE.

    Columns and constraints that another program added to the table stay.
    """
    ours, other = drift.tables()[found.name], drift.parse(found.sql)
    theirs = {column: sql for column, sql in other.definitions.items() if column not in ours.definitions}
    constraints = {
        key: drift.Constraint(constraint.sql)
        for key, constraint in other.constraints.items()
        if key not in ours.constraints and constraint.column not in theirs and drift.is_a_hosts(ours, key, constraint)
    }
    made = drift.Table({**ours.definitions, **theirs}, {}, {**ours.constraints, **constraints}, ours.options)
    stored = [column for column in theirs if not {"generated", "as"} & other.attributes[column].keys()]
    # A count above its limit would be refused by the table's CHECK. So each begins with 0, and COUNT sets it later.
    anew = {"enrolled", "waitlisted"} if found.name == "courses" else set()
    anew |= ours.definitions.keys() - other.definitions.keys()
    values = {
        quoted(column): drift.DERIVED[found.name, column] if column in anew else quoted(column)
        for column in [*ours.definitions, *stored]
    }
    given = last_id(db, found.name)
    db.execute_sql(drift.create_table("repaired", made))
    db.execute_sql(f"INSERT INTO repaired ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {found.name}")
    db.execute_sql(f"DROP TABLE {found.name}")
    # With this setting SQLite does not rewrite the views and foreign keys of another program when a table is renamed:
    # they name this table, and are to go on doing so.
    db.execute_sql("PRAGMA legacy_alter_table = ON")
    db.execute_sql(f"ALTER TABLE repaired RENAME TO {found.name}")
    db.execute_sql("PRAGMA legacy_alter_table = OFF")
    give_no_id_again(db, found.name, given)


def last_id(db: pw.Database, table: str) -> int:
    """Give the highest id that SQLite ever gave in a table, or 0 where SQLite does not keep it."""
    if not db.table_exists("sqlite_sequence"):
        return 0
    ((last,),) = fetch(db, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", table)
    return int(last)


def give_no_id_again(db: pw.Database, table: str, given: int) -> bool:
    """Make the next id of a table higher than `given`; tell whether that took a change."""
    again = given > last_id(db, table)
    if again:
        db.execute_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        db.execute_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, given))
    return again


def _mend_rows(db: pw.Database, broken: Mapping[str, Result]) -> list[str]:
    ((last,),) = fetch(db, "SELECT coalesce(max(id), 0) FROM enrollment_events")
    for statement in (FIND_UNTOLD, *TELL):
        db.execute_sql(statement)
    told = _names(db, f"SELECT type || ' ' || {PAIR} FROM enrollment_events WHERE id > {last} ORDER BY id")
    lined_up = db.execute_sql(LINE_UP).rowcount
    db.execute_sql(FIND_NEXT)
    promoted = _names(db, f"SELECT {PAIR} FROM next ORDER BY rowid")
    for statement in PROMOTE:
        db.execute_sql(statement)
    db.execute_sql(COUNT)
    db.execute_sql(MARK)
    filed = db.execute_sql(FILE).rowcount
    forgotten = db.execute_sql(FORGET).rowcount
    for table in ("untold", "next"):
        db.execute_sql(f"DROP TABLE temp.{table}")
    given = [table for table, last in fetch(db, LATEST) if give_no_id_again(db, table, last)]
    said = {
        f"the feed lacked events: told {told}.": told,
        f"places in line were not as the feed tells: put right {lined_up:,}.": lined_up,
        f"a seat was free while others waited: promoted {promoted}.": promoted,
        f"the feeds of students left events out: filed {filed:,}.": filed,
        f"notes were of no event: deleted {forgotten:,}.": forgotten,
        **{f"the next id in {table} may have been given before: it goes on after that.": True for table in given},
    }
    if "counts" in broken:
        said[f"counts were not those of the enrollments: put right {broken['counts'].broken}."] = True
    return [sentence for sentence, done in said.items() if done]


def _names(db: pw.Database, sql: str) -> Names:
    names = Names()
    for (name,) in db.connection().execute(sql):
        names.add(name)
    return names
