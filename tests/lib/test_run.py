#!/usr/bin/env python3
"""Tests of how run.py counts what programs print and how they end. Run by tests/run, or alone."""

import contextlib
import io
import os
import sys
import unittest

import run

PROGRAM = "build/unit-some"


def synthesis(tested, passing, failing, crashing):
    return f"[====] Synthesis: Tested: {tested} | Passing: {passing} | Failing: {failing} | Crashing: {crashing} \n"


class Counting(unittest.TestCase):
    def check(self, status, output, counts, remark=""):
        self.assertEqual(run.counted(status, output), counts)
        self.assertEqual(run.remark(PROGRAM, status, output), f"  ({remark})" if remark else "")

    def test_counts_of_criterion(self):
        self.check(0, synthesis(59, 59, 0, 0), (59, 0, 0))
        self.check(1, synthesis(4, 1, 3, 1), (1, 3, 0))  # a crash has failed too, but only once

    def test_skipped_tests_of_criterion_are_counted(self):
        lines = "[RUN ] a::b\n[SKIP] a::b: not on this CPU\n[PASS] a::c: (0.01s)\n[SKIP] a::d: [SKIP] twice in a line\n"
        self.check(0, lines + synthesis(3, 3, 0, 0), (3, 0, 2))
        self.check(0, "[SKIP] a::b: alone\n" + synthesis(0, 0, 0, 0), (0, 0, 1))

    def test_counts_that_a_program_prints(self):
        self.check(0, "7 passed, 0 failed\n", (7, 0, 0))
        self.check(1, "1 passed, 0 failed\nmore\n7 passed, 2 failed, 3 skipped\n", (7, 2, 3))

    def test_program_without_counts_is_one_test(self):
        self.check(0, "", (1, 0, 0))
        self.check(3, "", (0, 1, 0), f"{PROGRAM} ended with status 3")
        self.check(-11, "", (0, 1, 0), f"{PROGRAM} was ended by signal 11 (SIGSEGV)")
        self.check(None, "", (0, 1, 0), f"{PROGRAM} was stopped after its time")

    def test_program_that_skips_itself_is_quoted(self):
        self.check(77, "looking\nneeds a compiler\n", (0, 0, 1), "needs a compiler")
        self.check(77, "", (0, 0, 1), "it does not say why")

    def test_status_that_counts_do_not_explain_is_a_failure_with_a_reason(self):
        for output in (synthesis(59, 59, 0, 0), "59 passed, 0 failed\n"):
            self.check(1, output, (59, 1, 0), f"{PROGRAM} ended with status 1, although none of its tests failed")
            self.check(99, output, (59, 1, 0), f"{PROGRAM} ended with status 99, although none of its tests failed")
            self.check(77, output, (59, 1, 0), f"{PROGRAM} ended with status 77, although none of its tests failed")
            self.check(-6, output, (59, 1, 0), f"{PROGRAM} was ended by signal 6 (SIGABRT), although none of its tests failed")
            self.check(None, output, (59, 1, 0), f"{PROGRAM} was stopped after its time, although none of its tests failed")

    def test_other_ending_than_the_failed_tests_explain_is_said(self):
        output = synthesis(9, 7, 2, 0)
        self.check(1, output, (7, 2, 0))
        self.check(0, output, (7, 2, 0), f"{PROGRAM} ended with status 0, although 2 of its tests failed")
        self.check(-9, output, (7, 2, 0), f"{PROGRAM} was ended by signal 9 (SIGKILL), although 2 of its tests failed")


class Running(unittest.TestCase):
    """run_program() with a shell in place of the program."""

    def setUp(self):
        self.before, run.totals = run.totals, run.Totals()
        self.build = run.Build("some", "cc", [], ["unit"], cpu_limits=run.CPU_LIMITS)
        self.addCleanup(setattr, run, "totals", self.before)

    def run_shell(self, script, name="unit-some", limit=None, timeout=60):
        test = {"name": f"sluice:{name}", "cmd": ["/bin/sh", "-c", script], "env": {}, "timeout": timeout, "workdir": "/"}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            run.run_program(self.build, test, limit)
        return out.getvalue()

    def summary(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = run.totals.summary()
        return status, out.getvalue()

    def test_reason_stands_in_the_line_and_at_the_end(self):
        shell = os.path.relpath("/bin/sh", run.ROOT)
        reason = f"({shell} ended with status 1, although none of its tests failed)"
        self.run_shell("echo '3 passed, 0 failed'")
        line = self.run_shell(f"echo '[WARN] odd'; echo '{synthesis(59, 59, 0, 0)}'; exit 1").splitlines()[0]
        self.assertRegex(line, r"^FAILED  some: unit-some  .* 59 passed +1 failed +0 skipped")
        self.assertTrue(line.endswith(reason), line)
        status, end = self.summary()
        self.assertEqual(status, 1)
        self.assertEqual(end, f"{line}\n62 passed, 1 failed, 0 skipped\n")

    def test_signal_is_named(self):
        self.assertIn("was ended by signal 11 (SIGSEGV)", self.run_shell("kill -SEGV $$"))

    def test_end_of_the_time_is_said(self):
        self.assertIn("was stopped after its time", self.run_shell("echo '3 passed, 0 failed'; sleep 30", timeout=1))

    def test_what_is_skipped_is_named_and_no_failure(self):
        out = self.run_shell(f"printf '\\033[0;33m[SKIP]\\033[0m a::b: not here\\n'; echo '{synthesis(2, 2, 0, 0)}'")
        self.assertRegex(out, r"^ok .* 2 passed +0 failed +1 skipped")
        self.assertIn("    skipped a::b: not here\n", out)
        self.assertEqual(self.summary(), (0, "2 passed, 0 failed, 1 skipped\n"))

    def test_failure_shows_its_output_without_what_passed(self):
        out = self.run_shell(f"echo '[RUN ] a::b'; echo '[PASS] a::b: (0s)'; echo '[FAIL] a::c'; echo '{synthesis(2, 1, 1, 0)}'; exit 1")
        self.assertIn("    [FAIL] a::c\n", out)
        self.assertNotIn("a::b", out)

    @unittest.skipUnless(run.CPU_LIMITS, "the limits are for x86-64")
    def test_limit_of_the_cpu_is_a_line_of_its_own(self):
        for limit in run.CPU_LIMITS:
            self.assertIn(f"some: unit-tun SLUICE_CPU={limit} ", self.run_shell(f'test "$SLUICE_CPU" = {limit} && test "$OPENSSL_ia32cap"', "unit-tun", limit))
        self.assertEqual(self.summary()[0], 0)


class Programs(unittest.TestCase):
    """run_programs() with the list of tests that meson would give."""

    def test_cpu_limits_are_for_what_chooses_by_the_cpu(self):
        tests = '[{"name": "unit-tun", "suite": []}, {"name": "unit-udp", "suite": []}, {"name": "sim", "suite": ["sim"]}]'
        ran = []
        for name, value in (("execute", lambda *a: (0, tests)), ("run_program", lambda b, t, limit: ran.append((t["name"], limit)))):
            self.addCleanup(setattr, run, name, getattr(run, name))
            setattr(run, name, value)
        run.run_programs(run.Build("some", "cc", [], [], cpu_limits=["avx2", "sse"]), ["unit", "sim"])
        self.assertEqual(ran, [("unit-tun", None), ("unit-tun", "avx2"), ("unit-tun", "sse"), ("unit-udp", None), ("sim", None)])
        ran.clear()
        run.run_programs(run.Build("some", "cc", [], []), ["unit"])
        self.assertEqual(ran, [("unit-tun", None), ("unit-udp", None)])


def main():
    result = unittest.TextTestRunner(stream=sys.stdout).run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed, {len(result.skipped)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
