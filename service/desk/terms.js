// The terms, which courses are of.

import { post, query, remove } from "./api.js";
import { bdi, button, h } from "./dom.js";
import { editing, outcome, performing } from "./form.js";
import { actions, list } from "./list.js";
import { arrows, top } from "./parts.js";
import { day, say, t } from "./words.js";

const FIELDS = [
	{ name: "name", key: "term.name", required: true },
	{ name: "external_id", key: "term.number" },
	{ name: "starts_on", key: "term.starts", kind: "day", pair: true },
	{ name: "ends_on", key: "term.ends", kind: "day", pair: true },
];

export async function show(desk, { signal }) {
	const said = outcome(desk.late, signal);
	const may = (what, term, does) => button(t(what), () => does(term), "plain", t(`${what}.term`, { term: term.name }));
	const rows = list({
		...{ key: "terms", signal },
		columns: [
			[t("term.number"), "number"],
			[t("term.name"), "wide"],
			[t("term.starts"), "middle"],
			[t("term.ends"), "middle"],
			actions(),
		],
		row: (term) => [
			bdi(term.external_id),
			h("a", { href: `#/courses${query({ term_id: term.id })}` }, bdi(term.name)),
			term.starts_on && day(term.starts_on),
			term.ends_on && day(term.ends_on),
			desk.can("write") && [may("edit", term, edit), may("delete", term, erase)],
		],
	});
	const view = { title: t("terms"), said, refresh: rows.refresh };
	const perform = performing(view);
	const add = () =>
		perform("term.add", { fields: FIELDS, send: (values) => post("/terms", values) }, ({ name }) =>
			say("added", { name }),
		);
	const edit = (term) => editing(perform, "term.edit", FIELDS, term, `/terms/${term.id}`);
	async function erase(term) {
		const intro = h("p", say("delete.what", { name: term.name }));
		await perform("delete", { danger: true, intro, send: () => remove(`/terms/${term.id}`) }, () =>
			say("deleted", { name: term.name }),
		);
		head.focus();
	}
	const head = h("h1", t("terms"));
	await rows.show("/terms");
	arrows(rows.node);
	const adds = desk.can("write") && button(t("term.add.title"), add, "main");
	return Object.assign(view, { node: [top(head, null, adds), said.node, rows.node] });
}
