"""All commands in perf/ check their arguments before they install, build or ask for anything."""

import os
import subprocess
import sys

import commands
from commands import Command

# A command line that is refused, and one that is not.
BAD = {"compare": ("--rounds", "0"), "demo": ("--seconds", "0"), "flamegraph": ("--seconds", "0"), "micro": ("--only", "nothing"),
       "threads": ("--rounds", "0")}
GOOD = {"compare": ("--rounds", "1"), "demo": ("--seconds", "1"), "flamegraph": ("--seconds", "1"), "micro": ("--only", "instructions"),
        "threads": ("--rounds", "1")}
# So that each command misses one of its packages.
HIDDEN = ("perf", "iperf3", "valgrind")


class Arguments(Command):
    def bare(self):
        """The environment of a machine where packages are missing and may not be installed."""
        tools = self.path("bin")
        os.mkdir(tools)
        for d in ("/usr/bin", "/bin"):
            for name in os.listdir(d):
                if not name.startswith(HIDDEN) and not os.path.lexists(os.path.join(tools, name)):
                    os.symlink(os.path.join(d, name), os.path.join(tools, name))
        return {"PATH": tools, "SLUICE_NO_INSTALL": "1", "SLUICE_BIN": "", "SLUICE_MICRO": ""}

    def test_bad_ones_are_refused_before_anything_is_installed(self):
        commands.needs_root()
        env = self.bare()
        for command, words in BAD.items():
            with self.subTest(command):
                out, err = self.run_command(f"perf/{command}", *words, status=2, env=env)
                self.assertIn(f"perf/{command}: error: argument {words[0]}", err)
                self.assertEqual(out, "")
                self.assertNotIn("setup:", err)
        # And that there was something to install.
        for command, words in GOOD.items():
            with self.subTest(command):
                _, err = self.run_command(f"perf/{command}", *words, status=1, env=env)
                self.assertIn("missing (Debian package names)", err)
                self.assertNotIn("Traceback", err)

    def test_bad_ones_are_refused_without_root(self):
        commands.needs_root()
        for command, words in BAD.items():
            with self.subTest(command):
                self.run_command(f"perf/{command}", *words, status=2, prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))

    def test_the_check_needs_only_the_standard_library(self):
        for command, words in BAD.items():
            with self.subTest(command):
                p = subprocess.run([sys.executable, "-S", "-B", os.path.join(commands.ROOT, "perf", f"{command}.py"), *words], capture_output=True, text=True)
                self.assertEqual(p.returncode, 2, p.stderr)

    def test_help_needs_nothing(self):
        env = self.bare()
        for command in BAD:
            with self.subTest(command):
                out, _ = self.run_command(f"perf/{command}", "--help", env=env)
                self.assertIn("usage: perf/", out)
