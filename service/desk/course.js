// One course: its seats, who has one, and who waits.

import { all, get, numberOf, post, remove } from "./api.js";
import { bdi, beside, button, h, put, sleep, soft } from "./dom.js";
import { fields } from "./courses.js";
import { editing, openForm, outcome, performing, REASON } from "./form.js";
import { actions, list } from "./list.js";
import { about, arrows, availability, back, link, more, seats, section, top, when } from "./parts.js";
import { picker } from "./picker.js";
import { seating } from "./seating.js";
import { moment, say, t } from "./words.js";

export async function show(desk, { id, signal }) {
	let [course, terms] = await Promise.all([get(`/courses/${id}`, signal), all("/terms?limit=1000", signal)]);
	const here = `/courses/${course.id}`;
	const said = outcome(desk.late, signal);
	const facts = h("div.facts");
	const heading = h("h1");
	const line = h("p.soft.about");
	const view = { said, refresh };
	const act = seating(desk, view);
	const may = (what, student, does, ...scopes) =>
		scopes.every(desk.can) && button(t(what), does, "plain", t(`${what}.of`, { student: student.name }));
	const dropping = (student) => may("drop", student, () => act.drop(student, course, student.status), "enroll");

	const roster = list({
		...{ key: "roster", signal },
		columns: [
			[t("student.number"), "number"],
			[t("student.name"), "wide"],
			[t("course.since"), "date soft noprint"],
			actions("acts noprint"),
		],
		row: (student) => [bdi(numberOf(student)), link("students", student), when(student.enrolled_at), dropping(student)],
	});
	const line_up = list({
		...{ key: "waitlist", signal },
		columns: [[t("waitlist.place"), "place"], [t("student.name"), "wide"], actions()],
		row: (student) => [
			student.position,
			[link("students", student), beside(numberOf(student))],
			[may("override", student, () => act.override(student, course), "enroll", "override"), dropping(student)],
		],
	});
	const waiting = section("waitlist", "waiting", line_up.node);

	function tell() {
		const { enrolled, capacity, waitlisted, waitlist_capacity: places } = course;
		const term = terms.find((each) => each.id === course.term_id);
		put(heading, bdi(course.name));
		put(
			line,
			about(
				bdi(course.external_id),
				bdi(course.level),
				term && bdi(term.name),
				course.opens_at && t("course.opens.at", { at: moment(course.opens_at) }),
				course.closes_at && t("course.closes.at", { at: moment(course.closes_at) }),
			),
		);
		const free = capacity === null ? "" : t("facts.seats", { n: Math.max(capacity - enrolled, 0), capacity });
		const wait =
			places === 0 && waitlisted === 0
				? t("facts.no-line")
				: t(places === null ? "facts.line" : "facts.places", { n: waitlisted, places: places ?? 0 });
		put(facts, seats(course), h("p", free, " ", wait), availability(course));
		waiting.hidden = waitlisted === 0;
	}

	async function refresh() {
		const before = `${course.enrolled} ${course.waitlisted}`;
		course = await get(here, signal);
		tell();
		await Promise.all([line_up.refresh(), roster.refresh()]);
		if (before !== `${course.enrolled} ${course.waitlisted}`) {
			desk.announce(t("facts.now", { n: course.enrolled, waiting: course.waitlisted }));
		}
	}

	/** A changed limit or window, and a moment at which enrolling opens or closes, make no event. */
	async function watch() {
		for (await sleep(500); !signal.aborted; await sleep(500)) {
			if (document.hidden || !desk.feed.connected) continue;
			const now = await get(here, signal).catch((error) => error);
			if (JSON.stringify(now) !== JSON.stringify(course)) view.refresh();
		}
	}

	const perform = performing(view);
	const edit = () => editing(perform, "course.edit", fields(terms), course, here);

	function cancel() {
		const values = { course: course.name, n: course.enrolled + course.waitlisted };
		const intro = [h("p", say("cancel.what", values)), soft(t("cancel.hint"))];
		const send = (given) => post(`${here}/cancel`, given);
		return perform("cancel", { danger: true, intro, fields: [REASON], send }, (given) =>
			say("cancel.done", { ...values, n: given.dropped }),
		);
	}

	async function erase() {
		const intro = h("p", say("delete.what", { name: course.name }));
		if (await openForm("delete", { danger: true, intro, send: () => remove(here) })) desk.go("courses");
	}

	async function print() {
		if (await roster.whole()) window.print();
	}

	const find =
		desk.can("enroll") &&
		picker({
			kind: "students",
			label: t("enroll.student"),
			hint: t("enroll.hint"),
			choose: (student) => act.enroll(student, course),
			lost: said.bad,
		});
	await Promise.all([roster.show(`${here}/students?order=name`), line_up.show(`${here}/waitlist`)]);
	tell();
	arrows(roster.node);
	arrows(line_up.node);
	const node = [
		back("courses"),
		top(
			heading,
			line,
			desk.can("write") && button(t("edit"), edit),
			button(t("print"), print),
			more(
				h("a.button", { href: `exports${here}/roster.csv?excel=1` }, t("csv")),
				desk.can("enroll") && button(t("cancel"), cancel, "danger"),
				desk.can("write") && button(t("delete"), erase, "danger"),
			),
		),
		facts,
		h("div.noprint", find && find.node, said.node),
		h("div.two", waiting, section("roster", "roster", roster.node)),
	];
	const events = (came) => came.some((each) => each.course_id === course.id) && view.refresh();
	watch();
	return Object.assign(view, { title: course.name, node, find, events });
}
