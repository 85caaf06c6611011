// All words come from words.json, so that a school can put its own in their place.

import { bdi } from "./dom.js";

let words = {};
let plural = new Intl.PluralRules("en");

export async function loadWords() {
	const answer = await fetch(new URL("desk/words.json", new URL(".", document.baseURI)));
	words = await answer.json();
	document.documentElement.lang = words.language;
	document.documentElement.dir = words.direction;
	plural = new Intl.PluralRules(words.language);
}

function found(key, values) {
	const text = words[key] ?? key;
	return typeof text === "string"
		? text
		: (values.n === 0 && text.zero) || (text[plural.select(values.n)] ?? text.other);
}

const NUMBER = new Intl.NumberFormat();
export const shown = (value) => (typeof value === "number" ? NUMBER.format(value) : String(value));

export function t(key, values = {}) {
	return found(key, values).replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

/** Give the words of a key as nodes; a text that is put in stands by itself, whatever its direction. */
export function say(key, values = {}) {
	return found(key, values)
		.split(/\{(\w+)\}/)
		.map((part, at) => {
			if (at % 2 === 0) return part;
			const value = values[part];
			return value instanceof Node ? value : typeof value === "number" ? shown(value) : bdi(value);
		});
}

export const has = (key) => key in words;

const written = (options) => {
	const format = new Intl.DateTimeFormat(undefined, options);
	return (text) => format.format(new Date(text));
};
export const date = written({ dateStyle: "medium" });
export const day = written({ dateStyle: "medium", timeZone: "UTC" });
export const moment = written({ dateStyle: "medium", timeStyle: "short" });
export const seconds = written({ dateStyle: "short", timeStyle: "medium" });
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;
