// What an office does with one student and one course: enroll, drop, undo, override. Both views do it here.

import { Refusal, get, post, query, remove } from "./api.js";
import { button, h } from "./dom.js";
import { openForm, performing, REASON } from "./form.js";
import { moment, say, t } from "./words.js";

const OVERRIDABLE = new Set(["course_full", "enrollment_not_open", "enrollment_closed", "already_waitlisted"]);

/** `view` says what came of it; then the focus goes to what it finds students or courses with, and it is read anew. */
export function seating(desk, view) {
	const { said } = view;
	const focus = () => view.find.input.focus();
	const perform = performing(view, focus);
	const names = (student, course) => ({ student: student.name, course: course.name });

	const overriding = (student, course) =>
		desk.can("override") && button(t("override.do"), () => override(student, course));

	/** `words` are those for a seat and for a place on the waitlist. */
	const enroll = (student, course, words = ["came.seat", "came.place"]) =>
		said.during(async () => {
			try {
				const value = await post(`/students/${student.id}/courses`, { course_id: course.id });
				const seated = value.status === "enrolled";
				const values = { ...names(student, course), position: value.position ?? 0 };
				said.good(say(words[seated ? 0 : 1], values), !seated && overriding(student, course));
			} catch (error) {
				if (!(error instanceof Refusal)) throw error;
				said.bad(
					say("refused", { name: student.name, words: error.message }),
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
			intro: h("p", null, say(waits ? "drop.waits" : "drop.what", names(student, course))),
			send: (values) => remove(`/students/${student.id}/courses/${course.id}${query(values)}`),
		});
		if (!done) return;
		// The seat may have gone to the head of the waitlist meanwhile, and a place in line to the next student.
		const undo = button(t("undo"), () => enroll(student, course, ["undo.seat", waits ? "undo.place" : "undo.gone"]));
		said.good(say("drop.done", names(student, course)), undo);
		undo.focus();
		await view.refresh();
	}

	async function override(student, course) {
		const here = `/courses/${course.id}`;
		const [now, [head]] = await Promise.all([get(here), get(`${here}/waitlist?limit=1`)]);
		const whom = !head ? "override.nobody" : head.id === student.id ? "override.head" : "override.passes";
		const intro = [
			h("p", null, say("override.what", names(student, course))),
			h("p", { class: head && "warn" }, say(whom, { ...names(student, course), n: now.waitlisted, head: head?.name })),
			now.seats_left === 0 && h("p", null, t("override.grows", { n: now.capacity + 1 })),
			now.availability === "closed" && h("p", null, t("override.closed", { at: moment(now.closes_at) })),
		];
		const body = { course_id: course.id, override: true };
		const send = (values) => post(`/students/${student.id}/courses`, { ...body, ...values });
		await perform("override", { intro, fields: [REASON], send }, () => say("came.seat", names(student, course)));
	}

	return { enroll, drop, override };
}
