// The peer `ws`, on Node.js: as process.py, in both roles.
"use strict";

const fs = require("fs");
const https = require("https");
const readline = require("readline");
const { WebSocket, WebSocketServer } = require("ws");

const SUBPROTOCOL = "second";
const LARGEST = 2 ** 25;
const setup = JSON.parse(process.argv[2]);
const pem = fs.readFileSync(setup.certificate);
const authority = fs.readFileSync(setup.authority);

const tell = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const camelCase = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

function deflateOptions(name) {
  const parameters = setup.deflate[name];
  if (parameters === null) return false;
  const renamed = Object.entries(parameters).map(([key, value]) => [camelCase(key), value]);
  return { threshold: 0, ...Object.fromEntries(renamed) };
}

function run(ws, action) {
  const [name, ...args] = action.split("?")[0].split("/").map(decodeURIComponent);
  let error = null;
  let received = 0;
  const actions = {
    echo() {
      ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
    },
    flood() {
      ws.on("message", (data) => {
        if (data.toString() !== String(received)) error ??= `${data} came in place of ${received}`;
        received += 1;
      });
      for (let number = 0; number < Number(args[0]); number += 1) ws.send(String(number));
    },
    fragments() {
      for (const fragments of JSON.parse(args[0])) {
        for (const binary of [false, true]) {
          fragments.forEach((one, index) => ws.send(one, { binary, fin: index === fragments.length - 1 }));
        }
      }
    },
    ping() {
      ws.on("pong", (data) => ws.send(data.toString() === args[0] ? "ponged" : `pong of ${data}`));
      ws.ping(args[0]);
    },
    close() {
      ws.close(Number(args[0]), args[1]);
    },
    abort() {
      ws.terminate();
    },
  };
  ws.on("error", (reason) => { error ??= String(reason); });
  ws.on("close", (code, reason) => {
    if (name === "flood" && received !== Number(args[0])) error ??= `${received} messages came`;
    tell({ action, close: [code, reason.toString()], subprotocol: ws.protocol || null, error });
  });
  actions[name]();
}

function serve(name, secure) {
  const options = {
    maxPayload: LARGEST,
    perMessageDeflate: deflateOptions(name),
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  };
  const server = secure
    ? new WebSocketServer({ ...options, server: https.createServer({ cert: pem, key: pem }).listen(0, "127.0.0.1") })
    : new WebSocketServer({ ...options, host: "127.0.0.1", port: 0 });
  server.on("connection", (ws, request) => run(ws, request.url.slice(1)));
  return new Promise((resolve) => server.on("listening", () => resolve(server.address().port)));
}

async function main() {
  const ports = {};
  for (const name of Object.keys(setup.deflate)) ports[name] = [await serve(name, false), await serve(name, true)];
  tell(ports);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    const perMessageDeflate = deflateOptions(job.deflate);
    const ws = new WebSocket(job.url, job.subprotocols, { ca: authority, maxPayload: LARGEST, perMessageDeflate });
    ws.on("open", () => run(ws, job.action));
  }
  process.exit();
}

main();
