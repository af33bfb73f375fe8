// Filter chips and the field that adds one, completing label names and values (WAI-ARIA combobox).

import { $, el, toast } from "../dom.js";
import { plural } from "../format.js";
import { OPERATORS, opposite, parse, parseTyped, wordFor } from "../selector.js";

const MOST_OPTIONS = 12;

// onChange(matchers) after every change; loadLabels() → [{name, values: [{value, series?}]}]
export function createFilters(box, { onChange, loadLabels }) {
  const input = $("#new-filter", box);
  const list = $("#options", box);
  const chips = $("#chips", box);
  let matchers = [];
  let labels = [];
  let options = [];
  let active = -1;

  function set(next) {
    matchers = next;
    chips.replaceChildren(...matchers.map(chip));
  }

  function change(next) {
    set(next);
    onChange(matchers);
  }

  function chip(matcher, index) {
    const { label, op, value } = matcher;
    const flip = () => change(matchers.with(index, { ...matcher, op: opposite(op) }));
    const remove = () => change(matchers.toSpliced(index, 1));
    const words = `${label} ${wordFor(op)} ${value}`;
    return el(
      "span",
      { class: "chip" },
      el("span", { class: "op" }, label),
      el(
        "button",
        { class: "op", title: `Change to “${wordFor(opposite(op))}”`, onclick: flip },
        wordFor(op),
      ),
      el("b", {}, value || "empty"),
      el("button", { "aria-label": `Remove filter ${words}`, onclick: remove }, "×"),
    );
  }

  function add(matcher) {
    const same = (m) => m.label === matcher.label && m.op === matcher.op && m.value === matcher.value;
    input.value = "";
    close();
    if (!matchers.some(same)) change([...matchers, matcher]);
  }

  // Options for the text so far: names of labels, then values of the chosen one, what equals the text
  // first. Plain text also finds values, so that typing "nginx" is enough.
  function optionsFor(text) {
    const { label, op, value } = parseTyped(text);
    const holds = (candidate, part) => candidate.toLowerCase().includes(part.toLowerCase());
    const equalFirst = (part) => (a, b) => (b.value === part) - (a.value === part);
    const valueOption = (name, operator, v) => ({
      text: op ? v.value : `${name} ${wordFor(operator)} ${v.value}`,
      note: v.series > 1 ? `${v.series} series` : "",
      choose: () => add({ label: name, op: operator, value: v.value }),
    });
    if (op) {
      const values = labels.find((l) => l.name === label)?.values ?? [];
      const found = values.filter((v) => holds(v.value, value)).sort(equalFirst(value));
      return found.map((v) => ({ ...valueOption(label, op, v), isExact: v.value === value }));
    }
    const names = labels
      .filter((l) => holds(l.name, label))
      .map((l) => ({
        text: l.name,
        isExact: l.name === label,
        note: plural(l.values.length, "value"),
        choose: () => {
          input.value = l.name + "=";
          open();
        },
      }));
    if (!label) return names;
    const values = labels.flatMap((l) =>
      l.values
        .filter((v) => holds(v.value, label))
        .map((v) => ({ ...valueOption(l.name, "=", v), isExact: v.value === label })),
    );
    return [...names, ...values].sort((a, b) => b.isExact - a.isExact);
  }

  function open() {
    options = optionsFor(input.value).slice(0, MOST_OPTIONS);
    list.replaceChildren(
      ...options.map((option, i) =>
        el(
          "li",
          { role: "option", id: `option-${i}`, onpointerdown: (e) => pick(e, i) },
          el("b", {}, option.text),
          el("span", {}, option.note),
        ),
      ),
    );
    // Enter takes the marked option. A value is taken as it was typed, so none is marked that differs.
    const { op, isWhole } = parseTyped(input.value);
    const isName = options.length > 0 && input.value.trim() && !op;
    activate(isName || (isWhole && options[0]?.isExact) ? 0 : -1);
    list.hidden = !options.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  }

  function pick(event, i) {
    event.preventDefault(); // the field keeps the focus
    options[i].choose();
  }

  function activate(i) {
    active = i;
    [...list.children].forEach((item, k) => item.setAttribute("aria-selected", String(k === i)));
    if (i >= 0) input.setAttribute("aria-activedescendant", `option-${i}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  // A whole selector as in links, the marked option, else what was typed, exactly.
  function enter() {
    const { label, op, value, isWhole } = parseTyped(input.value);
    if (input.value.trim().startsWith("{")) return addAll(input.value);
    if (active >= 0) return options[active].choose();
    if (isWhole) add({ label, op, value });
  }

  function addAll(text) {
    try {
      const typed = parse(text);
      input.value = "";
      close();
      if (typed.length) change([...matchers, ...typed]);
    } catch (error) {
      toast(error.message);
    }
  }

  const KEYS = {
    ArrowDown: () => (list.hidden ? open() : activate(Math.min(options.length - 1, active + 1))),
    ArrowUp: () => activate(Math.max(0, active - 1)),
    Enter: enter,
    Escape: () => (list.hidden ? input.blur() : close()),
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Backspace" && !input.value && matchers.length) change(matchers.slice(0, -1));
    if (event.key === "Tab" && options.length && input.value.trim() && !list.hidden) {
      options[Math.max(0, active)].choose(); // completes
    }
    else if (KEYS[event.key]) KEYS[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener("input", open);
  input.addEventListener("blur", close);
  input.addEventListener("focus", async () => {
    open();
    labels = await loadLabels().catch(() => labels);
    if (document.activeElement === input) open();
  });
  input.title = `Enter takes what is typed or marked, Tab completes. A label, then one of ${OPERATORS.toReversed().join(" ")}, then a value`;
  return { set, add, focus: () => input.focus() };
}
