#!/usr/bin/env python3
"""Measures each stage of the data path by itself, after comparing what it does with something simpler.

Time is the median over batches, pinned to one CPU, with the quarter of the batches below and above it. Instructions are counted by callgrind, which stands for
the same CPU (AVX2, no AVX-512) on every x86-64 machine that has AVX2, so they do not depend on the machine or its load; "own" are those in sluice, without
libraries. The results also go to perf/out/micro-TIME/results.json.

The instructions of this tree's baseline are in perf/micro-baseline.json. --check fails when a stage that packets pay for grows by more than 5%, or when the
baseline does not fit the stages. If a library is another version than the baseline's, its instructions are left out of the comparison. With another major
version of the compiler, or on a machine that cannot run callgrind with AVX2, --check says so, compares nothing and ends with status 77.
"""

import argparse
import fnmatch
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time

import prepare

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASELINE = os.path.join(ROOT, "perf", "micro-baseline.json")
BUILD = "build-micro"
PROGRAM = os.environ.get("SLUICE_MICRO") or os.path.join(ROOT, BUILD, "perf", "sluice-micro")
OWN = "own"
OTHER = "other"  # calls through the linkage tables of libraries, which callgrind assigns to none
ALLOWED = 0.05
LEAST = 1.0  # instructions: a stage of a few may grow by one
SKIPPED = 77
COUNT_TIMEOUT = 300


class Failure(Exception):
    pass


class CannotCompare(Exception):
    pass


# Running the program. ----------------------------------------------------------------------------------------------------------


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def run(argv, total, what, timeout, env=None, cwd=None):
    """The JSON objects that the program prints, one a line."""
    results = []
    with tempfile.TemporaryFile("w+") as errors:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=env, cwd=cwd)
        signal.signal(signal.SIGALRM, lambda *a: p.kill())
        signal.alarm(timeout)
        broken = False
        try:
            for line in p.stdout:
                try:
                    results.append(json.loads(line))
                except ValueError:  # it died in the middle of a stage, and its complaint names that
                    broken = True
                    continue
                progress(f"{what} {len(results)}/{total}: {results[-1].get('stage', '')}")
            status = p.wait()
        finally:
            signal.alarm(0)
            if p.poll() is None:
                p.kill()
                p.wait()
            p.stdout.close()
            progress("")
        if status or broken:
            errors.seek(0)
            text = "\n".join(line for line in errors.read().splitlines() if not line.startswith("=="))
            raise Failure(f"{what}: {os.path.basename(argv[0])} " +
                          (f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}") +
                          (f" after {results[-1].get('stage')}" if results and status < 0 else "") + (f": {text}" if text else ""))
    return results


def build():
    """Brings PROGRAM up to date, unless it is one of the user's."""
    if os.environ.get("SLUICE_MICRO"):
        if not os.access(PROGRAM, os.X_OK):
            raise Failure(f"{PROGRAM} (of SLUICE_MICRO) is not there")
        return
    prepare.need("build", "micro")
    # gcc, whatever CC says: the instructions of another compiler compare with no baseline.
    prepare.build(BUILD, "-Dbenchmarks=enabled", env={"CC": "gcc"})
    p = subprocess.run(["ninja", "-C", BUILD, "perf/sluice-micro"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise Failure(f"sluice-micro does not build:\n{p.stdout}")


def stages(patterns):
    """The stages that the patterns choose; all without one. Every pattern must choose some."""
    every = run([PROGRAM, "list"], 0, "listing", 60)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(r["stage"], pattern) for r in every):
            raise Failure(f"no stage is called {pattern!r}; there are:\n{named(r['stage'] for r in every)}")
    return [r for r in every if not patterns or any(fnmatch.fnmatchcase(r["stage"], p) for p in patterns)]


def named(names):
    """Stages in lines, one paragraph for each first word."""
    groups = {}
    for name in names:
        groups.setdefault(name.split("/")[0], []).append(name)
    return "\n".join(textwrap.fill(" ".join(g), 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False) for g in groups.values())


def about():
    return run([PROGRAM, "about"], 0, "asking", 60)[0]


def measure_time(patterns, total, quick):
    batches, batch_us = (9, 300) if quick else (25, 2000)
    return run([PROGRAM, "time", str(batches), str(batch_us)] + patterns, total, "timing", 600)


def measure_instructions(patterns, total):
    """Gives each result "instructions": per unit, by object, and "functions": the ten that cost most."""
    with tempfile.TemporaryDirectory(prefix="sluice-micro-") as directory:
        # Nothing of the caller's environment: what lies on the stack, and tunables of libraries, would move the count.
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        argv = [valgrind(), "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no", f"--callgrind-out-file={directory}/out", PROGRAM, "count"]
        results = run(argv + patterns, total, "counting", COUNT_TIMEOUT, env, directory)
        dumps = {}
        for name in os.listdir(directory):
            stage, costs = read_dump(os.path.join(directory, name))
            if stage:
                dumps[stage] = costs
    libraries = {}
    for r in results:
        if "counted" not in r:
            continue
        by_object, by_function = {}, {}
        if r["stage"] not in dumps:
            raise Failure(f"callgrind left nothing for {r['stage']}")
        for (path, function), cost in dumps[r["stage"]].items():
            key = OWN if os.path.realpath(path) == os.path.realpath(PROGRAM) else os.path.basename(path) if "/" in path else OTHER
            by_object[key] = by_object.get(key, 0) + cost
            by_function[(key, function)] = by_function.get((key, function), 0) + cost
            if "/" in path and key != OWN:
                libraries[key] = path
        r["instructions"] = {k: round(v / r["counted"], 2) for k, v in sorted(by_object.items())}
        r["functions"] = [[k, f, round(v / r["counted"], 2)] for (k, f), v in sorted(by_function.items(), key=lambda x: -x[1])[:10]]
    return results, {k: version_of(path) for k, path in sorted(libraries.items())}


NAME_RE = re.compile(r"^(c?)(ob|fl|fi|fe|fn)=(?:\((\d+)\))?(?: ?(.*))?$")


def read_dump(path):
    """Of a callgrind dump: the stage that it is named after, and {(object, function): instructions of its own}."""
    names = {"ob": {}, "fn": {}}
    now = {"ob": "", "fn": ""}
    stage, costs, skip = None, {}, False
    with open(path, errors="replace") as f:
        for line in f:
            line = line.rstrip("\n")
            if line.startswith("desc: Trigger: Client Request: "):
                stage = line.split(": ", 3)[3]
            elif line.startswith("calls="):
                skip = True  # the next line is what the callee cost
            elif line[:1] in "+-*" or line[:1].isdigit():
                fields = line.split()
                if not skip and len(fields) == 2:
                    key = now["ob"], now["fn"]
                    costs[key] = costs.get(key, 0) + int(fields[1])
                skip = False
            else:
                m = NAME_RE.match(line)
                if not m or m[2] not in names:
                    continue
                table = names[m[2]]
                if m[4]:
                    table[m[3]] = m[4]
                if not m[1]:
                    now[m[2]] = table.get(m[3], m[4] or "")
    return stage, {k: v for k, v in costs.items() if v}


# What the counts depend on besides this tree. -----------------------------------------------------------------------------------


def output_of(argv):
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return p.stdout


def valgrind():
    path = shutil.which("valgrind")
    if not path:
        raise Failure("valgrind is not there (Debian: valgrind); --only time does without")
    return path


def version_of(path):
    """A library's package and version; where there is no dpkg, its build id."""
    for candidate in (path, path.removeprefix("/usr"), os.path.realpath(path), os.path.realpath(path).removeprefix("/usr")):
        package = output_of(["dpkg-query", "-S", candidate]).split(":")[0].strip() if shutil.which("dpkg-query") else ""
        if package:
            return package + " " + output_of(["dpkg-query", "-W", "-f", "${Version}\n", package]).split("\n")[0]
    build_id = re.search(r"Build ID: (\w+)", output_of(["readelf", "-n", path]))
    return "build id " + build_id[1] if build_id else "unknown"


def has_avx2():
    try:
        with open("/proc/cpuinfo") as f:
            return bool(re.search(r"^flags\s*:.*\bavx2\b", f.read(), re.M))
    except OSError:
        return False


def machine(libraries=None):
    """What the counts depend on; libraries: of those that were counted, None without callgrind."""
    this = about()
    here = {"arch": os.uname().machine, "compiler": this["compiler"], "release": this["release"], "backends": this["backends"]}
    if libraries is not None:
        here.update(valgrind=output_of([valgrind(), "--version"]).strip().removeprefix("valgrind-"), libraries=libraries)
    return here


def hardware():
    """What times depend on besides; the baseline has no use for it."""
    cpu = os.uname().machine
    try:
        with open("/proc/cpuinfo") as f:
            cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cpus": os.cpu_count(), "kernel": os.uname().release, "date": time.strftime("%Y-%m-%d")}


def require_countable():
    """Raises when this machine's counts could not be anyone else's."""
    if os.uname().machine != "x86_64":
        raise CannotCompare(f"the baseline is of x86_64, this machine is {os.uname().machine}")
    if not has_avx2():
        raise CannotCompare("this CPU has no AVX2: the libraries choose other code than in the baseline")


# The comparison. ----------------------------------------------------------------------------------------------------------------


def total(instructions):
    return sum(instructions.values())


def compare(baseline, here, results, patterns):
    """(failures, remarks), both lists of text."""
    failures, remarks = [], []
    old = baseline["machine"]
    if major(old["compiler"]) != major(here["compiler"]):
        raise CannotCompare(f"the baseline was compiled by {old['compiler']}, this is {here['compiler']}; perf/micro --update-baseline makes one for it")
    for key in ("compiler", "valgrind"):
        if old[key] != here[key]:
            remarks.append(f"{key}: {here[key]}, in the baseline {old[key]}: compared all the same")
    changed = {k for k in old["libraries"].keys() & here["libraries"].keys() if old["libraries"][k] != here["libraries"][k]}
    for k in sorted(changed):
        remarks.append(f"{k}: {here['libraries'][k]}, in the baseline {old['libraries'][k]}: its instructions are left out")
    if changed:
        changed.add(OTHER)

    known = dict(baseline["stages"])
    for r in results:
        name = r["stage"]
        before, after = known.pop(name, None), r.get("instructions")
        if after is None:
            remarks.append(f"{name}: not measured: {r['skipped']}")
        elif before is None:
            failures.append(f"{name}: is not in the baseline")
        else:
            grown, text = grew(before["instructions"], after, changed)
            if grown and r["hot"]:
                failures.append(f"{name}: {text} a {r['unit']}, allowed are {ALLOWED:.0%}")
            elif grown:
                remarks.append(f"{name}: {text} a {r['unit']}; no packet pays for it")
            elif text:
                remarks.append(f"{name}: {text} a {r['unit']}: better; keep it with --update-baseline")
    for name in known:
        if patterns and not any(fnmatch.fnmatchcase(name, p) for p in patterns):
            continue
        gone = [b for b in old["backends"] if b in name.split("/") and b not in here["backends"]]
        (remarks if gone else failures).append(f"{name}: is in the baseline, but " + (f"this build has no {gone[0]}" if gone else "there is no such stage"))
    return failures, remarks


def grew(before, after, changed):
    """Whether by more than is allowed, and the text that says from what to what; an empty text when nothing moved by as much."""
    def part(of):
        return sum(v for k, v in of.items() if k == OWN or k not in changed)

    whole, own = (part(before), part(after)), (before.get(OWN, 0), after.get(OWN, 0))
    for (a, b), where in ((whole, ""), (own, " of sluice's own")):
        if b - a > max(ALLOWED * a, LEAST):
            text = f"{a:,.1f} -> {b:,.1f} instructions{where} ({percent(a, b)})"
            return True, text + (f", sluice's own {own[0]:,.1f} -> {own[1]:,.1f}" if not where and own != whole else "")
    if whole[0] - whole[1] > max(ALLOWED * whole[0], LEAST):
        return False, f"{whole[0]:,.1f} -> {whole[1]:,.1f} instructions ({percent(*whole)})"
    return False, ""


def percent(a, b):
    return f"{(b - a) / a:+.1%}" if a else "new"


def major(compiler):
    return compiler.split(".")[0]


# Files and the table. -----------------------------------------------------------------------------------------------------------


def read_baseline(path):
    try:
        with open(path) as f:
            baseline = json.load(f)
        baseline["machine"]["libraries"], baseline["machine"]["backends"], baseline["stages"]
        return baseline
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}; perf/micro --update-baseline makes it")
    except (ValueError, KeyError, TypeError):
        raise Failure(f"{path} is no baseline of perf/micro")


def write_baseline(path, here, results, patterns):
    """One line a stage, so that a change shows what it changed. With patterns, the other stages stay as they are."""
    if not here["release"]:
        raise Failure("this is no release build")
    old = read_baseline(path) if patterns and os.path.exists(path) else {"stages": {}}
    if patterns and old["stages"] and (old["machine"]["compiler"] != here["compiler"] or
                                       any(old["machine"]["libraries"].get(k, v) != v for k, v in here["libraries"].items())):
        raise Failure("the baseline is of another compiler or other libraries: update all of it, without --stage")
    new = {r["stage"]: {"hot": r["hot"], "unit": r["unit"], "instructions": r["instructions"]} for r in results if "instructions" in r}
    if patterns and old["stages"]:
        here = {**here, "libraries": {**old["machine"]["libraries"], **here["libraries"]}}
    merged = {**old["stages"], **new}
    lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in merged.items())
    machine_lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in here.items())
    text = "{\n  \"machine\": {\n" + machine_lines + "\n  },\n  \"stages\": {\n" + lines + "\n  }\n}\n"
    temporary = f"{path}.new"
    try:
        with open(temporary, "w") as f:
            f.write(text)
        os.replace(temporary, path)
    except OSError as e:
        raise Failure(f"{e.filename}: {e.strerror}")


def write_results(results, extra, also):
    directory = os.path.join(ROOT, "perf", "out", time.strftime("micro-%Y%m%d-%H%M%S"))
    path = os.path.join(directory, "results.json")
    try:
        for p in ([also] if also else []) + [path]:
            if p == path:
                os.makedirs(directory, exist_ok=True)
            with open(p, "w") as f:
                json.dump({**extra, "stages": results}, f, indent=1)
                f.write("\n")
    except OSError as e:
        raise Failure(f"{e.filename}: {e.strerror}")
    return os.path.relpath(path)


def table(results, baseline):
    timed, counted = any("ns" in r for r in results), any("instructions" in r for r in results)
    width = max(len(r["stage"]) for r in results)
    head = f"{'stage':{width}}" + (f"{'ns':>11}{'spread':>19}" if timed else "") + (f"{'instructions':>14}{'own':>9}{'baseline':>10}" if counted else "")
    lines, group = [head + "  per"], None
    for r in results:
        if group not in (None, r["stage"].split("/")[0]):
            lines.append("")
        group = r["stage"].split("/")[0]
        line = f"{r['stage']:{width}}"
        if "skipped" in r:
            lines.append(f"{line}  {r['skipped']}")
            continue
        if timed:
            line += f"{r['ns_median']:>11,.1f}{r['ns_low']:>11,.1f}-{r['ns_high']:<7,.1f}" if "ns" in r else " " * 30
        if counted:
            count, before = r.get("instructions"), baseline.get(r["stage"], {}).get("instructions")
            line += f"{total(count):>14,.1f}{count.get(OWN, 0):>9,.1f}" if count else " " * 23
            line += f"{percent(total(before), total(count)):>10}" if count and before else " " * 10
        lines.append(f"{line}  {r['unit']}")
    return "\n".join(lines)


def explain(results):
    for r in results:
        if "functions" not in r:
            continue
        print(f"\n{r['stage']}: {total(r['instructions']):,.1f} instructions a {r['unit']}")
        for key, function, cost in r["functions"]:
            print(f"  {cost:10,.1f} {cost / (total(r['instructions']) or 1):6.1%}  {function}" + ("" if key == OWN else f"  [{key}]"))


def parse(argv):
    parser = argparse.ArgumentParser(prog="perf/micro", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the names of the stages")
    parser.add_argument("--stage", action="append", default=[], metavar="GLOB", help="only these, for instance 'egress/*'; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few and short batches")
    parser.add_argument("--only", choices=("time", "instructions"), help="measure only this")
    parser.add_argument("--explain", action="store_true", help="name the functions in which the instructions are")
    parser.add_argument("--json", metavar="FILE", help="write the results there, too")
    parser.add_argument("--check", action="store_true", help="count instructions and compare with the baseline; status 1 when a stage grew")
    parser.add_argument("--update-baseline", action="store_true", help="count instructions and make them the baseline")
    parser.add_argument("--baseline", default=BASELINE, metavar="FILE", help="another baseline than perf/micro-baseline.json")
    options = parser.parse_args(argv)
    if options.check and options.update_baseline:
        parser.error("--check and --update-baseline exclude each other")
    if (options.check or options.update_baseline) and options.only == "time":
        parser.error("the baseline has instructions, not times")
    if options.explain and options.only == "time":
        parser.error("--explain is about instructions")
    return options


def main(argv):
    options = parse(argv)
    build()
    listed = stages(options.stage)
    if options.list:
        print("\n".join(r["stage"] for r in listed))
        return 0
    strict = options.check or options.update_baseline
    if strict:
        require_countable()
    baseline = read_baseline(options.baseline) if options.check else None
    results, here = {r["stage"]: r for r in listed}, machine()
    if not strict and options.only != "instructions":
        for r in measure_time(options.stage, len(listed), options.quick):
            if "ns" in r:
                low, mid, high = statistics.quantiles(r["ns"], n=4)
                r.update(ns_low=round(low, 3), ns_median=round(mid, 3), ns_high=round(high, 3))
            results[r["stage"]].update(r)
    if options.only != "time":
        counted, libraries = measure_instructions(options.stage, len(listed))
        here = machine(libraries)
        for r in counted:
            results[r["stage"]].update(r)
    results = list(results.values())

    if options.check and not here["release"]:
        raise CannotCompare("this is no release build")
    # Before anything is printed as if it could be compared.
    verdict = compare(baseline, here, results, options.stage) if options.check else None
    if not baseline and options.only != "time" and os.path.exists(options.baseline):
        baseline = read_baseline(options.baseline)
    print(table(results, baseline["stages"] if baseline else {}))
    if options.explain:
        explain(results)
    print("\nresults:", write_results(results, {"machine": {**here, **hardware()}}, options.json))
    if options.update_baseline:
        write_baseline(options.baseline, here, results, options.stage)
        print("baseline:", os.path.relpath(options.baseline))
    if not options.check:
        return 0
    failures, remarks = verdict
    for text in remarks:
        print("note:", text)
    for text in failures:
        print("FAILED:", text)
    if failures:
        print(f"{len(failures)} of {len(results)} stages do not fit the baseline. perf/micro --only instructions --explain --stage NAME names the functions;\n"
              "if the cost is meant, perf/micro --update-baseline and say why in the commit.")
        return 1
    print(f"{sum('instructions' in r for r in results)} stages: none of those that packets pay for grew by more than {ALLOWED:.0%}")
    return 0


def interrupted(number, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        sys.exit(main(sys.argv[1:]))
    except CannotCompare as e:
        print(f"perf/micro: nothing compared: {e}", file=sys.stderr)
        sys.exit(SKIPPED)
    except Failure as e:
        print(f"perf/micro: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("perf/micro: interrupted", file=sys.stderr)
        sys.exit(130)
