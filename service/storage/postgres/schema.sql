-- The schema of the service on PostgreSQL: its tables, and the indexes, functions and triggers that keep their rules.
-- Migration 008 runs it. The tables and columns have the names that they have in SQLite, and so have the words of what
-- is refused, before whose colon the code of the refusal stands.
--
-- There is one line of writers for each school, and a schema is a school. Whoever writes to a table of a school first
-- takes the school's turn, an advisory lock that is held to the end of the transaction. So the ids of events rise in
-- the order of the commits, nothing deadlocks, and what a statement sees is what it changes.
--
-- Texts are compared byte by byte, COLLATE "C", where lower() folds A to Z alone, as NOCASE does in SQLite.

-- The turn comes before any row is locked, or two writers could each hold what the other one needs. To take it again
-- costs a microsecond. Two schools whose names hash alike would wait for each other, and no more.
CREATE FUNCTION enrollment_take_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1701711, hashtext(TG_TABLE_SCHEMA));
    RETURN NULL;
END $$;

CREATE FUNCTION enrollment_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE restrict_violation USING MESSAGE = TG_ARGV[0];
END $$;

CREATE FUNCTION enrollment_now() RETURNS text LANGUAGE sql VOLATILE
RETURN to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') COLLATE "C";

-- Whether a text begins with a day that there is, such as 2028-02-29.
CREATE FUNCTION enrollment_is_day(given text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN given COLLATE "C" ~ ('^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)'
    || '|02-(0[1-9]|1[0-9]|2[0-8]))'
    || '|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)');

-- Whether a text is a time in RFC 3339, in UTC, to the millisecond: in this form times are compared as texts.
CREATE FUNCTION enrollment_is_time(given text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN enrollment_is_day(given)
    AND substr(given, 11) COLLATE "C" ~ '^T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{3}Z$';

-- A time of another form in that form; without a zone it is in UTC. No time is the present one.
CREATE FUNCTION enrollment_time(given text) RETURNS text
LANGUAGE plpgsql SET TimeZone = 'UTC' SET DateStyle = 'ISO' AS $$
BEGIN
    IF coalesce(given, '') = '' THEN
        RETURN to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
    ELSIF given COLLATE "C" ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}' THEN
        RETURN to_char(given::timestamptz, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
    END IF;
    RAISE restrict_violation;
EXCEPTION WHEN data_exception OR restrict_violation THEN
    RAISE restrict_violation
        USING MESSAGE = 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one';
END $$;

-- The search. What a letter is without case and accents: a space stands for white space, a hyphen for punctuation, and
-- nothing for what is not seen. A letter that is not here is plain itself.
CREATE TABLE letters (
    letter text COLLATE "C" NOT NULL PRIMARY KEY,
    plain text COLLATE "C" NOT NULL
);

CREATE FUNCTION enrollment_folded(given text) RETURNS text LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    IF given COLLATE "C" ~ '^[a-zA-Z0-9 ._''-]*$' THEN
        RETURN translate(lower(given COLLATE "C"), '._''', '---');
    END IF;
    RETURN array_to_string(ARRAY(
        SELECT coalesce((SELECT plain FROM letters WHERE letters.letter = each.letter), each.letter)
        FROM unnest(string_to_array(given, NULL)) WITH ORDINALITY AS each (letter, place)
        ORDER BY each.place), '');
END $$;

-- The words that a row is found by. A text is split at white space. A word goes on behind punctuation, and another word
-- begins there: O'Brien has the words obrien and brien. The first word of the name is there once more, behind ^. Only
-- the first 200 characters of a text are looked at: the service stores no longer ones.
CREATE FUNCTION enrollment_words(name text, more text) RETURNS tsvector
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    words text[];
    of_name bigint;
    token text;
    word text;
BEGIN
    FOREACH token IN ARRAY array_append(string_to_array(enrollment_folded(left(name, 200)), ' '), NULL)
        || string_to_array(enrollment_folded(more), ' ') LOOP
        IF token IS NULL THEN
            of_name := coalesce(cardinality(words), 0);
        END IF;
        LOOP
            -- A word that is too long for an index is found by its beginning.
            word := left(replace(token, '-', ''), 500);
            EXIT WHEN coalesce(word, '') = '';
            words := words || word;
            EXIT WHEN position('-' IN token) = 0;
            token := substr(token, position('-' IN token) + 1);
        END LOOP;
    END LOOP;
    RETURN array_to_tsvector(coalesce(words, '{}') || CASE WHEN of_name > 0 THEN ARRAY['^' || words[1]] ELSE '{}' END);
END $$;

CREATE TABLE terms (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    external_id varchar(200) COLLATE "C",
    name varchar(200) COLLATE "C" NOT NULL,
    starts_on varchar(10) COLLATE "C",
    ends_on varchar(10) COLLATE "C"
);
CREATE UNIQUE INDEX term_external_id ON terms (external_id) WHERE external_id IS NOT NULL;

CREATE TABLE students (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name varchar(200) COLLATE "C" NOT NULL,
    external_id varchar(200) COLLATE "C",
    given_name varchar(200) COLLATE "C",
    family_name varchar(200) COLLATE "C",
    email varchar(254) COLLATE "C",
    words tsvector
);
CREATE UNIQUE INDEX student_external_id ON students (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX student_name_id ON students (lower(name), id);
CREATE INDEX student_words ON students USING gin (words);

-- Half of each page is left free for the next versions of a row whose counts change all the time.
CREATE TABLE courses (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name varchar(200) COLLATE "C" NOT NULL,
    level varchar(200) COLLATE "C" NOT NULL,
    capacity bigint,
    waitlist_capacity bigint DEFAULT 0,
    enrolled bigint NOT NULL DEFAULT 0,
    waitlisted bigint NOT NULL DEFAULT 0,
    event_id bigint,
    external_id varchar(200) COLLATE "C",
    term_id bigint REFERENCES terms (id) ON DELETE RESTRICT,
    opens_at varchar(24) COLLATE "C",
    closes_at varchar(24) COLLATE "C",
    words tsvector,
    CONSTRAINT course_seats CHECK (enrolled >= 0 AND enrolled <= capacity),
    CONSTRAINT course_places CHECK (waitlisted >= 0 AND waitlisted <= waitlist_capacity)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX course_external_id ON courses (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX course_name_id ON courses (lower(name), id);
CREATE INDEX course_level_id ON courses (level, id);
CREATE INDEX course_level_name_id ON courses (level, lower(name), id);
CREATE INDEX course_term_id_id ON courses (term_id, id) WHERE term_id IS NOT NULL;
CREATE INDEX course_term_id_name_id ON courses (term_id, lower(name), id) WHERE term_id IS NOT NULL;
CREATE INDEX course_words ON courses USING gin (words);

-- An INSERT with event_id 0 asks for an override; the column is null in every row that is there.
CREATE TABLE enrollments (
    student_id bigint NOT NULL REFERENCES students (id) ON DELETE RESTRICT,
    course_id bigint NOT NULL REFERENCES courses (id) ON DELETE RESTRICT,
    enrolled_at text COLLATE "C",
    waiting bigint,
    event_id bigint,
    PRIMARY KEY (student_id, course_id),
    CONSTRAINT enrollment_seat_or_place CHECK ((enrolled_at IS NULL) <> (waiting IS NULL))
);
-- Two partial indexes: to PostgreSQL `waiting IS NULL` is no equality, so one index on
-- (course_id, waiting, student_id) would leave each page of a roster to be sorted.
CREATE INDEX enrollment_roster ON enrollments (course_id, student_id) INCLUDE (enrolled_at) WHERE waiting IS NULL;
CREATE INDEX enrollment_line ON enrollments (course_id, waiting) WHERE waiting IS NOT NULL;

CREATE TABLE enrollment_events (
    id bigint PRIMARY KEY,
    type varchar(10) COLLATE "C" NOT NULL,
    at varchar(24) COLLATE "C" NOT NULL,
    student_id bigint NOT NULL,
    course_id bigint NOT NULL
);
CREATE INDEX event_course_id_id ON enrollment_events (course_id, id);
CREATE INDEX event_student_id_id ON enrollment_events (student_id, id);

CREATE TABLE event_notes (
    event_id bigint PRIMARY KEY,
    actor varchar(200) COLLATE "C",
    reason varchar(200) COLLATE "C",
    override boolean NOT NULL DEFAULT FALSE
);

CREATE TABLE api_tokens (
    id varchar(8) COLLATE "C" PRIMARY KEY,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    name varchar(200) COLLATE "C" NOT NULL,
    scopes varchar(200) COLLATE "C" NOT NULL,
    created_at varchar(24) COLLATE "C" NOT NULL,
    expires_at varchar(24) COLLATE "C" CHECK (enrollment_is_time(expires_at)),
    revoked_at varchar(24) COLLATE "C",
    previous_hash bytea,
    previous_until varchar(24) COLLATE "C" CHECK (enrollment_is_time(previous_until)),
    last_used_on varchar(10) COLLATE "C"
);

CREATE TABLE api_sessions (
    hash bytea PRIMARY KEY,
    token_id varchar(8) COLLATE "C" NOT NULL REFERENCES api_tokens (id) ON DELETE CASCADE,
    ends_at varchar(24) COLLATE "C" NOT NULL CHECK (enrollment_is_time(ends_at))
);

-- What a row of terms, students and courses must be. An id that is given is never given again by the sequence.
CREATE FUNCTION enrollment_check_term() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wrong text := CASE
        WHEN NEW.id <> OLD.id THEN 'the id of a term never changes'
        WHEN NEW.external_id = '' THEN 'terms.external_id is a text with a character, or null'
        WHEN NOT (enrollment_is_day(NEW.starts_on) AND length(NEW.starts_on) = 10)
        THEN 'terms.starts_on is a date such as 2026-09-01, or null'
        WHEN NOT (enrollment_is_day(NEW.ends_on) AND length(NEW.ends_on) = 10)
        THEN 'terms.ends_on is a date such as 2026-09-01, or null'
        WHEN NEW.ends_on < NEW.starts_on THEN 'terms.ends_on is not before starts_on'
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE restrict_violation USING MESSAGE = wrong;
    ELSIF TG_OP = 'INSERT' AND NEW.id > (SELECT last_value FROM terms_id_seq) THEN
        PERFORM setval('terms_id_seq', NEW.id);
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION enrollment_check_student() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wrong text := CASE
        WHEN NEW.id <> OLD.id THEN 'the id of a student never changes'
        WHEN NEW.external_id = '' THEN 'students.external_id is a text with a character, or null'
        WHEN NEW.given_name = '' THEN 'students.given_name is a text with a character, or null'
        WHEN NEW.family_name = '' THEN 'students.family_name is a text with a character, or null'
        WHEN NEW.email = '' THEN 'students.email is a text with a character, or null'
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE restrict_violation USING MESSAGE = wrong;
    ELSIF TG_OP = 'INSERT' AND NEW.id > (SELECT last_value FROM students_id_seq) THEN
        PERFORM setval('students_id_seq', NEW.id);
    END IF;
    NEW.words := enrollment_words(NEW.name, concat_ws(' ', NEW.external_id, left(split_part(NEW.email, '@', 1), 200)));
    RETURN NEW;
END $$;

CREATE FUNCTION enrollment_check_course() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wrong text := CASE
        WHEN NEW.id <> OLD.id THEN 'the id of a course never changes'
        WHEN NEW.capacity < 0 THEN 'courses.capacity is a whole number from 0, or null'
        WHEN NEW.waitlist_capacity < 0 THEN 'courses.waitlist_capacity is a whole number from 0, or null'
        WHEN NEW.capacity < NEW.enrolled
        THEN 'capacity_below_enrolled: more students are enrolled than this capacity'
        WHEN NEW.waitlist_capacity < NEW.waitlisted
        THEN 'waitlist_capacity_below_waitlisted: more students wait than this waitlist_capacity'
        WHEN NEW.external_id = '' THEN 'courses.external_id is a text with a character, or null'
        WHEN NOT enrollment_is_time(NEW.opens_at)
        THEN 'courses.opens_at is a time such as 2026-09-01T08:30:00.000Z, or null'
        WHEN NOT enrollment_is_time(NEW.closes_at)
        THEN 'courses.closes_at is a time such as 2026-09-01T08:30:00.000Z, or null'
        WHEN NEW.closes_at <= NEW.opens_at THEN 'courses.closes_at is after opens_at'
        WHEN TG_OP = 'INSERT' AND (NEW.enrolled, NEW.waitlisted, NEW.event_id) IS DISTINCT FROM (0, 0, NULL)
        THEN 'the counts of a course belong to its enrollments'
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE restrict_violation USING MESSAGE = wrong;
    ELSIF TG_OP = 'INSERT' AND NEW.id > (SELECT last_value FROM courses_id_seq) THEN
        PERFORM setval('courses_id_seq', NEW.id);
    END IF;
    IF (NEW.name, NEW.external_id, NEW.words, TG_OP)
        IS DISTINCT FROM (OLD.name, OLD.external_id, OLD.words, 'UPDATE') THEN
        NEW.words := enrollment_words(NEW.name, NEW.external_id);
    END IF;
    RETURN NEW;
END $$;

-- The counts move with the newest event of the course, which must be newer than the last one that moved them.
CREATE FUNCTION enrollment_check_counts() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.event_id > coalesce(OLD.event_id, 0)
      AND NEW.event_id = (SELECT max(id) FROM enrollment_events WHERE course_id = NEW.id) THEN
        RETURN NEW;
    END IF;
    RAISE restrict_violation USING MESSAGE = 'the counts of a course belong to its enrollments';
END $$;

CREATE FUNCTION enrollment_check_event() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.id := coalesce(NEW.id, (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events));
    IF NOT enrollment_is_time(NEW.at) THEN
        RAISE restrict_violation
            USING MESSAGE = 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one';
    END IF;
    RETURN NEW;
END $$;

-- The override is noted by a trigger, and who asked for it and why by the program, in the same transaction.
CREATE FUNCTION enrollment_check_note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (SELECT FROM enrollment_events WHERE id = NEW.event_id) THEN
            RAISE restrict_violation USING MESSAGE = 'no event has this id';
        END IF;
    ELSIF (NEW.event_id, NEW.override) IS DISTINCT FROM (OLD.event_id, OLD.override)
      OR (NEW.actor IS DISTINCT FROM OLD.actor OR NEW.reason IS NOT NULL)
         AND (OLD.actor IS NOT NULL OR OLD.reason IS NOT NULL OR EXISTS (
             SELECT FROM enrollment_events AS told
             JOIN enrollment_events AS later ON later.course_id = told.course_id AND later.id > told.id
             WHERE told.id = NEW.event_id AND later.student_id = told.student_id)) THEN
        RAISE restrict_violation
            USING MESSAGE = 'the note of an event is never changed, but its reason may be made null';
    END IF;
    RETURN NEW;
END $$;

-- To a writer above READ COMMITTED whose snapshot is older than the newest event, ON CONFLICT gives 40001, and the
-- writer begins again; without ON CONFLICT the writer would be told of a key that it never named. Only functions of the
-- service call this one, so the search path is set.
CREATE FUNCTION enrollment_tell(what text, moment text, student bigint, course bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    event bigint;
BEGIN
    INSERT INTO enrollment_events (id, type, at, student_id, course_id)
    SELECT coalesce(max(id), 0) + 1, what, moment, student, course FROM enrollment_events
    ON CONFLICT (id) DO NOTHING
    RETURNING CASE WHEN (type, at, student_id, course_id) = (what, moment, student, course) THEN id END INTO event;
    IF event IS NULL THEN
        RAISE restrict_violation USING MESSAGE = 'a trigger on enrollment_events left an event out, or changed it';
    END IF;
    RETURN event;
END $$;

-- Moves the counts of a course along with an event, and its capacity where a seat is made. A trigger of another program
-- that leaves the row as it was would leave the counts wrong, so that is refused.
CREATE FUNCTION enrollment_count(course bigint, event bigint, seats bigint, places bigint, made bigint = 0) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    counted bigint;
BEGIN
    UPDATE courses
    SET capacity = capacity + made, enrolled = enrolled + seats, waitlisted = waitlisted + places, event_id = event
    WHERE id = course
    RETURNING event_id INTO counted;
    IF counted IS DISTINCT FROM event THEN
        RAISE restrict_violation USING MESSAGE = 'a trigger on courses left the counts of a course as they were';
    END IF;
END $$;

-- BEFORE each row, not AFTER: PostgreSQL runs the AFTER triggers of all rows when the last row is in, so the second row
-- of one INSERT would not see that the first row took the seat.
CREATE FUNCTION enrollment_adding() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    course record;
    past_the_rules boolean := coalesce(NEW.event_id = 0 AND NEW.waiting IS NULL AND NEW.enrolled_at <> '', FALSE);
    seat boolean;
    event bigint;
    shut text;
BEGIN
    NEW.event_id := NULL;
    NEW.waiting := NULL;
    IF NOT coalesce(enrollment_is_time(NEW.enrolled_at), FALSE) THEN
        NEW.enrolled_at := enrollment_time(NEW.enrolled_at);
    END IF;
    -- Nothing is counted for a row that will not be there, because the key refuses it or ON CONFLICT skips it. The lock
    -- is for a writer above READ COMMITTED: one whose snapshot is older than the drop of the row fails here.
    IF EXISTS (SELECT FROM enrollments WHERE student_id = NEW.student_id AND course_id = NEW.course_id) THEN
        PERFORM FROM courses WHERE id = NEW.course_id FOR NO KEY UPDATE;
        RETURN NEW;
    END IF;
    SELECT id, capacity, waitlist_capacity, enrolled, waitlisted, opens_at, closes_at INTO course
    FROM courses WHERE id = NEW.course_id;
    seat := coalesce(course.enrolled < course.capacity, TRUE) OR past_the_rules;
    shut := CASE
        WHEN course.id IS NULL THEN 'course_not_found: no course has this id'
        WHEN past_the_rules THEN NULL
        WHEN course.opens_at > enrollment_now() THEN 'enrollment_not_open: the course is not open for enrolling yet'
        WHEN course.closes_at <= enrollment_now() THEN 'enrollment_closed: the course is closed for enrolling'
        WHEN NOT seat AND course.waitlisted >= course.waitlist_capacity
        THEN 'course_full: no seat is free, and no place on the waitlist'
    END;
    IF shut IS NOT NULL THEN
        RAISE restrict_violation USING MESSAGE = CASE
            WHEN EXISTS (SELECT FROM students WHERE id = NEW.student_id) THEN shut
            ELSE 'student_not_found: no student has this id' END;
    END IF;
    event := enrollment_tell(
        CASE WHEN seat THEN 'enrolled' ELSE 'waitlisted' END, NEW.enrolled_at, NEW.student_id, NEW.course_id);
    IF past_the_rules THEN
        INSERT INTO event_notes (event_id, override) VALUES (event, TRUE);
        IF NOT FOUND THEN
            RAISE restrict_violation USING MESSAGE = 'a trigger on event_notes left a note out';
        END IF;
        PERFORM enrollment_count(NEW.course_id, event, 1, 0, (course.enrolled >= course.capacity)::int);
    ELSIF seat THEN
        PERFORM enrollment_count(NEW.course_id, event, 1, 0);
    ELSE
        PERFORM enrollment_count(NEW.course_id, event, 0, 1);
        NEW.waiting := event;
        NEW.enrolled_at := NULL;
    END IF;
    RETURN NEW;
END $$;

-- An UPDATE may only give a seat to a student who waits, and of whose promotion an event tells.
CREATE FUNCTION enrollment_changing() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF (NEW.student_id, NEW.course_id, NEW.event_id) IS DISTINCT FROM (OLD.student_id, OLD.course_id, OLD.event_id)
      OR NEW.waiting IS NOT NULL OR NOT enrollment_is_time(NEW.enrolled_at)
      OR NOT EXISTS (SELECT FROM enrollment_events
                     WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                       AND type = 'promoted' AND id > OLD.waiting) THEN
        RAISE restrict_violation USING MESSAGE = 'an enrollment is added, promoted by a free seat, or dropped';
    END IF;
    RETURN NEW;
END $$;

-- After all rows are gone, those who waited first: what is promoted then is the head of the line, and stays. A seat is
-- counted at once where somebody waits, so that the next event tells who has it. Else the counts of a course move once:
-- each version of a row that the same transaction has left behind makes the next one slower.
CREATE FUNCTION enrollment_dropped() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    moment text := enrollment_now();
    old record;
    course bigint;
    event bigint;
    seats bigint := 0;
    places bigint := 0;
BEGIN
    FOR old IN SELECT * FROM gone ORDER BY course_id, waiting IS NULL, waiting, student_id LOOP
        IF course <> old.course_id AND seats + places > 0 THEN
            PERFORM enrollment_count(course, event, -seats, -places);
            seats := 0; places := 0;
        END IF;
        course := old.course_id;
        event := enrollment_tell('dropped', moment, old.student_id, course);
        IF old.waiting IS NULL THEN
            seats := seats + 1;
            IF (SELECT waitlisted > places FROM courses WHERE id = course) THEN
                PERFORM enrollment_count(course, event, -seats, -places);
                seats := 0; places := 0;
            END IF;
        ELSE
            places := places + 1;
        END IF;
    END LOOP;
    IF seats + places > 0 THEN
        PERFORM enrollment_count(course, event, -seats, -places);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION enrollment_promote() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    moment text := enrollment_now();
    head record;
    event bigint;
    promoted bigint := 0;
BEGIN
    FOR head IN
        SELECT student_id FROM enrollments WHERE course_id = NEW.id AND waiting IS NOT NULL ORDER BY waiting
        LIMIT (SELECT capacity - enrolled FROM courses WHERE id = NEW.id)  -- Null is no limit.
    LOOP
        event := enrollment_tell('promoted', moment, head.student_id, NEW.id);
        UPDATE enrollments SET enrolled_at = moment, waiting = NULL
        WHERE student_id = head.student_id AND course_id = NEW.id;
        IF NOT FOUND THEN
            RAISE restrict_violation USING MESSAGE = 'a trigger on enrollments left a student in line who has a seat';
        END IF;
        promoted := promoted + 1;
    END LOOP;
    IF promoted > 0 THEN
        PERFORM enrollment_count(NEW.id, event, promoted, -promoted);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER student_turn BEFORE INSERT OR UPDATE OR DELETE ON students
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn();
CREATE TRIGGER course_turn BEFORE INSERT OR UPDATE OR DELETE ON courses
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn();
CREATE TRIGGER term_turn BEFORE INSERT OR UPDATE OR DELETE ON terms
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn();
CREATE TRIGGER enrollment_turn BEFORE INSERT OR UPDATE OR DELETE ON enrollments
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn();
CREATE TRIGGER event_turn BEFORE INSERT ON enrollment_events
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn();
CREATE TRIGGER note_turn BEFORE INSERT OR UPDATE ON event_notes
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn();

-- What enroll_many writes it has judged: what a trigger would look up for each row, it has looked up for all. It says
-- so by the setting enrollment.judged, the id of the transaction, until all are written. Any role may set
-- that, so it counts for those alone who may have triggers on the table, and so the last word on a row anyway: both the
-- role that writes and the one that has logged in, who may have called a function of another role.
--
-- PostgreSQL runs triggers by their names: those of the service come last, after any of another program, because what
-- they see is what is stored.
CREATE TRIGGER zz_term_checked BEFORE INSERT OR UPDATE ON terms
    FOR EACH ROW EXECUTE FUNCTION enrollment_check_term();
CREATE TRIGGER zz_student_checked BEFORE INSERT OR UPDATE ON students
    FOR EACH ROW EXECUTE FUNCTION enrollment_check_student();
CREATE TRIGGER zz_course_added BEFORE INSERT ON courses
    FOR EACH ROW EXECUTE FUNCTION enrollment_check_course();
CREATE TRIGGER zz_course_changed BEFORE UPDATE ON courses
    FOR EACH ROW WHEN ((NEW.id, NEW.name, NEW.level, NEW.capacity, NEW.waitlist_capacity, NEW.external_id, NEW.term_id,
        NEW.opens_at, NEW.closes_at, NEW.words) IS DISTINCT FROM (OLD.id, OLD.name, OLD.level, OLD.capacity,
        OLD.waitlist_capacity, OLD.external_id, OLD.term_id, OLD.opens_at, OLD.closes_at, OLD.words))
    EXECUTE FUNCTION enrollment_check_course();
CREATE TRIGGER zz_course_counted BEFORE UPDATE ON courses
    FOR EACH ROW WHEN ((NEW.enrolled, NEW.waitlisted, NEW.event_id)
        IS DISTINCT FROM (OLD.enrolled, OLD.waitlisted, OLD.event_id)
        AND (current_setting('enrollment.judged', TRUE) = pg_current_xact_id_if_assigned()::text
        AND has_table_privilege('courses'::regclass, 'TRIGGER')
        AND has_table_privilege(session_user, 'courses'::regclass, 'TRIGGER')) IS NOT TRUE)
    EXECUTE FUNCTION enrollment_check_counts();
CREATE TRIGGER seats_freed AFTER UPDATE ON courses
    FOR EACH ROW WHEN (NEW.waitlisted > 0 AND coalesce(NEW.enrolled < NEW.capacity, TRUE))
    EXECUTE FUNCTION enrollment_promote();

CREATE TRIGGER zz_enrollment_adding BEFORE INSERT ON enrollments
    FOR EACH ROW
    WHEN ((current_setting('enrollment.judged', TRUE) = pg_current_xact_id_if_assigned()::text
        AND has_table_privilege('enrollments'::regclass, 'TRIGGER')
        AND has_table_privilege(session_user, 'enrollments'::regclass, 'TRIGGER')) IS NOT TRUE)
    EXECUTE FUNCTION enrollment_adding();
CREATE TRIGGER zz_enrollment_changing BEFORE UPDATE ON enrollments
    FOR EACH ROW EXECUTE FUNCTION enrollment_changing();
CREATE TRIGGER enrollment_dropped AFTER DELETE ON enrollments REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_dropped();
CREATE TRIGGER enrollment_kept BEFORE TRUNCATE ON enrollments
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_refuse('enrollments are dropped one by one');

CREATE TRIGGER zz_event_added BEFORE INSERT ON enrollment_events
    FOR EACH ROW
    WHEN ((current_setting('enrollment.judged', TRUE) = pg_current_xact_id_if_assigned()::text
        AND has_table_privilege('enrollment_events'::regclass, 'TRIGGER')
        AND has_table_privilege(session_user, 'enrollment_events'::regclass, 'TRIGGER')) IS NOT TRUE)
    EXECUTE FUNCTION enrollment_check_event();
CREATE TRIGGER event_changed BEFORE UPDATE ON enrollment_events
    FOR EACH ROW EXECUTE FUNCTION enrollment_refuse('events are never changed');
CREATE TRIGGER event_deleted BEFORE DELETE ON enrollment_events
    FOR EACH ROW EXECUTE FUNCTION enrollment_refuse('events are never deleted');
CREATE TRIGGER event_kept BEFORE TRUNCATE ON enrollment_events
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_refuse('events are never deleted');

CREATE TRIGGER zz_note_checked BEFORE INSERT OR UPDATE ON event_notes
    FOR EACH ROW EXECUTE FUNCTION enrollment_check_note();
CREATE TRIGGER note_deleted BEFORE DELETE ON event_notes
    FOR EACH ROW EXECUTE FUNCTION enrollment_refuse('events are never deleted');
CREATE TRIGGER note_kept BEFORE TRUNCATE ON event_notes
    FOR EACH STATEMENT EXECUTE FUNCTION enrollment_refuse('events are never deleted');

-- The code of the rule for which a pair of a student and a course cannot be enrolled; null where it can. Only
-- enroll_many calls it, so the search path is set.
CREATE FUNCTION enrollment_refusal(student bigint, course bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    code text;
BEGIN
    SELECT CASE WHEN e.waiting IS NOT NULL THEN 'already_waitlisted'
                WHEN e.student_id IS NOT NULL THEN 'already_enrolled'
                WHEN s.id IS NULL THEN 'student_not_found'
                WHEN c.opens_at > enrollment_now() THEN 'enrollment_not_open'
                WHEN c.closes_at <= enrollment_now() THEN 'enrollment_closed'
                WHEN c.enrolled >= c.capacity AND c.waitlisted >= c.waitlist_capacity THEN 'course_full' END
    INTO code
    FROM courses AS c
    LEFT JOIN students AS s ON s.id = student
    LEFT JOIN enrollments AS e ON e.student_id = student AND e.course_id = course
    WHERE c.id = course;
    IF FOUND THEN
        RETURN code;
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM students WHERE id = student)
                THEN 'course_not_found' ELSE 'student_not_found' END;
END $$;

-- One round trip for many pairs of a student and a course: enrolls one pair after the other, as an INSERT for each
-- would, and gives what came of each. A rule of the service that refuses is its code, and raises nothing, so the rows
-- before it stay.
--
-- All pairs are judged in one statement, which counts for each pair who comes before it, and writes all that follows
-- from that. Where other programs have triggers on the tables, or a rule of theirs refuses, or the role may have no
-- triggers there, each row is enrolled by itself in a savepoint of its own: then `refused` comes with the message, and
-- with the constraint if it was one. The place is that of the row as it is after its statement, when those triggers
-- have run too. Where one of those has dropped the row, its outcome is what its event told. A row that such a trigger
-- left out has none.
--
-- To plan the statements anew for the pairs of each call would take longer than to run them for a few. The one plan
-- reads by indexes alone: made while a table has few rows, it may still be in use when the table has many.
CREATE FUNCTION enroll_many(students bigint[], courses bigint[], moment text)
RETURNS TABLE (outcome text, at text, place bigint, rule text)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    outcomes text[];
    places bigint[];
    newest bigint;
    written boolean;
    student bigint;
    course bigint;
    line bigint;
    row_now record;
BEGIN
    PERFORM pg_advisory_xact_lock(1701711, hashtext(current_schema()));
    IF NOT coalesce(enrollment_is_time(moment), FALSE) THEN
        moment := enrollment_time(moment);
    END IF;
    -- One pair takes less time by itself.
    IF cardinality(students) > 1
      AND NOT EXISTS (
        SELECT FROM unnest('{courses, enrollments, enrollment_events}'::regclass[]) AS own,
                    unnest(ARRAY [current_user, session_user]) AS role
        WHERE NOT has_table_privilege(role, own, 'TRIGGER'))
      AND NOT EXISTS (
        SELECT FROM pg_rewrite
        WHERE ev_class IN ('enrollments'::regclass, 'enrollment_events'::regclass, 'courses'::regclass))
      AND NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid IN ('enrollments'::regclass, 'enrollment_events'::regclass, 'courses'::regclass)
          AND NOT tgisinternal
          AND tgfoid <> ALL ('{enrollment_take_turn, enrollment_refuse, enrollment_check_course,
              enrollment_check_counts, enrollment_promote, enrollment_adding, enrollment_changing, enrollment_dropped,
              enrollment_check_event}'::regproc[])) THEN
        BEGIN
            newest := (SELECT coalesce(max(id), 0) FROM enrollment_events);
            PERFORM set_config('enrollment.judged', pg_current_xact_id()::text, TRUE);
            WITH
            asked AS (
                SELECT n, pair.student, pair.course, c.waitlisted,
                       c.capacity - c.enrolled AS seats, c.waitlist_capacity - c.waitlisted AS places,
                       row_number() OVER (PARTITION BY pair.student, pair.course ORDER BY n) > 1 AS again,
                       CASE WHEN e.waiting IS NOT NULL THEN 'already_waitlisted'
                            WHEN e.student_id IS NOT NULL THEN 'already_enrolled'
                            WHEN s.id IS NULL THEN 'student_not_found'
                            WHEN c.id IS NULL THEN 'course_not_found'
                            WHEN c.opens_at > enrollment_now() THEN 'enrollment_not_open'
                            WHEN c.closes_at <= enrollment_now() THEN 'enrollment_closed' END AS refusal
                FROM unnest(students, courses) WITH ORDINALITY AS pair (student, course, n)
                LEFT JOIN students AS s ON s.id = pair.student
                LEFT JOIN courses AS c ON c.id = pair.course
                LEFT JOIN enrollments AS e ON e.student_id = pair.student AND e.course_id = pair.course),
            ranked AS (
                SELECT *, count(*) FILTER (WHERE NOT again AND refusal IS NULL)
                              OVER (PARTITION BY asked.course ORDER BY n) AS rank
                FROM asked),
            judged AS (
                SELECT *, CASE WHEN refusal IS NOT NULL THEN refusal
                               WHEN seats IS NULL OR rank <= seats THEN 'enrolled'
                               WHEN ranked.places IS NULL OR rank - seats <= ranked.places THEN 'waitlisted'
                               ELSE 'course_full' END AS verdict
                FROM ranked),
            told AS (
                SELECT *, first_value(verdict) OVER (PARTITION BY judged.student, judged.course ORDER BY n) AS first,
                       NOT again AND verdict IN ('enrolled', 'waitlisted') AS new
                FROM judged),
            numbered AS (
                SELECT *, CASE WHEN new THEN newest + count(*) FILTER (WHERE new) OVER (ORDER BY n) END AS event
                FROM told),
            events AS (
                INSERT INTO enrollment_events (id, type, at, student_id, course_id)
                SELECT numbered.event, numbered.verdict, moment, numbered.student, numbered.course
                FROM numbered WHERE new
                ON CONFLICT (id) DO NOTHING  -- See enrollment_tell.
                RETURNING id),
            counted AS (
                UPDATE courses AS c
                SET enrolled = enrolled + more.seats, waitlisted = c.waitlisted + more.lines, event_id = more.newest
                FROM (SELECT numbered.course, count(*) FILTER (WHERE verdict = 'enrolled') AS seats,
                             count(*) FILTER (WHERE verdict = 'waitlisted') AS lines, max(numbered.event) AS newest
                      FROM numbered WHERE new GROUP BY numbered.course) AS more
                WHERE c.id = more.course
                RETURNING more.seats + more.lines AS number),
            added AS (
                INSERT INTO enrollments (student_id, course_id, enrolled_at, waiting)
                SELECT numbered.student, numbered.course, CASE verdict WHEN 'enrolled' THEN moment END,
                       CASE verdict WHEN 'waitlisted' THEN numbered.event END
                FROM numbered WHERE new
                RETURNING 1)
            SELECT array_agg(CASE WHEN again AND first IN ('enrolled', 'waitlisted') THEN 'already_' || first
                                  ELSE first END ORDER BY n),
                   array_agg(CASE WHEN new AND first = 'waitlisted' THEN waitlisted + rank - seats END ORDER BY n),
                   -- Each row that was left out is missing.
                   count(*) FILTER (WHERE new) = ALL (VALUES ((SELECT count(*) FROM events)),
                       ((SELECT coalesce(sum(number), 0) FROM counted)), ((SELECT count(*) FROM added)))
            INTO outcomes, places, written
            FROM numbered;
            PERFORM set_config('enrollment.judged', '', TRUE);
            IF NOT written THEN
                RAISE restrict_violation;
            END IF;
            RETURN QUERY
            SELECT verdict, CASE verdict WHEN 'enrolled' THEN moment END, each.place, NULL
            FROM unnest(outcomes, places) AS each (verdict, place);
            RETURN;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception OR plpgsql_error THEN
            NULL;
        END;
    END IF;
    FOR student, course IN SELECT * FROM unnest(students, courses) LOOP
        at := NULL; place := NULL; rule := NULL;
        outcome := enrollment_refusal(student, course);
        IF outcome IS NULL THEN
            BEGIN
                INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (student, course, moment)
                RETURNING 'enrolled', enrolled_at, waiting INTO outcome, at, line;
            EXCEPTION WHEN integrity_constraint_violation OR data_exception OR plpgsql_error THEN
                GET STACKED DIAGNOSTICS at = MESSAGE_TEXT, rule = CONSTRAINT_NAME;
                outcome := enrollment_refusal(student, course);
                IF starts_with(at, outcome || ': ') THEN
                    at := NULL; rule := NULL;
                ELSE
                    outcome := 'refused';
                END IF;
            END;
        END IF;
        IF outcome = 'enrolled' THEN
            SELECT enrolled_at, waiting INTO row_now FROM enrollments WHERE student_id = student AND course_id = course;
            IF FOUND THEN
                at := row_now.enrolled_at; line := row_now.waiting;
            END IF;
            IF line IS NOT NULL THEN
                outcome := 'waitlisted';
                SELECT c.waitlisted
                    - (SELECT count(*) FROM enrollments WHERE course_id = course AND waiting > line)
                    + (row_now.waiting IS NULL)::int
                INTO place FROM courses AS c WHERE c.id = course;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
