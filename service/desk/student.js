// One student: the schedule, the places in line, and what has happened.

import { get, numberOf, post, root } from "./api.js";
import { heads, eventCells } from "./activity.js";
import { bdi, button, chip, fine, h, put } from "./dom.js";
import { editing, openForm, outcome, performing, REASON } from "./form.js";
import { actions, list } from "./list.js";
import { about, arrows, back, link, more, section, top, when } from "./parts.js";
import { picker } from "./picker.js";
import { seating } from "./seating.js";
import { FIELDS } from "./students.js";
import { say, t } from "./words.js";

export async function show(desk, { id, signal }) {
	let student = await get(`/students/${id}`, signal);
	const here = `/students/${student.id}`;
	const said = outcome(desk.late, signal);
	const heading = h("h1");
	const line = h("p.soft.about");
	const view = { said, refresh };
	const act = seating(desk, view);
	const may = (what, course, does) => button(t(what), does, "plain", t(`${what}.from`, { course: course.name }));

	const schedule = list({
		...{ key: "schedule", signal },
		columns: [[t("course.name"), "wide"], [t("course.level"), "middle"], [t("schedule.status"), "state"], actions()],
		row: (course) => [
			link("courses", course),
			bdi(course.level),
			course.status === "enrolled"
				? [chip("open", t("status.enrolled")), " ", fine(when(course.enrolled_at))]
				: chip("waitlist", t("status.waitlisted", { n: course.position })),
			desk.can("enroll") && [
				may("swap", course, () => swap(course)),
				may("drop", course, () => act.drop(student, course, course.status)),
			],
		],
	});
	const history = list({
		...{ key: "history", signal },
		columns: heads(false),
		row: (event) => eventCells(event, false),
	});

	function tell() {
		put(heading, bdi(student.name));
		put(line, about(bdi(numberOf(student)), bdi(student.email)));
	}

	async function refresh() {
		[student] = await Promise.all([get(here, signal), schedule.refresh(), history.refresh()]);
		tell();
	}

	async function swap(course) {
		const values = { student: student.name, course: course.name };
		const given = await openForm("swap", {
			intro: h("p", say("swap.what", values)),
			fields: [
				{ name: "enroll_course_id", key: "swap.to", kind: "pick", of: "courses", required: true },
				{ name: "or_wait", key: "swap.wait", kind: "check" },
				REASON,
			],
			send: (asked) =>
				post(`${here}/swap`, { drop_course_id: course.id, ...asked }).catch((error) => {
					if (error.status === 409) error.field = "enroll_course_id";
					if (error.code === "course_full" && !asked.or_wait) error.message = t("swap.full");
					throw error;
				}),
		});
		if (!given) return;
		const { name: other } = await get(`/courses/${given.enrollment.course_id}`);
		said.good(
			say(given.dropped ? "swap.done" : "swap.waits", { ...values, other, position: given.enrollment.position ?? 0 }),
		);
		await view.refresh();
	}

	const perform = performing(view);
	const edit = () => editing(perform, "student.edit", FIELDS, student, here);

	function withdraw() {
		const values = { student: student.name, n: schedule.rows().length };
		const send = (given) => post(`${here}/withdraw`, given);
		return perform(
			"withdraw",
			{ danger: true, intro: h("p", say("withdraw.what", values)), fields: [REASON], send },
			(given) => say("withdraw.done", { ...values, n: given.dropped }),
		);
	}

	async function erase() {
		const intro = h("p", say("erase.what", { student: student.name }));
		const gone = await openForm("erase", { danger: true, intro, send: () => post(`${here}/erase`) });
		if (gone !== undefined) desk.go("students");
	}

	const find =
		desk.can("enroll") &&
		picker({
			kind: "courses",
			label: t("enroll.course"),
			hint: t("enroll.course.hint"),
			choose: (course) => act.enroll(student, course),
			lost: said.bad,
		});
	await Promise.all([schedule.show(`${here}/courses`), history.show(`/events?student_id=${student.id}`)]);
	tell();
	arrows(schedule.node);
	const kept = { class: "button", href: new URL(`.${here}/export`, root).href, download: `student-${student.id}.json` };
	const node = [
		back("students"),
		top(
			heading,
			line,
			desk.can("write") && button(t("edit"), edit),
			desk.can("enroll") && button(t("withdraw"), withdraw, "danger"),
			more(h("a", kept, t("export")), desk.can("write") && button(t("erase"), erase, "danger")),
		),
		h("div.noprint", find && find.node, said.node),
		section("schedule", null, schedule.node),
		section("history", null, history.node),
	];
	function events(came) {
		// Places in line move when others leave, so an event of one of the student's courses counts too.
		const courses = new Set(schedule.rows().map((course) => course.id));
		if (came.some((each) => each.student_id === student.id || courses.has(each.course_id))) view.refresh();
	}
	return Object.assign(view, { title: student.name, node, find, events });
}
