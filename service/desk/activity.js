// What happens, as it happens.

import { actors, get, query } from "./api.js";
import { bdi, chip, h, pulse, soft } from "./dom.js";
import { Feed } from "./feed.js";
import { tableOf } from "./list.js";
import { named, top } from "./parts.js";
import { seconds, t } from "./words.js";

const KEPT = 300;
const KIND = { enrolled: "open", promoted: "open", waitlisted: "waitlist", dropped: "closed" };

export const heads = (student = true) =>
	[
		[t("event.at"), "moment soft"],
		[t("event.what"), "small"],
		student && [t("event.student"), "wide"],
		[t("event.course"), "wide"],
		[t("event.actor"), "middle"],
		[t("event.reason"), "middle"],
	].filter(Boolean);

export const eventCells = (event, student = true) =>
	[
		[h("time", { datetime: event.at }, seconds(event.at))],
		[chip(KIND[event.type], t(`event.${event.type}`))],
		student && [named("students", event.student_id)],
		[named("courses", event.course_id)],
		[bdi(actors.get(event.actor) ?? event.actor)],
		[bdi(event.reason)],
	].filter(Boolean);

export async function show(desk, { signal }) {
	const { table, fill } = tableOf(t("activity"), heads(), (event) => eventCells(event));
	const none = soft(t("activity.none"));
	let rows = [];

	function render() {
		fill(rows);
		none.hidden = rows.length > 0;
	}
	async function refresh() {
		const newest = await Feed.newest(signal);
		const path = `/events${query({ after: Math.max(0, newest - KEPT), limit: KEPT })}`;
		rows = newest ? (await get(path, signal)).reverse() : [];
		render();
	}
	await refresh();
	const later = pulse(async () => render(), signal);
	return {
		...{ title: t("activity"), refresh },
		node: [top(h("h1", t("activity")), soft(t("activity.hint", { n: KEPT }))), h("div.listing", table, none)],
		events(came) {
			const newest = rows[0]?.id ?? 0;
			rows = [
				...came
					.filter((event) => event.id > newest)
					.slice(-KEPT)
					.reverse(),
				...rows,
			].slice(0, KEPT);
			later();
		},
	};
}
