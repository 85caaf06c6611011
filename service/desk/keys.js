// The tokens by which programs and people get in.

import { post, readTokens, remove } from "./api.js";
import { bdi, beside, button, chip, fine, h, soft } from "./dom.js";
import { openForm, outcome, performing } from "./form.js";
import { actions, tableOf } from "./list.js";
import { about, arrows, top } from "./parts.js";
import { day, moment, say, t } from "./words.js";

const SCOPES = ["read", "enroll", "write", "override", "import", "metrics", "admin"];
const CHIP = { active: "open", expired: "closed", revoked: "full" };

export async function show(desk, { signal }) {
	const said = outcome(desk.late, signal);
	const may = (what, token, does) =>
		button(t(what), () => does(token), "plain", t(`${what}.token`, { token: token.name }));
	const columns = [[t("token.name"), "wide"], [t("token.scopes"), "middle"], [t("token.state"), "state"], actions()];
	const { table, fill } = tableOf(t("keys"), columns, (token) => [
		[bdi(token.name), beside(token.id)],
		token.scopes.join(", "),
		[
			chip(CHIP[token.state], t(`token.${token.state}`)),
			fine(
				" ",
				about(
					token.expires_at && t("token.until", { at: moment(token.expires_at) }),
					token.last_used_on && t("token.used", { day: day(token.last_used_on) }),
				),
			),
		],
		token.state === "active" && [may("rotate", token, rotate), may("revoke", token, revoke)],
	]);
	const none = soft(t("keys.none"));

	async function refresh() {
		const tokens = await readTokens(signal);
		fill(tokens.reverse());
		none.hidden = tokens.length > 0;
	}

	const view = { title: t("keys"), said, refresh };
	const perform = performing(view);

	async function reveal(made, words) {
		if (!made) return;
		said.good([h("span", say(words, { token: made.name })), h("code.secret", { tabindex: "0" }, made.token)]);
		said.node.querySelector("code").focus();
		await refresh();
	}

	async function add() {
		const first = desk.session.name === null;
		const made = await openForm("token.add", {
			intro: first && h("p.warn", t("token.first")),
			fields: [
				{ name: "name", key: "token.name", required: true },
				{
					name: "scopes",
					key: "token.scopes",
					kind: "checks",
					options: SCOPES.map((each) => [each, t(`scope.${each}`)]),
					value: first ? ["admin"] : ["read"],
				},
				{ name: "expires_at", key: "token.expires", kind: "moment" },
			],
			async send(values) {
				if (!first) return post("/tokens", values);
				// From the first token on everybody needs one: this desk signs in with it before it asks anything.
				desk.feed.stop();
				try {
					const token = await post("/tokens", values);
					await desk.signIn(token.token);
					return token;
				} finally {
					desk.feed.start();
				}
			},
		});
		await reveal(made, "token.made");
	}

	async function rotate(token) {
		const made = await openForm("rotate", {
			intro: h("p", say("rotate.what", { token: token.name })),
			fields: [{ name: "grace_hours", key: "rotate.grace", kind: "count", value: 0 }],
			send: ({ grace_hours }) => post(`/tokens/${token.id}/rotate`, { grace_hours: grace_hours ?? 0 }),
		});
		await reveal(made, "rotate.done");
	}

	async function revoke({ id, name }) {
		const intro = h("p", say("revoke.what", { token: name }));
		const send = () => remove(`/tokens/${id}`);
		await perform("revoke", { danger: true, intro, send }, () => say("revoke.done", { token: name }));
		heading.focus();
	}

	const heading = h("h1", t("keys"));
	const node = h("div.listing", table, none);
	await refresh();
	arrows(node);
	const head = top(heading, soft(t("keys.hint")), button(t("token.add.title"), add, "main"));
	return Object.assign(view, { node: [head, said.node, node] });
}
