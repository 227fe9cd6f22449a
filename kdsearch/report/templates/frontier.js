"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const points = new Map(data.frontier.map((point) => [point.id, point]));
  const search = data.trials.filter((trial) => trial.stage === "search");
  const byId = new Map(data.trials.map((trial) => [trial.id, trial]));
  const complete = search.filter((trial) => trial.state === "COMPLETE" && trial.miou !== null);
  const words = { COMPLETE: "complete", PRUNED: "stopped early", FAIL: "failed", INFEASIBLE: "infeasible", RUNNING: "running" };
  let kept = null;

  // ---- small tools. All text is set as text, never as HTML: names and reasons come from users and libraries.
  const $ = (id) => document.getElementById(id);
  function make(parent, name, attributes, text) {
    const svg = parent.namespaceURI === "http://www.w3.org/2000/svg" || name === "svg";
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }
  function clear(node) { while (node.firstChild) node.removeChild(node.firstChild); return node; }
  function short(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return String(value);
    return Math.abs(value) >= 0.001 && Math.abs(value) < 1e5 ? String(+value.toPrecision(3)) : value.toExponential(1);
  }
  const miou = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
  function scale(values, low, high, pad, log) {
    let a = Math.min(...values), b = Math.max(...values);
    const f = log ? Math.log : (x) => x, back = log ? Math.exp : (x) => x;
    a = f(a); b = f(b);
    if (a === b) { const room = log ? 0.2 : Math.abs(a) * 0.1 || 1; a -= room; b += room; }
    const room = (b - a) * pad;
    a -= room; b += room;
    const to = (value) => low + ((f(value) - a) / (b - a)) * (high - low);
    to.ticks = ticks(back(a), back(b), log);
    return to;
  }
  function ticks(a, b, log) {
    const found = [];
    if (log && b / a > 3) {
      const steps = b / a > 1000 ? [1] : [1, 2, 5];
      for (let power = Math.floor(Math.log10(a)); power <= Math.log10(b); power++)
        for (const m of steps) { const tick = m * 10 ** power; if (tick >= a && tick <= b) found.push(+tick.toPrecision(6)); }
      return found;
    }
    const rough = (b - a) / 5, base = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * base).find((s) => s >= rough);
    for (let tick = Math.ceil(a / step) * step; tick <= b + 1e-12; tick += step) found.push(+tick.toPrecision(6));
    return found;
  }
  const isLog = (values) => Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 3;
  function frame(svg, x, y, box, xTitle, yTitle, xTicks) {
    for (const tick of y.ticks) {
      make(svg, "line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), class: "axis", "stroke-opacity": 0.6 });
      make(svg, "text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick));
    }
    for (const tick of xTicks || x.ticks) {
      make(svg, "line", { x1: x(tick), x2: x(tick), y1: box.bottom, y2: box.bottom + 4, class: "axis" });
      make(svg, "text", { x: x(tick), y: box.bottom + 16, "text-anchor": "middle" }, short(tick));
    }
    make(svg, "line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" });
    make(svg, "text", { x: (box.left + box.right) / 2, y: box.bottom + 32, "text-anchor": "middle" }, xTitle);
    make(svg, "text", { x: box.left - 40, y: box.top - 9 }, yTitle);
  }

  // ---- facts of a trial
  function address(trial) {
    if (!trial.run) return "";
    // Inside MLflow's artifact viewer the page is a blob of the server that shows it.
    const viewer = /^blob:(https?:\/\/[^/]+)/.exec(location.href);
    const server = data.server || (viewer && viewer[1]) || (/^https?:/.test(location.protocol) ? location.origin : "");
    return server && server + "/" + trial.run;
  }
  function facts(trial) {
    const rows = [["student", trial.student], ["state", words[trial.state] + ", epoch " + trial.epoch + " of " + trial.epochs]];
    if (trial.reason) rows.push(["reason", trial.reason]);
    rows.push(["mIoU", miou(trial.miou)], ["GFLOPs", short(trial.gflops)], ["parameters", short(trial.params_m) + " M"]);
    if (trial.latency_ms !== null) rows.push(["latency", short(trial.latency_ms) + " ms"]);
    const point = points.get(trial.id);
    if (point && point.seeds) {
      const half = point.gain_low === null ? "" : " ± " + miou((point.gain_high - point.gain_low) / 2);
      rows.push(["repeats", miou(point.miou_mean) + (point.miou_std === null ? "" : " ± " + miou(point.miou_std)) + " (" + point.seeds + " seeds)"]);
      if (point.control_miou_mean !== null) rows.push(["alone", miou(point.control_miou_mean)]);
      if (point.gain !== null) rows.push(["gain", (point.gain >= 0 ? "+" : "") + miou(point.gain) + half]);
      if (point.p_frontier !== null) rows.push(["P(frontier)", point.p_frontier.toFixed(2)]);
    }
    for (const name in trial.settings) rows.push([name, short(trial.settings[name])]);
    return rows;
  }
  function about(trial) {
    const panel = clear($("about"));
    make(panel, "strong", {}, trial.id + (points.has(trial.id) ? ", on the frontier" : ""));
    const table = make(panel, "table", {}), body = make(table, "tbody", {});
    for (const [name, value] of facts(trial)) {
      const row = make(body, "tr", {});
      make(row, "td", {}, name); make(row, "td", {}, value);
    }
    const url = address(trial);
    if (url) {
      const line = make(panel, "p", { class: "note" }, "its run: ");
      make(line, "a", { href: url, target: "_blank", rel: "noopener" }, url);
    }
  }
  function mark(trial) {
    for (const node of document.querySelectorAll(".on")) node.classList.remove("on");
    for (const node of document.querySelectorAll("[data-trial]")) if (node.dataset.trial === trial.id) node.classList.add("on");
  }
  function choose(trial, event) {
    kept = trial;
    about(trial); mark(trial);
    const url = address(trial);
    // A sandbox, such as MLflow's viewer, opens no windows: there the panel shows the address.
    const opened = url && window.open(url, "_blank");
    if (opened) opened.opener = null;
    else if (event.type === "click" && !event.currentTarget.matches("tr")) {
      const row = document.querySelector('#trials tr[data-trial="' + CSS.escape(trial.id) + '"]');
      if (row && !url) row.scrollIntoView({ behavior: "smooth", block: "center" });
    }
  }
  function live(node, trial) {
    node.dataset.trial = trial.id;
    node.addEventListener("mousemove", (event) => {
      const tip = $("tip");
      const settings = Object.entries(trial.settings).map(([name, value]) => name + " = " + short(value)).join("\n");
      tip.textContent = trial.id + "  " + trial.student + "\nmIoU " + miou(trial.miou) + ", " + short(trial.gflops) + " GFLOPs" + (trial.latency_ms === null ? "" : ", " + short(trial.latency_ms) + " ms") + ", " + words[trial.state] + (settings ? "\n" + settings : "");
      tip.style.display = "block";
      const width = tip.offsetWidth, height = tip.offsetHeight;
      tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 6)) + "px";
      tip.style.top = (event.clientY + 16 + height > innerHeight ? Math.max(4, event.clientY - height - 10) : event.clientY + 16) + "px";
      if (!kept) about(trial);
    });
    node.addEventListener("mouseleave", () => { $("tip").style.display = "none"; });
    node.addEventListener("click", (event) => choose(trial, event));
  }

  // ---- mIoU against cost
  function plot() {
    const place = clear($("plot")), cost = $("cost").value;
    const shown = search.filter((t) => t.miou !== null && t[cost] !== null && (t.state === "COMPLETE" || t.state === "PRUNED"));
    if (!shown.length) { make(place, "p", { class: "soft" }, "No trial has reported yet."); return; }
    const svg = make(place, "svg", { viewBox: "0 0 720 430", width: "100%" });
    const box = { left: 54, right: 704, top: 26, bottom: 386 };
    const costs = shown.map((t) => t[cost]), heights = shown.map((t) => t.miou);
    for (const p of points.values()) if (p.seeds) {
      heights.push(p.miou_mean + (p.miou_std || 0), p.miou_mean - (p.miou_std || 0));
      if (p.control_miou_mean !== null) heights.push(p.control_miou_mean);
    }
    if (data.teacher !== null) heights.push(data.teacher);
    const x = scale(costs, box.left, box.right, 0.05, isLog(costs)), y = scale(heights, box.bottom, box.top, 0.05, false);
    frame(svg, x, y, box, data.axes[cost], data.miou_axis);
    if (data.teacher !== null) {
      make(svg, "line", { x1: box.left, x2: box.right, y1: y(data.teacher), y2: y(data.teacher), stroke: "var(--teacher)", "stroke-dasharray": "2 4" });
      make(svg, "text", { x: box.right, y: y(data.teacher) - 5, "text-anchor": "end" }, "teacher " + miou(data.teacher));
    }
    const members = [...points.keys()].map((id) => byId.get(id)).filter((t) => t && t[cost] !== null).sort((a, b) => a[cost] - b[cost]);
    if (cost === data.cost && members.length) {
      let path = "M" + x(members[0][cost]) + " " + y(members[0].miou), best = members[0].miou;
      // With a third objective, some members are not the best at their cost.
      for (const t of members.slice(1)) if (t.miou > best) { best = t.miou; path += "H" + x(t[cost]) + "V" + y(best); }
      make(svg, "path", { d: path + "H" + box.right, fill: "none", stroke: "var(--front)", "stroke-width": 1.5, "stroke-opacity": 0.7 });
    }
    const order = (t) => (points.has(t.id) ? 2 : t.state === "COMPLETE" ? 1 : 0);
    for (const t of shown.slice().sort((a, b) => order(a) - order(b))) {
      const style = [["var(--stopped)", 2.6, 0.9], ["var(--rest)", 4.2, 0.6], ["var(--front)", 6, 1]][order(t)];
      live(make(svg, "circle", { cx: x(t[cost]), cy: y(t.miou), r: style[1], fill: style[0], "fill-opacity": style[2], class: "dot" }), t);
    }
    const taken = [];
    for (const t of members) {
      const p = points.get(t.id), at = x(t[cost]);
      // Above and left of a frontier point lies no other; labels that would cover each other go further up.
      let up = y(t.miou) - 8;
      while (taken.some(([left, top]) => Math.abs(left - at) < 40 && Math.abs(top - up) < 12)) up -= 12;
      taken.push([at, up]);
      make(svg, "text", { x: at - 7, y: up, "text-anchor": at < box.left + 40 ? "start" : "end", class: "name" }, t.id);
      if (!p.seeds) continue;
      const line = { stroke: "var(--seeds)", "stroke-width": 1.5, "pointer-events": "none" };
      const bar = (a, b, more) => make(svg, "line", { x1: at, x2: at, y1: y(a), y2: y(b), ...line, ...more });
      if (p.control_miou_mean !== null) {
        bar(p.control_miou_mean, p.miou_mean, { "stroke-width": 0.8, "stroke-dasharray": "2 2" });
        make(svg, "circle", { cx: at, cy: y(p.control_miou_mean), r: 4, fill: "var(--back)", ...line });
      }
      if (p.miou_std !== null) {
        bar(p.miou_mean - p.miou_std, p.miou_mean + p.miou_std, {});
        for (const end of [p.miou_mean - p.miou_std, p.miou_mean + p.miou_std]) make(svg, "line", { x1: at - 5, x2: at + 5, y1: y(end), y2: y(end), ...line });
      }
      const m = y(p.miou_mean);
      make(svg, "path", { d: "M" + at + " " + (m - 5) + "l5 5l-5 5l-5 -5z", fill: "var(--seeds)", "pointer-events": "none" });
    }
  }

  // ---- hypervolume over time
  function volume() {
    const place = $("volume"), values = data.hypervolume;
    if (!values.length) { make(place, "p", { class: "soft" }, "Not known: it needs complete trials, and a bound on the cost or a teacher."); return; }
    const svg = make(place, "svg", { viewBox: "0 0 480 230", width: "100%" });
    const box = { left: 54, right: 466, top: 22, bottom: 190 };
    const numbers = values.map((_, i) => i + 1);
    const x = scale([0, ...numbers], box.left, box.right, 0, false), y = scale(values, box.bottom, box.top, 0.06, false);
    frame(svg, x, y, box, "complete trials", "hypervolume", x.ticks.filter(Number.isInteger));
    let path = "M" + x(1) + " " + y(values[0]);
    values.slice(1).forEach((value, i) => { path += "H" + x(i + 2) + "V" + y(value); });
    make(svg, "path", { d: path, fill: "none", stroke: "var(--front)", "stroke-width": 2 });
    const last = values[values.length - 1];
    make(svg, "text", { x: box.right, y: y(last) - 6, "text-anchor": "end", class: "name" }, short(last));
  }

  // ---- importance of the settings
  function importance() {
    const place = $("importance"), names = Object.keys(data.importance);
    if (!names.length) { make(place, "p", { class: "soft" }, data.about_importance); return; }
    const settings = ranked().slice(0, 8), row = 22, columns = names.length;
    const left = 190, width = (480 - left) / columns, height = 26 + settings.length * row;
    const svg = make(place, "svg", { viewBox: "0 0 480 " + height, width: "100%" });
    names.forEach((name, c) => make(svg, "text", { x: left + c * width, y: 12, class: "name" }, name === "miou" ? "mIoU" : name));
    settings.forEach((setting, r) => {
      const y = 26 + r * row, label = make(svg, "text", { x: left - 8, y: y + 10, "text-anchor": "end" }, setting.length > 30 ? "…" + setting.slice(-29) : setting);
      make(label, "title", {}, setting);
      names.forEach((name, c) => {
        const share = data.importance[name][setting] || 0;
        make(svg, "rect", { x: left + c * width, y, width: Math.max(1, share * (width - 44)), height: 12, class: "bar" });
        make(svg, "text", { x: left + c * width + share * (width - 44) + 5, y: y + 10 }, (share * 100).toFixed(0) + " %");
      });
    });
    make(place, "p", { class: "note" }, data.about_importance);
  }
  function ranked() {
    const names = [...new Set(complete.flatMap((t) => Object.keys(t.settings)))];
    const varied = names.filter((name) => new Set(complete.map((t) => JSON.stringify(t.settings[name]))).size > 1);
    const weight = (name) => Math.max(0, ...Object.entries(data.importance).filter(([o]) => !(o in data.axes)).map(([, shares]) => shares[name] || 0));
    return varied.sort((a, b) => weight(b) - weight(a));
  }

  // ---- parallel coordinates
  function parallel() {
    const place = $("parallel"), names = ranked().slice(0, 6);
    if (complete.length < 2 || !names.length) { make(place, "p", { class: "soft" }, "This needs two complete trials with different settings."); return; }
    const axes = [...names.map((name) => ({ name, of: (t) => t.settings[name] })), { name: data.columns[data.cost], of: (t) => t[data.cost] }, { name: "mIoU", of: (t) => t.miou }];
    const svg = make(place, "svg", { viewBox: "0 0 1100 300", width: "100%" });
    const top = 44, bottom = 256, at = (i) => 70 + (i * 960) / (axes.length - 1);
    axes.forEach((axis, i) => {
      const values = complete.map(axis.of).filter((v) => v !== undefined && v !== null);
      const numeric = values.length > 0 && values.every((v) => typeof v === "number");
      let labels;
      if (numeric && new Set(values).size > 1) {
        const to = scale(values, bottom, top, 0, isLog(values));
        axis.y = to; labels = [Math.min(...values), Math.max(...values)].map((v) => [to(v), short(v)]);
      } else {
        const kinds = [...new Set(values.map(String))].sort();
        axis.y = (v) => (kinds.length < 2 ? (top + bottom) / 2 : bottom - (kinds.indexOf(String(v)) * (bottom - top)) / (kinds.length - 1));
        labels = kinds.map((kind) => [axis.y(kind), kind]);
      }
      make(svg, "line", { x1: at(i), x2: at(i), y1: top, y2: bottom, class: "axis" });
      const title = make(svg, "text", { x: at(i), y: i % 2 ? 12 : 26, "text-anchor": "middle", class: "name" }, axis.name.length > 26 ? "…" + axis.name.slice(-25) : axis.name);
      make(title, "title", {}, axis.name);
      axis.labels = labels;
      if (values.length < complete.length) make(svg, "text", { x: at(i), y: bottom + 32, "text-anchor": "middle" }, "not in this branch");
    });
    for (const t of complete.slice().sort((a, b) => points.has(a.id) - points.has(b.id))) {
      const path = axes.map((axis, i) => {
        const value = axis.of(t);
        return (i ? "L" : "M") + at(i) + " " + (value === undefined || value === null ? bottom + 20 : axis.y(value));
      }).join("");
      live(make(svg, "path", { d: path, class: points.has(t.id) ? "track front" : "track" }), t);
    }
    axes.forEach((axis, i) => {
      for (const [y, label] of axis.labels) {
        const last = i === axes.length - 1;
        make(svg, "text", { x: at(i) + (last ? -6 : 6), y: y + 4, "text-anchor": last ? "end" : "start", class: "name", "pointer-events": "none", stroke: "var(--back)", "stroke-width": 3, "paint-order": "stroke" }, label.length > 22 ? label.slice(0, 21) + "…" : label);
      }
    });
    make(place, "p", { class: "note" }, 
      (Object.keys(data.importance).length ? "The settings of the highest importance for mIoU and the frontier" : "The first settings that differ")
      + " (six at most), then cost and mIoU; orange: the frontier.");
  }

  // ---- all trials
  const columns = [
    ["trial", (t) => t.id], ["student", (t) => t.student], ["purpose", (t) => ({ search: "", confirm: "repeat of " + t.of, control: "alone, for " + t.of })[t.stage] ?? t.stage],
    ["state", (t) => words[t.state]], ["epoch", (t) => t.epoch, 1], ["mIoU", (t) => t.miou, 1], ["GFLOPs", (t) => t.gflops, 1],
    ["params M", (t) => t.params_m, 1], ...("latency_ms" in data.axes ? [["ms", (t) => t.latency_ms, 1]] : []), ["train s", (t) => t.seconds, 1], ["settings", (t) => Object.entries(t.settings).map(([n, v]) => n + "=" + short(v)).join(", ")],
  ];
  let sorted = null, down = true;
  function table() {
    const head = clear($("trials").tHead), body = clear($("trials").tBodies[0]), row = make(head, "tr", {});
    columns.forEach(([name, , number], i) => {
      const cell = make(row, "th", number ? { class: "n", style: "cursor:pointer" } : { style: "cursor:pointer" }, name + (sorted === i ? (down ? " ↓" : " ↑") : ""));
      cell.addEventListener("click", () => { down = sorted === i ? !down : Boolean(number); sorted = i; table(); });
    });
    let rows = data.trials.slice();
    if (sorted === null) rows.sort((a, b) => points.has(b.id) - points.has(a.id));
    else {
      const of = columns[sorted][1], sign = down ? -1 : 1;
      const key = (t) => { const v = of(t); return v === null || v === undefined ? (typeof v === "number" ? -Infinity : "") : v; };
      rows.sort((a, b) => { const p = key(a), q = key(b); return p === "" ? 1 : q === "" ? -1 : p < q ? -sign : p > q ? sign : 0; });
    }
    for (const t of rows) {
      const line = make(body, "tr", points.has(t.id) ? { class: "front" } : {});
      for (const [name, of, number] of columns) {
        const value = of(t);
        make(line, "td", number ? { class: "n" } : {}, name === "mIoU" ? miou(value) : name === "train s" ? Math.round(value) : short(value));
      }
      line.dataset.trial = t.id;
      line.addEventListener("click", (event) => choose(t, event));
    }
    if (kept) mark(kept);
  }

  $("cost").addEventListener("change", plot);
  plot(); volume(); importance(); parallel(); table();
})();
