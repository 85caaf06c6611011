"""The handlers of what a registrar's office asks for: terms, and several enrollments in one step."""

from collections.abc import Awaitable, Callable
from functools import partial

from service import registrar, terms
from service.errors import InvalidQuery
from service.fields import Id
from service.http.answers import Created, NoContent, Ok, Page, created, no_content, ok, page
from service.http.calls import Call
from service.http.payloads import NewTerm, Reason, Swap, TermChanges, TermValues, given
from service.http.queries import ReasonQuery, TermQuery
from service.registrar import Dropped, StudentExport, Swapped
from service.rows import ExternalId
from service.terms import TermRecord


async def create_term(call: Call, payload: NewTerm) -> Created[TermRecord]:
    """Add a term."""
    term = await call.store.write(partial(terms.insert_term, **given(payload)))
    return created(term, call.url(f"/terms/{term.id}"))


async def list_terms(call: Call, query: TermQuery) -> Page[TermRecord]:
    """List terms by id."""
    after = query.after[1:] if query.after else None
    asked = partial(terms.list_terms, external_id=query.external_id)
    rows = await call.store.read(asked, after, query.limit + 1)
    return page(call, rows, query.limit, lambda row: call.cursor(row.id))


async def show_term(call: Call, term_id: Id) -> Ok[TermRecord]:
    """Show one term."""
    return ok(await call.store.read(terms.find_term, term_id))


async def show_term_by_external_id(call: Call, external_id: ExternalId) -> Ok[TermRecord]:
    """Show the term with an external id."""
    return ok(await call.store.read(terms.find_term, external_id))


async def put_term(call: Call, external_id: ExternalId, values: TermValues) -> Created[TermRecord] | Ok[TermRecord]:
    """Add the term with an external id, or change the one that has it."""
    term, new = await call.store.write(terms.put_term, external_id.text, given(values))
    return created(term, call.url(f"/terms/{term.id}")) if new else ok(term)


async def update_term(call: Call, term_id: Id, changes: TermChanges) -> Ok[TermRecord]:
    """Change a term."""
    return ok(await call.store.write(terms.update_term, term_id, given(changes)))


async def delete_term(call: Call, term_id: Id) -> NoContent:
    """Remove a term that has no courses."""
    await call.store.write(terms.delete_term, term_id)
    return no_content()


async def swap(call: Call, student_id: Id, payload: Swap) -> Ok[Swapped]:
    """Give a student a seat in one course for the one in another course."""
    rule = call.telling(partial(registrar.swap, or_wait=payload.or_wait), payload.reason)
    return ok(await call.store.write(rule, student_id, *payload.courses))


async def withdraw(call: Call, student_id: Id, query: ReasonQuery, payload: Reason) -> Ok[Dropped]:
    """Drop all enrollments of a student; the seats go to who waits."""
    told = call.why(_reason(query, payload))
    return ok(Dropped(await _all(lambda: call.store.write(registrar.withdraw_some, student_id, told, alone=True))))


async def cancel(call: Call, course_id: Id, query: ReasonQuery, payload: Reason) -> Ok[Dropped]:
    """Drop all enrollments of a course; nobody is promoted into it."""
    told = call.why(_reason(query, payload))
    return ok(Dropped(await _all(lambda: call.store.write(registrar.cancel_some, course_id, told, alone=True))))


def _reason(query: ReasonQuery, payload: Reason) -> str | None:
    if query.reason is not None and payload.reason is not None:
        raise InvalidQuery([("reason", "must not come together with a reason in the body")])
    return payload.reason if query.reason is None else query.reason


async def _all(some: Callable[[], Awaitable[int]]) -> int:
    """Run a rule that drops a part in one transaction until none is left, and give how many were dropped.

    Other writes get their turn between two transactions.
    """
    dropped = last = await some()
    while last >= registrar.MOST_DROPPED:
        last = await some()
        dropped += last
    return dropped


async def erase(call: Call, student_id: Id) -> NoContent:
    """Withdraw a student, delete the student, and blank the reasons of the student's events."""
    told = call.why(None)
    while await call.store.write(registrar.withdraw_if_many, student_id, told, alone=True):
        pass
    await call.store.write(partial(registrar.erase_student, actor=told.actor), student_id, alone=True)
    return no_content()


async def export(call: Call, student_id: Id) -> Ok[StudentExport]:
    """Give all that is kept of one student."""
    return ok(await call.store.read(registrar.export_student, student_id))
