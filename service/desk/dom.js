// Nodes are built here, from values that are never read as HTML.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
	courses: "M4 5.5h16M4 12h16M4 18.5h10",
	students: "M12 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM5 20c0-4 3-6 7-6s7 2 7 6",
	terms: "M5 6h14v13H5zM5 10h14M9 3.5V7M15 3.5V7",
	activity: "M3 13h4l3-8 4 14 3-6h4",
	import: "M12 4v11M7.5 11l4.5 4.5 4.5-4.5M5 20h14",
	keys: "M8 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 12h9M18 12v4",
};

/** Make an element, such as "p.soft": its properties, if any, of which those with "on" are listeners; its children. */
export function h(kind, ...children) {
	const [tag, ...classes] = kind.split(".");
	const node = document.createElement(tag);
	if (classes.length) node.className = classes.join(" ");
	for (const [name, value] of Object.entries(children[0]?.constructor === Object ? children.shift() : {})) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else node.setAttribute(name, value === true ? "" : value);
	}
	put(node, ...children);
	return node;
}

export function put(node, ...children) {
	node.replaceChildren(...children.flat(9).filter((each) => each !== null && each !== undefined && each !== false));
	return node;
}

export function icon(name) {
	const svg = document.createElementNS(SVG, "svg");
	const path = document.createElementNS(SVG, "path");
	svg.setAttribute("viewBox", "0 0 24 24");
	svg.setAttribute("aria-hidden", "true");
	path.setAttribute("d", ICONS[name]);
	svg.append(path);
	return svg;
}

/** Give a listener that does work, but not again while it is at work, as its button shows. */
export const once = (work, button) => async (event) => {
	event.preventDefault();
	button ??= event.currentTarget;
	if (button.ariaDisabled) return;
	button.ariaDisabled = "true";
	try {
		await work(event);
	} finally {
		button.ariaDisabled = null;
	}
};

/** A button: its words, what it does, a class, and its name where the words do not say it. */
export const button = (words, act, kind, label) =>
	h("button", { type: "button", class: kind, "aria-label": label, onclick: once(act) }, words);

export const select = (chosen, options, more) =>
	h(
		"select",
		more,
		options.map(([value, words]) => h("option", { value, selected: String(value) === chosen, dir: "auto" }, words)),
	);

/** Show a text of somebody's own, if there is one, whatever its direction. */
export const bdi = (text, more) => text && h("bdi", { dir: "auto", ...more }, text);

export const soft = (...children) => h("p.soft", ...children);
export const fine = (...children) => h("span.soft", ...children);
export const beside = (text) => text && ["\u2002", bdi(text, { class: "soft beside-name" })];
export const chip = (kind, words) => h(`span.chip.${kind}`, words);

/** Give the focus to the menu of a node, to the field that enrolls, or to the heading. */
export function refocus(node) {
	const menu = node?.closest("main .more")?.firstChild;
	(menu ?? document.querySelector("main .picker input") ?? document.querySelector("main h1"))?.focus();
}

let counted = 0;
export const newId = (word) => `${word}-${(counted += 1)}`;

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Give a function that does work, or has it done once more: one at a time, at most once in 250 milliseconds. */
export function pulse(work, signal, failed = () => {}) {
	let wanted = false;
	let resting = false;
	async function run() {
		const began = performance.now();
		wanted = false;
		resting = true;
		try {
			await work();
		} catch (error) {
			// When the connection is back it is read again, and a 401 has led to the sign-in.
			failed(error);
		}
		setTimeout(
			() => {
				resting = false;
				if (wanted && !signal.aborted) run();
			},
			Math.max(250, 2 * (performance.now() - began)),
		);
	}
	return async () => (resting ? (wanted = true) : run());
}

const shownIn = new WeakMap();

/** Put rows into a parent in their order: the node of a row that has not changed stays, with its focus. */
export function keyed(parent, rows, make, key = (row) => row.id) {
	const before = shownIn.get(parent) ?? new Map();
	const after = new Map();
	let place = parent.firstChild;
	for (const row of rows) {
		const id = key(row);
		const known = before.get(id);
		const same = known && (known.row === row || JSON.stringify(known.row) === JSON.stringify(row));
		const node = same ? known.node : make(row);
		after.set(id, { row, node });
		if (known && known.node !== node) {
			if (place === known.node) place = node;
			swapIn(known.node, node);
		}
		if (node === place) place = place.nextSibling;
		else parent.insertBefore(node, place);
	}
	for (const [id, { node }] of before) if (!after.has(id)) node.remove();
	shownIn.set(parent, after);
}

/** Put a node in the place of another one, with the focus in the same place. */
function swapIn(old, node) {
	const inside = old.contains(document.activeElement) ? [...old.querySelectorAll("a, button")] : [];
	const at = inside.indexOf(document.activeElement);
	old.replaceWith(node);
	if (at >= 0) node.querySelectorAll("a, button")[at]?.focus();
}
