"use strict";
// Switches the figures and tables between encoders and outcomes, and draws them in the colours of the theme.
(async () => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  const unpacked = (id) => {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (one) => one.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  if (!window.DecompressionStream) {
    byId("outdated").hidden = false;
    return;
  }
  const [figures, plotly] = await Promise.all([unpacked("data"), unpacked("plotly")]);
  const data = JSON.parse(figures);
  const library = document.createElement("script");
  library.textContent = plotly;
  document.head.append(library);

  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const PHONE_PX = 520;
  const PAPER_PX = 690;  // A4 within the margins of the print style
  let paperPx = 0;

  const colour = (name) => {
    const [key, alpha] = name.split("/");
    const hex = getComputedStyle(root).getPropertyValue("--fig-" + key).trim();
    if (!alpha) return hex;
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };
  const themed = (value) => {
    if (typeof value === "string") return value.startsWith("@") ? colour(value.slice(1)) : value;
    if (Array.isArray(value)) return value.map(themed);
    if (value && value.$ !== undefined) return data.arrays[value.$];
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, themed(one)]));
    return value;
  };
  const axis = (own) => ({
    gridcolor: "@grid", linecolor: "@grid", zeroline: false, automargin: false, fixedrange: true,
    tickfont: { size: 12 }, ...own, title: own && own.title ? { font: { size: 12, color: "@muted" }, ...own.title } : undefined,
  });
  const draw = (element, spec) => {
    const width = paperPx ? (element.closest(".sweeps") ? paperPx / 2 - 12 : paperPx) : element.clientWidth;
    const layout = { ...spec.layout, width, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "@ink" },
      hoverlabel: { bgcolor: "@paper", bordercolor: "@muted", font: { size: 12, color: "@ink", family: getComputedStyle(document.body).fontFamily }, align: "left" }, dragmode: false };
    for (const key of Object.keys(layout)) if (/^[xy]axis\d?$/.test(key)) layout[key] = axis(layout[key]);
    const part = layout.meta && layout.meta.parts[byId("attribute").value];
    if (part) {
      const [first, last] = part;
      layout.height -= layout.meta.row_px * (layout.meta.n_rows - 1 - last + first);
      layout.yaxis = { ...layout.yaxis, range: [last + 0.6, first - 0.6] };
      const headed = (one) => ({ ...one, y: first - 0.55 });
      layout.annotations = layout.annotations.map((one) => (one.y < 0 ? headed(one) : one)).filter((one) => one.y > first - 1 && one.y <= last);
    }
    if (width < PHONE_PX) {
      layout.annotations = (layout.annotations || []).filter((one) => one.name !== "aside");
      layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 138), r: 14 };
    }
    Plotly.react(element, themed(spec.data), themed(layout), { displayModeBar: false, responsive: false });
  };

  const chosen = () => ({ encoder: byId("encoder").value, task: byId("task").value, variant: byId("variant").value });
  const drawn = [];
  const drawAll = () => drawn.forEach(([element, spec]) => draw(element, spec));

  const several = (holder, list, about) => {
    holder.querySelectorAll(".plot").forEach((one) => Plotly.purge(one));
    holder.replaceChildren();
    const attribute = byId("attribute").value;
    for (const { title, figure } of list.filter((one) => !attribute || one.title === attribute)) {
      const block = document.createElement("div");
      const head = document.createElement("h4");
      head.textContent = title;
      const plot = document.createElement("div");
      plot.className = "plot";
      plot.setAttribute("role", "img");
      plot.setAttribute("aria-label", `${about}: ${title}`);
      block.append(head, plot);
      holder.append(block);
      drawn.push([plot, figure]);
    }
  };
  const mitigated = (id, task) => {
    const figures = byId("mitigation-figures");
    if (!figures) return;
    const found = data.mitigation[id];
    figures.hidden = !found;
    byId("unmitigated").hidden = !!found;
    document.querySelectorAll(".mitigated").forEach((one) => {
      one.hidden = one.dataset.cell !== id;
      one.open = !one.hidden;
    });
    document.querySelectorAll(".capacity").forEach((one) => { one.hidden = one.dataset.task !== task; });
    if (!found) return;
    const attribute = byId("attribute").value;
    const held = (spec) => (spec && (!attribute || spec.layout.meta.parts[attribute]) ? spec : null);
    const slots = { gaps: found.gaps, arrows: found.arrows[byId("strategy").value], probing: found.probing };
    for (const [name, whole] of Object.entries(slots)) {
      const spec = held(whole);
      const plot = document.querySelector(`[data-slot="mitigated-${name}"]`);
      // the strategy can still be chosen where this one has nothing to show
      (name === "arrows" ? plot : plot.closest("figure")).hidden = !spec;
      if (spec) drawn.push([plot, spec]);
    }
    const price = document.querySelector('[data-slot="mitigated-price"]');
    price.closest("figure").hidden = !found.price.some((one) => !attribute || one.title === attribute);
    several(price, found.price, "AUROC against the gap that is left");
  };
  const show = () => {
    const { encoder, task, variant } = chosen();
    // a variant that this encoder lacks gives way to the first it has
    const id = [variant, ...byId("variant").options].map((one) => `${encoder}|${task}|${one.value ?? one}`).find((one) => data.cells[one]);
    const cell = data.cells[id];
    byId("figures").hidden = !cell;
    drawn.length = 0;
    document.querySelectorAll(".cell").forEach((one) => {
      one.hidden = one.dataset.cell !== id;
      one.open = !one.hidden;
    });
    const name = (box) => byId(box).selectedOptions[0].textContent;
    byId("shown").textContent = cell ? `Showing ${name("encoder")}, ${name("task")}.` : "This encoder was not audited for this outcome.";
    if (cell) {
      byId("variant").value = id.split("|")[2];
      for (const slot of ["udr", "auroc", "gaps", "calibration", "intersections"]) {
        const plot = document.querySelector(`[data-slot="${slot}"]`);
        plot.closest("figure").hidden = !cell[slot];
        if (cell[slot]) drawn.push([plot, cell[slot]]);
      }
      several(document.querySelector('[data-slot="sweeps"]'), cell.sweeps, "Share missed and false alarms by threshold");
    }
    const attribute = byId("attribute").value;
    document.querySelectorAll("#cells [data-attribute], #mitigation [data-attribute]").forEach((one) => { one.hidden = Boolean(attribute) && one.dataset.attribute !== attribute; });
    mitigated(`${encoder}|${task}`, task);
    const control = data.control[task];
    byId("control-figure").hidden = !control;
    if (control) drawn.push([document.querySelector('[data-slot="control"]'), control]);
    document.querySelectorAll(".pair").forEach((one) => { one.hidden = one.dataset.task !== task; });
    document.querySelectorAll(".aggregation").forEach((one) => { one.hidden = one.dataset.task !== task; });
    const aggregation = data.aggregation[task];
    const aggregationFigure = byId("aggregation-figure");
    if (aggregationFigure) aggregationFigure.hidden = !aggregation;
    if (aggregation) drawn.push([document.querySelector('[data-slot="aggregation"]'), aggregation]);
    const pairs = data.pairs[task];
    const pairFigure = byId("pair-figure");
    if (pairFigure) pairFigure.hidden = !pairs;
    if (pairs) drawn.push([document.querySelector('[data-slot="pairs"]'), pairs]);
    drawAll();
  };

  // what is chosen stands in the address, so that a link leads to it
  const BOXES = ["encoder", "task", "attribute", "variant"];
  const choose = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const box of BOXES) {
      const wanted = asked.get(box) ?? (asked.has("encoder") && box === "attribute" ? "" : null);
      if (wanted !== null && [...byId(box).options].some((one) => one.value === wanted)) byId(box).value = wanted;
    }
    return asked.has("encoder");
  };
  const remember = () => {
    const chosenBoxes = BOXES.map((box) => [box, byId(box).value]).filter(([, value]) => value !== "");
    history.replaceState(null, "", "#" + new URLSearchParams(chosenBoxes));
  };

  const theme = byId("theme");
  const setTheme = (name) => {
    root.dataset.theme = name;
    theme.textContent = name === "dark" ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to the ${name === "dark" ? "light" : "dark"} theme`);
    drawAll();
  };
  theme.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  prefersDark.addEventListener("change", () => setTheme(prefersDark.matches ? "dark" : "light"));

  // print in the light theme at the width of the paper, what is shown unfolded, then come back
  let before = null;
  let unfolded = [];
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    unfolded = [...document.querySelectorAll("details:not([open], [hidden])")].filter(
      (one) => !one.matches(".cell, .mitigated, .pair *, .aggregation *, .cell:not([open]) *"));
    unfolded.forEach((one) => { one.open = true; });
    paperPx = PAPER_PX;
    setTheme("light");
  });
  window.addEventListener("afterprint", () => {
    paperPx = 0;
    unfolded.forEach((one) => { one.open = false; });
    if (before) setTheme(before);
  });

  let width = window.innerWidth;
  let waiting = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 120);
  });

  theme.hidden = false;
  byId("filters").hidden = false;
  for (const box of BOXES) byId(box).addEventListener("change", () => { show(); remember(); });
  if (byId("strategy")) byId("strategy").addEventListener("change", show);
  window.addEventListener("hashchange", () => {
    if (!choose()) return;
    show();
    byId("explore").scrollIntoView();
  });
  const linked = choose();
  root.dataset.theme = prefersDark.matches ? "dark" : "light";
  setTheme(root.dataset.theme);
  show();
  if (linked) byId("explore").scrollIntoView();
  root.dataset.drawn = "true";
})();
