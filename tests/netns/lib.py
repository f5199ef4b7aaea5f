"""Network namespaces, veth pairs, WireGuard daemons and their control, for the end-to-end tests and for perf/.

Nothing here has a name that another process could see. sandbox() puts its caller into namespaces of processes, mounts and network of
its own; a Node is a process in a further network and mount namespace, in which /run is a private tmpfs, so that every daemon has its own
/run/wireguard and any interface may be called wg0. When the first process of a sandbox ends, the kernel ends all others, and with the last
one go the namespaces, the interfaces and the sockets: nothing is left behind, whatever happens.

Python's standard library, util-linux, iproute2 and wireguard-tools are all it needs.
"""

import base64
import ctypes
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
PR_SET_PDEATHSIG = 1
SOL_UDP = 17
UDP_SEGMENT = 103
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
IP_PMTUDISC_DO = 2

libc = ctypes.CDLL(None, use_errno=True)

# Sanitizers that print one of these have found something, whatever the exit status says.
SANITIZER_RE = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion .* failed")


class Failure(Exception):
    """A check of a test did not hold."""


class Skip(Exception):
    """The test cannot run here; the text says why."""


def check(condition, text):
    if not condition:
        raise Failure(text() if callable(text) else text)


def equal(got, want, what):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


def wait_until(condition, timeout, what, step=0.02):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < end, lambda: f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(step)


def _libc(name, *args):
    if getattr(libc, name)(*args) != 0:
        e = ctypes.get_errno()
        raise OSError(e, f"{name}: {os.strerror(e)}")


def sandbox(function):
    """Runs function() as process 1 of fresh process, mount and network namespaces, and returns its exit status.

    SIGINT, SIGTERM and SIGHUP of the caller reach it as KeyboardInterrupt. If the caller dies, so does all inside.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    watcher = os.fork()
    if watcher:
        return _forward(watcher)
    # Only children born after unshare(CLONE_NEWPID) are in the new namespace, so there is one more.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    status = 1
    try:
        _libc("unshare", CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET)
        first = os.fork()
        if first == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            _first_process(function)
        status = _forward(first)
    except OSError as e:
        print(f"cannot make namespaces: {e}", file=sys.stderr)
    finally:
        os._exit(status)


def _forward(pid):
    def pass_on(number, frame):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    old = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        while True:
            done, status = os.waitpid(pid, 0)
            if done == pid:
                return os.waitstatus_to_exitcode(status) % 256
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _interrupted(number, frame):
    raise KeyboardInterrupt


def _first_process(function):
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupted)
        _libc("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        _libc("mount", b"proc", b"/proc", b"proc", 0, None)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        status = function() or 0
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def run(args, input=None, timeout=30, ok=True, text=True):
    """subprocess.run with captured output; a failure shows command and output."""
    try:
        p = subprocess.run(args, input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, text=text,
                           stdin=subprocess.DEVNULL if input is None else None)
    except subprocess.TimeoutExpired as e:
        raise Failure(f"{shlex.join(map(str, args))}: not done after {timeout} s\n{e.stdout or ''}")
    if ok and p.returncode:
        raise Failure(f"{shlex.join(map(str, args))}: exit status {p.returncode}\n{p.stdout}")
    return p


NODE_SETUP = """
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/wireguard /run/netns /run/lock &&
{ mount -t sysfs sysfs /sys 2>/dev/null || true; } &&
ip link set lo up &&
{ echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad;
  echo 0 >/proc/sys/net/ipv6/conf/default/router_solicitations; echo 1 >/proc/sys/net/ipv4/conf/all/promote_secondaries; } 2>/dev/null; echo ready; exec sleep infinity
"""


class Node:
    """A host: a network namespace and a private /run, held by a sleeping process."""

    all = []
    entered = threading.local()  # where each thread came from

    def __init__(self, name):
        self.name = name
        Node.all.append(self)
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", NODE_SETUP], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.holder.stdout.readline()
        if line != "ready\n":
            rest = self.holder.communicate(timeout=5)[0]
            raise Failure(f"cannot make node {name}: {line}{rest}")
        self.pid = self.holder.pid
        self.enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "--"]

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()

    def run(self, *args, **kw):
        return run(self.enter + [str(a) for a in args], **kw)

    def out(self, *args, **kw):
        return self.run(*args, **kw).stdout

    def sh(self, script, **kw):
        return self.run("sh", "-ec", script, **kw)

    def popen(self, *args, env=None, **kw):
        return subprocess.Popen(self.enter + [str(a) for a in args], env={**os.environ, **(env or {})}, **kw)

    def ip(self, *args, **kw):
        return self.run("ip", *" ".join(map(str, args)).split(), **kw).stdout

    def has_link(self, ifname):
        return any(line.split(":")[0].strip() == ifname for line in self.proc("net/dev").splitlines())

    def path(self, path):
        """An absolute path as this node sees it."""
        return f"/proc/{self.pid}/root{path}"

    def proc(self, path):
        """A file below /proc/PID of this node, such as net/netstat."""
        with open(f"/proc/{self.pid}/{path}") as f:
            return f.read()

    def socket(self, *args):
        """A Python socket that lives in this node's network namespace."""
        with self:
            return socket.socket(*args)

    # `with node:` moves this thread into the node's network namespace.
    def __enter__(self):
        self.entered.back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _libc("setns", there, CLONE_NEWNET)
        finally:
            os.close(there)
        return self

    def __exit__(self, *exc):
        _libc("setns", self.entered.back, CLONE_NEWNET)
        os.close(self.entered.back)

    def tcp_ext(self, name):
        """One of the kernel's TCP counters, as nstat calls it without the prefix TcpExt."""
        lines = self.proc("net/netstat").splitlines()
        for names, values in zip(lines[::2], lines[1::2]):
            if names.startswith("TcpExt:"):
                return int(dict(zip(names.split(), values.split()))[name])
        raise KeyError(name)

    def tx_udp_segmentation(self, ifname, on):
        self.run("ethtool", "-K", ifname, "tx-udp-segmentation", "on" if on else "off")


def veth(a, ifa, b, ifb, addresses_a=(), addresses_b=(), mtu=1500):
    """A cable between two nodes. Addresses with their prefix length."""
    a.ip(f"link add {ifa} mtu {mtu} type veth peer name {ifb} mtu {mtu} netns {b.pid}")
    for node, ifname, addresses in ((a, ifa, addresses_a), (b, ifb, addresses_b)):
        for address in addresses:
            node.ip("addr add", address, "dev", ifname, "nodad" if ":" in address else "")
        node.ip(f"link set {ifname} up")


def genkey():
    k = bytearray(os.urandom(32))
    k[0] &= 248
    k[31] = (k[31] & 127) | 64
    return base64.b64encode(k).decode()


def pubkey(private):
    return run(["wg", "pubkey"], input=private).stdout.strip()


def stat_fields(pid):
    """The fields of /proc/PID/stat after the command name: [0] state, [1] parent, [11] and [12] user and system ticks."""
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()


def alive(pid):
    try:
        return stat_fields(pid)[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_seconds(pid):
    f = stat_fields(pid)
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


def status_kb(pid, field):
    """VmRSS or VmHWM of a process in KiB."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def context_switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/status") as f:
                total += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        except FileNotFoundError:
            pass
    return total


class Program:
    """A WireGuard implementation to run: how to start it, and what it can."""

    def __init__(self, name, path, foreground=("-f",), env=None):
        self.name, self.path, self.foreground, self.env = name, path, list(foreground), dict(env or {})
        self.is_sluice = os.path.basename(path) == "sluice"

    def __repr__(self):
        return self.name


class Daemon:
    """A running implementation in a node. Its output is kept and shown when a test fails."""

    all = []

    def __init__(self, node, program, ifname="wg0", args=(), background=False, env=None):
        self.node, self.program, self.ifname, self.args = node, program, ifname, [str(a) for a in args]
        self.env = {**program.env, **(env or {})}
        self.background = background
        self.log = tempfile.NamedTemporaryFile(prefix=f"{node.name}-{program.name}-", suffix=".log", mode="w+b", delete=False)
        self.process = None
        self.config = None
        Daemon.all.append(self)
        self.start()

    def start(self):
        argv = [self.program.path] + ([] if self.background else self.program.foreground) + self.args + [self.ifname]
        env = {k: v for k, v in os.environ.items() if k != "WG_PROCESS_FOREGROUND"}
        self.process = subprocess.Popen(self.node.enter + argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={**env, **self.env})
        self.pid = self.process.pid
        if self.background:
            check(self.process.wait(timeout=20) == 0, lambda: f"{argv} failed\n{self.output()}")
            self.pid = self.find()
        wait_until(lambda: self.answers() or self.ended(), 20, lambda: f"control socket of {self.ifname}\n{self.output()}")
        check(not self.ended(), lambda: f"{self.program.name} ended at once\n{self.output()}")

    def find(self):
        """The pid of the one that went to the background: in the node's network namespace, named like the program."""
        net = os.readlink(f"/proc/{self.node.pid}/ns/net")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    argv = f.read().split(b"\0")
                if argv[0].decode() == self.program.path and os.readlink(f"/proc/{pid}/ns/net") == net and alive(pid):
                    return int(pid)
            except (OSError, IndexError):
                pass
        raise Failure(f"{self.program.name} is not in the background\n{self.output()}")

    @property
    def socket_path(self):
        return self.node.path(f"/run/wireguard/{self.ifname}.sock")

    def connect(self, timeout=10):
        """A connection to the control socket."""
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(timeout)
        s.connect(self.socket_path)
        return s

    def answers(self):
        try:
            with self.connect(5) as s:
                s.sendall(b"get=1\n\n")
                return s.recv(65536) != b"" and self.node.has_link(self.ifname)
        except OSError:
            return False

    def uapi(self, request, timeout=10):
        """Sends a request as it is and returns the answer up to its empty line."""
        with self.connect(timeout) as s:
            s.sendall(request if isinstance(request, bytes) else request.encode())
            answer = b""
            while not answer.endswith(b"\n\n"):
                part = s.recv(1 << 20)
                if not part:
                    break
                answer += part
            return answer.decode()

    def ended(self):
        if self.background:
            return not alive(self.pid)
        return self.process.poll() is not None

    def wait_end(self, timeout=5, what="end of the process"):
        wait_until(self.ended, timeout, lambda: f"{what}\n{self.output()}")
        self.check_output()
        return None if self.background else self.process.returncode

    def stop(self, number=signal.SIGTERM, timeout=10):
        """Ends it and checks that it ended well."""
        if self.ended():
            return
        os.kill(self.pid, number)
        status = self.wait_end(timeout, f"end after signal {number}")
        # wireguard-go of some versions dies of the signal.
        check(status in (0, None) or not self.program.is_sluice, lambda: f"exit status {status}\n{self.output()}")

    def kill(self):
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            wait_until(self.ended, 5, "death")

    def restart(self):
        self.stop()
        self.start()

    def output(self):
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def check_output(self):
        text = self.output()
        check(not SANITIZER_RE.search(text), lambda: f"{self.program.name} in {self.node.name}:\n{text}")

    def wg(self, *args, input=None, **kw):
        """wg with words, e.g. d.wg('set', 'wg0', 'fwmark', 5). Without a subcommand of its own: `wg set IFNAME ...`."""
        return self.node.run("wg", *args, input=input, **kw)

    def set(self, *words, **kw):
        return self.wg("set", self.ifname, *" ".join(map(str, words)).split(), **kw)

    def set_private_key(self, private):
        return self.wg("set", self.ifname, "private-key", "/dev/stdin", input=private)

    def set_preshared(self, public, preshared):
        return self.wg("set", self.ifname, "peer", public, "preshared-key", "/dev/stdin", input=preshared)

    def dump(self):
        """`wg show IFNAME dump` as (interface dict, {public key: peer dict})."""
        lines = [line.split("\t") for line in self.wg("show", self.ifname, "dump").stdout.splitlines()]
        interface = dict(zip(("private_key", "public_key", "listen_port", "fwmark"), lines[0]))
        names = ("preshared_key", "endpoint", "allowed_ips", "latest_handshake", "rx", "tx", "keepalive")
        peers = {}
        for line in lines[1:]:
            p = dict(zip(names, line[1:]))
            for n in ("latest_handshake", "rx", "tx"):
                p[n] = int(p[n])
            peers[line[0]] = p
        return interface, peers

    def peer(self, public):
        return self.dump()[1].get(public)

    def stats(self):
        """`sluice stats IFNAME --json`."""
        return json.loads(self.node.run(self.program.path, "stats", self.ifname, "--json").stdout)

    def counters(self):
        """Every counter of stats() by its name, summed over threads."""
        total = {}

        def add(value):
            if isinstance(value, dict):
                for k, v in value.items():
                    if isinstance(v, int) and not isinstance(v, bool):
                        total[k] = total.get(k, 0) + v
                    else:
                        add(v)
            elif isinstance(value, list):
                for v in value:
                    add(v)

        add(self.stats())
        return total

    def counter(self, name):
        return self.counters()[name]


class Site:
    """One end of a tunnel: a node, a daemon, a key pair, inner addresses."""

    def __init__(self, node, program, inner, ifname="wg0", mtu=None, args=(), background=False, port=0, private=None):
        self.node, self.inner, self.ifname, self.mtu, self.port = node, list(inner), ifname, mtu, port
        self.private = private or genkey()
        self.public = pubkey(self.private)
        self.daemon = Daemon(node, program, ifname, args, background)
        self.up()

    def up(self):
        d = self.daemon
        d.set_private_key(self.private)
        if self.port:
            d.set("listen-port", self.port)
        if self.mtu:
            self.node.ip(f"link set {self.ifname} mtu {self.mtu}")
        for address in self.inner:
            self.node.ip("addr add", address, "dev", self.ifname, "nodad" if ":" in address else "")
        self.node.ip(f"link set {self.ifname} up")

    def add_peer(self, other, endpoint=None, allowed=None, *words):
        allowed = allowed or [a.split("/")[0] for a in other.inner]
        self.daemon.set("peer", other.public, f"endpoint {endpoint}" if endpoint else "", "allowed-ips", ",".join(allowed), *words)

    def restart(self, peers):
        """Ends the daemon and starts it again with the same configuration. peers: argument tuples of add_peer."""
        self.daemon.restart()
        self.up()
        for p in peers:
            self.add_peer(*p)


class Tunnel:
    """Two nodes, a cable, a daemon at each end, and a session between them as far as the caller wants.

    Outer addresses 192.0.2.1/2 and 2001:db8::1/2; inner 10.0.0.1/2 and fd00::1/2.
    """

    def __init__(self, a, b, outer=4, mtu=None, args_a=(), args_b=(), background=False, peers=True):
        self.n1, self.n2 = Node("left"), Node("right")
        veth(self.n1, "eth0", self.n2, "eth0", ("192.0.2.1/24", "2001:db8::1/64"), ("192.0.2.2/24", "2001:db8::2/64"))
        self.a = Site(self.n1, a, ("10.0.0.1/24", "fd00::1/64"), mtu=mtu, args=args_a, background=background, port=51820)
        self.b = Site(self.n2, b, ("10.0.0.2/24", "fd00::2/64"), mtu=mtu, args=args_b, background=background, port=51821)
        self.outer = outer
        if peers:
            self.connect()

    def endpoint(self, side):
        host = {4: "192.0.2.{}", 6: "[2001:db8::{}]"}[self.outer].format(1 if side is self.a else 2)
        return f"{host}:{side.port}"

    def connect(self):
        self.a.add_peer(self.b, self.endpoint(self.b))
        self.b.add_peer(self.a, self.endpoint(self.a))


def ping(node, to, count=1, size=56, wait=3, interval=0.02, ok=True, df=False, tos=0, data=None):
    """Sends ICMP echo requests of `size` bytes of data and returns how many were answered with the same data, up to `wait` seconds after the last.

    ping(8) is no judge of loss: it waits for a late answer no longer than an interval or two round trips.
    """
    v6 = ":" in to
    data = (data * size)[:size] if data else os.urandom(size)
    ident = os.urandom(2)
    requests = {n: ident + struct.pack("!H", n) + data for n in range(1, count + 1)}
    s = node.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) if v6 else node.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with s:
        if df:
            s.setsockopt(*((socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if v6 else (socket.IPPROTO_IP, IP_MTU_DISCOVER)), IP_PMTUDISC_DO)
        if tos:
            s.setsockopt(*((socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if v6 else (socket.IPPROTO_IP, socket.IP_TOS)), tos)
        left, refused = dict(requests), 0

        def collect(until):
            while left and (time.monotonic() < until):
                s.settimeout(max(until - time.monotonic(), 0.001))
                try:
                    answer = s.recv(70000)
                except OSError:  # nothing yet, or an ICMP error
                    continue
                icmp = answer if v6 else answer[(answer[0] & 15) * 4:]
                if icmp[:1] == (b"\x81" if v6 else b"\0"):
                    n = int.from_bytes(icmp[6:8], "big")
                    if left.get(n) == icmp[4:]:
                        del left[n]

        for n, body in requests.items():
            try:
                s.sendto(b"\x80\0\0\0" + body if v6 else b"\x08\0" + checksum(b"\x08\0\0\0" + body) + body, (to, 0))
            except OSError:
                refused += 1
            collect(time.monotonic() + interval)
        if refused < count:
            collect(time.monotonic() + wait)
    got = count - len(left)
    if ok:
        check(got == count, f"ping {to} from {node.name}, {size} bytes: {got} of {count} answered, {refused} not sent, not answered: {list(left)}")
    return got


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", total ^ 0xFFFF)


def listening(node, port):
    """Whether a TCP socket of the node listens on a port."""
    for table in ("net/tcp", "net/tcp6"):
        for line in node.proc(table).splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                return True
    return False


class IperfServer:
    """`with IperfServer(node):` has an iperf3 server there."""

    def __init__(self, node, port=5201):
        self.node, self.port = node, port

    def __enter__(self):
        self.process = self.node.popen("iperf3", "-s", "-p", self.port, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: listening(self.node, self.port), 5, "iperf3 server")
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()


def iperf(node, to, seconds, *extra):
    """Runs an iperf3 client and returns the end section of its report."""
    p = node.run("iperf3", "-J", "-c", to, "-t", seconds, *extra, ok=False, timeout=seconds + 30)
    try:
        report = json.loads(p.stdout)
    except ValueError:
        raise Failure(f"iperf3: {p.stdout}")
    check("error" not in report and report["end"], f"iperf3: {report.get('error', p.stdout)}")
    return report["end"]


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(node, address="", port=0, v6=None, timeout=3):
    """A bound UDP socket in the node."""
    s = node.socket(socket.AF_INET6 if (v6 if v6 is not None else ":" in address) else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(timeout)
    s.bind((address, port))
    return s


def raw_capture(node, ifname):
    """A packet socket that sees everything on an interface of the node."""
    s = node.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    with node:
        s.bind((ifname, 3))
    s.settimeout(0.2)
    return s


def udp_of_frame(frame):
    """(IP header as bytes, source port, destination port, UDP payload) of an Ethernet frame, or None."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        ihl = (frame[14] & 15) * 4
        if frame[23] != 17:
            return None
        ip, rest = frame[14:14 + ihl], frame[14 + ihl:]
    elif kind == b"\x86\xdd":
        if frame[20] != 17:
            return None
        ip, rest = frame[14:54], frame[54:]
    else:
        return None
    sport, dport, length = struct.unpack("!HHH", rest[:6])
    return ip, sport, dport, rest[8:length] if length else rest[8:]


def traffic_class(ip):
    return ip[1] if ip[0] >> 4 == 4 else ((ip[0] & 15) << 4) | (ip[1] >> 4)


def gather(capture, seconds, wanted=None, want=1):
    """UDP packets seen by a capture in that time, or until `want` of them satisfy wanted()."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            u = udp_of_frame(capture.recv(70000))
        except (socket.timeout, BlockingIOError):
            continue
        if u and (wanted is None or wanted(u)):
            found.append(u)
            if wanted is not None and len(found) >= want:
                break
    return found


def others():
    """Living processes of this sandbox besides the first, as {pid: command}."""
    left = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid != "1" and alive(pid):
            try:
                with open(f"/proc/{pid}/cmdline") as f:
                    left[int(pid)] = f.read().replace("\0", " ")
            except OSError:
                pass
    return left


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_daemons():
    """Ends what the test has not ended itself, and checks that it ends well and says nothing bad."""
    for d in Daemon.all:
        d.stop()
        d.check_output()


def show_logs():
    for d in Daemon.all:
        # Without the banner of wireguard-go.
        lines = [line for line in d.output().splitlines() if line.strip() and line.strip()[0] not in "┌│└"]
        print(f"--- {d.program.name} {d.ifname} in {d.node.name}" + (":" if lines else ": no output"))
        print("\n".join(lines[-200 if d.program.is_sluice else -8:]))
        if d.program.is_sluice and not d.ended():
            try:
                print("counters: " + ", ".join(f"{k} {v}" for k, v in sorted(d.counters().items()) if v))
                print(d.wg("show", d.ifname).stdout)
            except (Failure, ValueError) as e:
                print(f"no counters: {e}")


def left_behind():
    """What still lives when the daemons have been ended and the nodes closed: nothing, in a good test."""
    for node in Node.all:
        node.close()
    end = time.monotonic() + 2
    while others() and time.monotonic() < end:
        time.sleep(0.02)
    return others()
