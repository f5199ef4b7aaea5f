"""sluice stats: totals, rates, JSON, watching."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

from cases import case
from lib import Tunnel, check, genkey, ping, pubkey, wait_until

THREADS = ("tun-rx0", "tun-rx1", "state", "udp-tx", "udp-rx", "tun-tx0", "tun-tx1")
BOUNDS = ["0"] + [str(2**i) for i in range(11)] + ["inf"]
# The histograms of each kind of thread, and the counter that their buckets add up to.
HISTOGRAMS = {"tun-rx": {"train_packets": "trains"}, "state": {"train_segments": "trains", "queue_seen": None},
              "udp-tx": {"gso_segments": "messages", "queue_seen": None}, "udp-rx": {"gro_segments": "messages"},
              "tun-tx": {"view_segments": "views", "frame_packets": "frames", "queue_seen": None}}
KEYS = {"tun-rx": {"trains", "stalls", "reads", "read_packets", "read_bytes", "polls", "trains_in_flight", "trains_capacity"},
        "state": {"trains", "packets", "segments", "bytes"}, "udp-tx": {"calls", "messages", "batches", "datagrams", "bytes", "gso_fallbacks"},
        "udp-rx": {"calls", "messages", "datagrams", "bytes", "polls"}, "tun-tx": {"views", "segments", "packets", "bytes", "frames", "writes"}}
COMMON = {"cpu_ns", "syscalls", "parks", "wakes", "wakes_given"}
QUEUE = {"queue_len", "queue_capacity", "queue_high_water", "queue_refused"}
RATES = {"cpu_percent", "packets_per_s", "bits_per_s", "trains_per_s", "packets_per_train", "syscalls_per_s", "wakes_per_s", "wakes_given_per_s",
         "parks_per_s"}


def kind(thread):
    return thread.rstrip("0123456789")


def check_totals(s, interface="wg0"):
    check(s["interface"] == interface, s["interface"])
    check(s["process"]["time_ns"] > 0 and s["process"]["cpu_ns"] > 0, s["process"])
    check(set(s["threads"]) == set(THREADS) | {"control"}, f"threads: {list(s['threads'])}")
    for name in THREADS:
        t, k = s["threads"][name], kind(name)
        wanted = KEYS[k] | COMMON | set(HISTOGRAMS[k]) | (QUEUE if k in ("state", "udp-tx", "tun-tx") else set())
        check(wanted <= set(t), f"{name} lacks {wanted - set(t)}")
        for h, total in HISTOGRAMS[k].items():
            check(list(t[h]) == BOUNDS, f"{name} {h}: {t[h]}")
            if total:
                check(sum(t[h].values()) == t[total], f"{name} {h}: {t[h]} for {t[total]} {total}")
        check(all(v >= 0 for v in t.values() if isinstance(v, int)), t)
    check(all(isinstance(v, int) for v in s["drops"].values()) and len(s["drops"]) > 30, s["drops"])


def stats(t, *args, ok=True):
    return t.a.node.run(t.a.daemon.program.path, "stats", "wg0", *args, ok=ok)


def in_node(node, *command):
    return node.popen(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@case(ours=True)
def stats_histograms_add_up(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2", count=20, interval=0.02)
    s = json.loads(stats(t, "--json").stdout)
    check_totals(s)
    threads = s["threads"]
    check(sum(threads[f"tun-rx{i}"]["read_packets"] for i in (0, 1)) >= 20, threads)
    check(threads["state"]["segments"] >= 20 and threads["udp-tx"]["datagrams"] >= 20, threads)
    check(sum(int(b) * n for b, n in threads["udp-tx"]["gso_segments"].items() if b != "inf") >= threads["udp-tx"]["datagrams"], threads["udp-tx"])
    check(threads["state"]["wakes"] > 0 and sum(threads[f"tun-rx{i}"]["wakes_given"] for i in (0, 1)) > 0, "nobody was woken")
    check(sum(t["cpu_ns"] for t in threads.values()) <= s["process"]["cpu_ns"] * 1.1, "threads used more than the process")
    check("interval" not in s and "bottleneck" not in s, "rates without an interval")


@case(ours=True)
def stats_shows_peers_as_wg_does_and_no_secret(sluice):
    t = Tunnel(sluice, sluice)
    t.a.daemon.set("peer", t.b.public, "persistent-keepalive 25")
    ping(t.n1, "10.0.0.2", count=3)
    _, peers = t.a.daemon.dump()
    text, document = stats(t).stdout, stats(t, "--json").stdout
    (p,) = json.loads(document)["peers"]
    w = peers[t.b.public]
    check(p["public_key"] == t.b.public and p["endpoint"] == w["endpoint"], p)
    check(set(p["allowed_ips"]) == set(w["allowed_ips"].split(",")), p)
    check(p["latest_handshake"] == w["latest_handshake"] and p["persistent_keepalive"] == 25, p)
    check(p["rx_bytes"] >= w["rx"] > 0 and p["tx_bytes"] >= w["tx"] > 0, (p, w))
    for word in (f"peer: {t.b.public}", f"endpoint: {w['endpoint']}", "latest handshake:", "persistent keepalive: every 25 seconds"):
        check(word in text, f"{word} is not in {text}")
    for secret in (t.a.private, t.b.private):
        check(secret not in text + document and bytes_hex(secret) not in (text + document).lower(), "a secret key is shown")


def bytes_hex(key):
    import base64

    return base64.b64decode(key).hex()


@case(ours=True)
def stats_begin_with_state_port_and_public_key(sluice):
    t = Tunnel(sluice, sluice)
    ping(t.n1, "10.0.0.2", count=20, interval=0.02)
    s, text = json.loads(stats(t, "--json").stdout), stats(t).stdout
    interface, _ = t.a.daemon.dump()
    port = s["process"]["listen_port"]
    check(s["state"] == "up" and s["public_key"] == t.a.public == interface["public_key"], (s["state"], s["public_key"], interface))
    check(port == int(interface["listen_port"]) and s["process"]["port_bound"] == 1 and s["process"]["uptime_ns"] > 0, s["process"])
    check(text.startswith(f"interface: wg0\n  state: up\n  public key: {t.a.public}\n  listening port: {port}\n  uptime: "), text)
    for what in ("received", "sent"):
        m = re.search(rf"^  {what}: (\d+) packets, [\d.]+ k?B \(\d+ packets/s, [\d.]+ Mbit/s since the start\)$", text, re.M)
        check(m and int(m[1]) >= 20, text)
    check(len([line for line in text.split("\n") if re.match(r"(tun-[rt]x\d|state|udp-[rt]x|control) +[\d.]+ s", line)]) == len(THREADS) + 1, text)
    check(re.search(r"^tun-rx0\n +trains +\d+$", stats(t, "--all").stdout, re.M), "--all does not print every counter")
    t.a.node.run("ip", "link", "set", "wg0", "down")
    t.a.node.run("ping", "-c1", "-W1", "10.0.0.2", ok=False)
    check(json.loads(stats(t, "--json").stdout)["state"] == "down", "it is down")
    check("  state: down; to set it up: ip link set wg0 up\n" in stats(t).stdout, stats(t).stdout)
    # Its port is taken meanwhile.
    with t.a.node.popen("python3", "-c", f"import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', {port})); print(flush=True); time.sleep(60)",
                        stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        t.a.node.run("ip", "link", "set", "wg0", "up")
        end = time.monotonic() + 5
        while json.loads(stats(t, "--json").stdout)["state"] != "unbound" and time.monotonic() < end:
            time.sleep(0.05)
        text = stats(t).stdout
        holder.kill()
    check("  state: up, but without its UDP port" in text and f"  listening port: {port} (not bound)\n" in text, text)


@case(ours=True)
def stats_and_ps_call_threads_the_same(sluice):
    t = Tunnel(sluice, sluice)
    pid = t.a.daemon.pid

    def name(task):
        with open(f"/proc/{pid}/task/{task}/comm") as f:
            return f.read().strip()

    # The first thread's name is what killall looks for.
    check(name(pid) == os.path.basename(sluice.path)[:15], name(pid))
    shown = set(json.loads(stats(t, "--json").stdout)["threads"])
    names = [name(task) for task in os.listdir(f"/proc/{pid}/task") if int(task) != pid]
    check(sorted(names) == sorted(shown - {"control"} | {"log", "rcu"}), (names, shown))


@case(ours=True)
def stats_of_an_interval_name_the_stage(sluice):
    t = Tunnel(sluice, sluice)
    idle = json.loads(stats(t, "--json", "--interval", "0.3").stdout)
    check_totals(idle)
    check(0.25 < idle["interval"]["seconds"] < 5, idle["interval"])
    check(set(idle["interval"]["threads"]) == set(THREADS) | {"control"}, idle["interval"])
    check(all(set(r) == RATES for r in idle["interval"]["threads"].values()), idle["interval"])
    load = in_node(t.n1, "ping", "-f", "-q", "-w", 4, "10.0.0.2")
    busy = json.loads(stats(t, "--json", "--interval", "1").stdout)
    text = stats(t, "--interval", "0.5").stdout
    load.communicate()
    r = busy["interval"]["threads"]
    check(r["state"]["packets_per_s"] > 100, r)
    # Not the state thread's own: on few CPUs a reader of TUN does its work inline.
    check(sum(r[t]["cpu_percent"] for t in THREADS) > 0, r)
    check(set(busy["bottleneck"]) == {"stage", "sentence"}, busy["bottleneck"])
    check(re.fullmatch(r"[A-Za-z][^\n]+\.", busy["bottleneck"]["sentence"]), busy["bottleneck"])
    check(busy["bottleneck"]["stage"] in (None, "machine", "others", "network", "control") + THREADS, busy["bottleneck"])
    check("idle" not in busy["bottleneck"]["sentence"], busy["bottleneck"])
    for thread in THREADS:
        check(re.search(rf"^{thread} +\d", text, re.M), text)
    check(re.search(r"(saturated|falls behind|No stage|Other work)[^\n]*\.\n", text), text)


@case(ours=True)
def stats_tell_an_interface_that_is_down_and_a_port_that_is_not_bound(sluice):
    t = Tunnel(sluice, sluice)

    def judged():
        d = json.loads(stats(t, "--json", "--interval", "0.2").stdout)
        return d["bottleneck"]["stage"], d["bottleneck"]["sentence"], {k: d["process"][k] for k in ("interface_up", "port_bound", "listen_port")}

    stage, sentence, state = judged()
    check(stage is None and "idle" in sentence, sentence)
    check(state == {"interface_up": 1, "port_bound": 1, "listen_port": t.a.port}, state)
    t.n1.ip("link", "set", "wg0", "down")
    wait_until(lambda: judged()[0] == "interface", 5, "the interface is told to be down")
    _, sentence, state = judged()
    check(sentence == "The interface is down, so nothing is sent or received.", sentence)
    check(state == {"interface_up": 0, "port_bound": 0, "listen_port": t.a.port}, state)
    with t.n1.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", t.a.port))
        t.n1.ip("link", "set", "wg0", "up")
        wait_until(lambda: judged()[0] == "port", 5, "the port is told to be taken")
        _, sentence, state = judged()
        check(sentence.startswith(f"The interface is up but UDP port {t.a.port} is not bound, so nothing"), sentence)
        check(sentence in stats(t, "--interval", "0.2").stdout, sentence)
        check(state == {"interface_up": 1, "port_bound": 0, "listen_port": t.a.port}, state)
    t.a.daemon.set("listen-port", t.a.port)
    check(judged()[0] is None, judged())


@case(ours=True)
def stats_watched_as_json_lines_until_interrupted(sluice):
    t = Tunnel(sluice, sluice)
    p = in_node(t.a.node, sluice.path, "stats", "wg0", "--watch", "--json", "--interval", "0.2")
    lines = [p.stdout.readline() for _ in range(3)]
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=5)
    check(p.returncode == 0 and not err, (p.returncode, err))
    documents = [json.loads(line) for line in lines]
    for d in documents:
        check_totals(d)
        check(d["interval"]["seconds"] < 2 and d["bottleneck"]["sentence"], d["interval"])
    times = [d["process"]["time_ns"] for d in documents]
    check(times == sorted(set(times)), times)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, node, *command, term="xterm", rows=40, columns=132):
        self.fd, slave = pty.openpty()
        self.resize(rows, columns)
        # It must be the controlling terminal for the kernel to tell of a new size.
        self.process = node.popen("setsid", "--ctty", "env", f"TERM={term}", *command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition(self.text) and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode()
                except OSError:
                    break
        check(condition(self.text), repr(self.text))


@case(ours=True)
def stats_watch_refreshes_in_place_and_ends_on_interrupt(sluice):
    t = Tunnel(sluice, sluice)
    # Lower than the frame and narrower than its rows.
    term = Terminal(t.a.node, sluice.path, "stats", "wg0", "--watch", "--interval", "0.2", rows=8, columns=50)
    term.read_until(lambda s: s.count("thread") >= 3, 10)
    term.process.send_signal(signal.SIGINT)
    check(term.process.wait(5) == 0, "status of an interrupted watch")
    frames = re.split(r"\r\x1b\[J", term.text)[1:]
    check(len(frames) >= 3, repr(term.text))
    for f in frames[:-1]:
        *rows, up = f.split("\r\n")
        check(up == f"\x1b[{len(rows)}A" and 4 <= len(rows) <= 7 and all(len(r) < 50 for r in rows), (rows, up))


@case(ours=True)
def stats_watch_fits_the_terminal_and_follows_its_size(sluice):
    t = Tunnel(sluice, sluice)
    for i in range(39):
        t.a.daemon.set("peer", pubkey(genkey()), "allowed-ips", f"10.1.0.{i + 1}/32")
    term = Terminal(t.a.node, sluice.path, "stats", "wg0", "--watch", "--interval", "0.3", rows=24, columns=80)
    load = in_node(t.n1, "ping", "-f", "-q", "-w", 6, "10.0.0.2")

    def frames():
        return [f.split("\r\n") for f in re.split(r"\r\x1b\[J", term.text)[1:-1]]

    def check_frame(frame, rows, columns):
        *lines, after = frame
        check(after in (f"\x1b[{len(lines)}A", "\x1b[H"), frame)
        check(len(lines) < rows and all(len(line) < columns for line in lines), frame)

    term.read_until(lambda s: len(frames()) >= 4, 10)
    for frame in frames():
        check_frame(frame, 24, 80)
        check(len(frame) == 24, frame)
        summary = " ".join(frame[:4])
        check(re.search(r"(saturated|falls behind|idle|Other work|No stage)[^.]*\.", summary), summary)
        check(any(re.match(r"thread +cpu% +packets/s +Mbit/s", line) for line in frame), frame)
        check(any(re.fullmatch(r"and \d+ more, [0-9.]+ Mbit/s", line) for line in frame), frame)
    # The peer that has the traffic comes first.
    last = frames()[-1]
    check(last[[line.startswith("peer") for line in last].index(True) + 1].startswith(t.b.public), last)
    for rows, columns in ((15, 60), (50, 132)):
        nr = len(frames())
        term.resize(rows, columns)
        term.read_until(lambda s: len(frames()) >= nr + 3, 10)
        # The first of these may have been on its way.
        for frame in frames()[nr + 1:]:
            check_frame(frame, rows, columns)
        check("\x1b[H\r\x1b[J" in term.text, repr(term.text))
        check(any("wakes_given/s" in line for line in frames()[-1]) == (columns == 132), frames()[-1])
    term.process.send_signal(signal.SIGINT)
    check(term.process.wait(5) == 0, "status of an interrupted watch")
    load.communicate()


@case(ours=True)
def stats_watch_repaints_at_once_when_the_terminal_changes(sluice):
    t = Tunnel(sluice, sluice)
    # A whole interval must pass before there is something to repaint.
    term = Terminal(t.a.node, sluice.path, "stats", "wg0", "--watch", "--interval", "4", rows=24, columns=80)
    term.read_until(lambda s: "handshake" in s, 10)
    start = time.monotonic()
    term.resize(20, 60)
    term.read_until(lambda s: s.count("handshake") >= 2, 3)
    check(time.monotonic() - start < 2, "it waited for the next interval")
    term.process.send_signal(signal.SIGTERM)
    check(term.process.wait(5) == 0, "status of a terminated watch")


@case(ours=True)
def stats_watch_on_a_terminal_that_cannot_move_its_cursor(sluice):
    t = Tunnel(sluice, sluice)
    term = Terminal(t.a.node, sluice.path, "stats", "wg0", "--watch", "--interval", "0.1", term="dumb")
    term.read_until(lambda s: s.count("thread") >= 2, 10)
    check("\x1b" not in term.text, repr(term.text))
    term.process.send_signal(signal.SIGTERM)
    check(term.process.wait(5) == 0, "status of a terminated watch")


@case(ours=True)
def stats_watch_ends_with_the_gateway(sluice):
    t = Tunnel(sluice, sluice)
    p = in_node(t.a.node, sluice.path, "stats", "wg0", "--watch", "--interval", "60")
    time.sleep(0.5)
    check(p.poll() is None, "it ended at once")
    t.a.daemon.stop()
    out, err = p.communicate(timeout=5)
    check(p.returncode == 0 and b"wg0 has ended" in encoded(err), (p.returncode, err))


@case(ours=True)
def stats_interval_fails_when_the_gateway_ends_meanwhile(sluice):
    t = Tunnel(sluice, sluice)
    p = in_node(t.a.node, sluice.path, "stats", "wg0", "--interval", "60")
    time.sleep(0.5)
    t.a.daemon.stop()
    out, err = p.communicate(timeout=5)
    check(p.returncode == 1 and b"wg0 has ended meanwhile" in encoded(err) and not out, (p.returncode, out, err))


def encoded(text):
    return text.encode() if isinstance(text, str) else text


@case(ours=True)
def stats_refuses_wrong_arguments(sluice):
    t = Tunnel(sluice, sluice, peers=False)
    for args, word in ((("--interval", "0"), "0.1"), (("--interval", "x"), "number of seconds"), (("--interval",), "value"),
                       (("--fast",), "unknown option"), (("--watch=1",), "takes no value"), (("wg1",), "unexpected")):
        p = stats(t, *args, ok=False)
        check(p.returncode == 1 and word in p.stdout and p.stdout.count("\n") == 1, (args, p.returncode, p.stdout))
    for args in ((), ("--watch",), ("--json",), ("--interval", "1")):
        p = t.a.node.run(sluice.path, "stats", "nosuch0", *args, ok=False)
        check(p.returncode == 1 and "no sluice serves nosuch0" in p.stdout and p.stdout.count("\n") == 1, (args, p.returncode, p.stdout))
