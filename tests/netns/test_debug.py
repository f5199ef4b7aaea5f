"""gdb on a running sluice and on its cores: perf/gdb/sluice.py."""

import base64
import os
import re
import shutil
import tempfile

from cases import case
from lib import ROOT, Skip, Tunnel, check, equal, genkey, ping, run

SCRIPT = os.path.join(ROOT, "perf", "gdb", "sluice.py")


def gdb(*arguments, ok=True):
    """The output of gdb in batch mode."""
    return run(["gdb", "-q", "-batch", "-nx", *map(str, arguments)], timeout=60, ok=ok).stdout


def section(text, title):
    """{first word: other words} of the rows that are printed below a title."""
    m = re.search(rf"^{title}\n(?:  .*\n)((?:  .*\n)*)", text + "\n", re.M)
    check(m, f"no {title} in:\n{text}")
    return {line.split()[0]: line.split()[1:] for line in m[1].splitlines()}


def keys_in(what, secrets):
    """Names of the secrets that stand in what gdb wrote, as it is or in any common form."""
    found = []
    for name, secret in secrets.items():
        raw = base64.b64decode(secret)
        forms = (raw, secret.strip("=").encode(), raw.hex().encode(), ", ".join(str(b) for b in raw).encode())
        if any(f in what for f in forms):
            found.append(name)
    return found


@case(ours=True, timeout=90)
def gdb_shows_peers_rings_pools_and_batons(program):
    if not shutil.which("gdb"):
        raise Skip("gdb is not there")
    with open(program.path, "rb") as f:
        if b"__asan_init" in f.read():
            raise Skip("address sanitizer's shadow does not fit into a core")
    t = Tunnel(program, program)
    secrets = {"private key": t.a.private, "preshared key": genkey()}
    t.a.daemon.set_preshared(t.b.public, secrets["preshared key"])
    t.b.daemon.set_preshared(t.a.public, secrets["preshared key"])
    equal(ping(t.n1, "10.0.0.2", 5), 5, "answers before")
    daemon = t.a.daemon

    # Live, on all that there is.
    text = gdb("-p", daemon.pid, "-x", SCRIPT, "-ex", "sluice")
    equal(keys_in(text.encode(), secrets), [], "secrets shown")
    peers, rings, pools = section(text, "peers"), section(text, "rings"), section(text, "pools")
    batons, parks = section(text, "batons"), section(text, "parks")
    equal(list(peers), [t.b.public], "peers")
    columns = peers[t.b.public]
    equal(columns[0], t.endpoint(t.b), "endpoint")
    check(re.fullmatch(r"tun-tx[01]", columns[1]), f"owner {columns[1]}")
    check(re.fullmatch(r"[0-9a-f]{8}", columns[3]), f"current session {columns[3]}")
    told = daemon.peer(t.b.public)
    equal([int(x) for x in columns[-3:]], [told["rx"], told["tx"], 0], "bytes received and sent, staged")
    # Handshake messages, trains, batches, notes, commands, and what is opened by each of two tun-tx threads.
    check(len(rings) >= 7, f"rings {rings}")
    check(all(int(r[0]) <= int(r[1]) and int(r[1]) for r in rings.values()), f"rings {rings}")
    check(any(int(r[2]) for r in rings.values()), f"nothing was ever in a ring: {rings}")
    for name in ("tun-rx0.trains", "tun-rx1.trains", "udp-rx.batches"):
        equal(pools[name][0], "1", f"{name} in use by the thread that reads into it")
    equal({name.split(".")[0] for name in batons}, {"state", "udp-tx", "tun-tx0", "tun-tx1"}, "threads with a baton")
    for name, (state, consumer) in batons.items():
        check(state in ("free", "held", "wanted", "given"), f"{name} is {state}")
        equal(consumer, name.split(".")[0], f"consumer of {name}")
    equal({name.split(".")[0] for name in parks}, {"state", "udp-tx", "udp-rx", "tun-rx0", "tun-rx1", "tun-tx0", "tun-tx1"}, "threads with a park")
    equal([x[0] for name, x in parks.items() if name.startswith("udp-tx.")], ["yes"], "udp-tx sleeps")
    equal(ping(t.n1, "10.0.0.2", 5), 5, "answers after")

    # One of them, and a word that is none.
    text = gdb("-p", daemon.pid, "-x", SCRIPT, "-ex", "sluice pools", "-ex", "sluice keys", ok=False)
    check(section(text, "pools") and "\nrings\n" not in text, text)
    check("there is no `sluice keys`" in text, text)

    with tempfile.TemporaryDirectory() as directory:
        # A core as the kernel and gcore write it: without secrets, which the script takes as it is.
        core = os.path.join(directory, "core")
        gdb("-p", daemon.pid, "-ex", f"gcore {core}")
        with open(core, "rb") as f:
            equal(keys_in(f.read(), secrets), [], "secrets in the core")
        text = gdb(program.path, core, "-x", SCRIPT, "-ex", "sluice")
        equal(section(text, "peers"), {}, "peers of a core")
        check("not in this core, which leaves out secrets and packets: " in text, text)
        equal(section(text, "pools")["tun-rx1.trains"][0], "1", "trains in use in the core")
        # With what is left out otherwise.
        gdb("-p", daemon.pid, "-ex", "set dump-excluded-mappings on", "-ex", f"gcore {core}")
        with open(core, "rb") as f:
            equal(keys_in(f.read(), secrets), list(secrets), "secrets in the whole core")
        text = gdb(program.path, core, "-x", SCRIPT, "-ex", "sluice")
        equal(keys_in(text.encode(), secrets), [], "secrets shown of the core")
        equal(list(section(text, "peers")), [t.b.public], "peers of the whole core")
        equal(section(text, "rings").keys(), rings.keys(), "rings of the whole core")
        equal({name.split(".")[0] for name in section(text, "batons")}, {"state", "udp-tx", "tun-tx0", "tun-tx1"}, "batons of the whole core")
    equal(ping(t.n1, "10.0.0.2", 5), 5, "answers at the end")
