// What several views show.

import { nameOf } from "./api.js";
import { bdi, chip, fine, h, put } from "./dom.js";
import { date, moment, t } from "./words.js";

export function seats(course) {
	const { enrolled, capacity, waitlisted } = course;
	const fill = h("span.fill");
	const part = capacity ? Math.min(enrolled / capacity, 1) : 1;
	fill.style.setProperty("width", `${part * 100}%`);
	const limit = capacity !== null;
	return h(
		`div.seats.${course.availability}`,
		h("span.count", t(limit ? "seats.of" : "seats.any", { n: enrolled, capacity: capacity ?? 0 })),
		limit ? h("span.bar", { "aria-hidden": "true" }, fill) : fine(t("seats.unlimited")),
		h("span.wait", waitlisted > 0 && t("seats.wait", { n: waitlisted })),
	);
}

export const availability = ({ availability: is }) => chip(is, t(`availability.${is}`));

export const link = (kind, row) => h("a", { href: `#/${kind}/${row.id}` }, bdi(row.name));

export async function tellName(node) {
	const path = node.hash.slice(1);
	const name = await nameOf(path);
	const [, kind, id] = path.split("/");
	if (name) put(node, bdi(name));
	else if (name === null) node.replaceWith(t(`gone.${kind}`, { n: id }));
}

export function named(kind, id) {
	const node = h("a", { href: `#/${kind}/${id}`, class: "named" }, `#${id}`);
	tellName(node);
	return node;
}

export const when = (text) => h("time", { datetime: text, title: moment(text) }, date(text));

export function more(...buttons) {
	const given = buttons.filter(Boolean);
	if (!given.length) return null;
	const close = (is) => is && (node.open = false);
	const listeners = {
		onfocusout: (event) => close(!node.contains(event.relatedTarget)),
		onclick: (event) => close(event.target.closest("div")),
		onkeydown: (event) => event.key === "Escape" && node.open && (close(true), node.firstChild.focus()),
	};
	const summary = h("summary.button", t("more"));
	const node = h("details.more", { ...listeners }, summary, h("div", given));
	return node;
}

export const top = (heading, line, ...buttons) =>
	h("div.top", h("div", heading, line), h("div.buttons.noprint", buttons));

export const back = (to) => h("a.back.noprint", { href: `#/${to}` }, t(`${to}.back`));

export const section = (key, kind, node) => h("section", { class: kind, "aria-label": t(key) }, h("h2", t(key)), node);

export const about = (...parts) => parts.filter(Boolean).map((part, at) => [at > 0 && " · ", part]);

export const filters = (...fields) => h("div.filters", { role: "search" }, fields);

/** Tell where so short a search looks. */
export const short = (text) => text && !/\S{3}/.test(text) && ` ${t("search.short")}`;

/** A field that searches as somebody types; its `flush` searches at once. */
export function search(label, value, find, signal) {
	let timer = 0;
	const run = () => {
		timer = 0;
		if (!signal.aborted) find(input.value.trim());
	};
	const input = h("input", {
		...{ type: "search", value, placeholder: label, "aria-label": label, "data-search": true, dir: "auto" },
		...{ autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/" },
		oninput: () => {
			clearTimeout(timer);
			timer = setTimeout(run, 120);
		},
	});
	input.flush = () => timer && (clearTimeout(timer), run());
	return input;
}

/** Let the arrows go from link to link in a table, and into it from the search, once `shown` tells that it is read. */
export function arrows(node, from, shown) {
	node.addEventListener("keydown", (event) => {
		if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
		if (!event.target.matches("td a, td button")) return;
		const row = event.target.closest("tr");
		const all = [...node.querySelectorAll("tbody tr")];
		const next = all[all.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
		event.preventDefault();
		if (next) next.querySelector("a, button")?.focus();
		else if (event.key === "ArrowUp") from?.focus();
	});
	from?.addEventListener("keydown", async (event) => {
		const { key } = event;
		if ((key !== "ArrowDown" && key !== "Enter") || event.isComposing) return;
		event.preventDefault();
		const text = from.value;
		from.flush();
		if (!(await shown()) || from.value !== text || document.activeElement !== from) return;
		const first = node.querySelector("tbody a");
		if (key === "Enter") first?.click();
		else first?.focus();
	});
}
