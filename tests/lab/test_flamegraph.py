"""perf/flamegraph: what it writes, what it refuses, what it leaves behind."""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

import commands
from commands import Command

sys.path.insert(0, os.path.join(commands.ROOT, "perf"))
sys.dont_write_bytecode = True

import compare  # first: it makes lib known
import flamegraph
import lib

# How a sample begins in what profiler.firefox.com takes for the output of perf script: name, process/thread, time, event.
SAMPLE_RE = re.compile(r"^(\S.*?)\s+(\d+)/(\d+)\s+[\d.]+:\s+\d+ cpu-clock")


def bind(text, path):
    """In a mount namespace of its own, puts a file over one in /proc/sys."""
    return f"printf '%s\\n' {text} >/tmp/$$ && mount --bind /tmp/$$ {path} && rm /tmp/$$"


class Stacks(Command):
    META = {"of": "it", "machine": "here", "seconds": 2, "frequency": 997, "threads": ["state", "tun-rx0", "udp-tx"], "interface": "wg0",
            "gbit_s": 4.0, "cpu_s_per_gb": 1.5, "parts": {"cipher": 1, "kernel copies": 1, "thread switches": 0, "TUN": 0, "UDP": 1, "own code": 0, "other": 0}}

    def test_summary_tells_threads_stacks_and_who_was_idle(self):
        stacks = flamegraph.read_folded("state;start_thread;run;seal 600000\nstate;start_thread;run;do_poll_[k] 200000\n"
                                        "udp-tx;start_thread;send 200000\n")
        text = flamegraph.summary(stacks, self.META)
        self.assertIn("1.00 s of processor time in 2 s", text)
        self.assertRegex(text, r"state +80.0% of it, +40.0% of a core")
        self.assertIn("no samples: tun-rx0", text)
        self.assertIn("4.00 Gbit/s over wg0 (both directions), 1.500 CPU s/GB", text)
        shares = re.findall(r"^([a-zA-Z ]+?) +([\d.]+)% +([\d.]+) +([\d,]+)", text.split("where the time went")[1].split("\n\n")[0], re.M)
        self.assertEqual([s[0] for s in shares], [*flamegraph.PARTS, "all"])
        self.assertEqual(shares[0], ("cipher", "33.4", "0.500", "1"))
        self.assertEqual(sum(round(10 * float(s[1])) for s in shares[:-1]), 1000)
        self.assertEqual(shares[-1], ("all", "100.0", "1.500", "3"))
        self.assertLess(text.index("where the time went"), text.index("== state"))
        self.assertIn(" 75.0%  start_thread > run > seal\n", text)
        self.assertIn(" 25.0%  do_poll\n", text)

    def test_rounded_shares_add_up(self):
        for counts in ([1, 1, 1], [7, 0, 0, 1], [1, 2, 4, 8, 16, 32, 64], [333, 333, 334], [1] * 7):
            shares = flamegraph.percentages(counts)
            self.assertEqual(sum(round(10 * s) for s in shares), 1000, counts)
            for s, n in zip(shares, counts):
                self.assertLess(abs(s - 100 * n / sum(counts)), 0.1, counts)

    def test_a_stack_counts_for_the_part_nearest_to_its_end(self):
        kernel, own, libc, cipher = "[kernel.kallsyms]", "/usr/bin/sluice", "/usr/lib/libc.so.6", "/usr/lib/libIPSec_MB.so.1"
        out = (("ffffffff81000001", "do_syscall_64", kernel), ("7f0000000001", "writev", libc), ("550000000001", "write_frame", own))
        for part, *frames in (
                ("cipher", ("7f0000000002", "wrong_name", cipher), ("550000000002", "seal_next", own)),
                ("cipher", ("7f0000000002", "__memset", libc), ("7f0000000003", "[unknown]", cipher)),
                ("own code", ("7f0000000002", "__memmove", libc), ("550000000002", "seal_next", own)),
                ("own code", ("550000000002", "seal_next", own), ("7f0000000002", "start_thread", libc)),
                ("kernel copies", ("ffffffff81000002", "_copy_from_iter", kernel), ("ffffffff81000003", "tun_get_user", kernel), *out),
                ("kernel copies", ("ffffffff81000002", "_copy_to_iter", kernel), ("ffffffff81000003", "udp_recvmsg", kernel)),
                ("thread switches", ("ffffffff81000002", "finish_task_switch.isra.0", kernel), ("ffffffff81000003", "__schedule", kernel)),
                ("thread switches", ("ffffffff81000002", "_raw_spin_unlock_irqrestore", kernel), ("ffffffff81000003", "sock_def_readable", kernel),
                 ("ffffffff81000004", "tun_net_xmit", kernel)),
                ("TUN", ("ffffffff81000002", "tcp_ack", kernel), ("ffffffff81000003", "tun_get_user", kernel), *out),
                ("TUN", *out),
                ("UDP", ("ffffffff81000002", "__ip_append_data", kernel), ("ffffffff81000003", "udp_sendmsg", kernel)),
                ("UDP", ("ffffffff81000002", "__check_object_size", kernel), ("ffffffff81000003", "___sys_recvmsg", kernel)),
                ("other", ("ffffffff81000002", "handle_softirqs", kernel), ("ffffffff81000003", "asm_sysvec_apic_timer_interrupt", kernel),
                 ("ffffffff81000004", "_copy_to_iter", kernel)),
                ("other", ("ffffffff81000002", "asm_exc_page_fault", kernel), ("550000000002", "seal_next", own)),
                ("other", ("7f0000000002", "[unknown]", "[unknown]"))):
            text = "x 1/1 1.0: 1 cpu-clock: \n" + "".join(f"\t{address} {name}+0x1f ({module})\n" for address, name, module in frames)
            self.assertEqual({p: n for p, n in flamegraph.parts_of(text).items() if n}, {part: 1}, frames)

    def test_summary_tells_the_circumstances(self):
        known = {"version": "sluice 0.1.0", "commit": "0123456789ab", "build": "release, frame_pointers", "sha256": "00"}
        text = flamegraph.summary({("state", "start_thread", "seal"): 1000},
                                  {**self.META, "program": known, "cipher": "ipsec-mb", "foreign_percent": 12.0, "steal_percent": 0.0})
        self.assertIn("commit 0123456789ab, build type release, frame_pointers, cipher ipsec-mb", text)
        self.assertIn("Others took 12.0% of the CPU time while it was measured", text)

    def test_stacks_without_a_beginning_are_noticed(self):
        whole = {("state", "start_thread", "seal"): 3, ("state", "[unknown]", "seal"): 1}
        self.assertEqual(flamegraph.cut_off(whole), 0.25)


class Differences(Command):
    """Of recordings that are made up."""

    def recording(self, name, parts, stacks, **changes):
        os.mkdir(self.path(name))
        meta = {"of": "a gateway", "load": {"workload": "both", "tun_threads": 2}, "machine": "a CPU, 2026-01-01", "seconds": 2, "frequency": 1000,
                "call_graph": "fp", "interface": "wg0", "gbit_s": 4.0, "cpu_s_per_gb": 2.0, "parts": parts}
        with open(self.path(f"{name}/recording.json"), "w") as f:
            json.dump({**meta, **changes}, f)
        with open(self.path(f"{name}/all.folded"), "w") as f:
            f.writelines(f"state;start_thread;{function} {1000 * samples}\n" for function, samples in stacks.items())
        return flamegraph.Recording(self.path(name))

    def pair(self, **changes):
        return (self.recording("a", {"cipher": 600, "TUN": 400}, {"seal": 600, "tun": 400}),
                self.recording("b", {"cipher": 700, "TUN": 410}, {"seal": 700, "tun": 410}, **changes))

    def test_cost_is_per_gigabyte_and_small_changes_are_noise(self):
        a, b = self.pair(cpu_s_per_gb=2.22)
        rows = flamegraph.Scale(a, b).table("all", a.meta["parts"], b.meta["parts"])
        self.assertEqual(rows[1], "== all, CPU ms/GB")
        # 600 of 1,000 samples of 2 s/GB, then 700 of 1,110 of 2.22: a deviation of 44 ms.
        self.assertRegex(rows[3], r"^ +\+200\.0 +1200\.0 -> +1400\.0 +600 -> +700 {9}cipher$")
        self.assertRegex(rows[4], r"^ +\+20\.0 +800\.0 -> +820\.0 +400 -> +410  noise  TUN$")

    def test_without_cost_shares_are_compared(self):
        a, b = self.pair(cpu_s_per_gb=None)
        rows = flamegraph.Scale(a, b).table("all", a.meta["parts"], b.meta["parts"])
        self.assertEqual(rows[1], "== all, % of the time")
        self.assertRegex(rows[3], r"^ +\+3\.1 +60\.0 -> +63\.1 +600 -> +700  noise  cipher$")
        self.assertIn("CPU per gigabyte is not known of both", " ".join(flamegraph.doubts(a, b)))

    def test_what_cannot_be_compared_is_told(self):
        a = self.recording("a", {"TUN": 1}, {"tun": 1})
        for i, (changes, text) in enumerate((({"load": {"workload": "udp", "tun_threads": 2}}, "the workloads differ"), ({"load": None}, "the workloads differ"),
                                             ({"machine": "another, 2026-01-01"}, "the machines differ"), ({"call_graph": "dwarf"}, "DWARF"),
                                             ({"gbit_s": 2.0}, "4.00 and 2.00 Gbit/s"))):
            found = flamegraph.doubts(a, self.recording(f"b{i}", {"TUN": 1}, {"tun": 1}, **changes))
            self.assertEqual(len(found), 1, found)
            self.assertIn(text, found[0])
        same = self.recording("same", {"TUN": 1}, {"tun": 1}, machine="a CPU, 2026-02-02", gbit_s=3.9)
        self.assertEqual(flamegraph.doubts(a, same), [])
        one, two = (self.recording(name, {"TUN": 1}, {"tun": 1}, load=None) for name in ("one", "two"))
        self.assertIn("traffic of their own", flamegraph.doubts(one, two)[0])


class Recording(Command):
    """Takes one recording of the demo load, which most tests look at."""

    @classmethod
    def setUpClass(cls):
        commands.needs_root()
        cls.directory_of_class = tempfile.mkdtemp(prefix="sluice-lab-flamegraph-")
        cls.addClassCleanup(shutil.rmtree, cls.directory_of_class)
        cls.recording = os.path.join(cls.directory_of_class, "one")
        # It builds its own program: the one of SLUICE_BIN may lack frame pointers.
        env = {k: v for k, v in os.environ.items() if k != "SLUICE_BIN"}
        p = subprocess.run([os.path.join(commands.ROOT, "perf/flamegraph"), "--seconds", "2", "--out", cls.recording], capture_output=True, text=True,
                           env=env, timeout=600)
        if p.returncode:
            raise AssertionError(p.stdout + p.stderr)
        cls.output = p.stdout

    def words(self, path):
        root = ElementTree.parse(path).getroot()
        self.assertEqual(root.tag, commands.SVG + "svg")
        return "".join(root.itertext())

    def test_svgs_show_threads_and_functions(self):
        words = self.words(f"{self.recording}/all.svg")
        for name in ("state", "udp-tx", "udp-rx", "egress_train", "ingress_open", "start_thread", "do_syscall_64"):
            self.assertIn(name, words)
        self.assertRegex(words, r"tun-rx[01]")
        self.assertRegex(words, r"(?i)seal")
        self.assertIn("function zoom", words)  # interactive, and all of it in the one file
        self.assertNotIn("<script src", open(f"{self.recording}/all.svg").read())
        state = self.words(f"{self.recording}/state.svg")
        self.assertIn("egress_train", state)
        self.assertNotIn("ingress_open", state)

    def test_one_svg_for_each_thread_that_ran(self):
        with open(f"{self.recording}/all.folded") as f:
            threads = {line.split(";")[0] for line in f}
        self.assertGreaterEqual(len(threads), 4)
        drawn = {os.path.basename(p)[:-4] for p in glob.glob(f"{self.recording}/*.svg")}
        self.assertEqual(drawn, threads | {"all"})
        for t in threads:
            self.words(f"{self.recording}/{t}.svg")

    def test_the_profile_is_what_the_firefox_profiler_reads(self):
        with open(f"{self.recording}/profile.perf") as f:
            text = f.read()
        self.assertRegex(text.splitlines()[0], SAMPLE_RE)
        samples = text.strip().split("\n\n")
        self.assertGreater(len(samples), 50)
        names = set()
        for s in samples:
            first, *frames = s.splitlines()
            m = SAMPLE_RE.match(first)
            self.assertTrue(m, first)
            names.add(m.group(1))
            for frame in frames:
                self.assertRegex(frame, r"^\s*\w+\s*.+ \(\S.*\)$")
        self.assertLessEqual({"state", "udp-tx", "udp-rx"}, names)

    def test_summary_is_written_and_shown(self):
        with open(f"{self.recording}/summary.txt") as f:
            text = f.read()
        self.assertIn(text, self.output)
        self.assertIn("== state: top stacks", text)
        self.assertRegex(text, r"\d% {2}start_thread > run_\w+ > ")
        with open(f"{self.recording}/recording.json") as f:
            meta = json.load(f)
        self.assertEqual(meta["load"], {"workload": "both", "tun_threads": 2})
        self.assertGreater(meta["gbit_s"], 0.1)
        self.assertGreater(meta["cpu_s_per_gb"], 0.1)
        # Every sample counts once, and those of a loaded gateway are known: no part of them is 'other' by more than interrupts.
        with open(f"{self.recording}/profile.perf") as f:
            self.assertEqual(sum(meta["parts"].values()), len(f.read().strip().split("\n\n")))
        for part in ("cipher", "kernel copies", "thread switches", "own code"):
            self.assertGreater(meta["parts"][part], 0, meta["parts"])
        self.assertLess(meta["parts"]["other"], 0.3 * sum(meta["parts"].values()))

    def test_stacks_of_a_default_build_are_whole(self):
        with open(f"{self.recording}/all.folded") as f:
            self.assertLess(flamegraph.cut_off(flamegraph.read_folded(f.read())), 0.5)
        self.assertNotIn("are cut off", self.output)

    def test_difference_of_two_recordings(self):
        # The second is the first with a function more under the sealing: that is what has grown.
        other = self.path("other")
        os.mkdir(other)
        with open(f"{self.recording}/all.folded") as f:
            lines = f.readlines()
        grown = [re.sub(r" (\d+)$", r";made_up \1", line) if "egress_train" in line else line for line in lines]
        self.assertNotEqual(grown, lines)
        with open(f"{other}/all.folded", "w") as f:
            f.writelines(grown)
        shutil.copy(f"{self.recording}/recording.json", other)
        text, _ = self.run_command("perf/flamegraph", "--diff", self.recording, other, "--out", self.path("diff"))
        for line in text.splitlines()[:2]:
            self.assertIn("a gateway with 2 TUN threads under one TCP stream in each direction", line)
            self.assertRegex(line, r"[\d.]+ Gbit/s over wg0 .*[\d.]+ CPU s/GB; [\d,]+ samples$")
        first = text.split("== state: own time, CPU ms/GB")[1].splitlines()[2]
        self.assertRegex(first, r"^ +\+\d+\.\d +0\.0 -> +\d+\.\d +0 -> +\d+ .* made_up$")
        self.assertIn("made_up", self.words(self.path("diff/all.svg")))
        self.assertIn("difference", self.words(self.path("diff/all.svg")))
        self.assertIn("egress_train", self.words(self.path("diff/state.svg")))
        # The difference of a recording to itself is none.
        text, _ = self.run_command("perf/flamegraph", "--diff", self.recording, self.recording, "--out", self.path("same"))
        changes = re.findall(r"^ *([-+]\d+\.\d) .* (noise) ", text, re.M)
        self.assertGreater(len(changes), len(flamegraph.PARTS))
        self.assertEqual({float(x) for x, _ in changes}, {0.0}, text)
        self.assertEqual(len(changes), sum(" -> " in line for line in text.split("== where")[1].splitlines()), text)

    def test_opens_in_a_browser(self):
        browser = shutil.which("chromium")
        if not browser:
            raise unittest.SkipTest("chromium is not installed")
        # With a search in the address, as a reader would type it after Ctrl-F: the script has run when the matches are counted.
        argv = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1450,1000", f"--user-data-dir={self.path('profile')}",
                "--virtual-time-budget=5000"]
        shot = self.path("shot.png")
        subprocess.run(argv + [f"--screenshot={shot}", f"file://{self.recording}/all.svg?s=egress_train"], capture_output=True, timeout=120, check=True)
        with open(shot, "rb") as f:
            self.assertEqual(f.read(8), b"\x89PNG\r\n\x1a\n")
        p = subprocess.run(argv + ["--dump-dom", f"file://{self.recording}/all.svg?s=egress_train"], capture_output=True, text=True, timeout=120)
        self.assertRegex(p.stdout, r"Matched: [1-9][\d.]*%")

    def test_attaches_to_an_interface_and_to_a_process(self):
        self.assertEqual(lib.sandbox(self.attached), 0)
        self.assert_nothing_left()

    def attached(self):
        os.environ.update(LAB_TEST=self.directory, TMPDIR=self.scratch)
        tempfile.tempdir = self.directory
        import threads_load

        bed = threads_load.Bed(commands.binary(), 1, 1420)
        # Not under flamegraph's own load but under this one.
        load = flamegraph.Load(threads_load.WORKLOADS["stream"], bed, 8)
        load.start()
        command = os.path.join(commands.ROOT, "perf/flamegraph")
        for i, target in enumerate(("wg0", bed.pids[0])):
            out = self.path(f"attached{i}")
            text = bed.n1.out(command, target, "--seconds", 1, "--out", out, timeout=60)
            self.assertIn("tun-rx0", text)
            self.assertIn("state", self.words(f"{out}/all.svg"))
            with open(f"{out}/recording.json") as f:
                self.assertEqual(json.load(f)["seconds"], 1)
        load.join()
        # Idle: nothing to draw, and it says so.
        p = bed.n1.run(command, "wg0", "--seconds", 0.2, "--frequency", 1, "--out", self.path("idle"), ok=False, timeout=60)
        self.assertEqual(p.returncode, 1, p.stdout)
        self.assertIn("it was idle", p.stdout)
        self.assertFalse(os.path.exists(self.path("idle")))
        p = bed.n1.run(command, "wg7", ok=False)
        self.assertIn("no sluice serves wg7 here", p.stdout)
        self.assertIn("there are sockets of: wg0", p.stdout)
        bed.close()
        return 0

    def test_an_interrupt_leaves_nothing_behind(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            out = self.path("interrupted")
            status, text = self.interrupt("perf/flamegraph", "--seconds", 20, "--out", out, when="recording", signum=signum)
            self.assertEqual(status, 130, text)
            self.assertFalse(os.path.exists(out))
            self.assert_nothing_left()


class Refusals(Command):
    def refused(self, *argv, status=2, text, **kw):
        _, err = self.run_command("perf/flamegraph", *argv, status=status, **kw)
        self.assertIn(text, err)

    def test_bad_arguments(self):
        self.refused("--seconds", "0", text="more than 0")
        self.refused("--frequency", "x", text="invalid")
        self.refused("--call-graph", "lbr", text="choose from")
        self.refused("wg0", "--workload", "udp", text="belong to the demo load")
        self.refused("--diff", "a", text="expected 2 arguments")
        self.refused("--diff", self.path("a"), self.path("b"), status=1, text="is not a recording")
        self.refused("nowhere0", status=1, text="no sluice serves nowhere0 here")
        self.refused("999999999", status=1, text="there is no process 999999999")
        self.refused(str(os.getpid()), status=1, text=", not sluice")

    def test_a_directory_in_use_is_left_alone(self):
        commands.needs_root()
        folded = self.path("a")
        os.mkdir(folded)
        with open(f"{folded}/all.folded", "w") as f:
            f.write("state;start_thread;seal 5\n")
        with open(f"{folded}/recording.json", "w") as f:
            json.dump({"of": "it", "machine": "here", "frequency": 997, "parts": {"cipher": 1}}, f)
        with open(self.path("tmp/mine"), "w") as f:
            f.write("mine")
        self.refused("--diff", folded, folded, "--out", self.path("tmp"), status=1, text="is not empty")
        self.assertEqual(os.listdir(self.path("tmp")), ["mine"])

    def test_missing_permissions_are_named_with_the_fix(self):
        commands.needs_root()
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
        self.refused(prefix=nobody, status=1, text="run it as root")
        # A process named sluice that belongs to that user, and a kernel that does not let him profile it.
        fake = os.path.join(self.directory, "sluice")
        shutil.copy(shutil.which("sleep"), fake)
        os.chmod(self.directory, 0o755)
        os.chmod(self.scratch, 0o777)
        script = f"{bind(2, '/proc/sys/kernel/perf_event_paranoid')}; exec {' '.join(nobody)} sh -c '{fake} 60 & perf/flamegraph $!; s=$?; kill $!; exit $s'"
        p = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, cwd=commands.ROOT)
        self.assertEqual(p.returncode, 1, p.stdout + p.stderr)
        self.assertIn("sysctl kernel.perf_event_paranoid=1", p.stderr)

    def test_hidden_kernel_addresses_are_named_with_the_fix(self):
        commands.needs_root()
        script = f"{bind(2, '/proc/sys/kernel/kptr_restrict')}; exec /usr/bin/python3 -B -c 'import flamegraph; flamegraph.check_kernel()'"
        p = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, cwd=os.path.join(commands.ROOT, "perf"))
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("sysctl kernel.kptr_restrict=0", p.stdout)

    def test_a_missing_package_is_named(self):
        commands.needs_root()
        # A path without perf, and no leave to install it.
        tools = self.path("bin")
        os.mkdir(tools)
        for d in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
            for name in os.listdir(d):
                if not name.startswith("perf") and not os.path.lexists(os.path.join(tools, name)):
                    os.symlink(os.path.join(d, name), os.path.join(tools, name))
        fake = os.path.join(self.directory, "sluice")
        shutil.copy(shutil.which("sleep"), fake)
        p = subprocess.Popen([fake, "60"])
        try:
            # tests/lib/setup.sh adds /usr/sbin, where perf is not.
            _, err = self.run_command("perf/flamegraph", p.pid, status=1, env={"PATH": tools, "SLUICE_NO_INSTALL": "1"})
        finally:
            p.kill()
            p.wait()
        self.assertIn("missing (Debian package names): linux-perf", err)
