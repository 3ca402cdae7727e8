// Opens the page for operators as one of them would. `run` beside this file
// starts it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { heard, launch, open } from "./browser.js";

// No broker is there: the page shows connections all the same.
const CONFIG = `
[kafka]
bootstrap_servers = ["127.0.0.1:1"]
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[auth]
mode = "none"
tenant = "acme"
[[channels]]
name = "orders"
topic = "orders"
tenant = "shared"
`;

let server;
let clients;
let operators;
let browser;
let folder;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "brucke-admin-"));
  const config = join(folder, "brucke.toml");
  writeFileSync(config, CONFIG);
  const command = ["serve", "--config", config];
  server = spawn(process.env.BRUCKE, command, { stdio: ["ignore", "pipe", "ignore"] });
  const both = /ws(:\/\/127\.0\.0\.1:\d+\S*?), operators at (http:\/\/127\.0\.0\.1:\d+)/;
  [, clients, operators] = await heard(server, both);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

/** Connects a client; returns its name, and everything that it will be told. */
async function connect(agent) {
  const upgrade = request(`http${clients}`, {
    headers: {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
      "User-Agent": agent,
    },
  });
  upgrade.end();
  const [, socket, head] = await once(upgrade, "upgrade");
  const client = { told: head.toString(), ended: once(socket, "close") };
  socket.on("data", (data) => (client.told += data.toString()));
  while (!client.told.includes('"welcome"')) await once(socket, "data");
  client.name = client.told.match(/"connection":"(\w+)"/)[1];
  return client;
}

test("an operator sees connections, looks at one and sends it away", async (context) => {
  const [client, stays] = [await connect("a-client/1"), await connect("another/2")];
  const page = await open(context, browser, operators);
  const row = page.locator("tr", { hasText: client.name });
  await row.waitFor();
  assert.match(await row.textContent(), /acme.*a-client\/1/);

  await row.getByRole("button", { name: "look" }).click();
  const detail = page.locator("#shown", { hasText: "token id" });
  await detail.waitFor();
  assert.match(await detail.textContent(), new RegExp(client.name));

  await page.getByRole("button", { name: "Connections" }).click();
  await row.getByRole("button", { name: "disconnect" }).click();
  await page.getByText(`${client.name} was sent away`).waitFor();
  await client.ended;
  assert.match(client.told, /"code":"draining"/);
  assert.doesNotMatch(stays.told, /"closing"/);
});

test("what is refused is said on the page", async (context) => {
  const client = await connect("a-client/1");
  const page = await open(context, browser, operators);
  const row = page.locator("tr", { hasText: client.name });
  await row.getByRole("button", { name: "trace" }).click();
  await page.getByText("this replica sends no traces").waitFor();
  assert.equal(await page.locator("#said").getAttribute("class"), "wrong");
});

test("each view shows what there is", async (context) => {
  const page = await open(context, browser, operators);
  for (const [name, text] of [["Channels", "orders"], ["Sweeps", "offsets waiting"], ["Tenants", "acme"]]) {
    await page.getByRole("button", { name }).click();
    await page.locator("#shown", { hasText: text }).waitFor();
  }
});
