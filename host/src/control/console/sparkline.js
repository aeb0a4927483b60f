// A minute as a small drawing. What it shows is said in words too, for those who do not see it.

import { svg } from "./dom.js";

const KEPT = 60;

/** A line of values, the newest at the right; gaps where nothing is known. `kind` is a class. */
export function sparkline(values, label, kind, width = 120, height = 26) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const top = Math.max(...known, 0) || 1;
  const step = width / (KEPT - 1);
  const first = KEPT - values.length;
  const lines = [];
  let line = [];
  values.forEach((value, index) => {
    if (value === null || value === undefined) {
      lines.push(line);
      line = [];
      return;
    }
    const x = (first + index) * step;
    const y = height - 2 - (value / top) * (height - 4);
    line.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  });
  lines.push(line);
  const drawn = lines
    .filter((points) => points.length > 0)
    .map((points) => (points.length > 1 ? points : [points[0], points[0]]))
    .map((points) => svg("polyline", { points: points.join(" ") }));
  return svg(
    "svg",
    {
      class: `spark ${kind}`,
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    svg("line", { x1: 0, x2: width, y1: height - 1, y2: height - 1, class: "base" }),
    drawn,
  );
}
