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


if __name__ == "__main__":
    unittest.main()
