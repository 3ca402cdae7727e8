// What all tests of pages share.

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

export const WAIT_MS = 30_000;

export const launch = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
