#!/usr/bin/env python3
"""Starts two sluice ends in two network namespaces joined by a veth pair, sets them up with wg, and shows ping, TCP throughput in both
directions, and what sluice counted."""

import argparse
import os
import shlex
import sys
import tempfile

from compare import positive, say  # first: it makes lib known
import lib
import prepare


def step(text):
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def show(node, *args):
    """Runs a command in a node with its output as it comes."""
    say(f"{node.name}$ {shlex.join(map(str, args))}")
    p = node.popen(*args, stdin=-3)
    status = p.wait()
    lib.check(status == 0, f"{args[0]} ended with status {status}")


def summary(end):
    """What one end counted, in few lines."""
    if not end.program.is_sluice:
        say(f"{end.node.name}: {end.program.path} has no counters")
        return
    stats = end.stats()
    moved = sum(p["rx"] + p["tx"] for p in end.dump()[1].values())
    say(f"{end.node.name}: {moved / 1e9:.2f} GB sent and received, {lib.cpu_seconds(end.pid):.1f} s of CPU, "
        f"{lib.status_kb(end.pid, 'VmHWM') / 1024:.0f} MiB resident at most")
    for thread, verb in (("udp-tx", "send"), ("udp-rx", "receive")):
        c = stats["threads"].get(thread, {})
        datagrams, calls = c.get("datagrams", 0), c.get("calls", 0)
        say(f"  {thread}: {datagrams:,} datagrams in {calls:,} {verb} calls" + (f", {datagrams / calls:.1f} segments a call" if calls else ""))
    drops = sorted(((n, v) for n, v in stats["drops"].items() if v), key=lambda x: -x[1])
    say("  drops: " + (", ".join(f"{n} {v:,}" for n, v in drops) or "none"))


def demo(options):
    program = lib.Program("sluice", os.environ["SLUICE_BIN"])
    args = ("--tun-threads", options.tun_threads) if options.tun_threads and program.is_sluice else ()
    step("two namespaces, a veth pair between them, one sluice in each")
    t = lib.Tunnel(program, program, args_a=args, args_b=args, mtu=options.mtu, peers=False)
    for site, other in ((t.a, t.b), (t.b, t.a)):
        say(f"{site.node.name}$ sluice {' '.join(map(str, args))}{' ' if args else ''}wg0")
        say(f"{site.node.name}$ wg set wg0 peer {other.public} allowed-ips 10.0.0.0/24,fd00::/64 endpoint {t.endpoint(other)}")
        site.add_peer(other, t.endpoint(other), ("10.0.0.0/24", "fd00::/64"))
    step("ping")
    show(t.n1, "ping", "-n", "-c", 5, "-i", 0.2, "10.0.0.2")
    show(t.n1, "ping", "-n", "-c", 2, "-i", 0.2, "fd00::2")
    step("wg show")
    show(t.n1, "wg", "show")
    for text, extra in (("one TCP stream, left to right", ()), ("one TCP stream, right to left", ("-R",)), ("both directions at once", ("--bidir",))):
        step(text)
        with lib.IperfServer(t.n2):
            show(t.n1, "iperf3", "-c", "10.0.0.2", "-t", options.seconds, "-i", 1, "-f", "g", *extra)
    step("what sluice counted")
    for d in (t.a.daemon, t.b.daemon):
        summary(d)
    for d in (t.a.daemon, t.b.daemon):
        d.stop()
    say("\ndone; the namespaces are gone with this process")
    return 0


def guarded(options):
    try:
        return demo(options)
    except KeyboardInterrupt:
        say("\ninterrupted; nothing is left behind")
        return 130
    except lib.Failure as e:
        say(f"\nfailed: {e}")
        lib.show_logs()
        return 1


def main():
    parser = argparse.ArgumentParser(prog="perf/demo", description=__doc__)
    parser.add_argument("--seconds", type=positive(int), default=5, help="of each throughput run (5)")
    parser.add_argument("--tun-threads", type=positive(int), help="for both ends (sluice's default: 2)")
    parser.add_argument("--mtu", type=positive(int), help="of the tunnel")
    options = parser.parse_args()
    prepare.program("perf/demo")
    with tempfile.TemporaryDirectory(prefix="sluice-demo-") as tempfile.tempdir:  # logs of the daemons
        return lib.sandbox(lambda: guarded(options))


if __name__ == "__main__":
    sys.exit(main())
