"""What perf/threads makes of its runs: medians, a recommendation, tables, plots."""

import json
import math
import os
import statistics

import evidence
from compare import cells

# metric, heading, how it is made readable
METRICS = {
    "gbit_s": "Gbit/s",
    "pps": "packets/s delivered",
    "cpu_s_per_gb": "CPU s/GB",
    "retransmits": "retransmits",
    "reordered": "out of order",
    "reorder_events": "reorder events",
    "switches_per_gb": "context switches/GB",
    "wakes_per_gb": "wake-ups/GB",
    "segments_per_train": "segments a train",
    "datagrams_per_receive": "datagrams a train in",
    **evidence.OTHERS,
}
NOTES = ("CPU, context switches and wake-ups are those of all sluice processes of the workload, per gigabyte delivered. Out of order: TCP segments that a "
         "receiver had to queue (TcpExtTCPOFOQueue), UDP datagrams that arrived after a later one. Reorder events: TCP senders that noticed "
         "(TCPSACKReorder, TCPTSReorder, TCPRenoReorder). Segments a train: of the end that seals most. Others: processes that are not of the "
         "measurement, kernel threads among them.")
TOLERANCE = 0.05


def throughput(values):
    """The metric that is a workload's throughput."""
    return "gbit_s" if "gbit_s" in values else "pps"


def summarise(runs):
    """{workload: {N: {metric: [values]}}} of the runs that worked."""
    out = {}
    for r in runs:
        if "error" in r:
            continue
        into = out.setdefault(r["workload"], {}).setdefault(r["n"], {})
        for metric in METRICS:
            if metric in r["result"]:
                into.setdefault(metric, []).append(r["result"][metric])
    return {w: dict(sorted(by_n.items())) for w, by_n in out.items()}


def bottleneck(runs, workload, n):
    """(thread, share of a core) that was busiest in the median run."""
    busy = {}
    for r in runs:
        if "error" not in r and r["workload"] == workload and r["n"] == n:
            for name, share in r["result"].get("busy", {}).items():
                busy.setdefault(name, []).append(share)
    if not busy:
        return None
    name = max(busy, key=lambda k: statistics.median(busy[k]))
    return name, statistics.median(busy[name])


def geometric_mean(values):
    return math.exp(sum(math.log(max(v, 1e-9)) for v in values) / len(values)) if values else 0


def scores_by_round(runs, best):
    """{N: [scores]}, one for each round in which every workload ran with N: the mean over the workloads of the throughput, as a ratio to `best`."""
    rounds = {}
    for r in runs:
        if "error" not in r:
            rounds.setdefault((r["n"], r["round"]), {})[r["workload"]] = r["result"][throughput(r["result"])]
    out = {}
    for (n, _), values in sorted(rounds.items()):
        if values.keys() == best.keys():
            out.setdefault(n, []).append(geometric_mean([values[w] / best[w] for w in best if best[w] > 0]))
    return out


def recommend(summary, runs):
    """The smallest N whose throughput, averaged over the workloads as a ratio to each one's best median, is within 5% of the best N's or does not
    differ from it significantly. "n" is None where the rounds do not allow a recommendation."""
    medians = {w: {n: statistics.median(v[throughput(v)]) for n, v in by_n.items()} for w, by_n in summary.items()}
    everywhere = [n for n in sorted({n for m in medians.values() for n in m}) if all(n in m for m in medians.values())]
    if not everywhere:
        return None
    best = {w: max(m.values()) for w, m in medians.items()}
    scores = {n: geometric_mean([m[n] / best[w] for w, m in medians.items() if best[w] > 0]) for n in everywhere}
    by_round = scores_by_round(runs, best)
    top = max(scores, key=scores.get)
    near = [n for n in everywhere if scores[n] >= (1 - TOLERANCE) * scores[top]]
    result = {"n": None, "scores": scores, "rounds": by_round, "test": evidence.TEST, "workloads": {}, "reasons": []}

    if len(everywhere) == 1:
        result["why"] = f"N={top} alone was measured"
    elif not all(evidence.can_tell(by_round.get(n, []), by_round.get(top, [])) for n in everywhere):
        fewest = min(len(by_round.get(n, [])) for n in everywhere)
        result["why"] = f"{fewest} complete round{'' if fewest == 1 else 's'} of some N cannot show a difference; measure at least four (--rounds 5)"
    else:
        choice = min(n for n in everywhere if n in near or not evidence.differ(by_round[n], by_round[top]))
        result["n"] = choice
        if choice == top:
            result["why"] = f"no other N of {', '.join(map(str, everywhere))} gave more over all workloads"
            others = [n for n in near if n != choice]
            if others:
                result["why"] += f"; {', '.join(f'N={n}' for n in others)} came within 5% but {'needs' if len(others) == 1 else 'need'} more threads"
        elif choice in near:
            result["why"] = f"N={top} gave the most over all workloads, N={choice} is within 5% of it with fewer threads"
        else:
            result["why"] = f"N={top} gave the most over all workloads, but N={choice}, with fewer threads, does not differ from it significantly"
        if len(medians) > 1:
            result["reasons"].append(f"over all workloads, beside N={top}: " + "; ".join(
                f"N={n} reaches {100 * scores[n] / scores[top]:.0f}%, {evidence.difference(by_round[n], by_round[top])}" for n in everywhere if n != top))
    losers = {}
    for w, m in medians.items():
        first = max(m, key=m.get)
        values = {n: summary[w][n][throughput(summary[w][n])] for n in m}
        said = {n: evidence.difference(values[n], values[first]) for n in m if n != first}
        enough = [n for n in m if m[n] >= (1 - TOLERANCE) * m[first] or evidence.differ(values[n], values[first]) is False]
        result["workloads"][w] = {"best": first, "smallest_not_worse": min(enough), "medians": m, "differences": said}
        line = f"{w}: N={first} has the best median"
        if said:
            line += "; " + ", ".join(f"N={n} {100 * m[n] / m[first]:.0f}% of it: {text}" for n, text in said.items())
        busiest = bottleneck(runs, w, result["n"] or first)
        if busiest:
            line += f"; with N={result['n'] or first} the busiest thread is {busiest[0]}, {100 * busiest[1]:.0f}% of a core"
        result["reasons"].append(line)
        if result["n"] and result["n"] < min(enough):
            losers[w] = min(enough)
    if losers:
        result["why"] += f"; for {' and '.join(losers)} alone, N={max(losers.values())} would do better"
    return result


def table(rows):
    """A Markdown table whose columns line up in a terminal too."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths))) + " |" for r in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return [lines[0], rule] + lines[1:]


def circumstances(data):
    runs = [r["result"] for r in data["runs"] if "error" not in r]
    return evidence.circumstances(data["settings"]["machine"], data["settings"]["program"], [r.get("cipher") for r in runs], runs)


def markdown(data):
    rounds = data["settings"]["rounds"]
    time = "" if data["settings"]["attach"] else f" of {data['settings']['seconds']} s a run"
    lines = [f"# {data['title']}", "", *circumstances(data), "",
             f"{rounds} alternating round{'s' if rounds > 1 else ''}{time}. Median (lowest–highest). {NOTES} Differences: {evidence.TEST}."]
    for w, by_n in data["summary"].items():
        metrics = [m for m in METRICS if any(m in v for v in by_n.values())]
        lines += ["", f"## {w}: {data['workloads'][w]}", ""]
        busiest = [bottleneck(data["runs"], w, n) for n in by_n]
        columns = [["N", *map(str, by_n)], *([METRICS[m], *cells([v.get(m) for v in by_n.values()])] for m in metrics),
                   ["busiest thread", *(f"{b[0]} {100 * b[1]:.0f}%" if b else "" for b in busiest)]]
        lines += table(list(zip(*columns)))
    failed = [r for r in data["runs"] if "error" in r]
    if failed:
        lines += ["", "## Failed runs", ""] + [f"- round {r['round'] + 1}, N={r['n']}, {r['workload']}: {r['error']}" for r in failed]
    r = data["recommendation"]
    if r:
        lines += ["", "## Recommendation", "", f"`--tun-threads {r['n']}` on this machine: {r['why']}." if r["n"] else f"None: {r['why']}.", ""]
        lines += [f"- {reason}" for reason in r["reasons"]]
    return "\n".join(lines) + "\n"


def wrapped(text, width):
    """Breaks the lines of a text in a figure between words where they are wider than `width` pixels."""
    lines = []
    for paragraph in text.get_text().split("\n"):
        for i, word in enumerate(paragraph.split()):
            text.set_text(f"{lines[-1]} {word}" if i else word)
            if i and text.get_window_extent().width <= width:
                lines[-1] = text.get_text()
            else:
                lines.append(word)
    text.set_text("\n".join(lines))


def panel(ax, by_n, metric, colour, recommended):
    ns = [n for n in by_n if by_n[n].get(metric)]
    for n in ns:
        ax.plot([n] * len(by_n[n][metric]), by_n[n][metric], "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
    mids = [statistics.median(by_n[n][metric]) for n in ns]
    ax.plot(ns, mids, "-o", color=colour, linewidth=1.8, markersize=5)
    highest = max(max(by_n[n][metric]) for n in ns) if ns else 0
    ax.set_ylim(0, highest * 1.12 or 1)
    ax.set_xticks(sorted(by_n))
    ax.set_xlim(min(by_n) - 0.5, max(by_n) + 0.5)
    ax.grid(axis="y", alpha=0.25)
    if recommended in by_n:
        ax.axvline(recommended, color="#c0392b", linewidth=0.8, linestyle=":")
    if metric in ("gbit_s", "pps") and mids:
        ax.axhspan(max(mids) * (1 - TOLERANCE), max(mids), color=colour, alpha=0.12, linewidth=0)
    if highest >= 10000:
        ax.yaxis.set_major_formatter(lambda x, pos: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1000:g}k" if x else "0")


def figure(data, metrics):
    """A column of panels for each workload, between a title and a caption that are as many lines as they need. metrics: (heading, what gives the metric
    of some values)."""
    import matplotlib.pyplot as plt

    recommended = data["recommendation"]["n"] if data["recommendation"] else None
    workloads = list(data["summary"])
    rows = [(heading, pick) for heading, pick in metrics if any(pick(v) in v for by_n in data["summary"].values() for v in by_n.values())]
    width = 2.2 + 2.3 * max(len(workloads), 2)
    fig = plt.figure(figsize=(width, 1))
    fig.canvas.draw()  # only now can texts be measured
    edge = 0.1 * fig.dpi
    title = fig.text(0, 1, "\n".join([data["title"], *circumstances(data)]), va="top", fontsize=10)
    caption = fig.text(0, 0, "dots: runs, line: medians, band: within 5% of the best median"
                       + (f", dotted: recommended N={recommended}" if recommended else ""), fontsize=8, color="#555")
    for text in (title, caption):
        wrapped(text, width * fig.dpi - 2 * edge)
    above, below = (text.get_window_extent().height + 2 * edge for text in (title, caption))
    height = 1.9 * len(rows) + (above + below) / fig.dpi
    fig.set_size_inches(width, height)
    tall, wide = height * fig.dpi, width * fig.dpi
    title.set_position((edge / wide, 1 - edge / tall))
    caption.set_position((edge / wide, edge / tall))
    axes = fig.subplots(len(rows), len(workloads), squeeze=False)
    for column, w in enumerate(workloads):
        by_n = data["summary"][w]
        for row, (heading, pick) in enumerate(rows):
            ax, metric = axes[row][column], pick(next(iter(by_n.values())))
            if not any(metric in v for v in by_n.values()):
                ax.set_axis_off()
                continue
            panel(ax, by_n, metric, f"C{row}", recommended)
            if row == 0:
                ax.set_title(w, fontweight="bold")
            if row == 0 or column == 0:
                ax.set_ylabel(METRICS[metric] if row == 0 else heading)
        axes[-1][column].set_xlabel("--tun-threads N")
    fig.tight_layout(rect=(0, below / tall, 1, 1 - above / tall))
    return fig


def plots(out, data):
    """throughput.svg/png: throughput and CPU for each workload. all.svg/png: every metric."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sluice", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    import matplotlib.pyplot as plt

    first = [("throughput", throughput), ("CPU s/GB", lambda v: "cpu_s_per_gb")]
    for name, metrics in (("throughput", first), ("all", first + [(METRICS[m], lambda v, m=m: m) for m in list(METRICS)[3:]])):
        fig = figure(data, metrics)
        for kind in ("svg", "png"):
            fig.savefig(os.path.join(out, f"{name}.{kind}"), dpi=110, metadata={"Date": None} if kind == "svg" else None)
        plt.close(fig)


def write(out, settings, title, workloads, runs, draw=True):
    """Writes results.json, report.md and the plots; returns the report. None when no run worked."""
    summary = summarise(runs)
    data = {"title": title, "settings": settings, "workloads": workloads, "runs": runs, "summary": summary,
            "recommendation": recommend(summary, runs) if summary else None}
    with open(os.path.join(out, "results.json"), "w") as f:
        json.dump(data, f, indent=1)
    text = markdown(data)
    with open(os.path.join(out, "report.md"), "w") as f:
        f.write(text)
    if summary and draw:
        plots(out, data)
    return text if summary else None
