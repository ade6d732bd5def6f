/** Both services as real processes, and a proxy between client and gateway that breaks things. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
const PYTHON = process.env.DUET_TEST_PYTHON ?? "python3";

/** A service that runs; `listening` is the record of its log that says where. */
class Service {
  constructor(module, environment) {
    const inherited = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith("DUET_")),
    );
    this.process = spawn(PYTHON, ["-m", module], {
      cwd: ROOT,
      env: { ...inherited, DUET_LOG_FORMAT: "json", ...environment },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.exited = once(this.process, "exit");
    this.log = [];
    this.listening = new Promise((resolve, reject) => {
      createInterface({ input: this.process.stderr }).on("line", (line) => {
        this.log.push(line);
        if (line.includes('"listening"')) resolve(JSON.parse(line));
      });
      this.exited.then(() => reject(new Error(`${module} ended:\n${this.log.join("\n")}`)));
    });
    this.listening.catch(() => {});
  }

  async end(signal) {
    this.process.kill(signal);
    await this.exited;
  }
}

/** The two services on free ports. `settings` are environment variables of both. */
export class Services {
  static async start(settings = {}) {
    const services = new Services();
    services.folder = await mkdtemp(join(tmpdir(), "duet-"));
    services.settings = {
      DUET_ARGON2_MEMORY_KIB: "8",
      DUET_SIGN_UPS_PER_ADDRESS: "100000",
      DUET_SERVICE_SECRET: "a secret of the tests, at least 32 bytes",
      ...settings,
    };
    services.profile = new Service("profile_service", {
      ...services.settings,
      DUET_DATA_DIR: join(services.folder, "profile"),
      DUET_PROFILE_PORT: "0",
    });
    services.profileUrl = (await services.profile.listening).url;
    services.gatewayPort = 0;
    await services.startGateway();
    return services;
  }

  /** Start the gateway, on the port that it had before. */
  async startGateway() {
    this.gateway = new Service("ws_gateway", {
      ...this.settings,
      DUET_DATA_DIR: join(this.folder, "gateway"),
      DUET_PROFILE_URL: this.profileUrl,
      DUET_GATEWAY_PORT: String(this.gatewayPort),
    });
    this.gatewayPort = Number(new URL((await this.gateway.listening).url).port);
  }

  get gatewayUrl() {
    return `ws://127.0.0.1:${this.gatewayPort}/v1/ws`;
  }

  async killGateway() {
    await this.gateway.end("SIGKILL");
  }

  async stop() {
    await Promise.all([this.gateway.end("SIGKILL"), this.profile.end("SIGKILL")]);
    await rm(this.folder, { recursive: true });
  }
}

/**
 * A TCP proxy that sees the WebSocket frames go by.
 *
 * `fromServer(frame)` and `fromClient(frame)` are asked about each JSON frame and say what becomes of
 * it: `"pass"`, `"drop"`, `"double"`, `"cut"` (the connection, before it) or `"cut_within"` (after
 * half of its bytes).
 */
export class FaultyProxy {
  static async start(port) {
    const proxy = new FaultyProxy();
    proxy.fromServer = proxy.fromClient = () => "pass";
    proxy.sockets = new Set();
    proxy.clients = new Set();
    proxy.server = net.createServer((client) => {
      const server = net.connect(port(), "127.0.0.1");
      for (const socket of [client, server]) {
        proxy.sockets.add(socket);
        socket.on("close", () => proxy.sockets.delete(socket));
        socket.on("error", () => {});
      }
      proxy.clients.add(client);
      client.on("close", () => proxy.clients.delete(client));
      const cut = () => [client, server].forEach((socket) => socket.destroy());
      client.on("close", cut);
      server.on("close", cut);
      relay(client, server, (frame) => proxy.fromClient(frame), cut);
      relay(server, client, (frame) => proxy.fromServer(frame), cut);
    });
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    return proxy;
  }

  get url() {
    return `ws://127.0.0.1:${this.server.address().port}/v1/ws`;
  }

  /** Say something to every client as if the gateway did. */
  inject(frame) {
    const payload = Buffer.from(JSON.stringify(frame));
    for (const client of this.clients) {
      client.write(Buffer.concat([Buffer.from([0x81, payload.length]), payload]));
    }
  }

  /** Break every connection. */
  cut() {
    for (const socket of this.sockets) socket.destroy();
  }

  stop() {
    this.cut();
    this.server.close();
  }
}

function relay(from, to, decide, cut) {
  let waiting = Buffer.alloc(0);
  let isOpen = false;
  from.on("data", (chunk) => {
    waiting = Buffer.concat([waiting, chunk]);
    if (!isOpen) {
      const end = waiting.indexOf("\r\n\r\n");
      if (end < 0) return;
      to.write(waiting.subarray(0, end + 4));
      waiting = waiting.subarray(end + 4);
      isOpen = true;
    }
    for (let size = frameSize(waiting); size !== null; size = frameSize(waiting)) {
      const raw = waiting.subarray(0, size);
      waiting = waiting.subarray(size);
      const frame = content(raw);
      const verdict = frame === null ? "pass" : decide(frame);
      if (verdict === "cut") return cut();
      if (verdict === "cut_within") {
        to.write(raw.subarray(0, size >> 1), cut);
        return;
      }
      if (verdict !== "drop") to.write(raw);
      if (verdict === "double") to.write(raw);
    }
  });
}

function header(bytes) {
  if (bytes.length < 2) return null;
  const short = bytes[1] & 0x7f;
  const lengthEnd = short === 126 ? 4 : short === 127 ? 10 : 2;
  if (bytes.length < lengthEnd) return null;
  const length =
    short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
  const isMasked = (bytes[1] & 0x80) !== 0;
  return { start: lengthEnd + (isMasked ? 4 : 0), length, isMasked };
}

function frameSize(bytes) {
  const head = header(bytes);
  const size = head && head.start + head.length;
  return size !== null && bytes.length >= size ? size : null;
}

/** The JSON of a text frame, or null for any other frame. */
function content(raw) {
  if ((raw[0] & 0x0f) !== 1) return null;
  const { start, isMasked } = header(raw);
  const payload = Buffer.from(raw.subarray(start));
  if (isMasked) {
    const mask = raw.subarray(start - 4, start);
    for (let i = 0; i < payload.length; i++) payload[i] ^= mask[i % 4];
  }
  return JSON.parse(payload.toString());
}
