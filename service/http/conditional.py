"""Conditional requests (RFC 9110, section 13): the tag of a record, and what is done only if the tag is as it was.

A tag is a hash of the record's JSON, as `ok` writes it for everybody: neither the path nor the mount by which a client
asked is in it. A write compares the tags inside its own transaction, so that of all who change what they have read at
the same time one succeeds, and the others learn that the record is another one now.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Self, cast

import attrs
import msgspec
import peewee as pw

from service.courses import CourseRecord, find_course
from service.enrolling import EnrollmentRecord, find_enrollment
from service.errors import EnrollmentNotFound, NotFound
from service.http.answers import Answer, Created, NotModified, Ok, ok
from service.http.calls import Call
from service.http.edge import BadRequest, PreconditionFailed
from service.http.operations import CONDITIONS, Api, Operation, Run
from service.http.origins import SAFE
from service.storage import Store
from service.students import StudentRecord, find_student
from service.terms import TermRecord, find_term

Find = Callable[..., msgspec.Struct]
"""A rule that finds one record: from the database and the keys that are the words of a path."""
Tags = frozenset[bytes]

FIND: Mapping[Any, Find] = {
    StudentRecord: find_student,
    CourseRecord: find_course,
    TermRecord: find_term,
    EnrollmentRecord: find_enrollment,
}
"""The rule that finds a record of each type that has a path of its own."""
MADE = (StudentRecord, CourseRecord, TermRecord)
"""What a POST answers with a tag. An enrollment's place in line may be another one with the next request, and nothing
is made as often: its hash is left out."""
DIGEST = 12
"""The bytes of a tag's hash: a record would be changed some 2⁴⁸ times before a tag of it came twice by chance."""
IF_MATCH, IF_NONE_MATCH = "If-Match", "If-None-Match"
ANY = b"*"

_TAG = re.compile(rb'(?:W/)?"[!#-~\x80-\xff]*"')
# A list may have empty members (RFC 9110, section 5.6.1.2).
_LIST = re.compile(rb"[ \t,]*%b(?:[ \t]*,[ \t,]*%b)*[ \t,]*" % (_TAG.pattern, _TAG.pattern))

CHANGED = "The record is no longer the one that the ETag was given for: read it again, and decide anew."
NOT_THERE = "If-Match asks for a record that is there, and there is none yet."
THERE = "If-None-Match asks for a record that is not there, or another one, and this one is."
UNTAGGED = "This changes no single record with an ETag, so If-Match and If-None-Match cannot be kept."


def tag_of(body: bytes) -> bytes:
    """Give the tag of a record by its JSON, as a strong validator (RFC 9110, section 8.8.3)."""
    return f'"{blake2b(body, digest_size=DIGEST).hexdigest()}"'.encode()


def _tags(name: str, value: bytes) -> Tags:
    """Read a list of tags, or *. Raises BadRequest."""
    if value.strip() == ANY:
        return frozenset({ANY})
    if not _LIST.fullmatch(value):
        raise BadRequest(f"{name} is neither * nor a list of tags, each in quotation marks, as the header ETag has it.")
    return frozenset(_TAG.findall(value))


@attrs.frozen
class Conditions:
    """The tags of which the record is to have one, and those of which it is to have none; None where all is well."""

    match: Tags | None
    none_match: Tags | None

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the headers of a request. Raises BadRequest."""
        match, none_match = (
            _tags(name, fields[field]) if (field := name.lower().encode()) in fields else None
            for name in (IF_MATCH, IF_NONE_MATCH)
        )
        # If-Match compares strongly: a weak tag is there, and is nobody's. If-None-Match compares weakly.
        return cls(match, none_match and frozenset(tag.removeprefix(b"W/") for tag in none_match))

    def check(self, tag: bytes | None) -> None:
        """Raise PreconditionFailed unless If-Match holds of a record's tag; None is that of no record."""
        if self.match is not None and (tag is None or self.match.isdisjoint((ANY, tag))):
            raise PreconditionFailed(CHANGED if tag else NOT_THERE)

    def knows(self, tag: bytes | None) -> bool:
        """Tell whether If-None-Match names a record's tag, so that the condition does not hold."""
        return self.none_match is not None and tag is not None and not self.none_match.isdisjoint((ANY, tag))


@attrs.frozen
class _Checked:
    """A store in whose writes a rule is run only if the conditions hold of one record, as it is in the transaction."""

    store: Store
    conditions: Conditions
    find: Find
    keys: Sequence[Any]
    or_makes: bool
    """Whether the rule makes the record where there is none; else that there is none is what the client is told."""

    async def write(self, rule: Callable[..., Any], *args: Any) -> Any:
        """Do what `Store.write` in `service.storage` says. Raises PreconditionFailed too."""
        return await self.store.write(self._run, rule, *args)

    def _run(self, db: pw.Database, rule: Callable[..., Any], *args: Any) -> Any:
        tag = self._tag(db)
        self.conditions.check(tag)
        if self.conditions.knows(tag):
            raise PreconditionFailed(THERE)
        return rule(db, *args)

    def _tag(self, db: pw.Database) -> bytes | None:
        try:
            return tag_of(ok(self.find(db, *self.keys)).body)
        except NotFound as missing:
            if not self.or_makes:
                raise
            if isinstance(missing, EnrollmentNotFound):  # What is 404 without conditions is 404 with them.
                for find, key in zip((find_student, find_course), self.keys, strict=True):
                    find(db, key)
            return None


@attrs.frozen(eq=False)
class Conditional(Operation):
    """An operation that heeds the tags which a client sends, or refuses to."""

    find: Find | None
    """The rule that finds the record which the path is; None where the path is no record."""

    @property
    def heeds(self) -> Sequence[str]:
        """The headers that are of use to a client."""
        if self.find is None:
            return ()
        if self.right == "read":
            return (IF_NONE_MATCH,)
        return (IF_MATCH, IF_NONE_MATCH) if Created.STATUS in self.gives else (IF_MATCH,)

    @property
    def run_if(self) -> Run:
        """Run a request that has If-Match or If-None-Match."""
        return self._run_if

    async def _run_if(self, call: Call) -> Answer:
        if self.find is None:
            raise PreconditionFailed(UNTAGGED)
        conditions = Conditions.read(call.fields(CONDITIONS))
        if self.right != "read":
            keys, or_makes = [*map(call.word, self.words)], Created.STATUS in self.gives
            # The handler of a record asks nothing of the store but to `write`.
            call.store = cast("Store", _Checked(call.store, conditions, self.find, keys, or_makes))
            return await self.run(call)
        answer = await self.run(call)
        tag = dict(answer.headers)[b"etag"]
        conditions.check(tag)
        return NotModified(NotModified.STATUS, headers=((b"etag", tag),)) if conditions.knows(tag) else answer


@attrs.frozen(eq=False)
class Tagged(Conditional):
    """An operation whose answer has the tag of the record that is in it."""

    async def run(self, call: Call) -> Answer:
        """Do what `Operation.run` does, and add the header ETag."""
        answer = await super().run(call)
        return msgspec.structs.replace(answer, headers=(*answer.headers, (b"etag", tag_of(answer.body))))


def conditional(api: Api) -> Api:
    """Let each path that is one record give tags and heed them, and every other write refuse a request with one.

    RFC 9110 would let such a write pass over the headers, but a client that sends one asks for safety. PUT gives no
    tag, because a client might take it for the tag of what it sent (section 9.3.4).
    """
    return {
        path: {method: _conditional(method, each, _find_of(methods)) for method, each in methods.items()}
        for path, methods in api.items()
    }


def _find_of(methods: Mapping[str, Operation]) -> Find | None:
    return FIND.get(methods["GET"].gives.get(Ok.STATUS)) if "GET" in methods else None


def _conditional(method: str, each: Operation, find: Find | None) -> Operation:
    if find is None and (method in SAFE or each.right is None):
        return each
    declared = {field.name: getattr(each, field.name) for field in attrs.fields(Operation)}
    declared["refuses"] = (PreconditionFailed, *([BadRequest] if find else []), *each.refuses)
    if find and method == "GET":
        declared["gives"] = {**each.gives, NotModified.STATUS: None}
    tags = method in {"GET", "PATCH"} if find else each.gives.get(Created.STATUS) in MADE
    return (Tagged if tags else Conditional)(**declared, find=find)
