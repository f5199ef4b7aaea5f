#!/usr/bin/env python3
"""Holds the counters of sluice(8) to the one table of metrics, from which they are written.

    counters.py [BUILD]      fails if the page says anything else than core/base/metrics_table.h; BUILD is not used
    counters.py --write      writes the page anew

What stands in core/sluice.8 between the two marks is made here: a list for each kind of thread, and one of what several of them have. The table is read with the C
preprocessor, in which every row becomes a tuple. The check is first tried on a page that differs; prints `N passed, N failed`.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "core/sluice.8")
BEGIN, END = '.\\" BEGIN counters: made by tests/lint/counters.py --write, from core/base/metrics_table.h', '.\\" END counters'
WIDTH = 120
ROWS = r"""
#include "core/base/metrics_table.h"
#define ROW(a, id, field, name, kind, unit, writer, help, ...) (name, #kind, unit, help),
#define GROUP(id, name, is_thread, numbered) (name, #is_thread, #numbered, [METRICS_OF_##id(ROW, )]),
[METRICS_GROUPS(GROUP)]
"""
TITLES = {"process": "The process and its interface:", "drops": "Reasons to drop a packet"}


def read_table():
    """(name, is a thread, is numbered, [(name, kind, unit, help)]) for each group, in the order of printing."""
    p = subprocess.run([*shlex.split(os.environ.get("CC", "cc")), "-x", "c", "-E", "-P", "-I", ROOT, "-"], input=ROWS, capture_output=True, text=True, check=True)
    groups = [(name, thread == "true", numbered == "true", rows) for name, thread, numbered, rows in ast.literal_eval(p.stdout.strip())]
    if len(groups) < 5 or sum(len(rows) for *_, rows in groups) < 100:
        sys.exit(f"counters.py: the preprocessor found only {groups}")
    return groups


def text_lines(text):
    """Of mdoc: a line that begins with a dot or an apostrophe would be a request, a backslash an escape, and a backtick a quotation mark."""
    # The reasons of drops begin small, since log lines quote them; a word with a digit is a name.
    if not re.match(r"\w*\d", text):
        text = text[0].upper() + text[1:]
    text = text.replace("\\", "\\e").replace("`", "\\(ga")
    return [("\\&" if line[0] in ".'" else "") + line for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False)]


def item(row):
    name, kind, unit, text = row
    what = f"histogram of {unit}" if kind == "HISTOGRAM" else unit
    return [f".It Li {name}" + (f" Pq {what}" if what != name else ""), *text_lines(text)]


def section(title, rows):
    return [".Pp", *title, ".Bl -tag -width Ds -compact", *(line for row in rows for line in item(row)), ".El"]


def make(groups):
    """The lines between the marks."""
    threads = [rows for _, is_thread, _, rows in groups if is_thread]
    shared = []
    for rows in threads:
        shared += [row for row in rows if row not in shared and sum(row in other for other in threads) > 1]
    lines = []
    for name, is_thread, numbered, rows in groups:
        rows = [row for row in rows if not is_thread or row not in shared]
        if name == "drops":
            # Not a paragraph but a part of its own, which the page refers to.
            lines += [f".Ss {TITLES[name]}", ".Bl -tag -width Ds -compact", *(line for row in rows for line in item(row)), ".El"]
        elif rows:
            lines += section([TITLES[name]] if name in TITLES else [f".Li {name}" + (" Ns Ar N :" if numbered else " :")], rows)
        if name == "process":
            lines += section(["Of several threads:"], shared)
    return lines


def parts(page):
    """The page before its mark, between, and after."""
    lines = page.split("\n")
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(BEGIN) > lines.index(END):
        sys.exit(f"{PAGE}: the two marks are not there: {BEGIN!r}, {END!r}")
    begin, end = lines.index(BEGIN), lines.index(END)
    return lines[:begin + 1], lines[begin + 1:end], lines[end:]


def differences(groups, page):
    _, has, _ = parts(page)
    wanted = make(groups)
    return [f"core/sluice.8 lacks: {line}" for line in wanted if line not in has] + [f"core/sluice.8 has too much: {line}" for line in has if line not in wanted] \
        or (["core/sluice.8: the counters are in another order"] if has != wanted else [])


def check_page(groups):
    with open(PAGE, encoding="utf-8") as f:
        return differences(groups, f.read())


def check_sample(groups):
    """A word of help changed, an item missing, two items exchanged: each is found, and nothing in a page just made."""
    page = "\n".join([".Sh COUNTERS", BEGIN, *make(groups), END, ""])
    first, second = (line for line in page.split("\n") if re.match(r"\.It Li (egress_no_peer|egress_down) ", line))
    exchanged = page.replace(first, "X").replace(second, first).replace("X", second, 1)
    complaints = [f"wrongly found in the sample: {c}" for c in differences(groups, page)]
    for what, changed in (("help", page.replace("allowed IPs", "forbidden IPs", 1)), ("missing", page.replace(first + "\n", "")), ("order", exchanged)):
        if changed == page or not differences(groups, changed):
            complaints.append(f"not found in the sample: {what}")
    return complaints


def main():
    groups = read_table()
    if "--write" in sys.argv[1:]:
        with open(PAGE, encoding="utf-8") as f:
            before, _, after = parts(f.read())
        with open(PAGE, "w", encoding="utf-8") as f:
            f.write("\n".join([*before, *make(groups), *after]))
        return 0
    failed = 0
    for check in (check_sample, check_page):
        complaints = check(groups)
        failed += bool(complaints)
        for complaint in complaints:
            print(f"{check.__name__}: {complaint}; to write it anew: tests/lint/counters.py --write")
    print(f"{2 - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
