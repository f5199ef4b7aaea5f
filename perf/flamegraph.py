#!/usr/bin/env python3
"""Records all threads of a sluice with perf and draws where their time goes.

    perf/flamegraph                two ends in network namespaces under load; the first is recorded
    perf/flamegraph wg0            the running sluice of that interface, under whatever load it has
    perf/flamegraph 1234           the same by process id
    perf/flamegraph --diff A B     what changed from recording A to recording B (their directories)

A recording goes to perf/out/flamegraph-TIME/:
    all.svg         interactive flamegraph of all threads (open it in a browser: click to zoom, Ctrl-F to search)
    THREAD.svg      of each thread: tun-rxN reads TUN, state seals, udp-tx sends; udp-rx receives, tun-txN opens and writes
    profile.perf    for https://profiler.firefox.com: "Load a profile from file"
    summary.txt     the threads, and the top stacks and functions of each
    all.folded      the stacks as text; perf.data: for perf report
Kernel functions are orange, the others green or red.

It samples the processor clock (cpu-clock), so that it works in virtual machines without performance counters. The program should be built
with -Dframe_pointers=true; for one that is not, there is --call-graph dwarf.
"""

import argparse
import collections
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import compare  # first: it makes lib known
import lib
import threads_attach
import threads_load

# Self-contained interactive SVGs and differences, from one package. `--locked` and the number fix all of it.
INFERNO = "0.12.8"
TOOLS = os.path.join(compare.OUT, "tools", f"inferno-{INFERNO}")
BUILD = os.path.join(ROOT, "build-flamegraph")
CAP_SYS_ADMIN, CAP_SYSLOG, CAP_PERFMON = 21, 34, 38
# Where a whole stack of a thread begins. What ends elsewhere has been cut off for want of frame pointers.
ROOTS = ("start_thread", "clone", "__clone", "__clone3", "_start", "main", "__libc_start_call_main", "__libc_start_main", "ret_from_fork")


# What it needs. ------------------------------------------------------------------------------------------------------------------------


def setup(function, *args):
    """A function of tests/lib/setup.sh, with its output as it comes."""
    p = subprocess.run(["bash", "-c", f'. tests/lib/setup.sh && {function} "$@"', "bash", *args], cwd=ROOT, stdin=subprocess.DEVNULL)
    lib.check(p.returncode == 0, "sluice does not build" if function == "setup_build" else "packages are missing")


def prepare_renderer():
    if os.access(os.path.join(TOOLS, "bin", "inferno-flamegraph"), os.X_OK):
        return
    setup("setup_need", "cargo")
    compare.say(f"compiling the renderer, inferno {INFERNO}, with cargo: once, about a minute")
    argv = ["cargo", "install", "inferno", "--version", INFERNO, "--locked", "--quiet", "--root", TOOLS, "--no-default-features", "--features", "cli,nameattr"]
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lib.check(p.returncode == 0, lambda: f"{' '.join(argv)}:\n{p.stdout.strip()[-2000:]}")


def sysctl(name):
    with open(f"/proc/sys/{name.replace('.', '/')}") as f:
        return int(f.read())


def capabilities():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1], 16) for line in f if line.startswith("CapEff:"))


def check_kernel():
    """Fails where the kernel will not let this user profile, and warns where names will be missing; with the fix."""
    caps = capabilities()
    if not caps & (1 << CAP_PERFMON | 1 << CAP_SYS_ADMIN):
        try:
            paranoid = sysctl("kernel.perf_event_paranoid")
        except FileNotFoundError:
            raise lib.Failure("this kernel has no perf events (CONFIG_PERF_EVENTS)")
        lib.check(paranoid <= 1, f"kernel.perf_event_paranoid is {paranoid}: this user may not profile the kernel. Run it as root, or as root: "
                                 "sysctl kernel.perf_event_paranoid=1")
    restrict = sysctl("kernel.kptr_restrict")
    if restrict > 1 or (restrict == 1 and not caps & 1 << CAP_SYSLOG):
        compare.say(f"warning: kernel.kptr_restrict is {restrict}: kernel functions will be without names. As root: sysctl kernel.kptr_restrict=0")


# Recording. ----------------------------------------------------------------------------------------------------------------------------


def record(pid, out, options):
    """Samples a process into perf.data, and turns that into profile.perf."""
    data = os.path.join(out, "perf.data")
    graph = ["-g"] if options.call_graph == "fp" else ["--call-graph", "dwarf,16384"]
    argv = ["perf", "record", "-e", "cpu-clock", "-F", str(options.frequency), *graph, "-p", str(pid), "-o", data, "--", "sleep", str(options.seconds)]
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                         start_new_session=True)
    try:
        text = p.communicate()[0]
    finally:
        if p.returncode is None:
            threads_attach.end_group(p)
    lib.check(p.returncode == 0, lambda: f"{' '.join(argv)}:\n{text.strip()}")
    threads = threads_attach.thread_names(pid)
    with open(os.path.join(out, "profile.perf"), "w") as f:
        p = subprocess.run(["perf", "script", "-F", "+pid", "-i", data], stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.PIPE, text=True)
    lib.check(p.returncode == 0, lambda: f"perf script: {p.stderr.strip()}")
    with open(os.path.join(out, "recording.json"), "w") as f:
        json.dump({"seconds": options.seconds, "frequency": options.frequency, "call_graph": options.call_graph, "threads": threads,
                   "machine": compare.machine(), "of": options.of}, f, indent=1)


def record_running(out, options):
    target = options.target
    if target.isdigit():
        pid = int(target)
        threads_attach.check_sluice(pid)
    else:
        pid = threads_attach.pid_of(target)
    options.of = f"{target} (process {pid})" if not target.isdigit() else f"process {pid}"
    compare.say(f"recording {options.of} for {options.seconds} s: {' '.join(threads_attach.thread_names(pid))}")
    record(pid, out, options)


class Load(threading.Thread):
    """Traffic in the background."""

    def __init__(self, workload, bed, seconds):
        super().__init__(daemon=True)
        self.workload, self.bed, self.seconds, self.error, self.result = workload, bed, seconds, None, None

    def run(self):
        try:
            self.result = self.workload.traffic(self.bed, self.seconds)
        except Exception as e:
            self.error = e


def record_demo(out, options):
    """In a sandbox: two ends, traffic, and a recording of the first."""
    try:
        workload = threads_load.WORKLOADS[options.workload]
        bed = workload.bed(os.environ["SLUICE_BIN"], options.tun_threads, 1420)
        options.of = f"a gateway with {options.tun_threads} TUN threads under {workload.what}"
        load = Load(workload, bed, options.seconds + 2)
        load.start()
        time.sleep(1)
        lib.check(load.error is None, lambda: f"the load failed: {load.error}")
        compare.say(f"recording {options.of} for {options.seconds} s")
        record(bed.pids[0], out, options)
        load.join()
        lib.check(load.error is None, lambda: f"the load failed: {load.error}")
        compare.say(f"meanwhile it moved {threads_load.rate(load.result)}")
        bed.close()
        return 0
    except (lib.Failure, OSError) as e:
        print(f"perf/flamegraph: {e}", file=sys.stderr)
        return 1


# Drawing. ------------------------------------------------------------------------------------------------------------------------------


def tool(name, *args, input=None):
    p = subprocess.run([os.path.join(TOOLS, "bin", name), *args], input=input, stdin=None if input is not None else subprocess.DEVNULL,
                       capture_output=True, text=True, errors="replace")
    lib.check(p.returncode == 0, lambda: f"{name}: {p.stderr.strip()}")
    return p.stdout


def read_folded(text):
    """{stack as tuple of frames, the thread first: microseconds}."""
    out = collections.Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        out[tuple(stack.split(";"))] += int(count)
    return out


def folded_text(stacks):
    return "".join(f"{';'.join(s)} {n}\n" for s, n in sorted(stacks.items()))


def by_thread(stacks):
    out = {}
    for s, n in stacks.items():
        out.setdefault(s[0], collections.Counter())[s] += n
    return dict(sorted(out.items(), key=lambda x: -sum(x[1].values())))


def plain(frame):
    return re.sub(r"_\[[kj]\]$", "", frame)


def file_name(thread):
    return re.sub(r"[^A-Za-z0-9._-]", "_", thread)


def draw(path, stacks, title, subtitle, *args):
    svg = tool("inferno-flamegraph", "--title", title, "--subtitle", subtitle, "--colors", "java", "--hash", "--width", "1400", "--minwidth", "0.05",
               "--countname", "µs",
               *args, input=stacks)
    with open(path, "w") as f:
        f.write(svg)


def own_time(stacks):
    out = collections.Counter()
    for s, n in stacks.items():
        out[plain(s[-1])] += n
    return out


def short_stack(stack, frames=7):
    """Leaf last; the middle of a long one left out."""
    names = [plain(f) for f in stack[1:]]
    if len(names) > frames:
        names = names[:3] + ["..."] + names[-(frames - 3):]
    return " > ".join(names) or stack[0]


def summary(stacks, meta):
    threads, total = by_thread(stacks), sum(stacks.values())
    lines = [f"{meta['of']}", f"{meta['machine']}", f"{total / 1e6:.2f} s of processor time in {meta['seconds']} s", ""]
    for t, mine in threads.items():
        n = sum(mine.values())
        lines.append(f"{t:10}{100 * n / total:5.1f}% of it, {100 * n / 1e6 / meta['seconds']:5.1f}% of a core")
    idle = sorted(set(meta["threads"]) - set(threads))
    if idle:
        lines.append(f"no samples: {' '.join(idle)}")
    for t, mine in threads.items():
        n = sum(mine.values())
        lines += ["", f"== {t}: top stacks"]
        lines += [f"{100 * c / n:5.1f}%  {short_stack(s)}" for s, c in mine.most_common(5)]
        lines += [f"== {t}: top functions by own time"]
        lines += [f"{100 * c / n:5.1f}%  {f}" for f, c in own_time(mine).most_common(8)]
    return "\n".join(lines) + "\n"


def cut_off(stacks):
    """The share of time whose stack does not reach back to where a thread starts."""
    total = sum(stacks.values())
    cut = sum(n for s, n in stacks.items() if not any(plain(f) in ROOTS for f in s[1:3]))
    return cut / total


def write(out):
    """Everything that is drawn from profile.perf and recording.json of a directory."""
    with open(os.path.join(out, "recording.json")) as f:
        meta = json.load(f)
    # perf gives nanoseconds as the period of a cpu-clock sample.
    stacks = collections.Counter({s: round(ns / 1000) for s, ns in
                                  read_folded(tool("inferno-collapse-perf", "--kernel", os.path.join(out, "profile.perf"))).items()})
    lib.check(stacks, "no samples: it was idle; put it under load while it is recorded")
    with open(os.path.join(out, "all.folded"), "w") as f:
        f.write(folded_text(stacks))
    subtitle = f"{meta['of']}; {meta['machine']}; cpu-clock, {meta['frequency']} Hz, {meta['seconds']} s"
    draw(os.path.join(out, "all.svg"), folded_text(stacks), "sluice: all threads", subtitle)
    names = ["all.svg"]
    for t, mine in by_thread(stacks).items():
        name = f"{file_name(t)}.svg"
        draw(os.path.join(out, name), folded_text(mine), f"sluice: {t}", subtitle)
        names.append(name)
    text = summary(stacks, meta)
    with open(os.path.join(out, "summary.txt"), "w") as f:
        f.write(text)
    compare.say("\n" + text)
    if meta["call_graph"] == "fp" and cut_off(stacks) > 0.5:
        compare.say(f"warning: {100 * cut_off(stacks):.0f}% of the stacks are cut off: build sluice with `meson setup -Dframe_pointers=true`, or use --call-graph dwarf")
    if not any(f.endswith("_[k]") for s in stacks for f in s):
        compare.say("warning: no kernel function has a name or was seen; see kernel.kptr_restrict and kernel.perf_event_paranoid")
    compare.say(f"in {compare.shown(out)}/: {' '.join(names)} profile.perf summary.txt all.folded perf.data")


# Differences. --------------------------------------------------------------------------------------------------------------------------


def load_folded(directory):
    path = os.path.join(directory, "all.folded") if os.path.isdir(directory) else directory
    try:
        with open(path) as f:
            stacks = read_folded(f.read())
    except (OSError, ValueError) as e:
        raise lib.Failure(f"{directory} is not a recording: {e}")
    lib.check(stacks, f"{directory} holds no samples")
    return stacks


def difference(a, b, out):
    one, two = load_folded(a), load_folded(b)
    names = [os.path.basename(os.path.normpath(x)) for x in (a, b)]
    first, second = by_thread(one), by_thread(two)
    subtitle = f"{names[0]} to {names[1]}: red has grown, blue has shrunk; as shares, so loads may differ"
    lines = [f"{names[0]} ({sum(one.values()) / 1e6:.2f} s of processor time) to {names[1]} ({sum(two.values()) / 1e6:.2f} s)"]
    written = []
    for t in ["all"] + [t for t in first if t in second]:
        x, y = (one, two) if t == "all" else (first[t], second[t])
        with tempfile.TemporaryDirectory() as scratch:
            paths = [os.path.join(scratch, n) for n in "ab"]
            for path, stacks in zip(paths, (x, y)):
                with open(path, "w") as f:
                    f.write(folded_text(stacks))
            both = tool("inferno-diff-folded", "--normalize", *paths)
        name = f"{file_name(t)}.svg"
        draw(os.path.join(out, name), both, f"sluice: {'all threads' if t == 'all' else t}, difference", subtitle)
        written.append(name)
        lines += ["", f"== {'all threads' if t == 'all' else t}: own time, as a share, before and after"]
        before, after = own_time(x), own_time(y)
        shares = {f: (100 * before[f] / sum(x.values()), 100 * after[f] / sum(y.values())) for f in before.keys() | after.keys()}
        for f, (p, q) in sorted(shares.items(), key=lambda s: (-abs(s[1][1] - s[1][0]), s[0]))[:8]:
            lines.append(f"{q - p:+6.1f}  {p:5.1f}% -> {q:5.1f}%  {f}")
    gone = [f"only in {n}: {' '.join(sorted(m))}" for n, m in ((names[0], first.keys() - second.keys()), (names[1], second.keys() - first.keys())) if m]
    text = "\n".join(lines + ([""] + gone if gone else [])) + "\n"
    with open(os.path.join(out, "summary.txt"), "w") as f:
        f.write(text)
    compare.say(text)
    compare.say(f"in {compare.shown(out)}/: {' '.join(written)} summary.txt")


# -----------------------------------------------------------------------------------------------------------------------------------------


def parse():
    parser = argparse.ArgumentParser(prog="perf/flamegraph", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", metavar="IFNAME|PID", help="a running sluice (none: it starts the demo load)")
    parser.add_argument("--seconds", type=compare.positive(float), default=10, help="of recording (10)")
    parser.add_argument("--frequency", type=compare.positive(int), default=997, help="samples a second of processor time (997)")
    parser.add_argument("--call-graph", choices=("fp", "dwarf"), default="fp", help="frame pointers, or DWARF unwinding (slow, large)")
    parser.add_argument("--workload", choices=list(threads_load.WORKLOADS), help="of the demo load (both: one stream in each direction)")
    parser.add_argument("--tun-threads", type=compare.positive(int), help="of the demo load (2)")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="compare two recordings")
    parser.add_argument("--out", help="directory for the results (perf/out/flamegraph-TIME)")
    o = parser.parse_args()
    if o.diff and (o.target or o.workload or o.tun_threads):
        parser.error("--diff compares two recordings and takes only --out besides")
    if o.target and (o.workload or o.tun_threads):
        parser.error("--workload and --tun-threads belong to the demo load, not to a running sluice")
    o.workload, o.tun_threads = o.workload or "both", o.tun_threads or 2
    return o


def prepare(o):
    """Packages, programs and permissions."""
    if o.diff:
        for d in o.diff:
            load_folded(d)
    elif o.target:
        threads_attach.check_sluice(int(o.target)) if o.target.isdigit() else threads_attach.pid_of(o.target)
        setup("setup_need", "flamegraph")
        check_kernel()
    else:
        lib.check(os.geteuid() == 0, "run it as root (sudo perf/flamegraph): without IFNAME or PID it makes network namespaces and TUN interfaces")
        setup("setup_need", "build", "netns", "flamegraph")
        check_kernel()
        if not os.environ.get("SLUICE_BIN"):
            setup("setup_build", BUILD, "-Dbuildtype=release", "-Dtests=disabled", "-Dframe_pointers=true")
            os.environ["SLUICE_BIN"] = os.path.join(BUILD, "sluice")
        reason = compare.compile_load()
        lib.check(not reason, reason)
    prepare_renderer()


def produce(o, out):
    if o.diff:
        difference(*o.diff, out)
        return 0
    if o.target:
        record_running(out, o)
    else:
        with tempfile.TemporaryDirectory(prefix="sluice-flamegraph-") as tempfile.tempdir:  # logs of the daemons
            status = lib.sandbox(lambda: record_demo(out, o))
        tempfile.tempdir = None
        if status:
            return status
    write(out)
    return 0


def main():
    o = parse()
    out, made, status = None, False, 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lib._interrupted)
    try:
        prepare(o)
        name = "flamegraph-diff-" if o.diff else "flamegraph-"
        path = os.path.abspath(o.out or os.path.join(compare.OUT, name + time.strftime("%Y%m%d-%H%M%S")))
        made = not os.path.exists(path)
        os.makedirs(path, exist_ok=True)
        lib.check(not os.listdir(path), f"{path} is not empty")
        out = path  # from here on what is in it is ours
        status = produce(o, out)
    except KeyboardInterrupt:
        status = 130
    except (lib.Failure, OSError, subprocess.SubprocessError) as e:
        print(f"perf/flamegraph: {e}", file=sys.stderr)
    if status == 130:
        compare.say("\ninterrupted; nothing is left behind")
    # A complete result stays, whatever happened to its last words (`| head`).
    if status and out and os.path.isdir(out) and not os.path.exists(os.path.join(out, "summary.txt")):
        for name in os.listdir(out):
            os.unlink(os.path.join(out, name))
        if made:
            os.rmdir(out)
    return status


if __name__ == "__main__":
    sys.exit(main())
