// The page of `trio-pyjo-ws demo --web`. Whatever comes from others goes into the page as text, never as HTML.

const MAX_FRAMES = 100, MAX_SAID = 200, MAX_SAMPLES = 60;
const FIRST_WAIT = 500, LONGEST_WAIT = 10_000; // milliseconds until the next attempt to connect

const find = (id) => document.getElementById(id);
const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
};
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

let socket = null;
let own = null; // this person's number, in the server's count
let joined = false; // whether there has been a connection before
let attempts = 0;
let timer = 0;
const seen = new Set();
let lastWho = "";
let samples = [];
let paused = false;

// The connection

function connect() {
  clearTimeout(timer);
  find("reconnect").hidden = true;
  tellStatus("waiting", "Connecting …");
  const url = new URL("socket", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.onopen = () => join();
  socket.onmessage = ({ data }) => take(JSON.parse(data));
  socket.onclose = ({ code, reason }) => lost(code, reason);
}

function lost(code, reason) {
  const why = `${code}${reason ? `, ${reason}` : ""}`;
  if (own !== null) addEvent(`Connection lost (${why}).`);
  own = null;
  showPeople([]);
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempts++) * (0.5 + Math.random() / 2);
  tellStatus("closed", `Disconnected (${why}). Trying again …`);
  find("reconnect").hidden = false;
  timer = setTimeout(connect, wait);
}

function send(message) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

function tellStatus(state, text) {
  find("status").dataset.state = state;
  find("status").textContent = text;
}

// What the server sends

const receivers = {
  welcome({ number, history, extensions }) {
    own = number;
    attempts = 0;
    if (joined) addEvent("Connected again.");
    joined = true;
    tellStatus("open", "Connected");
    find("extensions").textContent = extensions
      ? `Agreed on: ${extensions}. RSV1 marks a compressed message.` : "Sent without compression.";
    history.forEach((said) => addSaid(said));
  },
  people({ people }) { showPeople(people); },
  said(said) { addSaid(said); },
  frame(frame) { if (!paused) addFrame(frame); },
  latency({ milliseconds }) { addSample(milliseconds); },
};

function take(message) {
  receivers[message.type]?.(message);
}

// The room

function addSaid({ key, number, name, text, time }) {
  if (seen.has(key)) return;
  seen.add(key);
  const isOwn = number === own;
  const who = `${number} ${name} ${Math.floor(time / 120_000)}`;
  const item = element("li", "", `${isOwn ? "own" : ""} ${who === lastWho ? "again" : ""}`);
  const head = element("div", "", "who");
  head.append(element("b", isOwn ? "You" : name), element("time", clock(time).slice(0, 5)));
  item.append(head, element("div", text, "text"));
  addToLog(item);
  lastWho = who;
}

function addEvent(text) {
  addToLog(element("li", text, "event"));
  lastWho = "";
}

function addToLog(item) {
  const log = find("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const said = find("said");
  said.append(item);
  while (said.children.length > MAX_SAID) said.firstChild.remove();
  if (atEnd || item.classList.contains("own")) log.scrollTop = log.scrollHeight;
}

function showPeople(people) {
  find("count").textContent = people.length;
  find("people").replaceChildren(...people.map(({ number, name }) => {
    const item = element("li");
    const face = element("span", [...name][0].toUpperCase(), `face ${"abcdef"[number % 6]}`);
    face.ariaHidden = "true";
    item.append(face, element("span", name));
    if (number === own) item.append(element("small", "you"));
    return item;
  }));
}

function join() {
  send({ type: "join", name: find("name").value });
}

// The connection, looked into

function addFrame({ direction, bits, opcode, size, payload }) {
  const row = element("tr", "", ["ping", "pong", "close"].includes(opcode) ? "control" : "");
  const cells = [
    [clock(Date.now())], [direction === "sent" ? "server" : "browser", direction], [opcode], [`${bits[0]}   ${bits.slice(1).join("")}`],
    [size.toLocaleString(), "number"], [payload],
  ];
  row.append(...cells.map(([text, className]) => element("td", text, className)));
  const frames = find("frames");
  frames.prepend(row);
  while (frames.children.length > MAX_FRAMES) frames.lastChild.remove();
}

function addSample(milliseconds) {
  samples = [...samples, milliseconds].slice(-MAX_SAMPLES);
  const top = Math.max(...samples) * 1.15;
  const step = 300 / (MAX_SAMPLES - 1);
  const points = samples.map((sample, index) => `${(index * step).toFixed(1)} ${(88 - (86 * sample) / top).toFixed(1)}`);
  const end = ((samples.length - 1) * step).toFixed(1);
  find("line").setAttribute("d", `M${points.join("L")}`);
  find("area").setAttribute("d", `M0 88L${points.join("L")}L${end} 88Z`);
  const show = (value) => `${value < 10 ? value.toFixed(2) : Math.round(value)} ms`;
  find("top").textContent = top < 10 ? top.toFixed(1) : Math.round(top);
  find("now").textContent = show(milliseconds);
  find("range").textContent = samples.length === 1 ? "One ping of the server so far."
    : `${show(Math.min(...samples))} to ${show(Math.max(...samples))} in the last ${samples.length} pings of the server.`;
}

// What is typed and pressed

find("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text");
  if (!text.value.trim()) return;
  if (send({ type: "say", text: text.value })) text.value = "";
  else addEvent("Not sent: there is no connection.");
  text.focus();
});
find("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find("say").requestSubmit();
});
find("join").addEventListener("submit", (event) => {
  event.preventDefault();
  remember("name", find("name").value);
  join();
  find("text").focus();
});
find("pause").addEventListener("click", ({ currentTarget }) => {
  paused = !paused;
  currentTarget.ariaPressed = String(paused);
});
find("reconnect").addEventListener("click", () => { connect(); find("text").focus(); });
addEventListener("online", () => { if (own === null) connect(); });

function remember(key, value) {
  try { sessionStorage.setItem(key, value); } catch { /* Not allowed here: then it lasts as long as the page. */ }
}

function remembered(key) {
  try { return sessionStorage.getItem(key); } catch { return null; }
}

const NAMES = ["Ada", "Blaise", "Charles", "Dorothy", "Edsger", "Frances", "Grace", "Hedy", "Katherine", "Radia"];
find("name").value = remembered("name") ?? NAMES[Math.floor(Math.random() * NAMES.length)];
remember("name", find("name").value);
if (matchMedia("(pointer: fine)").matches) find("text").focus(); // On a phone it would bring up the keyboard.
connect();
