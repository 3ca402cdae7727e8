// Opens the demo's page as a visitor would. `run` beside this file starts it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";

import { heard, launch, open } from "./browser.js";

const { BRUCKE, PICTURE } = process.env;
let demo;
let url;
let browser;

before(async () => {
  demo = spawn(BRUCKE, ["demo", "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  [url] = await heard(demo, /http:\/\/localhost:\d+/);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  demo.kill("SIGINT");
});

/** Opens the page and waits until it follows something. */
async function visit(context) {
  const options = { viewport: { width: 1380, height: 990 }, colorScheme: "dark" };
  const page = await open(context, browser, url, options);
  await live(page);
  return page;
}

const live = (page) => page.locator("#state[data-state=live]").waitFor();

/** Waits until at least so many records of the present choice are shown. */
async function shown(page, count) {
  await page.locator("#records tr:not(.seam)").nth(count - 1).waitFor();
  return page.locator("#records tr:not(.seam)").evaluateAll((rows) =>
    rows.map((row) => {
      const [partition, offset, key] = [...row.cells].map((cell) => cell.textContent);
      return { partition, offset: Number(offset), key };
    }),
  );
}

async function choose(page, { tenant, channel, kind, text }) {
  if (tenant) await page.locator("#tenants").getByText(tenant, { exact: true }).click();
  if (channel) await page.locator("#channels").getByText(channel, { exact: true }).click();
  if (kind) await page.locator("[name=kind]").selectOption(kind);
  if (text) {
    await page.locator("[name=text]").fill(text);
    await page.locator("[name=text]").press("Enter");
  }
}

async function cut(page, lasting) {
  await page.locator("#lasting").selectOption(lasting);
  await page.locator("#cut").click();
  await page.locator("#resume[data-outcome=resumed]").waitFor();
}

/** Returns what the page says of the last resume, by name. */
function resumed(page) {
  return page.locator("#resume dl > div").evaluateAll((facets) =>
    Object.fromEntries(facets.map((facet) => [...facet.children].map((part) => part.textContent))),
  );
}

test("a visitor follows one key of one tenant", async (context) => {
  const page = await visit(context);
  await choose(page, { tenant: "globex", channel: "couriers", kind: "one", text: "bike-2" });
  const records = await shown(page, 3);
  assert.ok(records.every(({ key }) => key === "bike-2"), JSON.stringify(records));
  assert.equal(new Set(records.map(({ partition }) => partition)).size, 1);
  const offsets = records.map(({ offset }) => offset);
  assert.deepEqual(offsets, [...offsets].sort((one, other) => other - one), "newest first");
});

test("a prefix is followed from the beginning", async (context) => {
  const page = await visit(context);
  await choose(page, { channel: "prices", kind: "prefix", text: "EUR" });
  await page.locator("[name=from]").selectOption("earliest");
  const records = await shown(page, 40);
  assert.ok(records.every(({ key }) => key.startsWith("EUR")), JSON.stringify(records));
});

test("a connection that is cut goes on at the other replica", async (context) => {
  const page = await visit(context);
  await shown(page, 16);
  await cut(page, "3000");
  const says = await resumed(page);
  assert.match(says["records caught up"], /^[1-9]\d*$/);
  assert.match(says["ranges joined"], /^✓ (\d+) of \1$/);
  assert.equal(says.gaps, "none");
  assert.ok(Number.parseFloat(says["back after"]) >= 3, says["back after"]);
  assert.match(await page.locator("#log").textContent(), /replica [AB] goes on where replica A was cut/);
  assert.match(await page.locator("#counts").textContent(), /holesnone/);
});

test("a replica that restarts sends its clients to the other", async (context) => {
  const page = await visit(context);
  const via = await page.locator("#state").textContent();
  await shown(page, 1);
  await page.locator("#restart").click();
  await page.locator("#resume[data-outcome=resumed]").waitFor();
  await live(page);
  assert.notEqual(await page.locator("#state").textContent(), via);
  assert.equal((await resumed(page)).gaps, "none");
});

if (PICTURE) {
  test("the picture of the README", async (context) => {
    const page = await visit(context);
    await page.locator("[name=from]").selectOption("earliest");
    await live(page);
    // The wait after a cut is random: take one after which the cut is still in view.
    for (let caughtUp = 0; caughtUp < 5 || caughtUp > 11; ) {
      await shown(page, 30);
      await page.evaluate(() => (document.querySelector("#resume").dataset.outcome = "none"));
      await cut(page, "0");
      caughtUp = Number((await resumed(page))["records caught up"]);
    }
    await page.waitForFunction(() => {
      const rows = [...document.querySelectorAll("#records tr")];
      return rows.slice(0, 4).every((row) => !row.matches(".late, .seam"));
    });
    await page.screenshot({ path: PICTURE });
  });
}
