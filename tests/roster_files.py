"""Holds a OneRoster file set to the CSV binding 1.2.1, which it knows from the specification and not from the code.

https://www.imsglobal.org/spec/oneroster/v1p2/bind/csv
"""

import csv
import re
from collections import Counter
from datetime import date, datetime
from io import BytesIO, StringIO
from zipfile import ZipFile

ALL = (
    *("academicSessions", "categories", "classes", "classResources", "courses", "courseResources", "demographics"),
    *("enrollments", "lineItemLearningObjectiveIds", "lineItems", "lineItemScoreScales", "orgs", "resources"),
    *("resultLearningObjectiveIds", "results", "resultScoreScales", "roles", "scoreScales", "userProfiles"),
    *("userResources", "users"),
)
"""The files of which the manifest tells."""
COLUMNS = {
    "academicSessions": "sourcedId! status dateLastModified title! type! startDate! endDate! parentSourcedId "
    "schoolYear!",
    "orgs": "sourcedId! status dateLastModified name! type! identifier parentSourcedId",
    "courses": "sourcedId! status dateLastModified schoolYearSourcedId title! courseCode grades orgSourcedId! subjects "
    "subjectCodes",
    "classes": "sourcedId! status dateLastModified title! grades courseSourcedId! classCode classType! location "
    "schoolSourcedId! termSourcedIds! subjects subjectCodes periods",
    "users": "sourcedId! status dateLastModified enabledUser! username! userIds givenName! familyName! middleName "
    "identifier email sms phone agentSourcedIds grades password userMasterIdentifier preferredGivenName "
    "preferredMiddleName preferredFamilyName primaryOrgSourcedId pronouns",
    "roles": "sourcedId! status dateLastModified userSourcedId! roleType! role! beginDate endDate orgSourcedId! "
    "userProfileSourcedId",
    "enrollments": "sourcedId! status dateLastModified classSourcedId! schoolSourcedId! userSourcedId! role! primary "
    "beginDate endDate",
}
"""The columns of each file in order; ! marks those that no row may leave empty."""
WORDS = {
    ("academicSessions", "type"): "gradingPeriod semester schoolYear term",
    ("orgs", "type"): "department school district local state national",
    ("classes", "classType"): "homeroom scheduled",
    ("users", "enabledUser"): "true false",
    ("roles", "roleType"): "primary secondary",
    ("roles", "role"): "student teacher",
    ("enrollments", "role"): "administrator proctor student teacher",
}
REFERENCES = {
    ("academicSessions", "parentSourcedId"): "academicSessions",
    ("orgs", "parentSourcedId"): "orgs",
    ("courses", "schoolYearSourcedId"): "academicSessions",
    ("courses", "orgSourcedId"): "orgs",
    ("classes", "courseSourcedId"): "courses",
    ("classes", "schoolSourcedId"): "orgs",
    ("classes", "termSourcedIds"): "academicSessions",
    ("users", "primaryOrgSourcedId"): "orgs",
    ("roles", "userSourcedId"): "users",
    ("roles", "orgSourcedId"): "orgs",
    ("enrollments", "classSourcedId"): "classes",
    ("enrollments", "schoolSourcedId"): "orgs",
    ("enrollments", "userSourcedId"): "users",
}
DATES = {"startDate", "endDate", "beginDate"}

Rows = list[dict[str, str]]


def read(data: bytes) -> dict[str, Rows]:
    """Give the rows of each file of a file set, without the manifest's. Raises AssertionError for each fault."""
    with ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert len(texts) == len({*texts})
    assert not [name for name in texts if "/" in name or not name.endswith(".csv")]
    manifest = [*csv.reader(StringIO(texts.pop("manifest.csv"), newline=""), strict=True)]
    assert manifest[0] == ["propertyName", "value"]
    said = dict(manifest[1:])
    assert len(said) == len(manifest) - 1
    assert (said.pop("manifest.version"), said.pop("oneroster.version")) == ("1.0", "1.2")
    said.pop("source.systemName", None)
    said.pop("source.systemCode", None)
    assert said.keys() == {f"file.{name}" for name in ALL}
    there = {name.removesuffix(".csv") for name in texts}
    assert there == {name for name in ALL if said[f"file.{name}"] != "absent"}
    kinds = {said[f"file.{name}"] for name in there}
    assert kinds in ({"bulk"}, {"delta"}, set())
    found = {name.removesuffix(".csv"): rows_of(text) for name, text in texts.items()}
    for name, rows in found.items():
        hold_rows(name, rows, delta=kinds == {"delta"})
    hold_references(found)
    return found


def rows_of(text: str) -> Rows:
    """Read a file: RFC 4180, without line breaks in a field, and with a row."""
    assert text.endswith("\r\n")
    lines = text.removesuffix("\r\n").split("\r\n")
    assert not [line for line in lines if re.search("[\r\n]", line)]
    header, *rows = [next(csv.reader([line], strict=True)) for line in lines]
    assert rows
    assert {len(row) for row in rows} == {len(header)}
    assert len(header) == len({*header})
    return [dict(zip(header, row, strict=True)) for row in rows]


def hold_rows(name: str, rows: Rows, *, delta: bool) -> None:
    """Hold the rows of a file to its columns, its vocabularies and its forms of dates."""
    wanted = COLUMNS[name].split()
    plain = [column.rstrip("!") for column in wanted]
    header = [*rows[0]]
    assert header[: len(plain)] == plain
    assert all(column.startswith("metadata.") for column in header[len(plain) :])
    assert Counter(row["sourcedId"] for row in rows).most_common(1)[0][1] == 1
    for row in rows:
        assert all(row[column.rstrip("!")] for column in wanted if column.endswith("!")), row
        if delta:
            assert row["status"] in {"active", "tobedeleted"}
            assert row["dateLastModified"].endswith("Z")
            datetime.fromisoformat(row["dateLastModified"])
        else:
            assert (row["status"], row["dateLastModified"]) == ("", "")
        for column, value in row.items():
            if column in DATES and value:
                assert date.fromisoformat(value).isoformat() == value
            if words := WORDS.get((name, column)):
                assert value in words.split() or value.startswith("ext:")
        if name == "academicSessions":
            assert re.fullmatch("[0-9]{4}", row["schoolYear"])
            assert row["startDate"] <= row["endDate"]


def hold_references(found: dict[str, Rows]) -> None:
    """Hold each reference of a row that is not deleted to a row that is there."""
    ids = {name: {row["sourcedId"] for row in rows} for name, rows in found.items()}
    for (name, column), target in REFERENCES.items():
        for row in found.get(name, []):
            if row["status"] != "tobedeleted":
                values = row[column].split(",") if column.endswith("SourcedIds") else [row[column]]
                for value in filter(None, values):
                    assert value in ids[target], (name, column, value)
