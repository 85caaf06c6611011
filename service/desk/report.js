// What came of a file, or would, and the rows that are refused.

import { bdi, button, h, put, select, soft } from "./dom.js";
import { tableOf } from "./list.js";
import { filters, search, top } from "./parts.js";
import { shown, t } from "./words.js";

export const NOUNS = ["terms", "courses", "students", "enrollments"];
export const CHANGES = ["created", "updated", "enrolled", "waitlisted", "dropped"];
const COUNTS = [...CHANGES, "unchanged", "refused"];
/** The columns that follow the cells of a refused row; an import leaves them out. */
const ADDED = ["line", "code", "reason"];
const MOST = 500;

const cell = (value) => (/[",\r\n]|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** Keep refused rows, to be mended: as CSV, in UTF-8 with the mark by which spreadsheets know it. */
function save(kind, rows) {
	const columns = [...new Set(rows.flatMap(({ row, column }) => [...Object.keys(row), column].filter(Boolean)))];
	const lines = rows.map(({ row, column, value, line, code, detail }) => {
		const cells = { [column]: value, ...row };
		return [...columns.map((name) => cells[name] ?? ""), String(line), code, detail];
	});
	const text = [[...columns, ...ADDED], ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
	const href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
	h("a", { href, download: `refused-${kind}.csv` }).click();
	setTimeout(() => URL.revokeObjectURL(href), 10000);
}

export function totalsOf({ totals }) {
	const kinds = NOUNS.filter((kind) => COUNTS.some((count) => totals[kind][count]));
	const counts = COUNTS.filter((count) => kinds.some((kind) => totals[kind][count]));
	const left = NOUNS.flatMap((kind) =>
		Object.entries(totals[kind].skipped).map(([why, n]) => soft(t("import.left-out", { n, kind: t(kind), why }))),
	);
	const head = (kind) => h("th", { scope: "col" }, t(kind));
	const row = (count) =>
		h(
			"tr",
			h("th", { scope: "row" }, t(`import.${count}`)),
			kinds.map((kind) => h("td", shown(totals[kind][count]))),
		);
	const table = h(
		"table.totals",
		{ "aria-label": t("import.totals") },
		h("thead", h("tr", h("td"), kinds.map(head))),
		h("tbody", counts.map(row)),
	);
	return [kinds.length ? table : soft(t("import.empty")), left];
}

export function missingOf({ missing, missing_count: n }) {
	if (!n) return null;
	const columns = [
		[t("event.course"), "middle"],
		[t("event.student"), "wide"],
	];
	const { table, fill } = tableOf(t("import.absent"), columns, (each) => [
		h("a", { href: `#/courses/${each.course_id}` }, bdi(each.course_external_id ?? `#${each.course_id}`)),
		h("a", { href: `#/students/${each.student_id}` }, bdi(each.student_name)),
	]);
	fill(missing.slice(0, MOST).map((each, id) => ({ id, ...each })));
	return h("section", h("h2", t("import.missing", { n })), table);
}

export function refusedOf({ refused_rows: refused }, announce, signal) {
	if (!refused.length) return null;
	const rows = refused.map((each, id) => ({ id, ...each }));
	const wanted = { q: "", kind: "", code: "" };
	const columns = [
		[t("import.file"), "middle"],
		[t("import.line"), "place"],
		[t("import.column"), "middle"],
		[t("import.value"), "middle"],
		[t("import.advice"), "wide"],
	];
	const { table, fill } = tableOf(t("import.refused"), columns, ({ file, line, column, value, detail }) => [
		bdi(file),
		line > 0 && shown(line),
		bdi(column),
		bdi(value),
		bdi(detail),
	]);
	const count = soft();
	const texts = rows.map(({ file, column, value, detail, row }) =>
		[file, column, value, detail, ...Object.values(row)].join("\n").toLowerCase(),
	);
	function find(changes) {
		const { q, kind, code } = Object.assign(wanted, changes);
		const found = rows.filter(
			(each) =>
				(!kind || each.kind === kind) && (!code || each.code === code) && texts[each.id].includes(q.toLowerCase()),
		);
		fill(found.slice(0, MOST));
		put(count, t("import.found", { n: Math.min(found.length, MOST), of: found.length }));
		if (changes) announce(count.textContent);
	}
	const choice = (name, words, every) => {
		const values = [...new Set(rows.map((each) => each[name]))].map((value) => [value, words(value)]);
		return select("", [["", every], ...values], {
			"aria-label": every,
			onchange: (event) => find({ [name]: event.target.value }),
		});
	};
	find();
	// A row that is in no file cannot be mended in one.
	const keep = NOUNS.map((kind) => {
		const some = rows.filter((each) => each.file && each.kind === kind);
		return some.length > 0 && button(t("import.csv", { kind: t(kind) }), () => save(kind, some));
	});
	return h(
		"section",
		{ "aria-label": t("import.refused") },
		top(h("h2", t("import.refused-rows")), count, keep),
		filters(
			search(t("import.search"), "", (q) => find({ q }), signal),
			choice("kind", t, t("import.kind.every")),
			choice("code", (code) => code.replaceAll("_", " "), t("import.code.every")),
		),
		table,
	);
}
