"""Run rules that read at the same time, and send what they ask of PostgreSQL together, in one packet.

Each rule runs in a greenlet of its own until it asks something. The next one runs then, and when all of them wait for
rows, what they ask is sent. A packet goes through libpq's pipeline mode, below psycopg's cursors: most of what a short
read costs would be a cursor and its waiting.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

from greenlet import getcurrent, greenlet
from psycopg import errors, generators, waiting
from psycopg.abc import PQGen, Transformer
from psycopg.adapt import PyFormat
from psycopg.adapt import Transformer as NewTransformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

MOST_PREPARED = 200
"""How many statements a connection keeps prepared before it forgets them all: each search has one of its own, and all
else has few."""
LOST = 2
"""How many ends of answers follow each other where a connection is lost, or its next answer is not there yet; between
two answers is one. After so many, whatever comes on the socket next tells which it is."""

_Key = tuple[bytes, tuple[int, ...]]
"""What is prepared: a statement's text, and the types of its values."""


class Connection(Protocol):
    """What is asked together is sent on a connection."""

    ahead: list[str]
    """The statements without values that are sent before all others."""
    ask: "Callable[[bytes, Sequence[Any]], Rows] | None"
    """What runs the statements of a rule, if it is run together with others."""

    @property
    def pgconn(self) -> PGconn:
        """The connection of libpq."""


class Rows(list[tuple[Any, ...]]):
    """All rows that a statement has given."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Give the rows, as a cursor does."""
        return self


class _Statement:
    """A statement that is to be sent, and what PostgreSQL has answered."""

    __slots__ = ("formats", "key", "result", "values")
    result: PGresult

    def __init__(self, sql: bytes, params: Sequence[Any], adapter: Transformer) -> None:
        """Write the values as PostgreSQL reads them. Raises the driver's errors for one that has no such form."""
        self.values = adapter.dump_sequence(params, [PyFormat.AUTO] * len(params))
        self.key, self.formats = (sql, adapter.types or ()), adapter.formats


@lru_cache(maxsize=1000)
def numbered(sql: str) -> bytes:
    """Give a statement with $1, $2 and so on for each %s, as libpq wants it, and with % for each %%."""
    number = count(1)
    return re.sub("%s|%%", lambda sign: f"${next(number)}" if sign[0] == "%s" else "%", sql).encode()


class Packets:
    """Sends what rules ask at the same time on one connection."""

    def __init__(self, connection: Connection) -> None:
        """Have no statement prepared yet."""
        self._connection, self._pgconn = connection, connection.pgconn
        self._adapter: Transformer = NewTransformer(connection)  # type: ignore[arg-type]
        self._names: dict[_Key, bytes] = {}
        """The name of each statement that is prepared."""
        self._number = count(1)

    def run(self, calls: Iterable[Callable[[], object]]) -> PQGen[None]:
        """Run calls that read; gives a generator as psycopg's `waiting` takes them.

        Raises the error of the first statement that fails, and that of a call. Calls that have not ended by then go no
        further.
        """
        running = [greenlet(call) for call in calls]
        try:
            while running:
                asked = self._go_on(running)
                running = [each for each in running if not each.dead]
                yield from self.send(asked)
        finally:
            for each in running:
                each.throw()

    def _go_on(self, running: Iterable[greenlet]) -> list[_Statement]:
        """Let each call run until it asks something or ends, and give what was asked."""
        asked: list[_Statement] = []
        back = getcurrent()

        def ask(sql: bytes, params: Sequence[Any]) -> Rows:
            statement = _Statement(sql, params, self._adapter)
            asked.append(statement)
            back.switch()
            return self._rows(statement)

        self._connection.ask = ask
        try:
            for each in running:
                each.switch()
        finally:
            self._connection.ask = None
        return asked

    def _rows(self, statement: _Statement) -> Rows:
        self._adapter.set_pgresult(statement.result)
        return Rows(self._adapter.load_rows(0, statement.result.ntuples, tuple))

    def send(self, asked: Sequence[_Statement]) -> PQGen[None]:
        """Send statements in one packet, behind those that go ahead, and take the answers."""
        ahead, self._connection.ahead = self._connection.ahead, []
        if not (ahead or asked):
            return
        self._pgconn.enter_pipeline_mode()
        for each in ahead:
            self._pgconn.send_query_params(each.encode(), None)
        answers: list[_Statement | _Key | None] = [None] * len(ahead)
        names: dict[_Key, bytes] = {}
        for statement in asked:
            answers += self._send_one(statement, names)
        if is_full := len(self._names) >= MOST_PREPARED:
            # The last of the packet: PgBouncer then forgets all that was prepared until the answer comes.
            self._pgconn.send_query_params(b"DEALLOCATE ALL", None)
            answers.append(None)
        self._pgconn.pipeline_sync()
        results = yield from self._results()
        self._pgconn.exit_pipeline_mode()
        self._keep(answers, results, names)
        if is_full:
            self._names.clear()

    def _keep(
        self,
        answers: "Sequence[_Statement | _Key | None]",
        results: Sequence[PGresult],
        names: "Mapping[_Key, bytes]",
    ) -> None:
        """Keep what each answer is to, and what is prepared by now. Raises the error of what has failed."""
        failed = None
        for of, result in zip(answers, results, strict=True):
            if result.status == ExecStatus.FATAL_ERROR:
                failed = result
            elif isinstance(of, _Statement):
                of.result = result
            elif of is not None and result.status == ExecStatus.COMMAND_OK:
                self._names[of] = names[of]
        if failed is not None:  # What came behind it in the packet, PostgreSQL has passed over.
            raise errors.error_from_result(failed)

    def _send_one(self, statement: _Statement, names: "dict[_Key, bytes]") -> "list[_Statement | _Key]":
        """Send a statement, which is prepared first at its first use; give what the answers are to.

        `names` are those of the statements that are prepared in the same packet.
        """
        key = sql, types = statement.key
        name = self._names.get(key) or names.get(key)
        answers: list[_Statement | _Key] = [statement]
        if name is None:
            names[key] = name = b"read_%d" % next(self._number)
            self._pgconn.send_prepare(name, sql, types)
            answers.insert(0, key)
        self._pgconn.send_query_prepared(name, statement.values, statement.formats)
        return answers

    def _results(self) -> PQGen[list[PGresult]]:
        """Take the answers up to the end of the packet."""
        results: list[PGresult] = []
        yield from generators.send(self._pgconn)
        while True:
            ends = 0
            while ends < LOST and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    ends += 1
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    return results
                else:
                    results.append(result)
                    ends = 0
            yield waiting.Wait.R
            self._pgconn.consume_input()
