// Requests to the service that the desk came from.

import { has, t, moment } from "./words.js";

export const root = new URL(".", document.baseURI);

function wordsOf(problem) {
	const given = Object.entries(problem).map(([name, value]) => [name, /s_at$/.test(name) ? moment(value) : value]);
	const key = `refusal.${problem.code}`;
	return has(key) ? t(key, Object.fromEntries(given)) : problem.detail;
}

/** What the service refuses: its problem (RFC 9457), or that no answer came. */
export class Refusal extends Error {
	constructor(problem) {
		super(wordsOf(problem));
		Object.assign(this, { code: problem.code, status: problem.status, problem });
	}
}

const noAnswer = (status, method) =>
	new Refusal({ code: "no_answer", status, detail: t(method === "GET" ? "no_answer.read" : "no_answer") });
const read = (answer) => (/json/.test(answer.headers.get("content-type") ?? "") ? answer.json() : null);

export async function reach(method, path, options) {
	let answer;
	try {
		answer = await fetch(new URL(`.${path}`, root), { method, ...options });
	} catch (error) {
		if (error.name === "AbortError") throw error;
		throw noAnswer(0, method);
	}
	if (answer.ok) return answer;
	const problem = await read(answer);
	if (answer.status === 401 && path !== "/session") dispatchEvent(new Event("signed-out"));
	throw problem?.code ? new Refusal(problem) : noAnswer(answer.status, method);
}

/** Ask the service. Gives {value, next, status}; `next` is the path of the next page of a list, or null. */
export async function ask(method, path, { body, signal } = {}) {
	const headers = { accept: "application/json" };
	if (body !== undefined) headers["content-type"] = "application/json";
	const answer = await reach(method, path, { headers, signal, body: body && JSON.stringify(body) });
	const value = await read(answer);
	if (method !== "GET") names.delete(path.replace("/erase", ""));
	// Only the query of Link is taken: a proxy that was set up wrong may have another path in mind.
	const link = /<([^>]*)>; rel="next"/.exec(answer.headers.get("link") ?? "");
	const next = link ? path.split("?")[0] + new URL(link[1], root).search : null;
	return { value, next, status: answer.status };
}

export const get = async (path, signal) => (await ask("GET", path, { signal })).value;
export const post = async (path, body) => (await ask("POST", path, { body })).value;
export const patch = async (path, body) => (await ask("PATCH", path, { body })).value;
export const remove = async (path) => (await ask("DELETE", path), true);

export async function all(path, signal) {
	const rows = [];
	for (let next = path; next;) {
		const page = await ask("GET", next, { signal });
		rows.push(...page.value);
		next = page.next;
	}
	return rows;
}

export function query(values, empty) {
	const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
	if (empty) given.push([empty, ""]);
	const text = new URLSearchParams(given).toString();
	return text && `?${text}`;
}

/** The number or code by which people know a row: the school's own, or else the id. */
export const numberOf = ({ external_id: number, id }) => number ?? `#${id}`;

const names = new Map();
const wanted = [];
const MOST_NAMES = 2000;
const MOST_WANTED = 600;
const READERS = 2;
let readers = 0;

/**
 * Give the name of a student or a course by its path, null where it is gone, undefined where it cannot be read. Few are
 * read at once, to leave connections for others; of very many, those that are long out of sight are not.
 */
export function nameOf(key) {
	if (!names.has(key)) {
		if (names.size >= MOST_NAMES) names.delete(names.keys().next().value);
		names.set(key, new Promise((found) => wanted.push({ key, found })));
		if (wanted.length > MOST_WANTED) names.delete(wanted.shift().key);
		if (readers < READERS) readNames();
	}
	return names.get(key);
}

async function readNames() {
	readers += 1;
	for (let next = wanted.shift(); next; next = wanted.shift()) {
		const { key, found } = next;
		try {
			found((await get(key)).name);
		} catch (error) {
			if (error.status !== 404) names.delete(key);
			found(error.status === 404 ? null : undefined);
		}
	}
	readers -= 1;
}

/** The names of tokens, by the actor of their events. */
export const actors = new Map();

export async function readTokens(signal) {
	const tokens = await get("/tokens", signal);
	for (const { id, name } of tokens) actors.set(`token:${id}`, name);
	return tokens;
}

export function forgetNames() {
	names.clear();
	wanted.length = 0;
}
