// Profiles on demand of one host: ask for one, follow it, end it (docs/on-demand.md). Who asks is an
// operator, whose token stays in its field: it is sent with these requests and kept nowhere.

import { askProfile, below, endProfile, fetchProfiles, serverNow } from "../api.js";
import { el } from "../dom.js";
import { count, duration, plain } from "../format.js";
import { wordsOf } from "../messages.js";
import { timeOf } from "./events.js";

const SHOWN = 3;
const FRESH_MS = 5000;
const FOLLOW_MS = 2000;
const USUAL = { rate_hz: 199, seconds: 60 };
const TONES = { running: "calm", refused: "warn", expired: "warn", shortened: "warn" };

const isUnderWay = ({ state }) => state === "waiting" || state === "running";

// What is told of a profile besides its state. Pure.
export function wordsFor(profile) {
  const { seconds, seconds_left: left, asked_rate_hz: asked, effective_rate_hz: effective } = profile;
  return [
    left == null ? duration(seconds) : `${duration(left)} of ${duration(seconds)} left`,
    effective == null ? `${asked} Hz` : `${effective} of ${asked} Hz`,
    profile.samples > 0 && `${count(profile.samples)} samples`,
    `by ${plain(profile.operator)}`,
    plain(profile.reason),
  ]
    .filter(Boolean)
    .join(" · ");
}

const number = (unit, least, most, value) => {
  const input = el("input", { type: "number", min: least, max: most, value, required: true });
  return { input, label: el("label", {}, input, ` ${unit}`) };
};

export function createProfiles(name) {
  const rate = number("Hz", 1, 1000, USUAL.rate_hz);
  const length = number("seconds", 10, 600, USUAL.seconds);
  const token = el("input", {
    ...{ type: "password", autocomplete: "off", required: true, pattern: "[!-~]+" },
    ...{ placeholder: "operator’s token" },
    ...{ "aria-label": "Operator’s token", title: "flamefleet token create --operator NAME, at the centre" },
  });
  const submit = el("button", {}, "Profile this host");
  const form = el("form", { class: "ask", onsubmit: send }, rate.label, length.label, token, submit);
  const none = el("p", { class: "dim", hidden: true }, "This host takes no profiles on demand.");
  const problem = el("p", { class: "problem", role: "alert" }); // of what was asked for
  const stale = el("p", { class: "problem", role: "status" }); // of the list
  const list = el("ol", { class: "events" });
  const heading = el("h3", {}, "Profile on demand");
  const box = el("section", { class: "host-profiles" }, heading, form, none, problem, list, stale);
  let timer = 0;
  let askedAt = -Infinity;
  let isOpen = false;

  async function attempt(what) {
    problem.textContent = "";
    submit.disabled = true;
    try {
      await what();
    } catch (error) {
      problem.textContent = wordsOf(error);
    } finally {
      submit.disabled = false;
    }
    if (isOpen) await load();
  }

  function send(event) {
    event.preventDefault();
    const asked = { rate_hz: rate.input.valueAsNumber, seconds: length.input.valueAsNumber };
    attempt(() => askProfile(name, asked, token.value.trim()));
  }

  function line(profile, nowMs) {
    const { state, flamegraph } = profile;
    const end = () =>
      token.reportValidity() && attempt(() => endProfile(profile.url, token.value.trim()));
    const page = flamegraph && el("a", { href: below(flamegraph.page) }, "Flamegraph");
    const stop = isUnderWay(profile) && el("button", { class: "link", onclick: end }, "End it");
    const pill = el("span", { class: `pill ${TONES[state] ?? ""}` }, state);
    const rest = [pill, ` ${wordsFor(profile)} `, page, page && stop && " · ", stop];
    return el("li", {}, timeOf(Date.parse(profile.created_at), nowMs), el("span", {}, rest));
  }

  async function load(nowMs = serverNow()) {
    clearTimeout(timer);
    askedAt = performance.now();
    let again = false;
    try {
      const profiles = await fetchProfiles(name);
      const hadFocus = list.contains(document.activeElement);
      list.replaceChildren(...profiles.slice(0, SHOWN).map((profile) => line(profile, nowMs)));
      if (hadFocus) list.querySelector("a, button")?.focus();
      stale.textContent = "";
      again = profiles.some(isUnderWay);
    } catch (error) {
      stale.textContent = wordsOf(error);
      again = true;
    }
    clearTimeout(timer);
    if (again && isOpen) timer = setTimeout(() => load(), FOLLOW_MS);
  }

  return {
    box,
    refresh({ facts }, nowMs) {
      isOpen = true;
      const most = Number(facts.on_demand_max_rate_hz ?? 0);
      form.hidden = !most;
      none.hidden = most > 0;
      rate.input.max = most;
      if (most && rate.input.value === rate.input.defaultValue) {
        rate.input.value = rate.input.defaultValue = Math.min(USUAL.rate_hz, most);
      }
      if (performance.now() - askedAt > FRESH_MS) load(nowMs);
    },
    stop() {
      isOpen = false;
      clearTimeout(timer);
      askedAt = -Infinity;
    },
  };
}
