"""Not one flow may be reordered: numbered packets of mixed sizes and TCP, many flows, both directions, 1, 2 and 4 TUN threads."""

import os
import subprocess
import tempfile
import time

from cases import SELF, case
from lib import IperfServer, Tunnel, check, equal, iperf, ping, run
from test_traffic import gateway

HERE = os.path.dirname(os.path.abspath(__file__))


def build(name, *flags):
    """Compiles one of the C helpers of this folder."""
    out = os.path.join(tempfile.gettempdir(), f"{name}-{os.getpid()}-{time.monotonic_ns()}")
    run(["cc", "-O2", *flags, "-o", out, os.path.join(HERE, name + ".c")])
    return out


def threads_option(program, n):
    return ("--tun-threads", n) if program.is_sluice else ()


def result(p):
    out = p.communicate(timeout=30)[0]
    fields = dict(x.split("=") for x in out.split("\n")[-2].split()) if "=" in out else {}
    check(p.returncode == 0 and fields, f"flow_order: status {p.returncode}\n{out}")
    return {k: int(v) for k, v in fields.items()}


def start(node, helper, *args):
    p = node.popen(helper, *args, stdin=-3, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    line = p.stdout.readline()
    check(line == "ready\n", lambda: f"flow_order: {line}{p.communicate()[0]}")
    return p


@case(pairs=SELF, params=((1,), (2,), (4,)), timeout=60)
def flow_order_udp_both_directions(a, b, n):
    t = Tunnel(a, b, args_a=threads_option(a, n), args_b=threads_option(b, n))
    helper = build("flow_order")
    ping(t.n1, "10.0.0.2")
    for left, right in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
        # The same sockets in both directions (the kernel then moves a flow to the queue where its answers come in).
        ends = [start(t.n1, helper, "both", left, 20000, 64, 2, 30000, right), start(t.n2, helper, "both", right, 20000, 64, 2, 30000, left)]
        for p in ends:
            r = result(p)
            check(r["received"] > 2000, f"{r}")
    # One way, as fast as it goes.
    receiver = start(t.n2, helper, "receive", "10.0.0.2", 21000, 32, 3)
    sender = start(t.n1, helper, "send", "10.0.0.2", 21000, 32, 2)
    sender.communicate(timeout=30)
    r = result(receiver)
    check(r["received"] > 5000, f"{r}")


@case(pairs=SELF, params=((1,), (2,), (4,)), timeout=60, ours=True)  # wireguard-go loses packets: its queues are short
def flow_order_tcp(a, b, n):
    t = Tunnel(a, b, args_a=threads_option(a, n), args_b=threads_option(b, n))
    ping(t.n1, "10.0.0.2")
    before = [x.tcp_ext("TCPOFOQueue") for x in (t.n1, t.n2)]
    retransmits = 0
    for extra in ((), ("-R",), ("--bidir",)):
        # The windows of all streams together fit into every queue on the way: nothing is lost, so nothing may arrive out of order.
        with IperfServer(t.n2):
            end = iperf(t.n1, "10.0.0.2", 2, "-P", 8, "-w", "128K", *extra)
        check(end["sum_received"]["bytes"] > 1e6, f"{extra}: {end['sum_received']}")
        retransmits += end["sum_sent"].get("retransmits", 0)
    after = [x.tcp_ext("TCPOFOQueue") for x in (t.n1, t.n2)]
    equal(after, before, f"TCP segments that arrived out of order ({retransmits} retransmits)")
    # Not zero: with both cores busy a probe for a lost tail (TLP) may go out when nothing is lost.
    check(retransmits < 200, f"{retransmits} retransmits")


@case(pairs=SELF, timeout=60)
def flow_order_many_peers(a, b):
    hub, sites = gateway(a, b, clients=4)
    helper = build("flow_order")
    for s in sites:
        ping(s.node, "10.0.0.254")
    ends = []
    for n, s in enumerate(sites):
        inner = s.inner[0].split("/")[0]
        ends.append(start(hub.node, helper, "both", "10.0.0.254", 20000 + 100 * n, 16, 2, 8000, inner))
        ends.append(start(s.node, helper, "both", inner, 20000 + 100 * n, 16, 2, 8000, "10.0.0.254"))
    for p in ends:
        check(result(p)["received"] > 500, "hardly anything arrived")
