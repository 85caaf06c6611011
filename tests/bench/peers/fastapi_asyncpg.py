"""The two routes in FastAPI, SQLAlchemy 2's async ORM on asyncpg, and Pydantic, as their tutorials teach them.

Fewer rules than the service: no seats, no waitlist, no events; the key alone refuses a second enrollment.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, PositiveInt
from sqlalchemy import DateTime, ForeignKey, Index, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

# As many connections as FastAPI + SQLAlchemy has on SQLite, and no limit to the wait for one of them.
engine = create_async_engine(os.environ["DATABASE"], pool_size=40, max_overflow=0, pool_timeout=None)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The tables."""


class Student(Base):
    """Who enrolls."""

    __tablename__ = "students"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    enrollments: Mapped[list["Enrollment"]] = relationship(back_populates="student", order_by="Enrollment.course_id")


class Course(Base):
    """What a student enrolls in."""

    __tablename__ = "courses"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    level: Mapped[str] = mapped_column(String(200))
    enrollments: Mapped[list["Enrollment"]] = relationship(back_populates="course")


class Enrollment(Base):
    """The association object between the two."""

    __tablename__ = "enrollments"
    __table_args__ = (Index("enrollment_roster", "course_id", "student_id"),)
    student_id: Mapped[int] = mapped_column(ForeignKey("students.id"), primary_key=True)
    course_id: Mapped[int] = mapped_column(ForeignKey("courses.id"), primary_key=True)
    enrolled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    student: Mapped[Student] = relationship(back_populates="enrollments")
    course: Mapped[Course] = relationship(back_populates="enrollments")


class ScheduleRow(BaseModel):
    """A course of a student."""

    id: int
    name: str
    level: str
    enrolled_at: datetime


class RosterRow(BaseModel):
    """A student of a course."""

    id: int
    name: str
    enrolled_at: datetime


class NewEnrollment(BaseModel):
    """What a client sends."""

    course_id: PositiveInt


class EnrollmentOut(BaseModel):
    """What it gets."""

    model_config = ConfigDict(from_attributes=True)
    student_id: int
    course_id: int
    enrolled_at: datetime


async def get_session() -> AsyncIterator[AsyncSession]:
    """Give each request a session of its own."""
    async with new_session() as session:
        yield session


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Make the tables where they are not there yet."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


SessionDep = Annotated[AsyncSession, Depends(get_session)]
app = FastAPI(lifespan=lifespan)


@app.get("/students/{student_id}/courses")
async def show_schedule(student_id: int, session: SessionDep) -> list[ScheduleRow]:
    """List the courses of one student."""
    wanted = joinedload(Student.enrollments).joinedload(Enrollment.course)
    student = await session.get(Student, student_id, options=[wanted])
    if student is None:
        raise HTTPException(404, "Student not found")
    return [
        ScheduleRow(id=row.course.id, name=row.course.name, level=row.course.level, enrolled_at=row.enrolled_at)
        for row in student.enrollments
    ]


@app.post("/students/{student_id}/courses", status_code=201)
async def enroll(student_id: int, payload: NewEnrollment, session: SessionDep) -> EnrollmentOut:
    """Enroll a student in a course."""
    if await session.get(Student, student_id) is None:
        raise HTTPException(404, "Student not found")
    if await session.get(Course, payload.course_id) is None:
        raise HTTPException(404, "Course not found")
    enrollment = Enrollment(student_id=student_id, course_id=payload.course_id, enrolled_at=datetime.now(UTC))
    session.add(enrollment)
    try:
        await session.commit()
    except IntegrityError as error:
        raise HTTPException(409, "Already enrolled") from error
    return EnrollmentOut.model_validate(enrollment)


@app.get("/courses/{course_id}/students")
async def show_roster(course_id: int, session: SessionDep, after: int = 0, limit: int = 100) -> list[RosterRow]:
    """List the students of one course, a page at a time."""
    if await session.get(Course, course_id) is None:
        raise HTTPException(404, "Course not found")
    page = (
        select(Enrollment)
        .where(Enrollment.course_id == course_id, Enrollment.student_id > after)
        .options(joinedload(Enrollment.student))
        .order_by(Enrollment.student_id)
        .limit(limit)
    )
    return [
        RosterRow(id=row.student.id, name=row.student.name, enrolled_at=row.enrolled_at)
        for row in await session.scalars(page)
    ]
