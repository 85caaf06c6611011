// A field that finds a student or a course by number or by any part of the name.

import { get, numberOf, query } from "./api.js";
import { bdi, beside, fine, h, newId, put } from "./dom.js";
import { short } from "./parts.js";
import { t } from "./words.js";

const SHOWN = 8;
const PAUSE = 120;
const WAIT = "…";

const told = {
	students: (row) => [bdi(row.name), fine(bdi(numberOf(row)))],
	courses: ({ name, external_id: code, enrolled: n, capacity }) => [
		h("span", bdi(name), beside(code)),
		fine(t(capacity === null ? "seats.any" : "seats.of", { n, capacity: capacity ?? 0 })),
	],
};

/**
 * `choose` gets the row that was chosen, and `lost` the words on a number that was not found when the next one was typed.
 * Gives {node, input, value()}. With `keep` the field keeps what was chosen.
 */
export function picker({ kind, label, hint, choose = () => {}, lost = () => {}, keep = false, describedby }) {
	const id = newId("pick");
	const input = h("input", {
		...{ id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", dir: "auto" },
		...{ "aria-expanded": "false", "aria-controls": `${id}-list`, "aria-autocomplete": "list" },
		...{ "aria-describedby": [`${id}-note`, describedby].filter(Boolean).join(" "), placeholder: hint },
	});
	const options = h("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, hidden: true });
	const note = h("p", { id: `${id}-note`, class: "soft note", role: "status" });
	const node = h("div.picker", h("label", { for: id }, label), input, options, note);
	let rows = [];
	let active = -1;
	let chosen = null;
	let timer = 0;
	let asked = null;
	let entered = null;

	function cease() {
		clearTimeout(timer);
		asked?.abort();
	}

	function close() {
		rows = [];
		active = -1;
		options.hidden = true;
		put(options);
		input.ariaExpanded = "false";
		input.removeAttribute("aria-activedescendant");
	}

	function mark(at) {
		active = at;
		[...options.children].forEach((each, index) => (each.ariaSelected = index === at));
		if (at < 0) return input.removeAttribute("aria-activedescendant");
		input.setAttribute("aria-activedescendant", options.children[at].id);
		options.children[at].scrollIntoView({ block: "nearest" });
	}

	async function give(row) {
		put(note, WAIT);
		try {
			await choose(row);
		} finally {
			if (note.textContent === WAIT) put(note);
		}
	}

	function take(row) {
		close();
		chosen = keep ? row : null;
		input.value = keep ? row.name : "";
		give(row);
	}

	function open(found) {
		// Whoever has gone on meanwhile wants no list.
		if (document.activeElement !== input) return;
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
		input.ariaExpanded = rows.length > 0;
		active = -1;
		put(note, t(rows.length ? "pick.found" : "pick.none", { n: rows.length }), rows.length === 0 && short(text()));
	}

	const text = () => input.value.trim();

	function failed(error) {
		if (error.name === "AbortError") return;
		close();
		put(note, error.message);
	}

	async function read(wanted, signal) {
		const [byNumber, byWords] = await Promise.all([
			get(`/${kind}${query({ external_id: wanted, limit: 1 })}`, signal).catch(() => []),
			get(`/${kind}${query({ q: wanted, limit: SHOWN })}`, signal),
		]);
		const found = [...byNumber, ...byWords.filter((row) => row.id !== byNumber[0]?.id)].slice(0, SHOWN);
		if (found.length || !/^#?\d+$/.test(wanted)) return found;
		// Who has no number of the school's own is known by the id.
		const row = await get(`/${kind}/${wanted.replace("#", "")}`, signal).catch(() => ({}));
		return row.external_id === null ? [row] : [];
	}

	async function find() {
		cease();
		if (!text()) return (close(), put(note));
		asked = new AbortController();
		const { signal } = asked;
		return read(text(), signal).then((found) => !signal.aborted && open(found), failed);
	}

	/** Take the row that has what was typed as its number. By then the next number may be typed over it. */
	async function enter(wanted) {
		if (wanted === entered) return;
		entered = wanted;
		cease();
		put(note, WAIT);
		if (/\d/.test(wanted)) input.select();
		const stays = () => text() === wanted;
		try {
			const found = await read(wanted);
			const exact = found.find((row) => [wanted, `#${wanted}`].includes(numberOf(row)));
			if (exact) (stays() ? take : give)(exact);
			else if (stays()) {
				// Anything else is a guess, which is shown before it is taken.
				put(note);
				open(found);
				if (rows.length) mark(0);
				input.setSelectionRange(wanted.length, wanted.length);
			} else if (!found.length) throw new Error(t("pick.none"));
		} catch (error) {
			if (stays()) failed(error);
			else lost(t("refused", { name: wanted, words: error.message }));
		}
		if (wanted === entered) entered = null;
	}

	input.addEventListener("input", () => {
		chosen = null;
		// What is still shown was found for what was typed before.
		rows = [];
		mark(-1);
		clearTimeout(timer);
		timer = setTimeout(find, PAUSE);
	});
	input.addEventListener("blur", close);
	input.addEventListener("keydown", async (event) => {
		if (event.isComposing) return;
		if (event.key === "ArrowDown" || event.key === "ArrowUp") {
			event.preventDefault();
			if (!rows.length) await find();
			if (!rows.length) return;
			const step = event.key === "ArrowDown" ? 1 : -1;
			mark((Math.max(active, step < 0 ? 0 : -1) + step + rows.length) % rows.length);
		} else if (event.key === "Escape" && (!options.hidden || (input.value && !keep))) {
			event.preventDefault();
			event.stopPropagation();
			cease();
			if (options.hidden) input.value = "";
			close();
			put(note);
		} else if (event.key === "Enter" && text() && !chosen) {
			event.preventDefault();
			if (active >= 0) take(rows[active]);
			else enter(text());
		}
	});
	return { node, input, value: () => chosen };
}
