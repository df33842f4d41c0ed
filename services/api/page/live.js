// Names are data: they only ever become text nodes.
const $ = (id) => document.getElementById(id);
const MOST_ROWS = 500;
const MIX = ["local", "cross", "private", "internet", "other"];
const TEXT = ["name", "ns", "place"];
const COLUMNS = [
  ["name", "Pod", ""], ["ns", "Namespace", "wide where"], ["place", "Node / zone", "wide where"], ["rate", "Total", "n rate"],
  ["local", "Local", "n narrow"], ["cross", "Cross", "n mid"], ["private", "Private", "n mid"], ["internet_tx", "Internet ↑", "n", "Internet up"],
  ["internet_rx", "Internet ↓", "n last", "Internet down"], ["other", "Other", "n mid"],
];
const TILES = [["Throughput", "rate"], ["Local", "local"], ["Cross", "cross"], ["Private", "private"], ["Internet ↑", "internet_tx"],
  ["Internet ↓", "internet_rx"], ["Other", "other"], ["Pods", null]];
const pods = new Map();
const view = { sort: "rate", filter: [], open: null, message: null, all: null, live: false, order: [] };

function bytes(n, per = "") {
  if (n === null || n === undefined) return "–";
  let at = 0;
  for (; n >= 999.5 && at < 5; at += 1) n /= 1000;
  return `${n >= 99.95 || at === 0 ? n.toFixed(0) : n.toFixed(1)} ${["B", "kB", "MB", "GB", "TB", "PB"][at]}${per}`;
}

function element(name, textContent = "", className = "") {
  return Object.assign(document.createElement(name), { textContent, className });
}

function write(made, text) {
  if (made.textContent !== text) made.textContent = text;
}

function numbered(values) {
  const sum = (a, b) => (a === null || b === null ? null : a + b);
  return { ...values, rate: sum(values.tx, values.rx), internet: sum(values.internet_tx, values.internet_rx) };
}

function records(columns, use) {
  const names = Object.keys(columns);
  (columns[names[0]] || []).forEach((_, at) => use(Object.fromEntries(names.map((name) => [name, columns[name][at]])), at));
}

// False where the message does not follow what is here.
function take(message) {
  const whole = message.t === "snapshot";
  if (!whole && (message.base !== view.message?.seq || message.epoch !== view.message.epoch)) return false;
  if (whole) view.columns = message.columns;
  for (const id of whole ? [...pods.keys()] : message.gone) { pods.get(id)?.row?.remove(); pods.delete(id); }
  records(whole ? message.pods : message.add, (pod) => pods.set(pod.id, Object.assign(pods.get(pod.id) || {}, pod, {
    place: [pod.node, pod.zone].filter(Boolean).join(" / "), key: `${pod.ns}/${pod.name}`,
    text: `${pod.ns}/${pod.name} ${pod.node} ${pod.zone} ${pod.ip} ${pod.iface}`.toLowerCase() })));
  records(message.rows, (values, at) => Object.assign(pods.get(message.i[at]), numbered(values)));
  view.message = message;
  view.all = numbered(Object.fromEntries(view.columns.map((name, at) => [name, message.tot[at]])));
  return true;
}

function mix(made, values, width) {
  let sum = 0;
  const total = MIX.reduce((all, name) => all + (values[name] || 0), 0) || 1;
  MIX.forEach((name, at) => made.style.setProperty(`--p${at}`, `${(100 * (sum += values[name] || 0)) / total}%`));
  made.style.width = `${width}%`;
  return total;
}

function row(pod, most) {
  if (!pod.row) {
    pod.row = element("tr");
    pod.cells = COLUMNS.map(([, , classes]) => element("td", "", classes));
    pod.row.append(...pod.cells);
    pod.cells[0].append(Object.assign(element("button"), { type: "button" }), element("small"), element("small"));
    pod.cells[3].append(element("span"), element("i", "", "mix"));
    pod.row.addEventListener("click", () => show(pod.key));
  }
  pod.row.className = `${pod.tx === null ? "stale" : ""} ${pod.key === view.open ? "open" : ""}`;
  [pod.name, pod.ns, pod.place].forEach((text, at) => write(pod.cells[0].children[at], text));
  pod.cells[0].title = pod.key;
  COLUMNS.forEach(([field], at) => {
    if (at > 0) write(at === 3 ? pod.cells[3].firstChild : pod.cells[at], TEXT.includes(field) ? pod[field] || "–" : bytes(pod[field]));
    if (at > 2) pod.cells[at].classList.toggle("zero", !pod[field]);
  });
  mix(pod.cells[3].lastChild, pod, (100 * (pod.rate || 0)) / most);
  return pod.row;
}

// Nothing jumps under a pointer or a focus: there the order holds.
function ordered() {
  const shown = [...pods.values()].filter((pod) => view.filter.every((word) => (word[0] === "-" && word[1]
    ? !pod.text.includes(word.slice(1)) : pod.text.includes(word))));
  shown.sort((a, b) => (TEXT.includes(view.sort) ? a[view.sort].localeCompare(b[view.sort])
    : (b[view.sort] ?? -1) - (a[view.sort] ?? -1)) || b.total - a.total || a.id - b.id);
  view.held = !view.anew && $("rows").matches(":hover, :focus-within");
  view.anew = false;
  if (view.held) {
    const place = new Map(view.order.map((pod, at) => [pod, at]));
    shown.sort((a, b) => (place.get(a) ?? 1e9) - (place.get(b) ?? 1e9));
  }
  view.order = shown;
  return shown;
}

function draw() {
  const shown = ordered();
  const most = Math.max(1, ...shown.map((pod) => pod.rate || 0));
  const body = $("rows");
  const visible = shown.slice(0, MOST_ROWS);
  const wanted = new Set(visible);
  for (const pod of pods.values()) if (pod.row && !wanted.has(pod)) pod.row.remove();
  visible.forEach((pod, at) => {
    const made = row(pod, most);
    if (body.children[at] !== made) body.insertBefore(made, body.children[at] || null);
  });
  $("empty").hidden = shown.length > 0;
  write($("empty"), pods.size ? "No pod matches the filter." : "No traffic has been seen yet.");
  write($("footer"), `${shown.length} of ${pods.size} pods${shown.length > MOST_ROWS ? `, the first ${MOST_ROWS} shown` : ""}; bytes per second${view.held ? "; order held" : ""}`);
  if (!view.all) return;
  TILES.forEach(([, field], at) => write($("tiles").children[at].lastChild, field ? bytes(view.all[field], "/s") : String(pods.size)));
  const all = mix($("mix"), view.all, 100);
  $("mix").setAttribute("aria-label", MIX.map((name) => `${name} ${Math.round((100 * (view.all[name] || 0)) / all)} %`).join(", "));
  if (!view.live) return;
  const [live, known] = view.message.reporting;
  state(`live, ${live} of ${known} nodes report`, live === known && live ? "live" : "part");
  warn(view.message.problem);
}

function state(text, classes = "") {
  write($("state"), text);
  $("state").className = classes;
}

function warn(text, wait = "") {
  $("banner").hidden = !text;
  write($("why"), text);
  write($("wait"), wait);
}

function head() {
  [...$("head").children].forEach((made, at) => {
    made.ariaSort = COLUMNS[at][0] === view.sort ? (TEXT.includes(view.sort) ? "ascending" : "descending") : null;
  });
}

async function peers() {
  const key = view.open;
  if (!key) return;
  const answer = await fetch(`/traffic/peers?pod=${encodeURIComponent(key)}`).catch(() => null);
  if (!answer?.ok || view.open !== key) return;
  const found = (await answer.json()).peers;
  $("peers").replaceChildren(...found.slice(0, 300).map((peer) => {
    const made = element("tr");
    const name = peer.namespace ? `${peer.namespace}/${peer.name}` : peer.name;
    const who = element("td", name || peer.address || "–");
    const service = [peer.protocol, peer.port || ""].join(" ").trim();
    who.append(element("small", name ? peer.address : ""), element("small", service, "mid"));
    const why = element("td", peer.scope);
    why.append(element("small", peer.rule + (peer.via && `, via ${peer.via}`)));
    made.append(who, element("td", service || "–", "mid"), why,
      element("td", bytes(peer.transmitBytes), "n"), element("td", bytes(peer.receivedBytes), "n"));
    return made;
  }));
  write($("more"), found.length > 300 ? `and ${found.length - 300} more` : found.length ? "" : "Nobody yet.");
}

function show(key) {
  const before = view.open;
  view.open = key;
  $("drawer").hidden = !key;
  draw();
  const pod = [...pods.values()].find((one) => one.key === (key || before));
  if (!key) return pod?.row?.querySelector("button").focus();
  write($("who"), key);
  write($("about"), [pod?.ip, pod?.iface, pod?.place, `${pod?.coverage} coverage`, `${bytes(pod?.total)} since the session began`].filter(Boolean).join(" · "));
  $("peers").replaceChildren();
  write($("more"), "");
  $("who").focus();
  return peers();
}

let attempt = 0;
function connect() {
  const resume = view.message ? `&resume=${view.message.epoch}:${view.message.seq}` : "";
  const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/traffic/ws?v=1${resume}`);
  let patience = 0;
  socket.onopen = () => {
    state("connected, no totals yet");
    patience = setTimeout(async () => warn((await (await fetch("/readyz")).json()).detail || ""), 1500);
  };
  socket.onmessage = (event) => {
    clearTimeout(patience);
    const message = JSON.parse(event.data);
    attempt = 0;
    view.live = true;
    document.body.classList.remove("stale");
    socket.send(JSON.stringify(take(message) ? { ack: message.seq } : { ack: message.seq, snapshot: true }));
    draw();
  };
  socket.onclose = (event) => {
    clearTimeout(patience);
    view.live = false;
    document.body.classList.add("stale");
    state("not connected");
    if (event.code === 4001) return warn(`${event.reason}: reload this page.`);
    return retry(Math.min(10, 2 ** attempt++), event.reason);
  };
}

function retry(seconds, reason) {
  warn(`Not connected${reason ? ` (${reason})` : ""}: what you see is old.`, `Next attempt in ${seconds} s.`);
  if (seconds > 0) setTimeout(retry, 1000, seconds - 1, reason);
  else connect();
}

$("filter").addEventListener("input", (event) => { view.filter = event.target.value.toLowerCase().split(/\s+/).filter(Boolean); view.anew = true; draw(); });
$("close").addEventListener("click", () => show(null));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && view.open) show(null);
  if (event.key === "/" && event.target.tagName !== "INPUT") { event.preventDefault(); $("filter").focus(); }
});
$("tiles").append(...TILES.map(([title, field]) => {
  const tile = element("div", "", field && field !== "rate" ? "" : "plain");
  tile.style.setProperty("--c", `var(--${(field || "").split("_")[0]})`);
  tile.append(element("dt", title), element("dd", "–"));
  return tile;
}));
$("head").append(...COLUMNS.map(([field, title, classes, spoken]) => {
  const made = Object.assign(element("th", "", classes), { scope: "col" });
  made.append(Object.assign(element("button", title), { type: "button", ariaLabel: spoken ?? null }));
  made.firstChild.addEventListener("click", () => { Object.assign(view, { sort: field, anew: true }); head(); draw(); });
  return made;
}));
head();
connect();
setInterval(peers, 2000);
