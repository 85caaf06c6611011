"""The schema's one description, as Peewee models, and the queries whose shape varies.

The models are bound to no database: give one with each query, as in
`Student.select().execute(db)`. What forgets to fails loudly.
"""

from typing import Any

import peewee as pw
from playhouse.sqlite_ext import AutoIncrementField

from service.database import Garbled, fetch_all, readable
from service.fields import MAX_NAME


class Course(pw.Model):
    """What a student enrolls in."""

    id = AutoIncrementField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")
    level = pw.CharField(max_length=MAX_NAME)
    capacity = pw.IntegerField(null=True)
    waitlist_capacity = pw.IntegerField(null=True, constraints=[pw.Default(0)])
    enrolled = pw.IntegerField(constraints=[pw.Default(0), pw.Check("enrolled >= 0 AND enrolled <= capacity")])
    waitlisted = pw.IntegerField(
        constraints=[pw.Default(0), pw.Check("waitlisted >= 0 AND waitlisted <= waitlist_capacity")]
    )
    event_id = pw.IntegerField(null=True)
    """The two counts belong to the database's triggers; this is the event that they last moved for."""

    class Meta:
        """By name, by level, or by both, a page is one index range."""

        table_name = "courses"
        indexes = (
            (("name", "id"), False),
            (("level", "id"), False),
            (("level", "name", "id"), False),
        )


_enrollment = pw.DeferredThroughModel()


class Student(pw.Model):
    """Who enrolls."""

    id = AutoIncrementField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")
    courses = pw.ManyToManyField(Course, backref="students", through_model=_enrollment)

    class Meta:
        """By name a page is one index range."""

        table_name = "students"
        indexes = ((("name", "id"), False),)


class Enrollment(pw.Model):
    """The through model: a student is enrolled in a course, or waits for a seat."""

    student = pw.ForeignKeyField(Student, on_delete="RESTRICT", index=False)
    course = pw.ForeignKeyField(Course, on_delete="RESTRICT", index=False)
    enrolled_at = pw.CharField(max_length=24, null=True)
    """RFC 3339 in UTC, to the millisecond; null while waiting."""
    waiting = pw.IntegerField(null=True)
    """The place in line, lowest first: the id of the event that put it there; null once enrolled."""
    event_id = pw.IntegerField(null=True)
    """The event that began it, for which this is the entry by student; null, or another, if the index has that one."""

    class Meta:
        """The table is its key's tree, a schedule one range of it; roster and waitlist are ranges of the index."""

        table_name = "enrollments"
        primary_key = pw.CompositeKey("student", "course")
        without_rowid = True
        indexes = ((("course", "waiting", "student", "enrolled_at"), False),)
        constraints = (pw.Check("(enrolled_at IS NULL) <> (waiting IS NULL)"),)


class Event(pw.Model):
    """What happened to an enrollment; never changed or deleted, and outlives what it names."""

    id = pw.AutoField()
    type = pw.CharField(max_length=10)
    at = pw.CharField(max_length=24)
    student_id = pw.IntegerField()
    course_id = pw.IntegerField()
    filed = pw.BooleanField(constraints=[pw.Default(1)])
    """Whether the index by student has it: not while an enrollment leads to it. Nothing else ever changes."""

    class Meta:
        """The feed of one course is a range of an index; that of a student too, with what the enrollments lead to."""

        table_name = "enrollment_events"
        indexes = ((("course_id", "id"), False),)


Event.add_index(Event.index(Event.student_id, Event.id, where=pw.SQL("filed")))

_enrollment.set_model(Enrollment)


def page(
    model: type[Course | Student],
    prefix: str | None,
    after: tuple[Any, ...] | None,
    limit: int,
    *columns: pw.Node,
) -> Any:
    """Select a page of rows as tuples, whole or of some columns: by id, or with a name's prefix by (name, id).

    `after` is the key of the row before the page, (id,) or (name, id), whatever the name is. Case is
    folded as SQLite's NOCASE folds it: ASCII letters only.
    """
    query = model.select(*columns)
    key = (model.id,) if prefix is None else (model.name, model.id)
    if after is not None:
        query = query.where(pw.Tuple(*key) > tuple(_bound(value) for value in after))
    elif prefix is not None:
        query = query.where(model.name >= prefix)
    if prefix:
        query = query.where(model.name < _bound(_behind(prefix)))
    return query.order_by(*key).limit(limit).tuples()


def fetch(db: pw.Database, query: Any) -> list[tuple[Any, ...]]:
    """Run a query and give all its rows."""
    sql, params = query.sql()
    return fetch_all(db, sql, *params)


def _behind(prefix: str) -> str:
    """Give the least text that follows every text with the prefix, byte by byte as SQLite's NOCASE compares."""
    *begin, last = prefix.encode().lower()
    return readable(bytes([*begin, ord("[") if last == ord("@") else last + 1]))  # No capital follows the @.


def _bound(value: Any) -> Any:
    """Give a value as a statement takes it; a text that is not UTF-8 goes as its bytes."""
    if isinstance(value, Garbled):
        return pw.Cast(pw.Value(value.stored, converter=False), "TEXT")
    return value
