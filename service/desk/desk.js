// The frame of the desk: who is there, whether the service answers, and the view that is shown.

import { actors, ask, forgetNames, get, post, readTokens, Refusal } from "./api.js";
import { bdi, button, fine, h, icon, pulse, put, soft } from "./dom.js";
import { Feed } from "./feed.js";
import { outcome } from "./form.js";
import { login } from "./login.js";
import { tellName } from "./parts.js";
import { loadWords, t } from "./words.js";

/** The views: the name of the module, with which the path begins, and the scope that the view is offered for. */
const VIEWS = [["courses"], ["students"], ["terms"], ["activity"], ["import", "import"], ["keys", "admin"]];

const feed = new Feed();
const desk = { feed, session: null, can: (scope) => desk.session.scopes.includes(scope) };
const main = h("main", { id: "main", tabindex: "-1" });
const nav = h("nav");
const spoken = h("div.unseen", { role: "status" });
const lost = h("div.lost", { role: "alert" });
let leaving = new AbortController();
let shown = null;
/** What the feed told while a view was being read, perhaps from before it happened. */
let missed = null;

/** What comes of what was done in a view that was left meanwhile. */
desk.late = outcome();
desk.late.node.className = "late";

desk.announce = (words) => put(spoken, words);

desk.note = (path) => history.replaceState(null, "", `#/${path}`);

desk.go = (path) => {
	if (location.hash === `#/${path}`) route();
	else location.hash = `#/${path}`;
};

desk.signIn = async (token) => {
	desk.session = await post("/session", { token });
	navigation();
};

const offered = () => VIEWS.filter(([, scope]) => !scope || desk.can(scope)).map(([at]) => at);

function navigation() {
	const { name } = desk.session;
	const here = /^#\/(\w*)/.exec(location.hash)?.[1];
	const to = (at) => h("a", { href: `#/${at}`, "aria-current": at === here && "page" }, icon(at), h("span", t(at)));
	const who = [
		name && h("p", fine(t("who")), " ", bdi(name)),
		name && !["enroll", "write", "import"].some(desk.can) && soft(t("who.reads")),
		name && button(t("sign-out"), signOut, "plain"),
		h("a.soft", { href: "docs" }, t("nav.docs")),
	];
	const views = offered().map((at) => h("li", to(at)));
	nav.ariaLabel = t("nav");
	put(nav, h("ul", views), h("div.who", who));
}

function frame() {
	const skip = (event) => (event.preventDefault(), main.focus());
	navigation();
	put(document.body, h("a.skip", { href: "#main", onclick: skip }, t("skip")), lost, nav, main, spoken);
}

const trouble = (error, again) => [
	h("h1", t("failed")),
	h("p.bad", { role: "alert" }, error instanceof Refusal ? error.message : t("no_answer.read")),
	button(t("again"), again),
];

/** Whether the view may be left: one that is at work asks first. */
const mayLeave = async () => !shown?.leave || shown.leave();

async function signOut() {
	if (!(await mayLeave())) return;
	await ask("DELETE", "/session").catch(() => null);
	signedOut();
}

/** Ask who is there. The address stays, so that the same view comes again. */
function signedOut(error) {
	if (main.isConnected || !shown) {
		leaving.abort();
		feed.stop();
		shown = null;
		forgetNames();
		actors.clear();
		desk.late.clear();
		document.title = t("login.title");
		put(document.body, login({ error, done: begin }));
		document.querySelector("#token").focus();
	}
}

async function begin() {
	try {
		desk.session = await get("/session");
	} catch (error) {
		if (error.status === 401) return signedOut();
		if (error.status === 403) return signedOut(error);
		return put(document.body, h("main.alone", trouble(error, begin)));
	}
	// A host program that lets people in by itself leaves no tokens to see to.
	const { session } = desk;
	actors.set(session.actor, session.name);
	const withhold = ({ status }) =>
		status === 404 && (session.scopes = session.scopes.filter((each) => each !== "admin"));
	if (desk.can("admin")) await readTokens().catch(withhold);
	feed.forget();
	frame();
	if (document.hidden) feed.stop();
	else feed.start();
	return route();
}

async function route() {
	if (!desk.session) return;
	const [path, text = ""] = location.hash.replace(/^#\/?/, "").split("?");
	const [name, id] = path.split("/");
	if (!offered().includes(name)) return desk.go("courses");
	const first = shown === null;
	leaving.abort();
	leaving = new AbortController();
	const { signal } = leaving;
	navigation();
	const told = (missed = []);
	main.ariaBusy = "true";
	let view;
	try {
		// The feed tells what happens from here on, so that nothing is missed.
		const [{ show }] = await Promise.all([import(`./${name}.js`), feed.ready]);
		view = await show(desk, { id, query: Object.fromEntries(new URLSearchParams(text)), signal });
	} catch (error) {
		if (signal.aborted || error.status === 401) return;
		// The page does not ask again for a module that once did not come.
		const again = error instanceof Refusal ? route : () => location.reload();
		view = { title: t("failed"), node: trouble(error, again), refresh: error.status ? null : again };
	}
	if (signal.aborted) return;
	main.ariaBusy = null;
	shown = view;
	missed = null;
	document.title = `${view.title} · ${t("desk")}`;
	put(main, desk.late.node, view.node);
	scrollTo(0, 0);
	const heading = main.querySelector("h1");
	heading.tabIndex = -1;
	if (!first) heading.focus({ preventScroll: true });
	// What is shown may be deleted meanwhile.
	view.refresh &&= pulse(view.refresh, signal, (error) => error.status === 404 && route());
	for (const tell of told) tell(view);
}

function tellView(tell) {
	missed?.push(tell);
	if (shown) tell(shown);
}

feed.addEventListener("events", ({ detail }) => tellView((view) => view.events?.(detail)));
feed.addEventListener("all", () => tellView((view) => view.refresh?.()));
feed.addEventListener("state", ({ detail: connected }) => {
	put(lost, !connected && h("p", t("lost")));
	if (connected) desk.announce(t("lost.over"));
});
addEventListener("hashchange", async ({ oldURL, newURL }) => {
	const asking = document.querySelector("dialog[open]");
	if (!shown?.leave && !asking) return route();
	// A form that is open stays, with what was typed.
	history.replaceState(null, "", oldURL);
	if (asking || !(await mayLeave())) return;
	shown.leave = null;
	location.href = newURL;
});
addEventListener("signed-out", () => signedOut(shown && new Error(t("login.ended"))));
// What a view asked for by itself may be refused too.
addEventListener("unhandledrejection", (event) => {
	if (!(event.reason instanceof Refusal)) return;
	event.preventDefault();
	(shown?.said ?? desk.late).bad(event.reason);
});
// A page that nobody sees asks nothing, and holds no connection.
document.addEventListener("visibilitychange", () => {
	if (!desk.session || !main.isConnected) return;
	if (document.hidden) feed.stop();
	else feed.start();
});
// A change of a name or a term makes no event.
setInterval(() => {
	if (document.hidden || !feed.connected) return;
	forgetNames();
	document.querySelectorAll(".named").forEach(tellName);
	shown?.refresh?.();
}, 60000);
addEventListener("keydown", (event) => {
	const typing = event.target.matches?.("input:not([type=checkbox]), select");
	if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !document.querySelector("dialog[open]")) {
		const search = main.querySelector("[data-search], .picker input");
		if (search) {
			event.preventDefault();
			search.focus();
			search.select();
		}
	}
	if (event.key === "Escape" && event.target.matches?.("[data-search]") && event.target.value) {
		event.target.value = "";
		event.target.dispatchEvent(new Event("input"));
	}
});

await loadWords();
await begin();
