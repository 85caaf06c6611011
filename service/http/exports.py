"""The handlers of exports: a school's data as files."""

from typing import TYPE_CHECKING, Any

from service.errors import InvalidQuery
from service.fields import Id
from service.http.calls import Call
from service.http.files import Attachment, Csv, Zip
from service.http.queries import ExcelQuery, ExportQuery, RosterExportQuery
from service.rows import Key

if TYPE_CHECKING:
    from service.exchange.parts import Kind


def _exporting() -> Any:
    from service.exchange import exporting  # noqa: PLC0415 - only who exports pays for it.

    return exporting


async def export_students(call: Call, query: ExportQuery) -> Attachment[Csv]:
    """Give students as a file."""
    return await _csv(call, "students", query)


async def export_courses(call: Call, query: ExportQuery) -> Attachment[Csv]:
    """Give courses as a file."""
    return await _csv(call, "courses", query)


async def export_terms(call: Call, query: ExportQuery) -> Attachment[Csv]:
    """Give terms as a file."""
    return await _csv(call, "terms", query)


async def export_enrollments(call: Call, query: ExportQuery) -> Attachment[Csv]:
    """Give enrollments as a file: who has a seat, and then who waits, in the order of the lines."""
    return await _csv(call, "enrollments", query)


async def export_roster(call: Call, course_id: Id, query: ExcelQuery) -> Attachment[Csv]:
    """Give the class list of one course as a file, by family name and given name."""
    exporting = _exporting()
    export = exporting.roster_of(course_id, exporting.Selection(excel=query.excel == "1"))
    answer: Attachment[Csv] = await call.exports.send(call, Csv, f"roster-{course_id}.csv", export)
    return answer


async def export_oneroster(call: Call, query: RosterExportQuery) -> Attachment[Zip]:
    """Give the school as a OneRoster 1.2 file set, all of it or what has changed."""
    exporting = _exporting()
    asked = exporting.RosterExport(call.exports.school, _term(query), query.since)
    answer: Attachment[Zip] = await call.exports.send(call, Zip, "oneroster.zip", exporting.oneroster_of(asked))
    return answer


async def _csv(call: Call, kind: "Kind", query: ExportQuery) -> Attachment[Csv]:
    exporting = _exporting()
    export = exporting.csv_of(kind, exporting.Selection(_term(query), query.excel == "1"))
    answer: Attachment[Csv] = await call.exports.send(call, Csv, f"{kind}.csv", export)
    return answer


def _term(query: ExportQuery | RosterExportQuery) -> Key | None:
    if query.term_id is not None and query.term_external_id is not None:
        raise InvalidQuery([("term_external_id", "must not come together with term_id")])
    return query.term_external_id if query.term_id is None else query.term_id
