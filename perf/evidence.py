"""What the figures of perf/ rest on: the load of others while they were taken, the program they were taken of, and whether two sets of rounds differ."""

import collections
import functools
import gzip
import hashlib
import json
import math
import os
import re
import statistics
import subprocess
import time

SIGNIFICANT = 0.05  # a difference that chance gives less often than this
QUIET = 5  # percent of the machine: what others may take without a warning
TEST = "Wilcoxon's rank-sum test, exact and two-sided"


# The load of others. -------------------------------------------------------------------------------------------------------------------


@functools.cache
def interrupts_are_apart():
    """Whether this kernel keeps the time of interrupts out of the time of the process that they interrupt (CONFIG_IRQ_TIME_ACCOUNTING)."""
    for path, opener in (("/proc/config.gz", gzip.open), (f"/boot/config-{os.uname().release}", open)):
        try:
            with opener(path, "rt") as f:
                return "CONFIG_IRQ_TIME_ACCOUNTING=y\n" in f.read()
        except OSError:
            continue
    return False


def seconds_of(pid, children):
    """Processor time of a process, and that of its ended children if it is wanted; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:15 if children else 13])) / os.sysconf("SC_CLK_TCK")


def sandbox_seconds():
    """Of all processes in this namespace of processes, those that have ended among them: in a sandbox all of them are ours."""
    return sum(seconds_of(pid, True) for pid in os.listdir("/proc") if pid.isdigit())


def family_seconds(*pids):
    """Of these processes, and of this command and the commands that it ran."""
    return sum(seconds_of(pid, False) for pid in pids) + sum(os.times()[:4])


class Others:
    """What others take of the machine's processor time from here to stop(): the hypervisor (steal), and whatever runs here that is not ours (foreign:
    /proc/stat less our processes). Kernel threads count as others."""

    def __init__(self, ours):
        """ours: a function that gives the processor seconds that our processes have used."""
        self.ours = ours
        self.then = self.read()

    def read(self):
        with open("/proc/stat") as f:
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
        processes = user + nice + system + (0 if interrupts_are_apart() else irq + softirq)
        return user + nice + system + idle + iowait + irq + softirq + steal, steal, processes, self.ours() * os.sysconf("SC_CLK_TCK")

    def stop(self):
        """In percent of the time of all CPUs."""
        total, steal, processes, ours = (now - then for now, then in zip(self.read(), self.then))
        share = lambda ticks: round(100 * max(ticks, 0) / max(total, 1), 1)
        return {"steal_percent": share(steal), "foreign_percent": share(processes - ours)}


OTHERS = {"foreign_percent": "other processes, % of all CPUs", "steal_percent": "steal, % of all CPUs"}


def load_line(runs):
    """The load of others in words. runs: what stop() gave for each measurement, as far as it is known; None where nothing is."""
    taken = [sum(r[k] for k in OTHERS if k in r) for r in runs if "steal_percent" in r]
    if not taken:
        return None
    steal = max(r.get("steal_percent", 0) for r in runs)
    middle = statistics.median(taken)
    text = f"Others took {middle:.1f}% of the CPU time while it was measured" if len(taken) == 1 else \
        f"Others took {middle:.1f}% of the CPU time (median; {min(taken):.1f}–{max(taken):.1f}%) during {len(taken)} measurements"
    text += f", of which steal at most {steal:.1f}%" if steal else ", none of it steal"
    busy = sum(t > QUIET for t in taken)
    if busy:
        text += f"; the machine was not quiet: more than {QUIET}%" + (f" in {busy} of {len(taken)}" if len(taken) > 1 else "")
    return text


# The program. --------------------------------------------------------------------------------------------------------------------------


def output(*argv):
    try:
        p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return p.stdout.strip() if p.returncode == 0 else None


def loaded(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def commit_of(source, built):
    """The commit of a source tree from which a program was built at a time."""
    git = ("git", "-c", "safe.directory=*", "-C", source)
    line = output(*git, "log", "-1", "--abbrev=12", "--format=%h %ct")
    if not line:
        return None
    commit, committed = line.split()
    if output(*git, "status", "--porcelain", "--untracked-files=no"):
        commit += " with changes"
    return commit if built >= int(committed) else commit + " or older"


def build_of(directory):
    """The build type of a Meson build directory, with the options that change what is measured."""
    options = loaded(os.path.join(directory, "meson-info", "intro-buildoptions.json"))
    if not options:
        return None
    value = {o["name"]: o["value"] for o in options}
    extra = [name for name in ("b_lto", "frame_pointers") if value.get(name) is True]
    extra += [f"{name}={value[name]}" for name, usual in (("b_sanitize", ("none", [])), ("b_ndebug", ("true", "if-release"))) if value.get(name, usual[0]) not in usual]
    return ", ".join([value["buildtype"]] + extra)


def program(path):
    """What is measured: a path, or /proc/PID/exe. What cannot be told is None: only a build directory knows its commit and its build type."""
    real = os.path.realpath(path)
    directory = os.path.dirname(real)
    info = loaded(os.path.join(directory, "meson-info", "meson-info.json"))
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()[:16]
    known = info and os.path.exists(real)
    return {"version": (output(path, "--version") or "").partition("\n")[0] or None, "sha256": digest,
            "commit": commit_of(info["directories"]["source"], os.stat(real).st_mtime) if known else None, "build": build_of(directory) if known else None}


def cipher_in_log(text):
    """The cipher implementation that a sluice says it uses, or None."""
    found = re.search(r"\bcipher ([\w-]+)(?:: [^\n]*, chosen|, as asked for)", text)
    return found and found[1]


def cipher_of(daemon):
    """Of a lib.Daemon."""
    return cipher_in_log(daemon.output())


def cipher_of_process(pid):
    """Of a process that somebody else has started: only what its command line asks for can be known."""
    with open(f"/proc/{pid}/cmdline") as f:
        words = f.read().split("\0")
    for word, following in zip(words, words[1:]):
        if word == "--aead":
            return following
        if word.startswith("--aead="):
            return word.partition("=")[2]
    return None


def program_line(known, ciphers):
    """The program in words. ciphers: what each measurement used, None where that is not known."""
    used = collections.Counter(c or "not known" for c in ciphers)
    if len(used) > 1:
        cipher = "ciphers " + ", ".join(f"{c} ({n})" for c, n in used.most_common()) + ": these measurements do not compare"
    else:
        cipher = f"cipher {next(iter(used), 'not known')}"
    return ", ".join([known["version"] or "version not known", f"commit {known['commit'] or 'not known'}",
                      f"build type {known['build'] or 'not known'}", cipher]) + f" (sha256 {known['sha256']})"


def circumstances(machine, known, ciphers, runs):
    """The machine, the program, and the load of others, in a line each; of what is known."""
    lines = [machine] + ([program_line(known, ciphers)] if known else []) + [load_line(runs)]
    return [line for line in lines if line]


# Differences. --------------------------------------------------------------------------------------------------------------------------


def rank_sum(a, b):
    """How often chance alone would set two samples at least so far apart: TEST, with equal values at their mean rank."""
    both = sorted([*a, *b])
    # Twice each rank, so that a mean of two is whole.
    ranks = [2 * both.index(x) + both.count(x) + 1 for x in both]
    sums = [collections.Counter() for _ in range(len(a) + 1)]  # of so many of the ranks: {sum: ways}
    sums[0][0] = 1
    for rank in ranks:
        for n in range(len(a), 0, -1):
            for total, ways in sums[n - 1].items():
                sums[n][total + rank] += ways
    expected = len(a) * (len(both) + 1)
    off = abs(sum(2 * both.index(x) + both.count(x) + 1 for x in a) - expected)
    return sum(ways for total, ways in sums[len(a)].items() if abs(total - expected) >= off) / math.comb(len(both), len(a))


def can_tell(a, b):
    """Whether samples of these sizes could differ significantly at all: from four rounds on."""
    return bool(a) and bool(b) and 2 / math.comb(len(a) + len(b), len(a)) <= SIGNIFICANT


def differ(a, b):
    """True or False; None when there are too few rounds to tell."""
    return rank_sum(a, b) <= SIGNIFICANT if can_tell(a, b) else None


def difference(a, b):
    """The same in words."""
    if not can_tell(a, b):
        return "too few rounds to tell"
    p = rank_sum(a, b)
    return f"{'significant' if p <= SIGNIFICANT else 'no significant difference'} (p = {p:.2g})"
