#!/usr/bin/env python3
"""Measures sluice beside its peers: both ends of a tunnel run the same implementation, in two network namespaces joined by a veth pair.

Every round builds each tunnel afresh and runs every workload, one peer after the other, so that what changes on the machine in the meantime hits all alike.
The table gives medians over the rounds, their spread (lowest to highest), the ratio of sluice to each peer and whether a rank-sum test over the rounds
(four at least) finds a significant difference, and the load of others meanwhile. Results go to perf/out/compare-TIME/ as report.md, results.json and
plot.svg (one page, the ratios to wireguard-go first); the table is printed.

peers: sluice; wireguard-go (the newest, installed with go); wireguard-go-debian; boringtun and gotatun (installed with cargo); kernel (where the module
exists); veth (the cable itself, no tunnel); relay and relay-aead (a bare TUN-to-UDP relay without and with the cipher, perf/relay.c: a yardstick)
workloads: tcp, tcp-reverse, tcp-4 (four streams), tcp-bidir, udp-64, udp-512, udp-1400 (at increasing offered load), udp-64-overload (one, two
and three times what the tunnel carries, and once that beside twice as much to elsewhere, which takes the same CPU; sent and taken in bursts:
UDP_SEGMENT and UDP_GRO; not for the relays), latency (idle), latency-loaded; UDP and latency only at the first MTU and the first segmentation setting

All of it takes nearly two hours; --quick three minutes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "netns"))

import evidence
import lib
import plot
import prepare

OUT = os.path.join(ROOT, "perf", "out")
CACHE = os.path.join(OUT, "peers")
LOAD = os.path.join(CACHE, "udp_load")
TCP = {"tcp": (), "tcp-reverse": ("-R",), "tcp-4": ("-P", "4"), "tcp-bidir": ("--bidir",)}
UDP = {"udp-64": 64, "udp-512": 512, "udp-1400": 1372}  # payload; 1372 is an IP packet of 1400, which an MTU of 1420 does not fragment
OVERLOAD = {"udp-64-overload": 64}
LATENCY = ("latency", "latency-loaded")
WORKLOADS = list(TCP) + list(UDP) + list(OVERLOAD) + list(LATENCY)
OFFERED = (25000, 50000, 100000, 200000, 0)  # packets a second; 0: as fast as they go
BURST = 64  # packets that the sender of an overload hands the kernel at once

# In the order of the columns; the first that a workload has is what its ratios are of.
UNITS = {"gbit_s": "Gbit/s", "pps": "packets/s delivered", "offered_pps": "packets/s offered", "p50_us": "p50 µs", "p99_us": "p99 µs",
         "cpu_s_per_gb": "CPU s/GB, both ends", "system_s_per_gb": "CPU s/GB, whole machine", "cpu_us_per_packet": "CPU µs/packet, both ends",
         "retransmits": "retransmits", "reordered": "reordered", "switches_per_gb": "context switches/GB", "rss_mb": "resident MiB, larger end",
         **evidence.OTHERS}


# What the commands of perf/ share. ---------------------------------------------------------------------------------------------------


def say(text, end="\n"):
    print(text, end=end, flush=True)


def shown(path):
    """A path as a user would type it here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def positive(kind):
    """A type of argparse: a number of that kind and more than 0; an int where it is whole."""
    def convert(text):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError("must be more than 0")
        return int(value) if value == int(value) else value

    return convert


def compile_c(source, out, options=(), libraries=()):
    """Compiles one file of perf/. Returns why that failed, or None."""
    os.makedirs(CACHE, exist_ok=True)
    p = subprocess.run(["cc", "-O3", "-march=native", "-D_GNU_SOURCE", *options, "-o", out, os.path.join(ROOT, "perf", source), *libraries],
                       capture_output=True, text=True)
    return p.stderr.strip() if p.returncode else None


def compile_load():
    """Compiles what sends and receives UDP. Returns why that failed, or None."""
    return compile_c("udp_load.c", LOAD)


def start_load(node, *args):
    """udp_load as a sink or pong, ready to receive. The caller ends it."""
    p = node.popen(LOAD, *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if p.stdout.readline() != "ready\n":
        end_load(p)
        raise lib.Failure("udp_load did not start")
    return p


def end_load(p):
    p.kill()
    p.wait()


def offer_udp(n1, n2, address, size, rate, seconds, burst=1):
    """Sends packets of a size over four flows at a rate (0: flat out) from n1 to an address of n2. Returns (what was sent, what was received); its pps
    is over the sender's time or the receiver's, whichever is longer: a backlog that drains afterwards is not throughput."""
    sink = start_load(n2, "sink", address, 7000, seconds + 3, *(["gro"] if burst > 1 else []))
    try:
        sent = json.loads(n1.out(LOAD, "send", address, 7000, size, rate, seconds, 4, *([burst] if burst > 1 else []), timeout=seconds + 20))
        got = json.loads(sink.communicate(timeout=seconds + 20)[0])
    finally:
        end_load(sink)
    return sent, {**got, "pps": min(got["received"] / seconds, got["pps"])}


def received(end):
    """The sums of what arrived, one a direction, in the end section of an iperf3 report."""
    return [end[k] for k in ("sum_received", "sum_received_bidir_reverse") if k in end]


def iperf_result(ends):
    """Throughput and bytes of iperf3 clients that ran at the same time, of the end sections of their reports."""
    sums = [x for end in ends for x in received(end)]
    total = sum(x["bytes"] for x in sums)
    lib.check(total > 0, "nothing arrived")
    return {"gbit_s": sum(x["bits_per_second"] for x in sums) / 1e9, "bytes": total}


# Peers: how each is had and put up. --------------------------------------------------------------------------------------------


class Tunnel:
    """Two nodes, a cable, and an implementation at both ends. self.pids are the processes whose time is counted."""

    def __init__(self, mtu, segmentation):
        self.n1, self.n2 = lib.Node("left"), lib.Node("right")
        lib.veth(self.n1, "eth0", self.n2, "eth0", ("192.0.2.1/24",), ("192.0.2.2/24",))
        for n in (self.n1, self.n2):
            n.tx_udp_segmentation("eth0", segmentation)
        self.mtu, self.pids, self.processes, self.daemons = mtu, [], [], []
        self.left, self.right = "10.0.0.1", "10.0.0.2"
        self.in_kernel = False  # the work is done by kernel threads, which nobody can tell from the load of others

    def close(self):
        for d in self.daemons:
            d.kill()
        for p in self.processes:
            p.kill()
            p.wait()
        lib.Daemon.all.clear()
        for n in (self.n1, self.n2):
            n.close()

    def addresses(self):
        for n, a in ((self.n1, self.left), (self.n2, self.right)):
            n.ip(f"link set wg0 mtu {self.mtu} up")
            n.ip(f"addr add {a}/24 dev wg0")


class Peer:
    """One implementation: prepare() returns None or why it is not to be had here; up() puts a tunnel up."""

    def __init__(self, name):
        self.name, self.version = name, ""

    def prepare(self):
        return None

    def up(self, t):
        raise NotImplementedError


class Userspace(Peer):
    """A program that is started with an interface name and driven through its control socket."""

    def __init__(self, name, path=None, install=None, foreground=("-f",), env=None, args=()):
        super().__init__(name)
        self.path, self.install, self.foreground, self.env, self.args = path, install, foreground, env, list(args)

    def prepare(self):
        if not self.path or not os.access(self.path, os.X_OK):
            reason = self.install(self) if self.install else f"{self.path} is not there"
            if reason:
                return reason
        try:
            self.version = subprocess.run([self.path, "--version"], capture_output=True, text=True, timeout=10).stdout.split("\n")[0].strip()
        except (OSError, subprocess.TimeoutExpired):
            pass
        return None

    def up(self, t):
        program = lib.Program(self.name, self.path, self.foreground, self.env)
        private = [lib.genkey(), lib.genkey()]
        public = [lib.pubkey(k) for k in private]
        for i, n in enumerate((t.n1, t.n2)):
            d = lib.Daemon(n, program, args=self.args)
            t.daemons.append(d)
            t.pids.append(d.pid)
            d.set_private_key(private[i])
            d.set(f"listen-port 51820 peer {public[1 - i]} allowed-ips 10.0.0.0/24 endpoint 192.0.2.{2 - i}:51820")
        t.addresses()


class Kernel(Peer):
    def prepare(self):
        p = subprocess.run(["ip", "link", "add", "wgprobe", "type", "wireguard"], capture_output=True, text=True)
        if p.returncode:
            return "this kernel has no WireGuard"
        subprocess.run(["ip", "link", "del", "wgprobe"])
        self.version = os.uname().release
        return None

    def up(self, t):
        t.in_kernel = True
        private = [lib.genkey(), lib.genkey()]
        public = [lib.pubkey(k) for k in private]
        for i, n in enumerate((t.n1, t.n2)):
            n.ip("link add wg0 type wireguard")
            n.run("wg", "set", "wg0", "private-key", "/dev/stdin", input=private[i])
            n.run(*f"wg set wg0 listen-port 51820 peer {public[1 - i]} allowed-ips 10.0.0.0/24 endpoint 192.0.2.{2 - i}:51820".split())
        t.addresses()


class Cable(Peer):
    def up(self, t):
        t.left, t.right = "192.0.2.1", "192.0.2.2"


class Relay(Peer):
    def __init__(self, name, aead):
        super().__init__(name)
        self.aead = aead

    def prepare(self):
        options = ["-DRELAY_AEAD"] if self.aead else []
        self.path = os.path.join(CACHE, self.name)
        return compile_c("relay.c", self.path, options, ["-lpthread"] + (["-lIPSec_MB"] if self.aead else []))

    def up(self, t):
        for n, other in ((t.n1, "192.0.2.2"), (t.n2, "192.0.2.1")):
            p = n.popen(self.path, "wg0", t.mtu, 51820, other, 51820, *(["--aead"] if self.aead else []), stdin=-3)
            t.processes.append(p)
            t.pids.append(p.pid)
            lib.wait_until(lambda: n.has_link("wg0"), 5, "relay")
        t.addresses()


def install(argv, product, env=None):
    """An installer for Userspace: runs argv once, keeps the product in the cache, returns a reason when that fails."""

    def run(peer):
        path = os.path.join(CACHE, product)
        if not os.access(path, os.X_OK):
            tool = shutil.which(argv[0]) or next((p for p in (f"/usr/local/go/bin/{argv[0]}", os.path.expanduser(f"~/.cargo/bin/{argv[0]}"))
                                                  if os.access(p, os.X_OK)), None)
            if not tool:
                return f"{argv[0]} is not installed (needed for {' '.join(argv)})"
            os.makedirs(CACHE, exist_ok=True)
            say(f"installing {peer.name}: {' '.join(argv)}")
            try:
                p = subprocess.run([tool] + argv[1:], env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=1200,
                                   stdin=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                return f"{' '.join(argv)} was not done in 20 minutes"
            if p.returncode:
                return f"{' '.join(argv)}: {(p.stderr.strip().splitlines() or ['failed'])[-1]}"
        peer.path = path
        return None

    return run


def install_debian(peer):
    p = subprocess.run(["bash", "-c", ". tests/lib/setup.sh && setup_need peers"], cwd=ROOT, capture_output=True, text=True)
    if p.returncode:
        return p.stderr.strip().splitlines()[-1]
    return None


def all_peers(sluice_args):
    cargo = lambda crate, binary: install(["cargo", "install", "--quiet", "--root", CACHE, crate], f"bin/{binary}")
    return [
        Userspace("sluice", os.environ.get("SLUICE_BIN"), args=sluice_args),
        Userspace("wireguard-go", None, install(["go", "install", "golang.zx2c4.com/wireguard@latest"], "wireguard", {"GOBIN": CACHE})),
        Userspace("wireguard-go-debian", "/usr/bin/wireguard-go", install_debian),
        Userspace("boringtun", None, cargo("boringtun-cli", "boringtun-cli"), env={"WG_SUDO": "1"}, args=("--disable-drop-privileges",)),
        Userspace("gotatun", None, cargo("gotatun-cli", "gotatun"), env={"WG_SUDO": "1"}, args=("--disable-drop-privileges",)),
        Kernel("kernel"),
        Relay("relay", False),
        Relay("relay-aead", True),
        Cable("veth"),
    ]


def comparable(peer, workload):
    """The relays cut a burst by the MTU and not into its datagrams, so what they would deliver of it is something else."""
    return not (workload.partition(" ")[0] in OVERLOAD and peer.startswith("relay"))


# Workloads. ----------------------------------------------------------------------------------------------------------------------


class Meter:
    """What a tunnel costs between start and stop: CPU seconds and context switches of its processes, busy seconds of the machine; and what others take
    meanwhile."""

    def __init__(self, t):
        self.t, self.others = t, evidence.Others(evidence.sandbox_seconds)
        self.cpu, self.switches, self.busy = self.read()

    def read(self):
        cpu = sum(lib.cpu_seconds(p) for p in self.t.pids)
        switches = sum(lib.context_switches(p) for p in self.t.pids)
        with open("/proc/stat") as f:
            ticks = [int(x) for x in f.readline().split()[1:9]]
        return cpu, switches, (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """(CPU seconds, switches, busy seconds of the machine, metrics of the load of others)."""
        load = self.others.stop()
        if self.t.in_kernel:
            del load["foreign_percent"]
        return *(now - then for now, then in zip(self.read(), (self.cpu, self.switches, self.busy))), load


def rss_mb(t):
    return max((lib.status_kb(p, "VmHWM") for p in t.pids), default=0) / 1024


class Runner:
    def __init__(self, options):
        self.options = options

    def tcp(self, t, workload):
        with lib.IperfServer(t.n2):
            meter = Meter(t)
            end = lib.iperf(t.n1, t.right, self.options.seconds, *TCP[workload])
            cpu, switches, busy, load = meter.stop()
        got = iperf_result([end])
        sent = [end["sum_sent"]] + ([end["sum_sent_bidir_reverse"]] if "sum_sent_bidir_reverse" in end else [])
        gb = got["bytes"] / 1e9
        result = {"gbit_s": got["gbit_s"], "retransmits": sum(x.get("retransmits", 0) for x in sent), "system_s_per_gb": busy / gb, **load}
        if t.pids:
            result.update(cpu_s_per_gb=cpu / gb, switches_per_gb=switches / gb, rss_mb=rss_mb(t))
        return {workload: result}

    def udp(self, t, workload):
        out = {}
        for rate in self.options.offered:
            name = f"{workload} at {rate // 1000}k" if rate else f"{workload} flat out"
            out[name] = self.offer(t, UDP[workload], rate, self.options.seconds / 2)  # there are many of them
        return out

    def overload(self, t, workload):
        size, rate, carried, seconds = OVERLOAD[workload], 50000, 0, min(1, self.options.seconds / 4)
        while True:
            got = self.offer(t, size, rate, seconds, BURST)
            carried = max(carried, got["pps"])
            # Too much for the tunnel, or more than the sender can.
            if got["pps"] < 0.95 * got["offered_pps"] or got["offered_pps"] < 0.9 * rate:
                break
            rate *= 2
        # The most that is carried is somewhere between the last two.
        carried = max(carried, *(self.offer(t, size, rate * part, seconds, BURST)["pps"] for part in (0.6, 0.7, 0.8, 0.9)))
        if not carried:
            raise lib.Failure("nothing arrived")
        out, seconds = {}, self.options.seconds
        for n in (1, 2, 3):
            got = self.offer(t, size, n * carried, seconds, BURST)
            out[f"{workload} {n}x"] = {**got, "offered_to_carried": got["offered_pps"] / carried}
        # Offering takes CPU from the gateways: the same again, but only 1x of it to the tunnel, the rest to an interface that nobody reads.
        t.n1.ip("tuntap add mode tun name void0")
        t.n1.ip("addr add 198.51.100.1/24 dev void0")
        t.n1.ip("link set void0 up")
        other = t.n1.popen(LOAD, "send", "198.51.100.2", 7000, size, 2 * carried, seconds, 4, BURST, stdin=-3, stdout=-3)
        try:
            out[f"{workload} 1x, 2x elsewhere"] = self.offer(t, size, carried, seconds, BURST)
        finally:
            end_load(other)
        return out

    def offer(self, t, size, rate, seconds, burst=1):
        meter = Meter(t)
        sent, got = offer_udp(t.n1, t.n2, t.right, size, rate, seconds, burst)
        cpu, _, _, load = meter.stop()
        result = {"pps": got["pps"], "offered_pps": sent["pps"], "p50_us": got["p50_us"], "p99_us": got["p99_us"], "reordered": got["reordered"],
                  "rss_mb": rss_mb(t), **load}
        if t.pids and got["received"]:
            result["cpu_us_per_packet"] = cpu / got["received"] * 1e6
        time.sleep(0.3)
        return result

    def latency(self, t, workload):
        pong, loader = start_load(t.n2, "pong", t.right, 7001, 3600), None
        try:
            with lib.IperfServer(t.n2):
                if workload == "latency-loaded":
                    loader = t.n1.popen("iperf3", "-c", t.right, "-t", self.options.seconds + 2, stdin=-3, stdout=-3, stderr=-3)
                    time.sleep(1)
                meter = Meter(t)
                got = json.loads(t.n1.out(LOAD, "ping", t.right, 7001, 64, 500, self.options.seconds, timeout=self.options.seconds + 20))
                load = meter.stop()[-1]
        finally:
            for p in (pong, loader):
                if p:
                    end_load(p)
        return {workload: {"p50_us": got["p50_us"], "p99_us": got["p99_us"], "lost": got["lost"], **load}}

    def run(self, peer, mtu, segmentation, workloads):
        t = self.tunnel(peer, mtu, segmentation)
        results = {}
        try:
            for w in workloads:
                if not comparable(peer.name, w):
                    continue
                function = self.tcp if w in TCP else self.udp if w in UDP else self.overload if w in OVERLOAD else self.latency
                try:
                    results.update(function(t, w))
                except (lib.Failure, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
                    results.setdefault("failures", []).append(f"{w}: {reason(e)}")
            if peer.name == "sluice" and lib.Daemon.all and t.daemons:
                results["stats"], results["cipher"] = self.stats(t), evidence.cipher_of(t.daemons[0])
        finally:
            t.close()
        return results

    def tunnel(self, peer, mtu, segmentation, attempts=5):
        """A tunnel that carries a ping. gotatun 0.10.2 ends in every other start ("channel closed"), hence the attempts."""
        for n in range(attempts):
            t = Tunnel(mtu, segmentation)
            try:
                peer.up(t)
                lib.wait_until(lambda: lib.ping(t.n1, t.right, ok=False, wait=1), 15, "first ping")
                return t
            except lib.Failure:
                t.close()
                if n == attempts - 1:
                    raise
            except BaseException:
                t.close()
                raise

    def stats(self, t):
        """The gateway's own counters, kept with the results; an implementation standing in for sluice has none."""
        p = t.n1.run(t.daemons[0].program.path, "stats", "wg0", "--json", ok=False)
        try:
            return json.loads(p.stdout)
        except ValueError:
            return None


# Report. -------------------------------------------------------------------------------------------------------------------------


def reason(error):
    """An error in one line: a failed command and what it said."""
    return ": ".join(str(error).strip().splitlines()[:2]) or type(error).__name__


def median(values):
    return statistics.median(values) if values else None


def number(x):
    if x is None:
        return ""
    if x == 0 or abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}" if abs(x) < 1 else f"{x:.2f}" if abs(x) < 100 else f"{x:.0f}"


def cells(column):
    """A column of a table, of lists of values: each median with the lowest and the highest, all with the same number of decimals."""
    shown = [x for v in column if v for x in (median(v), min(v), max(v))]
    largest = max((abs(median(v)) for v in column if v), default=0)
    wanted = 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 1 else 3
    # No more than the figures have: counts have none, and a median of two counts has one.
    digits = max((len(f"{x:.{wanted}f}".rstrip("0").partition(".")[2]) for x in shown), default=0)
    return [(f"{median(v):,.{digits}f}" + (f" ({min(v):,.{digits}f}–{max(v):,.{digits}f})" if len(v) > 1 else "")) if v else "" for v in column]


def circumstances(data):
    return evidence.circumstances(data["machine"], data.get("program"), data.get("ciphers", ()), load_of(data["results"]))


def load_of(results):
    """What others took during each measurement of some results."""
    runs = []
    for workloads in results.values():
        for peers in workloads.values():
            for values in peers.values():
                known = {m: values[m] for m in evidence.OTHERS if m in values}
                runs += [dict(zip(known, one)) for one in zip(*known.values())]
    return runs


def report(data):
    """Markdown: one table a setting and workload."""
    lines = [f"# {data['title']}", "", *circumstances(data), "",
             f"{data['rounds']} alternating rounds, {data['seconds']} s a measurement (UDP at increasing load half). Median (lowest–highest)."
             + (f" Ratio: sluice's median to this one's. Difference: of sluice to this one, {evidence.TEST}." if "sluice" in data["peers"] else "")
             + " Other processes: those that are not of the measurement, kernel threads among them.", ""]
    for p, v in data["peers"].items():
        lines.append(f"- {p}" + (f": {v}" if v else ""))
    for p, why in data["absent"].items():
        lines.append(f"- {p}: {why}")
    for setting, workloads in data["results"].items():
        lines += ["", f"## {setting}"]
        for w, peers in workloads.items():
            metrics = [m for m in UNITS if any(m in v for v in peers.values())]
            lead = metrics[0]
            lines += ["", f"### {w}", "", "| | " + " | ".join(UNITS[m] for m in metrics) + f" | ratio of {UNITS[lead]} | difference |",
                      "|---|" + "---:|" * (len(metrics) + 1) + "---|"]
            peers = {p: values for p, values in peers.items() if comparable(p, w)}
            ours = peers.get("sluice", {}).get(lead, [])
            columns = [cells([values.get(m) for values in peers.values()]) for m in metrics]
            for (p, values), figures in zip(peers.items(), zip(*columns)):
                theirs, words = values.get(lead, []), ["", ""]
                if p != "sluice" and median(ours) and median(theirs):
                    words = [f"{median(ours) / median(theirs):.2f}", evidence.difference(ours, theirs)]
                lines.append(f"| {p} | " + " | ".join([*figures, *words]) + " |")
    for target, verdict in data["targets"]:
        lines += ["" if target == data["targets"][0][0] else None, f"- {target}: {verdict}"]
    return "\n".join(line for line in lines if line is not None) + "\n"


def targets(results):
    """The figures that the project holds itself to, as (what, verdict)."""

    def m(setting, workload, peer, metric):
        for s, w in results.items():
            if setting in s:
                v = w.get(workload, {}).get(peer, {}).get(metric, [])
                if v:
                    return v
        return []

    def verdict(ours, theirs, want, at_most=False):
        if not median(ours) or not median(theirs):
            return None
        ratio = median(ours) / median(theirs)
        good = ratio <= want if at_most else ratio >= want
        return (f"{ratio:.2f}, wanted {'at most' if at_most else 'at least'} {want}: {'reached' if good else 'MISSED'}; "
                f"from {want}: {evidence.difference(ours, [want * x for x in theirs])}")

    def flat(workload):
        """How much of the goodput is left when three times what is carried is offered; but that must have been offered."""
        offered = median(m(on, f"{workload} 3x", "sluice", "offered_to_carried"))
        if offered and offered < 2.7:
            return f"NOT MEASURED: the sender came to {offered:.2f} times what the tunnel carries"
        return verdict(m(on, f"{workload} 3x", "sluice", "pps"), m(on, f"{workload} 1x, 2x elsewhere", "sluice", "pps"), 0.9)

    on, off = "MTU 1420, tx-udp-segmentation on", "MTU 1420, tx-udp-segmentation off"
    rows = []
    for w in ("tcp", "tcp-reverse"):
        rows += [(f"{w}: Gbit/s to the newest wireguard-go's", verdict(m(on, w, "sluice", "gbit_s"), m(on, w, "wireguard-go", "gbit_s"), 2)),
                 (f"{w}: Gbit/s to the relay's with cipher", verdict(m(on, w, "sluice", "gbit_s"), m(on, w, "relay-aead", "gbit_s"), 1)),
                 (f"{w}: CPU seconds per GB to wireguard-go's",
                  verdict(m(on, w, "sluice", "cpu_s_per_gb"), m(on, w, "wireguard-go", "cpu_s_per_gb"), 0.45, True)),
                 (f"{w} without tx-udp-segmentation: Gbit/s to wireguard-go's",
                  verdict(m(off, w, "sluice", "gbit_s"), m(off, w, "wireguard-go", "gbit_s"), 2))]
    rows += [("64-byte UDP delivered, flat out, to wireguard-go's",
              verdict(m(on, "udp-64 flat out", "sluice", "pps"), m(on, "udp-64 flat out", "wireguard-go", "pps"), 3)),
             ("64-byte UDP overload: delivered at 3x to delivered at 1x with the rest offered elsewhere", flat("udp-64-overload")),
             ("idle p99 latency to wireguard-go's", verdict(m(on, "latency", "sluice", "p99_us"), m(on, "latency", "wireguard-go", "p99_us"), 1, True)),
             ("resident memory to wireguard-go's, TCP", verdict(m(on, "tcp", "sluice", "rss_mb"), m(on, "tcp", "wireguard-go", "rss_mb"), 1, True)),
             ("resident memory to wireguard-go's, 64-byte UDP flat out",
              verdict(m(on, "udp-64 flat out", "sluice", "rss_mb"), m(on, "udp-64 flat out", "wireguard-go", "rss_mb"), 1, True))]
    return [(what, v) for what, v in rows if v]


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), os.uname().machine)
    return f"{cpu}, {os.cpu_count()} cores, Linux {os.uname().release}, {time.strftime('%Y-%m-%d')}"


# The panels of the picture: heading, workloads, metrics, whether more is better.
PANELS = (("TCP, Gbit/s", tuple(TCP), ("gbit_s",), True),
          ("TCP, CPU s/GB, both ends", tuple(TCP), ("cpu_s_per_gb",), False),
          ("UDP, packets/s delivered", tuple(UDP), ("pps",), True),
          (f"64-byte UDP in bursts of {BURST}, packets/s delivered", tuple(OVERLOAD), ("pps",), True),
          ("round trip, µs", LATENCY, ("p50_us", "p99_us"), False),
          ("resident MiB, larger end", ("tcp",) + tuple(UDP), ("rss_mb",), False))
NAMES = {"tcp": "one TCP stream", "tcp-reverse": "reverse", "tcp-4": "four streams", "tcp-bidir": "both ways", "udp-64": "64 bytes", "udp-512": "512 bytes",
         "udp-1400": "1400 bytes", "udp-64-overload": "offered", "latency": "idle", "latency-loaded": "beside one TCP stream"}


def label(workload, metric):
    """A workload in the picture, where the panel's heading says the rest."""
    name, _, load = workload.partition(" ")
    return " ".join(x for x in (NAMES[name], load, {"p50_us": "p50", "p99_us": "p99"}.get(metric)) if x)


def panel(heading, setting, names, metrics, more_is_better, workloads):
    """One panel of what was measured at a setting, or None. Flat out, if it is in it, stands for all of it."""
    rows, lead = [], None
    for w, peers in workloads.items():
        name = w.partition(" ")[0]
        if name not in names or ("rss_mb" in metrics and name in UDP and not w.endswith("flat out")):
            continue
        for m in metrics:
            values = {p: v[m] for p, v in peers.items() if v.get(m) and drawn(p, w)}
            if values:
                lead = len(rows) if lead is None and w.endswith("flat out") else lead
                rows.append((label(w, m), values))
    return plot.Panel(heading, setting, more_is_better, rows, lead or 0) if rows else None


def drawn(peer, workload):
    """The relay without cipher is a yardstick of TCP alone, as in README.md: of small packets sluice delivers more, in bursts or not."""
    return comparable(peer, workload) and (peer != "relay" or workload in TCP)


def draw(data):
    """The picture: the ratios of sluice to the newest wireguard-go (or to whom there is instead) and a panel for each kind of workload and setting."""
    peers = [p for p in data["peers"] if any(drawn(p, w) for workloads in data["results"].values() for w in workloads)]
    first = "sluice" if "sluice" in peers else peers[0]
    others = [p for p in peers if p != first]
    second = next((p for p in ("wireguard-go", "wireguard-go-debian") if p in others), others[0] if others else None)
    panels, leads = [], []
    for heading, names, metrics, more_is_better in PANELS:
        same = [panel(heading, s, names, metrics, more_is_better, w) for s, w in data["results"].items()]
        same = [p for p in same if p]
        panels += same
        leads += same[:1]
    subtitle = f"{'; '.join(circumstances(data))}; {data['rounds']} alternating rounds, {data['seconds']} s a measurement (UDP at increasing load half)"
    return plot.page(data["title"], subtitle, panels, peers, first, second, leads)


def write(out, data):
    text = report(data)
    for name, content in (("results.json", json.dumps(data, indent=1)), ("report.md", text), ("plot.svg", draw(data))):
        with open(os.path.join(out, name), "w") as f:
            f.write(content)
    return text


def measure(options, peers, out):
    data = {"title": "sluice and its peers", "machine": machine(), "rounds": options.rounds, "seconds": options.seconds,
            "peers": {p.name: p.version for p in peers}, "absent": options.absent, "results": {}, "stats": {}, "targets": [], "ciphers": [],
            "program": next((evidence.program(p.path) for p in peers if p.name == "sluice"), None)}
    runner = Runner(options)
    settings = [(mtu, s) for s in options.segmentation for mtu in options.mtu]
    only_tcp = [w for w in options.workloads if w in TCP]
    settings = [(mtu, s, options.workloads if (mtu, s) == settings[0] else only_tcp) for mtu, s in settings]
    settings = [x for x in settings if x[2]]
    steps, step, start = len(settings) * options.rounds * len(peers), 0, time.monotonic()
    failures = {}
    try:
        for n in range(options.rounds):
            for mtu, segmentation, workloads in settings:
                setting = f"MTU {mtu}, tx-udp-segmentation {'on' if segmentation else 'off'}"
                # Forwards, then backwards: nobody always comes first.
                for peer in peers if n % 2 == 0 else reversed(peers):
                    step += 1
                    left = (time.monotonic() - start) / (step - 1) * (steps - step + 1) if step > 1 else 0
                    say(f"[{step}/{steps}, {left / 60:.0f} min left] round {n + 1}, {setting}, {peer.name}: ", end="")
                    try:
                        results = runner.run(peer, mtu, segmentation, workloads)
                    except (lib.Failure, OSError, ValueError, subprocess.SubprocessError) as e:
                        results = {"failures": [reason(e)]}
                    for why in results.pop("failures", ()):
                        say(f"failed: {why}; ", end="")
                        failures[peer.name] = why
                    stats = results.pop("stats", None)
                    if stats:
                        data["stats"][setting] = stats
                    if "cipher" in results:
                        data["ciphers"].append(results.pop("cipher"))
                    into = data["results"].setdefault(setting, {})
                    for w, metrics in results.items():
                        by_peer = into.setdefault(w, {p.name: {} for p in peers if comparable(p.name, w)})
                        for metric, value in metrics.items():
                            by_peer[peer.name].setdefault(metric, []).append(value)
                    say(", ".join(f"{w} {number(next(iter(m.values())))}" for w, m in results.items()))
                data["targets"] = targets(data["results"])
                write(out, data)
    finally:
        for p, why in failures.items():
            data["absent"][p] = f"not in every round: {why}"
        if data["results"]:
            say("\n" + write(out, data))
            say(f"results: {os.path.relpath(out, ROOT)}/report.md, results.json, plot.svg")
    return 1 if not data["results"] else 0


def parse():
    names = [p.name for p in all_peers(())]
    parser = argparse.ArgumentParser(prog="perf/compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def words(allowed, kind=str):
        def parse(text):
            got = [kind(x) for x in text.replace(",", " ").split()]
            bad = [x for x in got if allowed and x not in allowed]
            if bad or not got:
                raise argparse.ArgumentTypeError(f"choose from {' '.join(map(str, allowed))}")
            return got

        return parse

    parser.add_argument("--quick", action="store_true", help="one TCP stream in both directions, sluice and the newest wireguard-go, 4 rounds of 3 s")
    parser.add_argument("--peers", type=words(names), help=f"a list of: {' '.join(names)} (all)")
    parser.add_argument("--workloads", type=words(WORKLOADS), help=f"a list of: {' '.join(WORKLOADS)} (all)")
    parser.add_argument("--mtu", type=words((), int), help="a list (1420,1280)")
    parser.add_argument("--segmentation", type=words(("on", "off")), help="tx-udp-segmentation of the veth pair: on, off or both (on,off)")
    parser.add_argument("--offered", type=words((), int), default=OFFERED, help="UDP packets per second; 0: flat out (25000,50000,100000,200000,0)")
    parser.add_argument("--rounds", "--pairs", type=positive(int), help="alternating rounds (5)")
    parser.add_argument("--seconds", type=positive(float), help="of each measurement (4)")
    parser.add_argument("--tun-threads", type=positive(int), help="for sluice")
    parser.add_argument("--sluice-args", default="", help="more arguments for sluice")
    parser.add_argument("--out", help="directory for the results (perf/out/compare-TIME)")
    o = parser.parse_args()
    o.peers = o.peers or (["sluice", "wireguard-go"] if o.quick else names)
    o.workloads = o.workloads or (["tcp", "tcp-reverse"] if o.quick else WORKLOADS)
    o.mtu = o.mtu or ([1420] if o.quick else [1420, 1280])
    o.segmentation = [s == "on" for s in (o.segmentation or (["on"] if o.quick else ["on", "off"]))]
    o.rounds = o.rounds or (4 if o.quick else 5)
    o.seconds = o.seconds or (3 if o.quick else 4)
    if o.seconds < 0.5:
        parser.error("--seconds: at least half a second")
    return o


def main():
    o = parse()
    prepare.program("perf/compare")
    out = os.path.abspath(o.out or os.path.join(OUT, time.strftime("compare-%Y%m%d-%H%M%S")))

    args = o.sluice_args.split() + (["--tun-threads", str(o.tun_threads)] if o.tun_threads else [])
    peers, o.absent = [], {}
    for p in all_peers(args):
        if p.name not in o.peers:
            continue
        reason = p.prepare()
        if reason and p.name == "wireguard-go" and "wireguard-go-debian" not in o.peers:
            say(f"{p.name}: {reason}; Debian's takes its place")
            o.absent[p.name] = "not measured, " + reason
            p = next(x for x in all_peers(args) if x.name == "wireguard-go-debian")
            reason = p.prepare()
        if reason:
            say(f"{p.name}: not measured: {reason}")
            o.absent[p.name] = "not measured, " + reason
        else:
            peers.append(p)
    if not peers:
        say("nothing to measure")
        return 1
    reason = compile_load()
    if reason:
        say(reason)
        return 1
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sluice-compare-") as tempfile.tempdir:  # logs of the daemons
        status = lib.sandbox(lambda: measure(o, peers, out))
    if status == 130:
        say("interrupted; nothing is left behind")
    return status


if __name__ == "__main__":
    sys.exit(main())
