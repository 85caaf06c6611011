-- The schema of the service as its migrations leave it: its tables, and the indexes and triggers on each.
-- It is not run to make a database, the migrations are. `connect` and `serve` compare a database with it,
-- and `python -m service repair` takes from it what is missing.
-- Do not edit it: after a new migration write it anew with `make schema`; a test holds it to the migrations.

CREATE TABLE students (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(200) NOT NULL COLLATE NOCASE
);

CREATE INDEX student_name_id ON students (name, id);

CREATE TRIGGER student_added 
        AFTER INSERT ON students WHEN typeof(NEW.name) <> 'text'
        BEGIN SELECT raise(ABORT, 'students.name is a text'); END;

CREATE TRIGGER student_changed 
        BEFORE UPDATE OF id, name ON students WHEN NEW.id IS NOT OLD.id OR typeof(NEW.name) <> 'text' BEGIN
            SELECT raise(ABORT, 'students.name is a text') WHERE NEW.id IS OLD.id;
            SELECT raise(ABORT, 'the id of a student never changes');
        END;

CREATE TRIGGER student_deleted 
        BEFORE DELETE ON students WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'student_has_enrollments: the student is enrolled or waits'); END;

CREATE TABLE courses (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    level VARCHAR(200) NOT NULL,
    capacity INTEGER,
    waitlist_capacity INTEGER DEFAULT 0,
    enrolled INTEGER NOT NULL DEFAULT 0 CHECK (enrolled >= 0 AND enrolled <= capacity),
    waitlisted INTEGER NOT NULL DEFAULT 0 CHECK (waitlisted >= 0 AND waitlisted <= waitlist_capacity),
    event_id INTEGER
);

CREATE INDEX course_level_id ON courses (level, id);

CREATE INDEX course_level_name_id ON courses (level, name, id);

CREATE INDEX course_name_id ON courses (name, id);

CREATE TRIGGER course_added 
        AFTER INSERT ON courses BEGIN
            SELECT CASE 
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'courses.name is a text')
    WHEN typeof(NEW.level) <> 'text' THEN raise(ABORT, 'courses.level is a text')
    WHEN typeof(NEW.capacity) <> 'integer' AND NEW.capacity IS NOT NULL OR NEW.capacity < 0
    THEN raise(ABORT, 'courses.capacity is a whole number from 0, or null')
    WHEN typeof(NEW.waitlist_capacity) <> 'integer' AND NEW.waitlist_capacity IS NOT NULL
      OR NEW.waitlist_capacity < 0
    THEN raise(ABORT, 'courses.waitlist_capacity is a whole number from 0, or null')
    WHEN NEW.capacity < NEW.enrolled
    THEN raise(ABORT, 'capacity_below_enrolled: more students are enrolled than this capacity')
    WHEN NEW.waitlist_capacity < NEW.waitlisted
    THEN raise(ABORT, 'waitlist_capacity_below_waitlisted: more students wait than this waitlist_capacity')
                WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (0, 0, NULL)
                  OR EXISTS (SELECT 1 FROM enrollments WHERE course_id = NEW.id)
                THEN raise(ABORT, 'the counts of a course belong to its enrollments') END;
        END;

CREATE TRIGGER course_changed 
        BEFORE UPDATE OF id, name, level, capacity, waitlist_capacity ON courses BEGIN
            SELECT CASE WHEN NEW.id IS NOT OLD.id THEN raise(ABORT, 'the id of a course never changes')
                
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'courses.name is a text')
    WHEN typeof(NEW.level) <> 'text' THEN raise(ABORT, 'courses.level is a text')
    WHEN typeof(NEW.capacity) <> 'integer' AND NEW.capacity IS NOT NULL OR NEW.capacity < 0
    THEN raise(ABORT, 'courses.capacity is a whole number from 0, or null')
    WHEN typeof(NEW.waitlist_capacity) <> 'integer' AND NEW.waitlist_capacity IS NOT NULL
      OR NEW.waitlist_capacity < 0
    THEN raise(ABORT, 'courses.waitlist_capacity is a whole number from 0, or null')
    WHEN NEW.capacity < NEW.enrolled
    THEN raise(ABORT, 'capacity_below_enrolled: more students are enrolled than this capacity')
    WHEN NEW.waitlist_capacity < NEW.waitlisted
    THEN raise(ABORT, 'waitlist_capacity_below_waitlisted: more students wait than this waitlist_capacity') END;
        END;

CREATE TRIGGER course_counted 
        BEFORE UPDATE OF enrolled, waitlisted, event_id ON courses
        WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (OLD.enrolled, OLD.waitlisted, OLD.event_id)
          AND NOT coalesce(NEW.event_id > coalesce(OLD.event_id, 0) AND NEW.event_id = last_insert_rowid(), 0)
        BEGIN SELECT raise(ABORT, 'the counts of a course belong to its enrollments'); END;

CREATE TRIGGER course_deleted 
        BEFORE DELETE ON courses WHEN EXISTS (SELECT 1 FROM enrollments WHERE course_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'course_has_enrollments: students are enrolled or wait'); END;

CREATE TRIGGER seats_freed 
        AFTER UPDATE OF capacity ON courses
        WHEN NEW.waitlisted > 0 AND (NEW.capacity IS NULL OR NEW.enrolled < NEW.capacity) BEGIN
            INSERT INTO enrollment_events (type, at, student_id, course_id)
            SELECT 'promoted', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), student_id, course_id 
    FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
    LIMIT min(NEW.waitlisted, coalesce(NEW.capacity - NEW.enrolled, NEW.waitlisted));
            UPDATE enrollments SET enrolled_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), waiting = NULL
            WHERE course_id = NEW.id AND waiting <= (SELECT max(head) FROM (SELECT waiting AS head 
    FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
    LIMIT min(NEW.waitlisted, coalesce(NEW.capacity - NEW.enrolled, NEW.waitlisted))));
            UPDATE courses
            SET enrolled = enrolled + min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                waitlisted = waitlisted - min(waitlisted, coalesce(capacity - enrolled, waitlisted)),
                event_id = last_insert_rowid()
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
            INSERT INTO enrollment_events (filed, type, at, student_id, course_id) VALUES (
                NEW.event_id IS NOT (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events),
                CASE WHEN NEW.waiting IS NULL THEN 'enrolled' ELSE 'waitlisted' END,
                coalesce(NEW.enrolled_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), NEW.student_id, NEW.course_id);
            UPDATE courses
            SET enrolled = CASE WHEN NEW.waiting IS NOT NULL THEN enrolled
                                WHEN enrolled >= capacity THEN raise(ABORT, 'course_full: no seat is free, and no place on the waitlist') ELSE enrolled + 1 END,
                waitlisted = CASE WHEN NEW.waiting IS NULL THEN waitlisted
                                  WHEN waitlisted >= waitlist_capacity OR enrolled < capacity OR capacity IS NULL
                                  THEN raise(ABORT, 'course_full: no seat is free, and no place on the waitlist') ELSE waitlisted + 1 END,
                event_id = last_insert_rowid()
            WHERE id = NEW.course_id;
            SELECT raise(ABORT, 'course_not_found: no course has this id') WHERE changes() = 0;
        END;

CREATE TRIGGER enrollment_asked 
        BEFORE INSERT ON enrollments
        WHEN CASE WHEN NEW.waiting IS NOT NULL
                  THEN NEW.waiting <> (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events)
                    OR (SELECT waitlisted >= waitlist_capacity FROM courses WHERE id = NEW.course_id)
                  WHEN NEW.event_id IS NOT NULL THEN NEW.enrolled_at IS NULL
                  ELSE coalesce(NEW.enrolled_at NOT GLOB '????-??-??T??:??:??.???Z', 1)
                    OR (SELECT enrolled >= capacity FROM courses WHERE id = NEW.course_id) END
        BEGIN
            SELECT raise(ABORT, 'a trigger on enrollment_events cannot enroll: let it be on enrollments') WHERE (SELECT id > (SELECT coalesce(event_id, 0) FROM courses WHERE id = course_id)
              FROM enrollment_events ORDER BY id DESC LIMIT 1);
            INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting, event_id) VALUES (
                NEW.student_id, NEW.course_id,
                CASE WHEN (SELECT enrolled >= capacity FROM courses WHERE id = NEW.course_id) THEN NULL
                     WHEN coalesce(NEW.enrolled_at, '') = '' THEN strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
                     WHEN NEW.enrolled_at GLOB '????-??-??*' AND julianday(NEW.enrolled_at) IS NOT NULL
                      AND date(substr(NEW.enrolled_at, 1, 10), '+0 days') = substr(NEW.enrolled_at, 1, 10)
                     THEN strftime('%Y-%m-%dT%H:%M:%fZ', NEW.enrolled_at)
                     ELSE raise(ABORT, 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one') END,
                (SELECT CASE WHEN enrolled < capacity OR capacity IS NULL THEN NULL
                             WHEN waitlisted >= waitlist_capacity AND EXISTS (
                                 SELECT 1 FROM students WHERE id = NEW.student_id
                             ) AND NOT EXISTS (
                                 SELECT 1 FROM enrollments
                                 WHERE student_id = NEW.student_id AND course_id = NEW.course_id
                             ) THEN raise(ABORT, 'course_full: no seat is free, and no place on the waitlist') ELSE (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events) END
                 FROM courses WHERE id = NEW.course_id),
                (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events));
            SELECT raise(IGNORE);
        END;

CREATE TRIGGER enrollment_changed 
        BEFORE UPDATE ON enrollments
        WHEN NEW.student_id <> OLD.student_id OR NEW.course_id <> OLD.course_id OR NEW.waiting IS NOT NULL
          OR NEW.event_id IS NOT OLD.event_id
          OR NOT EXISTS (SELECT 1 FROM enrollment_events
                         WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                           AND type = 'promoted' AND id > OLD.waiting AND filed)
        BEGIN SELECT raise(ABORT, 'an enrollment is added, promoted by a free seat, or dropped'); END;

CREATE TRIGGER enrollment_dropped 
        AFTER DELETE ON enrollments BEGIN
            SELECT raise(ABORT, 'no event tells of this enrollment, or a trigger drops it while it is added')
            WHERE NOT EXISTS (SELECT 1 FROM enrollment_events
                              WHERE id = OLD.event_id AND student_id = OLD.student_id AND course_id = OLD.course_id)
              AND NOT EXISTS (SELECT 1 FROM enrollment_events
                              WHERE student_id = OLD.student_id AND course_id = OLD.course_id AND filed);
            UPDATE enrollment_events SET filed = 1 WHERE id = OLD.event_id;
            INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('dropped', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), OLD.student_id, OLD.course_id);
            UPDATE courses
            SET enrolled = enrolled - (OLD.waiting IS NULL), waitlisted = waitlisted - (OLD.waiting IS NOT NULL),
                event_id = last_insert_rowid()
            WHERE id = OLD.course_id;
            UPDATE courses SET capacity = capacity WHERE id = OLD.course_id AND waitlisted > 0;
        END;

CREATE TRIGGER enrollment_refused 
        BEFORE INSERT ON enrollments
        WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
          OR NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
          OR NEW.event_id IS NULL AND (SELECT id > (SELECT coalesce(event_id, 0) FROM courses WHERE id = course_id)
              FROM enrollment_events ORDER BY id DESC LIMIT 1)
        BEGIN
            SELECT CASE
                WHEN NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
                THEN raise(ABORT, 'student_not_found: no student has this id')
                WHEN (SELECT waiting IS NULL FROM enrollments
                      WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
                THEN raise(ABORT, 'already_enrolled: the student has a seat in the course')
                WHEN EXISTS (SELECT 1 FROM enrollments
                             WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
                THEN raise(ABORT, 'already_waitlisted: the student waits for a seat in the course')
                ELSE raise(ABORT, 'a trigger on enrollment_events cannot enroll: let it be on enrollments') END;
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
        BEFORE INSERT ON enrollment_events
        WHEN EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id)
          OR NEW.filed AND (NEW.at NOT GLOB '????-??-??T??:??:??.???Z' OR julianday(NEW.at) IS NULL
                            OR date(NEW.at, '+0 days') IS NOT substr(NEW.at, 1, 10))
        BEGIN
            SELECT raise(ABORT, 'events are never changed')
            WHERE EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.id);
            SELECT raise(ABORT, 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one');
        END;

CREATE TRIGGER event_changed BEFORE UPDATE ON enrollment_events
        WHEN NEW.filed <> 1 OR (NEW.id, NEW.type, NEW.at, NEW.student_id, NEW.course_id)
          IS NOT (OLD.id, OLD.type, OLD.at, OLD.student_id, OLD.course_id)
        BEGIN SELECT raise(ABORT, 'events are never changed'); END;

CREATE TRIGGER event_deleted BEFORE DELETE ON enrollment_events BEGIN SELECT raise(ABORT, 'events are never deleted'); END;
