"""Files as schools have them, made anew for each test from a seed: a set of Canvas, a messy spreadsheet, workbooks."""

import csv
import random
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import openpyxl

TABLES = Mapping[str, Iterable[Sequence[object]]]
"""Rows with their header, by the name of a file or a sheet."""
GIVEN = ("Ada", "Bo", "Chloë", "Dmitri", "Eŝli", "Fatima", "Göran", "Hà", "Iñaki", "Jürgen")
FAMILY = ("Byron", "Çelik", "D'Arcy", "Ekström", "Fernández", "García-López", "Hopper", "Ivanova", "O'Neill", "Łukasik")
GONE = ("deleted", "completed", "inactive", "deleted_last_completed")


def written(folder: Path, tables: TABLES) -> list[Path]:
    """Write each table as a CSV file in UTF-8, and give the files."""
    for name, rows in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return [folder / name for name in tables]


def zipped(path: Path, tables: TABLES) -> Path:
    """Write a zip with each table as a CSV file."""
    folder = path.parent / f"{path.name}-files"
    folder.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in written(folder, tables):
            archive.write(file, file.name)
    return path


def workbook(path: Path, tables: TABLES) -> Path:
    """Write a workbook with each table as a sheet."""
    book = openpyxl.Workbook(write_only=True)
    for name, rows in tables.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def canvas_set(enrollments: int = 14_000, seed: int = 1) -> dict[str, list[list[str]]]:
    """Make the files of a SIS import of Canvas, by their names.

    About one enrollment of 20 is a teacher's, one of 10 is deleted, completed or inactive, and one of 25 stands twice,
    once active and once not, in either order.
    """
    chance = random.Random(seed)
    users = max(20, enrollments // 6)
    sections = [f"SEC-{number // 3 + 1}-{number % 3 + 1}" for number in range(max(6, enrollments // 70))]
    courses = sorted({section.rpartition("-")[0].replace("SEC", "CRS") for section in sections})
    terms = [["T1", "Autumn 2026", "active", "2026-09-01T00:00:00Z", "2027-01-31T23:59:59Z"]]
    terms += [["T2", "Spring 2027", "active", "2027-02-01T00:00:00Z", "2027-07-15T23:59:59Z"]]
    people = []
    for number in range(1, users + 1):
        given, family = chance.choice(GIVEN), chance.choice(FAMILY)
        status = "deleted" if number % 97 == 0 else "active"
        email = f"u{number}@school.example"
        people.append([f"U{number:05}", f"INT-{number}", email, given, family, f"{family}, {given}", email, status])
    pairs: set[tuple[str, str]] = set()
    rows: list[list[str]] = []
    while len(rows) < enrollments:
        user, section = chance.choice(people)[0], chance.choice(sections)
        if (user, section) in pairs:
            continue
        pairs.add((user, section))
        role = "teacher" if chance.random() < 0.05 else "student"
        status = chance.choice(GONE) if chance.random() < 0.1 else "active"
        course = section.rpartition("-")[0].replace("SEC", "CRS")
        rows.append([course, user, role, section, status, ""])
        if role == "student" and chance.random() < 0.04:
            other = "active" if status != "active" else chance.choice(GONE)
            rows.insert(chance.randrange(len(rows) + 1), [course, user, role, section, other, ""])
    return {
        "terms.csv": [["term_id", "name", "status", "start_date", "end_date"], *terms],
        "courses.csv": [
            ["course_id", "short_name", "long_name", "account_id", "term_id", "status"],
            *([name, name[4:], f"Course {name[4:]}", "A1", chance.choice(("T1", "T2")), "active"] for name in courses),
        ],
        "sections.csv": [
            ["section_id", "course_id", "name", "status", "start_date", "end_date"],
            *(
                [name, name.rpartition("-")[0].replace("SEC", "CRS"), f"Section {name[-1]}", "active", "", ""]
                for name in sections
            ),
        ],
        "users.csv": [
            ["user_id", "integration_id", "login_id", "first_name", "last_name", "sortable_name", "email", "status"],
            *people,
        ],
        "enrollments.csv": [
            ["course_id", "user_id", "role", "section_id", "status", "associated_user_id"],
            *rows[:enrollments],
        ],
    }


def taken(rows: Iterable[Sequence[str]]) -> Counter[str]:
    """Count what becomes of the rows of a Canvas set's enrollments, without the header: enroll, drop, or a role."""
    return Counter(
        f"role {role}" if role != "student" else "enroll" if status == "active" else "drop"
        for _, _, role, _, status, _ in rows
    )


def messy(students: int = 40) -> bytes:
    """Make a list of students as a spreadsheet in Germany saves it.

    It has `;`, Windows-1252, a column and rows that are empty, spaces, a number that two rows have, and a total.
    """
    lines = ["sep=;", "Student-Nr.;External ID ;Given Name; Family name;E-Mail;;Bemerkung"]
    for number in range(1, students + 1):
        given, family = GIVEN[number % 4], ("Müller", "Groß", "Çelik", "de l'Épée")[number % 4]
        lines.append(f'{number};S{number:04}; {given} ;{family};{given.lower()}{number}@schule.example;;"a; ""b""\n"')
        if number % 15 == 0:
            lines.append(";;;;;;")
    lines.append(f"{students + 1};S0001;Zweite;Nummer;zweite@schule.example;;")
    lines += ["", f"Summe;;{students + 1};;;;"]
    return "\r\n".join([*lines, ""]).encode("cp1252")
