// A field that finds a student or a course by number or by any part of the name, with arrows and Enter.

import { get, query } from "./api.js";
import { bdi, beside, fine, h, newId, put } from "./dom.js";
import { t } from "./words.js";

const SHOWN = 8;
const PAUSE = 120;

const told = {
	students: (row) => [bdi(row.name), fine(bdi(row.external_id ?? row.email ?? ""))],
	courses: ({ name, external_id: code, enrolled: n, capacity }) => [
		h("span", null, bdi(name), beside(code)),
		fine(t(capacity === null ? "seats.any" : "seats.of", { n, capacity: capacity ?? 0 })),
	],
};

/** `choose` gets the row that was chosen. Gives {node, input, value()}. With `keep` the field keeps what was chosen. */
export function picker({ kind, label, hint, choose = () => {}, keep = false, describedby }) {
	const id = newId("pick");
	const input = h("input", {
		...{ id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", dir: "auto" },
		...{ "aria-expanded": "false", "aria-controls": `${id}-list`, "aria-autocomplete": "list" },
		...{ "aria-describedby": [`${id}-note`, describedby].filter(Boolean).join(" "), placeholder: hint },
	});
	const options = h("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, hidden: true });
	const note = h("p", { id: `${id}-note`, class: "soft note", role: "status" });
	const node = h("div", { class: "picker" }, h("label", { for: id }, label), input, options, note);
	let rows = [];
	let active = -1;
	let chosen = null;
	let timer = 0;
	let asked = null;

	function close() {
		rows = [];
		active = -1;
		options.hidden = true;
		put(options);
		input.setAttribute("aria-expanded", "false");
		input.removeAttribute("aria-activedescendant");
	}

	function mark(at) {
		active = at;
		[...options.children].forEach((each, index) => each.setAttribute("aria-selected", String(index === at)));
		if (at < 0) return input.removeAttribute("aria-activedescendant");
		input.setAttribute("aria-activedescendant", options.children[at].id);
		options.children[at].scrollIntoView({ block: "nearest" });
	}

	function take(row) {
		close();
		put(note);
		chosen = keep ? row : null;
		input.value = keep ? row.name : "";
		choose(row);
	}

	function open(found) {
		rows = found;
		put(
			options,
			rows.map((row, at) => {
				const option = h("li", { id: `${id}-${at}`, role: "option", "aria-selected": "false" }, told[kind](row));
				// Before the field loses the focus, which would close the list.
				option.addEventListener("mousedown", (event) => (event.preventDefault(), take(row)));
				return option;
			}),
		);
		options.hidden = rows.length === 0;
		input.setAttribute("aria-expanded", String(rows.length > 0));
		active = -1;
		put(note, rows.length ? t("pick.found", { n: rows.length }) : t("pick.none"));
	}

	async function find() {
		const text = input.value.trim();
		asked?.abort();
		if (!text) return (close(), put(note), []);
		asked = new AbortController();
		const { signal } = asked;
		const [byNumber, byWords] = await Promise.all([
			get(`/${kind}${query({ external_id: text, limit: 1 })}`, signal).catch(() => []),
			get(`/${kind}${query({ q: text, limit: SHOWN })}`, signal),
		]);
		const found = [...byNumber, ...byWords.filter((row) => row.id !== byNumber[0]?.id)].slice(0, SHOWN);
		if (!signal.aborted) open(found);
		return found;
	}

	function failed(error) {
		if (error.name === "AbortError") return;
		close();
		put(note, error.message);
	}

	input.addEventListener("input", () => {
		chosen = null;
		mark(-1);
		clearTimeout(timer);
		timer = setTimeout(() => find().catch(failed), PAUSE);
	});
	input.addEventListener("blur", close);
	input.addEventListener("keydown", async (event) => {
		if (event.isComposing) return;
		if (event.key === "ArrowDown" || event.key === "ArrowUp") {
			event.preventDefault();
			if (!rows.length) return find().catch(failed);
			const step = event.key === "ArrowDown" ? 1 : -1;
			mark((active + step + rows.length + (active < 0 && step < 0 ? 1 : 0)) % rows.length);
		} else if (event.key === "Escape" && (rows.length || input.value)) {
			event.preventDefault();
			event.stopPropagation();
			if (rows.length) close();
			else input.value = "";
			put(note);
		} else if (event.key === "Enter" && input.value.trim() && !chosen) {
			event.preventDefault();
			if (active >= 0) return take(rows[active]);
			// Whoever types a whole number and Enter at once need not wait for the list. Anything else is a guess, which
			// is shown before it is taken.
			clearTimeout(timer);
			const text = input.value.trim();
			try {
				const found = await find();
				if (input.value.trim() !== text) return;
				const exact = found.find((row) => row.external_id === text);
				if (exact) take(exact);
				else if (found.length) mark(0);
			} catch (error) {
				failed(error);
			}
		}
	});
	return { node, input, value: () => chosen };
}
