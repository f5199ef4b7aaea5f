#!/usr/bin/env python3
"""Runs the suites of sluice and counts single tests. Started by tests/run, which installs what is needed.

suites: runner (how this program counts), lint (rooms, documents, format, clang-tidy, shellcheck, hardening of what was built), unit (Criterion, one
program a layer; what chooses by the CPU runs again as on lesser CPUs), sim (two devices on a lossy wire), fuzz (replay of the corpora), stress
(threads), e2e (network namespaces), man (the manual page), aarch64 (cross-compilation; optional, skipped when its compiler or libraries are not
there), lab (the commands in perf/, and instructions per packet against the baseline)
builds: gcc, clang (release, warnings are errors); gcc-asan, clang-asan (address and undefined behaviour); tsan (threads)
"""

import argparse
import glob
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FUZZ_SECONDS = 5
BUILDS = os.path.join(ROOT, "build-tests")

SANITIZER_ENV = {
    "ASAN_OPTIONS": "abort_on_error=0:allocator_may_return_null=1:exitcode=99:strict_string_checks=1",
    "LSAN_OPTIONS": "print_suppressions=1:suppressions=" + os.path.join(ROOT, "tests/lib/lsan.supp"),
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=99:second_deadlock_stack=1:print_suppressions=1:suppressions=" + os.path.join(ROOT, "tests/stress/tsan.supp"),
}
# Files of suppressions: the build and the suite whose programs must meet each line (clang's leak checker does not see Criterion's leak each
# time), the file, and a program that is run again with other seeds (up to so many times) while a line has not been met: a race is not seen each time.
SUPPRESSIONS = [("gcc-asan", "unit", "tests/lib/lsan.supp", "", 0), ("tsan", "stress", "tests/stress/tsan.supp", "stress-pipeline", 6)]
# What the sanitizers print of those used, at the end of a program: "  12 race:urcu_qsbr_barrier" (threads), "  3   4096 libcriterion" (leaks).
USED_RE = re.compile(r"^\s*\d+ (\w+:\S+)$|^\s*\d+\s+\d+ (\S+)$", re.M)
ASAN = ["-Dbuildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"]
TSAN = ["-Dbuildtype=debugoptimized", "-Db_sanitize=thread", "-Db_lundef=false"]
# What the programs below find on a CPU that has no more than this. libcrypto does not ask SLUICE_CPU: the bits are those of AVX-512, AVX2 and AVX.
CPU_LIMITS = {
    "avx2": {"SLUICE_CPU": "avx2", "OPENSSL_ia32cap": ":~0xd0230000"},
    "avx": {"SLUICE_CPU": "avx", "OPENSSL_ia32cap": ":~0xd0230020"},
    "sse": {"SLUICE_CPU": "sse", "OPENSSL_ia32cap": "~0x1000000000000000:~0xd0230020"},
} if platform.machine() == "x86_64" else {}
CPU_PROGRAMS = ["unit-ring", "unit-crypto", "unit-tun"]


class Build:
    """A build directory and the suites that run in it."""

    def __init__(self, name, compiler, options, suites, e2e=(), factor=1, cpu_limits=(), lint=()):
        self.name, self.compiler, self.options, self.suites, self.e2e, self.factor = name, compiler, options, suites, list(e2e), factor
        self.cpu_limits, self.lint = cpu_limits, list(lint)
        self.used_suppressions = set()
        self.dir = os.path.join(BUILDS, name)
        self.sluice = os.path.join(self.dir, "sluice")


# Each build type runs what it is best at finding; the whole end-to-end suite runs once, in what users get.
BUILDS_ALL = [
    Build("gcc", "gcc", ["-Dbuildtype=release"], ["lint", "unit", "sim", "fuzz", "stress", "e2e"], cpu_limits=CPU_LIMITS,
          lint=["layers", "documents", "counters", "text", "hardening"]),
    Build("clang", "clang-14", ["-Dbuildtype=release"], ["lint", "unit", "sim", "e2e"],
          ["--quick", "ping*", "tcp*", "udp*", "tun_threads", "flow_order*", "gdb*"], lint=["hardening"]),
    Build("gcc-asan", "gcc", ASAN, ["unit", "sim", "fuzz", "e2e"], ["--quick"], 3),
    Build("clang-asan", "clang-14", ASAN + ["-Dfuzz=true"], ["unit", "sim", "fuzz", "e2e"], ["--quick", "hostile*", "tcp*", "uapi*"], 3),
    Build("tsan", "clang-14", TSAN, ["stress"], [], 5),
]
SUITES = ["runner", "lint", "unit", "sim", "fuzz", "stress", "e2e", "man", "aarch64", "lab"]


class Totals:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lines = []

    def add(self, what, passed, failed, skipped, seconds, note=""):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped
        line = f"{'FAILED' if failed else 'ok':8}{what:32}{passed:6} passed{failed:5} failed{skipped:5} skipped{seconds:8.1f} s{note}"
        self.lines.append(line)
        print(line, flush=True)

    def summary(self):
        """Says again what failed, and adds up. Returns the exit status."""
        for line in self.lines:
            if line.startswith("FAILED"):
                print(line)
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed or not self.passed else 0


ESCAPE_RE = re.compile(r"\x1b\[[0-9;]*m")
totals = Totals()
children = []


def execute(argv, timeout, env=None, stream=False, cwd=ROOT):
    """Runs a command in a process group of its own. Returns (exit status or None after a timeout, output without colours)."""
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                         start_new_session=True, env={**os.environ, **(env or {})}, cwd=cwd)
    children.append(p)
    lines = []
    end = time.monotonic() + timeout
    signal.signal(signal.SIGALRM, lambda *a: end_group(p))
    signal.alarm(max(1, int(timeout)))
    try:
        for line in p.stdout:
            lines.append(ESCAPE_RE.sub("", line))
            if stream:
                print("  " + line, end="", flush=True)
        status = p.wait()
    finally:
        signal.alarm(0)
        children.remove(p)
    return (None if time.monotonic() >= end else status), "".join(lines)


def end_group(p, number=signal.SIGKILL):
    try:
        os.killpg(p.pid, number)
    except ProcessLookupError:
        pass


def show(output, lines=200):
    text = output.splitlines()
    if len(text) > lines:
        print(f"    ({len(text) - lines} lines left out)")
    print("\n".join("    " + line for line in text[-lines:]), flush=True)


def setup(build, targets=()):
    """Configures (afresh) and compiles. Returns whether it worked; a failure counts as one failed test."""
    start = time.monotonic()
    shutil.rmtree(build.dir, ignore_errors=True)
    argv = ["meson", "setup", build.dir, "-Dwerror=true", "-Dtests=enabled"] + build.options
    status, output = execute(argv, 300, {"CC": build.compiler})
    if status == 0:
        status, output = execute(["ninja", "-C", build.dir] + list(targets), 900)
    if status != 0:
        totals.add(f"{build.name}: build", 0, 1, 0, time.monotonic() - start)
        show(output)
        return False
    totals.add(f"{build.name}: build", 1, 0, 0, time.monotonic() - start)
    return True


def test_name(test):
    return test["name"].split(":")[-1].strip()


def suite_of(test):
    """unit-ring -> unit. What has no such prefix belongs to the folder that declares it."""
    name = test_name(test)
    for suite in ("unit", "sim", "fuzz", "stress"):
        if name.split("-")[0] == suite or any(s.split(":")[-1] == suite for s in test["suite"]):
            return suite
    return "unit"


# "Failing" includes what crashed.
CRITERION_RE = re.compile(r"Synthesis: Tested: \D*(\d+)\D* \| Passing: \D*(\d+)\D* \| Failing: \D*(\d+)\D* \| Crashing: \D*(\d+)")
CRITERION_SKIP_RE = re.compile(r"^\[SKIP\] (.*)", re.M)
CRITERION_CHATTER_RE = re.compile(r"^\[(?:RUN |PASS|SKIP)\] .*\n", re.M)
COUNT_RE = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.M)


def counted(status, output):
    """(passed, failed, skipped) of a program's output; one test where it counts nothing itself."""
    m = CRITERION_RE.search(output)
    if m:
        tested, passing, failing, crashing = map(int, m.groups())
        counts = passing, failing, len(CRITERION_SKIP_RE.findall(output))
    elif COUNT_RE.search(output):
        counts = tuple(int(x or 0) for x in COUNT_RE.findall(output)[-1])
    elif status == 77:
        return 0, 0, 1
    else:
        counts = (1, 0, 0) if status == 0 else (0, 1, 0)
    if status != 0 and counts[1] == 0:
        counts = counts[0], 1, counts[2]
    return counts


def remark(program, status, output):
    """What is to be said behind the counts: why a program skipped itself, or how it ended if its counts do not explain that. Mostly nothing."""
    passed, failed, skipped = counted(0, output)
    if CRITERION_RE.search(output) or COUNT_RE.search(output):
        if status == (1 if failed else 0):
            return ""
        but = f", although {failed or 'none'} of its tests failed"
    elif status == 0:
        return ""
    elif status == 77:
        return f"  ({(output.strip() or 'it does not say why').splitlines()[-1]})"
    else:
        but = ""
    if status is None:
        how = "was stopped after its time"
    elif status < 0:
        how = f"was ended by signal {-status} ({signal.Signals(-status).name})"
    else:
        how = f"ended with status {status}"
    return f"  ({program} {how}{but})"


def record(what, program, status, output, seconds, streamed=False):
    """Adds a program that has run to the totals, names what it skipped, and shows its output if something failed."""
    counts = counted(status, output)
    totals.add(what, *counts, seconds, remark(os.path.relpath(program, ROOT), status, output))
    for skipped in CRITERION_SKIP_RE.findall(output):
        print(f"    skipped {skipped}", flush=True)
    if counts[1] and not streamed:
        show(CRITERION_CHATTER_RE.sub("", output))


def run_program(build, test, limit=None):
    """Runs one of meson's tests, as on a CPU that has no more than limit says."""
    start = time.monotonic()
    # Criterion names what it skips only at this level.
    env = {**(SANITIZER_ENV if build.factor > 1 else {}), "CRITERION_VERBOSITY_LEVEL": "1", **test["env"], **(CPU_LIMITS[limit] if limit else {})}
    seconds = test["timeout"] * build.factor if test["timeout"] > 0 else 900
    status, output = execute(test["cmd"], seconds, env, cwd=test["workdir"] or build.dir)
    build.used_suppressions.update(a or b for a, b in USED_RE.findall(output))
    what = f"{build.name}: {test_name(test)}" + (f" SLUICE_CPU={limit}" if limit else "")
    record(what, test["cmd"][0], status, output, time.monotonic() - start)


def check_suppressions(build, name, again, times):
    """Each line of a file of suppressions has a comment with its reason above it, and some program of this build met it."""
    start, complaints, reason, wanted = time.monotonic(), [], False, []
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        for line in f.read().splitlines():
            if line and not line.startswith("#"):
                wanted.append(line)
                if not reason:
                    complaints.append(f"{name}: {line} has no reason above it\n")
            reason = line.startswith("#")

    def unmet():
        # Of a leak, the pattern is printed without its type.
        return [w for w in wanted if not {w, w.removeprefix("leak:")} & build.used_suppressions]

    while unmet() and times:
        run_program(build, again)
        times -= 1
    complaints += [f"{name}: {w} is no longer needed: no program met it\n" for w in unmet()]
    record(f"{build.name}: suppressions", os.path.join(ROOT, name), int(bool(complaints)), "".join(complaints), time.monotonic() - start)


def run_lint(build):
    for name in build.lint:
        start = time.monotonic()
        program = os.path.join(ROOT, f"tests/lint/{name}.py")
        status, output = execute([sys.executable, program, build.dir], 900)
        record(f"{build.name}: {name}", program, status, output, time.monotonic() - start)
        for line in output.splitlines():
            if line.startswith("skipped "):
                print(f"    {line}", flush=True)


def run_programs(build, suites):
    status, output = execute(["meson", "introspect", build.dir, "--tests"], 60)
    tests = json.loads(output)
    for suite in suites:
        mine = [t for t in tests if suite_of(t) == suite]
        for t in mine:
            for limit in [None, *(build.cpu_limits if test_name(t) in CPU_PROGRAMS else ())]:
                run_program(build, t, limit)
        for needed_in, needed_by, name, again, times in SUPPRESSIONS:
            if build.name == needed_in and suite == needed_by:
                check_suppressions(build, name, next((t for t in mine if test_name(t) == again), None), times)
        if suite == "fuzz" and not mine:
            fuzz(build)
        elif not mine:
            totals.add(f"{build.name}: {suite}", 0, 0, 0, 0, "  (this build has no such test)")


def fuzz(build):
    """libFuzzer on each target for a moment, from its corpus on. What it finds new stays in a temporary directory."""
    for program in sorted(p for p in glob.glob(os.path.join(build.dir, "tests/fuzz/fuzz-*")) if os.path.isfile(p)):
        name = os.path.basename(program)
        corpus = os.path.join(ROOT, "tests/fuzz/corpus", name.removeprefix("fuzz-"))
        with tempfile.TemporaryDirectory(prefix="sluice-fuzz-") as found:
            start = time.monotonic()
            # By default what it finds ends it with 77, which means "skipped" here.
            status, output = execute([program, f"-max_total_time={FUZZ_SECONDS}", "-error_exitcode=99", f"-artifact_prefix={found}/", found, corpus], 120, SANITIZER_ENV)
            record(f"{build.name}: {name}", program, status, output, time.monotonic() - start)


def reason_without_netns():
    """Why the end-to-end tests cannot run here, or None."""
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun (modprobe tun)"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as e:
        return f"/dev/net/tun: {e.strerror}" + ("" if os.geteuid() == 0 and not in_user_namespace() else "; run as root")
    p = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
    return f"no namespaces: {p.stderr.strip()}; run as root" if p.returncode else None


def in_user_namespace():
    return "SLUICE_IN_USER_NAMESPACE" in os.environ


def run_e2e(build, arguments, factor):
    start = time.monotonic()
    reason = reason_without_netns()
    if reason:
        totals.add(f"{build.name}: e2e", 0, 0, 1, 0, f"  ({reason})")
        return
    env = {**(SANITIZER_ENV if build.factor > 1 else {}), "SLUICE_BIN": os.environ.get("SLUICE_BIN") or build.sluice}
    program = os.path.join(ROOT, "tests/netns/run")
    argv = [sys.executable, program, "--slow-factor", str(factor)] + arguments
    status, output = execute(argv, 600 * factor, env, stream=True)
    record(f"{build.name}: e2e", program, status, output, time.monotonic() - start, streamed=True)


def run_man():
    start = time.monotonic()
    page = os.path.join(ROOT, "core/sluice.8")
    status, output = execute(["mandoc", "-T", "lint", "-W", "warning", page], 60)
    record("man", shutil.which("mandoc"), status, output, time.monotonic() - start)


def run_aarch64():
    start = time.monotonic()
    program = os.path.join(ROOT, "tests/aarch64/run")
    status, output = execute([program], 600)
    record("aarch64", program, status, output, time.monotonic() - start)


def run_lab():
    start = time.monotonic()
    reason = reason_without_netns()
    if reason:
        totals.add("lab", 0, 0, 1, 0, f"  ({reason})")
        return
    program = os.path.join(ROOT, "tests/lab/run")
    status, output = execute([sys.executable, program], 900, stream=True)
    record("lab", program, status, output, time.monotonic() - start, streamed=True)


def run_runner():
    start = time.monotonic()
    program = os.path.join(ROOT, "tests/lib/test_run.py")
    status, output = execute([sys.executable, program], 60)
    record("runner", program, status, output, time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser(prog="tests/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="suites to run (all)")
    parser.add_argument("--build", action="append", metavar="NAME", help="only in this build; may be repeated")
    parser.add_argument("--quick", action="store_true", help="only the gcc build, and of the end-to-end tests only the quick ones")
    parser.add_argument("--test", action="append", default=[], metavar="NAME", help="only these end-to-end tests")
    options = parser.parse_args()
    for s in options.suites:
        if s not in SUITES:
            parser.error(f"no suite called {s}; there are: {' '.join(SUITES)}")
    for b in options.build or ():
        if b not in [x.name for x in BUILDS_ALL]:
            parser.error(f"no build called {b}; there are: {' '.join(x.name for x in BUILDS_ALL)}")
    suites = options.suites or SUITES
    builds = [b for b in BUILDS_ALL if (b.name in options.build if options.build else not options.quick or b.name == "gcc")]
    start = time.monotonic()

    def interrupted(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        if "runner" in suites:
            run_runner()
        for b in builds:
            mine = [s for s in b.suites if s in suites]
            if not mine:
                continue
            targets = ["sluice"] if mine == ["e2e"] else []
            if not setup(b, targets):
                continue
            if "lint" in mine:
                run_lint(b)
            run_programs(b, [s for s in mine if s not in ("lint", "e2e")])
            if "e2e" in mine:
                arguments = list(b.e2e)
                if options.quick and "--quick" not in arguments:
                    arguments.append("--quick")
                run_e2e(b, arguments + options.test, b.factor)
        if "man" in suites:
            run_man()
        if "aarch64" in suites and not options.quick:
            run_aarch64()
        if "lab" in suites and not options.quick:
            run_lab()
    except KeyboardInterrupt:
        for p in children:
            end_group(p, signal.SIGTERM)
        print("interrupted")
        totals.failed += 1
    print(f"\n{time.monotonic() - start:.0f} s")
    return totals.summary()


if __name__ == "__main__":
    sys.exit(main())
