#!/usr/bin/env python3
"""Sweeps --tun-threads N over workloads and says which N suits this machine, as far as the rounds show a difference: four at least.

Every round measures each N for each workload, forwards and backwards in turn, each time with freshly started gateways; so what changes on
the machine in the meantime hits all N alike. Results go to perf/out/threads-TIME/: report.md, results.json, throughput.svg and .png
(throughput and CPU), all.svg and .png (every metric). Each run is stored as it ends; --resume goes on where an interrupted sweep stopped.

workloads: stream (one TCP stream), streams (eight), peers (four clients of one gateway), both (one stream in each direction), udp (64-byte
packets, flat out). They run in network namespaces of their own.

With --attach it measures a gateway that runs already, with your own traffic:

    perf/threads --attach wg0 --restart 'systemctl set-environment N={N}; systemctl restart sluice@wg0' -- iperf3 -J -c 10.0.0.2 -t 5

N is fixed when a gateway starts, so --restart is the shell command that starts it anew with {N} threads, sets it up and leaves it in the
background. Throughput is what an `iperf3 -J` says; of any other command (`sleep 10` while real clients are at work) it is what crossed the
interface in both directions. Afterwards the gateway is restarted with the N it had.
"""

import argparse
import glob
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import compare  # first: it makes lib known
import evidence
import lib
import prepare
import threads_attach
import threads_load
import threads_report


class Sweep:
    """What is to be measured, what has been, and where both are kept."""

    def __init__(self, directory, settings, runs=()):
        self.directory, self.settings, self.runs = directory, settings, list(runs)

    def path(self, name):
        return os.path.join(self.directory, name)

    @classmethod
    def create(cls, directory, settings):
        os.makedirs(directory, exist_ok=True)
        if os.path.exists(os.path.join(directory, "settings.json")):
            raise lib.Failure(f"{directory} holds a sweep already: --resume {directory}, or choose another --out")
        sweep = cls(directory, settings)
        sweep.save_settings()
        return sweep

    @classmethod
    def load(cls, directory):
        try:
            with open(os.path.join(directory, "settings.json")) as f:
                settings = json.load(f)
        except (OSError, ValueError) as e:
            raise lib.Failure(f"--resume {directory}: no sweep is there ({e})")
        sweep = cls(directory, settings)
        sweep.read()
        return sweep

    def read(self):
        """The runs as they are stored; of several attempts at one, the last."""
        runs = {}
        if os.path.exists(self.path("runs.jsonl")):
            with open(self.path("runs.jsonl")) as f:
                for line in f:
                    try:
                        r = json.loads(line)
                    except ValueError:
                        continue  # cut off in the middle of writing
                    runs[r["round"], r["n"], r["workload"]] = r
        self.runs = list(runs.values())

    def save_settings(self):
        with open(self.path("settings.json"), "w") as f:
            json.dump(self.settings, f, indent=1)

    def add(self, run):
        self.runs.append(run)
        with open(self.path("runs.jsonl"), "a") as f:
            f.write("\n" if f.tell() and not ends_line(f.name) else "")
            f.write(json.dumps(run) + "\n")

    def discard(self):
        """Takes back what create() has made."""
        for name in ("settings.json", "runs.jsonl"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        if not os.listdir(self.directory):
            os.rmdir(self.directory)

    def left(self):
        """(round, N, workload) still to be measured, in order."""
        done = {(r["round"], r["n"], r["workload"]) for r in self.runs if "error" not in r}
        s = self.settings
        return [(i, n, w) for i in range(s["rounds"]) for w in s["workloads"]
                for n in (s["threads"] if i % 2 == 0 else reversed(s["threads"])) if (i, n, w) not in done]

    def write(self, draw=True):
        s = self.settings
        title = f"sluice --tun-threads on {s['attach']}" if s["attach"] else "sluice --tun-threads"
        what = {w: threads_load.WORKLOADS[w].what if w in threads_load.WORKLOADS else w for w in s["workloads"]}
        if s["attach"]:
            what = {w: shlex.join(s["command"]) for w in s["workloads"]}
        return threads_report.write(self.directory, s, title, what, self.runs, draw)


def ends_line(path):
    with open(path, "rb") as f:
        f.seek(-1, os.SEEK_END)
        return f.read(1) == b"\n"


def line_of(result):
    value = threads_load.rate(result) + (f", {result['cpu_s_per_gb']:.2f} CPU s/GB" if "gbit_s" in result else "")
    busy = max(result["busy"].items(), key=lambda x: x[1], default=None)
    return value + (f", busiest thread {busy[0]} {100 * busy[1]:.0f}%" if busy else "") + \
        f"; others {result['foreign_percent'] + result['steal_percent']:.0f}% of all CPUs"


def measure(sweep, one):
    """Measures what is left with one(n, workload). Returns the exit status."""
    todo, start, status = sweep.left(), time.monotonic(), 0
    total = sweep.settings["rounds"] * len(sweep.settings["workloads"]) * len(sweep.settings["threads"])
    try:
        for i, (number, n, w) in enumerate(todo):
            left = (time.monotonic() - start) / i * (len(todo) - i) if i else 0
            compare.say(f"[{total - len(todo) + i + 1}/{total}{f', {left / 60:.0f} min left' if i else ''}] round {number + 1}, N={n}, {w}: ", end="")
            run = {"round": number, "n": n, "workload": w, "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
            try:
                run["result"] = one(n, w)
                compare.say(line_of(run["result"]))
            except threads_attach.Missing:
                raise
            except (lib.Failure, OSError, ValueError, KeyError, ZeroDivisionError, subprocess.SubprocessError) as e:
                run["error"] = compare.reason(e)
                compare.say(f"failed: {run['error']}")
            sweep.add(run)
    except KeyboardInterrupt:
        # A terminal sends its signal to all of us, and the first process passes it on once more.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        compare.say("\ninterrupted")
        status = 130
    return status


def finish(sweep, status):
    """Writes what there is and says where."""
    where = compare.shown(sweep.directory)
    text = sweep.write() if sweep.runs else None
    if text:
        compare.say("\n" + text)
        compare.say(f"results: {where}/report.md, results.json, throughput.svg, throughput.png, all.svg, all.png")
    elif not sweep.runs:
        sweep.discard()
        return status or 1
    if status:
        compare.say(f"go on with: perf/threads --resume {where}")
    elif any("error" in r for r in sweep.runs):
        compare.say(f"some runs failed; try them again with: perf/threads --resume {where}")
        status = 1
    return status


def in_namespaces(sweep):
    binary = os.environ["SLUICE_BIN"]

    def one(n, w):
        workload = threads_load.WORKLOADS[w]
        bed = workload.bed(binary, n, sweep.settings["mtu"])
        try:
            return threads_load.run(workload, bed, sweep.settings["seconds"])
        finally:
            bed.close()

    reason = compare.compile_load()
    if reason:
        compare.say(reason)
        return 1
    # Inside the sandbox only what needs it: the report is written by the process that survives it.
    return lib.sandbox(lambda: measure(sweep, one))


def attached(sweep):
    s = sweep.settings
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lib._interrupted)
    gateway = threads_attach.Gateway(s["attach"], s["restart"])
    first = s.setdefault("n_before", gateway.first)
    touched = False

    def one(n, w):
        nonlocal touched
        touched = True
        gateway.start(n)
        time.sleep(s["settle"])
        return threads_attach.run(gateway, s["command"])

    try:
        return measure(sweep, one)
    finally:
        if touched:
            compare.say(f"restarting the gateway with N={first} as before")
            try:
                gateway.start(first)
            except lib.Failure as e:
                compare.say(f"that failed: {e}")


def count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def thread_list(text):
    out = []
    for word in text.replace(",", " ").split():
        if not word.isdigit() or not 1 <= int(word) <= 64:
            raise argparse.ArgumentTypeError(f"{word}: numbers from 1 to 64, such as 1,2,4")
        if int(word) not in out:
            out.append(int(word))
    if not out:
        raise argparse.ArgumentTypeError("numbers from 1 to 64, such as 1,2,4")
    return out


def workload_list(text):
    out = list(dict.fromkeys(text.replace(",", " ").split()))
    bad = [w for w in out if w not in threads_load.WORKLOADS]
    if bad or not out:
        raise argparse.ArgumentTypeError(f"{' '.join(bad)}: choose from {' '.join(threads_load.WORKLOADS)}")
    return out


def newest():
    found = sorted(d for d in glob.glob(os.path.join(compare.OUT, "threads-*")) if os.path.exists(os.path.join(d, "settings.json")))
    if not found:
        raise lib.Failure("--resume: there is no sweep in perf/out")
    return found[-1]


def parse():
    parser = argparse.ArgumentParser(prog="perf/threads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="perf/threads [options]\n       perf/threads --attach IFNAME --restart COMMAND [options] -- TRAFFIC COMMAND\n"
                                           "       perf/threads --resume [DIRECTORY]")
    parser.add_argument("--threads", type=thread_list, help="the N to try (1,2,3,4)")
    parser.add_argument("--workloads", type=workload_list, help=f"a list of: {' '.join(threads_load.WORKLOADS)} (all)")
    parser.add_argument("--rounds", type=count, help="alternating rounds (5)")
    parser.add_argument("--seconds", type=compare.positive(float), help="of each measurement (4)")
    parser.add_argument("--mtu", type=count, help="of the tunnel (1420)")
    parser.add_argument("--quick", action="store_true", help="four rounds of 2 s, workloads stream, both and udp")
    parser.add_argument("--out", help="directory for the results (perf/out/threads-TIME)")
    parser.add_argument("--resume", nargs="?", const="", metavar="DIRECTORY", help="go on with an interrupted sweep (the newest); with --rounds, to so many")
    parser.add_argument("--attach", metavar="IFNAME", help="measure the running gateway of this interface")
    parser.add_argument("--restart", metavar="COMMAND", help="shell command that starts it anew with {N} threads")
    parser.add_argument("--settle", type=float, help="seconds between restart and traffic (1)")
    arguments = sys.argv[1:]
    command = []
    if "--" in arguments:
        command = arguments[arguments.index("--") + 1:]
        arguments = arguments[:arguments.index("--")]
    o = parser.parse_args(arguments)
    o.command = command
    if o.resume is not None:
        others = [n for n in ("threads", "workloads", "seconds", "mtu", "out", "attach", "restart", "settle") if getattr(o, n) is not None]
        if others or o.quick or command:
            parser.error("--resume goes on with the settings of that sweep; only --rounds may be given besides")
        return o
    if o.attach:
        if not o.restart or "{N}" not in o.restart:
            parser.error("--attach needs --restart 'COMMAND' with {N} in it: N is fixed when a gateway starts")
        if not command:
            parser.error("--attach needs a traffic command after --, such as: -- iperf3 -J -c 10.0.0.2 -t 5")
        if o.workloads or o.seconds or o.mtu or o.quick:
            parser.error("--attach runs your own traffic: --workloads, --seconds, --mtu and --quick do not go with it")
    elif o.restart or command or o.settle is not None:
        parser.error("--restart, --settle and a traffic command go with --attach IFNAME")
    return o


def settings_of(o):
    path = f"/proc/{threads_attach.pid_of(o.attach)}/exe" if o.attach else os.environ["SLUICE_BIN"]
    return {"threads": o.threads or [1, 2, 3, 4],
            "workloads": ["traffic"] if o.attach else o.workloads or (["stream", "both", "udp"] if o.quick else list(threads_load.WORKLOADS)),
            "rounds": o.rounds or (4 if o.quick else 5), "seconds": o.seconds or (2 if o.quick else 4), "mtu": o.mtu or 1420,
            "attach": o.attach, "restart": o.restart, "settle": 1 if o.settle is None else o.settle, "command": o.command,
            "machine": compare.machine(), "program": evidence.program(path)}


def open_sweep(o):
    if o.resume is None:
        directory = os.path.abspath(o.out or os.path.join(compare.OUT, time.strftime("threads-%Y%m%d-%H%M%S")))
        return Sweep.create(directory, settings_of(o))
    sweep = Sweep.load(os.path.abspath(o.resume or newest()))
    s = sweep.settings
    if not s["attach"] and s["program"]["sha256"] != evidence.program(os.environ["SLUICE_BIN"])["sha256"]:
        raise lib.Failure("the program is not the one that the first part was measured with; start a new sweep")
    if o.rounds:
        s["rounds"] = max(s["rounds"], o.rounds)
        sweep.save_settings()
    compare.say(f"{compare.shown(sweep.directory)}: {len(sweep.left())} runs are left to do")
    return sweep


def main():
    o = parse()
    if not o.attach:
        prepare.program("perf/threads")
    prepare.need("netns", "plot")
    try:
        sweep = open_sweep(o)
        if sweep.settings["attach"]:
            status = attached(sweep)
        else:
            with tempfile.TemporaryDirectory(prefix="sluice-threads-") as tempfile.tempdir:  # logs of the daemons
                status = in_namespaces(sweep)
            tempfile.tempdir = None
        sweep.read()  # a sandbox has measured in another process
        return finish(sweep, status)
    except KeyboardInterrupt:
        return 130
    except (lib.Failure, OSError) as e:
        print(f"perf/threads: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
