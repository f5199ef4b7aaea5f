"""The control socket through wg and by hand, the command line, start and end."""

import base64
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from cases import BOTH_ROLES, SELF, SLUICE, case
from lib import (ROOT, Daemon, Failure, Node, Program, Site, Skip, Tunnel, alive, check, equal, genkey, ping, pubkey, run, wait_until)


def alone(sluice, **kw):
    return Site(Node("alone"), sluice, ("10.0.0.1/24",), **kw)


def hexkey(key):
    return base64.b64decode(key).hex()


@case()
def wg_set_and_show(sluice):
    s = alone(sluice)
    d = s.daemon
    peer, other, psk = pubkey(genkey()), pubkey(genkey()), genkey()
    d.set("listen-port 51999 fwmark 0x1234")
    d.set("peer", peer, "allowed-ips 10.1.2.3/24,fd00:1::5/64,10.9.0.0/32 endpoint 192.0.2.9:1000 persistent-keepalive 25")
    d.set("peer", other, "allowed-ips 0.0.0.0/0,::/0 endpoint [2001:db8::5]:2000")
    d.set_preshared(peer, psk)
    i, peers = d.dump()
    equal(i, {"private_key": s.private, "public_key": s.public, "listen_port": "51999", "fwmark": "0x1234"}, "interface")
    if sluice.is_sluice:
        equal(list(peers), [peer, other], "peers in the order in which they were added")
    p = peers[peer]
    equal(sorted(p["allowed_ips"].split(",")), ["10.1.2.0/24", "10.9.0.0/32", "fd00:1::/64"], "allowed IPs with host bits masked")
    equal((p["preshared_key"], p["endpoint"], p["keepalive"]), (psk, "192.0.2.9:1000", "25"), "peer")
    equal((p["latest_handshake"], p["rx"]), (0, 0), "nothing has been received")
    p = peers[other]
    equal((p["preshared_key"], p["endpoint"], p["keepalive"]), ("(none)", "[2001:db8::5]:2000", "off"), "other peer")
    equal(sorted(p["allowed_ips"].split(",")), ["0.0.0.0/0", "::/0"], "default routes")
    text = d.wg("show").stdout
    check(f"interface: {d.ifname}" in text and f"peer: {peer}" in text and "every 25 seconds" in text, text)
    equal(d.wg("show", "interfaces").stdout.split(), [d.ifname], "wg show interfaces")
    lines = d.wg("show", "all", "dump").stdout.splitlines()
    equal([line.split("\t")[0] for line in lines], [d.ifname] * 3, "wg show all dump")
    equal(set(d.wg("show", d.ifname, "endpoints").stdout.splitlines()), {peer + "\t192.0.2.9:1000", other + "\t[2001:db8::5]:2000"}, "endpoints")
    d.set("peer", peer, "persistent-keepalive off")
    equal(d.peer(peer)["keepalive"], "off", "keepalive")
    d.wg("set", d.ifname, "peer", peer, "preshared-key", "/dev/null")
    equal(d.peer(peer)["preshared_key"], "(none)", "preshared key")
    d.set("peer", peer, "remove")
    equal(list(d.dump()[1]), [other], "peers after a removal")
    d.wg("set", d.ifname, "peer", other, "allowed-ips", "")
    equal(d.peer(other)["allowed_ips"], "(none)", "allowed IPs")
    d.wg("set", d.ifname, "private-key", "/dev/null")
    equal(d.dump()[0]["private_key"], "(none)", "private key")


@case()
def wg_setconf_addconf_syncconf_showconf(sluice):
    d = alone(sluice).daemon
    keys = [pubkey(genkey()) for _ in range(4)]
    private = genkey()

    def conf(*peers, port=51900):
        text = f"[Interface]\nPrivateKey = {private}\nListenPort = {port}\n"
        return text + "".join(f"[Peer]\nPublicKey = {keys[n]}\nAllowedIPs = 10.{n}.0.0/16, fd{n:02}::/32\n"
                              f"Endpoint = 192.0.2.{n + 1}:{1000 + n}\nPersistentKeepalive = {n + 10}\n" for n in peers)

    in_order = list if sluice.is_sluice else sorted
    d.wg("setconf", d.ifname, "/dev/stdin", input=conf(0, 1, 2))
    equal(in_order(d.dump()[1]), in_order(keys[:3]), "setconf")
    before = d.dump()
    d.wg("setconf", d.ifname, "/dev/stdin", input=d.wg("showconf", d.ifname).stdout)
    equal(d.dump(), before, "showconf fed to setconf")
    d.wg("addconf", d.ifname, "/dev/stdin", input=f"[Peer]\nPublicKey = {keys[3]}\nAllowedIPs = 10.3.0.0/16\n")
    equal(in_order(d.dump()[1]), in_order(keys), "addconf")
    d.wg("syncconf", d.ifname, "/dev/stdin", input=conf(1, 3, port=51901))
    i, peers = d.dump()
    equal((i["listen_port"], sorted(peers)), ("51901", sorted([keys[1], keys[3]])), "syncconf")
    equal(peers[keys[3]]["endpoint"], "192.0.2.4:1003", "endpoint after syncconf")
    d.wg("setconf", d.ifname, "/dev/stdin", input=conf(2))
    equal(list(d.dump()[1]), [keys[2]], "setconf replaces the peers")


@case(pairs=BOTH_ROLES)
def syncconf_keeps_the_session(a, b):
    t = Tunnel(a, b)
    ping(t.n1, "10.0.0.2")
    before = t.a.daemon.peer(t.b.public)
    conf = t.a.daemon.wg("showconf", "wg0").stdout + f"[Peer]\nPublicKey = {pubkey(genkey())}\nAllowedIPs = 10.7.0.0/16\n"
    t.a.daemon.wg("syncconf", "wg0", "/dev/stdin", input=conf)
    ping(t.n1, "10.0.0.2", count=3)
    after = t.a.daemon.peer(t.b.public)
    equal(after["latest_handshake"], before["latest_handshake"], "latest handshake")
    check(after["rx"] > before["rx"], "the counters started again")


@case()
def listen_port_changes_under_a_session(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    for port in (41000, 41001, 51820):
        t.a.daemon.set("listen-port", port)
        equal(t.a.daemon.dump()[0]["listen_port"], str(port), "listen port")
        ping(t.n1, "10.0.0.2", count=2)
        ping(t.n2, "10.0.0.1", count=2)
    t.a.daemon.set("listen-port 0")
    check(int(t.a.daemon.dump()[0]["listen_port"]) > 0, "port 0 is to become one of the kernel's choice")
    ping(t.n1, "10.0.0.2", count=2)


@case()
def ten_thousand_peers_in_a_second(sluice):
    d = alone(sluice).daemon
    keys = [os.urandom(32).hex() for _ in range(10000)]
    request = "set=1\n" + "".join(
        f"public_key={k}\nreplace_allowed_ips=true\nallowed_ip=10.{n >> 8}.{n & 255}.0/24\nallowed_ip=fd00:{n:x}::/32\n"
        f"endpoint=192.0.2.{n % 250 + 1}:{n + 1000}\npersistent_keepalive_interval=0\n" for n, k in enumerate(keys)) + "\n"
    limit = 1 if sluice.is_sluice and "asan" not in sluice.path else 8
    start = time.monotonic()
    equal(d.uapi(request, 30), "errno=0\n\n", "answer to set")
    took = time.monotonic() - start
    check(took < limit, f"setting took {took:.2f} s")
    start = time.monotonic()
    answer = d.uapi("get=1\n\n", 30)
    took = time.monotonic() - start
    check(took < limit, f"listing took {took:.2f} s")
    listed = re.findall("^public_key=(.*)$", answer, re.M)
    equal(sorted(listed), sorted(keys), "keys listed")
    equal(answer.count("allowed_ip="), 20000, "allowed IPs listed")
    start = time.monotonic()
    equal(len(d.wg("show", d.ifname, "dump").stdout.splitlines()), 10001, "lines of wg show dump")
    print(f"set and list; wg show: {time.monotonic() - start:.2f} s")
    if sluice.is_sluice:
        equal(listed, keys, "order of the keys")
    start = time.monotonic()
    equal(d.uapi("set=1\nreplace_peers=true\n\n", 30), "errno=0\n\n", "removal of all")
    check(time.monotonic() - start < limit, "removing took more than a second")
    equal(d.dump()[1], {}, "peers left")


@case(ours=True)
def a_refused_set_changes_nothing(sluice):
    s = alone(sluice, port=51820)
    d = s.daemon
    key, new = hexkey(pubkey(genkey())), hexkey(pubkey(genkey()))
    equal(d.uapi(f"set=1\npublic_key={key}\nallowed_ip=10.1.0.0/16\nendpoint=192.0.2.1:5\n\n"), "errno=0\n\n", "set")
    before = d.uapi("get=1\n\n")
    good = f"fwmark=7\npublic_key={new}\nallowed_ip=10.2.0.0/16\npublic_key={key}\nremove=true\n"
    of_device = ["private_key=12", "private_key=" + "g" * 64, "private_key=" + "0" * 65, "listen_port=65536", "listen_port=-1", "listen_port=",
                 "listen_port=1x", "fwmark=4294967296", "fwmark=x", "replace_peers=false", "replace_peers=", "nonsense=1", "nonsense", "=",
                 "endpoint=1.2.3.4:5", "allowed_ip=10.0.0.0/8", "remove=true"]
    of_peer = ["public_key=", "public_key=" + "0" * 63, "endpoint=192.0.2.1", "endpoint=192.0.2.1:0x", "endpoint=host.example:1", "endpoint=[::1:5",
               "endpoint=1.2.3.4:65536", "allowed_ip=10.0.0.0/33", "allowed_ip=10.0.0.0", "allowed_ip=fd00::/129", "allowed_ip=10.0.0/8",
               "allowed_ip=/8", "preshared_key=00", "persistent_keepalive_interval=65536", "persistent_keepalive_interval=x", "remove=yes",
               "update_only=0", "protocol_version=2", "replace_allowed_ips=1", "listen_port=5", "fwmark=1", "nonsense=1"]
    for text in [f"{line}\n{good}" for line in of_device] + [f"{good}{line}\n" for line in of_peer]:
        answer = d.uapi(f"set=1\n{text}\n")
        check(re.fullmatch(r"errno=-?[1-9]\d*\n\n", answer), f"answer to {text!r}: {answer!r}")
        equal(d.uapi("get=1\n\n"), before, f"state after {text!r}")
    # The same through wg, for what wg itself lets through.
    words = "listen-port 51821 fwmark 5 peer " + pubkey(genkey()) + " allowed-ips 10.3.0.0/33"
    check(d.set(words, ok=False).returncode != 0, words)
    equal(d.uapi("get=1\n\n"), before, "state")
    equal(d.uapi(f"set=1\n{good}\n"), "errno=0\n\n", "and without the bad line")


@case(ours=True)
def uapi_semantics(sluice):
    s = alone(sluice)
    d = s.daemon
    one, two = (os.urandom(32).hex() for _ in range(2))

    def peers():
        found = {}
        for line in d.uapi("get=1\n\n").splitlines():
            k, _, v = line.partition("=")
            if k == "public_key":
                current = found.setdefault(v, [])
            elif k == "allowed_ip":
                current.append(v)
        return found

    def ok(text):
        equal(d.uapi("set=1\n" + text + "\n"), "errno=0\n\n", f"answer to {text!r}")

    ok(f"public_key={one}\nupdate_only=true\nallowed_ip=10.0.0.0/8\n")
    equal(peers(), {}, "update_only of an unknown peer")
    ok(f"public_key={one}\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\n")
    ok(f"public_key={one}\nallowed_ip=172.16.0.0/12\n")
    equal({k: sorted(v) for k, v in peers().items()}, {one: ["10.0.0.0/8", "172.16.0.0/12", "fd00::/8"]}, "allowed IPs add up")
    ok(f"public_key={one}\nallowed_ip=-fd00::/8\nallowed_ip=-192.168.0.0/16\n")
    equal({k: sorted(v) for k, v in peers().items()}, {one: ["10.0.0.0/8", "172.16.0.0/12"]}, "removal of one prefix")
    ok(f"public_key={two}\nallowed_ip=10.0.0.0/8\n")
    equal(peers(), {one: ["172.16.0.0/12"], two: ["10.0.0.0/8"]}, "a prefix moves")
    ok(f"public_key={two}\nallowed_ip=-172.16.0.0/12\n")
    equal(peers()[one], ["172.16.0.0/12"], "another peer's prefix is not removed")
    ok(f"public_key={one}\nreplace_allowed_ips=true\nallowed_ip=10.5.0.0/16\n")
    equal(peers()[one], ["10.5.0.0/16"], "replacement")
    ok(f"public_key={one}\nremove=true\npublic_key={two}\nupdate_only=true\npersistent_keepalive_interval=9\n")
    equal(list(peers()), [two], "removal and update in one request")
    ok(f"public_key={hexkey(s.public)}\nallowed_ip=10.0.0.0/8\n")
    equal(list(peers()), [two], "a peer with our own key is not added")
    other = genkey()
    ok(f"public_key={hexkey(pubkey(other))}\n")
    ok(f"private_key={hexkey(other)}\n")
    equal(list(peers()), [two], "a peer whose key becomes our own goes")
    ok("private_key=" + "ff" * 32 + "\n")
    key = bytes.fromhex(re.search("private_key=(.*)", d.uapi("get=1\n\n")).group(1))
    equal((key[0], key[31]), (0xf8, 0x7f), "clamped bytes of the private key")
    ok(f"replace_peers=true\npublic_key={one}\n")
    equal(list(peers()), [one], "replace_peers")
    check("protocol_version=1" in d.uapi("get=1\n\n"), "protocol_version is listed")
    # More than one request on a connection, in one write and byte by byte.
    with d.connect() as c:
        c.sendall(b"get=1\n\nget=1\n\n")
        answer = b""
        while answer.count(b"errno=0\n\n") < 2:
            answer += c.recv(65536)
        for byte in b"set=1\nfwmark=3\n\n":
            c.sendall(bytes([byte]))
        equal(c.recv(100), b"errno=0\n\n", "answer to a slow request")


@case(ours=True)
def uapi_survives_hostile_and_slow_clients(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    d = t.a.daemon
    silent = [d.connect() for _ in range(60)]
    for n, c in enumerate(silent):
        c.sendall((b"", b"get=1", b"set=1\npublic_key=", b"\0\0\0", b"get=1\nx")[n % 5])
    start = time.monotonic()
    check(t.b.public in d.wg("show", "wg0").stdout, "wg show beside silent clients")
    check(time.monotonic() - start < 2, "wg show had to wait for silent clients")
    unread = d.connect()  # asks and never reads
    try:
        unread.settimeout(0.5)
        for _ in range(20000):
            unread.sendall(b"get=1\n\n")
    except OSError:
        pass
    d.wg("show", "wg0")
    for junk in (b"\n", b"\n\n", b"get=2\n\n", b"set=2\n\n", b"get=1\nlisten_port=1\n\n", os.urandom(5000), b"set=1\n" + b"a" * 100000 + b"\n\n",
                 b"set=1\n" + b"public_key=\xff\xfe\n\n", b"set=1\nlisten_port=\x00\n\n", b"A" * (1 << 20), b"set=1\n\0\n\n"):
        c = d.connect(3)
        try:
            c.sendall(junk)
            c.shutdown(socket.SHUT_WR)
            while c.recv(65536):
                pass
        except OSError:
            pass
        c.close()
    for c in silent + [unread]:
        c.close()
    ping(t.n1, "10.0.0.2", count=3)
    check(t.b.public in d.wg("show", "wg0").stdout, "wg show afterwards")
    wait_until(lambda: len(os.listdir(f"/proc/{d.pid}/fd")) < 60, 3, "descriptors of closed clients")


@case(ours=True)
def a_request_of_any_length_is_answered_at_once(sluice):
    """However many reads it takes. Stopped meanwhile, the process finds the whole request in its socket."""
    d = alone(sluice).daemon
    line = f"public_key={os.urandom(32).hex()}\n".encode()
    for nr in range(200, 5000, 200):
        with d.connect(5) as c:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            os.kill(d.pid, signal.SIGSTOP)
            c.settimeout(0.2)
            try:
                c.sendall(b"set=1\n" + line * nr + b"\n")
            except socket.timeout:
                raise Skip(f"the socket of this kernel takes less than {len(line) * nr} bytes")
            finally:
                os.kill(d.pid, signal.SIGCONT)
            c.settimeout(5)
            equal(c.recv(100), b"errno=0\n\n", f"answer to {len(line) * nr} bytes")


@case()
def many_clients_at_once(sluice):
    t = Tunnel(sluice, sluice)
    d, errors = t.a.daemon, []

    def client(n):
        try:
            for i in range(30):
                key = f"{n:02x}" * 31 + f"{i:02x}"
                if d.uapi(f"set=1\npublic_key={key}\nallowed_ip=10.{n + 1}.{i}.0/24\n\n") != "errno=0\n\n":
                    errors.append("set")
                if "errno=0" not in d.uapi("get=1\n\n"):
                    errors.append("get")
                if i % 3 == 0:
                    d.uapi(f"set=1\npublic_key={key}\nremove=true\n\n")
        except Exception as e:
            errors.append(str(e))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(1, 9)]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    equal(errors, [], "errors")
    equal(len(d.dump()[1]), 1 + 8 * 20, "peers")
    ping(t.n1, "10.0.0.2", count=3)


@case(params=(("SIGTERM",), ("SIGINT",)))
def ends_cleanly_on(sluice, name):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    t.a.daemon.stop(getattr(signal, name), timeout=3)
    check(not os.path.exists(t.a.daemon.socket_path), "the socket is still there")
    wait_until(lambda: not t.n1.has_link("wg0"), 2, "the end of the interface")


@case()
def ends_when_the_interface_is_deleted(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    t.n1.ip("link del wg0")
    status = t.a.daemon.wait_end()
    check(status == 0 or not sluice.is_sluice, f"exit status {status}")
    wait_until(lambda: not os.path.exists(t.a.daemon.socket_path), 2, "removal of the socket")


@case()
def ends_when_the_socket_is_removed(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    os.unlink(t.a.daemon.socket_path)
    status = t.a.daemon.wait_end()
    check(status == 0 or not sluice.is_sluice, f"exit status {status}")
    wait_until(lambda: not t.n1.has_link("wg0"), 2, "the end of the interface")


@case()
def ends_under_full_load(sluice):
    for how in ("signal", "delete", "socket"):
        t = Tunnel(sluice, sluice)
        servers = [t.n2.popen("iperf3", "-s", "-1", "-p", p, stdin=-3, stdout=-3, stderr=-3) for p in (5301, 5302)]
        time.sleep(0.3)
        clients = [t.n1.popen("iperf3", "-c", "10.0.0.2", "-p", p, "-t", 20, *x, stdin=-3, stdout=-3, stderr=-3)
                   for p, x in ((5301, ()), (5302, ("-R", "-P", 4)))]
        time.sleep(0.7)
        if how == "signal":
            t.a.daemon.stop(timeout=3)
        elif how == "delete":
            t.n1.ip("link del wg0")
            t.a.daemon.wait_end(3)
        else:
            os.unlink(t.a.daemon.socket_path)
            t.a.daemon.wait_end(3)
        for p in servers + clients:
            p.kill()
            p.wait()


@case(timeout=60)
def ends_while_clients_and_handshakes_are_under_way(sluice):
    """Closing, configuration and handshakes wait for nobody in a circle."""
    t = Tunnel(sluice, sluice)
    d, stop = t.a.daemon, threading.Event()
    keys = [pubkey(genkey()) for _ in range(8)]

    def configure(n):
        while not stop.is_set():
            try:
                with d.connect(2) as c:
                    for i, key in enumerate(keys):
                        # Every one of them begins a handshake, and a third changes sockets or keys under it.
                        c.sendall(f"set=1\npublic_key={hexkey(key)}\nendpoint=192.0.2.2:{t.b.port}\npersistent_keepalive_interval=1\n"
                                  f"allowed_ip=10.{n}.{i}.0/24\n\n".encode())
                        c.sendall((f"set=1\npublic_key={hexkey(key)}\nremove=true\n\n", f"set=1\nlisten_port={42000 + 10 * n + i}\n\n",
                                   f"set=1\nprivate_key={os.urandom(32).hex()}\n\nget=1\n\n")[(n + i) % 3].encode())
                        c.recv(1 << 16)
            except OSError:
                time.sleep(0.001)

    threads = [threading.Thread(target=configure, args=(n,), daemon=True) for n in range(1, 4)]
    for x in threads:
        x.start()
    try:
        for how in ("SIGTERM", "delete", "SIGINT", "socket") * 2:
            time.sleep(0.3)
            t.n1.ip("link set wg0 down")
            t.n1.ip("link set wg0 up")
            time.sleep(0.1)
            if how == "delete":
                t.n1.ip("link del wg0")
                d.wait_end(5)
            elif how == "socket":
                os.unlink(d.socket_path)
                d.wait_end(5)
            else:
                d.stop(getattr(signal, how), timeout=5)
            wait_until(lambda: not t.n1.has_link("wg0"), 5, "the end of the interface")
            d.start()
            d.set_private_key(t.a.private)
            t.n1.ip("link set wg0 up")
    finally:
        stop.set()
        for x in threads:
            x.join()


@case()
def starts_where_system_controls_are_read_only(sluice):
    """As in a container without privilege over its host."""
    node = Node("alone")
    node.sh("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys")
    check(node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward", ok=False).returncode != 0, "the controls can be written")
    s = Site(node, sluice, ("10.0.0.1/24",), port=51820)
    equal(s.daemon.dump()[0]["listen_port"], "51820", "listen port")


@case(ours=True)
def log_that_nobody_reads_stops_nothing(sluice):
    with tempfile.TemporaryDirectory(prefix="sluice-log-") as directory:
        fifo, wrapper = os.path.join(directory, "log"), os.path.join(directory, "sluice")
        os.mkfifo(fifo)
        with open(wrapper, "w") as f:
            f.write(f"#!/bin/sh\nexec {sluice.path} \"$@\" 2<>{fifo}\n")
        os.chmod(wrapper, 0o755)
        t = Tunnel(Program("sluice", wrapper, env=sluice.env), sluice, args_a=("--log", "debug"), peers=False)
        d = t.a.daemon
        reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        try:
            while True:
                os.write(reader, b".")
        except BlockingIOError:
            pass
        try:
            t.connect()
            ping(t.n1, "10.0.0.2", count=3)
            ping(t.n2, "10.0.0.1", count=3)
            key = pubkey(genkey())
            for _ in range(600):  # a few lines each: more than are kept
                d.uapi(f"set=1\npublic_key={hexkey(key)}\nreplace_allowed_ips=true\n\n")
                d.uapi(f"set=1\npublic_key={hexkey(key)}\nremove=true\n\n")
            ping(t.n1, "10.0.0.2", count=3)
            equal(list(d.dump()[1]), [t.b.public], "peers")
            start = time.monotonic()
            d.stop()
            check(time.monotonic() - start < 5, f"ending took {time.monotonic() - start:.1f} s")
        finally:
            os.close(reader)


@case()
def goes_to_the_background_when_its_socket_answers(sluice):
    node = Node("alone")
    argv = node.enter + [sluice.path, "wg7"]
    env = {k: v for k, v in os.environ.items() if k != "WG_PROCESS_FOREGROUND"}
    # It must let go of the caller's output: a pipeline or $(...) around it would hang otherwise.
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, env=env)
    equal(p.returncode, 0, "exit status")
    check("wg7" in node.out("wg", "show"), "the socket does not answer when the command returns")
    path = node.path("/run/wireguard/wg7.sock")
    os.unlink(path)
    wait_until(lambda: not node.has_link("wg7"), 5, "the end")


@case(ours=True)
def starts_with_closed_standard_descriptors(sluice):
    """None of the program's own descriptors may take a number that messages are written to."""
    node = Node("alone")
    node.sh(f"exec {sluice.path} wg7 <&- >&- 2>&-", timeout=10)
    check("wg7" in node.out("wg", "show"), "the socket does not answer when the command returns")
    os.unlink(node.path("/run/wireguard/wg7.sock"))
    wait_until(lambda: not node.has_link("wg7"), 5, "the end")
    for closed in ("2>&-", "<&-", ">&-", "<&- 2>&-", "<&- >&- 2>&-"):
        p = node.popen("sh", "-c", f"exec {sluice.path} -f --log debug wg7 {closed}", stdin=-3, stdout=-3, stderr=-3)
        wait_until(lambda: "wg7" in node.run("wg", "show", ok=False).stdout, 10, "control socket")
        for fd in range(3):
            equal(os.readlink(f"/proc/{p.pid}/fd/{fd}"), "/dev/null", f"descriptor {fd} with {closed}")
        p.send_signal(signal.SIGTERM)
        equal(p.wait(timeout=5), 0, "exit status")


@case(ours=True)
def foreground_by_environment(sluice):
    node = Node("alone")
    p = node.popen(sluice.path, "wg7", env={"WG_PROCESS_FOREGROUND": "1"}, stdin=-3, stdout=-3, stderr=-3)
    wait_until(lambda: "wg7" in node.run("wg", "show", ok=False).stdout, 10, "control socket")
    check(p.poll() is None, "it did not stay")
    p.send_signal(signal.SIGTERM)
    equal(p.wait(timeout=5), 0, "exit status")


def refused(sluice, node, *args, contains="", env=None, prefix=()):
    p = run(node.enter + list(prefix) + [sluice.path] + [str(a) for a in args], ok=False, timeout=15)
    check(p.returncode != 0, f"{args}: exit status 0")
    lines = p.stdout.strip().splitlines()
    check(len(lines) == 1 and contains.lower() in lines[0].lower(), f"{args}: wanted one line with {contains!r}, got:\n{p.stdout}")
    return lines[0]


@case(ours=True)
def bad_arguments_give_one_line(sluice):
    node = Node("alone")
    for args, word in (((), "name"), (("a" * 16,), "name"), (("a/b",), "name"), (("..",), "name"), (("",), "name"), (("wg0", "wg1"), "wg1"),
                       (("--nonsense", "wg0"), "nonsense"), (("-x", "wg0"), "-x"), (("wg0", "--tun-threads"), "tun-threads"),
                       (("--tun-threads", "0", "wg0"), "64"), (("--tun-threads", "65", "wg0"), "64"), (("--tun-threads", "2x", "wg0"), "64"),
                       (("--tun-threads", "-1", "wg0"), "64"), (("--mtu", "67", "wg0"), "mtu"), (("--mtu", "65536", "wg0"), "mtu"),
                       (("--mtu", "", "wg0"), "mtu"), (("--aead", "rot13", "wg0"), "libsodium"), (("--log", "loud", "wg0"), "log"),
                       (("--log-format", "xml", "wg0"), "json"), (("stats",), "name"), (("stats", "nosuch0"), "nosuch0"),
                       (("help",), "--help"), (("version",), "--version"), (("Stats",), "sluice stats IFNAME"), (("LOG", "wg0"), "sluice log IFNAME")):
        refused(sluice, node, *args, contains=word)
    equal(node.out("ls", "/run/wireguard").split(), [], "sockets left")
    # In the format that was asked for, even where something before that is wrong.
    for args, word in ((("--nonsense", "--log-format", "json", "wg0"), "nonsense"), (("-f", "--log-format=json", "wg0", "wg1"), "wg1"),
                       (("--log-format", "json", "--log", "loud", "wg0"), "loud")):
        message = json.loads(refused(sluice, node, *args, contains=word))
        check(message["level"] == "error" and word in message["message"], f"{args}: {message}")
    help_text = node.out(sluice.path, "--help")
    for option in ("--foreground", "--tun-threads", "--aead", "--mtu", "--log", "--log-format", "--version"):
        check(option in help_text, f"--help does not explain {option}")
    check(re.search(r"\d+\.\d+\.\d+", node.out(sluice.path, "--version")), "--version has no number")


@case()
def a_taken_name_is_refused(sluice):
    s = alone(sluice)
    start = [sluice.path] + sluice.foreground + ["wg0"]
    if sluice.is_sluice:
        refused(sluice, s.node, "-f", "wg0", contains="wg0")
        refused(sluice, s.node, "wg0", contains="wg0")
        for foreground in (("-f",), ()):
            message = json.loads(refused(sluice, s.node, *foreground, "--log-format", "json", "wg0", contains="wg0"))
            equal((message["level"], message["interface"]), ("error", "wg0"), "level and interface")
        manual = open(os.path.join(os.path.dirname(__file__), "../../core/sluice.8")).read()
        line = re.search(r"^# (sluice -f .*--log-format json .*\| jq .*)$", manual, re.M)[1].replace("sluice", sluice.path, 1)
        check("wg0 is served already" in s.node.sh(line).stdout, f"{line}: the error does not come out")
        s.node.ip("link add name dummy7 type veth peer name dummy8")
        refused(sluice, s.node, "-f", "dummy7", contains="dummy7")
        check(s.node.has_link("dummy7"), "the interface of someone else is gone")
    else:
        check(s.node.run(*start, ok=False).returncode != 0, "started a second time")
    # The first one has not noticed.
    check(s.public in s.daemon.wg("show").stdout, "wg show")
    check(s.node.has_link("wg0"), "the interface is gone")


@case(ours=True)
def only_an_unused_tun_is_said_to_be_deletable(sluice):
    node = Node("alone")
    hint = "delete it with: ip link delete "

    def advice(ifname):
        p = node.run(sluice.path, "-f", ifname, ok=False)
        check(p.returncode != 0 and f"interface {ifname} exists already" in p.stdout, p.stdout)
        check(node.has_link(ifname), f"{ifname} is gone")
        return p.stdout

    for setup in ("link add name other type veth peer name other2", "link add name other type dummy", "link add name other type ifb",
                  "tuntap add other mode tun user 1234", "tuntap add other mode tun group 1234", "tuntap add other mode tap"):
        try:
            node.ip(setup)
        except Failure as e:
            if "Unknown device type" in str(e):
                continue
            raise
        check(hint not in advice("other"), f"advice to delete after: ip {setup}")
        node.ip("link delete other")
    # Nobody's, whether it is up or down; not any more while somebody has it open, and then again.
    node.ip("tuntap add other mode tun")
    check(hint + "other" in advice("other"), "no advice about a TUN interface that nobody uses")
    node.ip("link set other up")
    check(hint + "other" in advice("other"), "no advice about a TUN interface that is up and nobody uses")
    node.ip("link set other down")
    with node:
        user = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(user, 0x400454CA, struct.pack("16sH22x", b"other", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    check(hint not in advice("other"), "advice to delete what somebody uses")
    os.close(user)
    check(hint + "other" in advice("other"), "no advice about what nobody uses any more")
    # Another sluice's, of which nothing is known here.
    d = Daemon(node, sluice)
    node.sh("rm -rf /run/other && mkdir /run/other")
    p = node.sh(f"unshare --mount sh -c 'mount --bind /run/other /run/wireguard && exec {sluice.path} -f wg0'", ok=False)
    check("interface wg0 exists already" in p.stdout and hint not in p.stdout, p.stdout)
    d.stop()


@case(ours=True, waits=True)
def a_locked_directory_does_not_hold_a_start_for_ever(sluice):
    node = Node("alone")
    directory = os.open(node.path("/run/wireguard"), os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    refused(sluice, node, "wg0", contains="locked")
    os.close(directory)


@case()
def a_stale_socket_is_replaced(sluice):
    t = Tunnel(sluice, sluice)
    t.a.daemon.kill()
    check(os.path.exists(t.a.daemon.socket_path), "SIGKILL leaves the socket")
    wait_until(lambda: not t.n1.has_link("wg0"), 5, "the end of the interface")
    t.a.daemon.start()
    t.a.up()
    t.a.add_peer(t.b, t.endpoint(t.b))
    ping(t.n1, "10.0.0.2", wait=5)


@case(ours=True)
def without_privilege_one_line_says_what_is_missing(sluice):
    node = Node("alone")
    # A user namespace of tests/run has no second user to become.
    user = () if "SLUICE_IN_USER_NAMESPACE" in os.environ else ("--reuid", "65534", "--clear-groups")
    refused(sluice, node, "-f", "wg0", contains="root", prefix=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *user))
    refused(sluice, node, "wg0", contains="CAP_NET_ADMIN", prefix=("setpriv", "--bounding-set", "-net_admin"))
    node.sh("mount -t tmpfs tmpfs /dev/net")
    refused(sluice, node, "-f", "wg0", contains="/dev/net/tun")
    equal(node.out("ls", "/run/wireguard").split(), [], "sockets left")


@case(ours=True)
def memory_that_cannot_be_locked_is_told_once(sluice):
    """Under a low limit everything works, large listings too."""
    node = Node("alone")
    with tempfile.TemporaryFile("w+") as log:
        p = node.popen("sh", "-c", f"ulimit -l 0 && exec setpriv --bounding-set -ipc_lock {sluice.path} -f wg7", stdin=-3, stdout=log, stderr=log)
        wait_until(lambda: "wg7" in node.run("wg", "show", ok=False).stdout, 10, "control socket")
        conf = f"[Interface]\nPrivateKey = {genkey()}\n" + "".join(f"[Peer]\nPublicKey = {genkey()}\nPresharedKey = {genkey()}\n" for _ in range(3000))
        node.run("wg", "setconf", "wg7", "/dev/stdin", input=conf)
        equal(node.out("wg", "show", "wg7", "preshared-keys").count("\n"), 3000, "peers listed")
        p.send_signal(signal.SIGTERM)
        equal(p.wait(timeout=5), 0, "exit status")
        log.seek(0)
        text = log.read()
    equal(text.count("cannot be locked"), 1, f"lines about locked memory in:\n{text}")


@case()
def socket_is_for_root_only(sluice):
    s = alone(sluice)
    mode = os.stat(s.daemon.socket_path).st_mode
    equal(mode & 0o077, 0, "permissions of others")


@case(ours=True)
def mtu_option(sluice):
    s = Site(Node("alone"), sluice, (), args=("--mtu", 1280))
    check("mtu 1280" in s.node.ip("link show wg0"), s.node.ip("link show wg0"))


@case(ours=True, params=(("libsodium",), ("libcrypto",), ("ipsec-mb",)))
def every_cipher_implementation_carries_traffic(sluice, name):
    node = Node("probe")
    p = node.run("timeout", "-s", "TERM", "1", sluice.path, "-f", "--aead", name, "wg0", ok=False)
    if "this build has" in p.stdout:
        raise Skip(p.stdout.strip())
    from test_traffic import both_ways

    t = Tunnel(sluice, sluice, args_a=("--aead", name), args_b=("--aead", "libsodium"))
    both_ways(t, "10.0.0.2", 4 << 20)
    ping(t.n1, "fd00::2", size=1, count=3)


@case(ours=True)
def log_levels_and_formats(sluice):
    node = Node("alone")
    d = Daemon(node, sluice, args=("--log", "debug", "--log-format", "json"))
    s = node
    d.set_private_key(genkey())
    s.ip("link set wg0 up")
    wait_until(lambda: d.output().count("\n") >= 2, 3, "log lines")
    for line in d.output().splitlines():
        equal(json.loads(line)["interface"], "wg0", line)
    node.run(sluice.path, "log", "wg0", "off")
    before = d.output()
    d.set("fwmark 5")
    s.ip("link set wg0 down")
    s.ip("link set wg0 up")
    time.sleep(0.3)
    equal(d.output(), before, "output after the log was switched off")
    node.run(sluice.path, "log", "wg0", "debug")
    d.set("listen-port 7777")
    s.ip("link set wg0 down")
    wait_until(lambda: d.output() != before, 3, "log lines after the log was switched on")
    check(node.run(sluice.path, "log", "wg0", "loud", ok=False).returncode != 0, "a bad directive was taken")
    check(node.run("sh", "-c", f"{sluice.path} log wg0 >/dev/full", ok=False).returncode == 1, "levels that were not written are no success")
    p = node.run(sluice.path, "\033[31mwg", ok=False)
    check(p.returncode == 1 and "\033" not in p.stdout, f"an escape reaches the terminal: {p.stdout!r}")


@case(ours=True)
def the_log_never_shows_a_key(sluice):
    t = Tunnel(sluice, sluice, peers=False, args_a=("--log", "debug"), args_b=("--log", "debug"))
    psk = genkey()
    t.connect()
    for x, y in ((t.a, t.b), (t.b, t.a)):
        x.daemon.set_preshared(y.public, psk)
    ping(t.n1, "10.0.0.2", count=3, data=b"\x5e\xc2\xe7")
    text = t.a.daemon.output() + t.b.daemon.output()
    check(text, "no log at all")
    for secret in (t.a.private, t.b.private, psk):
        check(secret not in text and hexkey(secret) not in text.lower(), "a secret key is in the log")
    check("5ec2e7" not in text.lower(), "payload is in the log")
    check(f"peer({t.b.public[:4]}...{t.b.public[39:43]})" in text and "?" not in text, f"names of peers are to be readable: {text}")


@case(ours=True)
def stats_are_json_and_count(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2", count=10)
    before = t.a.daemon.counters()
    ping(t.n1, "10.0.0.2", count=10)
    after = t.a.daemon.counters()
    check(any(after[k] >= before[k] + 10 for k in after if k in before), f"no counter moved: {after}")
    labels = set(re.findall(r'METRICS_DROP\(X, a, \w+, "(\w+)"', open(os.path.join(os.path.dirname(__file__), "../../core/base/metrics_table.h")).read()))
    check(len(labels) > 20 and labels <= set(after), f"drop reasons without a counter: {labels - set(after)}")
    check(t.a.node.out(sluice.path, "stats", "wg0").strip(), "sluice stats prints nothing")


def wg_quick(node, sluice, verb, conf, ok=True):
    # An `ip` that knows no kernel WireGuard, so that the userspace implementation is used everywhere.
    directory = os.path.dirname(conf)
    shim = os.path.join(directory, "ip")
    if not os.path.exists(shim):
        with open(shim, "w") as f:
            f.write('#!/bin/sh\ncase "$*" in *"type wireguard"*) exit 2 ;; esac\n'
                    'PATH=${PATH#*:} exec ip "$@"\n')
        os.chmod(shim, 0o755)
    return node.run("env", f"PATH={directory}:{os.environ['PATH']}:/usr/sbin:/sbin", f"WG_QUICK_USERSPACE_IMPLEMENTATION={sluice.path}", "wg-quick",
                    verb, conf, ok=ok)


@case(pairs=SELF)
def wg_quick_up_and_down(a, b):
    if os.path.exists("/sys/module/wireguard"):
        raise Skip("the kernel has WireGuard loaded, which wg-quick prefers")
    t = Tunnel(a, b, peers=False)
    t.a.daemon.stop()
    directory = tempfile.mkdtemp()
    conf = os.path.join(directory, "wgq0.conf")
    with open(conf, "w") as f:
        f.write(f"[Interface]\nPrivateKey = {t.a.private}\nListenPort = 51820\nAddress = 10.0.0.1/24, fd00::1/64\nMTU = 1380\n"
                f"[Peer]\nPublicKey = {t.b.public}\nEndpoint = 192.0.2.2:51821\nAllowedIPs = 10.0.0.2/32, fd00::2/128, 10.77.0.0/16\n"
                "PersistentKeepalive = 25\n")
    os.chmod(conf, 0o600)
    t.b.add_peer(t.a)
    t.n2.ip("addr add 10.77.0.1/32 dev lo")
    for _ in range(2):
        wg_quick(t.n1, a, "up", conf)
        wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 10, "reply through wg-quick's interface")
        ping(t.n1, "10.77.0.1", wait=3)
        link = t.n1.ip("link show wgq0")
        check("mtu 1380" in link, link)
        check(wg_quick(t.n1, a, "up", conf, ok=False).returncode != 0, "up twice")
        from lib import others

        pids = [pid for pid, command in others().items() if "wgq0" in command and a.path in command]
        check(len(pids) == 1, f"processes: {others()}")
        wg_quick(t.n1, a, "down", conf)
        wait_until(lambda: not alive(pids[0]), 5, "the end of the process")
        wait_until(lambda: not os.path.exists(t.n1.path("/run/wireguard/wgq0.sock")), 3, "the end of the socket")


def manual_unit():
    """The systemd unit of sluice(8)."""
    with open(os.path.join(ROOT, "core/sluice.8")) as f:
        return re.search(r"^\[Unit\]\n.*?(?=^\.Ed)", f.read(), re.M | re.S)[0]


@case(pairs=SELF, ours=True)
def the_unit_of_the_manual_sets_up_a_gateway_again_and_again(a, b):
    """On any kernel: it must not need wg-quick to choose sluice. Its commands are run as systemd would, one after the other has succeeded."""
    if not os.path.isdir("/etc/wireguard"):
        raise Skip("wireguard-tools has made no /etc/wireguard to hide")
    t = Tunnel(a, b, peers=False)
    t.a.daemon.stop()
    t.b.add_peer(t.a)
    t.n2.ip("addr add 10.77.0.1/32 dev lo")
    t.n1.sh("mount -t tmpfs -o mode=700 tmpfs /etc/wireguard")
    with open(t.n1.path("/etc/wireguard/wg0.conf"), "w") as f:
        f.write(f"[Interface]\nPrivateKey = {t.a.private}\nListenPort = 51820\nAddress = 10.0.0.1/24\nPostUp = false\n"
                f"[Peer]\nPublicKey = {t.b.public}\nEndpoint = 192.0.2.2:51821\nAllowedIPs = 10.0.0.2/32, 10.77.0.0/16\n")
    os.chmod(t.n1.path("/etc/wireguard/wg0.conf"), 0o600)
    unit = manual_unit()
    check("Type=forking\n" in unit and "Restart=on-failure\n" in unit, unit)
    commands = re.findall(r"^ExecStart(?:Post)?=(.*)$", unit, re.M)
    check(commands[0] == "sluice wg0" and len(commands) > 3, commands)
    t.n1.sh(f"mount -t tmpfs tmpfs /usr/local/bin && ln -s {a.path} /usr/local/bin/sluice")
    from lib import others

    for killed in (True, False):
        for command in commands:
            t.n1.sh(f"export PATH=/usr/local/bin:$PATH; {command}")
        wait_until(lambda: ping(t.n1, "10.0.0.2", ok=False, wait=1), 10, "reply through the interface of the unit")
        ping(t.n1, "10.77.0.1", wait=3)
        pids = [pid for pid, command in others().items() if command.split()[:2] == ["sluice", "wg0"]]
        check(len(pids) == 1, f"processes: {others()}")
        os.kill(pids[0], signal.SIGKILL if killed else signal.SIGTERM)
        wait_until(lambda: not alive(pids[0]) and not t.n1.has_link("wg0"), 5, "the end of process and interface")


@case(ours=True)
def the_unit_of_the_manual_is_a_good_one(sluice):
    import shutil
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not there")
    node = Node("alone")
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "sluice-wg0.service")
    node.sh(f"mount -t tmpfs tmpfs /usr/local/bin && ln -s {sluice.path} /usr/local/bin/sluice")
    for text, good in ((manual_unit(), True), (manual_unit().replace("Type=forking", "Typ=forking"), False)):
        with open(path, "w") as f:
            f.write(text)
        p = node.run("systemd-analyze", "verify", "--man=no", path, ok=False)
        check((p.returncode == 0 and "sluice-wg0" not in p.stdout) == good, p.stdout)


@case(pairs=SELF)
def wg_quick_default_route(a, b):
    import shutil
    if os.path.exists("/sys/module/wireguard"):
        raise Skip("the kernel has WireGuard loaded, which wg-quick prefers")
    if not (shutil.which("nft") or shutil.which("iptables")):
        raise Skip("wg-quick needs nft or iptables for a default route")
    t = Tunnel(a, b, peers=False)
    t.a.daemon.stop()
    directory = tempfile.mkdtemp()
    conf = os.path.join(directory, "wgq0.conf")
    with open(conf, "w") as f:
        f.write(f"[Interface]\nPrivateKey = {t.a.private}\nListenPort = 51820\nAddress = 10.0.0.1/24\n"
                f"[Peer]\nPublicKey = {t.b.public}\nEndpoint = 192.0.2.2:51821\nAllowedIPs = 0.0.0.0/0\n")
    os.chmod(conf, 0o600)
    t.b.add_peer(t.a)
    t.n2.ip("addr add 203.0.113.7/32 dev lo")
    wg_quick(t.n1, a, "up", conf)
    wait_until(lambda: ping(t.n1, "203.0.113.7", ok=False, wait=1), 10, "reply through the default route")
    wg_quick(t.n1, a, "down", conf)


@case()
def nothing_is_left_open(sluice):
    """Descriptors and memory do not grow with configuration changes."""
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2")
    d = t.a.daemon
    time.sleep(0.3)
    before = len(os.listdir(f"/proc/{d.pid}/fd"))
    for n in range(30):
        d.set("listen-port", 42000 + n, "fwmark", n)
        d.set("peer", pubkey(genkey()), f"allowed-ips 10.{n}.0.0/16")
    d.set("listen-port 51820 fwmark 0")
    ping(t.n1, "10.0.0.2", count=2)
    time.sleep(0.5)
    after = len(os.listdir(f"/proc/{d.pid}/fd"))
    check(after <= before + (0 if sluice.is_sluice else 4), f"descriptors: {before} before, {after} after")
