// A school's file: what it would do is shown first, and then it is applied.

import { query, reach, Refusal } from "./api.js";
import { button, h, put, soft } from "./dom.js";
import { KINDS, openForm, outcome } from "./form.js";
import { about, top } from "./parts.js";
import { CHANGES, missingOf, NOUNS, refusedOf, totalsOf } from "./report.js";
import { has, say, t } from "./words.js";

const TYPES = {
	csv: "text/csv",
	zip: "application/zip",
	xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
};

const typeOf = ({ name }) => TYPES[/\.(\w+)$/.exec(name)?.[1].toLowerCase()];

/** Read the lines of an import, of which the last one is the report. */
async function follow(answer, tell) {
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
	let text = "";
	let line = null;
	for (let part = await reader.read(); !part.done; part = await reader.read()) {
		text += part.value;
		if (!part.value.includes("\n")) continue;
		const whole = text.split("\n");
		text = whole.pop();
		for (line of whole.map(JSON.parse)) if (line.type === "progress") tell(line);
	}
	if (line?.type !== "report") throw new Error("The report is missing.");
	return line;
}

export async function show(desk, { signal }) {
	const said = outcome(desk.late, signal);
	const fill = h("span.fill");
	const bar = h("div.bar", { role: "progressbar", "aria-label": t("import.progress") }, fill);
	const line = soft();
	const cease = button(t("import.stop"), () => stop.abort());
	const progress = h("div.progress", { hidden: true }, bar, line, cease);
	const result = h("div");
	let file = null;
	let stop = null;
	let applying = false;
	let again = false;

	const asked = (name, kind, value, more) => {
		const made = KINDS[kind]({ value, label: t(`import.${name}`) }, more);
		return { ...made, node: made.node ?? h("label.field", t(`import.${name}`), made.input) };
	};
	const override = desk.can("override") && asked("override", "check", false, { onchange: () => check() });
	const drop = asked("drop", "check", false, { onchange: () => ((most.node.hidden = !drop.give()), check()) });
	const most = asked("most", "count", 10, { max: 100, onchange: () => check() });
	const reason = asked("why", "text", "");
	most.node.hidden = true;

	function tell({ stage, rows, of, percent, seconds_left: left } = {}) {
		const words = stage ? (has(`import.stage.${stage}`) ? t(`import.stage.${stage}`) : t(stage)) : t("import.sending");
		const text = about(
			words,
			of && t("import.rows", { n: rows, of }),
			left && t("import.left", { n: Math.ceil(left) }),
		);
		put(line, text);
		fill.style.setProperty("width", `${percent ?? 0}%`);
		bar.ariaValueText = line.textContent;
		bar.ariaValueNow = Math.round(percent ?? 0);
	}

	function tellReport(report) {
		const { dry_run: dry, problem, totals, notes, seconds } = report;
		const { name } = file;
		const refused = NOUNS.reduce((sum, kind) => sum + totals[kind].refused, 0);
		const useful = NOUNS.some((kind) => CHANGES.some((count) => totals[kind][count]));
		put(
			result,
			top(
				h("h2", { tabindex: "-1" }, say(dry ? "import.would" : "import.was", { name })),
				dry && !problem && !useful && soft(t("import.nothing")),
				dry && !problem && useful && button(t("import.apply"), () => run(false), "main"),
			),
			totalsOf(report),
			notes.map((each) => soft(each)),
			missingOf(report),
			refusedOf(report, desk.announce, signal),
		);
		if (problem) said.bad(new Refusal(problem));
		else said.good(say(dry ? "import.checked" : "import.done", { name, n: refused, seconds: Math.ceil(seconds) }));
		if (!dry && !problem) file = null;
	}

	async function send(dry) {
		// The browser gives no part of a file that was saved meanwhile.
		await file.slice(0, 1).arrayBuffer();
		const asks = {
			...{ dry_run: dry || null, file_name: file.name, override: (override && override.give()) || null },
			...(drop.give() ? { missing: "drop", max_drops: most.give() } : {}),
			reason: reason.give(),
		};
		const answer = await reach("POST", `/imports${query(asks)}`, {
			headers: { accept: "application/x-ndjson", "content-type": typeOf(file) },
			...{ body: file, signal: AbortSignal.any([signal, stop.signal]) },
		});
		return follow(answer, tell);
	}

	async function run(dry) {
		stop = new AbortController();
		applying = !dry;
		view.leave = dry ? null : leave;
		said.clear();
		tell();
		progress.hidden = false;
		result.hidden = true;
		if (dry) put(result);
		else cease.focus();
		desk.announce(t(dry ? "import.checking" : "import.applying"));
		try {
			tellReport(await send(dry));
		} catch (error) {
			if (signal.aborted) return;
			const retry = dry && button(t("again"), check);
			if (error instanceof Refusal) said.bad(error, retry);
			else if (error.name === "NotReadableError") ((file = null), put(result), said.bad(t("import.changed")));
			else if (error.name !== "AbortError") said.bad(t("import.lost"), retry);
			else said.bad(t(dry ? "import.unchecked" : "import.stopped"), retry);
		} finally {
			const inside = progress.contains(document.activeElement);
			view.leave = stop = null;
			applying = false;
			progress.hidden = true;
			result.hidden = false;
			if (inside) (result.querySelector("h2") ?? choose).focus();
		}
	}

	async function check() {
		if (stop || !file) return (again = !applying && file !== null);
		do {
			again = false;
			await run(true);
		} while (again);
	}

	function take(files) {
		if (applying) return;
		if (files.length === 1 && typeOf(files[0])) return ((file = files[0]), check());
		return said.bad(t("import.kinds"));
	}

	async function leave() {
		const intro = h("p", t("import.leave.what"));
		return openForm("import.leave", { danger: true, intro, send: () => true });
	}

	const input = h("input", {
		...{ type: "file", hidden: true, accept: Object.keys(TYPES).map((each) => `.${each}`) },
		onchange: async () => {
			await take([...input.files]);
			// So that the same file, once mended, can be chosen again.
			input.value = "";
		},
	});
	const choose = button(t("import.choose"), () => input.click(), "main");
	const zone = h("div.zone", choose, input, soft(t("import.zone")));
	const over = (event, is) => (event.preventDefault(), zone.classList.toggle("over", is));
	addEventListener("dragover", (event) => over(event, true), { signal });
	addEventListener("dragleave", (event) => over(event, event.relatedTarget !== null), { signal });
	addEventListener("drop", (event) => (over(event, false), take([...event.dataTransfer.files])), { signal });
	addEventListener("beforeunload", (event) => applying && event.preventDefault(), { signal });

	const options = h(
		"div.options",
		{ role: "group", "aria-label": t("import.options") },
		[override, drop, most, reason].map((each) => each && each.node),
	);
	const view = {
		...{ title: t("import"), said, leave: null },
		node: [top(h("h1", t("import")), soft(t("import.hint"))), zone, options, said.node, progress, result],
	};
	return view;
}
