"""perf/compare: its picture, drawn from the published figures of a complete run and from parts of them."""

import copy
import json
import os
import re
import sys
import unittest
import xml.etree.ElementTree as ElementTree

import commands

sys.path.insert(0, os.path.join(commands.ROOT, "perf"))
sys.dont_write_bytecode = True

import compare
import evidence
import plot

FIGURES = os.path.join(commands.ROOT, "perf", "figures")
ON = "MTU 1420, tx-udp-segmentation on"


def recorded():
    with open(os.path.join(FIGURES, "compare.json")) as f:
        return json.load(f)


def only(data, workloads=None, peers=None, settings=None):
    """What a run of that part would have written."""
    data = copy.deepcopy(data)
    data["results"] = {s: {w: {p: v for p, v in by_peer.items() if not peers or p in peers} for w, by_peer in by_workload.items()
                           if not workloads or w in workloads} for s, by_workload in data["results"].items() if not settings or s in settings}
    data["results"] = {s: w for s, w in data["results"].items() if w}
    data["peers"] = {p: v for p, v in data["peers"].items() if not peers or p in peers}
    return data


class Picture(unittest.TestCase):
    def drawn(self, data):
        """The words of the picture, after what holds of every picture: one page, and no word reaches over its edge or into the next column's."""
        svg = compare.draw(data)
        root = ElementTree.fromstring(svg)
        width, height = int(root.get("width")), int(root.get("height"))
        self.assertEqual(root.get("viewBox"), f"0 0 {width} {height}")
        self.assertLessEqual(width, 1400)
        self.assertLessEqual(height, 900)
        places = {}
        for t in root.iter(f"{commands.SVG}text"):
            long, x = plot.length(t.text, t.get("class")), float(t.get("x"))
            left = x - long if t.get("text-anchor") == "end" else x
            self.assertGreaterEqual(left, 0, t.text)
            self.assertLessEqual(left + long, width, t.text)
            self.assertLessEqual(float(t.get("y")) + 4, height, t.text)
            places.setdefault(t.get("y"), []).append((left, left + long, t.text))
        for line in places.values():
            line.sort()
            for (_, end, one), (start, _, other) in zip(line, line[1:]):
                self.assertLessEqual(end, start, f"{one!r} runs into {other!r}")
        for shape in root.iter(f"{commands.SVG}rect"):
            if shape.get("x"):
                self.assertGreaterEqual(float(shape.get("x")), 0)
                self.assertLessEqual(float(shape.get("x")) + float(shape.get("width")), width)
                self.assertLessEqual(float(shape.get("y")) + float(shape.get("height")), height)
        return [t.text for t in root.iter(f"{commands.SVG}text")]

    def ratio(self, data, setting, workload, metric, second="wireguard-go"):
        peers = data["results"][setting][workload]
        return compare.median(peers["sluice"][metric]) / compare.median(peers[second][metric])

    def value(self, data, peer):
        return plot.short(compare.median(data["results"][ON]["tcp"][peer]["gbit_s"]))

    def test_the_ratios_come_first(self):
        data = recorded()
        words = self.drawn(data)
        large = words.index(f"{self.ratio(data, ON, 'tcp', 'gbit_s'):.2f}×")
        self.assertEqual(words[large - 1], f"sluice : wireguard-go ({ON})")
        self.assertLess(large, 5)
        for workload, metric in (("tcp", "cpu_s_per_gb"), ("udp-64 flat out", "pps"), ("udp-64-overload 1x", "pps"), ("latency", "p50_us")):
            self.assertIn(f"{self.ratio(data, ON, workload, metric):.2f}×", words)

    def test_every_ratio_is_in_it(self):
        data = recorded()
        words, missing = self.drawn(data), []
        for setting, workloads in data["results"].items():
            for workload, peers in workloads.items():
                metric = next(m for m in compare.UNITS if m in peers["sluice"])
                text = f"{self.ratio(data, setting, workload, metric):.2f}"
                if text in words:
                    words.remove(text)  # so that two that are alike need two
                else:
                    missing.append((setting, workload, text))
        self.assertEqual(missing, [])

    def test_the_committed_picture_is_of_these_figures(self):
        with open(os.path.join(FIGURES, "compare.svg")) as f:
            self.assertEqual(f.read(), compare.draw(recorded()))

    def test_all_that_the_command_can_measure_by_default_fits(self):
        data = recorded()
        # Every peer, and every figure that a run takes and the recorded ones lack.
        for name in (p.name for p in compare.all_peers(())):
            data["peers"].setdefault(name, "")
        for workloads in data["results"].values():
            for w, peers in workloads.items():
                known = {m: values for v in peers.values() for m, values in v.items()}
                if w.partition(" ")[0] in compare.LATENCY:
                    known.setdefault("p99_us", known["p50_us"])
                else:
                    known.setdefault("rss_mb", [30, 31, 400])
                if w in compare.TCP:
                    known.setdefault("cpu_s_per_gb", [2, 3, 4])
                for p in data["peers"]:
                    peers[p] = {**known, **peers.get(p, {})}
        words = self.drawn(data)
        self.assertEqual(words.count("TCP, Gbit/s"), 4 + 1)  # the panels, and the large figure's
        self.assertEqual(words.count("both ways"), 8)
        for name in data["peers"]:
            self.assertIn(name, words)
        self.assertFalse([w for w in words if "report.md" in w])

    def test_what_does_not_fit_is_said(self):
        data = recorded()
        for mtu in range(1290, 1410, 10):
            data["results"][f"MTU {mtu}, tx-udp-segmentation on"] = data["results"]["MTU 1280, tx-udp-segmentation on"]
        data["machine"] = "An uncommonly long name of a processor that somebody has thought of " * 4
        words = self.drawn(data)
        left_out = [w for w in words if "report.md" in w]
        self.assertEqual(len(left_out), 1)
        self.assertRegex(left_out[0], r"^[1-9]\d* more rows are in report\.md$")

    def test_one_workload(self):
        data = recorded()
        for workload in data["results"][ON]:
            words = self.drawn(only(data, workloads=[workload]))
            metric = next(m for m in compare.UNITS if m in data["results"][ON][workload]["sluice"])
            self.assertIn(f"{self.ratio(data, ON, workload, metric):.2f}×", words, workload)

    def test_without_wireguard_go_the_ratio_is_to_another(self):
        data = only(recorded(), peers=("sluice", "relay", "relay-aead"))
        words = self.drawn(data)
        self.assertIn(f"sluice : relay ({ON})", words)
        self.assertIn(f"{self.ratio(data, ON, 'tcp', 'gbit_s', 'relay'):.2f}×", words)
        # The relays' bursts are something else: sluice's stand in their panel and not among the ratios.
        self.assertEqual(words.count("offered 1x"), 1)

    def ticks(self, data, peer):
        """How many rows show a peer that has no bar."""
        svg = compare.draw(data)
        return sum(p.get("stroke") == plot.COLOURS[peer] for p in ElementTree.fromstring(svg).iter(f"{commands.SVG}path"))

    def test_the_relays_are_drawn_where_the_tables_have_them(self):
        data = recorded()
        tcp, udp, bursts = (only(data, workloads=w) for w in (list(compare.TCP), ["udp-64 flat out"], ["udp-64-overload 1x"]))
        self.assertGreater(self.ticks(tcp, "relay"), 4)
        self.assertGreater(self.ticks(tcp, "relay-aead"), 4)
        self.assertEqual(self.ticks(udp, "relay"), 0)
        self.assertEqual(self.ticks(udp, "relay-aead"), 2 + 1)  # packets and memory, and the legend
        for peer in ("relay", "relay-aead"):
            self.assertEqual(self.ticks(bursts, peer), 0)  # not in the legend either
            self.assertNotIn(peer, self.drawn(bursts))

    def colours(self, data):
        """{text: its colour} of the ratios."""
        return {t.text: t.get("style") for t in ElementTree.fromstring(compare.draw(data)).iter(f"{commands.SVG}text") if t.get("class") in "br"}

    def test_the_colour_of_a_ratio_is_the_tests_verdict(self):
        data = only(recorded(), workloads=["tcp"], peers=("sluice", "wireguard-go"), settings=[ON])
        for ours, theirs, colour in (([6, 6, 6], [3, 3, 3], None), ([6, 6, 6, 6], [3, 3, 3, 3], plot.BETTER), ([3] * 4, [6] * 4, plot.WORSE),
                                     ([6, 6, 2, 2], [3, 3, 3, 3], plot.EVEN)):
            data["results"][ON]["tcp"] = {"sluice": {"gbit_s": ours}, "wireguard-go": {"gbit_s": theirs}}
            self.assertEqual(set(self.colours(data).values()), {colour and f"fill:{colour}"})

    def test_debians_wireguard_go_takes_the_place_of_the_newest(self):
        data = json.loads(json.dumps(recorded()).replace('"wireguard-go"', '"wireguard-go-debian"'))
        self.assertIn(f"sluice : wireguard-go-debian ({ON})", self.drawn(data))

    def test_one_peer_has_values_and_no_ratio(self):
        for peer in ("sluice", "wireguard-go"):
            value = self.value(recorded(), peer)
            words = self.drawn(only(recorded(), peers=(peer,)))
            self.assertIn(f"{peer} ({ON})", words)
            self.assertGreaterEqual(words.count(value), 2)
            self.assertFalse([w for w in words if re.search(r"×| : ", w)])

    def test_a_peer_that_failed_in_a_workload_has_a_dash_there(self):
        for peer, pair in (("wireguard-go", "{} : –"), ("sluice", "– : {}")):
            data = recorded()
            pair = pair.format(self.value(data, "wireguard-go" if peer == "sluice" else "sluice"))
            data["results"][ON]["tcp"][peer] = {}
            words = self.drawn(data)
            self.assertIn(pair, words)
            self.assertIn(f"{self.ratio(data, ON, 'tcp-reverse', 'gbit_s'):.2f}", words)
        data["results"][ON]["tcp"] = {p: {} for p in data["peers"]}
        self.drawn(data)


class Report(unittest.TestCase):
    def data(self, **results):
        """Of one setting; results: {workload: {peer: {metric: values}}}."""
        data = only(recorded(), settings=[])
        return {**data, "results": {ON: results}, "targets": compare.targets({ON: results})}

    def test_a_cell_has_one_precision_and_so_has_its_column(self):
        self.assertEqual(compare.cells([[0, 1, 0, 1], [0]]), ["0.5 (0.0–1.0)", "0.0"])
        self.assertEqual(compare.cells([[0, 0, 1], None, [12]]), ["0 (0–1)", "", "12"])
        self.assertEqual(compare.cells([[0.531, 0.42, 0.64], [17.409, 17.3, 17.5]]), ["0.53 (0.42–0.64)", "17.41 (17.30–17.50)"])
        self.assertEqual(compare.cells([[31.77, 31.74, 31.78], [357.2, 355, 412.6], []]), ["31.8 (31.7–31.8)", "357.2 (355.0–412.6)", ""])
        self.assertEqual(compare.cells([[131.4], [11010.2]]), ["131", "11,010"])
        self.assertEqual(compare.cells([[0.0123]]), ["0.012"])

    def test_overlapping_rounds_are_no_significant_difference(self):
        data = self.data(tcp={"sluice": {"gbit_s": [6, 6.2, 6.4, 6.6, 6.8]}, "relay-aead": {"gbit_s": [6.1, 6.3, 6.5, 6.7, 6.9]},
                              "wireguard-go": {"gbit_s": [3, 3.1, 3.2, 3.3, 3.4]}})
        text = compare.report(data)
        self.assertIn("| relay-aead | 6.5 (6.1–6.9) | 0.98 | no significant difference (p = 0.69) |", text)
        self.assertIn("| wireguard-go | 3.2 (3.0–3.4) | 2.00 | significant (p = 0.0079) |", text)
        self.assertIn("- tcp: Gbit/s to the relay's with cipher: 0.98, wanted at least 1: MISSED; from 1: no significant difference (p = 0.69)", text)
        self.assertIn("- tcp: Gbit/s to the newest wireguard-go's: 2.00, wanted at least 2: reached; from 2: no significant difference", text)
        self.assertIn(evidence.TEST, text)

    def test_the_relays_have_no_bursts(self):
        text = compare.report(self.data(**{"udp-64-overload 1x": {p: {"pps": [1, 2, 3]} for p in ("sluice", "wireguard-go", "relay", "relay-aead")}}))
        self.assertEqual([line.split()[1] for line in text.splitlines() if line.startswith(("| s", "| w", "| r"))], ["sluice", "wireguard-go"])

    def test_the_circumstances(self):
        data = self.data(tcp={"sluice": {"gbit_s": [6, 7], "foreign_percent": [1.0, 30.0], "steal_percent": [0.0, 2.0]}})
        data.update(program={"version": "sluice 0.1.0", "commit": "0123456789ab", "build": "release", "sha256": "00"}, ciphers=["ipsec-mb", "ipsec-mb"])
        words = " ".join(t.text for t in ElementTree.fromstring(compare.draw(data)).iter(f"{commands.SVG}text"))
        for text in (compare.report(data), words):
            self.assertIn("sluice 0.1.0, commit 0123456789ab, build type release, cipher ipsec-mb", text)
            self.assertIn("Others took 16.5% of the CPU time (median; 1.0–32.0%) during 2 measurements, of which steal at most 2.0%", text)
        self.assertIn("30.0", compare.report(data))


if __name__ == "__main__":
    unittest.main()
