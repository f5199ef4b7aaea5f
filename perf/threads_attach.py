"""A sluice that runs already: which process it is, how it is started anew with another N, and the user's own traffic over it."""

import json
import os
import signal
import socket
import struct
import subprocess
import time

import compare  # first: it makes lib known
import evidence
import lib

SOCKETS = "/var/run/wireguard"
START_SECONDS = 30


class Missing(lib.Failure):
    """No sluice serves that interface, or it may not be looked at."""


def pid_of(ifname):
    """The process that serves an interface: the one that listens on its control socket."""
    path = f"{SOCKETS}/{ifname}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        try:
            s.connect(path)
        except PermissionError:
            raise Missing(f"{path}: permission denied; run it as root")
        except OSError as e:
            there = sorted(f[:-5] for f in os.listdir(SOCKETS) if f.endswith(".sock")) if os.path.isdir(SOCKETS) else []
            raise Missing(f"no sluice serves {ifname} here ({path}: {e.strerror})"
                          + (f"; there are sockets of: {' '.join(there)}" if there else "; in another network namespace? ip netns exec NAME ..."))
        pid = struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    check_sluice(pid)
    return pid


def check_sluice(pid):
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except FileNotFoundError:
        raise Missing(f"there is no process {pid}")
    except PermissionError:
        raise Missing(f"process {pid} belongs to another user; run it as root")
    if program != "sluice":
        raise Missing(f"process {pid} is {program}, not sluice")


def tun_threads(pid):
    return sum(name.startswith("tun-rx") for name in thread_names(pid))


def thread_names(pid):
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm") as f:
                names.append(f.read().strip())
        except FileNotFoundError:
            pass
    return names


def crossed(pid, ifname):
    """Bytes received and sent over an interface, in the network namespace of a process."""
    with open(f"/proc/{pid}/net/dev") as f:
        for line in f:
            name, _, counters = line.partition(":")
            if name.strip() == ifname:
                fields = counters.split()
                return int(fields[0]) + int(fields[8])
    raise lib.Failure(f"there is no interface {ifname}")


class Gateway:
    """The running gateway of an interface, and the command that starts it anew with {N} threads."""

    def __init__(self, ifname, restart):
        self.ifname, self.restart = ifname, restart
        self.pid = pid_of(ifname)
        self.first = tun_threads(self.pid)

    def stats(self):
        p = subprocess.run([f"/proc/{self.pid}/exe", "stats", self.ifname, "--json"], capture_output=True, text=True, timeout=10)
        lib.check(p.returncode == 0, lambda: f"sluice stats {self.ifname}: {p.stderr.strip()}")
        return json.loads(p.stdout)

    def start(self, n):
        command = self.restart.replace("{N}", str(n))
        old = self.pid
        # Output to a file: what the command leaves in the background must not hold a pipe of ours open.
        p = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            status = p.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            end_group(p)
            raise lib.Failure(f"the restart command has not ended after {START_SECONDS} s; it must leave the gateway in the background: {command}")
        lib.check(status == 0, f"the restart command ended with status {status}: {command}")
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.pid = pid_of(self.ifname)
                break
            except Missing as e:
                lib.check(time.monotonic() < end, lambda: f"{e}, {START_SECONDS} s after: {command}")
                time.sleep(0.1)
        lib.check(self.pid != old, f"the gateway is still the process that it was ({old}) after: {command}")
        got = tun_threads(self.pid)
        lib.check(got == n, f"the restart command started a gateway with {got} TUN threads instead of {n}: {command}")

    def bytes(self):
        return crossed(self.pid, self.ifname)


def end_group(p):
    try:
        os.killpg(p.pid, signal.SIGTERM)
        p.wait(timeout=3)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
    p.wait()


def traffic(gateway, argv):
    """Runs the user's command. Throughput is what iperf3 -J says, or what crossed the interface (both directions) while it ran."""
    before, start = gateway.bytes(), time.monotonic()
    try:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                             start_new_session=True)
    except OSError as e:
        raise Missing(f"cannot run {argv[0]}: {e.strerror}")
    try:
        text = p.communicate()[0]
    finally:
        if p.returncode is None:
            end_group(p)
    seconds, crossed = time.monotonic() - start, gateway.bytes() - before
    report = parsed(text)
    # iperf3's own word first: it exits with 1 and says why.
    lib.check("error" not in report, lambda: f"{argv[0]}: {report['error']}")
    lib.check(p.returncode == 0, lambda: f"{argv[0]} ended with status {p.returncode}: {(text.strip().splitlines() or ['no output'])[-1]}")
    end = report.get("end", {})
    if not compare.received(end) and "sum" in end:  # an iperf3 that has only one sum
        end = {"sum_received": end["sum"]}
    if any(x["bytes"] for x in compare.received(end)):
        return {**compare.iperf_result([end]), "from": "iperf3"}
    lib.check(crossed > 0, f"nothing crossed {gateway.ifname} while {argv[0]} ran")
    return {"gbit_s": crossed * 8 / seconds / 1e9, "bytes": crossed, "from": "interface"}


def parsed(text):
    try:
        report = json.loads(text)
        return report if isinstance(report, dict) else {}
    except ValueError:
        return {}


def run(gateway, argv):
    """One measurement, like threads_load.run()."""
    import threads_load

    probe = threads_load.Probe([gateway.pid], [gateway.stats], [gateway.pid])
    others = evidence.Others(lambda: evidence.family_seconds(gateway.pid))
    got = traffic(gateway, argv)
    load = others.stop()
    return {**probe.stop(got["bytes"]), **got, **load, "cipher": evidence.cipher_of_process(gateway.pid)}
