"""perf/micro: what it writes, and that --check can fail and fails for the right reasons."""

import copy
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MICRO = os.path.join(ROOT, "perf", "micro")
SKIPPED = 77

# Calls itself a cipher and only copies.
BROKEN_CIPHER = r"""
#include <string.h>
int crypto_aead_chacha20poly1305_ietf_encrypt(unsigned char *c, unsigned long long *clen, const unsigned char *m, unsigned long long mlen,
	const unsigned char *ad, unsigned long long adlen, const unsigned char *nsec, const unsigned char *npub, const unsigned char *k)
{
	memcpy(c, m, mlen);
	return 0;
}
"""


def micro(*args, env=None, timeout=400):
    p = subprocess.run([MICRO, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
                       env={**os.environ, **(env or {})})
    for line in p.stdout.splitlines():
        if line.startswith("results: "):
            shutil.rmtree(os.path.dirname(os.path.join(os.getcwd(), line.removeprefix("results: ").strip())), ignore_errors=True)
    return p.returncode, p.stdout


def setUpModule():
    """Builds, and makes a baseline of two kinds of stage as they are."""
    global directory, names, baseline, countable
    directory = tempfile.mkdtemp(prefix="sluice-test-micro-")
    unittest.addModuleCleanup(shutil.rmtree, directory, ignore_errors=True)
    status, output = micro("--list", timeout=900)
    if status:
        raise AssertionError(output)
    names = [n for n in output.split("\n") if n and not n.startswith("building ")]  # which is said once, on standard error
    os.environ.setdefault("SLUICE_MICRO", os.path.join(ROOT, "build-micro", "perf", "sluice-micro"))
    path = os.path.join(directory, "baseline.json")
    status, output = micro("--update-baseline", "--baseline", path, "--stage", "ring/*", "--stage", "handshake/session", "--stage", "seal/libsodium/64")
    countable = status != SKIPPED
    if status not in (0, SKIPPED):
        raise AssertionError(output)
    if countable:
        with open(path) as f:
            baseline = json.load(f)


class Micro(unittest.TestCase):
    def assertIn(self, part, text):
        self.assertTrue(part in text, f"{part!r} is not in:\n{text}")

    def test_has_a_stage_for_everything_that_a_packet_meets(self):
        wanted = ["ring/spsc", "ring/mpsc", "ring/pool", "ring/wake-awake", "split/tso4-64k", "split/plain-64", "coalesce/tcp4-run", "gso-queue/run",
                  "replay/in-order", "handshake/initiation-create", "handshake/initiation-consume", "handshake/response-create",
                  "handshake/response-consume", "checksum/1420", "egress/tso-64k/null", "ingress/tso-64k/null"]
        wanted += [f"{do}/libsodium/{n}" for do in ("seal", "open") for n in (64, 256, 576, 1280, 1420)]
        wanted += [f"allowed-ips/v{v}/{n}" for v in (4, 6) for n in (1, 1000, 100000)]
        self.assertEqual([w for w in wanted if w not in names], [])

    def test_results_hold_time_and_instructions(self):
        if not countable:
            self.skipTest("this machine cannot count")
        path = os.path.join(directory, "results.json")
        status, output = micro("--quick", "--stage", "ring/*", "--stage", "replay/in-order", "--json", path, "--explain")
        self.assertEqual(status, 0, output)
        with open(path) as f:
            results = json.load(f)
        self.assertIn("gcc", results["machine"]["compiler"])
        self.assertEqual([r["stage"] for r in results["stages"]], [n for n in names if n.startswith("ring/")] + ["replay/in-order"])
        for r in results["stages"]:
            self.assertEqual(len(r["ns"]), 9)
            self.assertTrue(0 < min(r["ns"]) <= r["ns_low"] <= r["ns_median"] <= r["ns_high"] <= max(r["ns"]) < 1e6, r)
            self.assertTrue(1 < r["instructions"]["own"] < 1000, r)
            self.assertIn(r["stage"], output)
        self.assertIn("spsc_push", output)

    def test_every_stage_runs_and_is_right(self):
        path = os.path.join(directory, "all.json")
        status, output = micro("--only", "time", "--quick", "--json", path)
        self.assertEqual(status, 0, output)
        with open(path) as f:
            self.assertEqual([r["stage"] for r in json.load(f)["stages"] if "ns" not in r and "skipped" not in r], [])

    def test_a_broken_stage_is_no_fast_one(self):
        source, shim = os.path.join(directory, "shim.c"), os.path.join(directory, "shim.so")
        with open(source, "w") as f:
            f.write(BROKEN_CIPHER)
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-w", "-o", shim, source], check=True)
        # The program itself: the shim is for nothing else.
        p = subprocess.run([os.environ["SLUICE_MICRO"], "time", "1", "100", "seal/libsodium/64"], env={**os.environ, "LD_PRELOAD": shim},
                           capture_output=True, text=True)
        self.assertEqual(p.returncode, 1, p)
        self.assertIn("stage seal/libsodium/64 is broken", p.stderr)

    def test_arguments_that_make_no_sense_are_refused(self):
        for args, text in ((("--stage", "no/such"), "no stage is called 'no/such'"), (("--check", "--update-baseline"), "exclude each other"),
                           (("--check", "--only", "time"), "not times"), (("--frobnicate",), "unrecognized"),
                           (("--only", "time", "--quick", "--stage", "ring/spsc", "--json", "/nonexistent/x"), "/nonexistent/x: No such file")):
            status, output = micro(*args)
            self.assertNotEqual(status, 0, output)
            self.assertIn(text, output)
            self.assertNotIn("Traceback", output)

    def test_a_stage_that_is_not_there_lists_those_that_are(self):
        # One pattern that matches does not hide another that does not.
        status, output = micro("--stage", "ring/*", "--stage", "aead*", "--only", "time")
        self.assertEqual(status, 1, output)
        self.assertIn("no stage is called 'aead*'; there are:\n", output)
        self.assertEqual(sorted(output.split("there are:")[1].split()), sorted(names))

    def test_the_machine_is_named_when_only_time_is_measured(self):
        path = os.path.join(directory, "machine.json")
        status, output = micro("--only", "time", "--quick", "--stage", "ring/pool", "--json", path)
        self.assertEqual(status, 0, output)
        with open(path) as f:
            machine = json.load(f)["machine"]
        self.assertIn("gcc", machine["compiler"])
        self.assertTrue(all(machine[k] for k in ("arch", "release", "backends", "cpu", "cpus", "kernel", "date")), machine)

    def test_without_valgrind_it_says_what_to_install(self):
        p = subprocess.run([sys.executable, os.path.join(ROOT, "perf", "micro.py"), "--only", "instructions", "--stage", "ring/spsc"],
                           env={**os.environ, "PATH": directory}, capture_output=True, text=True)
        self.assertEqual(p.returncode, 1)
        self.assertIn("Debian: valgrind", p.stderr)

    def test_an_interrupt_leaves_nothing_behind(self):
        if not countable:
            self.skipTest("this machine cannot count")
        temporary = os.path.join(directory, "tmp")
        os.mkdir(temporary)
        p = subprocess.Popen([MICRO, "--only", "instructions"], env={**os.environ, "TMPDIR": temporary}, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, start_new_session=True)
        end = time.monotonic() + 60
        while not glob.glob(temporary + "/sluice-micro-*/out*") and time.monotonic() < end:
            time.sleep(0.05)
        self.assertTrue(os.listdir(temporary))
        p.send_signal(signal.SIGTERM)
        output = p.communicate(timeout=30)[0]
        self.assertEqual(p.returncode, 130, output)
        self.assertEqual(os.listdir(temporary), [])
        with self.assertRaises(ProcessLookupError):
            os.killpg(p.pid, 0)


class Check(unittest.TestCase):
    """--check against a baseline that is like this machine but for what the test changes."""

    def setUp(self):
        if not countable:
            self.skipTest("this machine cannot count")
        self.baseline = copy.deepcopy(baseline)

    assertIn = Micro.assertIn

    def scale(self, stage, key, factor):
        self.baseline["stages"][stage]["instructions"][key] *= factor

    def check(self, *stages):
        path = os.path.join(directory, "changed.json")
        with open(path, "w") as f:
            json.dump(self.baseline, f)
        args = [a for s in stages or ("ring/*", "handshake/session", "seal/libsodium/64") for a in ("--stage", s)]
        return micro("--check", "--baseline", path, *args)

    def test_an_unchanged_tree_passes(self):
        status, output = self.check()
        self.assertEqual(status, 0, output)
        self.assertFalse("note:" in output or "FAILED" in output, output)

    def test_more_than_five_percent_fails_and_is_named(self):
        self.scale("ring/spsc", "own", 1 / 1.06)
        status, output = self.check()
        self.assertEqual(status, 1, output)
        self.assertIn("FAILED: ring/spsc: ", output)
        self.assertIn("(+6.0%)", output)
        self.assertEqual(output.count("FAILED"), 1, output)

    def test_less_than_five_percent_passes(self):
        self.scale("ring/spsc", "own", 1 / 1.04)
        self.assertEqual(self.check("ring/*")[0], 0)

    def test_own_growth_is_not_hidden_by_a_large_library(self):
        self.scale("seal/libsodium/64", "own", 0.8)
        status, output = self.check("seal/*/64")
        self.assertEqual(status, 1, output)
        self.assertIn("instructions of sluice's own (+25.0%)", output)

    def test_a_gain_is_told(self):
        self.scale("ring/mpsc", "own", 1.5)
        status, output = self.check("ring/*")
        self.assertEqual(status, 0, output)
        self.assertIn("note: ring/mpsc: ", output)
        self.assertIn("--update-baseline", output)

    def test_what_no_packet_pays_for_is_only_noted(self):
        self.scale("handshake/session", "own", 0.5)
        status, output = self.check("handshake/session")
        self.assertEqual(status, 0, output)
        self.assertIn("note: handshake/session: ", output)

    def test_another_version_of_a_library_is_left_out(self):
        library = next(k for k in self.baseline["machine"]["libraries"] if k.startswith("libsodium"))
        self.scale("seal/libsodium/64", library, 0.5)
        status, output = self.check("seal/libsodium/64")
        self.assertEqual(status, 1, output)
        self.baseline["machine"]["libraries"][library] = "libsodium23 0.0.1"
        status, output = self.check("seal/libsodium/64")
        self.assertEqual(status, 0, output)
        self.assertIn("in the baseline libsodium23 0.0.1: its instructions are left out", output)

    def test_another_compiler_is_not_compared(self):
        self.baseline["machine"]["compiler"] = "gcc 99.1.0"
        status, output = self.check("ring/spsc")
        self.assertEqual(status, SKIPPED, output)
        self.assertIn("gcc 99.1.0", output)
        version = baseline["machine"]["compiler"].split(".")
        self.baseline["machine"]["compiler"] = ".".join(version[:-1] + ["99"])
        status, output = self.check("ring/spsc")
        self.assertEqual(status, 0, output)
        self.assertIn("note: compiler: ", output)

    def test_a_new_and_a_lost_stage_ask_for_a_new_baseline(self):
        self.baseline["stages"]["ring/lost"] = self.baseline["stages"].pop("ring/pool")
        status, output = self.check("ring/*")
        self.assertEqual(status, 1, output)
        self.assertIn("ring/pool: is not in the baseline", output)
        self.assertIn("ring/lost: is in the baseline, but there is no such stage", output)

    def test_an_unreadable_baseline_is_named(self):
        path = os.path.join(directory, "none.json")
        status, output = micro("--check", "--stage", "ring/spsc", "--baseline", path)
        self.assertEqual(status, 1)
        self.assertIn(f"{path}: No such file", output)
        with open(path, "w") as f:
            f.write("{}")
        status, output = micro("--check", "--stage", "ring/spsc", "--baseline", path)
        self.assertEqual(status, 1)
        self.assertIn(f"{path} is no baseline", output)

    def test_an_update_of_one_stage_leaves_the_others(self):
        self.scale("ring/spsc", "own", 0.5)
        self.scale("ring/mpsc", "own", 0.5)
        path = os.path.join(directory, "updated.json")
        with open(path, "w") as f:
            json.dump(self.baseline, f)
        status, output = micro("--update-baseline", "--baseline", path, "--stage", "ring/spsc")
        self.assertEqual(status, 0, output)
        with open(path) as f:
            updated = json.load(f)["stages"]
        self.assertEqual(updated["ring/spsc"], baseline["stages"]["ring/spsc"])
        self.assertEqual(updated["ring/mpsc"], self.baseline["stages"]["ring/mpsc"])
        self.assertEqual(list(updated), list(baseline["stages"]))

    def test_the_environment_and_the_path_do_not_count(self):
        elsewhere = os.path.join(directory, "a" * 50)
        os.mkdir(elsewhere)
        program = shutil.copy(os.environ["SLUICE_MICRO"], elsewhere)
        path = os.path.join(elsewhere, "baseline.json")
        status, output = micro("--update-baseline", "--baseline", path, "--stage", "ring/*", "--stage", "handshake/session", "--stage",
                               "seal/libsodium/64", env={"SLUICE_MICRO": program, "FILLER": "x" * 5000, "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable"})
        self.assertEqual(status, 0, output)
        with open(path) as f:
            self.assertEqual(json.load(f), baseline)

    def test_the_tree_fits_its_baseline(self):
        start = time.monotonic()
        status, output = micro("--check")
        if status == SKIPPED:
            self.skipTest(output.strip().splitlines()[-1])
        self.assertEqual(status, 0, output)
        self.assertLess(time.monotonic() - start, 90)


if __name__ == "__main__":
    unittest.main()
