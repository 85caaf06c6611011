-- The schema of the service as its migrations leave it: its tables, and the indexes and triggers on each.
-- It is not run to make a database, the migrations are. `connect` and `serve` compare a database with it,
-- and `python -m service repair` takes from it what is missing.
-- Do not edit it: after a new migration write it anew with `make schema`; a test holds it to the migrations.

CREATE TABLE students (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    external_id VARCHAR(200),
    given_name VARCHAR(200),
    family_name VARCHAR(200),
    email VARCHAR(254)
);

CREATE UNIQUE INDEX student_external_id ON students (external_id) WHERE external_id IS NOT NULL;

CREATE INDEX student_name_id ON students (name, id);

CREATE TRIGGER student_added 
        AFTER INSERT ON students BEGIN SELECT CASE 
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'students.name is a text')
    WHEN typeof(NEW.external_id) NOT IN ('text', 'null') OR NEW.external_id = ''
    THEN raise(ABORT, 'students.external_id is a text with a character, or null')
    WHEN typeof(NEW.given_name) NOT IN ('text', 'null') OR NEW.given_name = ''
    THEN raise(ABORT, 'students.given_name is a text with a character, or null')
    WHEN typeof(NEW.family_name) NOT IN ('text', 'null') OR NEW.family_name = ''
    THEN raise(ABORT, 'students.family_name is a text with a character, or null')
    WHEN typeof(NEW.email) NOT IN ('text', 'null') OR NEW.email = ''
    THEN raise(ABORT, 'students.email is a text with a character, or null') END; END;

CREATE TRIGGER student_changed 
        BEFORE UPDATE ON students BEGIN
            SELECT CASE WHEN NEW.id IS NOT OLD.id THEN raise(ABORT, 'the id of a student never changes')
                WHEN NEW.external_id IS NOT OLD.external_id
                  AND EXISTS (SELECT 1 FROM students WHERE external_id = NEW.external_id)
                THEN raise(ABORT, 'external_id_taken: another row of students has this external_id') 
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'students.name is a text')
    WHEN typeof(NEW.external_id) NOT IN ('text', 'null') OR NEW.external_id = ''
    THEN raise(ABORT, 'students.external_id is a text with a character, or null')
    WHEN typeof(NEW.given_name) NOT IN ('text', 'null') OR NEW.given_name = ''
    THEN raise(ABORT, 'students.given_name is a text with a character, or null')
    WHEN typeof(NEW.family_name) NOT IN ('text', 'null') OR NEW.family_name = ''
    THEN raise(ABORT, 'students.family_name is a text with a character, or null')
    WHEN typeof(NEW.email) NOT IN ('text', 'null') OR NEW.email = ''
    THEN raise(ABORT, 'students.email is a text with a character, or null') END;
        END;

CREATE TRIGGER student_deleted 
        BEFORE DELETE ON students WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'student_has_enrollments: the student is enrolled or waits'); END;

CREATE TRIGGER student_external_id_taken 
        BEFORE INSERT ON students WHEN NEW.external_id IS NOT NULL
          AND EXISTS (SELECT 1 FROM students WHERE external_id = NEW.external_id AND id IS NOT NEW.id)
        BEGIN SELECT raise(ABORT, 'external_id_taken: another row of students has this external_id'); END;

CREATE TRIGGER student_words_added 
        AFTER INSERT ON students BEGIN
            DELETE FROM student_words_before WHERE student_id = NEW.id;
            INSERT INTO student_words (beginning, name, student_id, words)
            SELECT beginning, name, student_id, words FROM words_of_students WHERE student_id = NEW.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER student_words_changed 
        AFTER UPDATE OF name, external_id, email ON students WHEN NEW.name IS NOT OLD.name OR NEW.external_id IS NOT OLD.external_id OR NEW.email IS NOT OLD.email BEGIN
            DELETE FROM student_words_before WHERE student_id = NEW.id;
            INSERT INTO student_words (beginning, name, student_id, words)
            SELECT beginning, name, student_id, words FROM words_of_students WHERE student_id = NEW.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER student_words_changing 
        BEFORE UPDATE OF name, external_id, email ON students WHEN NEW.name IS NOT OLD.name OR NEW.external_id IS NOT OLD.external_id OR NEW.email IS NOT OLD.email BEGIN
            INSERT OR IGNORE INTO student_words_before (student_id, beginning, name)
            SELECT student_id, beginning, name FROM words_of_students WHERE student_id = OLD.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER student_words_deleted 
        AFTER DELETE ON students BEGIN
            DELETE FROM student_words_before WHERE student_id = OLD.id;
        END;

CREATE TRIGGER student_words_deleting 
        BEFORE DELETE ON students BEGIN
            INSERT OR IGNORE INTO student_words_before (student_id, beginning, name)
            SELECT student_id, beginning, name FROM words_of_students WHERE student_id = OLD.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER student_words_replaced 
        BEFORE INSERT ON students WHEN EXISTS (SELECT 1 FROM students WHERE id = NEW.id) BEGIN
            INSERT OR IGNORE INTO student_words_before (student_id, beginning, name)
            SELECT student_id, beginning, name FROM words_of_students WHERE student_id = NEW.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TABLE courses (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    level VARCHAR(200) NOT NULL,
    capacity INTEGER,
    waitlist_capacity INTEGER DEFAULT 0,
    enrolled INTEGER NOT NULL DEFAULT 0 CHECK (enrolled >= 0 AND enrolled <= capacity),
    waitlisted INTEGER NOT NULL DEFAULT 0 CHECK (waitlisted >= 0 AND waitlisted <= waitlist_capacity),
    event_id INTEGER,
    external_id VARCHAR(200),
    term_id INTEGER REFERENCES terms (id) ON DELETE RESTRICT,
    opens_at VARCHAR(24),
    closes_at VARCHAR(24)
);

CREATE UNIQUE INDEX course_external_id ON courses (external_id) WHERE external_id IS NOT NULL;

CREATE INDEX course_level_id ON courses (level, id);

CREATE INDEX course_level_name_id ON courses (level, name, id);

CREATE INDEX course_name_id ON courses (name, id);

CREATE INDEX course_term_id_id ON courses (term_id, id) WHERE term_id IS NOT NULL;

CREATE INDEX course_term_id_name_id ON courses (term_id, name, id) WHERE term_id IS NOT NULL;

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
    WHEN typeof(NEW.external_id) NOT IN ('text', 'null') OR NEW.external_id = ''
    THEN raise(ABORT, 'courses.external_id is a text with a character, or null')
    WHEN NEW.opens_at IS NOT NULL AND (typeof(NEW.opens_at) <> 'text' OR NEW.opens_at NOT GLOB '????-??-??T??:??:??.???Z'
      OR julianday(NEW.opens_at) IS NULL OR date(NEW.opens_at, '+0 days') IS NOT substr(NEW.opens_at, 1, 10))
    THEN raise(ABORT, 'courses.opens_at is a time such as 2026-09-01T08:30:00.000Z, or null')
    WHEN NEW.closes_at IS NOT NULL AND (typeof(NEW.closes_at) <> 'text' OR NEW.closes_at NOT GLOB '????-??-??T??:??:??.???Z'
      OR julianday(NEW.closes_at) IS NULL OR date(NEW.closes_at, '+0 days') IS NOT substr(NEW.closes_at, 1, 10))
    THEN raise(ABORT, 'courses.closes_at is a time such as 2026-09-01T08:30:00.000Z, or null')
    WHEN NEW.closes_at <= NEW.opens_at THEN raise(ABORT, 'courses.closes_at is after opens_at')
    WHEN NEW.term_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM terms WHERE id = NEW.term_id)
    THEN raise(ABORT, 'term_not_found: no term has this id')
                WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (0, 0, NULL)
                  OR EXISTS (SELECT 1 FROM enrollments WHERE course_id = NEW.id)
                THEN raise(ABORT, 'the counts of a course belong to its enrollments') END;
        END;

CREATE TRIGGER course_changed 
        BEFORE UPDATE OF name, level, capacity, waitlist_capacity, external_id, term_id, opens_at, closes_at ON courses BEGIN
            SELECT CASE WHEN NEW.external_id IS NOT OLD.external_id
                  AND EXISTS (SELECT 1 FROM courses WHERE external_id = NEW.external_id)
                THEN raise(ABORT, 'external_id_taken: another row of courses has this external_id')
                
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
    WHEN typeof(NEW.external_id) NOT IN ('text', 'null') OR NEW.external_id = ''
    THEN raise(ABORT, 'courses.external_id is a text with a character, or null')
    WHEN NEW.opens_at IS NOT NULL AND (typeof(NEW.opens_at) <> 'text' OR NEW.opens_at NOT GLOB '????-??-??T??:??:??.???Z'
      OR julianday(NEW.opens_at) IS NULL OR date(NEW.opens_at, '+0 days') IS NOT substr(NEW.opens_at, 1, 10))
    THEN raise(ABORT, 'courses.opens_at is a time such as 2026-09-01T08:30:00.000Z, or null')
    WHEN NEW.closes_at IS NOT NULL AND (typeof(NEW.closes_at) <> 'text' OR NEW.closes_at NOT GLOB '????-??-??T??:??:??.???Z'
      OR julianday(NEW.closes_at) IS NULL OR date(NEW.closes_at, '+0 days') IS NOT substr(NEW.closes_at, 1, 10))
    THEN raise(ABORT, 'courses.closes_at is a time such as 2026-09-01T08:30:00.000Z, or null')
    WHEN NEW.closes_at <= NEW.opens_at THEN raise(ABORT, 'courses.closes_at is after opens_at')
    WHEN NEW.term_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM terms WHERE id = NEW.term_id)
    THEN raise(ABORT, 'term_not_found: no term has this id') END;
        END;

CREATE TRIGGER course_counted 
        BEFORE UPDATE OF enrolled, waitlisted, event_id ON courses
        WHEN (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS NOT (OLD.enrolled, OLD.waitlisted, OLD.event_id)
          AND NOT coalesce(NEW.event_id > coalesce(OLD.event_id, 0) AND NEW.event_id = last_insert_rowid(), 0)
        BEGIN SELECT raise(ABORT, 'the counts of a course belong to its enrollments'); END;

CREATE TRIGGER course_deleted 
        BEFORE DELETE ON courses WHEN EXISTS (SELECT 1 FROM enrollments WHERE course_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'course_has_enrollments: students are enrolled or wait'); END;

CREATE TRIGGER course_external_id_taken 
        BEFORE INSERT ON courses WHEN NEW.external_id IS NOT NULL
          AND EXISTS (SELECT 1 FROM courses WHERE external_id = NEW.external_id AND id IS NOT NEW.id)
        BEGIN SELECT raise(ABORT, 'external_id_taken: another row of courses has this external_id'); END;

CREATE TRIGGER course_moved 
        BEFORE UPDATE ON courses WHEN NEW.id IS NOT OLD.id
        BEGIN SELECT raise(ABORT, 'the id of a course never changes'); END;

CREATE TRIGGER course_words_added 
        AFTER INSERT ON courses BEGIN
            DELETE FROM course_words_before WHERE course_id = NEW.id;
            INSERT INTO course_words (beginning, name, course_id, words)
            SELECT beginning, name, course_id, words FROM words_of_courses WHERE course_id = NEW.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER course_words_changed 
        AFTER UPDATE OF name, external_id ON courses WHEN NEW.name IS NOT OLD.name OR NEW.external_id IS NOT OLD.external_id BEGIN
            DELETE FROM course_words_before WHERE course_id = NEW.id;
            INSERT INTO course_words (beginning, name, course_id, words)
            SELECT beginning, name, course_id, words FROM words_of_courses WHERE course_id = NEW.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER course_words_changing 
        BEFORE UPDATE OF name, external_id ON courses WHEN NEW.name IS NOT OLD.name OR NEW.external_id IS NOT OLD.external_id BEGIN
            INSERT OR IGNORE INTO course_words_before (course_id, beginning, name)
            SELECT course_id, beginning, name FROM words_of_courses WHERE course_id = OLD.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER course_words_deleted 
        AFTER DELETE ON courses BEGIN
            DELETE FROM course_words_before WHERE course_id = OLD.id;
        END;

CREATE TRIGGER course_words_deleting 
        BEFORE DELETE ON courses BEGIN
            INSERT OR IGNORE INTO course_words_before (course_id, beginning, name)
            SELECT course_id, beginning, name FROM words_of_courses WHERE course_id = OLD.id
            ON CONFLICT DO NOTHING;
        END;

CREATE TRIGGER course_words_replaced 
        BEFORE INSERT ON courses WHEN EXISTS (SELECT 1 FROM courses WHERE id = NEW.id) BEGIN
            INSERT OR IGNORE INTO course_words_before (course_id, beginning, name)
            SELECT course_id, beginning, name FROM words_of_courses WHERE course_id = NEW.id
            ON CONFLICT DO NOTHING;
        END;

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
        AFTER INSERT ON enrollments WHEN NEW.event_id IS NOT 0 OR NEW.waiting IS NOT NULL BEGIN
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
                event_id = CASE
                    WHEN opens_at IS NOT NULL AND opens_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN raise(ABORT, 'enrollment_not_open: the course is not open for enrolling yet')
                    WHEN closes_at IS NOT NULL AND closes_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN raise(ABORT, 'enrollment_closed: the course is closed for enrolling')
                    ELSE last_insert_rowid() END
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
                             ) THEN CASE WHEN opens_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN raise(ABORT, 'enrollment_not_open: the course is not open for enrolling yet') WHEN closes_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN raise(ABORT, 'enrollment_closed: the course is closed for enrolling') ELSE raise(ABORT, 'course_full: no seat is free, and no place on the waitlist') END ELSE (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events) END
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

CREATE TRIGGER enrollment_overridden 
        AFTER INSERT ON enrollments WHEN NEW.event_id = 0 AND NEW.waiting IS NULL BEGIN
            INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('enrolled', NEW.enrolled_at, NEW.student_id, NEW.course_id);
            INSERT INTO event_notes (event_id, override) VALUES (last_insert_rowid(), 1);
            UPDATE courses
            SET capacity = capacity + (enrolled >= capacity), enrolled = enrolled + 1, event_id = last_insert_rowid()
            WHERE id = NEW.course_id;
            SELECT raise(ABORT, 'course_not_found: no course has this id') WHERE changes() = 0;
        END;

CREATE TRIGGER enrollment_refused 
        BEFORE INSERT ON enrollments
        WHEN EXISTS (SELECT 1 FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id)
          OR NOT EXISTS (SELECT 1 FROM students WHERE id = NEW.student_id)
          OR coalesce(NEW.event_id, 0) = 0 AND (SELECT id > (SELECT coalesce(event_id, 0) FROM courses WHERE id = course_id)
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

CREATE TABLE terms (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    external_id VARCHAR(200),
    name VARCHAR(200) NOT NULL,
    starts_on VARCHAR(10),
    ends_on VARCHAR(10)
);

CREATE UNIQUE INDEX term_external_id ON terms (external_id) WHERE external_id IS NOT NULL;

CREATE TRIGGER term_added 
        AFTER INSERT ON terms BEGIN SELECT CASE 
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'terms.name is a text')
    WHEN typeof(NEW.external_id) NOT IN ('text', 'null') OR NEW.external_id = ''
    THEN raise(ABORT, 'terms.external_id is a text with a character, or null')
    WHEN NEW.starts_on IS NOT NULL AND (typeof(NEW.starts_on) <> 'text' OR NEW.starts_on NOT GLOB '????-??-??'
      OR FALSE OR date(NEW.starts_on, '+0 days') IS NOT substr(NEW.starts_on, 1, 10))
    THEN raise(ABORT, 'terms.starts_on is a date such as 2026-09-01, or null')
    WHEN NEW.ends_on IS NOT NULL AND (typeof(NEW.ends_on) <> 'text' OR NEW.ends_on NOT GLOB '????-??-??'
      OR FALSE OR date(NEW.ends_on, '+0 days') IS NOT substr(NEW.ends_on, 1, 10))
    THEN raise(ABORT, 'terms.ends_on is a date such as 2026-09-01, or null')
    WHEN NEW.ends_on < NEW.starts_on THEN raise(ABORT, 'terms.ends_on is not before starts_on') END; END;

CREATE TRIGGER term_changed 
        BEFORE UPDATE ON terms BEGIN SELECT CASE WHEN NEW.id IS NOT OLD.id THEN raise(ABORT, 'the id of a term never changes')
                WHEN NEW.external_id IS NOT OLD.external_id
                  AND EXISTS (SELECT 1 FROM terms WHERE external_id = NEW.external_id)
                THEN raise(ABORT, 'external_id_taken: another row of terms has this external_id') 
    WHEN typeof(NEW.name) <> 'text' THEN raise(ABORT, 'terms.name is a text')
    WHEN typeof(NEW.external_id) NOT IN ('text', 'null') OR NEW.external_id = ''
    THEN raise(ABORT, 'terms.external_id is a text with a character, or null')
    WHEN NEW.starts_on IS NOT NULL AND (typeof(NEW.starts_on) <> 'text' OR NEW.starts_on NOT GLOB '????-??-??'
      OR FALSE OR date(NEW.starts_on, '+0 days') IS NOT substr(NEW.starts_on, 1, 10))
    THEN raise(ABORT, 'terms.starts_on is a date such as 2026-09-01, or null')
    WHEN NEW.ends_on IS NOT NULL AND (typeof(NEW.ends_on) <> 'text' OR NEW.ends_on NOT GLOB '????-??-??'
      OR FALSE OR date(NEW.ends_on, '+0 days') IS NOT substr(NEW.ends_on, 1, 10))
    THEN raise(ABORT, 'terms.ends_on is a date such as 2026-09-01, or null')
    WHEN NEW.ends_on < NEW.starts_on THEN raise(ABORT, 'terms.ends_on is not before starts_on') END; END;

CREATE TRIGGER term_deleted 
        BEFORE DELETE ON terms WHEN EXISTS (SELECT 1 FROM courses WHERE term_id = OLD.id)
        BEGIN SELECT raise(ABORT, 'term_has_courses: the term has courses'); END;

CREATE TRIGGER term_external_id_taken 
        BEFORE INSERT ON terms WHEN NEW.external_id IS NOT NULL
          AND EXISTS (SELECT 1 FROM terms WHERE external_id = NEW.external_id AND id IS NOT NEW.id)
        BEGIN SELECT raise(ABORT, 'external_id_taken: another row of terms has this external_id'); END;

CREATE TABLE event_notes (
    event_id INTEGER NOT NULL PRIMARY KEY,
    actor VARCHAR(200),
    reason VARCHAR(200),
    override INTEGER NOT NULL DEFAULT 0
);

CREATE TRIGGER note_added 
        BEFORE INSERT ON event_notes
        WHEN EXISTS (SELECT 1 FROM event_notes WHERE event_id = NEW.event_id)
          OR NOT EXISTS (SELECT 1 FROM enrollment_events WHERE id = NEW.event_id)
        BEGIN
            SELECT raise(ABORT, 'the note of an event is never changed')
            WHERE EXISTS (SELECT 1 FROM event_notes WHERE event_id = NEW.event_id);
            SELECT raise(ABORT, 'no event has this id');
        END;

CREATE TRIGGER note_changed 
        BEFORE UPDATE ON event_notes
        WHEN NEW.event_id IS NOT OLD.event_id OR NEW.override IS NOT OLD.override
          OR (NEW.actor IS NOT OLD.actor OR NEW.reason IS NOT NULL)
             AND (OLD.actor IS NOT NULL OR OLD.reason IS NOT NULL OR EXISTS (
                 SELECT 1 FROM enrollment_events AS told
                 JOIN enrollment_events AS later ON later.course_id = told.course_id AND later.id > told.id
                 WHERE told.id = NEW.event_id AND later.student_id = told.student_id))
        BEGIN SELECT raise(ABORT, 'the note of an event is never changed, but its reason may be made null'); END;

CREATE TRIGGER note_deleted BEFORE DELETE ON event_notes BEGIN SELECT raise(ABORT, 'events are never deleted'); END;

CREATE TABLE letters (
    letter TEXT NOT NULL PRIMARY KEY,
    plain TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE student_words (
    beginning TEXT NOT NULL,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    student_id INTEGER NOT NULL,
    words TEXT NOT NULL,
    PRIMARY KEY (beginning, name, student_id)
) WITHOUT ROWID;

CREATE TABLE student_words_before (
    student_id INTEGER NOT NULL,
    beginning TEXT NOT NULL,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    PRIMARY KEY (student_id, beginning, name)
) WITHOUT ROWID;

CREATE TRIGGER student_words_forgotten 
        AFTER DELETE ON student_words_before BEGIN
            DELETE FROM student_words
            WHERE beginning = OLD.beginning AND name = OLD.name AND student_id = OLD.student_id;
        END;

CREATE VIEW words_of_students AS
        SELECT CASE WHEN size < 3 THEN '^' ELSE '' END || substr(word.value, 1, size) AS beginning,
            searched.name AS name, searched.id AS student_id, trim(replace(word.json, '"', ''), '[]') AS words
        FROM (SELECT texts.id AS id, texts.name AS name, (
            WITH RECURSIVE
            whole (text) AS (SELECT texts.text),
            folded (text) AS (
                SELECT replace(CASE
                    WHEN text NOT GLOB '*[^a-zA-Z0-9 ._''' || char(9) || '-]*'
                    THEN lower(replace(replace(replace(text, '.', '-'), '_', '-'), '''', '-'))
                    ELSE (
                        WITH RECURSIVE each (letter, rest) AS (
                            SELECT substr(text, 1, 1), substr(text, 2)
                            UNION ALL
                            SELECT substr(rest, 1, 1), substr(rest, 2) FROM each WHERE rest <> '')
                        SELECT group_concat(
                            coalesce((
                                SELECT plain FROM letters
                                WHERE letters.letter = each.letter AND letters.letter <> char(9)), letter), '')
                        FROM each)
                    END, char(9), ' ^ ')
                FROM whole),
            piece (word, rest) AS (
                SELECT '', text FROM folded
                UNION ALL
                SELECT replace(substr(rest, 1, instr(rest || ' ', ' ') - 1), '-', ''),
                    substr(rest, min(instr(rest || ' ', ' '), instr(rest || '-', '-')) + 1)
                FROM piece WHERE rest <> '')
            SELECT group_concat(DISTINCT word) FROM piece WHERE word <> '') AS words
            FROM (
                SELECT id AS id, name AS name, substr(replace(name, char(9), ' '), 1, 200) || char(9)
                    || substr(coalesce(external_id, ''), 1, 200) || ' ' || substr(substr(coalesce(email, ''), 1, instr(coalesce(email, '') || '@', '@') - 1), 1, 200) AS text
                FROM students) AS texts) AS searched
        CROSS JOIN json_each('["","' || replace(searched.words, ',', '","') || '"]') AS word
        CROSS JOIN (SELECT 1 AS size UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 10000) AS beginnings
        WHERE word.value NOT IN ('', '^')
          AND CASE WHEN size < 3 THEN word.key = 1 WHEN size = 3 THEN TRUE ELSE length(word.value) > 3 END;

CREATE TABLE course_words (
    beginning TEXT NOT NULL,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    course_id INTEGER NOT NULL,
    words TEXT NOT NULL,
    PRIMARY KEY (beginning, name, course_id)
) WITHOUT ROWID;

CREATE TABLE course_words_before (
    course_id INTEGER NOT NULL,
    beginning TEXT NOT NULL,
    name VARCHAR(200) NOT NULL COLLATE NOCASE,
    PRIMARY KEY (course_id, beginning, name)
) WITHOUT ROWID;

CREATE TRIGGER course_words_forgotten 
        AFTER DELETE ON course_words_before BEGIN
            DELETE FROM course_words
            WHERE beginning = OLD.beginning AND name = OLD.name AND course_id = OLD.course_id;
        END;

CREATE VIEW words_of_courses AS
        SELECT CASE WHEN size < 3 THEN '^' ELSE '' END || substr(word.value, 1, size) AS beginning,
            searched.name AS name, searched.id AS course_id, trim(replace(word.json, '"', ''), '[]') AS words
        FROM (SELECT texts.id AS id, texts.name AS name, (
            WITH RECURSIVE
            whole (text) AS (SELECT texts.text),
            folded (text) AS (
                SELECT replace(CASE
                    WHEN text NOT GLOB '*[^a-zA-Z0-9 ._''' || char(9) || '-]*'
                    THEN lower(replace(replace(replace(text, '.', '-'), '_', '-'), '''', '-'))
                    ELSE (
                        WITH RECURSIVE each (letter, rest) AS (
                            SELECT substr(text, 1, 1), substr(text, 2)
                            UNION ALL
                            SELECT substr(rest, 1, 1), substr(rest, 2) FROM each WHERE rest <> '')
                        SELECT group_concat(
                            coalesce((
                                SELECT plain FROM letters
                                WHERE letters.letter = each.letter AND letters.letter <> char(9)), letter), '')
                        FROM each)
                    END, char(9), ' ^ ')
                FROM whole),
            piece (word, rest) AS (
                SELECT '', text FROM folded
                UNION ALL
                SELECT replace(substr(rest, 1, instr(rest || ' ', ' ') - 1), '-', ''),
                    substr(rest, min(instr(rest || ' ', ' '), instr(rest || '-', '-')) + 1)
                FROM piece WHERE rest <> '')
            SELECT group_concat(DISTINCT word) FROM piece WHERE word <> '') AS words
            FROM (
                SELECT id AS id, name AS name, substr(replace(name, char(9), ' '), 1, 200) || char(9)
                    || substr(coalesce(external_id, ''), 1, 200) || ' ' || substr('', 1, 200) AS text
                FROM courses) AS texts) AS searched
        CROSS JOIN json_each('["","' || replace(searched.words, ',', '","') || '"]') AS word
        CROSS JOIN (SELECT 1 AS size UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 10000) AS beginnings
        WHERE word.value NOT IN ('', '^')
          AND CASE WHEN size < 3 THEN word.key = 1 WHEN size = 3 THEN TRUE ELSE length(word.value) > 3 END;

CREATE TABLE api_tokens (
    id VARCHAR(8) NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    name VARCHAR(200) NOT NULL,
    scopes VARCHAR(200) NOT NULL,
    created_at VARCHAR(24) NOT NULL,
    expires_at VARCHAR(24) CHECK (expires_at GLOB '????-??-??T??:??:??.???Z'),
    revoked_at VARCHAR(24),
    previous_hash BLOB,
    previous_until VARCHAR(24) CHECK (previous_until GLOB '????-??-??T??:??:??.???Z'),
    last_used_on VARCHAR(10)
) WITHOUT ROWID;

CREATE TABLE api_sessions (
    hash BLOB NOT NULL PRIMARY KEY,
    token_id VARCHAR(8) NOT NULL REFERENCES api_tokens (id) ON DELETE CASCADE,
    ends_at VARCHAR(24) NOT NULL CHECK (ends_at GLOB '????-??-??T??:??:??.???Z')
) WITHOUT ROWID;
