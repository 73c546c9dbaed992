"use strict";
(() => {
  // Data. What episodes say reaches the page only as text nodes and as data: URLs of images.

  const run = JSON.parse(document.getElementById("run").textContent);
  const { episodes, metrics, config } = run;
  episodes.forEach((episode, index) => { episode.index = index; });
  const envs = Object.keys(metrics.environments);
  const FAILED = new Set(["episode_timeout", "tool_timeout", "env_crashed", "env_failed", "machinery_failed", "env_start_failed", "policy_error",
    "rate_limited", "cancelled"]);
  const STAGES = ["queue", "start", "handshake", "model", "throttled", "tool", "control", "close"];
  const ROWS_AT_ONCE = 200;
  const GROUPS_AT_ONCE = 10;
  const app = document.getElementById("app");

  const imageUrl = (reference) => {
    const stored = /^images\/[0-9a-f]{64}\.[a-z]+$/.test(reference) && document.getElementById(reference);
    return stored ? stored.textContent : null;
  };

  // Episodes are in packs behind this script, so the page may still be coming when one is asked for.
  const complete = new Promise((resolve) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve);
    else resolve();
  });
  const unpacked = { number: -1, episodes: null };
  const unpack = async (number) => {
    const packed = Uint8Array.from(atob(document.getElementById(`pack-${number}`).textContent), (one) => one.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  };
  const detailsOf = async ({ pack: [number, place] }) => {
    await complete;
    if (unpacked.number !== number) Object.assign(unpacked, { number, episodes: unpack(number) });
    // A page may change what it is given; the next reader gets the episode as it was.
    return structuredClone((await unpacked.episodes)[place]);
  };

  // Elements.

  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  };
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // Numbers and words.

  const trim = (text) => text.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  const minus = (text) => text.replace("-", "−");
  const number = (value, digits = Math.abs(value) < 100 ? 3 : 1) =>
    minus(Math.abs(value) >= 1e6 || (value && Math.abs(value) < 0.001)
      ? value.toExponential(2) : trim(value.toFixed(digits)));
  const signed = (value) => (value > 0 ? "+" : "") + number(value);
  const signOf = (value) => (value === null || value === undefined ? "none" : value > 0 ? "positive" : value < 0 ? "negative" : "zero");
  const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
  const seconds = (value) => {
    if (value < 0.001) return value > 0 ? "<1 ms" : "0 s";
    if (value < 1) return `${Math.round(value * 1000)} ms`;
    if (value < 120) return `${trim(value.toFixed(value < 10 ? 2 : 1))} s`;
    if (value < 7200) return `${trim((value / 60).toFixed(1))} min`;
    return `${trim((value / 3600).toFixed(1))} h`;
  };
  const compact = (value) => (value < 10000 ? value.toLocaleString("en")
    : value < 1e6 ? `${trim((value / 1e3).toFixed(1))}k` : `${trim((value / 1e6).toFixed(1))}M`);
  const words = (reason) => reason.replaceAll("_", " ");
  const when = (iso) => {
    const date = new Date(iso);
    return Number.isNaN(date.getTime()) ? "" : date.toISOString().slice(0, 16).replace("T", " ") + " UTC";
  };
  const color = (env) => `k${Math.max(0, envs.indexOf(env)) % 6}`;
  const dot = (more) => h("span", { class: `dot ${more}` });
  const envTag = (env) => h("span", { class: "env" }, dot(color(env)), env);
  const endTag = (episode) => h("span", {
    class: `chip ${FAILED.has(episode.end) ? "bad" : episode.end === "terminated" ? "plain" : "warn"}`,
  }, words(episode.end));
  const within = (interval, put = number) => (interval ? `${put(interval[0])} to ${put(interval[1])}` : "");
  const percent = (value) => `${trim((100 * value).toFixed(1))} %`;
  const fewer = (summary) => (summary.scored < summary.episodes ? ` over ${summary.scored} of ${summary.episodes}` : "");
  const reward = (value) => (value === null || value === undefined ? "–" : number(value));

  // A terminal's colors become one mark: what is marked is what the environment wanted seen.
  const ESCAPES = /\u001b\[([0-9;]*)m/g;
  const terminal = (text) => {
    const nodes = [];
    let from = 0;
    let marked = false;
    const put = (part) => { if (part) nodes.push(marked ? h("mark", null, part) : part); };
    for (const match of text.matchAll(ESCAPES)) {
      put(text.slice(from, match.index));
      marked = !/^0*$/.test(match[1]);
      from = match.index + match[0].length;
    }
    put(text.slice(from));
    return nodes;
  };

  const ICONS = {
    first: "M3 3v10M13 3L6 8l7 5z", back: "M12 3L5 8l7 5z", play: "M4 2.5v11l9-5.5z", pause: "M4 3h3v10H4zM9 3h3v10H9z",
    on: "M4 3l7 5-7 5z", last: "M13 3v10M3 3l7 5-7 5z",
  };
  const icon = (name) => s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));

  // The tip that follows the mouse.

  let tip = null;
  const hideTip = () => { if (tip) tip.remove(); tip = null; };
  const tipped = (element, text) => {
    element.addEventListener("mousemove", (event) => {
      hideTip();
      tip = h("div", { class: "tip" }, text);
      document.body.append(tip);
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - box.width - 8)}px`;
      tip.style.top = `${Math.min(event.clientY + 14, innerHeight - box.height - 8)}px`;
    });
    element.addEventListener("mouseleave", hideTip);
    return element;
  };

  // Routes: the overview at "#", an episode at "#<id>".

  const order = { list: episodes.slice() };
  const open = (episode) => { location.hash = encodeURIComponent(episode.id); };
  const overviewState = { text: "", env: "", end: "", group: "", from: "", to: "", worst: false, groups: GROUPS_AT_ONCE, sort: "index", down: false, scroll: 0, shown: ROWS_AT_ONCE };
  let keys = {};
  let leave = () => {};

  const route = async () => {
    leave();
    leave = () => {};
    hideTip();
    const { hash } = location;
    let id = "";
    try { id = decodeURIComponent(hash.slice(1)); } catch { /* not one of ours */ }
    const episode = episodes.find((one) => one.id === id);
    keys = {};
    const page = episode
      ? await detailsOf(episode).then((details) => () => episodePage(episode, details), (error) => () => unreadablePage(episode, error))
      : overviewPage;
    if (location.hash !== hash) return;  // its reader has gone on meanwhile
    app.replaceChildren(...page());
    scrollTo(0, episode ? 0 : overviewState.scroll);
  };

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (typing && event.key === "Escape") event.target.blur();
    const action = keys[event.key];
    if (!action || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return;
    event.preventDefault();
    action();
  });

  // Theme.

  const root = document.documentElement;
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("muxsim-theme"); } catch { return null; } };
  const setTheme = (theme) => { root.dataset.theme = theme; };
  setTheme(remembered() || (preferred.matches ? "dark" : "light"));
  preferred.addEventListener("change", () => { if (!remembered()) setTheme(preferred.matches ? "dark" : "light"); });
  const themeButton = () => h("button", {
    class: "button",
    title: "Light or dark",
    "aria-label": "Light or dark",
    onclick: () => {
      const theme = root.dataset.theme === "dark" ? "light" : "dark";
      setTheme(theme);
      try { localStorage.setItem("muxsim-theme", theme); } catch { /* a file may not keep anything */ }
    },
  }, "◐");
  const brand = () => h("a", { class: "brand", href: "#" }, "mux", h("span", null, "sim"));

  // The overview.

  const policyName = () => {
    const { kind, model, name, ...rest } = config.policy;
    const main = [kind, model || name].filter(Boolean).join(" · ") || "policy";
    const more = Object.entries(rest).filter(([, value]) => value !== null && typeof value !== "object");
    return [h("b", null, main), more.map(([key, value]) => ` ${words(key)} ${value}`).join(",")];
  };

  const tile = (name, value, more, attributes) =>
    h("div", { class: "panel tile", ...attributes }, h("div", { class: "name" }, name), h("div", { class: "value" }, value),
      h("div", { class: "more" }, more || " "));

  const tiles = () => {
    const failed = metrics.episodes - metrics.valid;
    const known = metrics.mean_reward !== null;
    const tokens = metrics.usage.total_tokens;
    return h("section", { class: "tiles" },
      tile("Episodes", metrics.episodes.toLocaleString("en"),
        failed ? h("span", { class: "negative" }, `${failed} failed, ${metrics.valid} valid`) : "all valid"),
      envs.length > 1 ? tile("Mean reward", h("div", { class: "lines" }, envs.map((env) => {
        const mean = metrics.environments[env].mean_reward;
        return [dot(color(env)), h("span", null, env), h("span", { class: "number", title: within(metrics.environments[env].mean_interval) },
          mean === null ? "–" : number(mean))];
      })), "") : tile("Mean reward", known ? number(metrics.mean_reward) : "–",
        known ? [metrics.mean_interval ? `95 %: ${within(metrics.mean_interval)}` : null, fewer(metrics),
          h("div", null, `median ${number(metrics.median_reward)}, ${number(metrics.min_reward)} to ${number(metrics.max_reward)}`)] : "no episode is scored"),
      known ? tile("Success", percent(metrics.success_rate), [
        metrics.success_interval ? `95 %: ${within(metrics.success_interval, percent)}` : null,
        h("div", null, Object.entries(metrics.pass_at_k).filter(([k]) => k !== "1").map(([k, one]) => `pass@${k} ${percent(one.value)}`).join(", ")),
      ]) : null,
      tile("Steps", metrics.steps.toLocaleString("en"),
        metrics.episodes ? `${number(metrics.steps / metrics.episodes, 1)} per episode` : null),
      tile("Steps per second", metrics.steps_per_second === null ? "–" : number(metrics.steps_per_second, 1),
        `over ${seconds(metrics.seconds)}`),
      tokens ? tile("Tokens", compact(tokens), `${compact(metrics.usage.completion_tokens)} written`) : null);
  };

  const isScored = (one) => one.valid && one.reward !== null;
  const scale = (from, to, low, high) => (value) => low + ((value - from) / (to - from || 1)) * (high - low);

  const ticksOf = (low, high, about) => {
    const rough = (high - low) / (about - 1) || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough) * power;
    const ticks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) ticks.push(Math.round(tick / step) * step);
    return ticks;
  };

  // One picture for each environment: their rewards have nothing in common but the name.
  const rewardChart = (env, height, last) => {
    const mine = episodes.filter((one) => one.env === env);
    const scored = mine.filter(isScored);
    const [width, left, bottom, side] = [700, 46, height - (last ? 22 : 4), 100];
    const right = width - side - 14;
    let low = Math.min(...scored.map((one) => one.reward), scored.length ? Infinity : 0);
    let high = Math.max(...scored.map((one) => one.reward), scored.length ? -Infinity : 1);
    if (low === high) { low -= 0.5; high += 0.5; }
    const x = scale(0, Math.max(1, episodes.length - 1), left + 8, right - 6);
    const y = scale(low, high, bottom - 16, 10);
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, class: color(env), role: "img", "aria-label": `Rewards of ${env} over the run` });
    for (const tick of ticksOf(low, high, height > 200 ? 5 : 4)) {
      svg.append(s("line", { class: "grid", x1: left, x2: width, y1: y(tick), y2: y(tick) }),
        s("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, number(tick)));
    }
    const radius = episodes.length > 400 ? 2 : episodes.length > 120 ? 3 : 4;
    for (const one of mine) {
      const about = `${one.id}\n${words(one.end)}, ${isScored(one) ? `reward ${number(one.reward)}` : "no reward"}, ${many(one.steps, "step")}`;
      const at = x(one.index);
      const mark = isScored(one)
        ? s("circle", { class: "point", cx: at, cy: y(one.reward), r: radius, onclick: () => open(one) })
        : s("path", { class: "cross", d: `M${at - 3} ${bottom - 5}l6 6m0 -6l-6 6`, onclick: () => open(one) });
      svg.append(tipped(mark, about));
    }
    svg.append(trend(scored, x, y), ...histogram(scored, low, high, y, right + 14, width));
    if (!last) return svg;
    svg.append(
      s("text", { x: x(0), y: height - 3 }, "1"),
      s("text", { x: x(Math.max(1, episodes.length - 1)), y: height - 3, "text-anchor": "end" }, episodes.length),
      s("text", { x: (left + right) / 2, y: height - 3, "text-anchor": "middle" }, "episodes, in the order in which they ended"),
      s("text", { x: right + 14, y: height - 3 }, "distribution"));
    return svg;
  };

  const rewardFigure = () => {
    const height = envs.length === 1 ? 282 : Math.max(104, 320 / envs.length);
    return h("figure", { class: "panel chart" },
      h("header", null, h("h2", null, "Reward"),
        h("div", { class: "legend" }, h("span", null, "— running mean"),
          metrics.episodes > metrics.scored ? h("span", null, h("span", { class: "negative" }, "✕"), "without a reward") : null)),
      envs.map((env, index) => {
        const last = index === envs.length - 1;
        const summary = metrics.environments[env];
        const mean = summary.mean_reward === null ? "no episode is scored" : `mean ${number(summary.mean_reward)}, median ${number(summary.median_reward)}`;
        return [h("div", { class: "legend" }, envTag(env), h("span", null, `${many(summary.episodes, "episode")}, ${mean}`)), rewardChart(env, last ? height + 18 : height, last)];
      }));
  };

  // The mean over a window around each episode.
  const trend = (scored, x, y) => {
    const reach = Math.max(2, Math.round(scored.length / 24));
    const sums = [0];
    scored.forEach((one) => sums.push(sums[sums.length - 1] + one.reward));
    const points = scored.map((one, index) => {
      const [from, to] = [Math.max(0, index - reach), Math.min(scored.length, index + reach + 1)];
      return `${x(one.index).toFixed(1)},${y((sums[to] - sums[from]) / (to - from)).toFixed(1)}`;
    });
    return scored.length > 4 ? s("polyline", { class: "trend", points: points.join(" ") }) : s("g");
  };

  const histogram = (scored, low, high, y, left, right) => {
    const count = Math.min(16, Math.max(8, Math.round(Math.sqrt(scored.length))));
    const bins = Array(count).fill(0);
    scored.forEach((one) => { bins[Math.min(count - 1, Math.floor(((one.reward - low) / (high - low)) * count))] += 1; });
    const wide = scale(0, Math.max(...bins), 0, right - left);
    const height = Math.abs(y(high) - y(low)) / count;
    return bins.map((held, index) => held && tipped(s("rect", {
      class: "column", x: left, width: Math.max(2, wide(held)), y: y(low) - height * (index + 1) + 1, height: Math.max(1, height - 2), rx: 2,
    }), `${many(held, "episode")} from ${number(low + ((high - low) * index) / count)} to ${number(low + ((high - low) * (index + 1)) / count)}`)).filter(Boolean);
  };

  // A bar of parts: [what the mouse is told, how much, what it is painted with].
  const shares = (parts) => {
    const total = parts.reduce((sum, [, value]) => sum + value, 0);
    return h("div", { class: "bar" }, parts.map(([about, value, kind]) => {
      const part = painted(tipped(h("span", { class: kind }), about), kind);
      part.style.flexGrow = String((100 * value) / total);  // shares below 1 in all would leave a gap
      return part;
    }));
  };

  const endKind = (end) => (FAILED.has(end) ? "k-bad" : { terminated: "k2", truncated: "k4", max_steps: "k1", no_tool_call: "k5", token_limit: "k3" }[end]);
  const painted = (element, kind) => { if (kind === "k-bad") element.style.background = "var(--bad)"; return element; };

  const endings = (setEnd) => {
    const entries = Object.entries(metrics.end_reasons);
    const bar = shares(entries.map(([end, count]) => [`${words(end)}: ${many(count, "episode")}`, count, endKind(end)]));
    const lines = entries.map(([end, count]) => {
      const mark = painted(dot(endKind(end)), endKind(end));
      return [mark, h("button", { title: "Show these", onclick: () => setEnd(end) }, words(end)),
        h("span", { class: "number" }, `${count} · ${Math.round((100 * count) / metrics.episodes)} %`)];
    });
    return h("section", null, h("h2", null, "How episodes ended"), h("div", { class: "lines" }), bar, h("div", { class: "lines" }, lines));
  };

  const stageBar = (times, format) => {
    const parts = STAGES.map((stage, index) => [stage, times[stage] || 0, `k${index % 6}`]).filter(([, value]) => value > 0);
    // What was throttled is a part of the model's time: in the bar it has its place beside the rest of that.
    const share = (stage, value) => (stage === "model" ? Math.max(0, value - (times.throttled || 0)) : value);
    const bar = shares(parts.map(([stage, value, kind]) => [`${stage}: ${seconds(value)}`, share(stage, value), kind]));
    const name = (stage) => (stage === "throttled" ? "of it throttled" : stage);
    const lines = parts.map(([stage, value, kind]) => [dot(kind), h("span", null, name(stage)), h("span", { class: "number" }, format(stage, value))]);
    return [bar, h("div", { class: "lines" }, lines)];
  };

  const stages = () => {
    const totals = Object.fromEntries(Object.entries(metrics.times).map(([stage, spread]) => [stage, spread.total]));
    return h("section", null, h("h2", null, "Where the time of an episode goes"), h("div", { class: "lines" }),
      stageBar(totals, (stage) => `${seconds(metrics.times[stage].mean)} · at most ${seconds(metrics.times[stage].longest)}`));
  };

  const spark = (episode) => {
    const { curve } = episode;
    const svg = s("svg", { class: `spark ${color(episode.env)}`, viewBox: "0 0 96 20", preserveAspectRatio: "none" });
    if (curve.length > 1) {
      const x = scale(0, curve.length - 1, 1, 95);
      const y = scale(Math.min(...curve), Math.max(...curve), 17, 3);
      svg.append(s("polyline", { class: "rail", points: curve.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
    }
    return svg;
  };

  const COLUMNS = [
    { key: "index", name: "#", number: true, cell: (one) => h("span", { class: "zero" }, one.index + 1) },
    { key: "id", name: "Episode", kind: "name", cell: (one) => h("a", { href: `#${encodeURIComponent(one.id)}`, title: one.id }, one.id) },
    { key: "env", name: "Environment", cell: (one) => envTag(one.env) },
    { key: "seed", name: "Seed", number: true, cell: (one) => one.seed },
    { key: "end", name: "End", cell: endTag },
    { key: "steps", name: "Steps", number: true, cell: (one) => one.steps },
    { key: "reward", name: "Reward", number: true, cell: (one) => h("span", { class: signOf(one.reward) }, reward(one.reward)) },
    { key: "", name: "Sum of rewards", number: true, cell: spark },
    { key: "tokens", name: "Tokens", number: true, cell: (one) => (one.tokens ? compact(one.tokens) : "–") },
    { key: "seconds", name: "Time", number: true, cell: (one) => seconds(one.seconds) },
    { key: "valid", name: "Valid", cell: (one) => (one.valid ? h("span", { class: "positive" }, "✓") : h("span", { class: "negative" }, "✕ failed")) },
  ];

  const compare = (key, down) => (a, b) => {
    const [one, other] = [a[key], b[key]];
    if (one === null || other === null) return one === other ? a.index - b.index : one === null ? 1 : -1;
    const result = typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
    return (down ? -result : result) || a.index - b.index;
  };

  const inReach = (one) => {
    const [from, to] = [overviewState.from, overviewState.to].map((text) => (text.trim() === "" ? null : Number(text)));
    return (from === null || (isScored(one) && one.reward >= from)) && (to === null || (isScored(one) && one.reward <= to));
  };

  const chosen = () => {
    const { text, env, end, group, sort, down } = overviewState;
    const needle = text.trim().toLowerCase();
    return episodes
      .filter((one) => (!env || one.env === env) && (!group || one.row === group) && inReach(one)
        && (!end || one.end === end || (end === "valid" && one.valid) || (end === "failed" && !one.valid))
        && (!needle || `${one.id} ${one.env} ${one.seed} ${words(one.end)}`.toLowerCase().includes(needle)))
      .sort(compare(sort, down));
  };

  // The rows that were played several times: the best first, or the worst.
  const groups = (setGroup) => {
    if (!metrics.rows.length) return null;
    const body = h("tbody");
    const more = h("div", { class: "empty" });
    const order = h("button", { class: "button", onclick: () => { overviewState.worst = !overviewState.worst; draw(); } });
    const cells = (one) => [
      h("td", { class: "name" }, one.row), h("td", null, envTag(one.env)),
      h("td", { class: "number" }, one.scored === one.episodes ? one.episodes : `${one.scored} of ${one.episodes}`),
      h("td", { class: "number" }, reward(one.mean_reward)), h("td", { class: "number" }, within(one.mean_interval) || "–"),
      h("td", { class: "number" }, reward(one.std_reward)),
      h("td", { class: "number" }, one.mean_reward === null ? "–" : `${number(one.min_reward)} to ${number(one.max_reward)}`),
      h("td", { class: "number" }, one.success_rate === null ? "–" : percent(one.success_rate)),
    ];
    const draw = () => {
      const scored = metrics.rows.filter((one) => one.mean_reward !== null);
      const rest = metrics.rows.filter((one) => one.mean_reward === null);
      const sorted = [...(overviewState.worst ? scored.reverse() : scored), ...rest];
      const shown = sorted.slice(0, overviewState.groups);
      body.replaceChildren(...shown.map((one) => h("tr", { title: "Show its episodes", onclick: () => setGroup(one.row) }, cells(one))));
      order.textContent = overviewState.worst ? "worst first" : "best first";
      more.hidden = shown.length === sorted.length;
      more.replaceChildren(h("button", { class: "button", onclick: () => { overviewState.groups *= 10; draw(); } }, `Show more of ${sorted.length}`));
    };
    draw();
    const names = [["Row"], ["Environment"], ["Episodes", 1], ["Mean", 1], ["95 %", 1], ["Deviation", 1], ["Rewards", 1], ["Success", 1]];
    return h("section", { class: "panel groups" },
      h("div", { class: "tools" }, h("h2", null, "Groups"), h("span", { class: "count" }, many(metrics.rows.length, "row")), h("span", { class: "grow" }), order),
      h("div", { class: "scroll" }, h("table", null,
        h("thead", null, h("tr", null, names.map(([name, isNumber]) => h("th", { class: isNumber && "number" }, h("button", { disabled: true }, name))))), body)),
      more);
  };

  const option = (value, name, current) => h("option", { value, selected: value === current }, name);

  const overviewPage = () => {
    const body = h("tbody");
    const head = h("tr");
    const count = h("span", { class: "count" });
    const more = h("div", { class: "empty" });
    const search = h("input", {
      type: "search", placeholder: "Find an episode…", "aria-label": "Find an episode", value: overviewState.text,
      oninput: () => { overviewState.text = search.value; draw(); },
    });
    const env = h("select", { "aria-label": "Environment", onchange: () => { overviewState.env = env.value; draw(); } },
      option("", "all environments", overviewState.env), envs.map((name) => option(name, name, overviewState.env)));
    const end = h("select", { "aria-label": "End", onchange: () => { overviewState.end = end.value; draw(); } },
      option("", "all ends", overviewState.end), option("valid", "valid", overviewState.end), option("failed", "failed", overviewState.end),
      Object.keys(metrics.end_reasons).map((name) => option(name, words(name), overviewState.end)));
    const bound = (key, name) => {
      const input = h("input", {
        type: "number", step: "any", class: "bound", placeholder: `reward ${name}`, "aria-label": `Reward ${name}`, value: overviewState[key],
        oninput: () => { overviewState[key] = input.value; draw(); },
      });
      return input;
    };
    const group = h("button", { class: "button", title: "Show all rows again", onclick: () => setGroup("") });
    const setGroup = (name) => { overviewState.group = name; draw(); if (name) search.scrollIntoView({ block: "center" }); };
    const setEnd = (name) => { overviewState.end = end.value = name; draw(); search.scrollIntoView({ block: "center" }); };

    const drawHead = () => head.replaceChildren(...COLUMNS.map((column) => {
      const sorted = column.key && overviewState.sort === column.key;
      const arrow = sorted ? (overviewState.down ? " ↓" : " ↑") : "";
      return h("th", { class: column.number && "number", "aria-sort": sorted ? (overviewState.down ? "descending" : "ascending") : null },
        h("button", {
          disabled: !column.key,
          onclick: () => {
            overviewState.down = sorted ? !overviewState.down : ["reward", "steps", "seconds", "tokens"].includes(column.key);
            overviewState.sort = column.key;
            draw();
          },
        }, column.name + arrow));
    }));

    const line = (one) => h("tr", { onclick: (event) => { if (event.target.tagName !== "A") open(one); } },
      COLUMNS.map((column) => h("td", { class: column.kind || (column.number && "number") }, column.cell(one))));

    const drawRows = () => {
      const { shown } = overviewState;
      body.append(...order.list.slice(body.childElementCount, shown).map(line));
      const rest = order.list.length - body.childElementCount;
      more.replaceChildren(...(rest > 0 ? [h("button", {
        class: "button", onclick: () => { overviewState.shown += ROWS_AT_ONCE; drawRows(); },
      }, `Show ${Math.min(rest, ROWS_AT_ONCE)} more of ${rest}`)] : order.list.length ? [] : ["No episode is like that."]));
      more.hidden = rest <= 0 && order.list.length > 0;
    };

    const draw = () => {
      order.list = chosen();
      overviewState.shown = ROWS_AT_ONCE;
      body.replaceChildren();
      drawHead();
      drawRows();
      group.hidden = !overviewState.group;
      group.textContent = `row ${overviewState.group} ✕`;
      count.textContent = order.list.length === episodes.length ? many(episodes.length, "episode") : `${order.list.length} of ${many(episodes.length, "episode")}`;
    };

    const sorted = overviewState.shown;
    draw();
    if (sorted > ROWS_AT_ONCE) { overviewState.shown = sorted; drawRows(); }
    keys = { "/": () => search.focus() };
    leave = () => { overviewState.scroll = scrollY; };

    return [
      h("div", { class: "top" }, brand(), h("span", null, "run report"), h("span", { class: "grow" }), themeButton()),
      h("div", { class: "title" }, h("h1", null, run.name),
        metrics.complete ? h("span", { class: "chip good" }, "complete") : h("span", { class: "chip bad" }, "incomplete")),
      h("div", { class: "under" },
        h("span", null, policyName()), envs.map(envTag),
        h("span", null, when(metrics.started_at || config.started_at)),
        config.dataset ? h("span", null, config.dataset) : null,
        config.url ? h("span", null, config.url) : null,
        h("span", null, `muxsim ${config.muxsim}`)),
      incompleteness(),
      tiles(),
      h("section", { class: "charts" },
        rewardFigure(),
        h("div", { class: "panel chart bars" }, endings(setEnd), stages())),
      groups(setGroup),
      h("section", { class: "panel" },
        h("div", { class: "tools" }, h("h2", null, "Episodes"), count, group, h("span", { class: "grow" }), search,
          bound("from", "at least"), bound("to", "at most"), env, end),
        h("div", { class: "scroll" }, h("table", null, h("thead", null, head), body)), more),
      h("details", { class: "panel facts" }, h("summary", null, "What was run"), h("pre", null, JSON.stringify(config, null, 2))),
    ].filter(Boolean);
  };

  const incompleteness = () => {
    if (metrics.complete) return null;
    const missing = metrics.planned === null ? null : metrics.planned - metrics.episodes;
    const what = missing ? `${many(missing, "episode")} of ${metrics.planned} are not on record.` : "The run has not come to its end.";
    return h("div", { class: "panel alert" }, h("h2", null, what), metrics.problem ? h("pre", null, metrics.problem) : null);
  };

  // An episode.

  const blockImage = (block) => {
    if (!block || typeof block !== "object") return null;
    if (block.type === "image") return block.path || "";
    if (block.type === "image_url") return (block.image_url && block.image_url.url) || String(block.image_url || "");
    return null;
  };
  const isText = (block) => block && block.type === "text" && typeof block.text === "string";

  const picture = (reference, attributes) => {
    const url = imageUrl(reference);
    if (url) return h("img", { src: url, alt: "", ...attributes });
    return h("span", { class: "none" }, reference ? `[image: ${reference.slice(0, 120)}]` : "[image]");
  };

  // Content as it stands in a message or a result: text, or blocks of it.
  const contentOf = (content) => {
    if (content === null || content === undefined || content === "") return [];
    if (typeof content === "string") return [h("pre", null, terminal(content))];
    if (!Array.isArray(content)) return [h("pre", null, JSON.stringify(content, null, 2))];
    return content.map((block) => {
      const image = blockImage(block);
      if (image !== null) return picture(image);
      return h("pre", null, isText(block) ? terminal(block.text) : JSON.stringify(block, null, 2));
    });
  };

  const CLIPPED_LINES = 28;
  const clipped = (element) => {
    const text = element.textContent;
    if (text.split("\n").length <= CLIPPED_LINES && text.length < 3000) return [element];
    element.classList.add("clipped");
    const button = h("button", {
      class: "unclip",
      onclick: (event) => { event.stopPropagation(); element.classList.remove("clipped"); button.remove(); },
    }, "Show all");
    return [element, button];
  };

  const short = (value) => (typeof value === "string" ? JSON.stringify(value) : JSON.stringify(value) || "");
  const callText = (tool, args) => {
    const known = args && typeof args === "object" && !Array.isArray(args);
    const list = known ? Object.entries(args).map(([key, value]) => `${key}: ${short(value)}`).join(", ") : String(args ?? "");
    return [h("span", { class: "tool" }, tool), `(${list})`];
  };

  const parsed = (text) => { try { return JSON.parse(text); } catch { return text; } };

  const rewardOf = (step) => (step.control ? step.control.reward : null);

  const controlCell = (step, total) => {
    const { control } = step;
    const took = [["model", step.model_seconds], ["tool", step.tool_seconds], ["control", step.control_seconds]].filter(([, value]) => value > 0);
    const times = took.length ? h("div", { class: "took" }, took.map(([name, value]) => `${name} ${seconds(value)}`).join(" · ")) : null;
    if (!control) return h("div", { class: "unseen" }, h("span", { class: "none" }, "no control plane"), times);
    const value = control.reward;
    const info = Object.entries(control.info || {});
    return h("div", { class: "unseen" },
      h("span", { class: `reward ${signOf(value)}` }, value === null ? "no reward" : signed(value)),
      value === null ? null : h("span", { class: "sum" }, `  Σ ${number(total)}`),
      h("div", { class: "flags" },
        control.terminated ? h("span", { class: "chip plain" }, "terminated") : null,
        control.truncated ? h("span", { class: "chip warn" }, "truncated") : null),
      control.problem ? h("div", { class: "negative" }, control.problem) : null,
      info.length ? h("table", null, info.map(([key, item]) => h("tr", null, h("td", null, key), h("td", null, short(item))))) : null,
      times);
  };

  const stepRow = (step, total, seek) => h("div", { class: "row step", "data-step": step.index, onclick: () => { if (!String(getSelection())) seek(step.index + 1); } },
    h("div", { class: "seen" },
      h("div", { class: "call" }, h("span", { class: "index", title: "step" }, step.index), h("code", null, callText(step.tool, step.arguments))),
      clipped(h("div", { class: step.is_error ? "result error" : "result" },
        step.content.length ? contentOf(step.content)
          : step.structured !== null && step.structured !== undefined ? h("pre", null, JSON.stringify(step.structured, null, 2))
            : h("span", { class: "none" }, "(no content)")))),
    controlCell(step, total));

  const unplayed = (call) => h("div", { class: "call" }, h("span", { class: "index" }, "–"),
    h("code", null, callText(call.function?.name || "?", parsed(call.function?.arguments ?? ""))), h("span", { class: "none" }, "not carried out"));

  const replyRow = (message, carriedOut) => {
    const reasoning = message.reasoning_content || message.reasoning;
    const rest = (message.tool_calls || []).filter((call) => !carriedOut.has(call.id));
    const said = contentOf(message.content);
    const cut = message.finish_reason && !["stop", "tool_calls"].includes(message.finish_reason);
    if (!said.length && !reasoning && !rest.length && !cut) return null;
    return h("div", { class: "row reply" },
      h("div", { class: "seen" }, h("span", { class: "who" }, "assistant"),
        cut ? h("span", { class: "chip warn" }, message.finish_reason) : null,
        typeof reasoning === "string" ? clipped(h("div", { class: "words reasoning" }, reasoning)) : null,
        said.length ? clipped(h("div", { class: "words" }, typeof message.content === "string" ? terminal(message.content) : said)) : null,
        rest.map(unplayed)),
      h("div", { class: "unseen" }));
  };

  // Frames are shown to a model in a message of their own; here they are with their step already.
  const repeatsFrames = (message, frames) => {
    if (message.role !== "user" || !Array.isArray(message.content)) return false;
    const images = message.content.map(blockImage).filter((image) => image !== null);
    return images.length > 0 && images.every((image) => frames.has(image));
  };

  const messageRow = (message) => h("div", { class: "row message" },
    h("div", { class: "seen" }, h("span", { class: "who" }, String(message.role)),
      clipped(h("div", { class: message.role === "user" ? "words mono" : "words" },
        typeof message.content === "string" ? terminal(message.content) : contentOf(message.content)))),
    h("div", { class: "unseen" }));

  const story = (details, seek) => {
    const carriedOut = new Set(details.steps.map((step) => step.call_id));
    const frames = new Set();
    let total = 0;
    const rows = details.messages.map((message) => {
      if (message.role === "tool" && typeof message.step === "number") {
        const step = details.steps[message.step];
        total += rewardOf(step) || 0;
        step.content.map(blockImage).forEach((image) => { if (image) frames.add(image); });
        return stepRow(step, total, seek);
      }
      if (message.role === "assistant") return replyRow(message, carriedOut);
      return repeatsFrames(message, frames) ? null : messageRow(message);
    });
    return h("section", { class: "panel story" },
      h("div", { class: "row head" }, h("div", { class: "seen" }, "What the agent saw and did"),
        h("div", { class: "unseen" }, "Hidden: control plane")),
      rows, h("div", { class: "end" }, "The episode ended: ", h("b", null, words(details.end_reason)),
        details.total_reward === null ? ", without a reward." : ["; reward ", h("b", { class: signOf(details.total_reward) }, number(details.total_reward)), "."]));
  };

  // The player: the start, then what each step showed.

  const observed = (content) => {
    if (typeof content === "string") return { images: [], text: content };
    if (!Array.isArray(content) || !content.every((block) => block && typeof block === "object" && block.type)) {
      return { images: [], text: content === null || content === undefined ? "" : JSON.stringify(content, null, 2) };
    }
    return {
      images: content.map(blockImage).filter(Boolean),
      text: content.filter(isText).map((block) => block.text).join("\n"),
    };
  };

  const framesOf = (details) => {
    const start = details.initial_state && observed(details.initial_state.observation);
    const first = { ...(start || { images: [], text: "" }), step: null, total: 0, missing: !start };
    let total = 0;
    return [first, ...details.steps.map((step) => {
      total += rewardOf(step) || 0;
      return { ...observed(step.content), step, total };
    })];
  };

  const player = (details, episode) => {
    const frames = framesOf(details);
    const filmed = frames.some((frame) => frame.images.length);
    const screen = h("div", { class: "screen" });
    const said = h("div", { class: "said mono" });
    const doing = h("div", { class: "doing" });
    const place = h("span", { class: "count" });
    const play = h("button", { class: "button", "aria-label": "Play", onclick: () => toggle() }, icon("play"));
    const speed = h("select", { "aria-label": "Speed", onchange: () => { if (timer) { stop(); toggle(); } } },
      ["1", "2", "4", "8", "16"].map((value) => option(value, `${value} / s`, "4")));
    const cells = frames.map((frame, index) => h("button", { class: "cell", "aria-label": `Step ${index}`, onclick: () => seek(index) },
      frame.images[0] && imageUrl(frame.images[0]) ? h("img", { src: imageUrl(frame.images[0]), alt: "", loading: "lazy", decoding: "async" }) : null,
      h("div", { class: `tick ${frame.step ? signOf(rewardOf(frame.step)) : "zero"}` }, index ? index - 1 : "start")));
    const strip = h("div", { class: "strip" }, cells);
    const { svg, point } = railOf(frames, color(episode.env), (index) => seek(index));
    const earned = h("div");
    let at = 0;
    let timer = null;

    const show = () => {
      const frame = frames[at];
      const url = frame.images.length ? imageUrl(frame.images[0]) : null;
      if (url) {
        let image = screen.querySelector("img");
        if (!image) {
          image = h("img", { alt: "What the agent saw" });
          image.addEventListener("load", () => { image.classList.toggle("small", image.naturalWidth < 160); });
          screen.replaceChildren(image);
        }
        image.src = url;
      } else if (frame.images.length) {
        screen.replaceChildren(h("div", { class: "note" }, "This report has no room for the image: ", h("code", null, frame.images[0])));
      } else {
        screen.replaceChildren(frame.text ? h("pre", null, terminal(frame.text))
          : h("div", { class: "note" }, frame.missing ? "Nothing was shown before the first step." : "Nothing was shown."));
      }
      said.replaceChildren(...(frame.images.length ? terminal(frame.text) : []));
      said.hidden = !filmed;
      doing.replaceChildren(...(frame.step ? [h("code", null, callText(frame.step.tool, frame.step.arguments))] : [h("span", { class: "zero" }, "the start")]));
      place.textContent = frames.length > 1 ? `${at ? `step ${at - 1}` : "start"} / ${frames.length - 2}` : "";
      cells.forEach((cell, index) => { if (index === at) cell.setAttribute("aria-current", "true"); else cell.removeAttribute("aria-current"); });
      const cell = cells[at];
      strip.scrollLeft = cell.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + cell.clientWidth / 2;
      const value = frame.step && rewardOf(frame.step);
      earned.replaceChildren(...(frame.step
        ? [h("span", { class: `reward ${signOf(value)}` }, value === null ? "no reward" : signed(value)), h("span", { class: "sum" }, `  Σ ${number(frame.total)}`)]
        : [h("span", { class: "none" }, "nothing earned yet")]));
      point(at);
      app.querySelectorAll(".row.current").forEach((row) => row.classList.remove("current"));
      const row = at ? app.querySelector(`.row.step[data-step="${at - 1}"]`) : null;
      if (row) {
        row.classList.add("current");
        const box = row.getBoundingClientRect();
        const far = box.top < -innerHeight || box.bottom > 2 * innerHeight;
        if (shownOnce && (box.top < 60 || box.bottom > innerHeight)) {
          row.scrollIntoView({ block: "center", behavior: timer || far ? "auto" : "smooth" });
        }
      }
      shownOnce = true;
    };
    let shownOnce = false;
    const seek = (index) => { at = Math.max(0, Math.min(frames.length - 1, index)); show(); };
    const stop = () => { clearInterval(timer); timer = null; play.replaceChildren(icon("play")); play.setAttribute("aria-label", "Play"); };
    const toggle = () => {
      if (timer) { stop(); return; }
      if (at === frames.length - 1) at = 0;
      play.replaceChildren(icon("pause"));
      play.setAttribute("aria-label", "Pause");
      timer = setInterval(() => { if (at < frames.length - 1) seek(at + 1); else stop(); }, 1000 / Number(speed.value));
      show();
    };
    const button = (label, sign, action) => h("button", { class: "button", "aria-label": label, title: label, onclick: action }, icon(sign));
    const element = h("section", { class: "panel player" }, screen, said, doing,
      h("div", { class: "controls" }, button("First", "first", () => seek(0)), button("Back", "back", () => seek(at - 1)), play,
        button("On", "on", () => seek(at + 1)), button("Last", "last", () => seek(frames.length - 1)), speed, h("span", { class: "grow" }), place),
      strip,
      h("div", { class: "plane" }, h("h3", null, "Control plane"), earned, svg));
    return { element, seek, stop, show, step: (by) => seek(at + by), last: frames.length - 1, toggle };
  };

  const railOf = (frames, kind, seek) => {
    const [width, height] = [420, 64];
    const totals = frames.map((frame) => frame.total);
    const x = scale(0, Math.max(1, frames.length - 1), 4, width - 4);
    const y = scale(Math.min(...totals), Math.max(...totals), height - 6, 6);
    const flat = Math.min(...totals) === Math.max(...totals);
    const at = (value) => (flat ? height / 2 : y(value));
    const cursor = s("line", { class: "cursor", y1: 0, y2: height });
    const here = s("circle", { class: "here", r: 4 });
    const svg = s("svg", {
      viewBox: `0 0 ${width} ${height}`, class: kind, role: "img", "aria-label": "Sum of rewards",
      onclick: (event) => {
        const box = svg.getBoundingClientRect();
        seek(Math.round(((event.clientX - box.left) / box.width) * (frames.length - 1)));
      },
    }, s("rect", { class: "hit", width, height }),
    flat || Math.min(...totals) > 0 || Math.max(...totals) < 0 ? null : s("line", { class: "grid", x1: 0, x2: width, y1: y(0), y2: y(0) }),
    s("polyline", { class: "rail", points: totals.map((value, index) => `${x(index).toFixed(1)},${at(value).toFixed(1)}`).join(" ") }), cursor, here);
    const point = (index) => {
      cursor.setAttribute("x1", x(index));
      cursor.setAttribute("x2", x(index));
      here.setAttribute("cx", x(index));
      here.setAttribute("cy", at(totals[index]));
    };
    return { svg, point };
  };

  const facts = (details, episode) => {
    const { usage, times } = details;
    const entry = (name, value) => (value === null || value === undefined || value === "" ? null : [h("dt", null, name), h("dd", null, value)]);
    const json = (name, value) => (value === null || value === undefined ? null
      : h("details", null, h("summary", null, name), h("pre", null, JSON.stringify(value, null, 2))));
    const raw = h("details", {
      ontoggle: () => { if (raw.open && raw.childElementCount === 1) raw.append(h("pre", null, JSON.stringify(details, null, 2))); },
    }, h("summary", null, "This episode as JSON"));
    return h("section", { class: "panel facts" },
      h("dl", null,
        entry("environment", envTag(details.env)), entry("seed", String(details.seed)),
        details.row === details.id ? null : entry("row", `${details.row}, sample ${details.sample}`),
        entry("session", h("span", { class: "mono" }, details.session)),
        entry("started", when(details.started_at)), entry("took", seconds(details.seconds)),
        Object.entries(details.scores).map(([name, value]) => entry(name, number(value))),
        usage.total_tokens ? entry("tokens", `${compact(usage.prompt_tokens)} read, ${compact(usage.completion_tokens)} written`) : null),
      stageBar(times, (_, value) => seconds(value)),
      json("Tools", run.tools[details.tools]), json("Evaluation criteria", details.evaluation_criteria), json("Info", details.info), raw);
  };

  // What a browser shows and does not run; whoever wrote these files may have written anything into them.
  const SHOWN = /\.(png|jpe?g|gif|webp|bmp|txt|log|csv|jsonl?|md|pdf)$/i;
  const kept = (details) => {
    if (!details.files.length && !details.files_problem) return null;
    const place = (file) => [run.place, file].map((path) => path.split("/").map(encodeURIComponent).join("/")).join("/");
    const link = ({ path, file }) => (SHOWN.test(path) ? h("a", { href: place(file), target: "_blank", rel: "noopener noreferrer" }, path) : h("span", { title: file }, path));
    return h("section", { class: "panel facts files" }, h("h2", null, "Files of its workspace"),
      h("dl", null, details.files.map((one) => [h("dt", null, link(one)), h("dd", { title: one.sha256 }, many(one.size, "byte"))])),
      details.files_problem ? h("p", { class: "negative" }, `Not kept: ${details.files_problem}`) : null);
  };

  const failure = (details, episode) => {
    if (!details.error && !details.stderr.length && !episode.images_left_out) return null;
    const title = details.valid ? "Something is amiss" : `The episode failed: ${words(details.end_reason)}`;
    return [
      details.error || details.stderr.length ? h("section", { class: details.valid ? "panel alert mild" : "panel alert" },
        h("h2", null, title), details.error ? h("p", null, details.error) : null,
        details.traceback ? h("pre", null, details.traceback) : null,
        details.stderr.length ? h("pre", null, terminal(details.stderr.join("\n"))) : null) : null,
      episode.images_left_out ? h("section", { class: "panel alert mild" },
        h("h2", null, `${many(episode.images_left_out, "image")} of this episode would make the report too large`)) : null,
    ];
  };

  const unreadablePage = (episode, error) => [
    h("div", { class: "top" }, brand(), h("a", { class: "button", href: "#" }, "← All episodes"), h("span", { class: "grow" }), themeButton()),
    h("div", { class: "title" }, h("h1", null, episode.id)),
    h("section", { class: "panel alert" }, h("h2", null, "This browser cannot unpack the episode"), h("pre", null, String(error))),
  ];

  const episodePage = (episode, details) => {
    const position = order.list.indexOf(episode);
    const list = position < 0 ? episodes : order.list;
    const place = position < 0 ? episode.index : position;
    const go = (by) => { const next = list[place + by]; if (next) open(next); };
    const film = player(details, episode);
    const side = h("div", { class: "side" }, details.steps.length || details.initial_state ? film.element : null, facts(details, episode), kept(details));
    keys = {
      ArrowRight: () => film.step(1), ArrowLeft: () => film.step(-1), Home: () => film.seek(0), End: () => film.seek(film.last),
      " ": film.toggle, j: () => go(1), k: () => go(-1), Escape: () => { location.hash = ""; },
    };
    leave = film.stop;
    queueMicrotask(film.show);
    return [
      h("div", { class: "top" }, brand(), h("a", { class: "button", href: "#" }, "← All episodes"),
        h("button", { class: "button", disabled: place === 0, onclick: () => go(-1) }, "Previous"),
        h("button", { class: "button", disabled: place === list.length - 1, onclick: () => go(1) }, "Next"),
        h("span", null, `${place + 1} of ${list.length}`), h("span", { class: "grow" }),
        h("span", null, h("kbd", null, "←"), " ", h("kbd", null, "→"), " steps  ", h("kbd", null, "space"), " play  ",
          h("kbd", null, "j"), " ", h("kbd", null, "k"), " episodes"), themeButton()),
      h("div", { class: "title" }, h("h1", null, episode.id), endTag(episode),
        h("span", { class: `reward ${signOf(episode.reward)}` }, episode.reward === null ? "no reward" : `reward ${number(episode.reward)}`)),
      h("div", { class: "under" }, envTag(episode.env), h("span", null, `seed ${episode.seed}`), h("span", null, many(episode.steps, "step")),
        h("span", null, seconds(episode.seconds))),
      failure(details, episode),
      h("div", { class: "episode" }, side, story(details, film.seek)),
    ].flat(2).filter(Boolean);
  };

  addEventListener("hashchange", route);
  route();
})();
