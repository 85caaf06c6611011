"""Declare what the rules ask of a database, of whatever kind, and what HTTP asks of a store.

A rule is a function `rule(db, *args)`, such as `enroll`. The rules are written in portable SQL, with ? for each value;
where a driver wants another sign, the Peewee database of its backend puts that sign in. The code for one kind of
database is in a folder of its own, whose module `backend` has the functions of `Backend`. `backend_of` finds that
module by the Peewee database that a rule is given. The handlers of HTTP ask a `Store`, which runs rules for callers on
an event loop.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast

import peewee as pw

from service.errors import ServiceError
from service.storage.measured import Measured

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Row = TypeVar("Row")

BACKENDS = {
    pw.SqliteDatabase: "service.storage.sqlite.backend",
    pw.PostgresqlDatabase: "service.storage.postgres.backend",
}
"""The backend of each kind of Peewee database, imported at its first use."""

LEFT_OUT = "a trigger left the row as it was, and said nothing"
"""The text of the refusal of a statement that a trigger of another program turned into nothing, without an error."""

Pair = tuple[int, int]
"""(student_id, course_id)"""
NameKey = tuple[str, str, int]
"""The place of a student in a list by name: (family name or else name, given name or "", id)."""
Outcome = tuple[str, str | None, int | None] | ServiceError
"""What came of enrolling a pair: ("enrolled", time, None), ("waitlisted", None, position), (code, None, None) where the
service's own rules refuse with that code, or the refusal by a rule of another program."""
Own = Callable[[], ServiceError | None]
"""Reads the rows that a refused statement was about, and gives the refusal that the service's own rules have for it, or
None if they have none."""


class Backend(Protocol):
    """What each kind of database does in its own way."""

    NOW: str
    """The SQL for the present moment, by the database's clock: RFC 3339 in UTC, to the millisecond."""

    JOINED: str
    """The SQL that joins the texts of all rows, in their order, to bytes in UTF-8; {} stands for the column."""
    FILED: str
    """The SQL condition, with AND before it, of the events that are in the index of events by student."""
    BY_NAME: str
    """The SQL that sorts rows of students by name: by family name or else name, then given name or "", then id, with A
    to Z as a to z."""

    def transaction(self, db: pw.Database) -> AbstractContextManager[Any]:
        """Open a write transaction, or go on in the caller's.

        It is meant for one statement that writes, and the reads that explain its result.
        """

    def atomic(self, db: pw.Database) -> AbstractContextManager[Any]:
        """Open a write transaction, or a savepoint in the caller's transaction, for many statements.

        The method `rollback()` of the object that `with` gives undoes them.
        """

    def insert_each(self, db: pw.Database, pairs: Sequence[Pair], moment: str, until: float) -> Sequence[Outcome]:
        """Enroll one pair after the other within the caller's transaction; `moment` is the time of all enrollments.

        Gives one outcome for each pair, in order: how the pair stands after its own statement. After `until`, in
        seconds of the monotonic clock, no further pair is begun except the first one. Raises ConstraintViolated where
        a trigger of another program undid the caller's transaction.
        """

    def drop_each(self, db: pw.Database, pairs: Sequence[Pair]) -> int:
        """Drop pairs of one student, or of one course and in the order of its line, within the caller's transaction.

        Gives how many were dropped: a trigger of another program may leave one as it was.
        """

    def violation(self, db: pw.Database, error: Exception, own: Own, deleted: tuple[str, int] | None) -> ServiceError:
        """Tell which rule refused a statement: one of the service, or one of another program (ConstraintViolated).

        It is the refusal that `own` gives if the database's message begins with the same code; without that, a trigger
        of another program may have run into the rule with other rows. A rule of another program is told in the words of
        its message, or by its own name or its table's. `deleted` is the row, as (table, id), that the statement was to
        delete: a foreign key of another program's table may have kept it.
        """

    def list_rows(  # noqa: PLR0913, PLR0917 - a list is asked for in so many ways.
        self,
        db: pw.Database,
        table: str,
        columns: str,
        equal: Mapping[str, Any],
        prefix: str | None,
        after: tuple[Any, ...] | None,
        limit: int,
    ) -> list[tuple[Any, ...]]:
        """Give at most `limit` rows of a table by id or, with a prefix of the name, by (name, id).

        `equal` are values that columns must have. `after` is the key of the row before the page, (id,) or (name, id),
        and the name in it may be any text or BLOB. Where names are compared, the letters A to Z are equal to a to z.
        """

    def search_rows(  # noqa: PLR0913, PLR0917 - as `list_rows`, and for one thing more.
        self,
        db: pw.Database,
        table: str,
        columns: str,
        equal: Mapping[str, Any],
        prefix: str | None,
        q: str,
        after: tuple[Any, ...] | None,
        limit: int,
    ) -> list[tuple[Any, ...]]:
        """Give at most `limit` students or courses by (name, id) in which every word of `q` begins a word.

        Their words are those of the name, of the external id, and of the email up to the @; case and accents do not
        count, nor does punctuation, behind which another word begins. Where no word of `q` has three letters, its first
        word begins the name. A `q` without a word finds every row. All else is as in `list_rows`.
        """

    def events_of_student(
        self, db: pw.Database, student_id: int, course_id: int | None, since: int, limit: int
    ) -> list[tuple[Any, ...]]:
        """Give (id, type, at, student_id, course_id, actor, reason) of at most `limit` events of a student, by id.

        They have ids above `since`, and are of one course, or of all courses if `course_id` is None.
        """

    def list_roster_by_name(
        self, db: pw.Database, columns: str, course_id: int, after: NameKey | None, limit: int
    ) -> list[tuple[Any, ...]]:
        """Give (family name or else name, given name or "", *columns) of at most `limit` students of a course.

        They have a seat, are in the order of their `NameKey`, with A to Z as a to z, and come behind the key `after`.
        """

    def fetch_anyway(self, db: pw.Database, error: Exception, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement again whose rows the driver could not read, in a way that can, or raise its error again."""

    def explain(self, db: pw.Database, error: Exception) -> ServiceError:
        """Tell why a transaction was undone: a rule of another program refused, or the database or its file failed.

        A ServiceError is given as it is. Any other error is raised again.
        """

    def others_wrote(self, db: pw.Database) -> int:
        """Give a number that is another one once another connection has written since the last call."""

    def copied(self, db: pw.Database, tick: Callable[[int, int], object]) -> AbstractContextManager[pw.Database]:
        """Make a copy of the database as it is now, without holding up who writes; the end of the block removes it.

        What is written to the copy need not outlast the block. `tick` is called now and then, with how much of all is
        copied, and may raise an error.
        """


class Store(Protocol):
    """Runs rules for callers on an event loop.

    Each method raises what the rule raises, Busy or StorageUnavailable where the database cannot run the rule now, and
    AsyncioOnly on another event loop than asyncio's.
    """

    async def read(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Run a rule that reads a few indexed rows, all from one snapshot of the database."""

    async def scan(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts) -> T:
        """Run a rule that reads much, in a thread, all from one snapshot of the database.

        Few such rules run at once. The next ones wait for their turn, and raise Busy where it does not come in time.
        """

    async def write(self, rule: Callable[[pw.Database, *Ts], T], *args: *Ts, alone: bool = False) -> T:
        """Run a rule that writes; when this returns, the write is on the disk.

        With `alone`, the rule is called outside any transaction, and opens one itself.
        """

    async def write_row(self, rule: Callable[[pw.Database, Sequence[Row]], Sequence[T | ServiceError]], row: Row) -> T:
        """Run a rule that writes many rows for one row, together with the rows of other callers.

        Gives the result of the row. Raises the row's refusal.
        """

    async def changed(self, since: object = None) -> object:
        """Wait until something was committed, by whichever program, after an earlier call had given `since`.

        Gives what stands for the present state, to wait with next; with None at once. What is read after that is of
        this state or a later one. Now and then nothing was committed after all.
        """

    async def check_ready(self) -> None:
        """Raise Busy or StorageUnavailable unless a write would be accepted and kept now."""

    def measured(self) -> Measured:
        """Give what was measured of the writes so far; the database is not asked."""

    def open(self) -> None:
        """Hold the database from now on, and not only from its first use on. Raises OSError."""

    def end_turn(self) -> None:
        """End the running event loop's turn early: begin the writes and the reads that were asked for in it."""

    def close(self) -> None:
        """Finish the writes that were accepted, then close every connection; the next use opens them again."""


@cache
def _backend(kind: Any) -> Backend:
    place = next(place for base, place in BACKENDS.items() if issubclass(kind, base))
    return cast("Backend", import_module(place))


def backend_of(db: pw.Database) -> Backend:
    """Give the module with the functions of `Backend` for a database."""
    kind: Any = type(db)
    return _backend(kind)


def fetch(db: pw.Database, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run one statement to its end, and give all its rows."""
    rows: list[tuple[Any, ...]]
    try:
        rows = db.execute_sql(sql, params).fetchall()
    except Exception as error:  # noqa: BLE001 - it is raised again unless the backend knows another way.
        rows = backend_of(db).fetch_anyway(db, error, sql, params)
    return rows


def fetch_one(db: pw.Database, sql: str, *params: Any) -> tuple[Any, ...] | None:
    """Run one statement to its end, and give its first row, or None if it has none."""
    rows = fetch(db, sql, *params)
    return rows[0] if rows else None


def change(
    db: pw.Database, sql: str, *params: Any, own: Own = lambda: None, deleted: tuple[str, int] | None = None
) -> tuple[Any, ...] | None:
    """Run one statement that writes, and give the row that it returns, or None where no row was changed.

    Raises the refusal that `own` gives if a rule of the service refuses, and ConstraintViolated if a rule of another
    program does. `deleted` is the row, as (table, id), that the statement is to delete.
    """
    try:
        return fetch_one(db, sql, *params)
    except pw.IntegrityError as error:
        raise backend_of(db).violation(db, error, own, deleted) from error
