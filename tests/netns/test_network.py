"""What happens around a tunnel: roaming, restarts, links that change, marks in the outer header, errors to the local sender."""

import errno
import os
import resource
import socket
import struct
import threading
import time

from cases import BOTH_ROLES, SELF, case
from lib import (Node, Program, Site, Tunnel, check, checksum, equal, gather, genkey, ping, pubkey, raw_capture, traffic_class, udp, udp_of_frame,
                 veth, wait_until)
from test_traffic import gateway, inner_packets, stream, tcp_pair


class Numbered:
    """Numbered datagrams at a steady rate from one node to another; says which did not arrive."""

    def __init__(self, sender, receiver, to, port=9100, interval=0.01):
        self.receive, self.send = udp(receiver, to, port), udp(sender, v6=":" in to)
        self.to, self.interval, self.stop = (to, port), interval, threading.Event()
        self.sent, self.got = 0, set()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.reading, self.writing)]
        for t in self.threads:
            t.start()

    def writing(self):
        while not self.stop.wait(self.interval):
            try:
                self.send.sendto(struct.pack("!I", self.sent), self.to)
            except OSError:
                pass
            self.sent += 1

    def reading(self):
        self.receive.settimeout(0.1)
        while not self.stop.is_set():
            try:
                self.got.add(struct.unpack("!I", self.receive.recv(100)[:4])[0])
            except socket.timeout:
                pass

    def flows(self, timeout=5):
        """Waits until new datagrams arrive."""
        seen = self.sent
        wait_until(lambda: max(self.got, default=-1) >= seen, timeout, lambda: f"datagram {seen}; {len(self.got)} arrived")

    def end(self):
        """Stops and returns the numbers that got lost."""
        last = self.sent
        time.sleep(0.3)
        self.stop.set()
        for t in self.threads:
            t.join()
        return sorted(set(range(last)) - self.got)


@case(pairs=BOTH_ROLES)
def roaming_to_a_new_address_and_port(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    client, server = tcp_pair(t.n2, t.n1, "10.0.0.2")
    there, back = Numbered(t.n1, t.n2, "10.0.0.2"), Numbered(t.n2, t.n1, "10.0.0.1", 9101)
    there.flows()
    before = t.b.daemon.peer(t.a.public)["latest_handshake"]
    t.n1.ip("addr add 192.0.2.77/24 dev eth0")
    t.n1.ip("addr del 192.0.2.1/24 dev eth0")
    if not a.is_sluice:  # Debian's wireguard-go clings to the source address that is gone
        t.a.daemon.set("peer", t.b.public, "endpoint", t.endpoint(t.b))
    there.flows()
    back.flows()
    wait_until(lambda: t.b.daemon.peer(t.a.public)["endpoint"] == "192.0.2.77:51820", 3, "the new address")
    t.a.daemon.set("listen-port 40000")
    there.flows()
    back.flows()
    wait_until(lambda: t.b.daemon.peer(t.a.public)["endpoint"] == "192.0.2.77:40000", 3, "the new port")
    client.sendall(b"still here")
    equal(server.recv(100), b"still here", "the old TCP connection")
    check(len(there.end()) < 60 and len(back.end()) < 60, "more than half a second of traffic was lost")
    equal(t.b.daemon.peer(t.a.public)["latest_handshake"], before, "latest handshake: the session was to go on")


@case(pairs=BOTH_ROLES)
def roaming_between_address_families(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    pings = 3 if a is b else 1  # Debian's wireguard-go loses one now and then while it changes over
    for to, seen in (("[2001:db8::2]:51821", "[2001:db8::1]:51820"), ("192.0.2.2:51821", "192.0.2.1:51820")):
        t.a.daemon.set("peer", t.b.public, "endpoint", to)
        wait_until(lambda: ping(t.n1, "10.0.0.2", count=pings, ok=False, wait=1) == pings, 5 * (a is not b), "every reply")
        wait_until(lambda: t.b.daemon.peer(t.a.public)["endpoint"] == seen, 3, f"endpoint {seen}")
    wait_until(lambda: ping(t.n2, "10.0.0.1", count=pings, ok=False, wait=1) == pings, 5 * (a is not b), "every reply")


@case(pairs=BOTH_ROLES)
def preshared_key(a, b):
    t = Tunnel(a, b, peers=False)
    psk = genkey()
    t.connect()
    for x, y in ((t.a, t.b), (t.b, t.a)):
        x.daemon.set_preshared(y.public, psk)
    ping(t.n1, "10.0.0.2", count=3)
    equal(t.a.daemon.peer(t.b.public)["preshared_key"], psk, "preshared key")


@case(pairs=BOTH_ROLES)
def wrong_preshared_key_gives_no_session(a, b):
    t = Tunnel(a, b)
    for x, y in ((t.a, t.b), (t.b, t.a)):
        x.daemon.set_preshared(y.public, genkey())
    equal(ping(t.n1, "10.0.0.2", ok=False, wait=1), 0, "replies")
    equal(ping(t.n2, "10.0.0.1", ok=False, wait=1), 0, "replies")
    for x, y in ((t.a, t.b), (t.b, t.a)):
        equal(x.daemon.peer(y.public)["latest_handshake"], 0, "latest handshake")
    # The right key makes it work: with a new handshake, not by itself with the old one.
    psk = genkey()
    for x, y in ((t.a, t.b), (t.b, t.a)):
        x.daemon.set_preshared(y.public, psk)
    wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 12, "reply with the right key")


@case(pairs=BOTH_ROLES, waits=True, timeout=200)
def rekey_after_120_seconds_under_traffic(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    first = t.a.daemon.peer(t.b.public)["latest_handshake"]
    there = Numbered(t.n1, t.n2, "10.0.0.2", interval=0.02)
    back = Numbered(t.n2, t.n1, "fd00::1", 9101, interval=0.02)
    time.sleep(118)
    equal(t.a.daemon.peer(t.b.public)["latest_handshake"], first, "handshake after 118 s")
    wait_until(lambda: t.a.daemon.peer(t.b.public)["latest_handshake"] > first, 15, "second handshake", step=0.5)
    time.sleep(3)
    equal((there.end(), back.end()), ([], []), "datagrams lost over the key change")


@case(pairs=BOTH_ROLES, waits=True, timeout=90)
def restart_heals(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    # The restarted end speaks first: at once.
    t.a.restart([(t.b, t.endpoint(t.b))])
    ping(t.n1, "10.0.0.2", wait=5)
    # The other end speaks first into a session that is gone: it finds out after 15 s (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
    t.a.restart([(t.b, t.endpoint(t.b))])
    start = time.monotonic()
    there = Numbered(t.n2, t.n1, "10.0.0.1", interval=0.1)
    there.flows(timeout=25)
    check(time.monotonic() - start > 5, "faster than the timer allows: was it restarted at all?")
    ping(t.n1, "10.0.0.2", wait=5)


@case(pairs=BOTH_ROLES)
def a_restarted_peer_is_answered_at_once(a, b):
    """The answer to its first packet goes out under the new session, not under the one that it has forgotten."""
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    for _ in range(15):
        t.a.restart([(t.b, t.endpoint(t.b))])
        ping(t.n1, "10.0.0.2", wait=4)


@case(pairs=BOTH_ROLES)
def interface_down_and_up(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    wire = raw_capture(t.n2, "eth0")
    t.n1.ip("link set wg0 down")
    time.sleep(0.1)
    gather(wire, 0.2)
    # What the other end sends now is not answered: no keepalive, no handshake, no error.
    equal(ping(t.n2, "10.0.0.1", ok=False, wait=1, count=2), 0, "replies while down")
    if a.is_sluice:
        sent = gather(wire, 0.5, lambda u: u[1] == 51820)
        equal([len(u[3]) for u in sent], [], "sizes of datagrams sent while down")
    t.n1.ip("link set wg0 up")
    t.n1.ip("addr replace fd00::1/64 dev wg0 nodad")
    wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 12, "reply after up")
    ping(t.n2, "fd00::1", count=3)


@case(pairs=BOTH_ROLES)
def persistent_keepalive(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    time.sleep(0.2)
    wire = raw_capture(t.n1, "eth0")
    t.a.daemon.set("peer", t.b.public, "persistent-keepalive 1")
    seen = gather(wire, 4.6, lambda u: u[1] == 51820 and len(u[3]) == 32 and u[3][:4] == b"\4\0\0\0", want=4)
    check(len(seen) >= 4, f"{len(seen)} keepalives in 4.6 s")
    equal(t.a.daemon.peer(t.b.public)["keepalive"], "1", "keepalive in the dump")
    t.a.daemon.set("peer", t.b.public, "persistent-keepalive 0")
    time.sleep(0.1)
    gather(wire, 0.2)
    seen = gather(wire, 2.2, lambda u: u[1] == 51820)
    equal([len(u[3]) for u in seen], [], "datagrams after the keepalive was switched off")


@case(ours=True)
def keepalive_goes_out_when_the_interface_comes_up(sluice):
    t = Tunnel(sluice, sluice, peers=False)
    t.b.add_peer(t.a)
    t.n1.ip("link set wg0 down")
    wire = raw_capture(t.n1, "eth0")
    t.a.add_peer(t.b, t.endpoint(t.b), None, "persistent-keepalive 25")
    equal(gather(wire, 0.5, lambda u: u[1] == 51820), [], "datagrams while down")
    t.n1.ip("link set wg0 up")
    wait_until(lambda: t.a.daemon.peer(t.b.public)["latest_handshake"], 7, "handshake without traffic")


@case(ours=True)
def keepalive_goes_out_when_the_private_key_comes_last(sluice):
    t = Tunnel(sluice, sluice, peers=False)
    t.b.add_peer(t.a)
    t.a.daemon.uapi("set=1\nprivate_key=" + "0" * 64 + "\n\n")
    t.a.add_peer(t.b, t.endpoint(t.b), None, "persistent-keepalive 25")
    time.sleep(0.2)
    t.a.daemon.set_private_key(t.a.private)
    wait_until(lambda: t.a.daemon.peer(t.b.public)["latest_handshake"], 7, "handshake without traffic")


@case(pairs=BOTH_ROLES)
def server_answers_from_the_address_it_was_reached_at(a, b):
    t = Tunnel(a, b, peers=False)
    t.n2.ip("addr add 192.0.2.200/24 dev eth0")
    t.n2.ip("addr add 2001:db8::200/64 dev eth0 nodad")
    t.b.add_peer(t.a)
    for endpoint in ("192.0.2.200:51821", "192.0.2.2:51821", "[2001:db8::200]:51821", "[2001:db8::2]:51821"):
        t.a.add_peer(t.b, endpoint)
        wire = raw_capture(t.n1, "eth0")
        ping(t.n1, "10.0.0.2", count=3)
        answers = gather(wire, 0.2, lambda u: u[1] == 51821, want=100)
        host = endpoint.rpartition(":")[0].strip("[]")
        fam = socket.AF_INET6 if ":" in host else socket.AF_INET
        sources = {socket.inet_ntop(fam, u[0][8:24] if fam == socket.AF_INET6 else u[0][12:16]) for u in answers}
        equal(sources, {host}, "source addresses of the server")
        equal(t.a.daemon.peer(t.b.public)["endpoint"], endpoint, "endpoint at the client")


@case(ours=True)
def a_source_address_that_vanishes_is_given_up(sluice):
    t = Tunnel(sluice, sluice, peers=False)
    t.n2.ip("addr add 192.0.2.200/24 dev eth0")
    t.b.add_peer(t.a)
    t.a.add_peer(t.b, "192.0.2.200:51821")
    ping(t.n1, "10.0.0.2")
    t.n2.ip("addr del 192.0.2.200/24 dev eth0")
    ping(t.n2, "10.0.0.1", count=3)
    equal(t.a.daemon.peer(t.b.public)["endpoint"], "192.0.2.2:51821", "the client follows")
    client, server = tcp_pair(t.n1, t.n2, "10.0.0.1")  # GSO is still alive
    equal(stream(client, server, 1 << 20, 1), None, "content")
    equal(t.b.daemon.counter("gso_fallbacks"), 0, "batches sent in pieces")


class TwoLinks:
    """A client behind two links to the gateway, which it reaches by either of them under an address of its own."""

    def __init__(self, sluice, family):
        self.t = t = Tunnel(sluice, sluice, peers=False)
        self.family, v4 = family, family == 4
        self.client = "198.51.100.1" if v4 else "2001:db8:ffff::1"
        # By link: the gateway's address that packets go to, its first one there, and the client's next hop.
        self.reached = ("192.0.2.200", "192.0.3.200") if v4 else ("2001:db8::200", "2001:db8:3::200")
        self.first = ("192.0.2.2", "192.0.3.2") if v4 else ("2001:db8::2", "2001:db8:3::2")
        self.hops = ("192.0.2.1", "192.0.3.1") if v4 else ("2001:db8::1", "2001:db8:3::1")
        bits, nodad = ("24", "") if v4 else ("64", " nodad")
        veth(t.n1, "eth1", t.n2, "eth1", (f"{self.hops[1]}/{bits}",), (f"{self.first[1]}/{bits}",))
        t.n1.ip(f"addr add {self.client}/{'32' if v4 else '128'} dev lo{nodad}")
        for n in (t.n1, t.n2):
            n.sh("for i in all eth0 eth1; do echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; done")
        for i in (0, 1):
            t.n2.ip(f"addr add {self.reached[i]}/{'32' if v4 else '128'} dev eth{i}{nodad}")
            t.n1.ip(f"-{family} route add {self.reached[i]} dev eth{i} via {self.first[i]} src {self.client}")
            t.n1.ip(f"-{family} route add {self.first[i]} dev eth{i} src {self.client}")
        if not v4:
            # So that it is not what the kernel chooses.
            for i in (0, 1):
                t.n2.ip(f"addr change {self.reached[i]}/128 dev eth{i} preferred_lft 0")
        self.route("add", 0, 200)
        t.b.add_peer(t.a)
        t.a.add_peer(t.b, f"{self.text(self.reached[0])}:{t.b.port}")
        self.wires = [raw_capture(t.n1, f"eth{i}") for i in (0, 1)]

    def text(self, address):
        return address if self.family == 4 else f"[{address}]"

    def route(self, verb, link, metric):
        """The gateway's way to the client."""
        prefix = 32 if self.family == 4 else 128
        self.t.n2.ip(f"-{self.family} route {verb} {self.client}/{prefix} via {self.hops[link]} dev eth{link} metric {metric}")

    def sources(self, seconds):
        """What the gateway sends in this time: (link, source address)."""
        for wire in self.wires:
            gather(wire, 0.01)
        seen = set()
        for link, wire in enumerate(self.wires):
            for ip, *_ in gather(wire, seconds / 2, lambda u: u[1] == self.t.b.port, want=1 << 30):
                seen.add((link, socket.inet_ntop(socket.AF_INET, ip[12:16]) if len(ip) == 20 else socket.inet_ntop(socket.AF_INET6, ip[8:24])))
        return seen

    def endpoint(self):
        return self.t.a.daemon.peer(self.t.b.public)["endpoint"].rpartition(":")[0].strip("[]")


@case(ours=True, params=((4,), (6,)))
def a_route_that_takes_precedence_moves_the_source_address(sluice, family):
    links = TwoLinks(sluice, family)
    t = links.t
    ping(t.n1, "10.0.0.2")
    there, back = Numbered(t.n1, t.n2, "10.0.0.2"), Numbered(t.n2, t.n1, "10.0.0.1", 9101)
    back.flows()
    equal(links.sources(0.4), {(0, links.reached[0])}, "sources at first")

    # What does not concern the peer leaves its source alone.
    other = "203.0.113.0/24" if family == 4 else "2001:db8:77::/48"
    t.n2.ip(f"-{family} route add {other} via {links.hops[1]} dev eth1")
    t.n2.ip(f"-{family} rule add to {other} lookup main")
    t.n2.ip("link add eth8 type veth peer name eth9")
    t.n2.ip("link set eth8 up")
    time.sleep(1.5)
    equal(links.sources(0.4), {(0, links.reached[0])}, "sources after an unrelated change")

    links.route("add", 1, 50)
    wait_until(lambda: links.endpoint() == links.first[1], 2, lambda: f"new source: {links.sources(0.2)}, endpoint {links.endpoint()}")
    equal(links.sources(0.6), {(1, links.first[1])}, "sources by the second link")
    there.flows()
    back.flows()

    # And back again: the source of the first link is the kernel's choice now, since the client has left the address that it came to.
    links.route("del", 1, 50)
    wait_until(lambda: links.endpoint() == links.first[0], 2.5, lambda: f"old source: {links.sources(0.2)}, endpoint {links.endpoint()}")
    equal(links.sources(0.6), {(0, links.first[0])}, "sources by the first link")
    there.flows()
    back.flows()
    lost = there.end(), back.end()
    check(len(lost[0]) <= 2 and len(lost[1]) <= 2, f"lost: {lost}")


@case(ours=True, params=((4,), (6,)))
def a_link_that_goes_down_moves_the_source_address(sluice, family):
    links = TwoLinks(sluice, family)
    t = links.t
    links.route("add", 1, 300)
    ping(t.n1, "10.0.0.2")
    back = Numbered(t.n2, t.n1, "10.0.0.1", 9101)
    back.flows()
    equal(links.sources(0.4), {(0, links.reached[0])}, "sources at first")
    t.n2.ip("link set eth0 down")
    wait_until(lambda: links.endpoint() == links.first[1], 3, lambda: f"new source: {links.sources(0.2)}, endpoint {links.endpoint()}")
    back.flows()
    back.end()


@case(pairs=BOTH_ROLES)
def mtu_change_is_followed(a, b):
    t = Tunnel(a, b)
    for mtu in (1420, 1280, 576, 1400, 1420):
        for n in (t.n1, t.n2):
            n.ip(f"link set wg0 mtu {mtu}")
        time.sleep(0.05)
        for size in (mtu - 28, mtu - 35, 0):
            ping(t.n1, "10.0.0.2", size=size, df=True)


@case(ours=True)
def padding_stays_below_the_mtu(sluice):
    t = Tunnel(sluice, sluice, mtu=1403)
    ping(t.n1, "10.0.0.2")
    wire = raw_capture(t.n1, "eth0")

    def on_the_wire(size):
        gather(wire, 0.05)
        ping(t.n1, "10.0.0.2", size=size - 28, df=True)
        return [len(u[3]) - 32 for u in gather(wire, 0.3, lambda u: u[1] == 51820 and u[3][0] == 4, want=1)]

    equal(on_the_wire(1403), [1403], "inner length of a full packet")
    equal(on_the_wire(1400), [1403], "inner length of one that padding to 16 would lift above the MTU")
    equal(on_the_wire(100), [112], "inner length of a small packet")
    t.n1.ip("link set wg0 mtu 1390")
    t.n2.ip("link set wg0 mtu 1390")
    time.sleep(0.2)
    equal(on_the_wire(1389), [1390], "inner length after the MTU was lowered")


@case(pairs=SELF)
def moved_to_another_namespace_it_keeps_working(a, b):
    t = Tunnel(a, b, mtu=1403)
    ping(t.n1, "10.0.0.2")
    inner = Node("inner")
    t.n1.ip(f"link set wg0 netns {inner.pid}")
    inner.ip("addr add 10.0.0.1/24 dev wg0")
    inner.ip("addr add fd00::1/64 dev wg0 nodad")
    inner.ip("link set wg0 up")
    wait_until(lambda: ping(inner, "10.0.0.2", ok=False, wait=1), 12, "reply from the new namespace")
    ping(t.n2, "fd00::1", count=3)
    if not a.is_sluice:
        return
    # The MTU and the state of the link are followed there too.
    inner.ip("link set wg0 mtu 1333")
    time.sleep(0.2)
    wire = raw_capture(t.n1, "eth0")
    ping(inner, "10.0.0.2", size=1332 - 28, df=True)
    seen = gather(wire, 0.3, lambda u: u[1] == 51820 and u[3][0] == 4, want=1)
    equal([len(u[3]) - 32 for u in seen], [1333], "inner length on the wire")
    inner.ip("link set wg0 down")
    equal(ping(t.n2, "10.0.0.1", ok=False, wait=1), 0, "replies while down")
    inner.ip("link set wg0 up")
    wait_until(lambda: ping(inner, "10.0.0.2", ok=False, wait=1), 12, "reply after up")
    inner.ip("link del wg0")
    t.a.daemon.wait_end()


@case(ours=True)
def a_namespace_it_was_moved_to_can_end(sluice):
    """Nothing of ours keeps a container's namespace alive; with it goes the interface, which is as if it were deleted."""
    t = Tunnel(sluice, sluice, args_a=("--log", "info"))
    ping(t.n1, "10.0.0.2")
    t.n1.ip("netns add inner")
    t.n1.ip("link set wg0 netns inner")
    t.n1.ip("-n inner addr add 10.0.0.1/24 dev wg0")
    t.n1.ip("-n inner link set wg0 up")
    wait_until(lambda: "listening" in t.a.daemon.output().rpartition("moved to another")[2], 2, "up in the new namespace")
    # Only what is held from outside could keep it now: the name is its last holder.
    t.n1.ip("netns del inner")
    equal(t.a.daemon.wait_end(5), 0, "exit status")
    check("was deleted" in t.a.daemon.output(), t.a.daemon.output())
    check(not os.path.exists(t.a.daemon.socket_path), "the socket is still there")


@case(ours=True)
def moved_on_and_back_it_is_still_followed(sluice):
    """From one foreign namespace to the next, under another name and index, and home again."""
    t = Tunnel(sluice, sluice, args_a=("--log", "info"))
    d, start = t.a.daemon, 0

    def expect(*texts):
        for text in texts:
            wait_until(lambda: text in d.output()[start:], 1.5, lambda: f"{text!r} in the log:\n{d.output()[start:]}")

    t.n1.ip("netns add one")
    t.n1.ip("netns add two")
    # Its index is taken where it goes.
    for n in range(5):
        t.n1.ip(f"-n one link add v{n} type veth peer name w{n}")
    start = len(d.output())
    t.n1.ip("link set wg0 netns one")
    expect("moved to another network namespace", "interface is down")
    t.n1.ip("-n one link set wg0 mtu 1301 name tunnel")
    expect("MTU is 1301")
    t.n1.ip("-n one link set tunnel up")
    expect("listening on port")
    start = len(d.output())
    t.n1.ip("-n one link set tunnel netns two")
    expect("moved to another network namespace", "interface is down")
    t.n1.ip("-n two link set tunnel up mtu 1302")
    expect("MTU is 1302", "listening on port")
    # One that now has its name where it was is a stranger.
    start = len(d.output())
    t.n1.ip("-n one tuntap add tunnel mode tun")
    t.n1.ip("-n one link set tunnel mtu 1290 up")
    time.sleep(0.4)
    equal(d.output()[start:], "", "what is logged of a stranger")
    t.n1.ip("-n two link set tunnel down")
    expect("interface is down")
    t.n1.ip(f"-n two link set tunnel netns {t.n1.pid}")
    expect("moved to another network namespace")
    t.n1.ip("link set tunnel name wg0")
    t.n1.ip("addr add 10.0.0.1/24 dev wg0")
    t.n1.ip("link set wg0 mtu 1303 up")
    expect("MTU is 1303", "listening on port")
    wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 12, "reply at home")
    t.n1.ip("link del wg0")
    equal(d.wait_end(5), 0, "exit status")


@case(ours=True)
def moved_while_it_could_not_be_watched_it_is_found_later(sluice):
    t = Tunnel(sluice, sluice, args_a=("--log", "info"))
    d = t.a.daemon
    t.n1.ip("netns add one")
    limits = resource.prlimit(d.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(d.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    t.n1.ip("link set wg0 netns one")
    t.n1.ip("-n one link set wg0 up")
    wait_until(lambda: "cannot be watched" in d.output(), 2, "the failure in the log")
    time.sleep(0.3)
    equal(d.output().count("cannot be watched"), 1, "times that it is told")
    start = len(d.output())
    resource.prlimit(d.pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: "listening on port" in d.output()[start:], 2, lambda: f"sockets in the log:\n{d.output()}")


@case(ours=True)
def moved_on_it_leaves_no_trace_to_follow(sluice):
    """Between two looks, its index goes to a stranger in the namespace that it left, or that namespace ends."""
    t = Tunnel(sluice, sluice, args_a=("--log", "info"))
    d = t.a.daemon

    def expect(start, *texts):
        for text in texts:
            wait_until(lambda: text in d.output()[start:], 1.5, lambda: f"{text!r} in the log:\n{d.output()[start:]}")

    t.n1.ip("netns add one")
    t.n1.ip("netns add two")
    start = len(d.output())
    t.n1.ip("link set wg0 netns one")
    t.n1.ip("-n one link set wg0 up mtu 1301")
    expect(start, "MTU is 1301", "listening on port")
    index = t.n1.ip("-n one -o link show wg0").split(":")[0]
    start = len(d.output())
    t.n1.sh(f"ip -n one link set wg0 netns two; ip -n one link add index {index} name other mtu 1290 type veth")
    t.n1.ip("-n two link set wg0 up mtu 1302")
    expect(start, "MTU is 1302", "listening on port")
    start = len(d.output())
    t.n1.sh(f"ip -n two link set wg0 netns {t.n1.pid}; ip netns del two")
    t.n1.ip("addr add 10.0.0.1/24 dev wg0")
    t.n1.ip("link set wg0 up mtu 1303")
    expect(start, "MTU is 1303", "listening on port")
    wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 12, "reply at home")


@case(ours=True)
def handshakes_are_marked_and_data_is_not(sluice):
    for outer in (4, 6):
        t = Tunnel(sluice, sluice, outer=outer)
        wire = raw_capture(t.n2, "eth0")
        ping(t.n1, "10.0.0.2", tos=0xb8)  # inner DSCP EF
        ping(t.n1, "fd00::2", tos=0xb8)
        seen = gather(wire, 0.3, lambda u: 51820 in u[1:3], want=1000)
        marks = {(u[3][0], traffic_class(u[0])) for u in seen}
        equal(marks, {(1, 0x88), (2, 0x88), (4, 0)}, "message types and their traffic classes")
        if outer == 4:
            check(all(not u[0][6] & 0x40 for u in seen), "an outer packet has DF set")


@case(ours=True)
def congestion_marks_cross_the_tunnel(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    wire, inside = raw_capture(t.n2, "eth0"), raw_capture(t.n2, "wg0")
    listeners = udp(t.n2, "10.0.0.2", 9), udp(t.n2, "fd00::2", 9)  # so that no ICMP error quotes what was sent
    for to, level, option in (("10.0.0.2", socket.IPPROTO_IP, socket.IP_TOS), ("fd00::2", socket.IPPROTO_IPV6, socket.IPV6_TCLASS)):
        for tos in (0, 1, 2, 3, 0xb8 | 2):
            gather(wire, 0.02)
            inner_packets(inside, 0.02)
            s = udp(t.n1, v6=":" in to)
            s.setsockopt(level, option, tos)
            s.sendto(b"marked", (to, 9))
            outer = gather(wire, 1, lambda u: u[1] == 51820 and u[3][0] == 4)
            equal([traffic_class(u[0]) for u in outer], [tos & 3], f"outer class for inner {tos:#x}")
            arrived = [p for p in inner_packets(inside, 0.2) if b"marked" in p]
            equal([traffic_class(p) for p in arrived], [tos], f"inner class at the far end for {tos:#x}")
    for s in listeners:
        s.close()


def rewritten(frame, ecn):
    """An IPv4 frame with other ECN bits and its header checksum right again."""
    f = bytearray(frame)
    f[15] = (f[15] & 0xfc) | ecn
    f[24:26] = b"\0\0"
    f[24:26] = checksum(bytes(f[14:34]))
    return bytes(f)


@case(ours=True)
def congestion_met_on_the_way_is_reported_inside(sluice):
    # Two cables with a hand-made router between them, which marks what it forwards.
    left, router, right = Node("left"), Node("router"), Node("right")
    veth(left, "eth0", router, "l0", ("192.0.2.1/24",))
    veth(router, "r0", right, "eth0", (), ("192.0.2.2/24",))
    l0, r0 = raw_capture(router, "l0"), raw_capture(router, "r0")
    for n in (left, right, router):  # frames copied by hand must be whole, with their checksums
        for i in ("eth0",) if n is not router else ("l0", "r0"):
            n.run("ethtool", "-K", i, "tx", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off", ok=False)
    mark, stop = [None], threading.Event()

    def forward(source, target):
        while not stop.is_set():
            try:
                frame, address = source.recvfrom(70000)
            except socket.timeout:
                continue
            if address[2] == socket.PACKET_OUTGOING:
                continue
            u = udp_of_frame(frame)
            if mark[0] is not None and u and u[3][:1] == b"\4":
                frame = rewritten(frame, mark[0])
            target.send(frame)

    threads = [threading.Thread(target=forward, args=x, daemon=True) for x in ((l0, r0), (r0, l0))]
    for x in threads:
        x.start()
    a = Site(left, sluice, ("10.0.0.1/24",), port=51820)
    b = Site(right, sluice, ("10.0.0.2/24",), port=51821)
    a.add_peer(b, "192.0.2.2:51821")
    b.add_peer(a)
    ping(left, "10.0.0.2")
    inside, listener = raw_capture(right, "wg0"), udp(right, "10.0.0.2", 9)
    # RFC 6040: inner, outer on arrival -> inner handed on; None is a drop.
    for inner, outer, want in ((0, 0, 0), (0, 2, 0), (0, 3, None), (1, 3, 3), (2, 3, 3), (2, 1, 1), (2, 0, 2), (1, 2, 1), (3, 0, 3)):
        mark[0] = outer
        s = udp(left)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, inner)
        s.sendto(b"marked", ("10.0.0.2", 9))
        arrived = [traffic_class(p) for p in inner_packets(inside, 0.25) if b"marked" in p]
        equal(arrived, [] if want is None else [want], f"inner {inner}, outer {outer}")
    mark[0] = None
    equal(b.daemon.counter("ingress_ecn"), 1, "drops for congestion")
    ping(left, "10.0.0.2")
    stop.set()
    for x in threads:
        x.join()
    listener.close()


@case(ours=True)
def the_local_sender_hears_that_there_is_no_way(sluice):
    t = Tunnel(sluice, sluice, peers=False)
    t.a.add_peer(t.b, None, ("10.0.0.2/32", "fd00::2/128"))  # a peer without an endpoint
    t.n1.ip("route add 10.5.0.0/16 dev wg0")
    t.n1.ip("route add fd05::/16 dev wg0")
    for to, text in (("10.0.0.2", "Host Unreachable"), ("fd00::2", "Address unreachable"), ("10.5.0.1", "Host Unreachable"),
                     ("fd05::1", "Address unreachable")):
        start = time.monotonic()
        out = t.n1.run("ping", "-n", "-c", "1", "-W", "2", to, ok=False).stdout
        check(text in out, f"ping {to}:\n{out}")
        check(time.monotonic() - start < 1, f"ping {to} took {time.monotonic() - start:.1f} s")
    # A TCP connection fails at once, not after a minute.
    s = t.n1.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(3)
    try:
        s.connect(("10.5.0.1", 80))
        check(False, "connected")
    except OSError as e:
        check(not isinstance(e, socket.timeout), "a TCP connection hangs")
    c = t.a.daemon.counters()
    check(c["egress_no_peer"] >= 3 and c["egress_no_endpoint"] >= 2, f"drops: {c}")


IP_RECVERR, IPV6_RECVERR = 11, 25
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3


def unreachable_from(node, source, to):
    """Sends a datagram from one address of the node to another and returns whom the ICMP error that its socket is told of came from."""
    v6 = ":" in source
    s = node.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(*((socket.IPPROTO_IPV6, IPV6_RECVERR) if v6 else (socket.IPPROTO_IP, IP_RECVERR)), 1)
    with node:
        scope = socket.if_nametoindex("wg0") if source.startswith("fe80") else 0
        s.bind((source, 0, 0, scope) if v6 else (source, 0))
        s.sendto(b"anyone?", (to, 9, 0, scope) if v6 else (to, 9))

    def told():
        try:
            return s.recvmsg(1000, 1000, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            return None

    s.setblocking(False)
    data, control, _, _ = wait_until(told, 2, f"an error at the socket that sends from {source} to {to}")
    s.close()
    equal(data, b"anyone?", "the packet quoted")
    equal(len(control), 1, "errors")
    # struct sock_extended_err, and the address of the host that the error came from
    number, origin, kind, code = struct.unpack("=IBBB", control[0][2][:7])
    equal((number, origin, kind, code), (errno.EHOSTUNREACH, *((SO_EE_ORIGIN_ICMP6, 1, 3) if v6 else (SO_EE_ORIGIN_ICMP, 3, 1))), "error")
    offender = control[0][2][16:]
    return socket.inet_ntop(socket.AF_INET6, offender[8:24]) if v6 else socket.inet_ntop(socket.AF_INET, offender[4:8])


def alone(program):
    """A gateway with routes into the tunnel, but no peer."""
    a = Site(Node("alone"), program, ("10.0.0.1/24", "fd00::1/64", "fe80::1/64"))
    for to in ("10.5.0.0/16", "fd05::/16"):
        a.node.ip("route add", to, "dev wg0")
    return a


@case(ours=True)
def an_unreachable_comes_from_an_address_of_the_gateway(sluice):
    a = alone(sluice)
    for source, to in (("10.0.0.1", "10.0.0.7"), ("10.0.0.1", "10.5.0.1"), ("fd00::1", "fd00::7"), ("fd00::1", "fd05::1"), ("fe80::1", "fe80::7")):
        equal(unreachable_from(a.node, source, to), source, f"the error for {to} comes from")
    # A host behind the gateway hears of it from the address that it knows the gateway by.
    host = Node("host")
    veth(a.node, "lan0", host, "eth0", ("192.168.7.1/24", "fd07::1/64"), ("192.168.7.2/24", "fd07::2/64"))
    a.node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    host.ip("route add default via 192.168.7.1")
    host.ip("route add default via fd07::1")
    equal(unreachable_from(host, "192.168.7.2", "10.5.0.1"), "192.168.7.1", "the IPv4 error comes from")
    equal(unreachable_from(host, "fd07::2", "fd05::1"), "fd07::1", "the IPv6 error comes from")
    equal(a.daemon.counter("unreachables_sent"), 7, "errors sent")
    # Pings elsewhere do not pile up at sockets that nobody reads.
    ping(host, "192.168.7.1", count=50, size=1400)
    ping(host, "fd07::1", count=50, size=1400)
    for name in ("raw", "raw6"):
        waiting = [line.split()[4] for line in a.node.proc(f"net/{name}").splitlines()[1:]]
        equal(waiting, ["00000000:00000000"], f"bytes that wait in net/{name}")


@case(ours=True)
def without_raw_sockets_an_unreachable_comes_from_the_destination(sluice):
    confined = Program("sluice", "setpriv", ("--bounding-set", "-net_raw", sluice.path, *sluice.foreground), sluice.env)
    a = alone(confined)
    for source, to in (("10.0.0.1", "10.5.0.1"), ("fd00::1", "fd05::1")):
        equal(unreachable_from(a.node, source, to), to, "the error comes from")
    equal(a.daemon.output().count("CAP_NET_RAW"), 1, "lines that say so")


@case(ours=True)
def an_unreachable_never_leaves_the_namespace_of_its_sender(sluice):
    """The raw sockets stay where the interface was made, where the sender's address may be another host's."""
    a, there = alone(sluice), Node("there")
    a.node.ip("addr add 10.0.0.1/32 dev lo")
    heard = raw_capture(a.node, "lo")
    a.node.ip(f"link set wg0 netns {there.pid}")
    for address in ("10.0.0.1/24", "fd00::1/64"):
        there.ip("addr add", address, "dev wg0", "nodad" if ":" in address else "")
    there.ip("link set wg0 up")
    # The gateway looks once a second whether an interface elsewhere is up, and answers nothing before.
    wait_until(lambda: "Unreachable" in there.run("ping", "-n", "-c", "1", "-W", "1", "10.0.0.7", ok=False).stdout, 10, "an error over there")
    for source, to in (("10.0.0.1", "10.0.0.7"), ("fd00::1", "fd00::7")):
        equal(unreachable_from(there, source, to), to, "the error comes from")
    equal(inner_packets(heard, 0.3), [], "packets in the gateway's own namespace")


@case(ours=True)
def unreachables_are_limited_in_rate(sluice):
    t = Tunnel(sluice, sluice, peers=False)
    t.n1.ip("route add 10.5.0.0/16 dev wg0")
    inside = raw_capture(t.n1, "lo")  # where what a host sends to itself passes
    s = udp(t.n1)
    for i in range(20000):
        try:
            s.sendto(b"x", ("10.5.0.1", 9))
        except OSError:
            pass
    # Each is seen as it is sent and as it arrives.
    errors = [p for p in inner_packets(inside, 0.5) if p[14:15] == b"\x45" and p[23] == 1][::2]
    check(1 <= len(errors) < 2000, f"{len(errors)} ICMP errors for 20,000 packets")


@case(pairs=BOTH_ROLES)
def listen_port_in_use_is_refused(a, b):
    t = Tunnel(a, b)
    taken = udp(t.n1, "0.0.0.0", 45000)
    p = t.a.daemon.set("listen-port 45000", ok=False)
    check(p.returncode != 0, "wg set listen-port succeeded on a port in use")
    taken.close()


@case(ours=True)
def a_refused_listen_port_changes_nothing(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    taken = udp(t.n1, "0.0.0.0", 45000)
    p = t.a.daemon.set("listen-port 45000", ok=False)
    check("in use" in p.stdout, p.stdout)
    equal(t.a.daemon.dump()[0]["listen_port"], "51820", "listen port")
    ping(t.n2, "10.0.0.1", count=3)
    taken.close()
    t.a.daemon.set("listen-port 45000")
    equal(t.a.daemon.dump()[0]["listen_port"], "45000", "listen port")
    ping(t.n1, "10.0.0.2", count=3)


@case(pairs=BOTH_ROLES)
def fwmark_is_on_outer_packets(a, b):
    t = Tunnel(a, b)
    # Only marked packets find a route to the other end.
    t.n1.ip("addr del 192.0.2.1/24 dev eth0")
    t.n1.ip("addr add 192.0.2.1/32 dev eth0")
    t.n1.ip("route add 192.0.2.2/32 dev eth0 table 77")
    t.n1.ip("rule add fwmark 0x55 lookup 77")
    t.n1.sh("echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/eth0/rp_filter")
    equal(ping(t.n1, "10.0.0.2", ok=False, wait=1), 0, "replies without the mark")
    t.a.daemon.set("fwmark 0x55")
    equal(t.a.daemon.dump()[0]["fwmark"], "0x55", "mark")
    wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 12, "reply with the mark")
    t.a.daemon.set("listen-port 40001")  # new sockets carry it too
    ping(t.n1, "10.0.0.2", count=3)
    t.a.daemon.set("fwmark 0")
    equal(t.a.daemon.dump()[0]["fwmark"], "off", "mark")
    equal(ping(t.n1, "10.0.0.2", ok=False, wait=1), 0, "replies after the mark was taken off")


@case(pairs=BOTH_ROLES)
def private_key_change_needs_a_new_handshake(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    old = t.a.public
    t.a.private = genkey()
    t.a.public = pubkey(t.a.private)
    t.a.daemon.set_private_key(t.a.private)
    t.b.daemon.set("peer", old, "remove")
    t.b.add_peer(t.a, t.endpoint(t.a))
    wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 15, "reply under the new key")
    check(t.b.daemon.peer(t.a.public)["latest_handshake"], "no handshake under the new key")


@case()
def removed_peer_is_cut_off_and_may_come_back(sluice):
    hub, sites = gateway(sluice, sluice, clients=2)
    one, two = sites
    for s in sites:
        ping(s.node, "10.0.0.254")
    hub.daemon.set("peer", one.public, "remove")
    equal(ping(one.node, "10.0.0.254", ok=False, wait=1), 0, "replies to a removed peer")
    ping(two.node, "10.0.0.254", count=3)
    hub.add_peer(one)
    wait_until(lambda: ping(one.node, "10.0.0.254", ok=False, wait=1), 20, "reply after it came back")


@case(ours=True)
def peers_come_and_go_under_traffic(sluice):
    hub, sites = gateway(sluice, sluice, clients=3)
    for s in sites:
        ping(s.node, "10.0.0.254")
    steady = Numbered(sites[0].node, hub.node, "10.0.0.254", interval=0.002)
    flood = Numbered(sites[1].node, hub.node, "10.0.0.254", 9101, interval=0.001)
    steady.flows()
    for _ in range(60):
        hub.daemon.set("peer", sites[1].public, "remove")
        hub.add_peer(sites[1], "192.0.2.2:51822")
        hub.daemon.set("peer", sites[2].public, "preshared-key /dev/null")
    steady.flows()
    equal(steady.end(), [], "datagrams of an untouched peer that got lost")
    flood.end()
    wait_until(lambda: ping(sites[1].node, "10.0.0.254", ok=False, wait=1), 20, "the touched peer again")
