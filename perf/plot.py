"""Bar charts as SVG, with nothing but text."""

from html import escape

COLOURS = {"sluice": "#1b7f5c", "wireguard-go": "#7a7f87", "wireguard-go-debian": "#a9adb3", "boringtun": "#b5793c", "gotatun": "#c99f6b",
           "kernel": "#4b6fa5", "relay": "#8d6bb0", "relay-aead": "#ab8fc7", "veth": "#d0c14f"}
WIDTH, LABEL, ROW, GAP = 860, 190, 20, 46


def bars(title, subtitle, groups):
    """groups: (heading, unit, [(name, median, lowest, highest)]). Each group has its own scale."""
    y, body = 76, []
    for heading, unit, rows in groups:
        if not rows:
            continue
        scale = (WIDTH - LABEL - 130) / (max(high for _, _, _, high in rows) or 1)
        body.append(f'<text x="20" y="{y}" class="h">{escape(heading)}</text><text x="{WIDTH - 20}" y="{y}" class="u">{escape(unit)}</text>')
        y += 10
        for name, mid, low, high in rows:
            width, middle = max(mid * scale, 1), y + ROW / 2
            body.append(f'<text x="{LABEL - 8}" y="{middle + 4}" class="n">{escape(name)}</text>'
                        f'<rect x="{LABEL}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" fill="{COLOURS.get(name, "#999")}"/>'
                        f'<path d="M{LABEL + low * scale:.1f} {middle}H{LABEL + high * scale:.1f}" stroke="#222" stroke-width="1.2"/>'
                        f'<text x="{LABEL + high * scale + 8:.1f}" y="{middle + 4}">{short(mid)}</text>')
            y += ROW
        y += GAP - 10
    style = ("text{font:12px system-ui,sans-serif;fill:#222}.t{font-size:18px;font-weight:600}.h{font-size:13px;font-weight:600}"
             ".u{text-anchor:end;fill:#666}.n{text-anchor:end}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"><style>{style}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/><text x="20" y="30" class="t">{escape(title)}</text>'
            f'<text x="20" y="50">{escape(subtitle)}; bar: median, line: lowest to highest</text>' + "".join(body) + "</svg>\n")


def short(x):
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"
