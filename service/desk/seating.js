// What an office does with one student and one course: enroll, drop, undo, override.

import { Refusal, get, post, query, remove } from "./api.js";
import { bdi, button, h } from "./dom.js";
import { openForm, performing, REASON } from "./form.js";
import { moment, say, t } from "./words.js";

const NAMED = 10;
const OVERRIDABLE = new Set(["course_full", "enrollment_not_open", "enrollment_closed", "already_waitlisted"]);

/** `view` says what came of it, gets the focus where it finds students or courses, and is read anew. */
export function seating(desk, view) {
	const { said } = view;
	const focus = () => view.find.input.focus();
	const perform = performing(view, focus);
	const names = (student, course) => ({ student: student.name, course: course.name });

	const overriding = (student, course) =>
		desk.can("override") && button(t("override.do"), () => override(student, course));

	/** `words` are those for a seat, for a place on the waitlist, and for neither. */
	const enroll = (student, course, words = ["came.seat", "came.place", "refused"]) =>
		said.during(async () => {
			try {
				const value = await post(`/students/${student.id}/courses`, { course_id: course.id });
				const seated = value.status === "enrolled";
				const values = { ...names(student, course), position: value.position ?? 0 };
				said.good(say(words[seated ? 0 : 1], values), !seated && overriding(student, course));
			} catch (error) {
				if (!(error instanceof Refusal)) throw error;
				const key = error.code === "course_full" ? words[2] : "refused";
				said.bad(
					say(key, { name: student.name, words: error.message }),
					OVERRIDABLE.has(error.code) && overriding(student, course),
				);
			}
			focus();
			await view.refresh();
		});

	async function drop(student, course, status) {
		const waits = status === "waitlisted";
		const done = await openForm("drop", {
			...{ danger: true, fields: [REASON] },
			intro: h("p", say(waits ? "drop.waits" : "drop.what", names(student, course))),
			send: (values) => remove(`/students/${student.id}/courses/${course.id}${query(values)}`),
		});
		if (!done) return;
		// The seat, or the place in line, may have gone to another student meanwhile.
		const again = waits ? ["undo.seat", "undo.place", "undo.line"] : ["undo.seat", "undo.gone", "undo.full"];
		const undo = button(t("undo"), () => enroll(student, course, again));
		said.good(say("drop.done", names(student, course)), undo);
		undo.focus();
		await view.refresh();
	}

	async function override(student, course) {
		const here = `/courses/${course.id}`;
		const [now, line, places] = await Promise.all([
			get(here),
			get(`${here}/waitlist?limit=${NAMED}`),
			get(`/students/${student.id}/courses?status=waitlisted&limit=1000`),
		]);
		// Whoever waits behind the student is not passed over.
		const place = places.find((each) => each.id === course.id)?.position;
		const n = place ? place - 1 : now.waitlisted;
		const whom = place === 1 ? "override.head" : n ? "override.passes" : "override.nobody";
		const named = line.slice(0, n).map((each, at) => [at > 0 && ", ", bdi(each.name)]);
		const head = h("span", named, n > NAMED && ", …");
		const intro = [
			h("p", say("override.what", names(student, course))),
			h("p", { class: n > 0 && "warn" }, say(whom, { ...names(student, course), n, head })),
			now.seats_left === 0 && h("p", t("override.grows", { n: now.capacity + 1 })),
			now.availability === "closed" && h("p", t("override.closed", { at: moment(now.closes_at) })),
		];
		const body = { course_id: course.id, override: true };
		const send = (values) => post(`/students/${student.id}/courses`, { ...body, ...values });
		await perform("override", { intro, fields: [REASON], send }, () => say("came.seat", names(student, course)));
	}

	return { enroll, drop, override };
}
