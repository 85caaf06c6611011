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
/** Write a value as it is shown: a number as it is written in the reader's own country. */
export const shown = (value) => (typeof value === "number" ? NUMBER.format(value) : String(value));

/** Give the words of a key as a text. */
export function t(key, values = {}) {
  return found(key, values).replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

/** Give the words of a key as nodes, in which each text that is put in stands by itself, whatever its direction. */
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

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const SECONDS = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
export const date = (text) => DATE.format(new Date(text));
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;
export const moment = (text) => MOMENT.format(new Date(text));
export const seconds = (text) => SECONDS.format(new Date(text));
export const day = (text) => DAY.format(new Date(`${text}T00:00:00Z`));
