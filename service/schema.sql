-- The schema of the service as its migrations leave it: its tables, and the indexes and triggers on each.
-- It is not run to make a database, the migrations are. `connect` and `serve` compare a database with it,
-- and `python -m service repair` takes from it what is missing.
-- Do not edit it: after a new migration write it anew with `make schema`; a test holds it to the migrations.

CREATE TABLE students (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(200) NOT NULL COLLATE NOCASE
);

CREATE INDEX student_name_id ON students (name, id);

CREATE TABLE courses (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    level VARCHAR(200) NOT NULL,
    capacity INTEGER,
    waitlist_capacity INTEGER DEFAULT 0,
    enrolled INTEGER NOT NULL DEFAULT 0 CHECK (enrolled >= 0 AND enrolled <= capacity),
    waitlisted INTEGER NOT NULL DEFAULT 0 CHECK (waitlisted >= 0 AND waitlisted <= waitlist_capacity)
);

CREATE INDEX course_level_id ON courses (level, id);

CREATE INDEX course_level_name_id ON courses (level, name, id);

CREATE INDEX course_name_id ON courses (name, id);

CREATE TRIGGER seats_freed 
        AFTER UPDATE OF capacity, enrolled ON courses
        WHEN NEW.waitlisted > 0 AND (NEW.capacity IS NULL OR NEW.enrolled < NEW.capacity) BEGIN
            INSERT INTO enrollment_events (type, at, student_id, course_id) SELECT 'promoted', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), student_id, course_id 
    FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
    LIMIT min(NEW.waitlisted, coalesce(NEW.capacity - NEW.enrolled, NEW.waitlisted));
            UPDATE enrollments SET enrolled_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), waiting = NULL
            WHERE course_id = NEW.id AND waiting IN (SELECT waiting 
    FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
    LIMIT min(NEW.waitlisted, coalesce(NEW.capacity - NEW.enrolled, NEW.waitlisted)));
            UPDATE courses
            SET enrolled = enrolled + min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                waitlisted = waitlisted - min(waitlisted, coalesce(capacity - enrolled, waitlisted))
            WHERE id = NEW.id;
        END;

CREATE TABLE enrollments (
    student_id INTEGER NOT NULL REFERENCES students (id) ON DELETE RESTRICT,
    course_id INTEGER NOT NULL REFERENCES courses (id) ON DELETE RESTRICT,
    enrolled_at VARCHAR(24),
    waiting INTEGER,
    event_id INTEGER,
    PRIMARY KEY (student_id, course_id),
    CHECK ((enrolled_at IS NULL) <> (waiting IS NULL))
) WITHOUT ROWID;

CREATE INDEX enrollment_course_id_waiting_student_id_enrolled_at
        ON enrollments (course_id, waiting, student_id, enrolled_at);

CREATE TRIGGER enrollment_added 
        AFTER INSERT ON enrollments BEGIN
            UPDATE courses
            SET enrolled = enrolled + (NEW.waiting IS NULL), waitlisted = waitlisted + (NEW.waiting IS NOT NULL)
            WHERE id = NEW.course_id;
            INSERT INTO enrollment_events (filed, type, at, student_id, course_id) VALUES (
                NEW.event_id IS NOT (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events),
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), NEW.student_id, NEW.course_id);
        END;

CREATE TRIGGER enrollment_changed 
        BEFORE UPDATE ON enrollments
        WHEN NEW.student_id <> OLD.student_id OR NEW.course_id <> OLD.course_id OR NEW.waiting IS NOT NULL OR NEW.event_id IS NOT OLD.event_id
          OR NOT EXISTS (SELECT 1 FROM enrollment_events
                         WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                           AND type = 'promoted' AND id > OLD.waiting)
        BEGIN SELECT raise(ABORT, 'an enrollment is added, promoted by a free seat, or dropped'); END;

CREATE TRIGGER enrollment_dropped 
        AFTER DELETE ON enrollments BEGIN
            UPDATE enrollment_events SET filed = 1 WHERE id = OLD.event_id;
            INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('dropped', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), OLD.student_id, OLD.course_id);
            UPDATE courses
            SET enrolled = enrolled - (OLD.waiting IS NULL), waitlisted = waitlisted - (OLD.waiting IS NOT NULL)
            WHERE id = OLD.course_id;
        END;

CREATE TRIGGER enrollment_refused 
        BEFORE INSERT ON enrollments BEGIN
            SELECT raise(ABORT, 'already enrolled or waiting')
            FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id;
            SELECT raise(ABORT, 'no seat, no place in line, or a seat instead of one')
            FROM courses
            WHERE id = NEW.course_id
              AND CASE WHEN NEW.waiting IS NULL THEN enrolled >= capacity
                       ELSE capacity IS NULL OR enrolled < capacity OR waitlisted >= waitlist_capacity
                         OR NEW.waiting <> (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events) END;
        END;

CREATE TABLE enrollment_events (
    id INTEGER NOT NULL PRIMARY KEY,
    type VARCHAR(10) NOT NULL,
    at VARCHAR(24) NOT NULL,
    student_id INTEGER NOT NULL,
    course_id INTEGER NOT NULL,
    filed INTEGER NOT NULL DEFAULT 1
);

CREATE INDEX event_course_id_id ON enrollment_events (course_id, id);

CREATE INDEX event_student_id_id ON enrollment_events (student_id, id) WHERE filed;

CREATE TRIGGER event_added 
        BEFORE INSERT ON enrollment_events WHEN EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id)
        BEGIN SELECT raise(ABORT, 'events are never changed'); END;

CREATE TRIGGER event_changed BEFORE UPDATE ON enrollment_events
        WHEN NEW.filed <> 1 OR (NEW.id, NEW.type, NEW.at, NEW.student_id, NEW.course_id)
          IS NOT (OLD.id, OLD.type, OLD.at, OLD.student_id, OLD.course_id)
        BEGIN SELECT raise(ABORT, 'events are never changed'); END;

CREATE TRIGGER event_deleted BEFORE DELETE ON enrollment_events BEGIN SELECT raise(ABORT, 'events are never deleted'); END;
