#!/usr/bin/env python3
"""Looks for the hardening that meson.build asks for in what was built.

	hardening.py BUILD      BUILD: a release build without sanitizers, compiled

One test each; what the linker can only grant together with the C library's start files is required where those have it.
Prints `N passed, N failed, N skipped`.
"""

import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Skip(Exception):
    pass


def output(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout


def features(text):
    """The x86 and AArch64 features that the property notes in readelf's output promise, file by file."""
    found = {}
    for part in re.split(r"^File: ", "\n" + text, flags=re.M)[1:]:
        name, _, rest = part.partition("\n")
        found[name] = {w for line in re.findall(r"(?:x86|AArch64) feature: (.*)", rest) for w in re.split(r",\s*", line.strip())}
    return found


class Built:
    def __init__(self, build):
        self.build = build
        self.program = os.path.join(build, "sluice")
        self.header = output("readelf", "-hW", self.program)
        self.segments = output("readelf", "-lW", self.program)
        self.dynamic = output("readelf", "-dW", self.program)
        self.imports = set(re.findall(r"UND (\w+)", output("readelf", "--dyn-syms", "-W", self.program)))
        self.x86 = "X86-64" in self.header
        with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
            commands = json.load(f)
        # The sources of the program: everything but tests and perf.
        self.commands = [c for c in commands if not os.path.relpath(os.path.join(c["directory"], c["file"]), ROOT).startswith(("tests/", "perf/"))]
        self.compiler = self.commands[0]["command"].split()[0]
        if os.path.basename(self.compiler) == "ccache":
            self.compiler = self.commands[0]["command"].split()[1]
        self.objects = [os.path.join(c["directory"], c["output"]) for c in self.commands]


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def position_independent(b):
    check(re.search(r"Type:\s+DYN", b.header) and re.search(r"FLAGS_1\).*\bPIE\b", b.dynamic), "not a position-independent executable")


def relocations_read_only_from_the_start(b):
    check("GNU_RELRO" in b.segments, "no GNU_RELRO segment")
    check(re.search(r"\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*\bNOW\b|\(BIND_NOW\)", b.dynamic), "not bound at the start: the PLT's table stays writable")


def nothing_writable_is_executable(b):
    stack = re.search(r"GNU_STACK.* ([RWE ]{3}) 0x", b.segments)
    check(stack and "E" not in stack[1], "the stack is executable")
    for line in b.segments.splitlines():
        m = re.match(r"\s+LOAD\s.* ([RWE ]{3}) 0x", line)
        check(not m or not ("W" in m[1] and "E" in m[1]), f"writable and executable: {line.strip()}")
    check("TEXTREL" not in b.dynamic, "relocations in the text")


def stack_protector_in_every_room(b):
    check("__stack_chk_fail" in b.imports, "no __stack_chk_fail")
    without = [c["file"] for c in b.commands if "-fstack-protector-strong" not in c["command"]]
    check(not without, f"compiled without -fstack-protector-strong: {without}")


def fortified_calls(b):
    checked = {s for s in b.imports if s.endswith("_chk") and s != "__stack_chk_fail"}
    check(len(checked) >= 3, f"of FORTIFY's functions only {sorted(checked)}")
    for c in b.commands:
        levels = re.findall(r"-D_FORTIFY_SOURCE=(\d)", c["command"])
        # The last one counts.
        wanted = "2" if re.match(r"(\.\./)*(crypto|tun)/", os.path.relpath(os.path.join(c["directory"], c["file"]), ROOT)) else "3"
        check(levels and levels[-1] == wanted, f"{c['file']}: FORTIFY level {levels[-1:] or 'none'}, not {wanted}")


def stack_is_probed_page_by_page(b):
    if not b.x86 and "clang" in os.path.basename(b.compiler):
        raise Skip("this compiler cannot, on this machine")
    without = [c["file"] for c in b.commands if "-fstack-clash-protection" not in c["command"]]
    check(not without, f"compiled without -fstack-clash-protection: {without}")


def every_object_promises_its_branch_protection(b):
    wanted = {"SHSTK"} if b.x86 else {"BTI", "PAC"}
    without = [os.path.relpath(name, b.build) for name, got in features(output("readelf", "-nW", *b.objects)).items() if not wanted <= got]
    check(not without, f"without {' and '.join(sorted(wanted))}: {without}")


def program_promises_it_where_the_start_files_do(b):
    wanted = {"SHSTK"} if b.x86 else {"BTI"}
    start = [output(b.compiler, f"-print-file-name={name}").strip() for name in ("Scrt1.o", "crti.o")]
    lacking = [os.path.basename(name) for name, got in features(output("readelf", "-nW", *start)).items() if not wanted <= got]
    if lacking:
        raise Skip(f"{' and '.join(lacking)} of this C library lack {' and '.join(wanted)}, so the linker leaves it out")
    # readelf names a file only where it is given several.
    check(wanted <= features(f"File: sluice\n{output('readelf', '-nW', b.program)}")["sluice"], f"the linker left {' and '.join(wanted)} out")


TESTS = [position_independent, relocations_read_only_from_the_start, nothing_writable_is_executable, stack_protector_in_every_room, fortified_calls,
         stack_is_probed_page_by_page, every_object_promises_its_branch_protection, program_promises_it_where_the_start_files_do]


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip())
        return 2
    built = Built(os.path.abspath(sys.argv[1]))
    passed = failed = skipped = 0
    for test in TESTS:
        try:
            test(built)
            passed += 1
        except AssertionError as e:
            failed += 1
            print(f"failed   {test.__name__}: {e}")
        except Skip as e:
            skipped += 1
            print(f"skipped  {test.__name__}: {e}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
