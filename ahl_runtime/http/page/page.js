// The operator's page: one stream of states in, a few buttons out. No framework, nothing from elsewhere.
const $ = (id) => document.getElementById(id);
const WORDS = { pass: "Pass", unsure: "Unsure", reject: "Reject" };
const SVG = "http://www.w3.org/2000/svg";
const STALE = 5000; // ms without a state after which the page says that it no longer knows
let state = null, chosen = null, shown = null, loading = false, heat = true, lastRejects = -1, heard = 0, open = null;
let stream = null, tried = 0, plan = null, signedOut = false;

const number = (x) => (x === null || x === undefined ? "–" : Number(x).toPrecision(4));
const count = (x) => Number(x).toLocaleString("en");
const source = () => state?.sources.find((s) => s.name === chosen) ?? null;

function text(node, words) { if (node.textContent !== words) node.textContent = words; }

function make(tag, attributes = {}, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
}

// What a screen reader is told: rejects at most every 5 seconds, and every change of a source or of drift.
const saying = { at: 0, rejects: 0 };
function say(words) { $("said").append(make("span", {}, words + ". ")); while ($("said").childNodes.length > 5) $("said").firstChild.remove(); }

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" },
  };
  const response = await fetch(path, options);
  if (response.status === 401 && path !== "/v1/session") signIn();
  const answer = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `refused (${response.status})`);
  return answer;
}

function listen() {
  stream?.close();
  tried = Date.now();
  stream = new EventSource("/v1/events");
  stream.addEventListener("state", (event) => { heard = Date.now(); signedOut = false; draw(JSON.parse(event.data)); });
  stream.onerror = async () => {
    if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
    try { draw(await ask("/v1/state")); heard = Date.now(); } catch { /* said by the clock below */ }
    if (!signedOut) setTimeout(listen, 2000);
  };
}

function tick() {
  const lost = Date.now() - heard > STALE;
  const link = lost ? "▲ No word from the line" : "● Live";
  text($("link"), heard ? link : "Connecting…");
  $("link").dataset.state = lost && heard ? "lost" : "live";
  const idle = source()?.state !== "live";
  document.body.dataset.stale = String(lost || idle);
  if (lost && heard) { document.body.dataset.verdict = "none"; show("none", "No word", "what is shown is old"); }
}

function draw(next) {
  const before = state;
  state = next;
  if (!source()) chosen = state.sources[0]?.name ?? null;
  text($("model"), state.model.name);
  document.title = `${state.model.name} – line`;
  tabs();
  verdict();
  strip();
  counts();
  drift();
  alarm();
  changes(before);
  if (state.rejects !== lastRejects) { lastRejects = state.rejects; gallery(); }
  tick();
}

function tabs() {
  const names = state.sources.map((s) => s.name);
  const list = $("sources");
  if ([...list.querySelectorAll("button")].map((b) => b.dataset.name).join("\n") !== names.join("\n")) {
    list.replaceChildren(...names.map((name) => {
      const button = make("button", { type: "button", "data-name": name }, name);
      button.onclick = () => { chosen = name; shown = null; draw(state); };
      return make("li", {}, button);
    }));
  }
  for (const button of list.querySelectorAll("button")) {
    const of = state.sources.find((s) => s.name === button.dataset.name);
    button.setAttribute("aria-current", String(button.dataset.name === chosen));
    text(button, of.state === "live" ? of.name : `▲ ${of.name}: ${of.state}`);
  }
}

function show(shape, word, words) {
  $("shape").setAttribute("href", `#${shape}`);
  text($("word"), word);
  text($("words"), words);
}

function verdict() {
  const latest = source()?.latest;
  $("look").disabled = !latest;
  if (!latest) {
    document.body.dataset.verdict = "none";
    show("none", "Waiting", "for the first frame");
    return;
  }
  if (source().state !== "live") { // a green "Pass" above a camera that is gone would be believed
    document.body.dataset.verdict = "none";
    show("none", "No frames", `the last, ${WORDS[latest.verdict]}, is old`);
    picture(latest);
    return;
  }
  document.body.dataset.verdict = latest.verdict;
  const limit = latest.threshold === null ? "no threshold: nothing is rejected" : `limit ${number(latest.threshold)}`;
  show(latest.verdict, WORDS[latest.verdict], `score ${number(latest.score)}, ${limit}`);
  picture(latest);
}

// One picture at a time: a slow link shows fewer of them, never a growing queue.
function picture(latest) {
  const key = `${chosen}/${latest.id}/${heat}`;
  if (loading || key === shown) return;
  loading = true;
  const next = new Image();
  const done = () => { loading = false; };
  next.onload = () => {
    done();
    shown = key;
    $("picture").src = next.src;
    $("picture").alt = `Frame of ${chosen}: ${WORDS[latest.verdict]}, score ${number(latest.score)}` +
      (heat ? ", with the heat map over it" : "");
    const newest = source()?.latest;
    if (newest && newest.id !== latest.id) picture(newest);
  };
  next.onerror = done;
  next.src = `/v1/sources/${encodeURIComponent(chosen)}/picture?heat=${heat ? 1 : 0}&of=${encodeURIComponent(latest.id)}`;
}

function strip() {
  const of = source();
  const recent = of?.recent ?? [];
  if (!recent.length) { $("strip").replaceChildren(); text($("strip-words"), "No scores yet"); return; }
  const { threshold, unsure_threshold: soft } = of.latest;
  const values = [...recent.map((r) => r.score), ...[threshold, soft].filter((x) => x !== null)];
  const low = Math.min(...values), high = Math.max(...values), room = (high - low || 1) * 0.12;
  const wide = $("strip").clientWidth, tall = $("strip").clientHeight; // drawn in its own pixels: shapes stay shapes
  const y = (score) => tall - (tall * (score - low + room)) / (high - low + 2 * room);
  const nodes = [];
  const put = (tag, attributes) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    nodes.push(node);
  };
  for (const [value, kind] of [[threshold, "limit"], [soft, "soft"]])
    if (value !== null) put("line", { class: kind, x1: 0, x2: wide, y1: y(value), y2: y(value) });
  recent.forEach((r, i) => {
    const x = wide - 8 - ((recent.length - 1 - i) * (wide - 16)) / Math.max(59, recent.length - 1), at = y(r.score);
    if (r.verdict === "pass") put("circle", { class: "pass", cx: x, cy: at, r: 3.2 });
    else if (r.verdict === "unsure") put("path", { class: "unsure", d: `M${x} ${at - 5}l5 9h-10z` });
    else put("path", { class: "reject", d: `M${x - 4} ${at - 4}l8 8m0-8l-8 8` });
  });
  $("strip").replaceChildren(...nodes);
  const rejected = recent.filter((r) => r.verdict === "reject").length;
  const limit = threshold === null ? "no threshold yet" : `solid line: limit ${number(threshold)}`;
  text($("strip-words"), `${rejected} of the last ${recent.length} rejected; ${limit}`);
}

function facts(list, pairs) {
  if (list.children.length !== pairs.length)
    list.replaceChildren(...pairs.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"))));
  pairs.forEach(([name, value, warn], i) => {
    text(list.children[i].firstChild, name);
    text(list.children[i].lastChild, value);
    list.children[i].className = warn ? "warn" : "";
  });
}

function counts() {
  const of = source();
  if (!of) return;
  facts($("counts"), [
    ["Frames", count(of.frames)], ["Passed", count(of.passed)], ["Rejected", count(of.rejected)],
    ["Unsure", count(of.unsure)], ["Dropped", count(of.dropped), of.dropped > 0], ["Waiting", count(of.queue)],
  ]);
}

function drift() {
  const found = source()?.drift ?? { state: "off", said: "Not watched" };
  $("drift").dataset.state = found.state;
  text($("drift"), found.said);
  $("drift-reset").disabled = found.state === "off";
  $("calibrate").disabled = !source();
}

function alarm() {
  const wrong = state.sources.filter((s) => s.state !== "live").map((s) => `${s.name}: ${s.said}`)
    .concat(state.sources.filter((s) => s.drift.state === "alarm").map((s) => `${s.name} has drifted`))
    .concat(state.faults);
  $("alarm").hidden = !wrong.length;
  text($("alarm"), wrong.length ? `▲ ${[...new Set(wrong)].join(" · ")}` : "");
}

function changes(before) {
  if (!before) return;
  saying.rejects += Math.max(0, state.rejects - before.rejects);
  if (saying.rejects && Date.now() - saying.at > 5000) {
    say(saying.rejects === 1 ? "One reject" : `${saying.rejects} rejects`);
    saying.at = Date.now();
    saying.rejects = 0;
  }
  for (const s of state.sources) {
    const was = before.sources.find((b) => b.name === s.name);
    if (was && was.state !== s.state) say(`${s.name} is ${s.state}`);
  }
}

// The time alone for today: one of yesterday must not look new.
function moment(text) {
  const at = new Date(text), today = new Date().toDateString() === at.toDateString();
  return at.toLocaleString("en-GB", today ? { timeStyle: "medium" } : { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

async function gallery() {
  let found;
  try { found = (await ask("/v1/decisions?verdict=reject&limit=12")).decisions; } catch { return; }
  const list = $("rejects");
  if (!found.length) { list.replaceChildren(make("li", { class: "empty" }, "None yet")); return; }
  const kept = new Map([...list.children].map((item) => [item.dataset.id, item]));
  list.replaceChildren(...found.map((row) => {
    const old = kept.get(row.id);
    if (old && old.dataset.label === (row.label ?? "")) return old;
    const when = moment(row.decided);
    const label = row.label ? (row.label === "good" ? " ○ good" : " ✕ defect") : "";
    const image = make("img", { src: `/v1/decisions/${row.id}/picture?heat=0`, alt: "", loading: "lazy" });
    image.onerror = () => image.removeAttribute("src");
    const button = make("button", { type: "button", "aria-label": `Reject of ${row.source} at ${when}, score ${number(row.score)}${label}` },
      image, make("span", {}, `${when}${label}`));
    button.onclick = () => one(row.id);
    return make("li", { "data-id": row.id, "data-label": row.label ?? "" }, button);
  }));
}

async function one(id) {
  const box = $("one");
  open = id;
  text($("one-mark"), "");
  try {
    const row = await ask(`/v1/decisions/${id}`);
    text($("one-title"), `${WORDS[row.verdict]} – ${row.source}`);
    text($("one-words"), `${new Date(row.decided).toLocaleString("en-GB")}, score ${number(row.score)}, limit ${number(row.threshold)}`);
    if (row.label) text($("one-mark"), `Marked ${row.label === "good" ? "good" : "a defect"} by ${row.who}`);
  } catch (error) { text($("one-words"), error.message); }
  $("one-picture").src = `/v1/decisions/${id}/picture`;
  $("one-picture").alt = "The frame with its heat map";
  if (!box.open) box.showModal();
}

async function mark(word) {
  try {
    await ask(`/v1/decisions/${open}/mark`, { word });
    text($("one-mark"), word === "good" ? "Marked good. Thank you." : "Marked a defect. Thank you.");
    gallery();
  } catch (error) { text($("one-mark"), `Not marked: ${error.message}`); }
}

async function renew(step) {
  text($("renew-said"), "One moment…");
  $("apply").disabled = true;
  try {
    if (step === "preview") {
      plan = await ask("/v1/calibration/preview", { source: chosen });
      facts($("renew-facts"), [
        ["Limit now", number(plan.old.threshold)], ["Limit then", number(plan.new.threshold)],
        [`Of these ${plan.frames} frames, now rejected`, count(plan.old.rejected)], ["Then rejected", count(plan.new.rejected)],
      ]);
      text($("renew-said"), plan.new.promise);
      $("apply").disabled = false;
    } else if (step === "apply") {
      const done = await ask("/v1/calibration/apply", { source: chosen, preview: plan.preview });
      text($("renew-said"), `In force: ${done.name}`);
    } else {
      const done = await ask("/v1/calibration/undo", { source: chosen });
      text($("renew-said"), `Undone: ${done.undone}`);
    }
  } catch (error) { text($("renew-said"), error.message); }
}

function signIn() {
  signedOut = true;
  stream?.close();
  if (!$("sign-in").open) $("sign-in").showModal();
}

$("sign-in-form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await ask("/v1/session", { token: $("token").value });
    $("token").value = "";
    $("sign-in").close();
    signedOut = false;
    listen();
  } catch (error) { text($("sign-in-said"), error.message); }
};
$("sign-in").addEventListener("cancel", (event) => event.preventDefault());
for (const button of document.querySelectorAll(".close")) button.onclick = () => button.closest("dialog").close();
$("good").onclick = () => mark("good");
$("anomaly").onclick = () => mark("anomaly");
$("look").onclick = () => one(source().latest.id);
$("heat").onclick = () => {
  heat = !heat;
  $("heat").setAttribute("aria-pressed", String(heat));
  text($("heat"), heat ? "Heat map on" : "Heat map off");
  if (source()?.latest) picture(source().latest);
};
$("calibrate").onclick = () => { plan = null; $("apply").disabled = true; facts($("renew-facts"), []); text($("renew-said"), ""); $("renew").showModal(); };
for (const step of ["preview", "apply", "undo"]) $(step).onclick = () => renew(step);
$("drift-reset").onclick = async () => {
  try { await ask("/v1/drift/reset", { source: chosen }); say("Drift reset"); } catch (error) { text($("drift"), error.message); }
};

function theme(light) {
  document.documentElement.dataset.theme = light ? "light" : "dark";
  $("theme").setAttribute("aria-pressed", String(light));
  try { localStorage.setItem("theme", light ? "light" : "dark"); } catch { /* a kiosk may forbid it */ }
}
let remembered = null;
try { remembered = localStorage.getItem("theme"); } catch { /* as above */ }
theme(remembered ? remembered === "light" : matchMedia("(prefers-color-scheme: light)").matches);
$("theme").onclick = () => theme(document.documentElement.dataset.theme !== "light");

new ResizeObserver(() => { if (state) strip(); }).observe($("strip"));
// A connection that broke without a word would stay silent for ever: ask anew.
setInterval(() => { tick(); if (!signedOut && Date.now() - Math.max(heard, tried) > STALE) listen(); }, 1000);
listen();
