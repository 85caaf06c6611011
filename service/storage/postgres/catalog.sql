-- The schema of the service on PostgreSQL as its migrations leave it, in the words of PostgreSQL's catalog.
-- It is not run to make a school, schema.sql is. `connect` and `serve` compare a school with it, and
-- `python -m service repair` takes from it what is missing.
-- Do not edit it: after a new migration write it anew with `make schema`; a test holds it to the migrations.

-- function .enroll_many
CREATE OR REPLACE FUNCTION enroll_many(students bigint[], courses bigint[], moment text)
 RETURNS TABLE(outcome text, at text, place bigint, rule text)
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
END $function$

-- function .enrollment_adding
CREATE OR REPLACE FUNCTION enrollment_adding()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_changing
CREATE OR REPLACE FUNCTION enrollment_changing()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
BEGIN
    IF (NEW.student_id, NEW.course_id, NEW.event_id) IS DISTINCT FROM (OLD.student_id, OLD.course_id, OLD.event_id)
      OR NEW.waiting IS NOT NULL OR NOT enrollment_is_time(NEW.enrolled_at)
      OR NOT EXISTS (SELECT FROM enrollment_events
                     WHERE student_id = OLD.student_id AND course_id = OLD.course_id
                       AND type = 'promoted' AND id > OLD.waiting) THEN
        RAISE restrict_violation USING MESSAGE = 'an enrollment is added, promoted by a free seat, or dropped';
    END IF;
    RETURN NEW;
END $function$

-- function .enrollment_check_counts
CREATE OR REPLACE FUNCTION enrollment_check_counts()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
BEGIN
    IF NEW.event_id > coalesce(OLD.event_id, 0)
      AND NEW.event_id = (SELECT max(id) FROM enrollment_events WHERE course_id = NEW.id) THEN
        RETURN NEW;
    END IF;
    RAISE restrict_violation USING MESSAGE = 'the counts of a course belong to its enrollments';
END $function$

-- function .enrollment_check_course
CREATE OR REPLACE FUNCTION enrollment_check_course()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_check_event
CREATE OR REPLACE FUNCTION enrollment_check_event()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
BEGIN
    NEW.id := coalesce(NEW.id, (SELECT coalesce(max(id), 0) + 1 FROM enrollment_events));
    IF NOT enrollment_is_time(NEW.at) THEN
        RAISE restrict_violation
            USING MESSAGE = 'a time is written as 2026-09-01T08:30:00.000Z; leave it out for the present one';
    END IF;
    RETURN NEW;
END $function$

-- function .enrollment_check_note
CREATE OR REPLACE FUNCTION enrollment_check_note()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_check_student
CREATE OR REPLACE FUNCTION enrollment_check_student()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_check_term
CREATE OR REPLACE FUNCTION enrollment_check_term()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_count
CREATE OR REPLACE FUNCTION enrollment_count(course bigint, event bigint, seats bigint, places bigint, made bigint DEFAULT 0)
 RETURNS void
 LANGUAGE plpgsql
AS $function$
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
END $function$

-- function .enrollment_dropped
CREATE OR REPLACE FUNCTION enrollment_dropped()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_folded
CREATE OR REPLACE FUNCTION enrollment_folded(given text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path FROM CURRENT
AS $function$
BEGIN
    IF given COLLATE "C" ~ '^[a-zA-Z0-9 ._''-]*$' THEN
        RETURN translate(lower(given COLLATE "C"), '._''', '---');
    END IF;
    RETURN array_to_string(ARRAY(
        SELECT coalesce((SELECT plain FROM letters WHERE letters.letter = each.letter), each.letter)
        FROM unnest(string_to_array(given, NULL)) WITH ORDINALITY AS each (letter, place)
        ORDER BY each.place), '');
END $function$

-- function .enrollment_is_day
CREATE OR REPLACE FUNCTION enrollment_is_day(given text)
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE
RETURN ((given COLLATE "C") ~ (('^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)'::text || '|02-(0[1-9]|1[0-9]|2[0-8]))'::text) || '|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)'::text))

-- function .enrollment_is_time
CREATE OR REPLACE FUNCTION enrollment_is_time(given text)
 RETURNS boolean
 LANGUAGE sql
 IMMUTABLE
RETURN (enrollment_is_day(given) AND ((substr(given, 11) COLLATE "C") ~ '^T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{3}Z$'::text))

-- function .enrollment_now
CREATE OR REPLACE FUNCTION enrollment_now()
 RETURNS text
 LANGUAGE sql
RETURN (to_char((clock_timestamp() AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'::text) COLLATE "C")

-- function .enrollment_promote
CREATE OR REPLACE FUNCTION enrollment_promote()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- function .enrollment_refusal
CREATE OR REPLACE FUNCTION enrollment_refusal(student bigint, course bigint)
 RETURNS text
 LANGUAGE plpgsql
AS $function$
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
END $function$

-- function .enrollment_refuse
CREATE OR REPLACE FUNCTION enrollment_refuse()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE restrict_violation USING MESSAGE = TG_ARGV[0];
END $function$

-- function .enrollment_take_turn
CREATE OR REPLACE FUNCTION enrollment_take_turn()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock(1701711, hashtext(TG_TABLE_SCHEMA));
    RETURN NULL;
END $function$

-- function .enrollment_tell
CREATE OR REPLACE FUNCTION enrollment_tell(what text, moment text, student bigint, course bigint)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
END $function$

-- function .enrollment_time
CREATE OR REPLACE FUNCTION enrollment_time(given text)
 RETURNS text
 LANGUAGE plpgsql
 SET "TimeZone" TO 'UTC'
 SET "DateStyle" TO 'ISO'
AS $function$
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
END $function$

-- function .enrollment_words
CREATE OR REPLACE FUNCTION enrollment_words(name text, more text)
 RETURNS tsvector
 LANGUAGE plpgsql
 STABLE
 SET search_path FROM CURRENT
AS $function$
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
END $function$

-- table api_sessions.api_sessions


-- table api_tokens.api_tokens


-- table courses.courses


-- table enrollment_events.enrollment_events


-- table enrollments.enrollments


-- table event_notes.event_notes


-- table letters.letters


-- table students.students


-- table terms.terms


-- column api_sessions.ends_at
character varying(24) COLLATE "C" NOT NULL

-- column api_sessions.hash
bytea NOT NULL

-- column api_sessions.token_id
character varying(8) COLLATE "C" NOT NULL

-- column api_tokens.created_at
character varying(24) COLLATE "C" NOT NULL

-- column api_tokens.expires_at
character varying(24) COLLATE "C"

-- column api_tokens.hash
bytea NOT NULL

-- column api_tokens.id
character varying(8) COLLATE "C" NOT NULL

-- column api_tokens.last_used_on
character varying(10) COLLATE "C"

-- column api_tokens.name
character varying(200) COLLATE "C" NOT NULL

-- column api_tokens.previous_hash
bytea

-- column api_tokens.previous_until
character varying(24) COLLATE "C"

-- column api_tokens.revoked_at
character varying(24) COLLATE "C"

-- column api_tokens.scopes
character varying(200) COLLATE "C" NOT NULL

-- column courses.capacity
bigint

-- column courses.closes_at
character varying(24) COLLATE "C"

-- column courses.enrolled
bigint NOT NULL DEFAULT 0

-- column courses.event_id
bigint

-- column courses.external_id
character varying(200) COLLATE "C"

-- column courses.id
bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY

-- column courses.level
character varying(200) COLLATE "C" NOT NULL

-- column courses.name
character varying(200) COLLATE "C" NOT NULL

-- column courses.opens_at
character varying(24) COLLATE "C"

-- column courses.term_id
bigint

-- column courses.waitlist_capacity
bigint DEFAULT 0

-- column courses.waitlisted
bigint NOT NULL DEFAULT 0

-- column courses.words
tsvector

-- column enrollment_events.at
character varying(24) COLLATE "C" NOT NULL

-- column enrollment_events.course_id
bigint NOT NULL

-- column enrollment_events.id
bigint NOT NULL

-- column enrollment_events.student_id
bigint NOT NULL

-- column enrollment_events.type
character varying(10) COLLATE "C" NOT NULL

-- column enrollments.course_id
bigint NOT NULL

-- column enrollments.enrolled_at
text COLLATE "C"

-- column enrollments.event_id
bigint

-- column enrollments.student_id
bigint NOT NULL

-- column enrollments.waiting
bigint

-- column event_notes.actor
character varying(200) COLLATE "C"

-- column event_notes.event_id
bigint NOT NULL

-- column event_notes.override
boolean NOT NULL DEFAULT false

-- column event_notes.reason
character varying(200) COLLATE "C"

-- column letters.letter
text COLLATE "C" NOT NULL

-- column letters.plain
text COLLATE "C" NOT NULL

-- column students.email
character varying(254) COLLATE "C"

-- column students.external_id
character varying(200) COLLATE "C"

-- column students.family_name
character varying(200) COLLATE "C"

-- column students.given_name
character varying(200) COLLATE "C"

-- column students.id
bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY

-- column students.name
character varying(200) COLLATE "C" NOT NULL

-- column students.words
tsvector

-- column terms.ends_on
character varying(10) COLLATE "C"

-- column terms.external_id
character varying(200) COLLATE "C"

-- column terms.id
bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY

-- column terms.name
character varying(200) COLLATE "C" NOT NULL

-- column terms.starts_on
character varying(10) COLLATE "C"

-- constraint api_sessions.api_sessions_ends_at_check
CHECK (enrollment_is_time((ends_at)::text))

-- constraint api_sessions.api_sessions_pkey
PRIMARY KEY (hash)

-- constraint api_sessions.api_sessions_token_id_fkey
FOREIGN KEY (token_id) REFERENCES api_tokens(id) ON DELETE CASCADE

-- constraint api_tokens.api_tokens_expires_at_check
CHECK (enrollment_is_time((expires_at)::text))

-- constraint api_tokens.api_tokens_hash_check
CHECK ((length(hash) = 32))

-- constraint api_tokens.api_tokens_pkey
PRIMARY KEY (id)

-- constraint api_tokens.api_tokens_previous_until_check
CHECK (enrollment_is_time((previous_until)::text))

-- constraint courses.course_places
CHECK (((waitlisted >= 0) AND (waitlisted <= waitlist_capacity)))

-- constraint courses.course_seats
CHECK (((enrolled >= 0) AND (enrolled <= capacity)))

-- constraint courses.courses_pkey
PRIMARY KEY (id)

-- constraint courses.courses_term_id_fkey
FOREIGN KEY (term_id) REFERENCES terms(id) ON DELETE RESTRICT

-- constraint enrollment_events.enrollment_events_pkey
PRIMARY KEY (id)

-- constraint enrollments.enrollment_seat_or_place
CHECK (((enrolled_at IS NULL) <> (waiting IS NULL)))

-- constraint enrollments.enrollments_course_id_fkey
FOREIGN KEY (course_id) REFERENCES courses(id) ON DELETE RESTRICT

-- constraint enrollments.enrollments_pkey
PRIMARY KEY (student_id, course_id)

-- constraint enrollments.enrollments_student_id_fkey
FOREIGN KEY (student_id) REFERENCES students(id) ON DELETE RESTRICT

-- constraint event_notes.event_notes_pkey
PRIMARY KEY (event_id)

-- constraint letters.letters_pkey
PRIMARY KEY (letter)

-- constraint students.students_pkey
PRIMARY KEY (id)

-- constraint terms.terms_pkey
PRIMARY KEY (id)

-- index courses.course_external_id
CREATE UNIQUE INDEX course_external_id ON courses USING btree (external_id) WHERE (external_id IS NOT NULL)

-- index courses.course_level_id
CREATE INDEX course_level_id ON courses USING btree (level, id)

-- index courses.course_level_name_id
CREATE INDEX course_level_name_id ON courses USING btree (level, lower((name)::text), id)

-- index courses.course_name_id
CREATE INDEX course_name_id ON courses USING btree (lower((name)::text), id)

-- index courses.course_term_id_id
CREATE INDEX course_term_id_id ON courses USING btree (term_id, id) WHERE (term_id IS NOT NULL)

-- index courses.course_term_id_name_id
CREATE INDEX course_term_id_name_id ON courses USING btree (term_id, lower((name)::text), id) WHERE (term_id IS NOT NULL)

-- index courses.course_words
CREATE INDEX course_words ON courses USING gin (words)

-- index enrollment_events.event_course_id_id
CREATE INDEX event_course_id_id ON enrollment_events USING btree (course_id, id)

-- index enrollment_events.event_student_id_id
CREATE INDEX event_student_id_id ON enrollment_events USING btree (student_id, id)

-- index enrollments.enrollment_line
CREATE INDEX enrollment_line ON enrollments USING btree (course_id, waiting) WHERE (waiting IS NOT NULL)

-- index enrollments.enrollment_roster
CREATE INDEX enrollment_roster ON enrollments USING btree (course_id, student_id) INCLUDE (enrolled_at) WHERE (waiting IS NULL)

-- index students.student_external_id
CREATE UNIQUE INDEX student_external_id ON students USING btree (external_id) WHERE (external_id IS NOT NULL)

-- index students.student_name_id
CREATE INDEX student_name_id ON students USING btree (lower((name)::text), id)

-- index students.student_words
CREATE INDEX student_words ON students USING gin (words)

-- index terms.term_external_id
CREATE UNIQUE INDEX term_external_id ON terms USING btree (external_id) WHERE (external_id IS NOT NULL)

-- trigger courses.course_turn
CREATE TRIGGER course_turn BEFORE INSERT OR DELETE OR UPDATE ON courses FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn()

-- trigger courses.seats_freed
CREATE TRIGGER seats_freed AFTER UPDATE ON courses FOR EACH ROW WHEN (((new.waitlisted > 0) AND COALESCE((new.enrolled < new.capacity), true))) EXECUTE FUNCTION enrollment_promote()

-- trigger courses.zz_course_added
CREATE TRIGGER zz_course_added BEFORE INSERT ON courses FOR EACH ROW EXECUTE FUNCTION enrollment_check_course()

-- trigger courses.zz_course_changed
CREATE TRIGGER zz_course_changed BEFORE UPDATE ON courses FOR EACH ROW WHEN (((((((((((new.id IS DISTINCT FROM old.id) OR ((new.name)::text IS DISTINCT FROM (old.name)::text)) OR ((new.level)::text IS DISTINCT FROM (old.level)::text)) OR (new.capacity IS DISTINCT FROM old.capacity)) OR (new.waitlist_capacity IS DISTINCT FROM old.waitlist_capacity)) OR ((new.external_id)::text IS DISTINCT FROM (old.external_id)::text)) OR (new.term_id IS DISTINCT FROM old.term_id)) OR ((new.opens_at)::text IS DISTINCT FROM (old.opens_at)::text)) OR ((new.closes_at)::text IS DISTINCT FROM (old.closes_at)::text)) OR (new.words IS DISTINCT FROM old.words))) EXECUTE FUNCTION enrollment_check_course()

-- trigger courses.zz_course_counted
CREATE TRIGGER zz_course_counted BEFORE UPDATE ON courses FOR EACH ROW WHEN (((((new.enrolled IS DISTINCT FROM old.enrolled) OR (new.waitlisted IS DISTINCT FROM old.waitlisted)) OR (new.event_id IS DISTINCT FROM old.event_id)) AND (((current_setting('enrollment.judged'::text, true) = (pg_current_xact_id_if_assigned())::text) AND has_table_privilege(('courses'::regclass)::oid, 'TRIGGER'::text) AND has_table_privilege(SESSION_USER, ('courses'::regclass)::oid, 'TRIGGER'::text)) IS NOT TRUE))) EXECUTE FUNCTION enrollment_check_counts()

-- trigger enrollment_events.event_changed
CREATE TRIGGER event_changed BEFORE UPDATE ON enrollment_events FOR EACH ROW EXECUTE FUNCTION enrollment_refuse('events are never changed')

-- trigger enrollment_events.event_deleted
CREATE TRIGGER event_deleted BEFORE DELETE ON enrollment_events FOR EACH ROW EXECUTE FUNCTION enrollment_refuse('events are never deleted')

-- trigger enrollment_events.event_kept
CREATE TRIGGER event_kept BEFORE TRUNCATE ON enrollment_events FOR EACH STATEMENT EXECUTE FUNCTION enrollment_refuse('events are never deleted')

-- trigger enrollment_events.event_turn
CREATE TRIGGER event_turn BEFORE INSERT ON enrollment_events FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn()

-- trigger enrollment_events.zz_event_added
CREATE TRIGGER zz_event_added BEFORE INSERT ON enrollment_events FOR EACH ROW WHEN ((((current_setting('enrollment.judged'::text, true) = (pg_current_xact_id_if_assigned())::text) AND has_table_privilege(('enrollment_events'::regclass)::oid, 'TRIGGER'::text) AND has_table_privilege(SESSION_USER, ('enrollment_events'::regclass)::oid, 'TRIGGER'::text)) IS NOT TRUE)) EXECUTE FUNCTION enrollment_check_event()

-- trigger enrollments.enrollment_dropped
CREATE TRIGGER enrollment_dropped AFTER DELETE ON enrollments REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enrollment_dropped()

-- trigger enrollments.enrollment_kept
CREATE TRIGGER enrollment_kept BEFORE TRUNCATE ON enrollments FOR EACH STATEMENT EXECUTE FUNCTION enrollment_refuse('enrollments are dropped one by one')

-- trigger enrollments.enrollment_turn
CREATE TRIGGER enrollment_turn BEFORE INSERT OR DELETE OR UPDATE ON enrollments FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn()

-- trigger enrollments.zz_enrollment_adding
CREATE TRIGGER zz_enrollment_adding BEFORE INSERT ON enrollments FOR EACH ROW WHEN ((((current_setting('enrollment.judged'::text, true) = (pg_current_xact_id_if_assigned())::text) AND has_table_privilege(('enrollments'::regclass)::oid, 'TRIGGER'::text) AND has_table_privilege(SESSION_USER, ('enrollments'::regclass)::oid, 'TRIGGER'::text)) IS NOT TRUE)) EXECUTE FUNCTION enrollment_adding()

-- trigger enrollments.zz_enrollment_changing
CREATE TRIGGER zz_enrollment_changing BEFORE UPDATE ON enrollments FOR EACH ROW EXECUTE FUNCTION enrollment_changing()

-- trigger event_notes.note_deleted
CREATE TRIGGER note_deleted BEFORE DELETE ON event_notes FOR EACH ROW EXECUTE FUNCTION enrollment_refuse('events are never deleted')

-- trigger event_notes.note_kept
CREATE TRIGGER note_kept BEFORE TRUNCATE ON event_notes FOR EACH STATEMENT EXECUTE FUNCTION enrollment_refuse('events are never deleted')

-- trigger event_notes.note_turn
CREATE TRIGGER note_turn BEFORE INSERT OR UPDATE ON event_notes FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn()

-- trigger event_notes.zz_note_checked
CREATE TRIGGER zz_note_checked BEFORE INSERT OR UPDATE ON event_notes FOR EACH ROW EXECUTE FUNCTION enrollment_check_note()

-- trigger students.student_turn
CREATE TRIGGER student_turn BEFORE INSERT OR DELETE OR UPDATE ON students FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn()

-- trigger students.zz_student_checked
CREATE TRIGGER zz_student_checked BEFORE INSERT OR UPDATE ON students FOR EACH ROW EXECUTE FUNCTION enrollment_check_student()

-- trigger terms.term_turn
CREATE TRIGGER term_turn BEFORE INSERT OR DELETE OR UPDATE ON terms FOR EACH STATEMENT EXECUTE FUNCTION enrollment_take_turn()

-- trigger terms.zz_term_checked
CREATE TRIGGER zz_term_checked BEFORE INSERT OR UPDATE ON terms FOR EACH ROW EXECUTE FUNCTION enrollment_check_term()
