"use strict";
// The rows as the last message left them; names are data and only ever become text nodes.
const pods = new Map();
const view = { sort: "rate", filter: "", open: null, epoch: null, seq: null, tot: null, columns: [], live: false };
const $ = (id) => document.getElementById(id);
const COLUMNS = [
  ["name", "Pod", ""], ["node", "Node / zone", "wide"], ["rate", "Total", "n"], ["local", "Local", "n"],
  ["cross", "Cross", "n wide"], ["private", "Private", "n wide"], ["internet_tx", "Internet up", "n"],
  ["internet_rx", "Internet down", "n"], ["other", "Other", "n wide"], ["total", "Since start", "n wide"],
];
const TILES = [["Throughput", (t) => t.tx + t.rx, "--fg"], ["Local", (t) => t.local, "--local"], ["Cross", (t) => t.cross, "--cross"],
  ["Private", (t) => t.private, "--private"], ["Internet up", (t) => t.internet_tx, "--internet"],
  ["Internet down", (t) => t.internet_rx, "--internet"], ["Other", (t) => t.other, "--other"]];

function bytes(n, suffix = "/s") {
  if (n === null || n === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (n >= 999.5 && at < units.length - 1) { n /= 1000; at += 1; }
  return `${n >= 99.95 || at === 0 ? n.toFixed(0) : n.toFixed(1)} ${units[at]}${suffix}`;
}

function element(name, text, classes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function named(columns, values) {
  return Object.fromEntries(columns.map((name, at) => [name, values[at]]));
}

function take(message) {
  if (message.t === "snapshot") {
    pods.clear();
    view.columns = message.columns;
    view.fields = message.fields;
    for (const record of message.pods) pods.set(record[0], named(message.fields, record));
    message.pods.forEach((record, at) => Object.assign(pods.get(record[0]), numbers(message.numbers, at)));
  } else if (message.t === "delta") {
    if (message.base !== view.seq || message.epoch !== view.epoch) return false;
    for (const id of message.gone) pods.delete(id);
    for (const record of message.add) pods.set(record[0], Object.assign(pods.get(record[0]) || {}, named(view.fields, record)));
    message.i.forEach((id, at) => pods.has(id) && Object.assign(pods.get(id), numbers(message.numbers, at)));
  } else return true;
  Object.assign(view, { epoch: message.epoch, seq: message.seq, reporting: message.reporting, problem: message.problem });
  view.tot = named(view.columns, message.tot);
  return true;
}

function numbers(columns, at) {
  const row = named(view.columns, columns.map((column) => column[at]));
  row.rate = row.tx === null ? null : row.tx + row.rx;
  return row;
}

function matches(pod) {
  const text = `${pod.ns}/${pod.name} ${pod.node} ${pod.zone} ${pod.ip} ${pod.iface}`.toLowerCase();
  return view.filter.split(/\s+/).every((word) => text.includes(word));
}

function cell(pod, [field, , classes], most) {
  if (field === "name") {
    const made = element("td");
    const button = element("button", pod.name);
    button.type = "button";
    button.dataset.pod = `${pod.ns}/${pod.name}`;
    made.append(button, element("small", pod.ns));
    return made;
  }
  if (field === "node") return element("td", [pod.node, pod.zone].filter(Boolean).join(" / ") || "–", classes);
  const value = pod[field];
  const made = element("td", field === "total" ? bytes(value, "") : bytes(value), classes + (value ? "" : " zero"));
  if (field === "rate" && value) {
    made.classList.add("bar");
    made.style.setProperty("--share", `${(100 * value) / most}%`);
  }
  return made;
}

function draw() {
  const text = ["name", "node"].includes(view.sort);
  const shown = [...pods.values()].filter(matches).sort((a, b) => text
    ? String(a[view.sort]).localeCompare(String(b[view.sort]))
    : (b[view.sort] ?? -1) - (a[view.sort] ?? -1) || b.total - a.total || a.id - b.id);
  const most = Math.max(1, ...shown.map((pod) => pod.rate || 0));
  const focused = document.activeElement?.dataset?.pod;
  $("rows").replaceChildren(...shown.slice(0, 500).map((pod) => {
    const row = element("tr", undefined, pod.tx === null ? "stale" : "");
    row.append(...COLUMNS.map((column) => cell(pod, column, most)));
    return row;
  }));
  if (focused) [...$("rows").querySelectorAll("button")].find((one) => one.dataset.pod === focused)?.focus();
  $("empty").hidden = shown.length > 0;
  $("empty").textContent = pods.size ? "No pod matches the filter." : "No traffic has been seen yet.";
  $("footer").textContent = `${shown.length} of ${pods.size} pods${shown.length > 500 ? ", the first 500 shown" : ""}`;
  if (view.tot) $("tiles").replaceChildren(...TILES.map(([name, value, colour]) => {
    const tile = element("li");
    tile.style.setProperty("--c", `var(${colour})`);
    tile.append(element("b", bytes(value(view.tot))), element("span", name));
    return tile;
  }));
  if (view.live) $("state").textContent = `live, ${view.reporting[0]} of ${view.reporting[1]} nodes report`;
  $("banner").hidden = view.live && !view.problem;
  if (view.live) $("banner").textContent = view.problem;
}

function head() {
  $("head").replaceChildren(...COLUMNS.map(([field, title, classes]) => {
    const made = element("th", undefined, classes);
    made.scope = "col";
    if (field === view.sort) made.setAttribute("aria-sort", ["name", "node"].includes(field) ? "ascending" : "descending");
    const button = element("button", title);
    button.type = "button";
    button.addEventListener("click", () => { view.sort = field; head(); draw(); });
    made.append(button);
    return made;
  }));
}

async function peers() {
  if (!view.open) return;
  const answer = await fetch(`/traffic/peers?pod=${encodeURIComponent(view.open)}`).catch(() => null);
  if (!answer?.ok || $("drawer").hidden) return;
  const found = await answer.json();
  $("peers").replaceChildren(...found.peers.slice(0, 300).map((peer) => {
    const row = element("tr");
    const name = peer.namespace ? `${peer.namespace}/${peer.name}` : peer.name;
    const who = element("td", name || peer.address || "–");
    if (name && peer.address) who.append(element("small", peer.address));
    row.append(who, element("td", peer.port ? `${peer.protocol} ${peer.port}` : peer.protocol || "–"),
      element("td", peer.rule ? `${peer.scope}: ${peer.rule}` : peer.scope),
      element("td", bytes(peer.transmitBytes, ""), "n"), element("td", bytes(peer.receivedBytes, ""), "n"));
    return row;
  }));
}

function open(key) {
  view.open = key;
  $("drawer").hidden = !key;
  if (!key) return;
  const pod = [...pods.values()].find((one) => `${one.ns}/${one.name}` === key);
  $("who").textContent = key;
  $("about").textContent = pod ? [pod.ip, pod.iface, pod.node, pod.zone, `${pod.coverage} coverage`].filter(Boolean).join(" · ") : "";
  $("peers").replaceChildren();
  $("close").focus();
  peers();
}

let attempt = 0;
function connect() {
  const resume = view.epoch === null ? "" : `&resume=${view.epoch}:${view.seq}`;
  const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/traffic/ws?v=1${resume}`);
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    view.live = true;
    attempt = 0;
    socket.send(JSON.stringify(take(message) ? { ack: message.seq } : { ack: message.seq, snapshot: true }));
    document.body.classList.remove("stale");
    draw();
  };
  socket.onclose = () => {
    view.live = false;
    document.body.classList.add("stale");
    attempt += 1;
    retry(Math.min(10, 2 ** (attempt - 1)));
  };
}

function retry(seconds) {
  $("state").textContent = "not connected";
  $("banner").hidden = false;
  $("banner").textContent = `The connection is lost; what you see is old. Next attempt in ${seconds} s.`;
  if (seconds > 0) setTimeout(retry, 1000, seconds - 1);
  else connect();
}

$("filter").addEventListener("input", (event) => { view.filter = event.target.value.trim().toLowerCase(); draw(); });
$("rows").addEventListener("click", (event) => {
  const button = event.target.closest("tr")?.querySelector("button");
  if (button) open(button.dataset.pod);
});
$("close").addEventListener("click", () => open(null));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") open(null);
  if (event.key === "/" && event.target.tagName !== "INPUT") { event.preventDefault(); $("filter").focus(); }
});
head();
connect();
setInterval(peers, 2000);
