// What the page says when there is nothing to draw: what happened, what is safe, what to do. Each
// returns the content of the card (see panels/state.js). No DOM here.

import { plural } from "./format.js";
import { wordFor } from "./selector.js";

export function firstRun(hosts, waitedS) {
  const enrolled = hosts ? `${plural(hosts, "host")} enrolled. ` : "";
  return {
    title: "Listening for the first samples…",
    text:
      `${enrolled}Waiting for ${waitedS} s. A host reports within about ten seconds of starting its ` +
      "agent; nothing on it needs recompiling or restarting.",
    command: "flamefleet-agent check",
    waiting: true,
  };
}

// removeLast: takes the last filter away; lastDay: shows the last 24 hours
export function nothing(matchers, { removeLast, lastDay }) {
  const day = { label: "Last 24 h", run: lastDay };
  if (!matchers.length) {
    const text = "No host sampled any CPU in this time.";
    return { title: "No samples in this time", text, actions: [day] };
  }
  const words = matchers.map((m) => `${m.label} ${wordFor(m.op)} ${m.value}`).join(", ");
  const remove = { label: `Remove ${matchers.at(-1).label}`, primary: true, run: removeLast };
  return {
    title: "No samples match these filters",
    text: `${words}: no CPU was sampled in this time.`,
    actions: [remove, day],
  };
}

export function merging(elapsedS, cancel) {
  return {
    title: "Merging profiles",
    text: `${elapsedS.toFixed(1)} s so far.`,
    waiting: true,
    actions: [{ label: "Cancel", run: cancel }],
  };
}

// An error's message and remedy as sentences, as wire/sentences.py has them.
export const wordsOf = (error) => [error.message, error.remedy].filter(Boolean).map(ended).join(" ");

const ended = (text, at) => {
  const begun = at && /^[a-z]+[ ,;:.]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?…:]$/.test(begun) ? begun : `${begun}.`;
};

// showLast: null where no answer has been drawn yet
export function failed(error, { again, showLast }) {
  const kept = showLast ? " The last result is still here; nothing is lost." : "";
  const actions = [{ label: "Try again", primary: true, run: again }];
  if (showLast) actions.push({ label: "Show the last result", run: showLast });
  return { title: "No answer", text: wordsOf(error) + kept, actions };
}
