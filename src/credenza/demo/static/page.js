// The page's script: asks, shows, counts. No framework, nothing from elsewhere.
import { Dots } from "./dots.js";

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const HISTORY = 32;
const SLOWEST = 1000; // ms: the top of the logarithmic scale

let current = null;
let shows = 0; // how many profiles were asked for: only the last one is shown

// ---------------------------------------------------------------- small parts
const milliseconds = (ms) => {
  if (ms === null || Number.isNaN(ms)) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms < 10 ? ms.toFixed(ms < 1 ? 2 : 1) : Math.round(ms)} ms`;
};
const initials = (name) => name.split(/\s+/).filter((word, i) => i === 0 || !/^\d+$/.test(word)).map((word) => word[0]).filter((_, i, all) => i === 0 || i === all.length - 1).join("").toUpperCase();
const hue = (id) => (id * 137.5) % 360; // the golden angle: neighbours differ
const day = (iso) => new Date(`${iso}T12:00:00`).toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function avatar(person) {
  const made = element("span", { className: "avatar", textContent: initials(person.name), ariaHidden: "true" });
  made.style.setProperty("--hue", hue(person.id));
  return made;
}

// ---------------------------------------------------------------- one answer
function serverTiming(header) {
  const parts = [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)];
  return Object.fromEntries(parts.map(([, name, duration]) => [name, Number(duration)]));
}

async function ask(id) {
  const started = performance.now();
  const response = await fetch(`/user?id=${encodeURIComponent(id)}`, { cache: "no-store" });
  const body = await response.json();
  const timing = serverTiming(response.headers.get("Server-Timing"));
  return {
    id, body, ok: response.ok, code: response.status,
    status: response.headers.get("X-Cache"), worker: response.headers.get("X-Worker"), age: Number(response.headers.get("Age") ?? 0),
    browser: performance.now() - started, cache: timing.cache ?? null, database: timing.db ?? null,
  };
}

const isAway = () => Number(document.documentElement.dataset.away ?? 0) > 0;

const REASONS = {
  hit: (answer) => `It lay in the cache, ${answer.age < 1 ? "put there a moment ago" : `put there ${answer.age} s ago`}. The database heard nothing.`,
  miss: () => `It was not at hand: one query with joins, counts and a rank over everybody${isAway() ? "; not kept, since the shared cache is away." : ", then kept."}`,
  shared: (answer) => `Worker ${answer.worker} did not have it in memory, and took it from the cache that all workers share. The database heard nothing.`,
  stale: (answer) => `Past its time (${answer.age} s old) but allowed; a fresh one is being fetched behind it.`,
  joined: () => "Somebody else was loading it already, so this request waited for that load.",
  bypass: () => "Straight from the database: nothing was kept.",
};

function showAnswer(answer, cause = "") {
  const total = (answer.cache ?? 0) + (answer.database ?? 0);
  const [number, unit] = milliseconds(answer.cache === null ? answer.browser : total).split(" ");
  byId("time").textContent = number;
  byId("time-unit").textContent = unit;
  byId("status").textContent = answer.status ?? "error";
  byId("status").dataset.status = answer.status ?? "error";
  byId("worker").textContent = answer.worker ? `from worker ${answer.worker}` : "";
  byId("in-cache").textContent = milliseconds(answer.cache);
  byId("in-database").textContent = answer.database ? milliseconds(answer.database) : "not asked";
  byId("in-browser").textContent = milliseconds(answer.browser);
  const reason = REASONS[answer.status]?.(answer) ?? "";
  byId("why").textContent = answer.ok ? cause + reason : `${answer.code}: ${answer.body.error}.${["hit", "shared"].includes(answer.status) ? " Remembered: the database was not asked again." : ""}`;
  remember(total || answer.browser, answer.status ?? "error");
}

function remember(ms, status) {
  const share = Math.log10(Math.max(ms, 0.01) / 0.01) / Math.log10(SLOWEST / 0.01);
  const bar = element("li", { title: `${status}, ${milliseconds(ms)}` });
  bar.dataset.status = status;
  bar.style.height = `${Math.min(Math.max(share, 0.03), 1) * 100}%`;
  bar.append(element("span", { className: "skip", textContent: `${status}, ${milliseconds(ms)}` }));
  byId("history").append(bar);
  while (byId("history").childElementCount > HISTORY) byId("history").firstElementChild.remove();
}

// ---------------------------------------------------------------- the profile
function showProfile(user) {
  current = user;
  byId("name").textContent = user.name;
  showCommand();
  byId("bio").textContent = user.bio;
  byId("about").textContent = `${user.city} · ${user.email} · since ${day(user.joined)}`;
  byId("avatar").textContent = initials(user.name);
  byId("avatar").style.setProperty("--hue", hue(user.id));
  for (const [id, value] of Object.entries({ followers: user.followers, following: user.following, posts: user.posts, likes: user.likes_received }))
    byId(id).textContent = whole.format(value);
  byId("rank").textContent = `#${whole.format(user.rank)}`;
  byId("rank-label").textContent = `of ${whole.format(user.ranked_of)}`;
  byId("mutual-count").textContent = whole.format(user.mutual_count);
  byId("recent").replaceChildren(...user.recent_posts.map((post) => element("li", {},
    element("p", { textContent: post.body }),
    element("small", { textContent: `${day(post.created)} · ${whole.format(post.likes)} ${post.likes === 1 ? "like" : "likes"}` }))));
  byId("mutuals").replaceChildren(...user.mutuals.map((person) => {
    const button = element("button", { type: "button", onclick: () => show(person.id) }, avatar(person),
      element("span", { textContent: person.name }, element("small", { textContent: `${whole.format(person.followers)} followers` })));
    return element("li", {}, button);
  }));
  if (!user.mutuals.length) byId("mutuals").append(element("li", { className: "dim", textContent: "Nobody yet." }));
  document.title = `${user.name} · Credenza`;
}

async function show(id) {
  const mine = ++shows;
  byId("profile").ariaBusy = "true";
  byId("user-id").value = id;
  try {
    const answer = await ask(id);
    if (mine !== shows) return;
    showAnswer(answer);
    if (answer.ok) {
      showProfile(answer.body);
      history.replaceState(null, "", `?id=${answer.body.id}`);
    }
  } catch {
    byId("why").textContent = "The service does not answer. Is it still running?";
  } finally {
    if (mine === shows) byId("profile").ariaBusy = "false";
  }
}

// ---------------------------------------------------------------- what others change
const news = { heard: null, shown: null, inBurst: false }; // how many edits and changes were heard of, and are shown
let refreshing = false;

/** Asks again as long as there is news: somebody has edited somebody. In a burst once a second is enough. */
async function refresh() {
  if (refreshing || !current) return;
  refreshing = true;
  try {
    while (news.heard !== news.shown) {
      const { heard, inBurst } = news;
      await refreshOnce(inBurst);
      news.shown = heard;
      if (inBurst) await new Promise((done) => { setTimeout(done, 1000); });
    }
  } catch {
    // The line is down; the counters come back when it is up again, and so does this.
  } finally {
    refreshing = false;
  }
}

async function refreshOnce(inBurst) {
  const mine = shows;
  const answer = await ask(current.id);
  if (mine !== shows || !answer.ok || JSON.stringify(answer.body) === JSON.stringify(current)) return;
  if (!inBurst) showAnswer(answer, "Somebody has changed this user, so the page asked again. ");
  showProfile(answer.body);
  byId("name").dataset.changed = "";
}

function hear(counters) {
  news.heard = counters.edits + counters.changes;
  news.inBurst = counters.bursts > 0;
  news.shown ??= news.heard;
  refresh();
}

const command = { text: null };

function showCommand() {
  if (command.text) byId("command").textContent = command.text.replace("{id}", current?.id ?? 42);
}

async function copyCommand() {
  const place = byId("command");
  try {
    await navigator.clipboard.writeText(place.textContent);
    byId("copy").textContent = "Copied";
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1500);
  } catch { // not allowed here: it is marked, for the keyboard
    getSelection().selectAllChildren(place);
  }
}

// ---------------------------------------------------------------- editing
function openEditor() {
  if (!current) return;
  const form = byId("editor-form");
  byId("editor-title").textContent = `Edit user ${current.id}`;
  form.elements.name.value = current.name;
  form.elements.email.value = current.email;
  showErrors({});
  byId("editor").showModal();
  form.elements.name.select();
}

function showErrors(errors) {
  for (const place of document.querySelectorAll("[data-error]")) place.textContent = errors[place.dataset.error] ?? "";
  for (const input of byId("editor-form").querySelectorAll("input")) input.ariaInvalid = String(input.name in errors);
}

async function save(event) {
  event.preventDefault();
  const { name, email } = event.target.elements;
  const response = await fetch(`/user?id=${current.id}`, {
    method: "PUT", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name: name.value, email: email.value }),
  });
  if (response.ok) {
    byId("editor").close();
    await show(current.id);
  } else {
    const body = await response.json();
    showErrors({ [body.field ?? ""]: body.error });
    byId("editor-form").elements[body.field]?.focus();
  }
}

// ---------------------------------------------------------------- stampede
const sides = Object.fromEntries([...document.querySelectorAll("[data-side]")].map((figure) => [figure.dataset.side, {
  dots: new Dots(figure.querySelector("canvas")), queries: figure.querySelector("[data-queries]"), noun: figure.querySelector("[data-noun]"), seconds: figure.querySelector("[data-seconds]"),
}]));
let running = null; // the side whose queries the live counter is counting now

function showQueries({ queries, noun }, count) {
  queries.textContent = whole.format(count);
  noun.textContent = `${count === 1 ? "query" : "queries"} reached the database`;
}

async function stampedeOn(side, id) {
  const { dots, seconds } = sides[side];
  dots.wait();
  showQueries(sides[side], 0);
  seconds.textContent = "";
  running = { side: sides[side], from: null };
  const response = await fetch(`/stampede?id=${id}&protection=${side}`, { method: "POST" });
  const result = await response.json();
  running = null;
  if (!response.ok) throw new Error(result.error);
  showQueries(sides[side], result.queries);
  seconds.textContent = milliseconds(result.seconds * 1000);
  dots.show(result.outcomes);
  return result;
}

async function stampede() {
  const button = byId("stampede");
  button.disabled = true;
  byId("verdict").textContent = "";
  try {
    sides.off.dots.clear();
    sides.off.queries.textContent = "–";
    sides.off.seconds.textContent = "";
    const on = await stampedeOn("on", current?.id ?? 42);
    const off = await stampedeOn("off", current?.id ?? 42);
    byId("verdict").textContent = `The same ${on.requests} requests: ${whole.format(on.queries)} ${on.queries === 1 ? "query" : "queries"} in `
      + `${milliseconds(on.seconds * 1000)} with protection, ${whole.format(off.queries)} in ${milliseconds(off.seconds * 1000)} without.`;
  } catch (error) {
    byId("verdict").textContent = `The stampede did not finish: ${error.message}.`;
  } finally {
    running = null;
    button.disabled = false;
  }
}

// ---------------------------------------------------------------- burst
const BURST = 10000;
const writes = Object.fromEntries([...document.querySelectorAll("[data-write]")].map((figure) => [figure.dataset.write, {
  count: figure.querySelector("strong"), bar: figure.querySelector(".bar i"),
}]));
let bursting = null; // the counters when it began, and when that was
let counted = null; // the last counters

function showWrites(statements, edits, seconds) {
  for (const [side, count] of [["behind", statements], ["through", edits]]) {
    writes[side].count.textContent = whole.format(count);
    writes[side].bar.style.width = count ? `max(3px, ${Math.min(count / BURST, 1) * 100}%)` : "0";
  }
  byId("burst-seconds").textContent = milliseconds(seconds * 1000);
}

async function burst() {
  const button = byId("burst");
  button.disabled = true;
  byId("burst-verdict").textContent = "";
  bursting = { from: counted, started: performance.now() };
  showWrites(0, 0, 0);
  try {
    const response = await fetch("/burst", { method: "POST" });
    const result = await response.json();
    bursting = null;
    if (!response.ok) throw new Error(result.error);
    showWrites(result.statements, result.edits, result.seconds);
    byId("burst-verdict").textContent = `${whole.format(result.edits)} edits were acknowledged in ${milliseconds(result.acknowledged_seconds * 1000)}, `
      + `and the database has them after ${milliseconds(result.seconds * 1000)}: ${whole.format(result.statements)} statements with ${whole.format(result.rows)} rows.`;
  } catch (error) {
    byId("burst-verdict").textContent = `The burst did not finish: ${error.message}.`;
  } finally {
    bursting = null;
    button.disabled = false;
  }
}

function showRecovered(users) {
  byId("recovered").textContent = users ? `Recovered from the journal: the last edits of ${users === 1 ? "1 user" : `${whole.format(users)} users`}, acknowledged before the demo was killed.` : "";
}

// ---------------------------------------------------------------- counters
function showSettings(settings) {
  const root = document.documentElement.dataset;
  root.strategy = settings.strategy;
  if (settings.workers) root.workers = settings.workers;
  if (settings["shared cache"]) root.shared = "";
  byId("sum").textContent = `summed over ${settings.workers} workers`;
  byId("facts").replaceChildren(...Object.entries(settings).map(([name, value]) => {
    const fact = element("li", {}, `${name} `, element("b", { textContent: value }));
    if (name === "shared cache") fact.append(element("b", { id: "away" }));
    return fact;
  }));
}

/** Says how many workers do not reach the shared cache; nothing while all do. */
function showAway(count) {
  const place = byId("away");
  if (!place) return;
  document.documentElement.dataset.away = count;
  place.textContent = count ? ", away: the database answers" : "";
  place.parentElement.toggleAttribute("data-away", count > 0);
}

function showCounters(counters) {
  showAway(counters.away);
  showRecovered(counters.recovered);
  hear(counters);
  for (const place of document.querySelectorAll("[data-counter]")) {
    const value = counters[place.dataset.counter];
    if (place.dataset.counter === "hit_ratio") place.textContent = counters.requests ? `${(value * 100).toFixed(1)} %` : "–";
    else if (place.dataset.counter === "mean_load_ms") place.textContent = counters.loads ? milliseconds(value) : "–";
    else place.textContent = whole.format(value);
  }
  if (running) {
    running.from ??= counters.queries;
    showQueries(running.side, counters.queries - running.from);
    running.side.dots.reach(counters.queries - running.from);
  }
  if (bursting?.from) showWrites(counters.statements - bursting.from.statements, counters.edits - bursting.from.edits, (performance.now() - bursting.started) / 1000);
  counted = counters;
}

function listen() {
  const events = new EventSource("/events");
  const pulse = (on, word) => Object.assign(byId("pulse"), { textContent: word }).dataset.on = String(on);
  events.addEventListener("settings", (event) => showSettings(JSON.parse(event.data)));
  events.addEventListener("follow", (event) => {
    document.documentElement.dataset.follows = "";
    Object.assign(command, { text: JSON.parse(event.data).command });
    showCommand();
  });
  events.addEventListener("counters", (event) => { pulse(true, "connected"); showCounters(JSON.parse(event.data)); });
  events.addEventListener("error", () => pulse(false, "reconnecting"));
}

// ---------------------------------------------------------------- theme
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  byId("theme").ariaPressed = String(theme === "dark");
  for (const side of Object.values(sides)) side.dots.paint();
}

const preferred = matchMedia("(prefers-color-scheme: dark)");
setTheme(preferred.matches ? "dark" : "light");
preferred.addEventListener("change", () => setTheme(preferred.matches ? "dark" : "light"));
byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
byId("again").addEventListener("click", () => show(byId("user-id").value.trim() || 42));
byId("edit").addEventListener("click", openEditor);
byId("goto").addEventListener("submit", (event) => { event.preventDefault(); show(byId("user-id").value.trim()); });
byId("editor-form").addEventListener("submit", save);
byId("cancel").addEventListener("click", () => byId("editor").close());
byId("stampede").addEventListener("click", stampede);
byId("burst").addEventListener("click", burst);
byId("copy").addEventListener("click", copyCommand);
byId("name").addEventListener("animationend", () => { delete byId("name").dataset.changed; });

listen();
show(new URLSearchParams(location.search).get("id") ?? 42);
