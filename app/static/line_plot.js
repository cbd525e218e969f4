/** Lines over steps, drawn by uPlot, which is fetched when the first plot is. */

import { h } from "./dom.js";

const HEIGHT = 260;
let library;

/** uPlot's own script and style sheet, from this server. */
function uPlot() {
  library ??= new Promise((resolve, reject) => {
    const at = (name) => new URL(`vendor/uplot/${name}`, import.meta.url).href;
    const script = h("script", { src: at("uPlot.iife.min.js") });
    script.addEventListener("load", () => resolve(window.uPlot));
    script.addEventListener("error", () => reject(new Error("uPlot could not be fetched")));
    document.head.append(h("link", { rel: "stylesheet", href: at("uPlot.min.css") }), script);
  });
  return library;
}

/**
 * Draw lines into a container, in place of what it held.
 *
 * The canvas follows the container's width and the page's colours. A plot is a picture: give its
 * numbers as a table beside it.
 *
 * @param {HTMLElement} container
 * @param {object} options
 * @param {{label: string, values: number[], color?: string, dashed?: boolean}[]} options.series
 *     the value at each step from 0, null where there is none; `color` is a class whose text
 *     colour the line gets
 * @param {string} options.xLabel
 * @param {string} options.yLabel
 * @returns {Promise<void>} when it is drawn
 */
export async function linePlot(container, { series, xLabel, yLabel }) {
  const Plot = await uPlot();
  container.plotted?.();
  const steps = Math.max(...series.map((one) => one.values.length));
  const columns = series.map((one) =>
    Array.from({ length: steps }, (_, step) => one.values[step] ?? null),
  );
  const colors = colorsOf(container);
  const width = () => Math.max(200, container.clientWidth);
  const plot = new Plot(
    {
      width: width(),
      height: HEIGHT,
      scales: { x: { time: false } },
      legend: { show: false },
      cursor: { show: false },
      axes: [axis(colors, xLabel, 40, wholeSteps), axis(colors, yLabel, 56)],
      series: [{}, ...series.map((one) => line(one, colors))],
    },
    [Array.from({ length: steps }, (_, step) => step), ...columns],
    container,
  );
  plot.root.setAttribute("aria-hidden", "true");
  container.plotted = followed(container, plot, width);
}

/** Colours are asked for at every drawing, so that a switch of the theme needs a drawing only. */
function colorsOf(container) {
  return (name) => {
    const probe = h("span", { class: name, hidden: true });
    container.append(probe);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };
}

function axis(colors, label, size, splits) {
  return {
    label,
    size,
    labelSize: 20,
    font: "12px system-ui",
    labelFont: "12px system-ui",
    stroke: () => colors("plot-text"),
    grid: { stroke: () => colors("plot-grid"), width: 1 },
    ticks: { stroke: () => colors("plot-grid"), width: 1 },
    ...(splits && { incrs: splits }),
  };
}

const wholeSteps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

function line({ label, color = "plot-text", dashed = false }, colors) {
  const stroke = () => colors(color);
  return {
    label,
    stroke,
    width: dashed ? 1 : 2,
    ...(dashed && { dash: [4, 4] }),
    points: { show: !dashed, size: 6, stroke, fill: stroke },
  };
}

/** Keep size and colours; what is returned ends that. */
function followed(container, plot, width) {
  const resized = new ResizeObserver(() => {
    if (plot.width !== width()) plot.setSize({ width: width(), height: HEIGHT });
  });
  resized.observe(container);
  const redraw = () => plot.redraw(false);
  const themed = new MutationObserver(redraw);
  themed.observe(document.documentElement, { attributes: true });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", redraw);
  return () => {
    resized.disconnect();
    themed.disconnect();
    dark.removeEventListener("change", redraw);
    plot.destroy();
  };
}
