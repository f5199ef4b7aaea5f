"""perf/threads: what it writes, what it refuses, what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import commands
from commands import Command

sys.path.insert(0, os.path.join(commands.ROOT, "perf"))
sys.dont_write_bytecode = True

import compare  # first: it makes lib known
import evidence
import lib
import threads_attach
import threads_report


RECORDED = os.path.join(commands.ROOT, "tests", "lab", "recorded", "threads.json")


def runs_of(figures, metric="gbit_s"):
    """figures: {workload: {N: [value of each round]}}"""
    return [{"round": i, "n": n, "workload": w, "result": {"busy": {"state": 0.5}, metric: x}}
            for w, by_n in figures.items() for n, values in by_n.items() for i, x in enumerate(values)]


class Recommendation(Command):
    def recommend(self, figures):
        runs = runs_of(figures)
        return threads_report.recommend(threads_report.summarise(runs), runs)

    def test_takes_the_smallest_within_five_percent(self):
        self.assertEqual(self.recommend({"stream": {1: [9.6] * 5, 2: [10] * 5, 4: [10.01] * 5}})["n"], 1)
        self.assertEqual(self.recommend({"stream": {1: [9.4] * 5, 2: [10] * 5, 4: [10.01] * 5}})["n"], 2)

    def test_goes_by_medians_not_by_the_best_run(self):
        self.assertEqual(self.recommend({"stream": {1: [5] * 8 + [100], 2: [10] * 9}})["n"], 2)

    def test_weighs_workloads_equally_whatever_their_units(self):
        runs = runs_of({"stream": {1: [10] * 4, 2: [9] * 4}}) + runs_of({"udp": {1: [100000] * 4, 2: [400000] * 4}}, "pps")
        self.assertEqual(threads_report.recommend(threads_report.summarise(runs), runs)["n"], 2)

    def test_says_where_another_number_would_do_better(self):
        r = self.recommend({"a": {1: [10] * 4, 2: [6] * 4}, "b": {1: [10] * 4, 2: [6] * 4}, "c": {1: [9] * 4, 2: [10] * 4}})
        self.assertEqual(r["n"], 1)
        self.assertIn("for c alone, N=2 would do better", r["why"])

    def test_leaves_out_a_number_without_a_run_in_some_workload(self):
        self.assertEqual(self.recommend({"a": {1: [1] * 4, 2: [5] * 4, 3: [9] * 4}, "b": {1: [1] * 4, 2: [5] * 4}})["n"], 2)

    def test_what_the_rounds_do_not_tell_apart_takes_the_fewest_threads(self):
        r = self.recommend({"stream": {1: [8, 10.2, 7.5, 10.9, 9], 2: [10, 9.9, 10.1, 8.2, 10.3]}})
        self.assertEqual(r["n"], 1)
        self.assertIn("does not differ from it significantly", r["why"])
        self.assertRegex(" ".join(r["reasons"]), r"N=1 90% of it: no significant difference \(p = 0\.\d+\)")
        r = self.recommend({"stream": {1: [8, 8.2, 7.5, 8.1, 9], 2: [10, 9.9, 10.1, 9.2, 10.3]}})
        self.assertEqual(r["n"], 2)
        self.assertIn("N=1 81% of it: significant (p = 0.0079)", " ".join(r["reasons"]))

    def test_too_few_rounds_recommend_nothing(self):
        for rounds in (1, 2, 3):
            r = self.recommend({"stream": {1: [5] * rounds, 2: [10] * rounds}})
            self.assertIsNone(r["n"])
            self.assertIn(f"{rounds} complete round{'' if rounds == 1 else 's'}", r["why"])
        self.assertEqual(self.recommend({"stream": {1: [5] * 4, 2: [10] * 4}})["n"], 2)
        # A round counts when it is complete: here the failed runs leave three of them for N=2.
        r = self.recommend({"a": {1: [5] * 4, 2: [10] * 4}, "b": {1: [5] * 4, 2: [10] * 3}})
        self.assertIsNone(r["n"])
        self.assertIn("alone was measured", self.recommend({"stream": {2: [10] * 5}})["why"])


class Report(Command):
    """From the runs of a recorded sweep, without measuring."""

    def recorded(self, workloads=None, rounds=None):
        with open(RECORDED) as f:
            data = json.load(f)
        workloads = workloads or list(data["workloads"])
        runs = [r for r in data["runs"] if r["workload"] in workloads and (rounds is None or r["round"] < rounds)]
        summary = threads_report.summarise(runs)
        return {**data, "runs": runs, "summary": summary, "recommendation": threads_report.recommend(summary, runs)}

    def test_tells_the_circumstances(self):
        data = self.recorded()
        text = threads_report.markdown(data)
        known = data["settings"]["program"]
        self.assertIn(f"commit {known['commit']}, build type release, cipher ipsec-mb", text)
        self.assertRegex(text, r"Others took \d+\.\d% of the CPU time \(median; \d+\.\d–\d+\.\d%\) during \d+ measurements")
        self.assertIn("Wilcoxon's rank-sum test", text)
        for r in data["runs"][:3]:
            r["result"]["cipher"] = "libsodium"
        self.assertIn("libsodium (3): these measurements do not compare", threads_report.markdown(data))

    def test_one_round_recommends_nothing(self):
        text = threads_report.markdown(self.recorded(rounds=1))
        self.assertIn("## Recommendation\n\nNone: 1 complete round ", text)
        self.assertNotIn("`--tun-threads", text)

    def test_a_column_has_one_precision(self):
        for line in threads_report.markdown(self.recorded()).splitlines():
            for cell in line.split("|")[2:-2]:
                digits = {len(x.partition(".")[2]) for x in cell.replace("(", " ").replace(")", " ").replace("–", " ").split() if x[0].isdigit()}
                self.assertLessEqual(len(digits), 1, cell)

    def test_nothing_in_the_plots_is_cut(self):
        python = subprocess.run(["bash", "-c", ". tests/lib/setup.sh && setup_python"], cwd=commands.ROOT, capture_output=True, text=True).stdout.strip()
        try:
            import matplotlib
        except ImportError:
            if os.path.realpath(python) == os.path.realpath(sys.executable):
                self.skipTest("needs matplotlib (Debian package python3-matplotlib)")
            p = subprocess.run([python, "tests/lab/run", "threads.test_nothing_in_the_plots_is_cut"], cwd=commands.ROOT, capture_output=True, text=True)
            self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
            return
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        from matplotlib.text import Text

        everything = [(heading, lambda v, m=m: m) for m, heading in threads_report.METRICS.items()]
        for workloads in (["stream"], ["stream", "udp"]):
            for metrics in ([("throughput", threads_report.throughput)], everything):
                fig = threads_report.figure(self.recorded(workloads), metrics)
                self.addCleanup(plt.close, fig)
                fig.canvas.draw()
                page, texts = fig.bbox, [t for t in fig.findobj(Text) if t.get_visible() and t.get_text()]
                self.assertTrue([t for t in texts if t.get_text().startswith("dots: runs")])
                for t in texts:
                    box = t.get_window_extent()
                    inside = box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
                    self.assertTrue(inside or not fig_shows(t), f"{workloads}: {t.get_text()!r} {box} is not inside {page}")
                title, caption = fig.texts
                for ax in fig.axes:
                    box = ax.get_tightbbox(fig.canvas.get_renderer())
                    self.assertLessEqual(box.y1, title.get_window_extent().y0)
                    self.assertGreaterEqual(box.y0, caption.get_window_extent().y1)


def fig_shows(text):
    """Whether a text is drawn: of the labels of ticks, matplotlib keeps some that are outside of their axis."""
    ax = text.axes
    if not ax or text not in ax.get_xticklabels() + ax.get_yticklabels():
        return True
    low, high = sorted(ax.get_ylim() if text in ax.get_yticklabels() else ax.get_xlim())
    return low <= (text.get_position()[1] if text in ax.get_yticklabels() else text.get_position()[0]) <= high


class InNamespaces(Command):
    @classmethod
    def setUpClass(cls):
        commands.needs_root()
        cls.env = {"SLUICE_BIN": commands.binary()}

    def test_writes_table_json_and_plots_and_goes_on_with_more_rounds(self):
        out = self.path("sweep")
        text, _ = self.run_command("perf/threads", "--threads", "1,3", "--workloads", "stream,peers,udp", "--rounds", 1, "--seconds", 1, "--out", out)
        self.assertIn("[6/6", text)
        self.assertIn("None: 1 complete round of some N cannot show a difference", text)
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
        self.assertIsNone(data["recommendation"]["n"])
        for r in data["runs"]:
            self.assertIn(r["result"]["cipher"], ("ipsec-mb", "libcrypto", "libsodium"))
            for metric in evidence.OTHERS:
                self.assertIn(metric, r["result"])
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
