// The two pictures of the page: the ranges of a partition, and the bridge.

/** The colour of a replica, a gap or a line, as the style sheet has it. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export const REPLICAS = ["a", "b"];

/** Fits a canvas to its place on the screen and returns its cleared context. */
function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio;
  const [pixelsWide, pixelsHigh] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== pixelsWide) canvas.width = pixelsWide;
  if (canvas.height !== pixelsHigh) canvas.height = pixelsHigh;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/**
 * Draws the newest ranges of one partition up to `position`: a block for each
 * frame in the colour of the replica that sent it, a tick for each record.
 */
export function drawRanges(canvas, ranges, position) {
  const { context, width, height } = prepare(canvas);
  const x = (offset) => width - (position - offset) * OFFSET_PX;
  context.fillStyle = colour("line");
  context.fillRect(0, height - 3, width, 3);
  ranges.forEach(({ from, to, via, offsets, gap }, index) => {
    const left = Math.max(0, x(from));
    const right = x(to);
    if (right <= 0) return;
    context.fillStyle = colour(gap ? "bad" : REPLICAS[via % REPLICAS.length]);
    // Neighbours differ a little, so that one sees where they join.
    context.globalAlpha = gap ? 0.9 : index % 2 ? 0.3 : 0.2;
    context.fillRect(left, 0, right - left, height - 3);
    context.globalAlpha = 1;
    context.fillRect(left, height - 3, right - left, 3);
    for (const offset of offsets) context.fillRect(x(offset) + 0.5, 4, OFFSET_PX - 1, height - 7);
  });
}

/** How much of a ribbon one offset takes. */
const OFFSET_PX = 4;
/** Offsets that fit into any ribbon. */
export const OFFSETS_SHOWN = 200;

/** Draws the page, the replicas, and which of them carries the page now. */
export function drawBridge(canvas, { replicas, via, state, pulse }) {
  const { context, width, height } = prepare(canvas);
  const page = { x: 58, y: height / 2 };
  const kafka = { x: width - 42, y: height / 2 };
  const middle = width * 0.58;
  const place = (index) => ({ x: middle, y: replicas.length < 2 ? height / 2 : 26 + index * (height - 52) });
  replicas.forEach((_, index) => {
    const current = index === via && state !== "waiting" && state !== "closed";
    const tint = colour(REPLICAS[index % REPLICAS.length]);
    const { x, y } = place(index);
    arch(context, x + 46, y, kafka.x - 30, kafka.y, { tint: colour("line") });
    if (current) {
      const carries = state === "open" || state === "live";
      arch(context, page.x + 34, page.y, x - 48, y, { tint, wide: 2.5, dash: carries ? [] : [4, 5] });
      if (carries && pulse < 1) bead(context, page.x + 34, page.y, x - 48, y, 1 - pulse, tint);
    } else if (index === via) {
      broken(context, page.x + 34, page.y, x - 48, y);
    }
    box(context, x, y, 96, 40, `replica ${"AB"[index]}`, replicas[index].replace(/.*:/, ":"), current ? tint : null);
  });
  box(context, page.x, page.y, 68, 40, "page", null, null);
  box(context, kafka.x, kafka.y, 66, 40, "Kafka", "embedded", null);
}

function box(context, x, y, width, height, title, below, tint) {
  context.beginPath();
  context.roundRect(x - width / 2, y - height / 2, width, height, 9);
  context.fillStyle = tint ?? colour("card");
  context.fill();
  context.lineWidth = 1;
  context.strokeStyle = tint ?? colour("line");
  context.stroke();
  context.textAlign = "center";
  context.fillStyle = tint ? colour("card") : colour("ink");
  context.font = "600 13px Inter, system-ui, sans-serif";
  context.fillText(title, x, y + (below ? -1 : 5));
  if (!below) return;
  context.font = "11px Inter, system-ui, sans-serif";
  context.fillStyle = tint ? colour("card") : colour("faint");
  context.fillText(below, x, y + 13);
}

/** Where a line from one point to another is after the part `t` of its way. */
function along(x1, y1, x2, y2, t) {
  const ease = t * t * (3 - 2 * t);
  return [x1 + (x2 - x1) * t, y1 + (y2 - y1) * ease];
}

function arch(context, x1, y1, x2, y2, { tint, wide = 1.5, dash = [], until = 1 }) {
  context.beginPath();
  context.moveTo(x1, y1);
  for (let step = 1; step <= 24; step++) context.lineTo(...along(x1, y1, x2, y2, (step / 24) * until));
  context.lineWidth = wide;
  context.strokeStyle = tint;
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

function bead(context, x1, y1, x2, y2, t, tint) {
  context.beginPath();
  context.arc(...along(x1, y1, x2, y2, t), 4, 0, Math.PI * 2);
  context.fillStyle = tint;
  context.fill();
}

function broken(context, x1, y1, x2, y2) {
  const tint = colour("bad");
  arch(context, x1, y1, x2, y2, { tint, wide: 2.5, until: 0.38 });
  const [x, y] = along(x1, y1, x2, y2, 0.5);
  context.beginPath();
  for (const [dx, dy] of [[-5, -5], [-5, 5]]) {
    context.moveTo(x + dx, y + dy);
    context.lineTo(x - dx, y - dy);
  }
  context.lineWidth = 2.5;
  context.strokeStyle = tint;
  context.stroke();
}
