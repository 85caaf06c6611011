// The students, found by any part of the name or by the number.

import { numberOf, post, query } from "./api.js";
import { bdi, button, h } from "./dom.js";
import { openForm } from "./form.js";
import { list } from "./list.js";
import { arrows, filters, link, search, top } from "./parts.js";
import { t } from "./words.js";

export const FIELDS = [
	{ name: "given_name", key: "student.given", pair: true },
	{ name: "family_name", key: "student.family", pair: true },
	{ name: "name", key: "student.name" },
	{ name: "external_id", key: "student.number", pair: true },
	{ name: "email", key: "student.email", pair: true },
];

export async function show(desk, { id, query: asked, signal }) {
	if (id) return (await import("./student.js")).show(desk, { id, signal });
	const rows = list({
		...{ key: "students", signal },
		columns: [
			[t("student.number"), "number"],
			[t("student.name"), "wide"],
			[t("student.email"), "half"],
		],
		row: (student) => [bdi(numberOf(student)), link("students", student), bdi(student.email)],
		loaded: (n, more) => input.value && desk.announce(t(more ? "list.first" : "list.all", { n })),
	});
	const path = (q) => `/students${query({ q }, q ? null : "name")}`;
	const input = search(
		t("students.search"),
		asked.q ?? "",
		(q) => {
			desk.note(`students${query({ q })}`);
			rows.show(path(q)).catch(() => null);
		},
		signal,
	);
	async function add() {
		const made = await openForm("student.add", {
			fields: FIELDS,
			// A name that is not given is made of the other two.
			send: (values) =>
				post("/students", Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null))),
		});
		if (made) desk.go(`students/${made.id}`);
	}
	await rows.show(path(asked.q ?? ""));
	arrows(rows.node, input, rows.shown);
	const node = [
		top(h("h1", t("students")), null, desk.can("write") && button(t("student.add.title"), add, "main")),
		filters(input),
		rows.node,
	];
	return { title: t("students"), node, refresh: rows.refresh };
}
