// The calculator of docs/faster.md: the formula of that page, and a form around it. No library, no network.
"use strict";

// Bytes per windows of readahead that are on their way at once: two for each of two ranks at most.
const WINDOWS_PER_RANK = 2;
const RANKS_THAT_HELP = 2;
// What was measured beyond the formula: both kinds of load took up to a tenth more.
const OVER = 1.1;
const GIB = 1024 ** 3;
// Up to where the formula has been held against measurements.
const MEASURED = { nodes: 1, ranks: 4, rate: 500e6 };

// Sizes in bytes, rates in bytes per second, times in seconds. [least, most] each.
function loadSeconds({ bytes, nodes, ranks, link, storage, roundTrip, readahead, workPerGib }) {
  const rate = storage > 0 ? Math.min(link, storage / nodes) : link;
  const linkSeconds = bytes / rate;
  const windows = WINDOWS_PER_RANK * Math.min(ranks, RANKS_THAT_HELP);
  const waiting = (bytes / (windows * readahead)) * roundTrip;
  const work = (bytes / GIB) * workPerGib;
  return {
    link: linkSeconds,
    plain: [Math.max(linkSeconds, waiting, work), OVER * (linkSeconds + waiting + work)],
    shardahead: [Math.max(linkSeconds, work), OVER * Math.max(linkSeconds, work)],
  };
}

function shown(seconds) {
  return seconds < 120 ? `${seconds.toPrecision(3)} s` : `${(seconds / 60).toPrecision(3)} min`;
}

function described(given, found) {
  const between = ([least, most]) => `${shown(least)} to ${shown(most)}`;
  const times = [found.plain[0] / found.shardahead[1], found.plain[1] / found.shardahead[0]];
  const text = [
    `The link needs ${shown(found.link)} for the bytes.`,
    `Plain reading: ${between(found.plain)}.`,
    `With Shardahead: ${between(found.shardahead)}.`,
  ];
  if (times[1] < 1.25) {
    text.push("There is little to gain: plain reading is near the link already, or the work decides.");
  } else {
    const least = Math.max(1, times[0]);
    text.push(`That is ${least.toFixed(1)} to ${times[1].toFixed(1)} times as fast.`);
  }
  const beyond = [
    given.nodes > MEASURED.nodes && "more than one node",
    given.ranks > MEASURED.ranks && `more than ${MEASURED.ranks} ranks`,
    given.bytes / found.link > MEASURED.rate && `more than ${MEASURED.rate / 1e6} MB/s`,
  ].filter(Boolean);
  if (beyond.length > 0) {
    text.push(`Not measured with ${beyond.join(", ")}: there it is what the formula says, no more.`);
  }
  return text.join("\n");
}

function start(form) {
  const number = (name) => Number(form.elements[name].value);
  const update = () => {
    const given = {
      bytes: number("gigabytes") * 1e9,
      nodes: number("nodes"),
      ranks: number("ranks"),
      link: number("link") * 1e6,
      storage: number("storage") * 1e6,
      roundTrip: number("round_trip") / 1e3,
      readahead: number("readahead") * 1024,
      workPerGib: number("work"),
    };
    const positive = [given.bytes, given.nodes, given.ranks, given.link, given.readahead];
    const right = positive.every((value) => value > 0) && given.roundTrip >= 0 && given.workPerGib >= 0;
    form.querySelector("output").textContent = right
      ? described(given, loadSeconds(given))
      : "Each number must be above 0; round trip, storage and work may be 0.";
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  update();
}

if (typeof document !== "undefined") {
  document.querySelectorAll("form.calculator").forEach(start);
}
if (typeof module !== "undefined") {
  module.exports = { loadSeconds, described };
}
