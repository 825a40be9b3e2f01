// Keeps the page live: fetches its changing part from the server every few seconds, and draws the charts with uPlot.
"use strict";
(() => {
  const live = document.getElementById("live");
  const every = document.getElementById("every");
  const shown = document.getElementById("every-shown");
  const pause = document.getElementById("pause");
  const told = document.getElementById("told");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const utc = (seconds, length) => new Date(seconds * 1000).toISOString().slice(11, 11 + length);
  const amount = (value, unit) => {
    if (value == null) return "";
    const short = unit === "s" && value < 1;
    const digits = (short ? 1000 * value : value).toLocaleString("en", { maximumSignificantDigits: 4 });
    return unit === "s" ? `${digits} ${short ? "ms" : "s"}` : unit + digits;
  };
  const alone = (values) => values.flatMap((value, at) => // no line leads to them
    value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []);
  let plots = [];
  let timer = 0;
  let paused = false;

  function draw() {
    plots.forEach((plot) => plot.destroy());
    plots = [...live.querySelectorAll("svg.chart")].map((svg) => {
      const data = JSON.parse(svg.dataset.chart);
      const box = document.createElement("div");
      const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false } };
      const unit = svg.closest("figure").dataset.unit;
      const when = (plot, value) => (value == null ? "" : utc(value, 8));
      const hours = { ...axis, size: 30, values: (plot, values) => values.map((value) => utc(value, 5)) };
      const amounts = { ...axis, values: (plot, values) => values.map((value) => amount(value, unit)),
        size: (plot, values) => 24 + 7 * Math.max(4, ...(values ?? []).map((value) => value.length)) };
      const strokes = ["--first", "--second"].map(colour);
      svg.after(box);
      const plot = new uPlot({
        width: box.clientWidth, height: 170, axes: [hours, amounts], legend: { live: true, markers: { fill: (plot, i) => strokes[i - 1] } },
        scales: { y: { range: (plot, low, high) => [0, high > 0 ? uPlot.rangeNum(0, high, 0.1, true)[1] : 1] } },
        tzDate: (value) => uPlot.tzDate(new Date(value * 1000), "UTC"),
        series: [{ label: "UTC", value: when }, ...data.lines.map((label, i) => ({
          label, stroke: strokes[i], width: 2, points: { show: true, size: 5, fill: strokes[i], filter: (plot, n) => alone(data.y[n - 1]) },
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
    plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth, height: 170 }));
  }

  async function refresh() {
    const address = new URL(location.href);
    address.searchParams.set("part", "live");
    try {
      const reply = await fetch(address, { redirect: "manual", signal: AbortSignal.timeout(30000) });
      if (reply.status === 403 || reply.type === "opaqueredirect") {
        tell("You are logged out; these figures are old.");
      } else if (!reply.ok) {
        tell(`The server answered ${reply.status}; these figures are old.`);
      } else {
        const html = await reply.text();
        if (!paused) show(html);
      }
    } catch (error) {
      tell("No answer from the server; these figures are old.");
    }
    plan();
  }

  function show(html) {
    if (live.querySelector(":focus-visible") !== null) { // someone walks through it by keyboard
      tell("The figures wait while you are among them; leave them to go on.");
      return;
    }
    const across = new Map([...live.querySelectorAll(".scroll")].map((box) => [box.ariaLabel, box.scrollLeft]));
    live.innerHTML = html;
    live.querySelectorAll(".scroll").forEach((box) => { box.scrollLeft = across.get(box.ariaLabel) ?? 0; });
    draw();
    tell("");
  }

  function tell(text) {
    if (told.textContent !== text) told.textContent = text; // said aloud once
  }

  function plan() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(refresh, every.value * 1000);
  }

  function again() {
    if (paused || document.hidden) plan();
    else refresh();
  }

  every.addEventListener("input", () => { shown.textContent = `${every.value} s`; plan(); });
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    tell(paused ? "Paused." : "");
    again();
  });
  document.addEventListener("visibilitychange", again);
  addEventListener("resize", fit);
  document.getElementById("live-form").hidden = false;
  draw();
  plan();
})();
