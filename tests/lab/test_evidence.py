"""perf/evidence.py: the load of others, what is known of a program, and the test for differences."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import commands

sys.path.insert(0, os.path.join(commands.ROOT, "perf"))
sys.dont_write_bytecode = True

import evidence


class Evidence(unittest.TestCase):
    def test_rank_sum_is_the_share_of_all_ways_to_deal_the_ranks(self):
        for seed in range(100):
            chance = random.Random(seed)
            a, b = ([chance.randrange(8) for _ in range(chance.randrange(1, 6))] for _ in range(2))
            both = sorted(a + b)
            rank = {x: sum(i for i, y in enumerate(both) if y == x) / both.count(x) for x in both}
            off = [abs(sum(rank[x] for x in deal) - len(a) * (len(both) - 1) / 2) for deal in itertools.combinations(both, len(a))]
            mine = abs(sum(rank[x] for x in a) - len(a) * (len(both) - 1) / 2)
            self.assertAlmostEqual(evidence.rank_sum(a, b), sum(x >= mine - 1e-9 for x in off) / len(off), msg=f"seed {seed}: {a} {b}")

    def test_words(self):
        self.assertEqual(evidence.difference([1, 2, 3], [4, 5, 6]), "too few rounds to tell")
        self.assertEqual(evidence.difference([1, 2, 3, 4], [5, 6, 7, 8]), "significant (p = 0.029)")
        self.assertEqual(evidence.difference([1, 2, 3, 6], [4, 5, 7, 8]), "no significant difference (p = 0.11)")
        self.assertEqual(evidence.difference([5] * 5, [5] * 5), "no significant difference (p = 1)")

    def test_the_load_of_others_is_what_is_not_ours(self):
        """A process that spins is found while it is somebody else's, and not while it is ours."""
        spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            theirs, ours = evidence.Others(lambda: 0), evidence.Others(lambda: evidence.family_seconds(spin.pid))
            before = evidence.family_seconds(spin.pid)
            time.sleep(1)
            took = 100 * (evidence.family_seconds(spin.pid) - before) / os.cpu_count()
            with_it, without = (x.stop()["foreign_percent"] for x in (theirs, ours))
            self.assertGreater(took, 5)
            self.assertAlmostEqual(with_it - without, took, delta=0.5 * took)
        finally:
            spin.kill()
            spin.wait()

    def test_the_time_of_ended_children_stays_ours(self):
        before = evidence.family_seconds()
        subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
        self.assertGreater(evidence.family_seconds() - before, 0.25)

    def test_load_line(self):
        self.assertIsNone(evidence.load_line([{}]))
        self.assertEqual(evidence.load_line([{"steal_percent": 0.0, "foreign_percent": 1.5}]),
                         "Others took 1.5% of the CPU time while it was measured, none of it steal")
        self.assertEqual(evidence.load_line([{"steal_percent": 4.0, "foreign_percent": 2.0}, {"steal_percent": 0.0, "foreign_percent": 1.0}]),
                         "Others took 3.5% of the CPU time (median; 1.0–6.0%) during 2 measurements, of which steal at most 4.0%; "
                         "the machine was not quiet: more than 5% in 1 of 2")

    def test_cipher(self):
        log = ("info  crypto: cipher libcrypto: 9.4 Gbit/s\ninfo  crypto: cipher ipsec-mb: 20.9 Gbit/s, chosen\n"
               "info  crypto: cipher libsodium: 8.6 Gbit/s\n")
        self.assertEqual(evidence.cipher_in_log(log), "ipsec-mb")
        self.assertEqual(evidence.cipher_in_log("info  crypto: cipher libsodium, as asked for\n"), "libsodium")
        self.assertIsNone(evidence.cipher_in_log(""))

    def test_a_program_outside_of_a_build_directory_has_no_commit(self):
        known = evidence.program("/bin/true")
        self.assertEqual((known["commit"], known["build"]), (None, None))
        self.assertIn("commit not known, build type not known, cipher not known", evidence.program_line(known, [None]))

    def test_a_build_directory_knows_commit_and_build_type(self):
        with tempfile.TemporaryDirectory() as directory:
            source, build = f"{directory}/source", f"{directory}/source/build"
            git = ("git", "-C", source, "-c", "user.name=x", "-c", "user.email=x@example.org")
            os.makedirs(f"{build}/meson-info")
            with open(f"{source}/a.c", "w") as f:
                f.write("int a;\n")
            for argv in (("git", "init", "-q", source), (*git, "add", "a.c"), (*git, "commit", "-q", "-m", "x")):
                subprocess.run(argv, check=True)
            commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
            for name, content in (("meson-info", {"directories": {"source": source}}),
                                  ("intro-buildoptions", [{"name": "buildtype", "value": "release"}, {"name": "b_lto", "value": False},
                                                          {"name": "b_sanitize", "value": "address"}, {"name": "frame_pointers", "value": True}])):
                with open(f"{build}/meson-info/{name}.json", "w") as f:
                    json.dump(content, f)
            shutil.copy("/bin/true", f"{build}/sluice")
            known = evidence.program(f"{build}/sluice")
            self.assertEqual((known["commit"], known["build"]), (commit, "release, frame_pointers, b_sanitize=address"))
            with open(f"{source}/a.c", "a") as f:
                f.write("int b;\n")
            os.utime(f"{build}/sluice", (1, 1))
            self.assertEqual(evidence.program(f"{build}/sluice")["commit"], f"{commit} with changes or older")
