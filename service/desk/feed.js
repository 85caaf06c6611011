// The feed of events: one stream for the whole page, followed while the page can be seen.

import { get, root } from "./api.js";
import { sleep } from "./dom.js";

const BEYOND = "9223372036854775807";
const MOST_BEHIND = 500;
const EVERY = 1000;
const GATHER = 30;
/** Milliseconds between two questions whether the service answers, and for an answer. */
const PROBE = 5000;

const patient = (signal) => AbortSignal.any([signal, AbortSignal.timeout(PROBE)]);

/**
 * Tells "events" with what came, "all" where everything is to be read anew, and "state" with whether the service answers.
 * Where the service gives no stream, the events are asked for each second.
 */
export class Feed extends EventTarget {
	/** The id of the last event that is known; null before anything was read that an event could change. */
	last = null;
	connected = true;
	ready = null;
	#level = false;
	#running = null;

	/** Follow the feed from the newest event on, or from where it was left. */
	start() {
		this.#running?.abort();
		this.#level = false;
		this.#running = new AbortController();
		this.ready = new Promise((ready) => this.#follow(this.#running.signal, ready));
	}

	stop() {
		this.#running?.abort();
		this.#running = null;
		this.#level = false;
		this.last ??= 0;
	}

	forget() {
		this.stop();
		this.last = null;
	}

	/** The id of the newest event, which the service names to whoever asks for what comes after every id. */
	static async newest(signal) {
		try {
			await get(`/events?limit=1&after=${BEYOND}`, patient(signal));
		} catch (error) {
			if (error.code === "feed_rewound") return error.problem.newest_id;
			throw error;
		}
		return 0;
	}

	async #follow(signal, ready) {
		while (!signal.aborted) {
			const began = performance.now();
			try {
				if (!this.#level) await this.#find(signal);
				ready();
				await this.#read(signal);
				this.#state(true);
				await this.#listen(signal);
			} catch (error) {
				ready();
				if (signal.aborted || error.status === 401 || error.status === 403) return;
				this.last ??= 0;
				this.#level = false;
				if (error.code !== "feed_rewound") this.#state(false);
			}
			await sleep(EVERY - (performance.now() - began));
		}
	}

	/** Find where to go on. The event may be gone, after a restore, or too far back to tell all that came since. */
	async #find(signal) {
		const newest = await Feed.newest(signal);
		const first = this.last === null;
		if (first || newest < this.last || newest - this.last > MOST_BEHIND) this.last = newest;
		this.#level = true;
		if (!first) this.#tell("all");
	}

	#listen(signal) {
		return new Promise((ended, failed) => {
			const stream = new EventSource(new URL(`events?after=${this.last}`, root));
			const waiting = [];
			// A connection that is cut off looks like one on which nothing happens.
			const probe = setInterval(() => this.#read(signal).catch((error) => (failed(error), end())), PROBE);
			function end() {
				clearInterval(probe);
				stream.close();
				ended();
			}
			signal.addEventListener("abort", end);
			stream.onerror = end;
			stream.onmessage = ({ data }) => {
				if (!waiting.length) setTimeout(() => !signal.aborted && this.#came(waiting.splice(0)), GATHER);
				waiting.push(JSON.parse(data));
			};
		});
	}

	async #read(signal) {
		this.#came(await get(`/events?limit=1000&after=${this.last}`, patient(signal)));
	}

	#came(all) {
		const events = all.filter((event) => event.id > this.last);
		if (!events.length) return;
		this.last = events.at(-1).id;
		this.#tell("events", events);
	}

	#state(connected) {
		if (connected === this.connected) return;
		this.connected = connected;
		this.#tell("state", connected);
	}

	#tell(type, detail) {
		this.dispatchEvent(new CustomEvent(type, { detail }));
	}
}
