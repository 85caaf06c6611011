// What a program in TypeScript does with the types that openapi-typescript makes: it must compile.
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });

/** Enroll a student. Gives whether the student has a seat or waits, or the code of the refusal. */
export async function enroll(student_id: number, course_id: number): Promise<string> {
  const { data, error } = await client.POST("/students/{student_id}/courses", {
    params: { path: { student_id } },
    body: { course_id },
  });
  return data ? data.status : error.code;
}

/** Give the names of a page of students. */
export async function names(q: string): Promise<string[]> {
  const { data } = await client.GET("/students", { params: { query: { q, limit: 10 } } });
  return (data ?? []).map((student) => student.name);
}
