// A list of the API, whose pages are read when the reader comes to their place.

import { ask, root } from "./api.js";
import { button, h, keyed, put, soft } from "./dom.js";
import { short } from "./parts.js";
import { t } from "./words.js";

const LIMIT = 100;
const MOST = 1000;

export const actions = (kind = "acts") => [h("span.unseen", t("actions")), kind];

/**
 * Make a table with a head. Gives it, and what fills it with rows, whose cells `row` gives. The rows stand in bodies of
 * 100, so that the browser lays out only those that are seen.
 */
export function tableOf(label, columns, row) {
	const heads = columns.map(([words, kind]) => h("th", { scope: "col", class: kind }, words));
	const table = h("table.list", { "aria-label": label }, h("thead", h("tr", heads)));
	const make = (each) =>
		h(
			"tr",
			row(each).map((cell, at) => h("td", { class: columns[at][1] }, cell)),
		);
	const bodies = [];
	function fill(rows) {
		const count = Math.ceil(rows.length / LIMIT);
		for (const body of bodies.splice(count)) body.remove();
		while (bodies.length < count) table.append((bodies[bodies.length] = h("tbody")));
		bodies.forEach((body, at) => keyed(body, rows.slice(at * LIMIT, (at + 1) * LIMIT), make));
		table.hidden = rows.length === 0;
	}
	return { table, fill };
}

/**
 * `key` is that of the list's words; `columns` are [words, class]; `row` gives the cells of a row; `loaded` is told how
 * many rows are there, and whether more are to come.
 */
export function list({ key, columns, row, signal, loaded = () => {} }) {
	const { table, fill } = tableOf(t(key), columns, row);
	const foot = h("div.foot");
	const node = h("div.listing", table, foot);
	let rows = [];
	let path = null;
	let next = null;
	let version = 0;
	let reading = null;
	let showing = null;

	const sight = new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && more(), {
		rootMargin: "1500px",
	});
	signal.addEventListener("abort", () => sight.disconnect());

	function render() {
		fill(rows);
		sight.disconnect();
		if (next) {
			put(
				foot,
				button(t("list.more"), () => more(), "plain"),
			);
			sight.observe(foot);
		} else put(foot, rows.length === 0 && soft(t(`${key}.none`), short(new URL(path, root).searchParams.get("q"))));
		loaded(rows.length, Boolean(next));
	}

	function failed(error) {
		if (error.name === "AbortError") return;
		if (rows.length === 0) table.hidden = true;
		const again = button(t("again"), () => (rows.length ? more() : show(path)), "plain");
		put(foot, h("p.bad", { role: "alert" }, error.message), again);
	}

	async function read(from, least = 1) {
		const found = [];
		let following = from;
		while (following && found.length < least) {
			const limit = Math.max(LIMIT, Math.min(MOST, least - found.length));
			const page = await ask("GET", following.replace(/\blimit=\d+/, `limit=${limit}`), { signal });
			found.push(...page.value);
			following = page.next;
		}
		return [found, following];
	}

	async function more(least) {
		if (reading || !next) return reading;
		const mine = version;
		reading = read(next, least)
			.then(([found, following]) => {
				if (mine !== version) return;
				reading = null;
				rows = rows.concat(found);
				next = following;
				render();
			})
			.catch((error) => mine === version && ((reading = null), failed(error)));
		return reading;
	}

	async function load(asked) {
		path = `${asked}${asked.includes("?") ? "&" : "?"}limit=${LIMIT}`;
		const mine = (version += 1);
		reading = null;
		try {
			const [found, following] = await read(path);
			if (mine !== version) return;
			rows = found;
			next = following;
			render();
		} catch (error) {
			if (mine === version) failed(error);
			throw error;
		}
	}

	const show = (asked) => (showing = load(asked));
	/** Tell whether the list that was asked for last could be read. */
	const shown = () =>
		showing.then(
			() => true,
			() => false,
		);

	async function refresh() {
		const mine = version;
		const before = rows;
		const [found, following] = await read(path, Math.ceil(rows.length / LIMIT) * LIMIT);
		if (mine !== version) return;
		if (rows !== before || reading) {
			// More rows came meanwhile, perhaps from before what happened.
			await reading;
			return refresh();
		}
		rows = found;
		next = following;
		return render();
	}

	/** Read all that is to come. Tells whether that was possible. */
	async function whole() {
		for (let before = null; next && next !== before; await more(MOST)) before = next;
		return !next;
	}

	return { node, show, refresh, whole, rows: () => rows, shown };
}
