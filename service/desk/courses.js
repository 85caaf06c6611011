// The courses, with a bar of seats for each.

import { all, post, query } from "./api.js";
import { bdi, beside, button, h, select } from "./dom.js";
import { openForm } from "./form.js";
import { list } from "./list.js";
import { arrows, availability, filters, link, search, seats, top } from "./parts.js";
import { t } from "./words.js";

export const fields = (terms) => [
	{ name: "name", key: "course.name", required: true },
	{ name: "level", key: "course.level", required: true, pair: true },
	{ name: "external_id", key: "course.number", pair: true },
	{
		...{ name: "term_id", key: "course.term", kind: "choice" },
		options: [["", t("term.none")], ...terms.map(({ id, name }) => [id, name])],
	},
	{ name: "capacity", key: "course.capacity", kind: "count", pair: true },
	{ name: "waitlist_capacity", key: "course.waitlist", kind: "count", pair: true },
	{ name: "opens_at", key: "course.opens", kind: "moment", pair: true },
	{ name: "closes_at", key: "course.closes", kind: "moment", pair: true },
];

export async function show(desk, { id, query: asked, signal }) {
	if (id) return (await import("./course.js")).show(desk, { id, signal });
	const terms = await all("/terms?limit=1000", signal);
	const termOf = new Map(terms.map((term) => [term.id, term.name]));
	const wanted = { q: "", term_id: "", level: "", ...asked };

	const rows = list({
		...{ key: "courses", signal },
		columns: [
			[t("course.name"), "wide"],
			[t("course.level"), "middle"],
			[t("course.term"), "middle"],
			[t("course.seats"), "bars"],
			[t("course.state"), "small"],
		],
		row: (course) => [
			[link("courses", course), beside(course.external_id)],
			bdi(course.level),
			termOf.has(course.term_id) && bdi(termOf.get(course.term_id)),
			seats(course),
			availability(course),
		],
		loaded: (n, more) => input.value && desk.announce(t(more ? "list.first" : "list.all", { n })),
	});
	const path = () => {
		const { q, term_id, level } = wanted;
		// Without a search an empty beginning of the name asks for the order of the names.
		return `/courses${query({ q, term_id, level }, q ? null : "name")}`;
	};
	const find = (changes) => {
		Object.assign(wanted, changes);
		desk.note(`courses${query(wanted)}`);
		rows.show(path()).catch(() => null);
	};

	const input = search(t("courses.search"), wanted.q, (q) => find({ q }), signal);
	const term = select(wanted.term_id, [["", t("term.every")], ...termOf], {
		"aria-label": t("course.term"),
		onchange: (event) => find({ term_id: event.target.value }),
	});
	const level = search(t("course.level.every"), wanted.level, (level) => find({ level }), signal);
	async function add() {
		const made = await openForm("course.add", {
			fields: fields(terms),
			values: { term_id: wanted.term_id, waitlist_capacity: 0 },
			send: (values) => post("/courses", values),
		});
		if (made) desk.go(`courses/${made.id}`);
	}

	await rows.show(path());
	arrows(rows.node, input, rows.shown);
	const node = [
		top(h("h1", t("courses")), null, desk.can("write") && button(t("course.add.title"), add, "main")),
		filters(input, term, level),
		rows.node,
	];
	const view = {
		...{ title: t("courses"), node, refresh: rows.refresh },
		events(came) {
			const ids = new Set(rows.rows().map((course) => course.id));
			if (came.some((each) => ids.has(each.course_id))) view.refresh();
		},
	};
	return view;
}
