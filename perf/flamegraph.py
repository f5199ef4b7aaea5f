#!/usr/bin/env python3
"""Records all threads of a sluice with perf and draws where their time goes.

    perf/flamegraph                two ends in network namespaces under load; the first is recorded
    perf/flamegraph wg0            the running sluice of that interface, under whatever load it has
    perf/flamegraph 1234           the same by process id
    perf/flamegraph --diff A B     what changed from recording A to recording B (their directories), and what of it is noise

A recording goes to perf/out/flamegraph-TIME/:
    all.svg         interactive flamegraph of all threads (open it in a browser: click to zoom, Ctrl-F to search)
    THREAD.svg      of each thread: tun-rxN reads TUN, state seals, udp-tx sends; udp-rx receives, tun-txN opens and writes
    profile.perf    for https://profiler.firefox.com: "Load a profile from file"
    summary.txt     where the time went in shares that add up to 100%, then the threads, and the top stacks and functions of each
    recording.json  the same shares, throughput and CPU per gigabyte of the recorded gateway, and what was recorded
    all.folded      the stacks as text; perf.data: for perf report
Kernel functions are orange, the others green or red.

It samples the processor clock (cpu-clock), so that it works in virtual machines without performance counters. Stacks need frame pointers, which
a build has unless it was configured with -Dframe_pointers=false; for one without, there is --call-graph dwarf.
"""

import argparse
import collections
import json
import math
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
import evidence
import lib
import prepare
import threads_attach
import threads_load

# Self-contained interactive SVGs and differences, from one package. `--locked` and the number fix all of it.
INFERNO = "0.12.8"
TOOLS = os.path.join(compare.OUT, "tools", f"inferno-{INFERNO}")
CAP_SYS_ADMIN, CAP_SYSLOG, CAP_PERFMON = 21, 34, 38
# Where a whole stack of a thread begins. What ends elsewhere has been cut off for want of frame pointers.
ROOTS = ("start_thread", "clone", "__clone", "__clone3", "_start", "main", "__libc_start_call_main", "__libc_start_main", "ret_from_fork")


# What it needs. ------------------------------------------------------------------------------------------------------------------------


def prepare_renderer():
    if os.access(os.path.join(TOOLS, "bin", "inferno-flamegraph"), os.X_OK):
        return
    prepare.need("cargo")
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


class Meter:
    """What crosses the interface of a gateway, and the processor time that it takes, from now until stop()."""

    def __init__(self, pid):
        self.pid, self.interface = pid, interface_of(pid)
        self.first = self.read()

    def read(self):
        return (time.monotonic(), sum(threads_load.thread_seconds(self.pid).values()),
                threads_attach.crossed(self.pid, self.interface) if self.interface else 0)

    def stop(self):
        """For recording.json. Bytes are those of IP packets in both directions; there is no cost per gigabyte of nothing."""
        seconds, cpu, moved = (now - then for now, then in zip(self.read(), self.first))
        return {"interface": self.interface, "bytes": moved, "cpu_seconds": round(cpu, 6), "gbit_s": round(moved * 8e-9 / seconds, 6),
                "cpu_s_per_gb": round(cpu / moved * 1e9, 6) if moved else None}


def interface_of(pid):
    """The interface of the TUN queues that a process has open, or None."""
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{name}") as f:
                found = re.search(r"^iff:\s*(\S+)$", f.read(), re.M)
        except OSError:
            continue
        if found:
            return found[1]
    return None


def record(pid, out, options):
    """Samples a process into perf.data, and turns that into profile.perf."""
    data = os.path.join(out, "perf.data")
    graph = ["-g"] if options.call_graph == "fp" else ["--call-graph", "dwarf,16384"]
    argv = ["perf", "record", "-e", "cpu-clock", "-F", str(options.frequency), *graph, "-p", str(pid), "-o", data, "--", "sleep", str(options.seconds)]
    meter = Meter(pid)
    others = evidence.Others(options.ours)
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                         start_new_session=True)
    try:
        text = p.communicate()[0]
    finally:
        if p.returncode is None:
            threads_attach.end_group(p)
    lib.check(p.returncode == 0, lambda: f"{' '.join(argv)}:\n{text.strip()}")
    moved = meter.stop()
    known = {**others.stop(), "program": evidence.program(f"/proc/{pid}/exe"), "cipher": options.cipher}
    threads = threads_attach.thread_names(pid)
    with open(os.path.join(out, "profile.perf"), "w") as f:
        p = subprocess.run(["perf", "script", "-F", "+pid", "-i", data], stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.PIPE, text=True)
    lib.check(p.returncode == 0, lambda: f"perf script: {p.stderr.strip()}")
    save(out, {"of": options.of, "load": options.load, "machine": compare.machine(), "seconds": options.seconds, "frequency": options.frequency,
               "call_graph": options.call_graph, "threads": threads, **moved, **known})


def save(out, meta):
    with open(os.path.join(out, "recording.json"), "w") as f:
        json.dump(meta, f, indent=1)


def record_running(out, options):
    target = options.target
    if target.isdigit():
        pid = int(target)
        threads_attach.check_sluice(pid)
    else:
        pid = threads_attach.pid_of(target)
    options.of, options.load = f"{target} (process {pid})" if not target.isdigit() else f"process {pid}", None
    options.cipher, options.ours = evidence.cipher_of_process(pid), lambda: evidence.family_seconds(pid)
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
        options.load = {"workload": options.workload, "tun_threads": options.tun_threads}
        options.of = f"a gateway with {options.tun_threads} TUN threads under {workload.what}"
        options.cipher, options.ours = evidence.cipher_of(bed.daemons[0]), evidence.sandbox_seconds
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


# Where the time went, in shares that add up. What a sample belongs to is told by the function nearest to its end that belongs to one of these.
CIPHER, COPIES, SWITCHES, TUN, UDP, OWN, OTHER = PARTS = ("cipher", "kernel copies", "thread switches", "TUN", "UDP", "own code", "other")
MEANING = {CIPHER: "in the cipher's library", COPIES: "between user space and the kernel", SWITCHES: "waiting, waking and being switched",
           TUN: "the kernel's work in TUN reads and writes", UDP: "the kernel's work in UDP sends and receives",
           OWN: "sluice itself, and libc for it", OTHER: "interrupts, and what belongs to none of these"}
CIPHER_LIBRARIES = re.compile(r"libIPSec_MB|libcrypto|libsodium|libb2")
# Called by one of the others on its behalf, so the caller tells.
HELPER_MODULES = re.compile(r"/(libc|ld-linux[^/]*|libpthread)[.-]|^\[vdso\]|^\[unknown\]|^inlined$")
KERNEL_FUNCTIONS = (
    (COPIES, re.compile(r"^_*(raw_)?copy_(to|from|user|page)|^rep_movs|^_*memcpy|^copy(in|out)|^csum_(and|partial)_copy|^skb_copy_")),
    (SWITCHES, re.compile(r"^_*schedule|^finish_task_switch|^try_to_wake_up|^_*wake_up|^wake_q|^ttwu_|futex|epoll|^ep_|_poll(_|$)|eventfd|^sched_|^sock_def_"
                          r"|^(en|de)queue_(task|entity)|^pick_(next|task)|^select_task_rq|^switch_|^_*switch_to|^prepare_to_wait|^default_wake|nanosleep|reschedule_ipi")),
    (OTHER, re.compile(r"^asm_(sysvec|common_interrupt)")),  # what it interrupted is not to blame
    (TUN, re.compile(r"^_*tun_|^(do|vfs|ksys)_(iter_)?(read|write)|^do_iter_")),
    (UDP, re.compile(r"udp|send(m?m?sg|to)|recv(m?m?sg|from)")),
)
# A sample on the way into the kernel or out of it has only the C library's function to tell by.
CALLS = ((TUN, re.compile(r"^_*((libc|GI)_+)?(readv?|writev?)(64)?$")), (UDP, re.compile(r"send(m?m?sg|to)|recv(m?m?sg|from)")),
         (SWITCHES, re.compile(r"p?poll|epoll|futex|nanosleep|sched_yield|^syscall$")))
FRAME_RE = re.compile(r"^\s*([0-9a-f]+) (.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$")


def first_match(table, name):
    return next((part for part, pattern in table if pattern.search(name)), None)


def part_of(frames):
    """The part that a stack counts for; frames: (in the kernel?, function, file), the end of the stack first."""
    helped = False
    for kernel, name, module in frames:
        if kernel:
            part = first_match(KERNEL_FUNCTIONS, name)
            if part:
                return part
        elif frames[0][0]:
            return first_match(CALLS, name) or OTHER
        elif CIPHER_LIBRARIES.search(module):
            return CIPHER
        elif not HELPER_MODULES.search(module):
            return OWN
        else:
            helped = helped or module != "[unknown]"
    return OWN if helped else OTHER


def parts_of(profile):
    """Samples by part, of the text of profile.perf."""
    out = dict.fromkeys(PARTS, 0)
    for sample in profile.strip().split("\n\n"):
        found = [m for m in map(FRAME_RE.match, sample.splitlines()[1:]) if m]
        out[part_of([(int(m[1], 16) >> 63 == 1, m[2], m[3]) for m in found])] += 1
    return out


def percentages(counts):
    """Shares in tenths of a percent, rounded so that they add up to 100.0: what the rounding down leaves goes where it took most."""
    total = sum(counts)
    tenths = [1000 * n // total for n in counts]
    for i in sorted(range(len(counts)), key=lambda i: -(1000 * counts[i] % total))[:1000 - sum(tenths)]:
        tenths[i] += 1
    return [t / 10 for t in tenths]


def load_line(meta):
    """Throughput and its price, in words."""
    if meta.get("cpu_s_per_gb") is None:
        return "nothing crossed its interface: no CPU per gigabyte"
    return f"{meta['gbit_s']:.2f} Gbit/s over {meta['interface']} (both directions), {meta['cpu_s_per_gb']:.3f} CPU s/GB"


def summary(stacks, meta):
    threads, total = by_thread(stacks), sum(stacks.values())
    parts, cost = meta["parts"], meta.get("cpu_s_per_gb")
    samples = sum(parts.values())
    lines = [f"{meta['of']}", *evidence.circumstances(meta["machine"], meta.get("program"), [meta.get("cipher")], [meta]), load_line(meta), "",
             f"{'where the time went':20}{'share':>7}" + (f"{'CPU s/GB':>10}" if cost else "") + f"{'samples':>9}"]
    rows = list(zip(parts, percentages(list(parts.values())), parts.values())) + [("all", 100.0, samples)]
    lines += [f"{part:20}{share:6.1f}%" + (f"{cost * n / samples:10.3f}" if cost else "") + f"{n:9,}" +
              (f"  {MEANING[part]}" if part in MEANING else "") for part, share, n in rows]
    lines += ["", f"{total / 1e6:.2f} s of processor time in {meta['seconds']} s"]
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
    with open(os.path.join(out, "profile.perf"), errors="replace") as f:
        meta["parts"] = parts_of(f.read())
    save(out, meta)
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
        compare.say(f"warning: {100 * cut_off(stacks):.0f}% of the stacks are cut off: this program has no frame pointers. "
                    "`meson configure BUILD -Dframe_pointers=true` and build again, or use --call-graph dwarf")
    if not any(f.endswith("_[k]") for s in stacks for f in s):
        compare.say("warning: no kernel function has a name or was seen; see kernel.kptr_restrict and kernel.perf_event_paranoid")
    compare.say(f"in {compare.shown(out)}/: {' '.join(names)} summary.txt recording.json profile.perf all.folded perf.data")


# Differences. --------------------------------------------------------------------------------------------------------------------------


SIGMAS = 3  # what is less than so many standard deviations of the samples is called noise: one in 370 such differences is none


class Recording:
    """The directory of one."""

    def __init__(self, directory):
        self.name = os.path.basename(os.path.normpath(directory))
        try:
            with open(os.path.join(directory, "all.folded")) as f:
                self.stacks = read_folded(f.read())
            with open(os.path.join(directory, "recording.json")) as f:
                self.meta = json.load(f)
            self.of, self.machine, frequency = self.meta["of"], self.meta["machine"], self.meta["frequency"]
            if "parts" not in self.meta:  # made before they were stored
                with open(os.path.join(directory, "profile.perf"), errors="replace") as f:
                    self.meta["parts"] = parts_of(f.read())
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise lib.Failure(f"{directory} is not a recording: {e}")
        lib.check(self.stacks, f"{directory} holds no samples")
        self.per_us = frequency / 1e6
        self.samples = sum(self.stacks.values()) * self.per_us
        self.cost = self.meta.get("cpu_s_per_gb")

    def words(self):
        return f"{self.name}: {self.of}; {load_line(self.meta)}; {self.samples:,.0f} samples"


def doubts(a, b):
    """Why the two may differ for other reasons than the program."""
    out = []
    if a.meta.get("load") != b.meta.get("load"):
        out.append("warning: the workloads differ; so may everything below")
    elif not a.meta.get("load"):
        out.append("note: both had traffic of their own; whether it was the same, no recording can tell")
    if a.machine.rpartition(",")[0] != b.machine.rpartition(",")[0]:  # the date comes last
        out.append(f"warning: the machines differ: {a.machine}; {b.machine}")
    if a.meta.get("call_graph") != b.meta.get("call_graph"):
        out.append("warning: one was recorded by frame pointers, the other by DWARF, which costs more and names more")
    if not a.cost or not b.cost:
        out.append("warning: CPU per gigabyte is not known of both: shares are compared instead, of which one can only grow if another shrinks")
    elif not 0.8 < a.meta["gbit_s"] / b.meta["gbit_s"] < 1.25:
        out.append(f"warning: {a.meta['gbit_s']:.2f} and {b.meta['gbit_s']:.2f} Gbit/s: at another rate a gigabyte costs something else")
    return out


class Scale:
    """What a number of samples stands for: CPU milliseconds per gigabyte, or a share in percent where that is not known of both recordings."""

    def __init__(self, a, b):
        self.absolute = bool(a.cost and b.cost)
        self.each = [(r.samples, 1000 * r.cost if self.absolute else 100) for r in (a, b)]
        self.unit = "CPU ms/GB" if self.absolute else "% of the time"

    def row(self, counts, name):
        """(size of the change, its line). The total is measured and not sampled; a sample belongs to this row or not, which is binomial."""
        values, variance = [], 0
        for n, (total, whole) in zip(counts, self.each):
            share = min(n / total, 1)
            values.append(whole * share)
            variance += whole ** 2 * share * (1 - share) / total
        change = values[1] - values[0]
        noise = abs(change) < SIGMAS * math.sqrt(variance)
        return abs(change), (f"{change:+9.1f} {values[0]:9.1f} -> {values[1]:9.1f} {counts[0]:9,.0f} -> {counts[1]:7,.0f}  "
                             f"{'noise' if noise or not change else '     '}  {name}")

    def table(self, title, before, after, most=None):
        """Rows of two counts of samples by name: all in their order, or the most that changed most."""
        rows = [self.row((before.get(name, 0), after.get(name, 0)), name) for name in dict.fromkeys([*before, *after])]
        if most:
            rows = sorted(rows, key=lambda r: (-r[0], r[1]))[:most]
        return ["", f"== {title}, {self.unit}", f"{'change':>9} {'before':>9}    {'after':>9} {'samples':>20}"] + [line for _, line in rows]


def difference(a, b, out):
    one, two = Recording(a), Recording(b)
    first, second = by_thread(one.stacks), by_thread(two.stacks)
    scale = Scale(one, two)
    subtitle = f"{one.words()} to {two.words()}: red has grown, blue has shrunk, as shares"
    lines = [f"before: {one.words()}", f"after:  {two.words()}", *doubts(one, two)]
    if scale.absolute:
        lines += ["", f"CPU per gigabyte: {one.cost:.3f} -> {two.cost:.3f} s ({100 * (two.cost - one.cost) / one.cost:+.1f}%)"]
    lines += scale.table("where the time went", one.meta["parts"], two.meta["parts"])
    written = []
    for t in ["all"] + [t for t in first if t in second]:
        x, y = (one.stacks, two.stacks) if t == "all" else (first[t], second[t])
        with tempfile.TemporaryDirectory() as scratch:
            paths = [os.path.join(scratch, n) for n in "ab"]
            for path, stacks in zip(paths, (x, y)):
                with open(path, "w") as f:
                    f.write(folded_text(stacks))
            both = tool("inferno-diff-folded", "--normalize", *paths)
        what = "all threads" if t == "all" else t
        name = f"{file_name(t)}.svg"
        draw(os.path.join(out, name), both, f"sluice: {what}, difference", subtitle)
        written.append(name)
        counts = [{f: n * r.per_us for f, n in own_time(s).items()} for r, s in ((one, x), (two, y))]
        lines += scale.table(f"{what}: own time", *counts, most=8)
    lines += ["", f"noise: less than {SIGMAS} standard deviations of the samples. Two runs of one program differ by more than that, so record each twice."]
    lines += [f"only in {n}: {' '.join(sorted(m))}" for n, m in ((one.name, first.keys() - second.keys()), (two.name, second.keys() - first.keys())) if m]
    text = "\n".join(lines) + "\n"
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


def make_ready(o):
    """Packages, programs and permissions."""
    if o.diff:
        for d in o.diff:
            Recording(d)
    elif o.target:
        threads_attach.check_sluice(int(o.target)) if o.target.isdigit() else threads_attach.pid_of(o.target)
        prepare.need("flamegraph")
        check_kernel()
    else:
        prepare.root("perf/flamegraph")
        prepare.need("flamegraph")
        check_kernel()
        prepare.program("perf/flamegraph")
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
        make_ready(o)
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
