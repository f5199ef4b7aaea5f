"""Traffic through a tunnel: every family, size and protocol, both directions, against itself and wireguard-go in both roles."""

import hashlib
import os
import random
import socket
import threading
import time

from cases import BOTH_ROLES, SELF, case
from lib import IperfServer, Node, Site, Tunnel, check, equal, family, iperf, ping, raw_capture, udp, veth, wait_until


@case(pairs=BOTH_ROLES, params=((4,), (6,)))
def ping_inside(a, b, outer):
    t = Tunnel(a, b, outer=outer)
    for node, to in ((t.n1, "10.0.0.2"), (t.n1, "fd00::2"), (t.n2, "10.0.0.1"), (t.n2, "fd00::1")):
        ping(node, to, count=5)
    i, p = t.a.daemon.dump()
    peer = p[t.b.public]
    equal(i["public_key"], t.a.public, "own public key")
    equal(peer["endpoint"], t.endpoint(t.b), "endpoint")
    check(abs(peer["latest_handshake"] - time.time()) < 5, f"latest handshake: {peer}")
    check(peer["rx"] > 10 * 80 and peer["tx"] > 10 * 80, f"transfer: {peer}")


@case(pairs=BOTH_ROLES)
def tcp_throughput_both_directions(a, b):
    t = Tunnel(a, b)
    for to, extra in (("10.0.0.2", ()), ("10.0.0.2", ("-R",)), ("fd00::2", ("-P", 4)), ("fd00::2", ("-P", 4, "--bidir"))):
        with IperfServer(t.n2):
            end = iperf(t.n1, to, 1, *extra)
        check(end["sum_received"]["bits_per_second"] > 5e6, f"{to} {extra}: {end['sum_received']}")


def stream(sender, receiver, total, seed):
    """Sends total random bytes over a connected pair while the other end reads them. Returns an error or None."""
    chunk = random.Random(seed).randbytes(1 << 20)
    result = []

    def read():
        h, left = hashlib.sha256(), total
        while left:
            part = receiver.recv(min(left, 1 << 18))
            if not part:
                break
            h.update(part)
            left -= len(part)
        result.append((left, h.hexdigest()))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    h, left = hashlib.sha256(), total
    while left:
        part = chunk[:min(left, len(chunk))]
        sender.sendall(part)
        h.update(part)
        left -= len(part)
    reader.join(30)
    return None if result == [(0, h.hexdigest())] else f"received {result}, sent {h.hexdigest()} (seed {seed})"


def tcp_pair(server_node, client_node, address, port=7000):
    listener = server_node.socket(family(address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1)
    client = client_node.socket(family(address), socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect((address, port))
    server = listener.accept()[0]
    server.settimeout(20)
    listener.close()
    return client, server


def both_ways(t, address, total, port=7000):
    """The content of a TCP connection used in both directions at once."""
    client, server = tcp_pair(t.n2, t.n1, address, port)
    errors = []
    threads = [threading.Thread(target=lambda s=s, r=r, n=n: errors.append(stream(s, r, total, n)))
               for n, (s, r) in enumerate(((client, server), (server, client)))]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    client.close()
    server.close()
    equal(errors, [None, None], f"content over {address}")


@case(pairs=BOTH_ROLES)
def tcp_content_survives(a, b):
    t = Tunnel(a, b)
    both_ways(t, "10.0.0.2", 16 << 20)
    both_ways(t, "fd00::2", 16 << 20)


@case(pairs=BOTH_ROLES, params=((1280,), (1420,), (9000,)))
def ping_sizes(a, b, mtu):
    t = Tunnel(a, b, mtu=mtu)
    if mtu > 1420:  # outer packets are fragmented on the way: DF is not set by sluice
        for n, i in ((t.n1, "eth0"), (t.n2, "eth0")):
            n.ip(f"link set {i} mtu {mtu + 80}")
    for to, headers in (("10.0.0.2", 28), ("fd00::2", 48)):
        for size in (0, 1, 15, 16, 17, 100, mtu - headers - 17, mtu - headers - 16, mtu - headers - 1, mtu - headers):
            ping(t.n1, to, size=size, df=True)
            ping(t.n2, to[:-1] + "1", size=size, df=True)
        equal(ping(t.n1, to, size=mtu - headers + 1, df=True, ok=False, wait=1), 0, "replies above the MTU")


@case(pairs=BOTH_ROLES)
def udp_every_size(a, b):
    t = Tunnel(a, b)
    for inner in ("10.0.0.", "fd00::"):
        server, client = udp(t.n2, inner + "2", 9000), udp(t.n1, inner + "1")
        for size in [0] + list(range(1, 1501, 2)):
            data = os.urandom(size)
            client.sendto(data, (inner + "2", 9000))
            got, sender = server.recvfrom(4096)
            equal(got, data, f"there, {size} bytes")
            server.sendto(got[::-1], sender)
            equal(client.recv(4096), data[::-1], f"back, {size} bytes")


@case(pairs=SELF, timeout=60, params=((1,), (2,), (4,)), ours=True)
def tun_threads(a, b, n):
    t = Tunnel(a, b, args_a=("--tun-threads", n), args_b=("--tun-threads", n))
    names = sorted(open(f"/proc/{t.a.daemon.pid}/task/{task}/comm").read().strip()
                   for task in os.listdir(f"/proc/{t.a.daemon.pid}/task"))
    for i in range(n):
        check(f"tun-rx{i}" in names and f"tun-tx{i}" in names, f"thread names: {names}")
    check(f"tun-rx{n}" not in names and {"state", "udp-tx", "udp-rx", "log", "rcu"} <= set(names), f"thread names: {names}")
    errors = []
    threads = [threading.Thread(target=lambda i=i: errors.append(catch(both_ways, t, ("10.0.0.2", "fd00::2")[i % 2], 4 << 20, 7100 + i)))
               for i in range(4)]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    equal(errors, [None] * 4, "connections")
    ping(t.n1, "10.0.0.2", count=5)


def catch(function, *args):
    try:
        return function(*args)
    except Exception as e:
        return str(e)


def gateway(hub_program, client_program, clients=4):
    """A hub with several clients behind one outer network each."""
    hub_node = Node("hub")
    hub_node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    hub = Site(hub_node, hub_program, ("10.0.0.254/24", "fd00::fe/64"), port=51820)
    sites = []
    for n in range(1, clients + 1):
        node = Node(f"client{n}")
        veth(hub_node, f"eth{n}", node, "eth0", (f"192.0.{n}.1/24",), (f"192.0.{n}.2/24",))
        site = Site(node, client_program, (f"10.0.0.{n}/24", f"fd00::{n}/64"), port=51820 + n)
        hub.add_peer(site)
        site.add_peer(hub, f"192.0.{n}.1:51820", ("10.0.0.0/24", "fd00::/64"))
        sites.append(site)
    return hub, sites


@case(pairs=BOTH_ROLES)
def several_peers_reach_each_other(a, b):
    hub, sites = gateway(a, b)
    for s in sites:  # clients start, so that the hub learns where they are
        ping(s.node, "10.0.0.254")
    for s in sites:
        for other in range(1, len(sites) + 1):
            ping(s.node, f"10.0.0.{other}")
            ping(s.node, f"fd00::{other}")
        ping(hub.node, s.inner[0].split("/")[0], count=3)


def inner_packets(capture, seconds):
    """What a capture on a TUN interface sees: packets from their IP header on."""
    packets, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            packets.append(capture.recv(70000))
        except socket.timeout:
            pass
    return packets


@case(pairs=BOTH_ROLES)
def spoofed_inner_source_is_dropped(a, b):
    hub, sites = gateway(a, b, clients=2)
    for s in sites:
        ping(s.node, "10.0.0.254")
    liar = sites[0].node
    for address in ("10.0.0.2/32", "10.9.9.9/32", "fd00::2/128"):
        liar.ip("addr add", address, "dev wg0", "nodad" if ":" in address else "")
    capture = raw_capture(hub.node, "wg0")
    for address, to in (("10.0.0.2", "10.0.0.254"), ("10.9.9.9", "10.0.0.254"), ("fd00::2", "fd00::fe")):
        s = udp(liar, address)
        for _ in range(5):
            s.sendto(b"spoofed", (to, 9))
    udp(liar, "10.0.0.1").sendto(b"honest", ("10.0.0.254", 9))
    seen = inner_packets(capture, 0.5)
    check(any(b"honest" in p for p in seen), "the honest packet did not arrive")
    check(not any(b"spoofed" in p for p in seen), "a packet with another peer's source came through")
    if a.is_sluice:
        check(hub.daemon.counter("ingress_not_allowed") >= 15, f"drops: {hub.daemon.counters()}")


@case()
def allowed_ip_moves_to_the_peer_that_names_it_last(sluice):
    hub, sites = gateway(sluice, sluice, clients=2)
    one, two = sites
    for s in sites:
        ping(s.node, "10.0.0.254")
        s.node.ip("addr add 10.1.1.1/32 dev wg0")
    hub.node.ip("route add 10.1.0.0/16 dev wg0")
    hub.daemon.set("peer", one.public, "allowed-ips 10.0.0.1/32,fd00::1/128,10.1.0.0/16")
    client, server = udp(hub.node, "10.0.0.254"), {}
    for s in sites:
        server[s] = udp(s.node, "10.1.1.1", 9000)

    def arrives_at(site):
        client.sendto(b"x", ("10.1.1.1", 9000))
        server[site].recv(10)

    arrives_at(one)
    hub.daemon.set("peer", two.public, "allowed-ips 10.0.0.2/32,fd00::2/128,10.1.0.0/16")
    arrives_at(two)
    hub.daemon.set("peer", one.public, "allowed-ips 10.0.0.1/32,fd00::1/128,10.1.1.0/24")  # longer prefix wins
    arrives_at(one)
    allowed = {k: p["allowed_ips"] for k, p in hub.daemon.dump()[1].items()}
    check("10.1.0.0/16" not in allowed[one.public] and "10.1.0.0/16" in allowed[two.public], f"allowed IPs: {allowed}")


@case(pairs=BOTH_ROLES)
def default_route_through_the_tunnel(a, b):
    t = Tunnel(a, b, peers=False)
    t.a.add_peer(t.b, t.endpoint(t.b), ("0.0.0.0/0", "::/0"))
    t.b.add_peer(t.a)
    t.n2.ip("addr add 203.0.113.7/32 dev lo")
    t.n2.ip("addr add 2001:db8:7::7/128 dev lo")
    t.n1.ip("route add 203.0.113.0/24 dev wg0")
    t.n1.ip("route add 2001:db8:7::/64 dev wg0")
    ping(t.n1, "203.0.113.7", count=3)
    ping(t.n1, "2001:db8:7::7", count=3)
