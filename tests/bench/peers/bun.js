// The two routes in Bun with bun:sqlite, one process: seat count and event in one transaction, as its own
// documentation has it: Bun.serve with routes, prepared statements, db.transaction().
import { Database } from "bun:sqlite";

const db = new Database(process.env.DATABASE, { create: true, strict: true });
db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000");
db.exec(`
  CREATE TABLE IF NOT EXISTS students (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS courses (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, level TEXT NOT NULL, capacity INTEGER,
    enrolled INTEGER NOT NULL DEFAULT 0 CHECK (enrolled >= 0 AND enrolled <= capacity));
  CREATE TABLE IF NOT EXISTS enrollments (
    student_id INTEGER NOT NULL REFERENCES students (id), course_id INTEGER NOT NULL REFERENCES courses (id),
    enrolled_at TEXT NOT NULL, PRIMARY KEY (student_id, course_id)) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS enrollment_roster ON enrollments (course_id, student_id);
  CREATE TABLE IF NOT EXISTS enrollment_events (
    id INTEGER PRIMARY KEY, type TEXT NOT NULL, at TEXT NOT NULL,
    student_id INTEGER NOT NULL, course_id INTEGER NOT NULL);
  CREATE INDEX IF NOT EXISTS event_student ON enrollment_events (student_id, id);
  CREATE INDEX IF NOT EXISTS event_course ON enrollment_events (course_id, id);
`);

const findStudent = db.query("SELECT 1 FROM students WHERE id = ?");
const findCourse = db.query("SELECT 1 FROM courses WHERE id = ?");
const schedule = db.query(`
  SELECT courses.id, courses.name, courses.level, enrollments.enrolled_at
  FROM enrollments JOIN courses ON courses.id = enrollments.course_id
  WHERE enrollments.student_id = ? ORDER BY enrollments.course_id LIMIT 100`);
const roster = db.query(`
  SELECT students.id, students.name, enrollments.enrolled_at
  FROM enrollments JOIN students ON students.id = enrollments.student_id
  WHERE enrollments.course_id = ? AND enrollments.student_id > ? ORDER BY enrollments.student_id LIMIT ?`);
const takeSeat = db.query(`
  UPDATE courses SET enrolled = enrolled + 1 WHERE id = ? AND (capacity IS NULL OR enrolled < capacity)`);
const insertEnrollment = db.query("INSERT INTO enrollments (student_id, course_id, enrolled_at) VALUES (?, ?, ?)");
const insertEvent = db.query(`
  INSERT INTO enrollment_events (type, at, student_id, course_id) VALUES ('enrolled', ?, ?, ?)`);

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const enroll = db.transaction((student, course, now) => {
  if (!findStudent.get(student)) throw new Refused(404, "student_not_found");
  if (!findCourse.get(course)) throw new Refused(404, "course_not_found");
  if (takeSeat.run(course).changes === 0) throw new Refused(409, "course_full");
  insertEnrollment.run(student, course, now);
  insertEvent.run(now, student, course);
}).immediate;

const refuse = (status, code) => Response.json({ code }, { status });

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  routes: {
    "/students/:id/courses": {
      GET(request) {
        const id = Number(request.params.id);
        const rows = schedule.all(id);
        if (rows.length === 0 && !findStudent.get(id)) return refuse(404, "student_not_found");
        return Response.json(rows);
      },
      async POST(request) {
        const student_id = Number(request.params.id);
        const payload = await request.json().catch(() => null);
        const course_id = payload?.course_id;
        if (!Number.isSafeInteger(course_id) || course_id < 1) return refuse(422, "invalid_payload");
        const enrolled_at = new Date().toISOString();
        try {
          enroll(student_id, course_id, enrolled_at);
        } catch (error) {
          if (error instanceof Refused) return refuse(error.status, error.message);
          if (error.code === "SQLITE_CONSTRAINT_PRIMARYKEY") return refuse(409, "already_enrolled");
          throw error;
        }
        return Response.json({ student_id, course_id, enrolled_at }, { status: 201 });
      },
    },
    "/courses/:id/students": {
      GET(request) {
        const id = Number(request.params.id);
        const query = new URL(request.url).searchParams;
        const rows = roster.all(id, Number(query.get("after") ?? 0), Number(query.get("limit") ?? 100));
        if (rows.length === 0 && !findCourse.get(id)) return refuse(404, "course_not_found");
        return Response.json(rows);
      },
    },
  },
  fetch: () => refuse(404, "not_found"),
});
process.on("SIGTERM", () => server.stop(true).finally(() => process.exit(0)));
