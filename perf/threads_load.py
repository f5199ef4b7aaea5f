"""Tunnels and traffic for perf/threads and perf/flamegraph, and what a run costs: processor time by thread, switches, TCP's and sluice's counters.

A bed is a set of nodes with a gateway under test in it; a workload is a bed and the traffic over it.
"""

import json
import os
import subprocess
import time
from types import SimpleNamespace

import compare  # first: it makes lib known
import evidence
import lib

PEERS = 4  # clients of the workload "peers"
STREAMS = 8
FIRST_PING = 12  # seconds: on a busy machine the other end may learn late that its link is up, and the next handshake comes 5 s later


class Bed(compare.Tunnel):
    """Two ends of one tunnel, both with the same number of TUN threads. The first pid is the gateway under test."""

    def __init__(self, binary, n, mtu):
        super().__init__(mtu, True)
        try:
            compare.Userspace("sluice", binary, args=("--tun-threads", n)).up(self)
            lib.ping(self.n1, self.right, wait=FIRST_PING)
        except BaseException:
            self.close()
            raise
        self.nodes = [self.n1, self.n2]


class Star:
    """A gateway with N TUN threads and PEERS clients with one each, every client on a cable of its own."""

    def __init__(self, binary, n, mtu):
        self.nodes, self.daemons, self.clients = [], [], []
        try:
            self.up(binary, n, mtu)
        except BaseException:
            self.close()
            raise
        self.pids = [d.pid for d in self.daemons]

    def up(self, binary, n, mtu):
        program = lib.Program("sluice", binary)
        self.gateway = lib.Node("gateway")
        self.nodes.append(self.gateway)
        for i in range(1, PEERS + 1):
            client = lib.Node(f"client{i}")
            self.nodes.append(client)
            self.clients.append(client)
            lib.veth(self.gateway, f"eth{i}", client, "eth0", (f"192.0.2.{4 * i + 1}/30",), (f"192.0.2.{4 * i + 2}/30",))
        private = [lib.genkey() for _ in self.nodes]
        public = [lib.pubkey(k) for k in private]
        for i, node in enumerate(self.nodes):
            d = lib.Daemon(node, program, args=("--tun-threads", 1 if i else n))
            self.daemons.append(d)
            d.set_private_key(private[i])
            d.set("listen-port 51820")
            if i:
                d.set(f"peer {public[0]} allowed-ips 10.0.0.1/32 endpoint 192.0.2.{4 * i + 1}:51820")
            node.ip(f"link set wg0 mtu {mtu} up")
            node.ip(f"addr add 10.0.0.{i + 1}/24 dev wg0")
        for i, client in enumerate(self.clients, 1):
            self.daemons[0].set(f"peer {public[i]} allowed-ips 10.0.0.{i + 1}/32")
            lib.ping(client, "10.0.0.1", wait=FIRST_PING)

    def close(self):
        for d in self.daemons:
            d.kill()
        lib.Daemon.all.clear()
        for node in self.nodes:
            node.close()


# Traffic: each gives throughput ("gbit_s" or "pps") and "bytes" delivered. -------------------------------------------------------------


def tcp(*extra):
    def traffic(bed, seconds):
        with lib.IperfServer(bed.n2):
            return compare.iperf_result([lib.iperf(bed.n1, bed.right, seconds, *extra)])

    return traffic


def many_peers(bed, seconds):
    """One TCP stream a client, every other one towards the client."""
    servers, clients = [lib.IperfServer(bed.gateway, 5201 + i) for i in range(len(bed.clients))], []
    started = []
    try:
        for s in servers:
            s.__enter__()
            started.append(s)
        for i, node in enumerate(bed.clients):
            clients.append(node.popen("iperf3", "-J", "-c", "10.0.0.1", "-p", 5201 + i, "-t", seconds, *(("-R",) if i % 2 else ()),
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        ends = []
        for c in clients:
            text = c.communicate(timeout=seconds + 30)[0]
            try:
                report = json.loads(text)
            except ValueError:
                raise lib.Failure(f"iperf3: {text}")
            lib.check("error" not in report, lambda: f"iperf3: {report['error']}")
            ends.append(report["end"])
        return compare.iperf_result(ends)
    finally:
        for c in clients:
            c.kill()
            c.wait()
        for s in started:
            s.__exit__()


def udp_small(bed, seconds):
    """64 bytes as fast as they go."""
    _, got = compare.offer_udp(bed.n1, bed.n2, bed.right, 64, 0, seconds)
    lib.check(got["received"] > 0, "nothing arrived")
    return {"pps": got["pps"], "bytes": got["received"] * 64, "reordered": got["reordered"]}


def rate(result):
    """What a traffic moved, in words."""
    return f"{result['gbit_s']:.2f} Gbit/s" if "gbit_s" in result else f"{result['pps']:,.0f} packets/s"


class Workload:
    def __init__(self, name, what, bed, traffic):
        self.name, self.what, self.bed, self.traffic = name, what, bed, traffic


WORKLOADS = {w.name: w for w in (
    Workload("stream", "one TCP stream", Bed, tcp()),
    Workload("streams", f"{STREAMS} TCP streams", Bed, tcp("-P", str(STREAMS))),
    Workload("peers", f"{PEERS} clients of one gateway, a TCP stream each", Star, many_peers),
    Workload("both", "one TCP stream in each direction", Bed, tcp("--bidir")),
    Workload("udp", "64-byte UDP, four flows, flat out", Bed, udp_small),
)}


# Cost. ---------------------------------------------------------------------------------------------------------------------------------


def thread_seconds(pid):
    """Processor time by thread name, as `sluice stats` gives it: the first thread is control. schedstat counts nanoseconds; stat only ticks of 10 ms."""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm") as f:
                name = "control" if int(task) == pid else f.read().strip()
            try:
                with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                    seconds = int(f.read().split()[0]) / 1e9
            except FileNotFoundError:
                seconds = lib.cpu_seconds(f"{pid}/task/{task}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        out[name] = out.get(name, 0) + seconds
    return out


def kernel_counters(pid):
    """TCP's counters in the network namespace of a process: retransmits, and what was found out of order."""
    values = {}
    for table in ("snmp", "netstat"):
        with open(f"/proc/{pid}/net/{table}") as f:
            lines = f.read().splitlines()
        for names, numbers in zip(lines[::2], lines[1::2]):
            prefix = names.split(":")[0]
            values.update(zip((f"{prefix}.{n}" for n in names.split()[1:]), map(int, numbers.split()[1:])))
    reorder = ("TcpExt.TCPSACKReorder", "TcpExt.TCPTSReorder", "TcpExt.TCPRenoReorder")
    return {"retransmits": values["Tcp.RetransSegs"], "reordered": values["TcpExt.TCPOFOQueue"], "reorder_events": sum(values.get(n, 0) for n in reorder)}


def sluice_counters(stats):
    """Of one `sluice stats --json`: wake-ups over all threads; trains and segments of the sealing and of the receiving thread."""
    threads = stats["threads"]
    state, rx = threads.get("state", {}), threads.get("udp-rx", {})
    return {"wakes": sum(t.get("wakes", 0) for t in threads.values()), "out_trains": state.get("trains", 0), "out_segments": state.get("segments", 0),
            "in_trains": rx.get("views", 0), "in_segments": rx.get("datagrams", 0), "drops": sum(stats["drops"].values())}


class Probe:
    """Reads the counters of some sluices and of the namespaces they live in; stop() gives the differences per gigabyte."""

    def __init__(self, pids, stats, namespaces):
        """stats: functions that give `sluice stats --json`, the gateway's first; namespaces: pids whose TCP counters count."""
        self.pids, self.stats, self.namespaces = pids, stats, namespaces
        self.first = self.read()
        self.start = time.monotonic()

    def read(self):
        return SimpleNamespace(threads=thread_seconds(self.pids[0]), cpu=sum(sum(thread_seconds(p).values()) for p in self.pids),
                               switches=sum(lib.context_switches(p) for p in self.pids),
                               kernel=[kernel_counters(p) for p in self.namespaces], sluice=[sluice_counters(s()) for s in self.stats])

    def stop(self, delivered):
        seconds = time.monotonic() - self.start
        then, now = self.first, self.read()
        gb = delivered / 1e9
        kernel = {k: sum(b[k] - a[k] for a, b in zip(then.kernel, now.kernel)) for k in now.kernel[0]} if now.kernel else {}
        each = [{k: b[k] - a[k] for k in b} for a, b in zip(then.sluice, now.sluice)]
        # Of the end that sends most: the other one's trains are acknowledgements.
        most = max(each, key=lambda c: c["out_segments"])
        receiver = max(each, key=lambda c: c["in_segments"])
        busy = {name: (s - then.threads.get(name, 0)) / seconds for name, s in now.threads.items()}
        result = {"cpu_s": now.cpu - then.cpu, "cpu_s_per_gb": (now.cpu - then.cpu) / gb, "switches_per_gb": (now.switches - then.switches) / gb,
                  "wakes_per_gb": sum(c["wakes"] for c in each) / gb, "drops": sum(c["drops"] for c in each), **kernel,
                  "segments_per_train": most["out_segments"] / most["out_trains"] if most["out_trains"] else None,
                  "datagrams_per_receive": receiver["in_segments"] / receiver["in_trains"] if receiver["in_trains"] else None,
                  "busy": {k: round(v, 4) for k, v in busy.items()}, "seconds": seconds}
        return {k: v for k, v in result.items() if v is not None}


def run(workload, bed, seconds):
    """One measurement: throughput and cost."""
    probe = Probe(bed.pids, [d.stats for d in bed.daemons], [n.pid for n in bed.nodes])
    others = evidence.Others(evidence.sandbox_seconds)
    got = workload.traffic(bed, seconds)
    load = others.stop()
    cost = probe.stop(got["bytes"])
    # In this order: of UDP the receiver has counted what came out of order.
    return {**cost, **got, **load, "cipher": evidence.cipher_of(bed.daemons[0])}
