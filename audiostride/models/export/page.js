"use strict";
/* The page around the classifier: recordings in, spectrogram, scores and events out. */

const $ = id => document.getElementById(id);
const network = JSON.parse($("network").textContent);
const model = makeClassifier(network);
const CHUNK = 8, COLUMNS = 1200, LIVE_S = 600;
const columns = network.tasks.flatMap(task => task.classes.map((label, k) => ({ task, label, index: task.first + k })));
const titled = (task, label) => (network.tasks.length > 1 ? `${task}: ${label}` : label);
let recording = null; // { name, samples, spans, rows, url }
let job = 0; // number of the recording that is being classified; an older one gives up

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

/* Logits of windows of samples, in the order of their spans, by as many workers as there are cores, at most 4. */
const workers = [];
function startWorkers() {
  const source = $("engine").textContent + `
    let model;
    onmessage = ({ data }) => {
      if (data.network) model = makeClassifier(data.network);
      else postMessage({ id: data.id, logits: data.windows.map(samples => model.classify(samples)) });
    };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  for (let i = 0; i < Math.min(4, navigator.hardwareConcurrency || 1); i++) {
    const worker = new Worker(url);
    worker.waiting = new Map();
    worker.onmessage = ({ data }) => { worker.waiting.get(data.id)(data.logits); worker.waiting.delete(data.id); };
    worker.onerror = event => fail(`The classifier stopped: ${event.message}`);
    worker.postMessage({ network });
    workers.push(worker);
  }
}

let asked = 0;
function classifyWindows(windows) {
  if (!workers.length) startWorkers();
  const worker = workers.reduce((best, each) => (each.waiting.size < best.waiting.size ? each : best));
  const id = asked++;
  return new Promise(done => { worker.waiting.set(id, done); worker.postMessage({ id, windows }); });
}

async function classifyRecording(samples, spans, mine) {
  const rows = new Array(spans.length);
  let next = 0, done = 0;
  async function take() {
    while (next < spans.length && mine === job) {
      const first = next;
      next = Math.min(first + CHUNK, spans.length);
      const windows = spans.slice(first, next).map(([start]) => cutWindow(samples, start, network.window_samples));
      (await classifyWindows(windows)).forEach((logits, k) => { rows[first + k] = logits; });
      done += windows.length;
      $("progress").value = done / spans.length;
    }
  }
  if (!workers.length) startWorkers();
  await Promise.all(workers.map(take));
  return mine === job ? rows : null;
}

/* Samples of a file at the model's rate, its channels averaged. */
async function decode(buffer) {
  const context = new OfflineAudioContext(1, 1, network.sample_rate);
  const audio = await context.decodeAudioData(buffer);
  const samples = new Float32Array(audio.length);
  for (let c = 0; c < audio.numberOfChannels; c++)
    audio.getChannelData(c).forEach((value, i) => { samples[i] += value / audio.numberOfChannels; });
  return samples;
}

async function openFiles(files) {
  for (const file of files) {
    fail("");
    let samples;
    try {
      samples = await decode(await file.arrayBuffer());
    } catch (error) {
      fail(`${file.name} cannot be decoded by this browser; save it as WAV, FLAC or MP3 (${error.message || error})`);
      continue;
    }
    if (!samples.length) { fail(`${file.name} has no sound`); continue; }
    await show(file.name, samples, URL.createObjectURL(file));
  }
}

async function show(name, samples, url) {
  const mine = ++job, spans = tile(samples.length, network.window_samples, hopSamples());
  $("progress").hidden = false;
  $("progress").value = 0;
  $("status").textContent = `${name}: ${describeSeconds(samples.length)}, ${spans.length} windows`;
  const begin = performance.now();
  const logits = await classifyRecording(samples, spans, mine);
  if (!logits) return;
  const seconds = (performance.now() - begin) / 1000;
  $("progress").hidden = true;
  const speed = samples.length / network.sample_rate / seconds;
  $("status").textContent += ` in ${seconds.toFixed(1)} s, ${speed.toFixed(speed < 10 ? 1 : 0)} x real time`;
  if (recording && recording.url !== url) URL.revokeObjectURL(recording.url);
  recording = { name, samples, spans, url, rows: logits.map(row => model.scores(row)) };
  $("name").textContent = name;
  $("clip").textContent = describeClip(logits, spans);
  $("sound").src = url;
  $("found").hidden = false;
  drawPlot();
  listEvents();
}

const hopSamples = () => Math.max(1, Math.round(network.window_samples * $("hop").value));
const describeSeconds = n => `${(n / network.sample_rate).toFixed(2)} s`;

/* The classes of the whole recording: logits averaged over windows by how much of each is audio. */
function describeClip(logits, spans) {
  const mean = new Float64Array(columns.length);
  let total = 0;
  logits.forEach((row, i) => {
    const share = spans[i][1] - spans[i][0];
    total += share;
    row.forEach((value, k) => { mean[k] += share * value; });
  });
  const found = model.scores(mean.map(value => value / total));
  return "The whole recording, on average: " + network.tasks.map(task => {
    const own = task.classes.map((label, k) => [found[task.first + k], label]).sort((a, b) => b[0] - a[0]);
    const told = task.several ? own.filter(([score]) => score >= 0.5) : own.slice(0, 1);
    return told.map(([score, label]) => `${titled(task.name, label)} (${score.toFixed(3)})`).join(", ") || `${task.name}: none`;
  }).join("; ");
}

/* Canvases as wide as they are shown, a column for each pixel. */
function addCanvas(title, className = "row") {
  const name = document.createElement("span"), canvas = document.createElement("canvas");
  name.textContent = name.title = title;
  canvas.className = className;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", title);
  canvas.width = COLUMNS;
  canvas.onclick = event => play(event.offsetX / canvas.clientWidth * recording.samples.length / network.sample_rate);
  $("plot").append(name, canvas);
  return canvas;
}

/* From violet to yellow as numbers go from 0 to 1. */
function colour(x) {
  const stops = [[18, 10, 46], [84, 27, 110], [164, 45, 96], [229, 92, 48], [251, 180, 26], [252, 255, 164]];
  const at = Math.min(0.999, Math.max(0, x)) * (stops.length - 1), k = Math.floor(at);
  return stops[k].map((value, c) => value + (at - k) * (stops[k + 1][c] - value));
}

function drawPlot() {
  const { samples, spans, rows } = recording, mels = network.mels, hop = network.frontend.hop_length;
  $("plot").replaceChildren();
  const canvas = addCanvas("Spectrogram, mel scale", "spectrogram");
  const ends = [network.fmax_hz, network.fmin_hz].map(hz => Object.assign(document.createElement("span"), { textContent: `${Math.round(hz)} Hz` }));
  canvas.previousSibling.replaceChildren(...ends);
  canvas.previousSibling.className = "ends";
  canvas.height = mels;
  const nFrames = Math.ceil(samples.length / hop), all = nFrames <= 4 * COLUMNS ? model.logMel(samples) : null;
  const frames = Array.from({ length: COLUMNS }, (_, x) => {
    const frame = Math.min(nFrames - 1, Math.floor((x + 0.5) * nFrames / COLUMNS));
    return all ? all.subarray(frame * mels, (frame + 1) * mels) : model.logMel(samples.subarray(frame * hop, (frame + 1) * hop));
  });
  const sorted = frames.flatMap(frame => [...frame]).sort((a, b) => a - b);
  const low = sorted[Math.floor(0.05 * sorted.length)], high = Math.max(low + 3, sorted[Math.floor(0.998 * sorted.length)]);
  paint(canvas, (x, y) => colour((frames[x][mels - 1 - y] - low) / (high - low)));
  const best = columns.map(({ index }) => Math.max(...rows.map(row => row[index])));
  const shown = columns.map((column, k) => ({ ...column, best: best[k] })).sort((a, b) => b.best - a.best).slice(0, 12);
  for (const { task, label, index } of shown) {
    const row = addCanvas(titled(task.name, label));
    row.height = 1;
    paint(row, x => colour(scoreAt(x, index)));
  }
  const line = Object.assign(document.createElement("i"), { id: "line", hidden: true });
  $("sound").ontimeupdate = () => {
    line.hidden = false;
    line.style.left = `${canvas.offsetLeft + canvas.clientWidth * Math.min(1, $("sound").currentTime * network.sample_rate / samples.length)}px`;
  };
  const none = document.createElement("span"), time = document.createElement("div");
  time.className = "time";
  for (let k = 0; k <= 4; k++) {
    const mark = document.createElement("b");
    mark.textContent = describeSeconds(k * samples.length / 4);
    time.append(mark);
  }
  $("plot").append(none, time, line);
  if (columns.length > shown.length) {
    const more = document.createElement("div");
    more.className = "soft";
    more.textContent = `${columns.length - shown.length} classes that are less probable are not drawn`;
    $("plot").append(document.createElement("span"), more);
  }
  function scoreAt(x, index) { // of the window whose middle lies nearest
    const at = (x + 0.5) * samples.length / COLUMNS;
    const i = Math.round((at - network.window_samples / 2) / Math.max(1, spans.length > 1 ? spans[1][0] : 1));
    return rows[Math.min(rows.length - 1, Math.max(0, i))][index];
  }
}

function paint(canvas, colourAt) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++)
    for (let x = 0; x < canvas.width; x++) image.data.set([...colourAt(x, y), 255], 4 * (y * canvas.width + x));
  context.putImageData(image, 0, 0);
}

function play(second) {
  $("sound").currentTime = second;
  $("sound").play().catch(() => {});
}

function currentEvents() {
  return findEvents(network, recording.spans, recording.rows, Number($("threshold").value), Number($("run").value));
}

function listEvents() {
  $("least").textContent = Number($("threshold").value).toFixed(2);
  if (!recording) return;
  const events = currentEvents();
  $("count").textContent = events.length === 1 ? "1 event" : `${events.length} events`;
  $("events").replaceChildren(...events.slice(0, 2000).map(event => {
    const row = document.createElement("tr"), button = document.createElement("button"), start = event.start / network.sample_rate;
    button.textContent = "▶";
    button.setAttribute("aria-label", `Play from ${start.toFixed(2)} s`);
    button.onclick = () => play(start);
    const cells = [button, start.toFixed(2), (event.end / network.sample_rate).toFixed(2), titled(event.task, event.label), event.score.toFixed(3)];
    row.append(...cells.map((content, k) => {
      const cell = document.createElement("td");
      if (k === 0 || k === 3) cell.className = "left";
      cell.append(content);
      return cell;
    }));
    return row;
  }));
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* The columns that `audiostride predict --format raven` writes. */
function ravenTable() {
  const field = text => String(text).replace(/\s+/g, " "), several = network.tasks.length > 1;
  const head = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Begin File", "File Offset (s)"];
  const lines = currentEvents().map((event, i) => {
    const begin = (event.start / network.sample_rate).toFixed(4), end = (event.end / network.sample_rate).toFixed(4);
    return [i + 1, "Spectrogram 1", 1, begin, end, network.fmin_hz.toFixed(1), network.fmax_hz.toFixed(1), recording.name, begin,
      ...(several ? [event.task] : []), event.label, event.score.toFixed(6)].map(field).join("\t");
  });
  return [[...head, ...(several ? ["Task"] : []), "Label", "Score"].join("\t"), ...lines, ""].join("\n");
}

/* The columns that `audiostride predict --events` writes. */
function csvTable() {
  const field = text => (/[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text), several = network.tasks.length > 1;
  const lines = currentEvents().map(event => [field(recording.name), event.start / network.sample_rate, event.end / network.sample_rate,
    ...(several ? [field(event.task)] : []), field(event.label), event.score].join(","));
  return [["path", "start_s", "end_s", ...(several ? ["task"] : []), "label", "score"].join(","), ...lines, ""].join("\n");
}

/* The microphone: a window every hop, the most probable classes as bars; what was heard is a recording afterwards. */
let stopListening = null;
async function listen() {
  if (stopListening) return stopListening();
  fail("");
  let stream, context;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    context = new AudioContext({ sampleRate: network.sample_rate });
    const source = context.createMediaStreamSource(stream), tap = context.createScriptProcessor(1024, 1, 1);
    const pieces = [];
    let heard = 0, next = 0, recent = new Float32Array(network.window_samples), busy = false;
    tap.onaudioprocess = event => {
      const piece = event.inputBuffer.getChannelData(0).slice();
      recent.copyWithin(0, Math.min(piece.length, recent.length));
      recent.set(piece.subarray(Math.max(0, piece.length - recent.length)), Math.max(0, recent.length - piece.length));
      heard += piece.length;
      if (heard <= LIVE_S * network.sample_rate) pieces.push(piece);
      if (heard >= next && !busy) {
        busy = true;
        next = heard + hopSamples();
        classifyWindows([recent.slice()]).then(([logits]) => { busy = false; drawBars(model.scores(logits), heard); });
      }
    };
    source.connect(tap);
    tap.connect(context.destination);
    $("live").hidden = false;
    $("microphone").textContent = "Stop";
    stopListening = () => {
      stopListening = null;
      stream.getTracks().forEach(track => track.stop());
      context.close();
      $("live").hidden = true;
      $("microphone").textContent = "Listen to the microphone";
      const samples = new Float32Array(pieces.reduce((n, piece) => n + piece.length, 0));
      pieces.reduce((at, piece) => { samples.set(piece, at); return at + piece.length; }, 0);
      if (samples.length) return show("microphone.wav", samples, URL.createObjectURL(new Blob([encodeWav(samples)], { type: "audio/wav" })));
    };
  } catch (error) {
    if (stream) stream.getTracks().forEach(track => track.stop());
    if (context) context.close();
    fail(`The microphone cannot be used: ${error.message || error}`);
  }
}

function drawBars(scores, heard) {
  const top = columns.map(({ task, label, index }) => [scores[index], titled(task.name, label)]).sort((a, b) => b[0] - a[0]).slice(0, 6);
  $("status").textContent = `heard ${describeSeconds(heard)}`;
  $("live").replaceChildren(...top.map(([score, label]) => {
    const row = document.createElement("div"), name = document.createElement("span"), bar = document.createElement("b"), number = document.createElement("span");
    row.className = "bar";
    name.textContent = label;
    bar.style.width = `${100 * score}%`;
    number.textContent = score.toFixed(2);
    row.append(name, bar, number);
    return row;
  }));
}

function encodeWav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length)), rate = network.sample_rate;
  const text = (at, letters) => [...letters].forEach((letter, k) => view.setUint8(at + k, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return view.buffer;
}

/* Whether this browser computes what PyTorch did where the page was made. */
function checkItself() {
  const n = network.window_samples;
  const logits = model.classify(Float32Array.from({ length: n }, (_, i) => 0.3 * Math.sin(Math.PI / 4 * i * i / n)));
  const largest = Math.max(...network.expected.map(Math.abs));
  const difference = Math.max(...network.expected.map((value, k) => Math.abs(value - logits[k])));
  if (!(difference <= 1e-3 * Math.max(1, largest / 100)))
    fail(`This browser does not compute what the classifier does: its logits are off by ${difference.toPrecision(2)}. Do not trust what it says; try another browser.`);
  return difference;
}

$("files").onchange = event => openFiles([...event.target.files]);
$("microphone").onclick = listen;
$("threshold").oninput = $("run").onchange = listEvents;
$("hop").onchange = () => { if (recording) show(recording.name, recording.samples, recording.url); };
$("raven").onclick = () => save(`${recording.name}.selections.txt`, ravenTable());
$("csv").onclick = () => save(`${recording.name}.csv`, csvTable());
for (const kind of ["dragover", "dragleave", "drop"])
  addEventListener(kind, event => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") openFiles([...event.dataTransfer.files]);
  });
checkItself();
