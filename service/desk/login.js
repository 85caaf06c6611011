// Sign in: a token, for which the browser gets a cookie that no script can read.

import { post } from "./api.js";
import { h, once, put } from "./dom.js";
import { t } from "./words.js";

export function login({ error, done }) {
	const said = h("p.bad", { role: "alert", id: "token-fault" }, error?.message);
	const input = h("input", {
		...{ id: "token", type: "password", autocomplete: "current-password", spellcheck: "false" },
		...{ required: true, "aria-describedby": "token-hint token-fault" },
	});
	const button = h("button.main", t("login.action"));
	async function send() {
		put(said);
		input.ariaInvalid = null;
		try {
			if (!input.value.trim()) throw new Error(t("form.missing"));
			await post("/session", { token: input.value.trim() });
		} catch (refusal) {
			put(said, refusal.message);
			input.ariaInvalid = "true";
			input.focus();
			return;
		}
		await done();
	}
	return h(
		"main.alone",
		h("h1", t("login.title")),
		h(
			"form",
			{ novalidate: true, onsubmit: once(send, button) },
			h("label", { for: "token" }, t("login.token")),
			input,
			h("p.soft", { id: "token-hint" }, t("login.hint")),
			said,
			button,
		),
	);
}
