// Making and finding elements.

export const $ = (selector, scope = document) => scope.querySelector(selector);
export const $$ = (selector, scope = document) => [...scope.querySelectorAll(selector)];

const SVG = new Set(["svg", "path"]);

// el("button", {class: "x", onclick: f, vars: {v: "50%"}}, "text", child). `vars` become custom
// properties: style attributes are forbidden by the content security policy.
export function el(tag, props = {}, ...children) {
  const e = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key === "vars") setVars(e, value);
    else if (value === true) e.setAttribute(key, "");
    else if (value !== false && value != null) e.setAttribute(key, value);
  }
  e.append(...children.flat(9).filter((c) => c != null && c !== false));
  return e;
}

export function setVars(e, vars) {
  for (const [name, value] of Object.entries(vars)) e.style.setProperty("--" + name, value);
}

const ICONS = {
  flame: "M8 1c1 3 4 4 4 8a4 4 0 0 1-8 0c0-2 1-3 2-4 0 1 .6 2 1.4 2C8 5 7 3 8 1Z",
  sun:
    "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1m0 12v1M1 8h1m12 0h1M3 3l.7.7m8.6 8.6.7.7m0-10-.7.7" +
    "M3.7 12.3 3 13",
};

export const icon = (name) =>
  el("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, el("path", { d: ICONS[name] }));

export const swatch = (kind) => el("i", { class: "sw", vars: { c: `var(--k-${kind})` } });

export function toast(text) {
  const host = $(".toasts") ?? document.body.appendChild(el("div", { class: "toasts", role: "status" }));
  const message = el("div", { class: "toast" }, text);
  host.append(message);
  setTimeout(() => message.remove(), 5000);
}

export async function copyText(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    toast(done);
  } catch {
    toast("The browser doesn't allow copying here.");
  }
}

// Follows the pointer, stays inside the window.
export function tooltip() {
  const box = el("div", { class: "tip", role: "presentation", hidden: true });
  document.body.append(box);
  return {
    show(pointer, ...children) {
      box.replaceChildren(...children.flat(9).filter((c) => c != null && c !== false));
      box.hidden = false;
      const { width, height } = box.getBoundingClientRect();
      const left = Math.max(8, Math.min(pointer.clientX + 14, innerWidth - width - 12));
      const below = pointer.clientY + 18;
      const top = below + height > innerHeight - 8 ? pointer.clientY - height - 12 : below;
      box.style.transform = `translate(${Math.round(left)}px, ${Math.round(Math.max(4, top))}px)`;
    },
    hide() {
      box.hidden = true;
    },
  };
}
