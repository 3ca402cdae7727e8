// What all tests of pages share.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

// As root, Chromium has no sandbox; and it is to speak to nobody but the server.
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const WAIT_MS = 30_000;

export const launch = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });

/** Returns what a process says in the first line that has it. */
export async function heard(process, pattern) {
  for await (const line of createInterface({ input: process.stdout })) {
    const found = line.match(pattern);
    if (found) return found;
  }
  assert.fail("it ended before it said where it is");
}

/** Opens a page; nothing may fail in it, and it may ask nobody but its server. */
export async function open(context, browser, url, options = {}) {
  const page = await browser.newPage(options);
  page.setDefaultTimeout(WAIT_MS);
  const strange = [];
  page.on("pageerror", (error) => strange.push(error.message));
  page.on("request", (request) => request.url().startsWith(`${url}/`) || strange.push(request.url()));
  context.after(async () => {
    await page.close();
    assert.deepEqual(strange, []);
  });
  await page.goto(url);
  return page;
}
