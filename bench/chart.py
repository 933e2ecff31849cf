"""The picture: bars of the ratios, as an SVG that brings its own background for light and for dark pages."""

from html import escape

import report

BAR, GAP, LEFT, TOP, HEIGHT, BELOW, FOOT = 22, 24, 40, 104, 200, 64, 40
# The bars of one row of the picture, at most.
ROW = 36
# A colour for each peer on a light and on a dark page; the gate's stand out, the others are quiet.
COLOURS = {
    "gate": ("#1f5fd6", "#6ea8ff"),
    "gate-h2": ("#7fb0f5", "#2f62b5"),
    "gate-log": ("#a9c8f5", "#274f8f"),
    "haproxy": ("#8b929c", "#8d96a3"),
    "haproxy-h2": ("#a58f6b", "#8a7550"),
    "haproxy-log": ("#bcab8d", "#6d5c3f"),
    "nginx": ("#aab1ba", "#6a727e"),
    "nginx-log": ("#b9c4b0", "#5f6b56"),
    "envoy": ("#c9ced5", "#474f5a"),
}
STYLE = """
.page { fill: #ffffff; stroke: #d8dde3 } .grid { stroke: #e6e9ed } .one { stroke: #5b6470; stroke-dasharray: 4 3 }
text { fill: #1d2530; font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif }
.title { font-size: 16px; font-weight: 600 } .quiet { fill: #5b6470; font-size: 11px }
.value { font-size: 10px; text-anchor: middle } .back { fill: #ffffff }
.group { text-anchor: middle } .axis { text-anchor: end } .strong { font-weight: 700 }
"""
DARK = """
.page { fill: #12171e; stroke: #303843 } .grid { stroke: #262d37 } .one { stroke: #9aa4b1 }
text { fill: #e4e9f0 } .back { fill: #12171e } .quiet { fill: #9aa4b1 }
"""


def style():
    light = "".join(f".{name} {{ fill: {pair[0]} }}\n" for name, pair in COLOURS.items())
    dark = "".join(f".{name} {{ fill: {pair[1]} }}\n" for name, pair in COLOURS.items())
    return f"<style>{STYLE}{light}@media (prefers-color-scheme: dark) {{{DARK}{dark}}}</style>"


def text(x, y, content, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(content)}</text>'


def rows(results):
    """The workloads in the rows of the picture, each with as many bars as fit."""
    found, bars = [[]], 0
    for workload, summary in results["summary"].items():
        bars += len(summary)
        if bars > ROW and found[-1]:
            found.append([])
            bars = len(summary)
        found[-1].append(workload)
    return found


def scale(results, workloads):
    """The highest value of the axis, and the step of its lines."""
    most = max(one["ratio"] for workload in workloads for one in results["summary"][workload].values())
    step = 0.5 if most <= 4 else 1 if most <= 8 else 5
    return step * (int(most / step) + 1), step


def legend(results, width):
    parts, x, y = [], LEFT, 52
    for name, peer in results["peers"].items():
        strong = "strong" if name == "gate" else ""
        long = 45 + 6.6 * len(peer["title"])
        if x + long > width:
            x, y = LEFT, y + 20
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" rx="2" class="{name}"/>')
        parts.append(text(x + 17, y + 10, peer["title"], strong))
        x += long
    return parts


def axis(width, top, most, step):
    parts = []
    for number in range(int(most / step) + 1):
        value = number * step
        y = top + HEIGHT * (1 - value / most)
        parts.append(f'<line x1="{LEFT}" x2="{width - 14}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(text(LEFT - 7, y + 4, f"{value:.1f}", "axis quiet"))
    one = top + HEIGHT * (1 - 1 / most)
    parts.append(f'<line x1="{LEFT}" x2="{width - 14}" y1="{one:.1f}" y2="{one:.1f}" class="one"/>')
    return parts


def group(results, workload, x, top, most):
    """The bars of one workload, with their values, and its name below."""
    summary, parts, values, start = results["summary"][workload], [], [], x
    for name in (name for name in results["peers"] if name in summary):
        ratio = summary[name]["ratio"]
        height = HEIGHT * ratio / most
        y = top + HEIGHT - height
        title = f"{results['peers'][name]['title']}: {ratio:.2f}"
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{BAR - 2}" height="{height:.1f}" rx="2" class="{name}">'
            f"<title>{escape(title)}</title></rect>"
        )
        strong = " strong" if name == "gate" else ""
        # The line at 1.00 says it of the reference.
        if name != results["reference"]:
            values.append(f'<rect x="{x}" y="{y - 12:.1f}" width="{BAR - 2}" height="11" class="back"/>')
            values.append(text(x + BAR / 2 - 1, y - 4, f"{ratio:.2f}", "value" + strong))
        x += BAR
    middle = (start + x) / 2
    for number, line in enumerate(results["workloads"][workload]["title"].split(", ")):
        parts.append(text(middle, top + HEIGHT + 18 + 15 * number, line, "group" if number == 0 else "group quiet"))
    return parts + values


def width_of(results, workloads):
    return LEFT + 14 + sum(len(results["summary"][workload]) * BAR + GAP for workload in workloads)


def footer(results, y):
    settings, machine = results["settings"], results["machine"]
    noise = report.noise(results)
    loud = f" Other programs took {noise:.1f} of the two cores meanwhile." if noise > report.QUIET else ""
    rounds = f"medians of {settings['rounds']} interleaved rounds of {settings['seconds']} s"
    return [
        text(LEFT, y, f"{report.versions(results)}. One worker on one core, {rounds}.", "quiet"),
        text(
            LEFT, y + 15, f"{machine['processor']}, {machine['system']}. bench/run, {results['date']}.{loud}", "quiet"
        ),
    ]


def svg(results):
    """The whole picture."""
    lines = rows(results)
    width = max(640, *(width_of(results, line) for line in lines))
    height = TOP + len(lines) * (HEIGHT + BELOW) + FOOT
    reference = results["peers"][results["reference"]]["title"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="CPU per request relative to {escape(reference)}">',
        style(),
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" class="page"/>',
        text(LEFT, 30, f"CPU per request, {reference} = 1.00 (lower is better)", "title"),
        *legend(results, width),
    ]
    for number, line in enumerate(lines):
        top, x = TOP + number * (HEIGHT + BELOW), LEFT + GAP / 2
        most, step = scale(results, line)
        parts += axis(width, top, most, step)
        for workload in line:
            parts += group(results, workload, x, top, most)
            x += len(results["summary"][workload]) * BAR + GAP
    return "\n".join([*parts, *footer(results, height - 27), "</svg>", ""])
