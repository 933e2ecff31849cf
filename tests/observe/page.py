#!/usr/bin/env python3
"""The status page in a headless Chromium, in front of a gate with traffic of every kind.

    tests/observe/page.py               the checks
    tests/observe/page.py --pictures    the checks, and the pictures of docs/pictures; where faketime is installed, an hour
                                        of traffic passes in two minutes

It checks the content, the contrast of every text and drawing in both colour schemes, the keyboard, landmarks and tables, the
console, the content security policy, that no other host is asked, that nothing is wider than a telephone, that the page works
without scripts and refreshes itself with them, and that no secret is in it.
"""

import hashlib
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import browser  # noqa: E402
from world import ROOT, SECRET_FIELD, SECRETS, World  # noqa: E402

PICTURES = ROOT / "docs/pictures"
# Pictures in a repository are small.
MOST_BYTES = 200_000
# One second of this machine is so many of the gate, for the pictures.
FASTER = 60

failures = []


def check(name, holds, detail=""):
    print(f"{'ok     ' if holds else 'FAILED '} {name}{'' if holds else ': ' + str(detail)[:600]}", flush=True)
    if not holds:
        failures.append(name)


CONTRAST = r"""
(() => {
  const parse = (text) => {
    const numbers = (text.match(/[\d.]+/g) || []).map(Number);
    return { r: numbers[0], g: numbers[1], b: numbers[2], a: numbers.length > 3 ? numbers[3] : 1 };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1,
  });
  const channel = (value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
  const light = (color) => 0.2126 * channel(color.r) + 0.7152 * channel(color.g) + 0.0722 * channel(color.b);
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const back = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    let color = { r: 255, g: 255, b: 255, a: 1 };
    for (const layer of layers.reverse()) color = over(layer, color);
    return color;
  };
  const bad = [];
  let texts = 0, drawings = 0, least = 99;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("svg, script, style")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const needed = size >= 24 || (size >= 18.66 && bold) ? 3 : 4.5;
    const found = ratio(over(parse(style.color), back(element)), back(element));
    texts += 1;
    least = Math.min(least, found);
    if (found < needed) bad.push(`${found.toFixed(2)} of ${needed}: ${element.tagName}.${element.className} ${walk.currentNode.textContent.trim().slice(0, 30)}`);
  }
  for (const drawn of document.querySelectorAll("svg rect:not(.whole), svg polyline, svg .axis, .key, .button, button:not([hidden])")) {
    const style = getComputedStyle(drawn);
    const color = parse(drawn.matches("rect") ? style.fill : drawn.matches("polyline, .axis") ? style.stroke : drawn.matches(".key") ? style.backgroundColor : style.borderTopColor);
    const found = ratio(color, back(drawn.matches(".key") ? drawn.parentElement : drawn.closest("section, header") || drawn));
    drawings += 1;
    if (found < 3) bad.push(`${found.toFixed(2)} of 3: ${drawn.tagName}.${drawn.getAttribute("class")}`);
  }
  return { texts, drawings, least, bad: [...new Set(bad)].slice(0, 12) };
})()
"""

STRUCTURE = r"""
(() => {
  const wrong = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (document.documentElement.lang !== "en") wrong.push("no language");
  for (const name of ["h1", "main", "header", "nav", "footer"]) if (all(name).length !== 1) wrong.push(`${all(name).length} ${name}`);
  let level = 1;
  for (const heading of all("h1, h2, h3")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) wrong.push(`a level is left out before ${heading.textContent}`);
    if (!heading.textContent.trim()) wrong.push("an empty heading");
    level = next;
  }
  const ids = all("[id]").map((one) => one.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id occurs twice");
  for (const link of all("a[href^='#']")) if (!document.getElementById(link.hash.slice(1))) wrong.push(`no ${link.hash}`);
  for (const table of all("table")) {
    if (!table.getAttribute("aria-label")) wrong.push("a table without a name");
    for (const row of table.tBodies[0].rows)
      if (row.cells.length !== table.tHead.rows[0].cells.length || row.cells[0].scope !== "row") wrong.push(`a row of ${table.getAttribute("aria-label")}`);
  }
  for (const drawing of all("svg")) if (drawing.getAttribute("role") !== "img" || !drawing.querySelector("title")?.textContent) wrong.push("a drawing without a title");
  for (const section of all("section")) if (!document.getElementById(section.getAttribute("aria-labelledby"))) wrong.push("a section without a name");
  for (const element of all("*")) for (const one of element.attributes) if (/^on|^style$|^src/.test(one.name)) wrong.push(`${element.tagName} has ${one.name}`);
  return wrong;
})()
"""

# The elements that the keyboard reaches, in the order of the document.
REACHABLE = """[...document.querySelectorAll("a[href], button:not([hidden]), [tabindex='0']")].filter((one) => one.checkVisibility())
  .map((one) => one.id || one.getAttribute("href") || one.textContent)"""
ACTIVE = """(() => { const one = document.activeElement; if (!one || one === document.body) return null;
  const style = getComputedStyle(one);
  return [one.id || one.getAttribute("href") || one.textContent, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2]; })()"""


def content(page, world):
    text = page.evaluate("document.querySelector('main').innerText")
    for heading in ("Requests in the last hour", "401 and 403 in the last hour", "Callers", "Tokens", "Quota", "Metrica", "Listeners",
                    "Configuration and process"):
        check(f"content: {heading}", heading in text)
    for words in (["night-reports", "127.0.0.1/32", "metrika:read", "list: filter"], ["campaign-upload", "not enforced"], ["export", "sharing: deny"],
                  ["scope_denied", "The scopes of this caller do not allow this operation."], ["counter_denied"], ["suspended for"], ["healthy for"],
                  ["in 11 d"], ["account shop", "parallel"], ["api-metrika.yandex.net", f"127.0.0.1:{world.fake}", "active", "reused"],
                  ["closed"], [world.places["reports"], "batch.sock"], ["report.table", "95th percentile"], ["standby", "(in use)"], ["the gate itself"]):
        for word in words:
            check(f"content: {word}", word in text, text[:300])
    config = (world.folder / "gate.yaml").read_bytes()
    check("content: the hash of the configuration", hashlib.sha256(config).hexdigest()[:12] in text)
    bars = page.evaluate("document.querySelectorAll('#traffic ~ .plots rect').length")
    check("content: the plots have bars", bars and bars > 2, bars)
    check("content: each reason has a plot", page.evaluate("document.querySelectorAll('table[aria-label^=Refusals] svg rect').length") > 3)


def secrets(page):
    source = page.evaluate("document.documentElement.outerHTML")
    for name, secret in {**SECRETS, "require_header": SECRET_FIELD}.items():
        hashes = [hashlib.new(kind, secret.encode()).hexdigest()[:12] for kind in ("sha256", "sha1", "md5")]
        check(f"secrets: {name}", not any(one in source for one in (secret, secret[-12:], *hashes)))
    check("secrets: no credential of a caller", "of-a-caller" not in source and "OAuth " not in source)


def keyboard(page):
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    expected = page.evaluate(REACHABLE)
    seen, invisible = [], []
    for _ in range(len(expected)):
        page.key("Tab", 9)
        active = page.evaluate(ACTIVE)
        if active is None:
            break
        seen.append(active[0])
        if not active[1]:
            invisible.append(active[0])
    check("keyboard: Tab reaches everything in the order of the document", seen == expected, f"{seen} instead of {expected}")
    check("keyboard: the focus is visible", not invisible, invisible)
    check("keyboard: the first stop leads to the content", seen[:1] == ["#attention"], seen[:1])
    page.evaluate("document.querySelector('.skip').focus()")
    page.key("Enter", 13)
    page.until("document.activeElement.id === 'attention'", 3)
    check("keyboard: and gets there", True)


def narrow(page):
    page.size(360, 740, mobile=True)
    width = page.evaluate("document.documentElement.scrollWidth")
    check("narrow: nothing is wider than 360 pixels", width <= 360, width)
    tree = page.command("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node.get("ignored") and "role" in node]
    for role in ("banner", "main", "navigation", "contentinfo", "table", "row", "rowheader", "cell", "heading", "region"):
        check(f"narrow: the role {role}", role in roles)
    named = [node for node in tree if node.get("role", {}).get("value") == "image"]
    check("narrow: drawings have names", named and all(node.get("name", {}).get("value") for node in named))
    page.size(1280, 900)


def without_scripts(page, address):
    page.command("Emulation.setScriptExecutionDisabled", value=True)
    page.open(address)
    text = page.evaluate("document.querySelector('main').innerText")
    check("without scripts: all content", all(word in text for word in ("night-reports", "healthy for", "scope_denied", "report.table")))
    check("without scripts: no button that needs one", page.evaluate("document.getElementById('pause').hidden"))
    page.command("Emulation.setScriptExecutionDisabled", value=False)


def refresh(page, world, address):
    page.open(address)
    page.evaluate("document.getElementById('scroll-callers-table').focus(); window.kept = document.querySelector('header')")
    time_of = "document.querySelector('.state time').dateTime"
    before = page.evaluate(time_of)
    page.until(f"{time_of} !== {before!r}", 15)
    check("refresh: the figures are replaced in place", page.evaluate("window.kept === document.querySelector('header')"))
    check("refresh: the focus stays", page.evaluate("document.activeElement.id") == "scroll-callers-table")
    page.evaluate("document.getElementById('pause').click()")
    before = page.evaluate(time_of)
    time.sleep(12)
    check("refresh: it can be paused", page.evaluate(time_of) == before and page.evaluate("document.getElementById('pause').textContent") == "Resume")
    world.gate.kill()
    world.gate.wait()
    page.evaluate("document.getElementById('pause').click()")
    page.until("!document.getElementById('failed').hidden", 10)
    check("refresh: a gate that does not respond is reported", page.evaluate("document.getElementById('failed').checkVisibility()"))


def quiet(page, world):
    """The console, the policy, and the hosts that were asked."""
    errors = [entry["entry"]["text"] for entry in page.of("Log.entryAdded") if entry["entry"]["level"] in ("error", "warning")]
    errors += [str(call["args"])[:200] for call in page.of("Runtime.consoleAPICalled") if call["type"] in ("error", "warning", "assert")]
    errors += [thrown["exceptionDetails"]["text"] for thrown in page.of("Runtime.exceptionThrown")]
    check("the console is empty", not errors, errors)
    violations = page.evaluate("window.violations || []")
    check("nothing violates the content security policy", not violations, violations)
    asked = {request["request"]["url"] for request in page.of("Network.requestWillBeSent")}
    others = [url for url in asked if not url.startswith((f"http://127.0.0.1:{world.admin}/", "data:,", "about:"))]
    check("no other host is asked", asked and not others, others or asked)


def pictures(page, address):
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, scheme, width, height in (("light", "light", 1280, 1340), ("dark", "dark", 1280, 1340), ("narrow", "light", 390, 1340)):
        page.scheme(scheme)
        page.size(width, 900, mobile=name == "narrow")
        page.open(address)
        file = PICTURES / f"status-{name}.png"
        page.picture(file, height)
        check(f"pictures: {file.name} is small", file.stat().st_size < MOST_BYTES, f"{file.stat().st_size} bytes")
    page.size(1280, 900)


def main():
    makes_pictures = "--pictures" in sys.argv[1:]
    if not browser.program():
        raise SystemExit("no Chromium")
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    fakes = makes_pictures and library
    clock = {"LD_PRELOAD": str(library), "FAKETIME": f"+0 x{FASTER}"} if fakes else {}
    with World(clock) as world, browser.Browser() as page:
        address = f"http://127.0.0.1:{world.admin}/"
        page.command("Page.addScriptToEvaluateOnNewDocument", source="""
          window.violations = [];
          document.addEventListener("securitypolicyviolation", (one) => window.violations.push(one.violatedDirective + " " + one.blockedURI));
        """)
        world.traffic()
        time.sleep(64 if fakes else 8)
        world.revoke("analytics")
        end = time.time() + 40
        while not re.search(r'token_standby_in_use{token="analytics"} 1', world.page("/metrics")):
            if time.time() > end:
                raise SystemExit("the revoked token is not suspended")
            time.sleep(0.2)
        time.sleep(2)
        page.size(1280, 900)
        page.open(address)
        if makes_pictures:
            pictures(page, address)
        page.scheme("light")
        page.open(address)
        content(page, world)
        wrong = page.evaluate(STRUCTURE)
        check("structure: headings, landmarks, tables and drawings", not wrong, wrong)
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            found = page.evaluate(CONTRAST)
            check(f"contrast: {found['texts']} texts and {found['drawings']} drawings, {scheme}, at least {found['least']:.1f}",
                  not found["bad"] and found["texts"] > 200 and found["drawings"] > 20, found)
        secrets(page)
        keyboard(page)
        narrow(page)
        without_scripts(page, address)
        quiet(page, world)
        refresh(page, world, address)
    print(f"status page: {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
