#!/usr/bin/env python3
"""Holds the tree to its layers: what a room includes, and what its objects reference, lies in rooms that it may use.

	layers.py BUILD      BUILD: a build directory of gcc or clang, compiled, whose compile_commands.json names the objects

Every source and header in the tree belongs to a room of ROOMS below. Includes are read from the text, so that code that this
build leaves out is judged too; references are what `nm` finds in the objects, so that a bare extern declaration does
not slip by. The checks are first tried on small trees that break each rule; prints `N passed, N failed`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FLOOR = ["ring"]
LAYERS = FLOOR + ["crypto", "tun", "udp"]
# The one table of rooms: a folder with all below it (or a file), and the rooms that it may use beside itself.
ROOMS = {
    "ring": [],
    "crypto": FLOOR,
    "tun": FLOOR,
    "udp": FLOOR,
    "core/base": LAYERS,
    "core/client": LAYERS + ["core/base"],
    "core/protocol": LAYERS + ["core/base"],
    "core/threads": LAYERS + ["core/base", "core/protocol"],
    "core/control": LAYERS + ["core/base", "core/protocol", "core/threads"],
    "core/main.c": LAYERS + ["core/base", "core/client", "core/protocol", "core/threads", "core/control"],
    # These look at everything; nothing looks at them.
    "perf": LAYERS + ["core/base", "core/client", "core/protocol", "core/threads", "core/control", "tests"],
    "tests": LAYERS + ["core/base", "core/client", "core/protocol", "core/threads", "core/control", "perf"],
}

INCLUDE_RE = re.compile(r'^[ \t]*#[ \t]*(?:include|include_next|import|embed)[ \t]*(.*)$', re.M)
NAME_RE = re.compile(r'(["<])([^">]+)[">]')


def room_of(path):
    """The room of a path relative to the root, or None."""
    inside = [r for r in ROOMS if path == r or path.startswith(r + "/")]
    return max(inside, key=len) if inside else None


def may_use(room, other):
    return room == other or other in ROOMS[room]


def sources(root):
    """Every .c and .h that belongs to the project, relative to its root: what git knows or would add, or all where there is no git."""
    p = subprocess.run(["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h"], capture_output=True, text=True)
    if p.returncode == 0:
        return sorted(f for f in set(p.stdout.split("\n")) if f and os.path.exists(os.path.join(root, f)))
    found = []
    for directory, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith((".", "build"))]
        found += [os.path.relpath(os.path.join(directory, f), root) for f in files if f.endswith((".c", ".h"))]
    return sorted(found)


def included(root, source, text):
    """The files of the tree that source includes, relative to its root; None for an include that cannot be read."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    for what in INCLUDE_RE.findall(text):
        m = NAME_RE.match(what)
        if not m:
            yield None, what.strip()
            continue
        kind, name = m.groups()
        places = ([os.path.join(root, os.path.dirname(source))] if kind == '"' else []) + [root]
        for place in places:
            path = os.path.normpath(os.path.join(place, name))
            if os.path.isfile(path):
                yield os.path.relpath(path, root), name
                break


def check_includes(root):
    """{room: complaints}, for every room that has a source."""
    complaints = {}
    for source in sources(root):
        room = room_of(source)
        if room is None:
            complaints.setdefault("(no room)", []).append(f"{source}: in no room of tests/lint/layers.py")
            continue
        mine = complaints.setdefault(room, [])
        with open(os.path.join(root, source), encoding="utf-8", errors="replace") as f:
            text = f.read()
        for path, name in included(root, source, text):
            if path is None:
                mine.append(f"{source}: the include of {name} cannot be read without a compiler")
                continue
            other = room_of(path)
            if other is None:
                mine.append(f"{source}: includes {path}, which is in no room")
            elif not may_use(room, other):
                mine.append(f"{source}: includes {path}, but {room} may not use {other}")
    return complaints


def symbols(objects):
    """(symbol, type) of each object that `nm` is given, as {object: [...]}."""
    found = {o: [] for o in objects}
    if not objects:
        return found
    p = subprocess.run(["nm", "--print-file-name", "--format=posix", "--extern-only"] + list(objects), capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr.strip())
    for line in p.stdout.splitlines():
        m = re.match(r"(.*?): (\S+) (\w)(?: |$)", line)
        if m:
            found[m[1]].append((m[2], m[3]))
    return found


def check_references(objects):
    """objects: {path of an object: its source, relative to the root}. {room: complaints}, for every room that has an object."""
    complaints, defined = {}, {}
    found = symbols(objects)
    for o, names in found.items():
        for name, kind in names:
            if kind not in "Uwv":
                defined.setdefault(name, set()).add(room_of(objects[o]))
    for o, names in sorted(found.items(), key=lambda x: objects[x[0]]):
        source = objects[o]
        room = room_of(source)
        if room is None:
            continue  # said by check_includes()
        mine = complaints.setdefault(room, [])
        for name, kind in sorted(names):
            rooms = {r for r in defined.get(name, ()) if r} if kind in "Uwv" else set()
            # What is defined nowhere in the tree is a library's.
            if rooms and not any(may_use(room, r) for r in rooms):
                mine.append(f"{source}: refers to {name}, which {', '.join(sorted(rooms))} defines, but {room} may not use that")
    return complaints


def objects_of(build, root):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        commands = json.load(f)
    return {os.path.join(c["directory"], c["output"]): os.path.relpath(os.path.join(c["directory"], c["file"]), root) for c in commands}


# Trees that break one rule each: files, and what the complaint must name.
BROKEN = {
    "ring includes core": ({"ring/a.c": '#include "core/base/b.h"\n', "core/base/b.h": ""}, "ring/a.c: includes core/base/b.h"),
    "a relative include climbs": ({"ring/a.c": '#include "../core/base/b.h"\n', "core/base/b.h": ""}, "ring/a.c: includes core/base/b.h"),
    "angle brackets climb": ({"ring/a.c": "# include <core/base/b.h>\n", "core/base/b.h": ""}, "ring/a.c: includes core/base/b.h"),
    "a header climbs": ({"ring/a.h": '#include "crypto/b.h"\n', "crypto/b.h": ""}, "ring/a.h: includes crypto/b.h"),
    "code left out climbs": ({"ring/a.c": '#ifdef NEVER\n#include "crypto/b.h"\n#endif\n', "crypto/b.h": ""}, "ring/a.c: includes crypto/b.h"),
    "tun includes udp": ({"tun/a.c": '#include "udp/b.h"\n', "udp/b.h": ""}, "tun/a.c: includes udp/b.h"),
    "base includes protocol": ({"core/base/a.c": '#include "core/protocol/b.h"\n', "core/protocol/b.h": ""}, "core/base/a.c: includes core/protocol/b.h"),
    "protocol includes threads": ({"core/protocol/a.c": '#include "core/threads/b.h"\n', "core/threads/b.h": ""}, "may not use core/threads"),
    "threads include control": ({"core/threads/a.c": '#include "core/control/b.h"\n', "core/control/b.h": ""}, "may not use core/control"),
    "client includes control": ({"core/client/a.c": '#include "core/control/b.h"\n', "core/control/b.h": ""}, "may not use core/control"),
    "client includes protocol": ({"core/client/a.c": '#include "core/protocol/b.h"\n', "core/protocol/b.h": ""}, "may not use core/protocol"),
    "main includes tests": ({"core/main.c": '#include "tests/b.h"\n', "tests/b.h": ""}, "core/main.c: includes tests/b.h"),
    "control includes perf": ({"core/control/a.c": '#include "perf/b.h"\n', "perf/b.h": ""}, "may not use perf"),
    "a file outside every room": ({"core/new/a.c": ""}, "core/new/a.c: in no room"),
    "an include by macro": ({"ring/a.c": '#define B "crypto/b.h"\n#include B\n', "crypto/b.h": ""}, "cannot be read"),
    "ring calls base": ({"ring/a.c": "extern int b(void);\nint a(void);\nint a(void) { return b(); }\n", "core/base/b.c": "int b(void) { return 1; }\n"}, "ring/a.c: refers to b,"),
    "tun reads a variable of udp": ({"tun/a.c": "extern int b;\nint *a(void) { return &b; }\n", "udp/b.c": "int b = 1;\n"}, "tun/a.c: refers to b,"),
    "protocol calls threads weakly": ({"core/protocol/a.c": "extern int b(void) __attribute__((weak));\nint a(void) { return b ? b() : 0; }\n", "core/threads/b.c": "int b(void) { return 1; }\n"}, "may not use that"),
    "base calls a helper of the tests": ({"core/base/a.c": "extern int b(void);\nint a(void) { return b(); }\n", "tests/b.c": "int b(void) { return 1; }\n"}, "core/base/a.c: refers to b,"),
}
# And one that breaks none.
SOUND = {
    "ring/a.c": "#include <stdio.h>\nint a(void) { return puts(\"\"); }\n",
    "core/base/b.c": "// #include \"core/protocol/c.h\"\nextern int a(void);\nint b(void) { return a(); }\n",
    "core/protocol/c.h": "/*\n#include \"core/control/d.h\"\n*/\n",
    "core/control/d.h": "#include \"core/protocol/c.h\"\n#include \"ring/base.h\"\n",
    "ring/base.h": "",
    "tests/t.c": "#include \"core/control/d.h\"\nextern int b(void);\nint t(void) { return b(); }\n",
}


def try_tree(files):
    """The complaints about a tree made of files."""
    with tempfile.TemporaryDirectory(prefix="sluice-layers-") as root:
        objects = {}
        for name, text in files.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        for name in files:
            # Those that only include need no object: what they include is seen in their text.
            if name.endswith(".c") and "int " in files[name]:
                o = os.path.join(root, name.replace("/", "_") + ".o")
                subprocess.run([os.environ.get("CC") or "gcc", "-w", "-I", root, "-c", "-o", o, os.path.join(root, name)], check=True)
                objects[o] = name
        return sum(list(check_includes(root).values()) + list(check_references(objects).values()), [])


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip())
        return 2
    build = os.path.abspath(sys.argv[1])
    passed = failed = 0

    def judge(what, complaints):
        nonlocal passed, failed
        if complaints:
            failed += 1
            print(f"{what}:")
            for c in complaints:
                print("    " + c)
        else:
            passed += 1

    for what, (files, wanted) in BROKEN.items():
        got = try_tree(files)
        judge(f"tried on a tree where {what}", [] if any(wanted in c for c in got) else [f"said {got or 'nothing'}, not {wanted!r}"])
    judge("tried on a sound tree", try_tree(SOUND))

    includes = check_includes(ROOT)
    references = check_references(objects_of(build, ROOT))
    for room in ROOMS:
        judge(f"includes of {room}", includes.pop(room, [f"no source is there any more: take {room} out of ROOMS"]))
        judge(f"references of {room}", references.pop(room, [f"{build} has no object of it"]))
    for what, complaints in includes.items():
        judge(what, complaints)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
