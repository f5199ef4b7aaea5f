"""One page of bars as SVG: first the ratios of two peers in large figures, then a panel for each kind of measurement."""

import statistics
from html import escape

import evidence

COLOURS = {"sluice": "#1b7f5c", "wireguard-go": "#7a7f87", "wireguard-go-debian": "#a9adb3", "boringtun": "#b5793c", "gotatun": "#c99f6b",
           "kernel": "#4b6fa5", "relay": "#8d6bb0", "relay-aead": "#ab8fc7", "veth": "#d0c14f"}
BETTER, WORSE, EVEN = "#14684b", "#a3402f", "#999"
WIDTH, HEIGHT = 1400, 900  # the page at most; it is lower when there is less to show
MARGIN, GUTTER, COLUMNS = 24, 32, 3
HEADING, BELOW = 34, 12  # of a panel: its two lines above the rows, the space below them
ROWS = range(30, 13, -1)  # the height of a row: the largest that fits
RATIO = 52  # the column at the right of a panel
# Font sizes by class. CHARACTER is the widest that a character is on average in the usual sans-serif fonts, in parts of the size.
SIZES = {"t": 20, "s": 12, "b": 40, "l": 14, "h": 14, "k": 11, "n": 11, "r": 14}
CHARACTER = 0.6


class Panel:
    """rows: [(label, {peer: [value of each round]})], all of one unit and drawn to one scale. The row `lead` stands for the panel."""

    def __init__(self, heading, setting, more_is_better, rows, lead=0):
        self.heading, self.setting, self.more_is_better, self.rows, self.lead = heading, setting, more_is_better, rows, rows[lead]

    @property
    def direction(self):
        return "more is better" if self.more_is_better else "less is better"


def page(title, subtitle, panels, peers, first, second, leads):
    """first : second is the ratio; second may be None. peers: in the order of the legend. leads: the panels whose ratio stands at the top."""
    body = [text(MARGIN, 36, "t", title)]
    y = 40
    for line in wrap(subtitle, "s", WIDTH - 2 * MARGIN):
        y += 17
        body.append(text(MARGIN, y, "s", line))
    tiles, y = headline(y + 32, leads, first, second)
    legend, y = key(y + 14, peers, first, second)
    panels, height, left_out = fitted(panels, HEIGHT - y - 26)
    columns, bottom = packed(panels, height), y
    width = (WIDTH - 2 * MARGIN - GUTTER * (len(columns) - 1)) / max(len(columns), 1)
    labels = max((length(label, "n") for p in panels for label, _ in p.rows), default=0)
    figures = max((length(pair(values, first, second), "n") for p in panels for _, values in p.rows), default=0)
    body += tiles + legend
    for i, column in enumerate(columns):
        top = y
        for p in column:
            body += drawn(p, MARGIN + i * (width + GUTTER), top, width, height, labels, figures, first, second)
            top += tall(p, height)
        bottom = max(bottom, top)
    if left_out:
        bottom += 12
        body.append(text(MARGIN, bottom, "k", f"{left_out} more rows are in report.md"))
    bottom = round(bottom + 8)
    style = "text{font-family:system-ui,sans-serif;fill:#222}" + "".join(f".{c}{{font-size:{s}px}}" for c, s in SIZES.items())
    style += ".t,.b,.l,.h,.r{font-weight:600}.s,.k{fill:#555}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" height="{bottom}"><style>{style}</style>\n'
            '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n")


# Text. ---------------------------------------------------------------------------------------------------------------------------


def text(x, y, kind, words, anchor="start", fill=None):
    attributes = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (f' style="fill:{fill}"' if fill else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{attributes}>{escape(words)}</text>'


def length(words, kind):
    return len(words) * SIZES[kind] * CHARACTER


def wrap(words, kind, width):
    """Lines that are no wider than that, unless a word is."""
    lines = []
    for word in words.split():
        if lines and length(f"{lines[-1]} {word}", kind) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def short(x):
    """Three digits, or four of thousands."""
    for least, unit in ((1e6, "M"), (1e4, "k")):
        if x >= least * 0.9995:
            x /= 1e6 if unit == "M" else 1e3
            return (f"{x:.0f}" if x >= 99.95 else f"{x:.1f}" if x >= 9.995 else f"{x:.2f}") + unit
    return f"{x:,.0f}" if x >= 99.95 else f"{x:.1f}" if x >= 9.995 else f"{x:.2f}"


def ratio(values, first, second):
    """Of the medians, or None."""
    if second in values and first in values and statistics.median(values[second]) > 0:
        return statistics.median(values[first]) / statistics.median(values[second])
    return None


def pair(values, first, second):
    """Both medians; a dash for one that was not measured."""
    return " : ".join(short(statistics.median(values[name])) if name in values else "–" for name in (first, second) if name)


def verdict(values, first, second, more_is_better):
    """The colour of a ratio; None, which is that of other text, where the rounds are too few to tell."""
    different = evidence.differ(values[first], values[second])
    if not different:
        return EVEN if different is False else None
    return BETTER if (ratio(values, first, second) > 1) == more_is_better else WORSE


# The top of the page. ------------------------------------------------------------------------------------------------------------


def headline(y, panels, first, second):
    """A large figure for the leading row of each panel: the ratio, or where no panel has one the value. A setting that all have is said once."""
    panels = [p for p in panels if ratio(p.lead[1], first, second) is not None] or panels
    settings = {p.setting for p in panels}
    common = f" ({settings.pop()})" if len(settings) == 1 else ""
    body = [text(MARGIN, y, "h", (f"{first} : {second}" if second else first) + common)]
    width = min(320, (WIDTH - 2 * MARGIN) / max(len(panels), 1))
    bottom = y
    for i, p in enumerate(panels):
        x, (label, values) = MARGIN + i * width, p.lead
        r = ratio(values, first, second)
        big = f"{r:.2f}×" if r is not None else pair(values, first, None)
        body.append(text(x, y + 46, "b", big, fill=verdict(values, first, second, p.more_is_better) if r is not None else None))
        line = y + 66
        for part in wrap(label, "l", width - 12):
            body.append(text(x, line, "l", part))
            line += 17
        figures = [pair(values, first, second)] if second else []
        for words in [p.heading] + figures + [p.direction] + ([] if common else [p.setting]):
            for part in wrap(words, "k", width - 12):
                body.append(text(x, line, "k", part))
                line += 14
        bottom = max(bottom, line)
    return body, bottom


def key(y, peers, first, second):
    """What the colours and the marks mean."""
    items = [(p, "bar" if p in (first, second) else "tick") for p in peers]
    body, x = [], MARGIN
    marks = ["bar, tick: median; line: lowest to highest" if len(peers) > 2 else "bar: median; line: lowest to highest"]
    if second:
        marks.append(f"ratio green, red: significantly better, worse (rank-sum test, p ≤ {evidence.SIGNIFICANT}); grey: no significant difference; "
                     "black: too few samples to tell")
    for p, kind in items + [(m, None) for m in marks]:
        needed = (22 if kind else 0) + length(p, "k") + 18
        if x > MARGIN and x + needed > WIDTH - MARGIN:
            x, y = MARGIN, y + 18
        if kind == "bar":
            body.append(f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="16" height="9" fill="{colour(p)}"/>')
        elif kind == "tick":
            body.append(tick(x + 8, y - 11, 13, p))
        body.append(text(x + (22 if kind else 0), y, "k", p))
        x += needed
    return body, y + 20


# Panels. -------------------------------------------------------------------------------------------------------------------------


def tall(panel, height):
    return HEADING + len(panel.rows) * height + BELOW


def packed(panels, height):
    """The panels in their order in at most COLUMNS columns, so that the tallest is as low as can be."""
    sizes = [tall(p, height) for p in panels]
    starts = range(len(sizes))
    for limit in sorted({sum(sizes[i:j + 1]) for i in starts for j in starts if i <= j}):
        columns, room = [], 0
        for p, size in zip(panels, sizes):
            if size > room:
                columns.append([])
                room = limit
            columns[-1].append(p)
            room -= size
        if len(columns) <= COLUMNS and limit >= max(sizes):
            return columns
    return []


def fitted(panels, room):
    """(panels, height of a row, rows left out). Rows are left out, the last of the longest panel first, only where the lowest do not fit."""
    panels, left_out = list(panels), 0
    while True:
        for height in ROWS:
            if all(sum(tall(p, height) for p in column) <= room for column in packed(panels, height)):
                return panels, height, left_out
        longest = max(reversed(panels), key=lambda p: len(p.rows))
        i = panels.index(longest)
        panels[i:i + 1] = [Panel(longest.heading, longest.setting, longest.more_is_better, longest.rows[:-1])] if len(longest.rows) > 1 else []
        left_out += 1


def drawn(p, x, y, width, height, labels, figures, first, second):
    body = [text(x, y + 14, "h", p.heading), text(x, y + 29, "k", f"{p.setting}; {p.direction}")]
    left = x + labels + 8
    most = max((max(v) for _, values in p.rows for v in values.values()), default=0) or 1
    scale = (width - labels - figures - RATIO - 16) / most
    thick, y = (height - 6) / (2 if second else 1), y + HEADING
    body.append(f'<path d="M{left:.1f} {y}V{y + len(p.rows) * height}" stroke="#ccc"/>')
    for label, values in p.rows:
        body.append(text(x + labels, y + height / 2 + 4, "n", label, "end"))
        for name, top in ((first, y + 3), (second, y + 3 + thick)):
            if name in values:
                mid, low, high = statistics.median(values[name]), min(values[name]), max(values[name])
                body.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(mid * scale, 1):.1f}" height="{thick - 1:.1f}" fill="{colour(name)}"/>')
                body.append(f'<path d="M{left + low * scale:.1f} {top + thick / 2:.1f}H{left + high * scale:.1f}" stroke="#222"/>')
        body += [tick(left + statistics.median(v) * scale, y + 1, height - 3, name) for name, v in values.items() if name not in (first, second)]
        body.append(text(x + width - RATIO, y + height / 2 + 4, "n", pair(values, first, second), "end"))
        r = ratio(values, first, second)
        if r is not None:
            body.append(text(x + width, y + height / 2 + 5, "r", f"{r:.2f}", "end", verdict(values, first, second, p.more_is_better)))
        y += height
    return body


def tick(x, y, height, name):
    return f'<path d="M{x:.1f} {y:.1f}v{height:.1f}" stroke="{colour(name)}" stroke-width="3"/>'


def colour(name):
    return COLOURS.get(name, "#999")
