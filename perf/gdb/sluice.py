"""gdb commands that show what a sluice, live or in a core, has in its peers, rings, pools and batons:

    gdb -p PID -x perf/gdb/sluice.py        (as root: the process is not to be traced by others)
    (gdb) sluice peers                      or rings, pools, batons; without a word, all four

The program must have its debug information, as builds have unless stripped. Nothing is called in the process and nothing written to it.

The threads are found by their frames: whoever is in run_NAME() has a struct NAME_thread in a variable there. From them on, structures are
found by their types and not by the fields that hold them. Keys other than public ones are never read. They, the rings' owner and packets lie in memory that is
left out of cores: a command then says what is missing. (gdb's `set dump-excluded-mappings on` before its gcore takes all along, keys too.) Cores have no
names of threads: there they are numbered by their ids, which is the order in which they were started.
"""

import base64
import datetime
import re
import socket

import gdb

# What is shown, by the name of the structure, and what leads on to it.
SHOWN = ("channel", "pool", "baton", "park")
LEADS_RE = re.compile(r"^(\w+_thread|pipeline|device)$")
RUN_RE = re.compile(r"^run_(\w+)$")


def struct_name(t):
    """The tag of a structure, or None."""
    t = t.strip_typedefs().unqualified()
    return t.tag if t.code == gdb.TYPE_CODE_STRUCT else None


def target_name(t):
    """The tag of what a pointer leads to, or None."""
    t = t.strip_typedefs()
    return struct_name(t.target()) if t.code == gdb.TYPE_CODE_PTR else None


def number(value):
    """Of an integer, enumerator, pointer or _Atomic."""
    return int(value.cast(gdb.lookup_type("unsigned long long"))) if value.type.strip_typedefs().code == gdb.TYPE_CODE_PTR else int(value)


def address(value):
    return int(value.address) if value.address is not None else None


def text_of(value):
    """An enumerator by its name, without the prefix that all of them share."""
    return str(value).rsplit("_", 1)[-1].lower()


class Thread:
    """A thread of the pipeline: its name and its structure."""

    def __init__(self, name, value):
        self.name, self.value = name, value


def name_of_thread(tag):
    return tag.removesuffix("_thread").replace("_", "-")


def variables(frame):
    """Every variable of a function that has a value in this frame."""
    try:
        block = frame.block()
    except RuntimeError:
        return
    while block is not None:
        for symbol in block:
            if symbol.is_argument or symbol.is_variable:
                try:
                    value = symbol.value(frame)
                    if not value.is_optimized_out:
                        yield value
                except (gdb.error, RuntimeError):
                    pass
        if block.function is not None:
            return
        block = block.superblock


def find_threads():
    """The structure of each thread that has one, by the names of threads, and every pipeline that is in sight."""
    found, pipelines = [], {}
    selected = gdb.selected_thread()
    frame_before = gdb.selected_frame() if selected is not None and selected.is_valid() else None
    for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.ptid[1]):
        thread.switch()
        frames = []
        frame = gdb.newest_frame()
        while frame is not None:
            frames.append(frame)
            try:
                frame = frame.older()
            except gdb.error:
                break
        wanted = [m[1] + "_thread" for m in (RUN_RE.match(f.name() or "") for f in frames) if m]
        mine = None
        # The outermost first: what its inner ones were given may be another thread's, whose work is done inline.
        for f in reversed(frames):
            for value in variables(f):
                name = target_name(value.type)
                if name == "pipeline" and number(value):
                    pipelines[number(value)] = value.dereference()
                elif wanted and mine is None and name == wanted[-1] and number(value):
                    mine = value.dereference()
        if mine is not None:
            found.append((thread.name, mine))
    if selected is not None and selected.is_valid():
        selected.switch()
        if frame_before is not None and frame_before.is_valid():
            frame_before.select()
    if not found and not pipelines:
        raise gdb.GdbError("no thread of sluice is in sight: no process, or no debug information")
    kinds = [struct_name(value.type) for _, value in found]
    threads = []
    for i, (name, value) in enumerate(found):
        index = str(kinds[:i].count(kinds[i])) if kinds.count(kinds[i]) > 1 else ""
        threads.append(Thread(name or name_of_thread(kinds[i]) + index, value))
    return threads, list(pipelines.values())


class Walk:
    """All structures of the kinds in SHOWN and LEADS_RE that can be reached, each once, under the shortest way to it."""

    def __init__(self):
        self.threads, pipelines = find_threads()
        self.found = {}  # (tag, address): (where, value)
        self.missing = []  # where memory cannot be read
        self.ends = []  # pointers that are looked at when everything else has its name
        self.leads = [(t.name, t.value) for t in self.threads] + [("pipeline", p) for p in pipelines]
        seen = set()
        while self.leads or self.ends:
            where, value = (self.leads or self.ends).pop(0)
            key = struct_name(value.type), address(value)
            if key not in seen and key not in self.found:
                seen.add(key)
                self.look(where, value)

    def look(self, where, value):
        try:
            value.type.fields() and value.fetch_lazy()
            self.inside(where, value)
        except gdb.MemoryError:
            self.missing.append(where)

    def inside(self, where, value):
        t = value.type.strip_typedefs()
        name = struct_name(t)
        if name in SHOWN or name == "device":
            self.found.setdefault((name, address(value)), (where, value))
        if name in SHOWN:
            return
        if t.code == gdb.TYPE_CODE_STRUCT or t.code == gdb.TYPE_CODE_UNION:
            for field in t.fields():
                if hasattr(field, "bitpos") and not field.bitsize:
                    self.inside(f"{where}.{field.name}" if field.name else where, value[field])
        elif t.code == gdb.TYPE_CODE_ARRAY and holds_structures(t):
            for i in range(t.range()[0], t.range()[1] + 1):
                self.inside(f"{where}[{i}]", value[i])
        elif t.code == gdb.TYPE_CODE_PTR:
            target = target_name(t)
            if target is None or not number(value):
                return
            if LEADS_RE.match(target):
                # A thread's own name: the pipeline counts them in arrays.
                index = re.search(r"\[(\d+)\]$", where)
                name = name_of_thread(target) + (index[1] if index else "")
                self.leads.append((name, value.dereference()))
            elif target in SHOWN:
                self.ends.append((where, value.dereference()))

    def each(self, name):
        """(where, value) of each structure of a kind, in an order that people count in."""
        mine = [(where, value) for (tag, _), (where, value) in self.found.items() if tag == name]
        return sorted(mine, key=lambda x: [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", x[0])])

    def owner_of_park(self, park):
        """The name of the thread that sleeps at a park."""
        where = self.found.get(("park", number(park)), ("",))[0]
        return where.split(".")[0] if where else "?"


def holds_structures(t):
    while t.code == gdb.TYPE_CODE_ARRAY:
        t = t.target().strip_typedefs()
    return t.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION, gdb.TYPE_CODE_PTR)


def table(title, head, rows, walk):
    print(title)
    rows = [head] + [[str(x) for x in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  " + "  ".join(x.ljust(w) if i == 0 else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths))).rstrip())
    # What a thread has is missing with the thread.
    roots = [w for w in dict.fromkeys(walk.missing) if not any(w.startswith(t.name + ".") for t in walk.threads)]
    if roots:
        print(f"not in this core, which leaves out secrets and packets: {', '.join(roots)}")


def show_rings(walk):
    rows = []
    for where, ring in walk.each("channel"):
        if not number(ring["capacity"]):
            continue  # one that this number of threads does not need
        indices = ring["ring"]
        # As channel_len() counts: several producers reserve with p_head, and a single one moves p_tail alone.
        producers = indices["p_head" if number(ring["many_producers"]) else "p_tail"]
        length = (number(producers) - number(indices["c_head"])) & 0xffffffff
        rows.append([where, length, number(ring["capacity"]), number(ring["counters"]["high_water"]), number(ring["counters"]["refused"]),
                     "many" if ring["many_producers"] else "one"])
    table("rings", ["", "length", "capacity", "high water", "refused", "producers"], rows, walk)


def show_pools(walk):
    rows = []
    for where, pool in walk.each("pool"):
        rows.append([where, number(pool["taken"]) - number(pool["given"]), number(pool["count"]), number(pool["fresh"]),
                     number(pool["item_bytes"]), number(pool["taken"]), number(pool["empty"]), "yes" if pool["starved"] else "no"])
    table("pools", ["", "in use", "count", "ever used", "bytes each", "taken", "found empty", "starved"], rows, walk)


def show_batons(walk):
    rows = [[where, text_of(baton["state"].cast(gdb.lookup_type("enum baton_state"))), walk.owner_of_park(baton["consumer"])] for where, baton in walk.each("baton")]
    table("batons", ["", "state", "consumer"], rows, walk)
    print()
    rows = []
    for where, park in walk.each("park"):
        # ck keeps "somebody sleeps" in the sign bit.
        rows.append([where, "yes" if number(park["event_count"]["counter"]) >> 31 & 1 else "no", number(park["counters"]["parks"]), number(park["counters"]["wakes"])])
    table("parks", ["", "sleeps", "parks", "wakes"], rows, walk)


def raw(value, length=None):
    length = length or value.type.sizeof
    return gdb.selected_inferior().read_memory(int(value.address), length).tobytes()


def endpoint_text(endpoint):
    family = number(endpoint["to"]["sa"]["sa_family"])
    if family == socket.AF_INET:
        v4 = endpoint["to"]["v4"]
        return f"{socket.inet_ntop(family, raw(v4['sin_addr']))}:{socket.ntohs(number(v4['sin_port']))}"
    if family == socket.AF_INET6:
        v6 = endpoint["to"]["v6"]
        scope = number(v6["sin6_scope_id"])
        return f"[{socket.inet_ntop(family, raw(v6['sin6_addr']))}{f'%{scope}' if scope else ''}]:{socket.ntohs(number(v6['sin6_port']))}"
    return "(none)"


def session_text(session):
    return f"{number(session['index']):08x}" if number(session) else "-"


def peers_of(device):
    """Of struct cds_list_head: the links of all peers, as far as they can be read."""
    t = gdb.lookup_type("struct peer")
    offset = next(f for f in t.fields() if f.name == "link").bitpos // 8
    head = device["peers"]
    link, seen = head["next"], set()
    while number(link) != address(head) and number(link) not in seen:
        seen.add(number(link))
        yield gdb.Value(number(link) - offset).cast(t.pointer()).dereference()
        link = link["next"]


def show_peers(walk):
    rows = []
    for where, device in walk.each("device"):
        try:
            for peer in peers_of(device):
                at = number(peer["last_handshake_realtime_ns"])
                rows.append([base64.b64encode(raw(peer["public_key"])).decode(), endpoint_text(peer["endpoint"]), f"tun-tx{number(peer['owner'])}",
                             *(session_text(peer[x]) for x in ("previous", "current", "next")),
                             text_of(peer["handshake"]["state"]), datetime.datetime.fromtimestamp(at // 10**9).strftime("%F %T") if at else "never",
                             number(peer["rx_bytes"]) + number(peer["rx_handshake_bytes"]), number(peer["tx_bytes"]), number(peer["staged_segments"])])
        except gdb.MemoryError:
            walk.missing.append(f"{where}.peers")
    table("peers", ["", "endpoint", "owner", "previous", "current", "next", "handshake", "last handshake", "received", "sent", "staged"], rows, walk)


SHOWS = {"peers": show_peers, "rings": show_rings, "pools": show_pools, "batons": show_batons}


class Sluice(gdb.Command):
    """Peers, rings, pools and batons of a sluice: sluice [peers|rings|pools|batons]"""

    def __init__(self):
        super().__init__("sluice", gdb.COMMAND_DATA)

    def complete(self, text, word):
        return [s for s in SHOWS if s.startswith(word or "")]

    def invoke(self, argument, from_tty):
        words = gdb.string_to_argv(argument) or list(SHOWS)
        for word in words:
            if word not in SHOWS:
                raise gdb.GdbError(f"there is no `sluice {word}`, but: {' '.join(SHOWS)}")
        walk = Walk()
        for i, word in enumerate(words):
            if i:
                print()
            SHOWS[word](walk)


Sluice()
