/** The page: its views behind tabs, their states in the address, the model in the header. */

import { Api } from "./api.js";
import { copyMenu } from "./copy_menu.js";
import { h } from "./dom.js";
import { error } from "./format.js";
import { linkOf, readLink, stateOf } from "./link_state.js";
import { Server } from "./server.js";
import { Tabs } from "./tabs.js";
import { installThemeSwitch } from "./theme.js";

/** The first one's files are fetched with the page, the others' when they are opened. */
const VIEWS = [
  { id: "score", title: "Score", load: () => import("./views/score.js") },
  { id: "next", title: "Next", load: () => withStyle("next", import("./views/next.js")) },
  { id: "decode", title: "Decode", load: () => withStyle("decode", import("./views/decode.js")) },
  { id: "decide", title: "Decide", load: () => withStyle("decide", import("./views/decide.js")) },
];

/** A view's module once its style sheet is there, too. */
async function withStyle(name, module) {
  const href = new URL(`views/${name}.css`, import.meta.url).href;
  const sheet = h("link", { rel: "stylesheet", href });
  const fetched = new Promise((resolve, reject) => {
    sheet.addEventListener("load", resolve);
    sheet.addEventListener("error", () => reject(new Error(`${href} could not be fetched`)));
  });
  document.head.append(sheet);
  await fetched;
  return module;
}

const at = (id) => document.getElementById(id);

const askKey = async (wasWrong) => (await import("./key_dialog.js")).askKey(wasWrong);
const api = new Api(new Server(at("server")), askKey);
const links = new Map();
/** The last link of each view that was opened. */
const opened = new Map();
/** Of each view that was opened, the promise of its page and of what `mount` returned. */
const tabs = new Tabs(VIEWS, (id, left) => {
  writeLink();
  opened.get(left)?.then(({ shown }) => shown.leave());
  tabs.select(id);
  history.pushState(null, "", links.get(id) ?? `#${id}`);
  follow();
});

/** Browsers refuse an address that changes with every letter. */
const WRITING_MS = 250;
let writing;

/** Put the shown view's state into the address now. */
function writeLink() {
  clearTimeout(writing);
  const link = links.get(tabs.selected);
  if (link && link !== location.hash) history.replaceState(null, "", link);
}

let card;

/** The model that is served: the first entry of GET /v1/models. */
function models() {
  card ??= api.get("/v1/models").then(({ data }) => data[0]);
  card.catch(() => (card = undefined));
  return card;
}

/** What a view is given. */
class Page {
  #view;
  #sent;

  constructor(view) {
    this.#view = view;
    this.api = api;
    this.models = models;
    this.state = structuredClone(view.initial);
    this.menu = copyMenu({
      request: () => this.#sent,
      hasKey: () => api.hasKey,
      say: (text) => this.say(text),
      writeLink,
    });
  }

  /** Take over changes of the state into the link, without an entry in the history. */
  change(patch) {
    this.state = { ...this.state, ...patch };
    links.set(this.#view.id, linkOf(this.#view, this.state));
    clearTimeout(writing);
    writing = setTimeout(writeLink, WRITING_MS);
  }

  /** The request behind "copy as curl" and "copy as Python". */
  sent(path, body) {
    this.#sent = { path, body };
  }

  /** Tell the person something that has happened. */
  say(text) {
    at("status").textContent = text;
  }
}

/** Make a view, once; what it needs is fetched then. */
function openedView(entry) {
  if (!opened.has(entry.id)) opened.set(entry.id, mounted(entry));
  return opened.get(entry.id);
}

async function mounted(entry) {
  const { view } = await entry.load();
  const page = new Page(view);
  const root = h("div", { class: `view view-${view.id}` });
  tabs.panels.get(entry.id).replaceChildren(page.menu, root);
  return { view, page, shown: view.mount(root, page), isNew: true };
}

/** Show what the address names. */
async function follow() {
  const { id, changed, isDamaged } = readLink(location.hash);
  const entry = VIEWS.find((one) => one.id === id) ?? VIEWS[0];
  tabs.select(entry.id);
  document.title = `${entry.title} – chainrule`;
  const open = await openedView(entry);
  const { view, page, shown } = open;
  const found = stateOf(view, changed);
  const link = linkOf(view, found.state);
  const isShown = !open.isNew && link === linkOf(view, page.state);
  open.isNew = false;
  page.state = found.state;
  links.set(view.id, link);
  const isUnknown = id !== "" && entry.id !== id;
  page.say(
    isDamaged || found.isDamaged || isUnknown
      ? "This link is damaged: what it does not tell is shown as at the beginning."
      : "",
  );
  if (!isShown) shown.show(page.state);
}

async function showModel() {
  const model = await models();
  document.documentElement.dataset.model = model.id;
  at("model").replaceChildren(
    h("strong", {}, model.id),
    h("span", {}, `${model.dtype}, ${model.device}`),
    h("span", { title: "the fingerprint: of the weights and of all that decides bits" },
      model.fingerprint.slice(0, 8)),
    h("span", { title: "what a token's log-probability may be off by, at most, in nats" },
      error(model.numeric_error.maximum)),
  );
}

/** Without a fragment in the address, which would name no view. */
function skipToTheView(event) {
  event.preventDefault();
  at("views").focus();
}

installThemeSwitch(at("theme"));
document.querySelector(".skip").addEventListener("click", skipToTheView);
at("views").append(tabs.list, ...tabs.panels.values());
window.addEventListener("popstate", follow);
window.addEventListener("pagehide", writeLink);
follow();
showModel().catch((problem) => (at("model").textContent = problem.message));
