// Keeps the page live: fetches its changing part from the server every few seconds, and draws the charts with uPlot.
"use strict";
(() => {
  const live = document.getElementById("live");
  const every = document.getElementById("every");
  const shown = document.getElementById("every-shown");
  const pause = document.getElementById("pause");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const utc = (seconds, length) => new Date(seconds * 1000).toISOString().slice(11, 11 + length);
  const amount = (value, unit) => {
    if (value == null) return "";
    const short = unit === "s" && value < 1;
    const digits = (short ? 1000 * value : value).toLocaleString("en", { maximumSignificantDigits: 4 });
    return unit === "s" ? `${digits} ${short ? "ms" : "s"}` : unit + digits;
  };
  let plots = [];
  let timer = 0;

  function draw() {
    plots.forEach((plot) => plot.destroy());
    plots = [...live.querySelectorAll("svg.chart")].map((svg) => {
      const data = JSON.parse(svg.dataset.chart);
      const box = document.createElement("div");
      const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false } };
      const unit = svg.closest("figure").dataset.unit;
      const when = (plot, value) => (value == null ? "" : utc(value, 8));
      const hours = { ...axis, values: (plot, values) => values.map((value) => utc(value, 5)) };
      const amounts = { ...axis, size: 64, values: (plot, values) => values.map((value) => amount(value, unit)) };
      const strokes = ["--first", "--second"].map(colour);
      svg.after(box);
      const plot = new uPlot({
        width: box.clientWidth, height: 160, axes: [hours, amounts], legend: { live: true },
        tzDate: (value) => uPlot.tzDate(new Date(value * 1000), "UTC"),
        series: [{ label: "UTC", value: when }, ...data.lines.map((label, i) => ({
          label, stroke: strokes[i], width: 2, points: { show: true, size: 4, fill: strokes[i] },
          fill: data.lines.length === 1 ? `${strokes[i]}22` : undefined,
          value: (plot, value) => amount(value, unit),
        }))],
      }, [data.x, ...data.y], box);
      svg.setAttribute("hidden", "");
      svg.classList.add("drawn");
      return plot;
    });
  }

  function fit() {
    plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth, height: 160 }));
  }

  async function refresh() {
    const address = new URL(location.href);
    address.searchParams.set("part", "live");
    try {
      const reply = await fetch(address, { credentials: "same-origin", redirect: "error" });
      if (!reply.ok) throw new Error(reply.status);
      const html = await reply.text();
      if (!live.contains(document.activeElement) || document.activeElement === live) {
        live.innerHTML = html;
        draw();
      }
      live.removeAttribute("data-stale");
    } catch (error) {
      live.setAttribute("data-stale", "");
    }
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (pause.getAttribute("aria-pressed") === "false") timer = setTimeout(refresh, every.value * 1000);
  }

  every.addEventListener("input", () => { shown.textContent = `${every.value} s`; plan(); });
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") === "false";
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    plan();
  });
  addEventListener("resize", fit);
  document.getElementById("live-form").hidden = false;
  draw();
  plan();
})();
