#!/usr/bin/env python3
"""Holds the text of the tree to its habits: clang-format, clang-tidy, shellcheck, and the ends of lines of .editorconfig.

    tests/lint/text.py BUILD      BUILD: a configured build directory, for its compile_commands.json

All that git knows is looked at. A line that clang-tidy must leave says `NOLINT(check): reason`; one that it would not have complained about, or a NOLINT without its
reason, fails. Prints `N passed, N failed`.
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What no build compiles, because tests and perf do so where they need it.
ALONE = ["-std=gnu17", "-D_GNU_SOURCE", f"-I{ROOT}"]
NOLINT_RE = re.compile(r"NOLINT(NEXTLINE)?\(([\w.,-]+)\)(: \S.*)?")
FINDING_RE = re.compile(r"^([^\s:]+):(\d+):\d+: (?:warning|error): (.*?)(?: \[([\w.,-]+)\])?$", re.M)


def tracked(*patterns):
    p = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns], capture_output=True, text=True, check=True)
    return [f for f in p.stdout.splitlines() if os.path.isfile(os.path.join(ROOT, f))]


def text_of(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace", newline="") as f:
        return f.read()


def run(argv):
    p = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    return p.returncode, p.stdout, p.stderr


def first_line(name):
    with open(os.path.join(ROOT, name), "rb") as f:
        return f.readline().decode(errors="replace")


def check_format(build):
    status, out, err = run(["clang-format-14", "--dry-run", "--Werror", *tracked("*.c", "*.h")])
    return [line for line in err.splitlines() if "error:" in line] or ([err] if status else [])


def check_shell(build):
    scripts = [f for f in tracked() if "sh" in first_line(f) and (first_line(f).startswith("#!") or f.endswith(".sh"))]
    status, out, err = run(["shellcheck", "--external-sources", "--format=gcc", *scripts])
    return out.splitlines() + err.splitlines()


def check_line_ends(build):
    complaints = []
    for name in tracked():
        # Bytes for parsers, and drawings as the programs that made them wrote them.
        if name.startswith("tests/fuzz/corpus/") or name.endswith((".svg", ".json", ".png")):
            continue
        text = text_of(name)
        if "\r" in text:
            complaints.append(f"{name}: carriage return")
        if text and not text.endswith("\n"):
            complaints.append(f"{name}: no newline at its end")
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip(" \t"):
                complaints.append(f"{name}:{number}: space at the end of the line")
    return complaints


class Tidy:
    """clang-tidy on everything, as if there were no NOLINT: those are honoured here, so that one without use is seen."""

    def __init__(self, build):
        self.stale = []
        files = tracked("*.c", "*.h")
        allowed = {}  # (path, line): [checks, where it stands, used]
        overlay = {"version": 0, "case-sensitive": "true", "use-external-names": "false", "roots": []}
        with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
            commands = json.load(f)
        built = sorted({os.path.realpath(os.path.join(c["directory"], c["file"])) for c in commands})
        alone = [os.path.join(ROOT, f) for f in files if f.endswith(".c") and os.path.join(ROOT, f) not in built]
        # A backend whose library is not here cannot be compiled.
        alone = [f for f in alone if not f.startswith(os.path.join(ROOT, "crypto", "aead_"))]
        with tempfile.TemporaryDirectory(prefix="sluice-lint-") as directory:
            for i, name in enumerate(files):
                text = text_of(name)
                if "NOLINT" not in text:
                    continue
                path = os.path.join(ROOT, name)
                for number, line in enumerate(text.split("\n"), 1):
                    m = NOLINT_RE.search(line)
                    if "NOLINT" in line and (not m or not m[3]):
                        self.stale.append(f"{name}:{number}: NOLINT(check): reason is the form")
                    elif m:
                        allowed[path, number + bool(m[1])] = [set(m[2].split(",")), f"{name}:{number}", set()]
                copy = os.path.join(directory, str(i))
                with open(copy, "w", encoding="utf-8") as f:
                    f.write(text.replace("NOLINT", "NOTLINT"))
                overlay["roots"].append({"type": "file", "name": path, "external-contents": copy})
            with open(os.path.join(directory, "overlay"), "w", encoding="utf-8") as f:
                json.dump(overlay, f)
            tidy = ["clang-tidy-14", "--quiet", f"--vfsoverlay={directory}/overlay"]
            jobs = [tidy + ["-p", build, f] for f in built] + [tidy + [f, "--", *ALONE] for f in alone]
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                results = list(pool.map(run, jobs))
        found = {}
        for (status, out, err), job in zip(results, jobs):
            findings = FINDING_RE.findall(out)
            if status and not findings:
                found[f"{' '.join(job)}: {err.strip() or out.strip()}"] = None
            for path, number, text, checks in findings:
                path = os.path.normpath(os.path.join(build, path))  # as compiled: some are relative to where that was
                a = allowed.get((path, int(number)))
                if a and a[0] & set(checks.split(",")):
                    a[2].update(checks.split(","))
                else:
                    found[f"{os.path.relpath(path, ROOT)}:{number}: {text} [{checks}]"] = None
        self.findings = list(found)
        for checks, where, used in allowed.values():
            if checks - used:
                self.stale.append(f"{where}: NOLINT of {', '.join(sorted(checks - used))} is no longer needed")


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip())
        return 2
    build = os.path.abspath(sys.argv[1])
    passed = failed = 0

    def judge(what, complaints):
        nonlocal passed, failed
        passed, failed = passed + (not complaints), failed + bool(complaints)
        print(f"{'failed' if complaints else 'passed':8}{what}")
        for c in complaints:
            print("    " + c)

    judge("clang-format", check_format(build))
    judge("shellcheck", check_shell(build))
    judge("ends of lines", check_line_ends(build))
    tidy = Tidy(build)
    judge("clang-tidy", tidy.findings)
    judge("NOLINT", tidy.stale)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
