"""docs/clients.md: written from the results of `run.py` and the texts of `client-env`."""

import difflib
import os
import re

import packages
import table
from world import ERRORS, MODES, ROOT

PAGE = ROOT / "docs/clients.md"
HEADINGS = {"base": "base URL", "tls": "TLS", "proxy": "proxy", "socket": "unix socket", "h2c": "h2c"}
TITLES = {"base": "Base URL", "tls": "TLS", "proxy": "Proxy", "socket": "Unix socket"}
ORDER = ["base", "tls", "proxy", "socket", "h2c"]
# The addresses and paths of the page.
EXAMPLE = {
    "{base}": "http://127.0.0.1:8080", "{authority}": "127.0.0.1:8080", "{socket}": "/run/metrika-gate/app.sock",
    "{ca}": "/etc/metrika-gate/ca/ca.pem", "{proxy}": "http://127.0.0.1:3128", "{host}": "127.0.0.1", "{port}": "3128",
}  # fmt: skip
LANGUAGES = {"sh": "sh", "python": "python", "js": "js", "go": "go", "java": "java", "php": "php", "r": "r", "note": "text"}
# Programs of the system: their versions are those of the machine.
SYSTEM = {
    "curl": ["curl", "--version"], "wget": ["wget", "--version"], "urllib": ["python3", "--version"], "go": ["go", "version"],
    "java": ["java", "-version"], "java-url": ["java", "-version"], "php": ["php", "--version"], "php-streams": ["php", "--version"],
}  # fmt: skip

INTRODUCTION = """# Clients

Find your client in the table, follow its link, and paste the lines. `metrika-gate client-env CLIENT --config gate.yaml` prints the same
lines with the addresses and paths of your configuration; `--listener NAME` chooses the listener, if there are several. `CLIENT` is a name that
`metrika-gate client-env --help` lists: the name in the table, except `httpie`, `urllib`, `airbyte`, `fetch`, `go`, `java` (`java.net.http`), `java-url`
(`HttpURLConnection`), `php` (the extension curl) and `php-streams` (`file_get_contents`).

```console
$ metrika-gate client-env httpx --config gate.yaml --listener app > counters.py && python3 counters.py
```

`./test.sh clients` writes this page: it runs each client, as it is published, through a gate to a stand-in for Metrica, in each of these
ways and with each identity, and compares what the client got, what Metrica got, and the gate's log.

"""
LEGEND = """
- **yes**: the client accepts a URL or a path. **variables**: environment variables, and nothing in the program. **code**: a line in your
  program. **patch**: a line that changes the client, or the roots that it brings along. **–**: impossible.
- **base URL** is a listener with an address; **TLS** is one with `tls`, to which a hosts entry or DNS leads Metrica's names; **proxy** is one
  with `proxy: true`; **h2c** is HTTP/2 in clear text, with `http2: true`. [tls.md](tls.md) explains certificates and proxies.
- **actions**: what ran. *read* lists counters, *report* reads a table, *write* creates a goal, *upload* sends a file of conversions,
  *logs* creates a log request, downloads it and cleans it. The client cannot do the others by itself.
"""
GENERAL = """
## For all clients

- **Variables of proxies.** `HTTP_PROXY` makes most clients send requests to the gate through that proxy. Add the host of the gate to
  `NO_PROXY`.
- **Time-outs.** Metrica works on a report for up to two minutes. The lines for httpx, requests, urllib, pycurl and PHP set 150 seconds; the
  other clients have a longer time-out by default, or none.
- **Addresses.** For a listener on all interfaces, `client-env` prints the first name of `hosts`, or else loopback.
- **Roots.** Variables such as `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` replace the roots of the system. A program that also uses other
  hosts needs both: `metrika-gate ca bundle DIR --with-system`.

## Errors

What the client raises, or its exit status, at an error of the gate: 401 for an unknown caller, 403 for an operation that the caller may not
do, 404 for an unknown path or object, 429 for a quota, 503 for a token that is missing. *status*: it has no exception for a status; the
program looks at it. *tries again*: it repeats the request for longer than 20 seconds. Clients that can be told not to repeat were
told so: got, tapi-yandex-metrika, aiotapioca-yandex-metrika, ym-api-client, ya-metrics-mcp.

"""
UNRUN = """
## Not run

| client | reason |
|---|---|
| n8n, n8n-nodes-yandex-metrica | the node is not published on npm (its name answers 404), and n8n itself is a server with a database |
| R: httr, rym | CRAN is not among the registries of the tests |
| nixsolutions/yandex-php-library, alexusmai/yandex-metrika | Composer packages; the tests run PHP itself |
| Yandex's logs_api_integration, epoch8/tap-yandex-metrica | published as repositories only; both use requests, and a constant for the host |
| igor-alexandrov/metrika (Ruby), xboston/go-yandex-metrika | no registry of Ruby or Go packages is among those of the tests |
| MCP servers of askads, BoxLab-Ltd, artgas1, theYahia | published as repositories only; Node's fetch, see [fetch](#fetch-nodejs) |
| the image airbyte/source-yandex-metrica | needs a container registry; the tests run the same connector from PyPI, see [airbyte-source-yandex-metrica](#airbyte-source-yandex-metrica) |
| DataLens, Power BI, 1C, hosted Airbyte | closed or hosted: they cannot reach a gate on your machine, and have no setting for the host |

The lines for those that `client-env` knows are written from their documentation and source:
"""


def read_texts():
    """The texts of `client-env`: by client and mode the language, whether the tests run it, and the text."""
    found = {}
    for part in (ROOT / "src/cli/client_texts.txt").read_text().split("=== ")[1:]:
        head, _, body = part.partition("\n")
        client, mode, language, run = head.split(" ")
        found[client, mode] = (language, run == "run", body.rstrip())
    return found


def is_setting(text, language):
    """Whether a text only sets variables, for a program of the user's."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return language == "sh" and all(line.startswith(("export ", "keytool ", "php ", "cat ")) for line in lines)


def example(body):
    for name, value in EXAMPLE.items():
        body = body.replace(name, value)
    return body


def shown(printed, mode, place, ca):
    """What `client-env` printed, as the page shows it: without its comments, and with other addresses and paths."""
    head = re.compile(r"<\?php|(#|//) (.*, through listener '.*' of metrika-gate|The tests of metrika-gate .*|First direct the host names .*|A c(lient with a setting|aller with a key) .*)")
    text = "\n".join(line for line in printed.splitlines() if not head.fullmatch(line))
    _, _, port = place.rpartition(":")
    if mode == "proxy":
        text = text.replace(place, EXAMPLE["{proxy}"].removeprefix("http://")).replace(f"Port={port}", f"Port={EXAMPLE['{port}']}")
    elif mode != "tls":
        text = text.replace(place, EXAMPLE["{socket}" if mode == "socket" else "{authority}"])
    return text.replace(str(ca), EXAMPLE["{ca}"])


def anchor(heading):
    """The anchor of a heading, as GitHub and GitLab make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def version(client, versions):
    """The version of a client, with the program that it is a part of."""
    if client.name in SYSTEM:
        return packages.system_version(SYSTEM[client.name]) or "?"
    return versions[client.package]


def row(client, result, versions, identities):
    cells = [f"[{client.heading}](#{anchor(client.heading)})", version(client, versions)]
    cells += [result["modes"].get(mode, "–") for mode in ORDER]
    if len(identities) > 1:
        cells.append("yes")
    cells.append(", ".join(client.actions.split()))
    return f"| {' | '.join(cells)} |"


def error_row(client, result):
    statuses = sorted([*ERRORS, 404])
    return f"| {client.heading} | {' | '.join(code(result['errors'][status]) for status in statuses)} |"


def code(name):
    return name if " " in name or name == "–" else f"`{name}`"


def section(client, texts):
    """The lines to paste for a client."""
    lines = [f"### {client.heading}", ""]
    if client.remarks:
        lines += [client.remarks, ""]
    for mode in ("base", "tls", "proxy", "socket"):
        language, is_run, body = texts[client.name, mode]
        if is_run and mode in client.modes:
            lines += [f"{TITLES[mode]}:", "", f"```{LANGUAGES[language]}", example(body), "```", ""]
    return "\n".join(lines)


def unrun(texts):
    lines = [UNRUN]
    for name in dict.fromkeys(name for name, _ in texts):
        parts = [(mode, *texts[name, mode]) for mode in ("base", "tls", "proxy", "socket") if not texts[name, mode][1]]
        parts = [part for part in parts if part[1] != "note" or name == "n8n" and part[0] == "base"]
        if parts:
            lines += [f"### {name} (not run)", ""]
        for mode, language, _, body in parts:
            lines += [f"{TITLES[mode]}:", "", f"```{LANGUAGES[language]}", example(body), "```", ""]
    return "\n".join(lines)


def has_keys():
    """Whether the page has the column for callers with a key."""
    return " | key | " in PAGE.read_text()


def rows_of(page):
    """The rows of the page by their first cell, in order of appearance."""
    found = {}
    for line in page.splitlines():
        if line.startswith("| "):
            found.setdefault(line.split(" | ")[0].removeprefix("| "), []).append(line)
    return found


def compared(here, results, versions):
    """Compares the page with the results, or writes it; rows of other clients stay. Returns what differs."""
    old = PAGE.read_text() if PAGE.exists() else ""
    known, texts, update = rows_of(old), read_texts(), "UPDATE" in os.environ
    rows, errors, sections = [], [], []
    for client in table.CLIENTS:
        first, second = f"[{client.heading}](#{anchor(client.heading)})", client.heading
        if client.name not in results:
            # What another machine has found.
            rows += known.get(first, [])
            errors += known.get(second, [])
        else:
            new = row(client, results[client.name], versions, here.identities)
            if client.name in SYSTEM and first in known and not update:
                new = keep_version(new, known[first][0])
            rows.append(new)
            errors.append(error_row(client, results[client.name]))
        sections.append(section(client, texts))
    heads = ["client", "version", *(HEADINGS[mode] for mode in ORDER), *(["key"] if len(here.identities) > 1 else []), "actions"]
    head = f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    statuses = sorted([*ERRORS, 404])
    error_head = f"| client | {' | '.join(map(str, statuses))} |\n|{'---|' * (len(statuses) + 1)}\n"
    new = INTRODUCTION + head + "\n".join(rows) + "\n" + LEGEND + identity(here) + GENERAL + error_head + "\n".join(errors)
    new += "\n\n## Lines to paste\n\n" + "\n".join(sections) + unrun(texts).rstrip() + "\n"
    if update:
        PAGE.write_text(new)
        print(f"wrote {PAGE}")
        return []
    if new == old:
        return []
    difference = difflib.unified_diff(old.splitlines(), new.splitlines(), "docs/clients.md", "found", lineterm="", n=0)
    print(*difference, sep="\n")
    return ["docs/clients.md differs from what was found; UPDATE=1 ./test.sh clients writes it"]


def keep_version(new, old):
    """The row with the version of the page: another machine has another one."""
    new_cells, old_cells = new.split(" | "), old.split(" | ")
    if new_cells[1] != old_cells[1]:
        print(f"note: {new_cells[0]} is {new_cells[1]} here and {old_cells[1]} on the page")
    return " | ".join([new_cells[0], old_cells[1], *new_cells[2:]])


def identity(here):
    if len(here.identities) == 1:
        return "\nCallers send no token. A client that insists on one can send any text: the gate drops and counts it.\n"
    return """
**Identity.** A caller that is known by its listener sends no token; a client that insists on one can send any text: the gate drops and counts
it. A caller that is known by a key (column *key*) has it where the client expects a token: `metrika-gate key new CALLER` prints it, and the
gate never forwards it.
"""


assert set(ORDER) == set(MODES)
