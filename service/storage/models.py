"""Describe the schema as Peewee models.

The models are bound to no database: name one with each query, as in `Student.select().execute(db)`. A query without a
database raises an error.
"""

import peewee as pw
from playhouse.sqlite_ext import AutoIncrementField

from service.fields import MAX_EMAIL, MAX_NAME


class Term(pw.Model):
    """A term, which courses are held in; both days belong to the term."""

    id = AutoIncrementField()
    external_id = pw.CharField(max_length=MAX_NAME, null=True)
    name = pw.CharField(max_length=MAX_NAME)
    starts_on = pw.CharField(max_length=10, null=True)
    ends_on = pw.CharField(max_length=10, null=True)

    class Meta:
        """The table; the index of external ids is added below."""

        table_name = "terms"


class Course(pw.Model):
    """A course, which students enroll in."""

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
    """The id of the event for which the triggers last changed `enrolled` and `waitlisted`, which are the triggers' own:
    an UPDATE of the counts that does not name the newest event is refused."""
    external_id = pw.CharField(max_length=MAX_NAME, null=True)
    term = pw.ForeignKeyField(Term, null=True, on_delete="RESTRICT", index=False)
    opens_at = pw.CharField(max_length=24, null=True)
    closes_at = pw.CharField(max_length=24, null=True)
    """Students may enroll from `opens_at` on, until before `closes_at`; null for no bound."""

    class Meta:
        """The indexes: a page of courses by name, by level, or by both is one range of one index."""

        table_name = "courses"
        indexes = (
            (("name", "id"), False),
            (("level", "id"), False),
            (("level", "name", "id"), False),
        )


_enrollment = pw.DeferredThroughModel()


class Student(pw.Model):
    """A student, who enrolls in courses."""

    id = AutoIncrementField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")
    external_id = pw.CharField(max_length=MAX_NAME, null=True)
    given_name = pw.CharField(max_length=MAX_NAME, null=True)
    family_name = pw.CharField(max_length=MAX_NAME, null=True)
    email = pw.CharField(max_length=MAX_EMAIL, null=True)
    courses = pw.ManyToManyField(Course, backref="students", through_model=_enrollment)

    class Meta:
        """The index: a page of students by name is one range of it."""

        table_name = "students"
        indexes = ((("name", "id"), False),)


class Enrollment(pw.Model):
    """The table between students and courses: a student is enrolled in a course, or waits for a seat."""

    student = pw.ForeignKeyField(Student, on_delete="RESTRICT", index=False)
    course = pw.ForeignKeyField(Course, on_delete="RESTRICT", index=False)
    enrolled_at = pw.CharField(max_length=24, null=True)
    """When the student got the seat, as RFC 3339 in UTC, to the millisecond; null while the student waits."""
    waiting = pw.IntegerField(null=True)
    """The place in line, lowest first: the id of the event that began the waiting; null once the student has a seat."""
    event_id = pw.IntegerField(null=True)
    """The id of the event that began the enrollment. While the enrollment is there, this column leads from the student
    to that event, which is not in the index of events by student. It is null, or the id of another event, where the
    event is in that index after all: the event is older than migration 004, or a trigger of another program wrote an
    event of its own first. An INSERT with 0 asks for an override."""

    class Meta:
        """The table is stored in its primary key, WITHOUT ROWID, so that a student's schedule is one range of it.

        A course's roster is one range of the index, where `waiting` is null, and its waitlist is another.
        """

        table_name = "enrollments"
        primary_key = pw.CompositeKey("student", "course")
        without_rowid = True
        indexes = ((("course", "waiting", "student", "enrolled_at"), False),)
        constraints = (pw.Check("(enrolled_at IS NULL) <> (waiting IS NULL)"),)


class Event(pw.Model):
    """One change of an enrollment: it was begun, promoted from the waitlist to a seat, or ended.

    The database refuses to change or delete an event. An event stays when its student or course is deleted, so the two
    ids in it are no foreign keys.
    """

    id = pw.AutoField()
    type = pw.CharField(max_length=10)
    at = pw.CharField(max_length=24)
    student_id = pw.IntegerField()
    course_id = pw.IntegerField()
    filed = pw.BooleanField(constraints=[pw.Default(1)])
    """Whether the index of events by student has this event. It does not while an enrollment's `event_id` leads to it,
    which saves each enrollment an entry in that index; when the enrollment is dropped, the event is filed there. No
    other column of an event ever changes."""

    class Meta:
        """The index of events by course; that of events by student, which has the filed ones alone, is added below."""

        table_name = "enrollment_events"
        indexes = ((("course_id", "id"), False),)


class EventNote(pw.Model):
    """Who made an event, and why, and whether the seat was given past the rules; most events have no note.

    The database refuses to change or delete a note, but for its reason, which may be made null.
    """

    event_id = pw.IntegerField(primary_key=True)
    actor = pw.CharField(max_length=MAX_NAME, null=True)
    reason = pw.CharField(max_length=MAX_NAME, null=True)
    override = pw.BooleanField(constraints=[pw.Default(0)])

    class Meta:
        """The table has a row only for an event that there is something to note about."""

        table_name = "event_notes"


for _model in (Term, Course, Student):
    _model.add_index(_model.index(_model.external_id, unique=True, where=pw.SQL("external_id IS NOT NULL")))
for _columns in ((Course.term, Course.id), (Course.term, Course.name, Course.id)):
    Course.add_index(Course.index(*_columns, where=pw.SQL("term_id IS NOT NULL")))


class Letter(pw.Model):
    """A letter, and what stands for it where the search compares words: no case, no accent."""

    letter = pw.TextField(primary_key=True)
    plain = pw.TextField()

    class Meta:
        """The table is stored in its primary key."""

        table_name = "letters"
        without_rowid = True


class StudentWord(pw.Model):
    """A beginning by which the search finds a student; the triggers of the table students keep these rows."""

    beginning = pw.TextField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")
    student_id = pw.IntegerField()
    words = pw.TextField()
    """All words of the student, each behind a comma."""

    class Meta:
        """A page of a search is one range of the primary key, in which the table is stored."""

        table_name = "student_words"
        primary_key = pw.CompositeKey("beginning", "name", "student_id")
        without_rowid = True


class StudentWordBefore(pw.Model):
    """The beginnings of a student whose row a statement is changing just now."""

    student_id = pw.IntegerField()
    beginning = pw.TextField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")

    class Meta:
        """The table is stored in its primary key."""

        table_name = "student_words_before"
        primary_key = pw.CompositeKey("student_id", "beginning", "name")
        without_rowid = True


class CourseWord(pw.Model):
    """A beginning by which the search finds a course, as with `StudentWord`."""

    beginning = pw.TextField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")
    course_id = pw.IntegerField()
    words = pw.TextField()

    class Meta:
        """A page of a search is one range of the primary key, in which the table is stored."""

        table_name = "course_words"
        primary_key = pw.CompositeKey("beginning", "name", "course_id")
        without_rowid = True


class CourseWordBefore(pw.Model):
    """The beginnings of a course whose row a statement is changing just now."""

    course_id = pw.IntegerField()
    beginning = pw.TextField()
    name = pw.CharField(max_length=MAX_NAME, collation="NOCASE")

    class Meta:
        """The table is stored in its primary key."""

        table_name = "course_words_before"
        primary_key = pw.CompositeKey("course_id", "beginning", "name")
        without_rowid = True


_MOMENT = "GLOB '????-??-??T??:??:??.???Z'"


class ApiToken(pw.Model):
    """A token, by which a program may use the API; a token is never deleted."""

    id = pw.CharField(max_length=8, primary_key=True)
    hash = pw.BlobField(constraints=[pw.Check("length(hash) = 32")])
    """The SHA-256 of the secret; the secret itself is stored nowhere."""
    name = pw.CharField(max_length=MAX_NAME)
    scopes = pw.CharField(max_length=MAX_NAME)
    """The names of the scopes, with a space between two."""
    created_at = pw.CharField(max_length=24)
    expires_at = pw.CharField(max_length=24, null=True, constraints=[pw.Check(f"expires_at {_MOMENT}")])
    revoked_at = pw.CharField(max_length=24, null=True)
    previous_hash = pw.BlobField(null=True)
    """The SHA-256 of the secret before this one, which counts until `previous_until`."""
    previous_until = pw.CharField(max_length=24, null=True, constraints=[pw.Check(f"previous_until {_MOMENT}")])
    last_used_on = pw.CharField(max_length=10, null=True)

    class Meta:
        """The table is stored in its primary key."""

        table_name = "api_tokens"
        without_rowid = True


class ApiSession(pw.Model):
    """A session, by which the browser of whoever has a token may use the API; it ends with its token."""

    hash = pw.BlobField(primary_key=True)
    """The SHA-256 of the cookie."""
    token = pw.ForeignKeyField(ApiToken, on_delete="CASCADE", index=False)
    ends_at = pw.CharField(max_length=24, constraints=[pw.Check(f"ends_at {_MOMENT}")])

    class Meta:
        """The table is stored in its primary key."""

        table_name = "api_sessions"
        without_rowid = True


Event.add_index(Event.index(Event.student_id, Event.id, where=pw.SQL("filed")))

_enrollment.set_model(Enrollment)
