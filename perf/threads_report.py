"""What perf/threads makes of its runs: medians, a recommendation, tables, plots."""

import json
import math
import os
import statistics

from compare import cell

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
}
NOTES = ("CPU, context switches and wake-ups are those of all sluice processes of the workload, per gigabyte delivered. Out of order: TCP segments that a "
         "receiver had to queue (TcpExtTCPOFOQueue), UDP datagrams that arrived after a later one. Reorder events: TCP senders that noticed "
         "(TCPSACKReorder, TCPTSReorder, TCPRenoReorder). Segments a train: of the end that seals most.")
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


def recommend(summary, runs):
    """The smallest N whose throughput, averaged over the workloads as a ratio to each one's best median, is within 5% of the best N's."""
    medians = {w: {n: statistics.median(v[throughput(v)]) for n, v in by_n.items()} for w, by_n in summary.items()}
    everywhere = [n for n in sorted({n for m in medians.values() for n in m}) if all(n in m for m in medians.values())]
    if not everywhere:
        return None
    scores, per_workload = {}, {}
    for n in everywhere:
        ratios = [m[n] / max(m.values()) for m in medians.values() if max(m.values()) > 0]
        scores[n] = math.exp(sum(math.log(max(r, 1e-9)) for r in ratios) / len(ratios)) if ratios else 0
    top = max(scores, key=scores.get)
    choice = min(n for n in everywhere if scores[n] >= (1 - TOLERANCE) * scores[top])
    reasons = []
    for w, m in medians.items():
        best = max(m, key=m.get)
        small = min(n for n in m if m[n] >= (1 - TOLERANCE) * m[best])
        per_workload[w] = {"best": best, "smallest_within_5_percent": small, "medians": m}
        line = f"{w}: N={best} has the best median" + (f", N={choice} reaches {100 * m[choice] / m[best]:.0f}% of it" if choice != best else "")
        if choice != best and overlap(summary[w], choice, best):
            line += " (their runs overlap)"
        busiest = bottleneck(runs, w, choice)
        if busiest:
            line += f"; the busiest thread is {busiest[0]}, {100 * busiest[1]:.0f}% of a core"
        reasons.append(line)
    if choice == top:
        why = f"no other N of {', '.join(map(str, everywhere))} gave more over all workloads"
        near = [n for n in everywhere if n != choice and scores[n] >= (1 - TOLERANCE) * scores[top]]
        if near:
            why += f"; {', '.join(f'N={n}' for n in near)} came within 5% but {'needs' if len(near) == 1 else 'need'} more threads"
    else:
        why = f"N={top} gave the most over all workloads, N={choice} is within 5% of it with fewer threads"
    losers = [w for w, p in per_workload.items() if choice < p["smallest_within_5_percent"]]
    if losers:
        why += f"; for {' and '.join(losers)} alone, N={max(per_workload[w]['smallest_within_5_percent'] for w in losers)} would do better"
    if len(everywhere) == 1:
        why = "it is the only one that was measured"
    fewest = min(len(v[throughput(v)]) for by_n in summary.values() for v in by_n.values())
    if fewest < 3:
        reasons.append(f"only {fewest} run{'s' if fewest > 1 else ''} of some settings: take it as a hint, and --rounds 5 for a verdict")
    return {"n": choice, "why": why, "scores": scores, "workloads": per_workload, "reasons": reasons}


def overlap(by_n, a, b):
    metric = throughput(by_n[a])
    x, y = by_n[a][metric], by_n[b][metric]
    return min(x) <= max(y) and min(y) <= max(x)


def table(rows):
    """A Markdown table whose columns line up in a terminal too."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths))) + " |" for r in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return [lines[0], rule] + lines[1:]


def markdown(data):
    rounds = data["settings"]["rounds"]
    time = "" if data["settings"]["attach"] else f" of {data['settings']['seconds']} s a run"
    lines = [f"# {data['title']}", "", data["machine"], "",
             f"{rounds} alternating round{'s' if rounds > 1 else ''}{time}. Median (lowest–highest). {NOTES}"]
    for w, by_n in data["summary"].items():
        metrics = [m for m in METRICS if any(m in v for v in by_n.values())]
        lines += ["", f"## {w}: {data['workloads'][w]}", ""]
        rows = [["N"] + [METRICS[m] for m in metrics] + ["busiest thread"]]
        for n, values in by_n.items():
            busiest = bottleneck(data["runs"], w, n)
            rows.append([str(n)] + [cell(values.get(m)) for m in metrics] + [f"{busiest[0]} {100 * busiest[1]:.0f}%" if busiest else ""])
        lines += table(rows)
    failed = [r for r in data["runs"] if "error" in r]
    if failed:
        lines += ["", "## Failed runs", ""] + [f"- round {r['round'] + 1}, N={r['n']}, {r['workload']}: {r['error']}" for r in failed]
    r = data["recommendation"]
    if r:
        lines += ["", "## Recommendation", "", f"`--tun-threads {r['n']}` on this machine: {r['why']}.", ""]
        lines += [f"- {reason}" for reason in r["reasons"]]
    return "\n".join(lines) + "\n"


def plots(out, data):
    """throughput.svg/png: throughput and CPU for each workload. all.svg/png: every metric."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sluice", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    import matplotlib.pyplot as plt

    recommended = data["recommendation"]["n"] if data["recommendation"] else None

    def panel(ax, by_n, metric, colour):
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

    def figure(name, title, metrics):
        workloads = list(data["summary"])
        rows = [(heading, pick) for heading, pick in metrics if any(pick(v) in v for by_n in data["summary"].values() for v in by_n.values())]
        height = 1.1 + 1.9 * len(rows)
        fig, axes = plt.subplots(len(rows), len(workloads), figsize=(2.2 + 2.3 * len(workloads), height), squeeze=False)
        for column, w in enumerate(workloads):
            by_n = data["summary"][w]
            for row, (heading, pick) in enumerate(rows):
                ax, metric = axes[row][column], pick(next(iter(by_n.values())))
                if not any(metric in v for v in by_n.values()):
                    ax.set_axis_off()
                    continue
                panel(ax, by_n, metric, f"C{row}")
                if row == 0:
                    ax.set_title(w, fontweight="bold")
                if row == 0 or column == 0:
                    ax.set_ylabel(METRICS[metric] if row == 0 else heading)
            axes[-1][column].set_xlabel("--tun-threads N")
        fig.suptitle(f"{title}\n{data['machine']}", x=0.01, y=1 - 0.1 / height, ha="left", va="top", fontsize=10)
        fig.text(0.01, 0.005, "dots: runs, line: medians, band: within 5% of the best median"
                 + (f", dotted: recommended N={recommended}" if recommended else ""), fontsize=8, color="#555")
        fig.tight_layout(rect=(0, 0.2 / height, 1, 1 - 0.5 / height))
        for kind in ("svg", "png"):
            fig.savefig(os.path.join(out, f"{name}.{kind}"), dpi=110, metadata={"Date": None} if kind == "svg" else None)
        plt.close(fig)

    first = [("throughput", throughput), ("CPU s/GB", lambda v: "cpu_s_per_gb")]
    figure("throughput", data["title"], first)
    figure("all", data["title"], first + [(METRICS[m], lambda v, m=m: m) for m in list(METRICS)[3:]])


def write(out, settings, title, machine, workloads, runs, draw=True):
    """Writes results.json, report.md and the plots; returns the report. None when no run worked."""
    summary = summarise(runs)
    data = {"title": title, "machine": machine, "settings": settings, "workloads": workloads, "runs": runs, "summary": summary,
            "recommendation": recommend(summary, runs) if summary else None}
    with open(os.path.join(out, "results.json"), "w") as f:
        json.dump(data, f, indent=1)
    text = markdown(data)
    with open(os.path.join(out, "report.md"), "w") as f:
        f.write(text)
    if summary and draw:
        plots(out, data)
    return text if summary else None
