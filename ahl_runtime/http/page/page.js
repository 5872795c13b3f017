// The operator's page: one stream of states in, a few buttons out. No framework, no file of another site.
const $ = (id) => document.getElementById(id);
const WORDS = { pass: "Pass", unsure: "Unsure", reject: "Reject" };
const SVG = "http://www.w3.org/2000/svg";
const STALE = 5000; // ms without a state, after which the page shows that the connection is lost
let state = null, chosen = null, shown = null, loading = false, heat = true, lastRejects = -1, receivedAt = 0, open = null;
let stream = null, connectedAt = 0, plan = null, signedOut = false;

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

// For screen readers: rejects at most every 5 seconds, and every change of a source.
const announced = { at: 0, rejects: 0 };
function announce(words) { $("announcements").append(make("span", {}, words + ". ")); while ($("announcements").childNodes.length > 5) $("announcements").firstChild.remove(); }

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
  connectedAt = Date.now();
  stream = new EventSource("/v1/events");
  stream.addEventListener("state", (event) => { receivedAt = Date.now(); signedOut = false; draw(JSON.parse(event.data)); });
  stream.onerror = async () => {
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again
    try { draw(await ask("/v1/state")); receivedAt = Date.now(); } catch { /* tick() shows the lost connection */ }
    if (!signedOut) setTimeout(listen, 2000);
  };
}

function tick() {
  const lost = Date.now() - receivedAt > STALE;
  const link = lost ? "▲ No connection to the line" : "● Live";
  text($("link"), receivedAt ? link : "Connecting…");
  $("link").dataset.state = lost && receivedAt ? "lost" : "live";
  const idle = source()?.state !== "live";
  document.body.dataset.stale = String(lost || idle);
  if (lost && receivedAt) { document.body.dataset.verdict = "none"; show("none", "No connection", "the last state is old"); }
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
  if (source().state !== "live") { // an operator would believe a green "Pass" of a camera that is gone
    document.body.dataset.verdict = "none";
    show("none", "No frames", `last decision: ${WORDS[latest.verdict]}`);
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
  const wide = $("strip").clientWidth, tall = $("strip").clientHeight; // in pixels, so that shapes keep their proportions
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
  const found = source()?.drift ?? { state: "off", said: "Not monitored" };
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
  announced.rejects += Math.max(0, state.rejects - before.rejects);
  if (announced.rejects && Date.now() - announced.at > 5000) {
    announce(announced.rejects === 1 ? "One reject" : `${announced.rejects} rejects`);
    announced.at = Date.now();
    announced.rejects = 0;
  }
  for (const s of state.sources) {
    const was = before.sources.find((b) => b.name === s.name);
    if (was && was.state !== s.state) announce(`${s.name} is ${s.state}`);
  }
}

// Today's decisions show the time alone, older ones the date: they must not look new.
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
    button.onclick = () => showDecision(row.id);
    return make("li", { "data-id": row.id, "data-label": row.label ?? "" }, button);
  }));
}

async function showDecision(id) {
  const box = $("decision");
  open = id;
  text($("decision-mark"), "");
  try {
    const row = await ask(`/v1/decisions/${id}`);
    text($("decision-title"), `${WORDS[row.verdict]} – ${row.source}`);
    text($("decision-words"), `${new Date(row.decided).toLocaleString("en-GB")}, score ${number(row.score)}, limit ${number(row.threshold)}`);
    if (row.label) text($("decision-mark"), `Marked ${row.label === "good" ? "good" : "a defect"} by ${row.who}`);
  } catch (error) { text($("decision-words"), error.message); }
  $("decision-picture").src = `/v1/decisions/${id}/picture`;
  $("decision-picture").alt = "The frame with its heat map";
  if (!box.open) box.showModal();
}

async function mark(word) {
  try {
    await ask(`/v1/decisions/${open}/mark`, { word });
    text($("decision-mark"), word === "good" ? "Marked good. Thank you." : "Marked a defect. Thank you.");
    gallery();
  } catch (error) { text($("decision-mark"), `Not marked: ${error.message}`); }
}

async function recalibrate(step) {
  text($("recalibrate-message"), "Please wait…");
  $("apply").disabled = true;
  try {
    if (step === "preview") {
      plan = await ask("/v1/calibration/preview", { source: chosen });
      facts($("recalibrate-facts"), [
        ["Limit now", number(plan.old.threshold)], ["New limit", number(plan.new.threshold)],
        [`Rejected now, of ${plan.frames} frames`, count(plan.old.rejected)], ["Rejected with the new limit", count(plan.new.rejected)],
      ]);
      text($("recalibrate-message"), plan.new.promise);
      $("apply").disabled = false;
    } else if (step === "apply") {
      const done = await ask("/v1/calibration/apply", { source: chosen, preview: plan.preview });
      text($("recalibrate-message"), `Active: ${done.name}`);
    } else {
      const done = await ask("/v1/calibration/undo", { source: chosen });
      text($("recalibrate-message"), `Rolled back: ${done.undone}`);
    }
  } catch (error) { text($("recalibrate-message"), error.message); }
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
  } catch (error) { text($("sign-in-message"), error.message); }
};
$("sign-in").addEventListener("cancel", (event) => event.preventDefault());
for (const button of document.querySelectorAll(".close")) button.onclick = () => button.closest("dialog").close();
$("good").onclick = () => mark("good");
$("anomaly").onclick = () => mark("anomaly");
$("look").onclick = () => showDecision(source().latest.id);
$("heat").onclick = () => {
  heat = !heat;
  $("heat").setAttribute("aria-pressed", String(heat));
  text($("heat"), heat ? "Heat map on" : "Heat map off");
  if (source()?.latest) picture(source().latest);
};
$("calibrate").onclick = () => { plan = null; $("apply").disabled = true; facts($("recalibrate-facts"), []); text($("recalibrate-message"), ""); $("recalibrate").showModal(); };
for (const step of ["preview", "apply", "undo"]) $(step).onclick = () => recalibrate(step);
$("drift-reset").onclick = async () => {
  try { await ask("/v1/drift/reset", { source: chosen }); announce("Drift reset"); } catch (error) { text($("drift"), error.message); }
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
// A connection that broke without an error sends nothing more: open a new one.
setInterval(() => { tick(); if (!signedOut && Date.now() - Math.max(receivedAt, connectedAt) > STALE) listen(); }, 1000);
listen();
