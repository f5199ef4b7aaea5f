"""perf/threads: what it writes, what it refuses, what it leaves behind."""

import json
import os
import signal
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import commands
from commands import Command

sys.path.insert(0, os.path.join(commands.ROOT, "perf"))
sys.dont_write_bytecode = True

import compare  # first: it makes lib known
import lib
import threads_attach
import threads_report


def run_of(n, workload, **result):
    return {"round": 0, "n": n, "workload": workload, "result": {"busy": {"state": 0.5}, **result}}


class Recommendation(Command):
    def recommend(self, figures):
        """figures: {workload: {N: [Gbit/s]}}"""
        runs = [run_of(n, w, gbit_s=x) for w, by_n in figures.items() for n, values in by_n.items() for x in values]
        return threads_report.recommend(threads_report.summarise(runs), runs)

    def test_takes_the_smallest_within_five_percent(self):
        self.assertEqual(self.recommend({"stream": {1: [9.6, 9.6, 9.6], 2: [10, 10, 10], 4: [10.01, 10.01, 10.01]}})["n"], 1)
        self.assertEqual(self.recommend({"stream": {1: [9.4, 9.4, 9.4], 2: [10, 10, 10], 4: [10.01, 10.01, 10.01]}})["n"], 2)

    def test_goes_by_medians_not_by_the_best_run(self):
        self.assertEqual(self.recommend({"stream": {1: [5, 5, 100], 2: [10, 10, 10]}})["n"], 2)

    def test_weighs_workloads_equally_whatever_their_units(self):
        runs = [run_of(1, "stream", gbit_s=10), run_of(2, "stream", gbit_s=9), run_of(1, "udp", pps=100000), run_of(2, "udp", pps=400000)]
        self.assertEqual(threads_report.recommend(threads_report.summarise(runs), runs)["n"], 2)

    def test_says_where_another_number_would_do_better(self):
        r = self.recommend({"a": {1: [10], 2: [6]}, "b": {1: [10], 2: [6]}, "c": {1: [9], 2: [10]}})
        self.assertEqual(r["n"], 1)
        self.assertIn("for c alone, N=2 would do better", r["why"])

    def test_leaves_out_a_number_without_a_run_in_some_workload(self):
        self.assertEqual(self.recommend({"a": {1: [1], 2: [5], 3: [9]}, "b": {1: [1], 2: [5]}})["n"], 2)


class InNamespaces(Command):
    @classmethod
    def setUpClass(cls):
        commands.needs_root()
        cls.env = {"SLUICE_BIN": commands.binary()}

    def test_writes_table_json_and_plots_and_goes_on_with_more_rounds(self):
        out = self.path("sweep")
        text, _ = self.run_command("perf/threads", "--threads", "1,3", "--workloads", "stream,peers,udp", "--rounds", 1, "--seconds", 1, "--out", out)
        self.assertIn("[6/6", text)
        self.assertRegex(text, r"`--tun-threads [13]` on this machine: ")
        self.check_results(out, rounds=1)
        text, _ = self.run_command("perf/threads", "--resume", out, "--rounds", 2)
        self.assertIn("6 runs are left", text)
        self.check_results(out, rounds=2)
        self.assert_nothing_left()

    def check_results(self, out, rounds):
        with open(f"{out}/results.json") as f:
            data = json.load(f)
        self.assertEqual(len(data["runs"]), 6 * rounds, [r.get("error") for r in data["runs"]])
        self.assertFalse([r for r in data["runs"] if "error" in r])
        self.assertIn(data["recommendation"]["n"], (1, 3))
        for r in data["runs"]:
            # The counters are of this run and of this program: it has moved what was delivered, with the threads it was given.
            got = r["result"]
            for metric in ("cpu_s_per_gb", "switches_per_gb", "wakes_per_gb", "segments_per_train"):
                self.assertGreater(got[metric], 0, metric)
            for metric in ("retransmits", "reordered", "reorder_events"):
                self.assertGreaterEqual(got[metric], 0, metric)
            self.assertEqual(sum(t.startswith("tun-rx") for t in got["busy"]), r["n"])
            self.assertGreater(got["pps" if r["workload"] == "udp" else "gbit_s"], 0)
        with open(f"{out}/report.md") as f:
            report = f.read()
        for word in ("## stream", "## peers", "## udp", "retransmits", "out of order", "context switches/GB", "wake-ups/GB", "segments a train"):
            self.assertIn(word, report)
        for name in ("throughput", "all"):
            words = "".join(ElementTree.parse(f"{out}/{name}.svg").getroot().itertext())
            for word in ("stream", "peers", "udp", "Gbit/s", "CPU s/GB", "--tun-threads N"):
                self.assertIn(word, words)
            with open(f"{out}/{name}.png", "rb") as f:
                self.assertEqual(f.read(8), b"\x89PNG\r\n\x1a\n")
        # One line and the dots of its runs in each panel.
        svg = ElementTree.parse(f"{out}/throughput.svg").getroot()
        self.assertGreaterEqual(len(svg.findall(f".//{commands.SVG}use")), 3 * 2 * 2 * rounds)

    def test_an_interrupted_sweep_leaves_nothing_behind_and_is_resumed(self):
        out = self.path("sweep")
        for signum in (signal.SIGINT, signal.SIGTERM):
            args = ("--resume", out) if os.path.exists(out) else ("--threads", "1,2", "--workloads", "stream", "--rounds", 2, "--seconds", 1, "--out", out)
            status, text = self.interrupt("perf/threads", *args, when="[2/4" if signum == signal.SIGINT else "[3/4", signum=signum)
            self.assertEqual(status, 130, text)
            self.assertIn("perf/threads --resume", text)
            self.assert_nothing_left()
        with open(f"{out}/runs.jsonl", "a") as f:
            f.write('{"round": 1, "n": 2, "work')  # as if killed while writing
        text, _ = self.run_command("perf/threads", "--resume", out)
        with open(f"{out}/results.json") as f:
            keys = [(r["round"], r["n"]) for r in json.load(f)["runs"]]
        self.assertEqual(sorted(keys), [(0, 1), (0, 2), (1, 1), (1, 2)])

    def test_an_interrupt_before_the_first_result_takes_its_directory_away(self):
        out = self.path("sweep")
        status, text = self.interrupt("perf/threads", "--threads", "1", "--workloads", "stream", "--seconds", 5, "--out", out, when="[1/5")
        self.assertEqual(status, 130, text)
        self.assertFalse(os.path.exists(out))
        self.assert_nothing_left()

    def test_attaches_to_a_running_gateway(self):
        """With iperf3, whose word counts, with ping, for which the interface's bytes count, and with a command that fails."""
        self.assertEqual(lib.sandbox(self.attached), 0)
        self.assert_nothing_left()

    def attached(self):
        os.environ.update(LAB_TEST=self.directory, TMPDIR=self.scratch)
        tempfile.tempdir = self.directory  # the daemon's log
        binary = commands.binary()
        left, right = lib.Node("left"), lib.Node("right")
        lib.veth(left, "eth0", right, "eth0", ("192.0.2.1/24",), ("192.0.2.2/24",))
        keys = [lib.genkey(), lib.genkey()]
        far = lib.Daemon(right, lib.Program("sluice", binary))
        far.set_private_key(keys[1])
        far.set(f"listen-port 51820 peer {lib.pubkey(keys[0])} allowed-ips 10.0.0.1/32")
        right.ip("addr add 10.0.0.2/24 dev wg0")
        right.ip("link set wg0 up")
        with open(self.path("restart"), "w") as f:
            f.write(f"""
                if [ -e /run/gateway ]; then
                    kill $(cat /run/gateway)
                    while [ -e /run/wireguard/wg0.sock ] || ip link show wg0 >/dev/null 2>&1; do sleep 0.05; done
                fi
                {binary} -f --tun-threads $1 wg0 >/dev/null 2>&1 &
                echo $! >/run/gateway
                until wg show wg0 >/dev/null 2>&1; do sleep 0.05; done
                echo {keys[0]} | wg set wg0 listen-port 51820 private-key /dev/stdin peer {lib.pubkey(keys[1])} \\
                    allowed-ips 10.0.0.2/32 endpoint 192.0.2.2:51820
                ip addr add 10.0.0.1/24 dev wg0 && ip link set wg0 up
            """)
        restart = f"sh {self.path('restart')} {{N}}"
        left.sh(restart.replace("{N}", "2"))
        pid = lambda: int(left.out("cat", "/run/gateway"))
        command = [os.path.join(commands.ROOT, "perf/threads"), "--attach", "wg0", "--threads", "1,3", "--rounds", 1, "--settle", 0.2]
        with lib.IperfServer(right):
            for name, traffic, source in (("iperf3", ("iperf3", "-J", "-c", "10.0.0.2", "-t", "1"), "iperf3"),
                                          ("ping", ("ping", "-c", "20", "-i", "0.02", "-W", "10", "10.0.0.2"), "interface")):
                out = self.path(name)
                text = left.out(*command, "--restart", restart, "--out", out, "--", *traffic, timeout=120)
                self.assertIn("restarting the gateway with N=2 as before", text)
                with open(f"{out}/results.json") as f:
                    data = json.load(f)
                self.assertEqual([r["n"] for r in data["runs"]], [1, 3], text)
                for r in data["runs"]:
                    self.assertEqual(r["result"]["from"], source)
                    self.assertEqual(sum(t.startswith("tun-rx") for t in r["result"]["busy"]), r["n"])
                    if name == "ping":  # 20 of 84 bytes each way, of which the first may be lost to the restart
                        self.assertIn(r["result"]["bytes"], range(2 * 19 * 84, 2 * 20 * 84 + 500))
                self.assertEqual(threads_attach.tun_threads(pid()), 2)
        # What goes wrong is said, and the gateway is put back.
        for name, how, traffic, want in (("failing", restart, ("sh", "-c", "echo not today; exit 3"), "sh ended with status 3: not today"),
                                         ("deaf", f"sh {self.path('restart')} 2; : {{N}}", ("true",), "started a gateway with 2 TUN threads instead of 1"),
                                         ("idle", restart, ("true",), "nothing crossed wg0 while true ran")):
            p = left.run(*command, "--restart", how, "--threads", 1, "--out", self.path(name), "--", *traffic, ok=False, timeout=120)
            self.assertEqual(p.returncode, 1, p.stdout)
            self.assertIn(want, p.stdout)
            self.assertEqual(threads_attach.tun_threads(pid()), 2)
        return 0


class Refusals(Command):
    def refused(self, *argv, status=2, text):
        _, err = self.run_command("perf/threads", *argv, status=status)
        self.assertIn(text, err)

    def test_bad_arguments(self):
        commands.needs_root()
        self.refused("--threads", "0", text="numbers from 1 to 64")
        self.refused("--threads", "1,x", text="numbers from 1 to 64")
        self.refused("--workloads", "tpc", text="choose from stream streams peers both udp")
        self.refused("--rounds", "0", text="at least 1")
        self.refused("--seconds", "-1", text="more than 0")
        self.refused("--resume", self.path("none"), status=1, text="no sweep is there")
        self.refused("--resume", self.path("none"), "--threads", "1", text="goes on with the settings")
        self.refused("--restart", "x {N}", text="go with --attach")

    def test_attach_wants_what_it_needs(self):
        self.refused("--attach", "wg0", text="--restart 'COMMAND' with {N} in it")
        self.refused("--attach", "wg0", "--restart", "restart", "--", "true", text="with {N} in it")
        self.refused("--attach", "wg0", "--restart", "restart {N}", text="needs a traffic command")
        self.refused("--attach", "nowhere0", "--restart", "restart {N}", "--", "true", status=1, text="no sluice serves nowhere0 here")

    def test_without_root_it_says_so(self):
        commands.needs_root()
        _, err = self.run_command("perf/threads", prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"), status=1)
        self.assertIn("run it as root", err)
