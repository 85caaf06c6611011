// Forms in dialogs, with what the service says of a field beside it.

import { patch, Refusal } from "./api.js";
import { button, h, newId, once, put, refocus, select } from "./dom.js";
import { picker } from "./picker.js";
import { has, say, t, zone } from "./words.js";

const FIELD_OF = {
	external_id_taken: "external_id",
	capacity_below_enrolled: "capacity",
	waitlist_capacity_below_waitlisted: "waitlist_capacity",
	term_not_found: "term_id",
};

function local(text) {
	if (!text) return "";
	const at = new Date(text);
	return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

const typed =
	(properties, read = (text) => text) =>
	({ value }, common) => {
		const input = h("input", { ...common, ...properties(value) });
		return { input, give: () => (input.value.trim() ? read(input.value.trim()) : null) };
	};

/** The kinds of fields: the control, what it gives, and what is around it where that is no label. */
export const KINDS = {
	text: typed((value) => ({ value, dir: "auto", autocomplete: "off" })),
	count: typed((value) => ({ value, type: "number", min: 0, max: Number.MAX_SAFE_INTEGER }), Number),
	moment: typed(
		(value) => ({ value: local(value), type: "datetime-local" }),
		(text) => new Date(text).toISOString(),
	),
	day: typed((value) => ({ value, type: "date" })),
	choice({ value, options }, common) {
		const input = select(String(value ?? ""), options, common);
		return { input, give: () => Number(input.value) || null };
	},
	check({ value, label }, common) {
		const input = h("input", { ...common, type: "checkbox", checked: value });
		return { input, give: () => input.checked, node: h("label.check", input, h("span", label)) };
	},
	checks({ value, label, options }, common) {
		const boxes = options.map(([id, words]) => KINDS.check({ value: value.includes(id), label: words }, { value: id }));
		const nodes = boxes.map((box) => box.node);
		const node = h("fieldset", common, h("legend", label), nodes);
		const give = () => boxes.filter((box) => box.give()).map((box) => box.input.value);
		return { input: boxes[0].input, give, node };
	},
	pick({ of, label, hint }, common) {
		const describedby = common["aria-describedby"];
		const { node, input, value } = picker({ kind: of, label, hint, keep: true, describedby });
		return { node, input, give: () => value()?.id ?? null };
	},
};

/**
 * Show the form that is called `key` in the words. Each field has a `name`, the `key` of its words and a kind, and
 * `values` has what it is now. Gives what `send` gives for the values, or undefined where the form is left; where `send`
 * is refused, the form stays and says so.
 */
export function openForm(key, { intro, fields = [], values = {}, danger = false, send, onlyChanges = false }) {
	const id = newId("form");
	const general = h("div.bad", { role: "alert" });
	const parts = fields.map((asked) => {
		const said = has(`${asked.key}.hint`) && t(`${asked.key}.hint`);
		const field = { label: t(asked.key), value: values[asked.name], hint: said, ...asked };
		const own = `${id}-${field.name}`;
		const fault = h("p.bad", { id: `${own}-fault`, role: "alert" });
		const hint = field.kind === "moment" ? t("form.zone", { zone: zone() }) : field.kind !== "pick" && field.hint;
		const common = { id: own, "aria-describedby": `${own}-hint ${own}-fault`, required: field.required };
		const made = KINDS[field.kind ?? "text"](field, common);
		const required = field.required && h("span.soft", ` (${t("form.required")})`);
		const node = h(
			"div",
			{ class: field.pair ? "field pair" : "field" },
			made.node ?? [h("label", { for: own }, field.label, required), made.input],
			h("p.soft", { id: `${own}-hint` }, hint),
			fault,
		);
		return { ...made, field, fault, node, before: JSON.stringify(made.give()) };
	});
	const submit = h("button", { class: danger ? "danger" : "main" }, t(`${key}.action`));
	const leave = button(t("form.leave"), () => dialog.close());
	const form = h(
		"form",
		{ method: "dialog", novalidate: true },
		h("h2", { id: `${id}-title` }, t(`${key}.title`)),
		intro && h("div.intro", intro),
		parts.map((part) => part.node),
		general,
		h("div.buttons", leave, submit),
	);
	const dialog = h("dialog", { "aria-labelledby": `${id}-title` }, form);

	const partOf = (name) => parts.find((part) => part.field.name === name);

	function blame(part, words) {
		put(part.fault, words);
		part.input.ariaInvalid = "true";
	}

	function refuse(error) {
		if (!(error instanceof Refusal)) throw error;
		const faults = (error.problem.errors ?? []).map((each) => [
			each.pointer?.split("/")[1] ?? each.parameter,
			// The service names the fields as programs do.
			each.detail.replace(/\w+_\w+/g, (name) => partOf(name)?.field.label ?? name),
		]);
		for (const [name, words] of faults.length ? faults : [[error.field ?? FIELD_OF[error.code], error.message]]) {
			const part = partOf(name);
			if (part) blame(part, words);
			else general.append(h("p", words));
		}
		(parts.find((part) => part.fault.textContent)?.input ?? submit).focus();
	}

	const changed = (part) => JSON.stringify(part.give()) !== part.before;

	return new Promise((done) => {
		const open = new AbortController();
		const unload = (event) => dialog.isConnected && parts.some(changed) && event.preventDefault();
		const from = document.activeElement;
		let sending;
		addEventListener("beforeunload", unload, { signal: open.signal });
		// Whoever leaves the form while it is being sent is told what came of it.
		dialog.addEventListener("close", () => {
			open.abort();
			dialog.remove();
			// What opened the form may be in a menu that is closed, or gone.
			if (document.activeElement === document.body) refocus(from);
			done(sending);
		});
		async function submitted() {
			for (const part of parts) {
				put(part.fault);
				part.input.ariaInvalid = null;
			}
			put(general);
			for (const part of parts) {
				const { input, field } = part;
				if (input.validity.badInput) blame(part, t("form.unreadable"));
				else if (field.required && part.give() === null) blame(part, t("form.missing"));
				else if (!input.validity.valid) blame(part, t("form.count", { most: input.max }));
			}
			const wrong = parts.find((part) => part.fault.textContent);
			if (wrong) return wrong.input.focus();
			const sent = onlyChanges ? parts.filter(changed) : parts;
			if (onlyChanges && !sent.length) return dialog.close();
			const values = Object.fromEntries(sent.map((part) => [part.field.name, part.give()]));
			sending = (async () => (await send(values)) ?? null)();
			try {
				await sending;
				dialog.close();
			} catch (error) {
				if (!dialog.open) return;
				sending = undefined;
				refuse(error);
			}
		}
		form.addEventListener("submit", once(submitted, submit));
		document.body.append(dialog);
		dialog.showModal();
		(parts[0]?.input ?? (danger ? leave : submit)).focus();
	});
}

/** Give a function that shows a form; then the view says what `tell` gives, and is read anew. */
export const performing =
	(view, after = () => {}) =>
	async (key, options, tell) => {
		const given = await openForm(key, options);
		if (given === undefined) return;
		view.said.good(tell(given));
		after();
		await view.refresh();
	};

export const editing = (perform, key, fields, values, path) =>
	perform(key, { fields, values, onlyChanges: true, send: (changes) => patch(path, changes) }, ({ name }) =>
		say("changed", { name }),
	);

export const REASON = { name: "reason", key: "reason" };

/** A place that says what came of what was done, or `late` does, once the view was left, as `signal` tells. */
export function outcome(late, signal) {
	const node = h("div.outcome", { role: "status" });
	let atWork = 0;
	let old = true;
	function tell(kind, words, ...more) {
		if (signal?.aborted) return late.tell(kind, words, ...more);
		const close = button("×", () => (told.remove(), refocus()), "plain", t("outcome.close"));
		const told = h(`div.told.${kind}`, h("p", words), more, close);
		if (late && old) put(node);
		old = !atWork;
		return node.append(told);
	}
	/** Do work, and say side by side what comes of all that is done at the same time. */
	async function during(work) {
		atWork += 1;
		await work().finally(() => (atWork -= 1));
		old = !atWork;
	}
	return {
		...{ node, tell, during },
		good: (words, ...more) => tell("good", words, ...more),
		bad: (error, ...more) => tell("bad", error.message ?? error, ...more),
		clear: () => put(node),
	};
}
