// The page: one connection to the run, its messages to picture, strip, figures and words, and the
// wishes of whoever looks. Names from the run are set as text, never as markup.

import { Stage, readMap } from "./stage.js";
import { Strip } from "./strip.js";
import { Camera } from "./camera.js";
import { Stream } from "./stream.js";

const MAP = 1, PICTURE = 2, LOUDNESS = 3, FEATURES = 4;
const MAPS_KEPT = 64;
const AGAIN_MS = [250, 500, 1000, 2000];

const $ = (id) => document.getElementById(id);
const stage = new Stage($("picture"));
const strip = new Strip($("strip"));
const maps = new Map(), pictures = new Map();
const camera = new Camera(send);
const stream = new Stream(send, streamed, (sequence) => send({ drawn: sequence }), () => {
  $("way").value = "jpeg";
  $("answer").textContent = "WebRTC does not come about here; single pictures it is.";
});
let socket = null, attempts = 0, paused = false, heads = [], tiles = null, described = "", describedAt = 0;

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/live`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    link("Live", false);
    attempts = 0;
    setWay($("way").value);
    setView($("view").value);
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? told(JSON.parse(data)) : came(data));
  socket.onclose = () => {
    maps.clear();
    pictures.clear();
    camera.ended("The connection is lost.");
    stream.end();
    link("The connection is lost; trying again …", true);
    setTimeout(connect, AGAIN_MS[Math.min(attempts++, AGAIN_MS.length - 1)]);
  };
}

function send(wish) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
}

function link(words, bad) {
  $("link").textContent = words;
  $("link").classList.toggle("bad", bad);
}

// --- what comes ---

function told({ about, state, refused, answer, camera: accepted, ended,
  picture, origin }) {
  if (about) introduce(about);
  if (accepted) camera.accepted(accepted);
  if (ended) camera.ended(ended);
  if (picture !== undefined) stream.accepted(picture);
  if (origin !== undefined) stream.origin = origin;
  if (state) report(state);
  if (refused || answer) $("answer").textContent = refused ?? answer;
}

function introduce(about) {
  heads = about.heads;
  tiles = about.tiles;
  $("model").textContent = [`Model ${about.model}.`, about.note].join(" ").trim();
  stage.setHeads(heads);
  strip.setHeads(heads);
  $("record").disabled = !about.control;
  $("record").title = about.control ? "" : "viewers may not change this run";
  const features = $("view").querySelector("[value=features]");
  features.disabled = !about.features;
  features.textContent = about.features ? "dense features" : "dense features (not in this run)";
  camera.wanted(about.camera);
  $("room").hidden = !about.control;
  $("thresholds").replaceChildren(...heads.map(thresholdRow));
  $("heads").replaceChildren(...heads.map(headRow));
}

function headRow({ name, colour }, k) {
  const row = document.createElement("label");
  row.className = "head";
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.style.accentColor = colour;
  box.addEventListener("change", () => { stage.on[k] = box.checked; redraw(); });
  const words = document.createElement("span");
  words.textContent = name;
  const level = document.createElement("span");
  level.className = "level";
  level.setAttribute("role", "meter");
  level.setAttribute("aria-label", `level of ${name}`);
  level.setAttribute("aria-valuemin", "0");
  level.setAttribute("aria-valuemax", "100");
  level.setAttribute("aria-valuenow", "0");
  const bar = document.createElement("span");
  bar.style.background = colour;
  level.append(bar);
  row.append(box, words, level);
  return row;
}

function report(state) {
  const { rows, fault, viewers, viewer_ms: viewerMs, passed_over: passedOver, recording } = state;
  showSources(state.sources ?? []);
  if (state.tuning) showTuning(state.tuning);
  const here = viewerMs ? `${viewerMs[0]} ms, p95 ${viewerMs[1]} ms` : "-";
  const all = [...rows, ["to this screen", here], ["passed over", String(passedOver)],
    ["viewers", String(viewers)]];
  $("figures").replaceChildren(...all.flatMap(([label, value]) => {
    const term = document.createElement("dt"), words = document.createElement("dd");
    term.textContent = label;
    words.textContent = value;
    return [term, words];
  }));
  $("fault").hidden = !fault;
  $("fault").textContent = fault ?? "";
  $("record").setAttribute("aria-pressed", String(Boolean(recording)));
  $("record").textContent = recording ? "End recording" : "Record";
}

function showSources(sources) {
  $("all-sources").hidden = !sources.length;
  $("sources").replaceChildren(...sources.map(({ kind, words, state }) => {
    const item = document.createElement("li");
    item.textContent = `${kind}: ${words}`;
    item.classList.toggle("ill", !["opening", "running"].includes(state));
    return item;
  }));
}

/** A row with a number for each head's threshold, where viewers may set them. */
function thresholdRow({ name }) {
  const row = document.createElement("label");
  row.className = "row";
  const words = document.createElement("span");
  words.textContent = `${name} from`;
  const input = document.createElement("input");
  input.type = "number";
  input.step = "0.1";
  input.addEventListener("change", () =>
    send({ threshold: { head: name, heat: input.valueAsNumber } }));
  row.append(words, input);
  return row;
}

function showTuning({ floor_dbfs: floor, thresholds, learning, room }) {
  const inputs = [...$("thresholds").querySelectorAll("input"), $("floor")];
  [...thresholds, floor].forEach((value, i) => {
    if (inputs[i] && document.activeElement !== inputs[i]) inputs[i].value = value;
  });
  $("learn").disabled = learning;
  $("learned").textContent = learning ? "Learning: keep quiet …" : room;
}

function came(buffer) {
  switch (new DataView(buffer).getUint8(0)) {
    case MAP: {
      const map = readMap(buffer);
      if (stream.isOn) stream.keep(map);
      if (stream.isOn && stream.origin === null) send({ drawn: map.sequence }); // not to be drawn
      maps.set(map.sequence, map);
      for (const each of maps.keys()) if (each < map.sequence - MAPS_KEPT) maps.delete(each);
      meet(map.sequence);
      break;
    }
    case PICTURE: {
      const sequence = new DataView(buffer).getUint32(4, true);
      createImageBitmap(new Blob([buffer.slice(8)], { type: "image/jpeg" })).then((picture) => {
        pictures.set(sequence, picture);
        meet(sequence);
      });
      break;
    }
    case FEATURES:
      stage.setFeatures(buffer);
      break;
    case LOUDNESS:
      strip.hear(buffer);
  }
}

/** Draw a picture with its own map, once both are here. */
function meet(sequence) {
  const picture = pictures.get(sequence), map = maps.get(sequence);
  if (!picture || !map) return;
  for (const kept of [pictures, maps]) {
    for (const each of kept.keys()) if (each <= sequence) kept.delete(each);
  }
  if (document.hidden) {
    picture.close();
    waiting = sequence;
    return; // what is not drawn is not acknowledged, and so nothing more comes
  }
  if (paused) picture.close();
  else draw(picture, map);
  send({ drawn: sequence });
}
let waiting = null;

/** Draw a picture of the stream with its map. */
function streamed(video, map) {
  if (!paused) draw(video, map);
  send({ drawn: map.sequence });
}

function draw(picture, map) {
  stage.show(picture, map);
  const levels = heads.map((_, k) => stage.peak(k).strength);
  strip.level(map.captureS, levels);
  document.querySelectorAll(".level").forEach((level, k) => {
    const percent = Math.round(100 * (stage.on[k] ? levels[k] : 0));
    level.setAttribute("aria-valuenow", String(percent));
    level.firstChild.style.width = `${percent}%`;
  });
  describe();
  readOut();
}

function redraw() {
  if (stage.map) stage.draw();
}

// --- words ---

function describe() {
  const now = performance.now();
  if (now - describedAt < 1500) return;
  const words = heads.map(({ name }, k) => {
    const { strength, x, y } = stage.peak(k);
    return strength > 0.25 ? `${name}: ${placeOf(x, y)}` : `${name}: none`;
  }).join(", ");
  if (words !== described) {
    described = words;
    describedAt = now;
    $("described").textContent = words;
  }
}

/** Which camera's tile a place lies in, where there are several, and where in it, in parts. */
function tileAt(x, y) {
  if (!tiles) return { name: "", x, y, columns: 1, rows: 1 };
  const { columns, names } = tiles, rows = Math.ceil(names.length / columns);
  const column = Math.min(columns - 1, Math.floor(x * columns));
  const row = Math.min(rows - 1, Math.floor(y * rows));
  const name = names[row * columns + column] ?? "";
  return { name, x: x * columns - column, y: y * rows - row, columns, rows };
}

function placeOf(x, y) {
  const tile = tileAt(x, y);
  return [place(tile.x, tile.y), tile.name].filter(Boolean).join(" of ");
}

function place(x, y) {
  const row = y < 1 / 3 ? "top" : y > 2 / 3 ? "bottom" : "";
  const column = x < 1 / 3 ? "left" : x > 2 / 3 ? "right" : "";
  return `${row} ${column}`.trim() || "middle";
}

function readOut() {
  if (!stage.point || !stage.map) {
    $("readout").textContent = "";
    return;
  }
  const scores = stage.read(stage.point), tile = tileAt(stage.point.x, stage.point.y);
  const x = Math.floor(tile.x * stage.width / tile.columns);
  const y = Math.floor(tile.y * stage.height / tile.rows);
  const words = scores.map(({ score, valid }, k) =>
    `${heads[k].name} ${valid && Number.isFinite(score) ? score.toFixed(2) : "silent"}`);
  const where = [`at ${x}, ${y}`, tile.name].filter(Boolean).join(" of ");
  $("readout").textContent = `${words.join("  ")}  ${where}`;
}

// --- wishes ---

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
}

function savePicture() {
  if (!stage.map) return;
  stage.canvas.toBlob((blob) => {
    const link_ = document.createElement("a");
    link_.href = URL.createObjectURL(blob);
    link_.download = `denseav-${new Date().toISOString().replace(/[:.]/g, "-")}.png`;
    link_.click();
    setTimeout(() => URL.revokeObjectURL(link_.href), 10_000);
    $("answer").textContent = `Saved as ${link_.download}`;
  }, "image/png");
}

function setOpacity(percent) {
  $("opacity").value = percent;
  stage.opacity = Number($("opacity").value) / 100;
  redraw();
}

function setView(view) {
  $("view").value = stage.view = view;
  send({ features: view === "features" });
  redraw();
}

/** Single pictures are sharpest and soonest on this machine; a network is spared by a stream. */
function setWay(way) {
  $("way").value = way;
  if (way === "stream" && !stream.isOn) stream.begin();
  else if (way !== "stream") stream.end();
}

function nextView() {
  const views = Array.from($("view").options).filter((each) => !each.disabled)
    .map(({ value }) => value);
  setView(views[(views.indexOf(stage.view) + 1) % views.length]);
}

const KEYS = {
  " ": pause,
  s: savePicture,
  v: nextView,
  r: () => $("record").disabled || send({ do: "record" }),
  "+": () => setOpacity(Number($("opacity").value) + 10),
  "-": () => setOpacity(Number($("opacity").value) - 10),
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, button, summary, a")) return;
  if (event.target === stage.canvas && ARROWS[event.key] && stage.map) {
    const [dx, dy] = ARROWS[event.key], from = stage.point ?? { x: 0.5, y: 0.5 };
    const within = (value) => Math.min(0.999, Math.max(0, value));
    stage.point = { x: within(from.x + dx / stage.map.width), y: within(from.y + dy / stage.map.height) };
    readOut();
    event.preventDefault();
  } else if (KEYS[event.key]) {
    KEYS[event.key]();
    event.preventDefault();
  } else if (/^[1-9]$/.test(event.key)) {
    $("heads").querySelectorAll("input")[Number(event.key) - 1]?.click();
  }
});
$("pause").addEventListener("click", pause);
$("snapshot").addEventListener("click", savePicture);
$("record").addEventListener("click", () => send({ do: "record" }));
$("learn").addEventListener("click", () => send({ do: "learn" }));
$("reset").addEventListener("click", () => send({ do: "reset" }));
$("floor").addEventListener("change", () => send({ floor_dbfs: $("floor").valueAsNumber }));
$("opacity").addEventListener("input", () => setOpacity($("opacity").value));
$("way").addEventListener("change", () => setWay($("way").value));
if (!["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) $("way").value = "stream";
$("view").addEventListener("change", () => setView($("view").value));
for (const kind of ["pointermove", "pointerdown"]) {
  stage.canvas.addEventListener(kind, ({ clientX, clientY }) => {
    stage.point = stage.partOf(clientX, clientY);
    readOut();
  });
}
stage.canvas.addEventListener("pointerleave", () => { stage.point = null; readOut(); });
addEventListener("resize", redraw);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && waiting !== null) {
    send({ drawn: waiting });
    waiting = null;
  }
});

// The token has become a cookie: it need not stay in the address bar or the history.
if (location.search) history.replaceState(null, "", location.pathname);
connect();
