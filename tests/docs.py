#!/usr/bin/env python3
"""Holds the documents to the program and to each other: tests/docs.py [links | decisions | requirements | russian | examples | commands]...

links      every link of a Markdown file leads to a file and a heading that exist, and so does every path of a document in other
           files; every page of docs/ can be reached from docs/README.md
decisions  docs/decisions/README.md lists every decision
requirements  each requirement of SECURITY.md names a test that has its number
russian    a Russian page has the headings, the code and the tables of the English one, and no English sentence
examples   every YAML block is a configuration that `metrika-gate check` accepts, completed where it is a fragment, or is marked
           <!-- not a configuration: REASON -->
commands   the console blocks of the pages in RUN do what is printed under them: in an empty folder, without a network, against the
           program of METRIKA_GATE_BIN. In the printed output, … is any text, and a line of … any lines

A comment above a console block changes how it runs:
<!-- not run: REASON -->     it cannot run here
<!-- background -->          its command goes on until the next such block or the end of the page
<!-- stdin: A | B -->        its commands with `cat >` read these lines, one each
<!-- exit: N -->             its last command ends with this status
<!-- alone -->               the commands in the background end before it
<!-- file: NAME -->          above a YAML block: it is this file in the folder of the page

Without an argument, everything is held. `commands` needs namespaces (`can-isolate` ends with 0 where it has them), curl and jq; pages
may follow: tests/docs.py commands README.md
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATE = pathlib.Path(os.environ.get("METRIKA_GATE_BIN", ROOT / "target/release/metrika-gate")).resolve()
# The pages whose console blocks run, and how many of the blocks cannot run here.
RUN = {
    "README.md": 1,
    "README.ru.md": 1,
    "docs/quickstart.md": 4,
    "docs/ru/quickstart.md": 4,
}
# The same, in the folder of a running gate that has an access log.
SERVED = {
    "docs/operations.md": 4,
    "docs/ru/operations.md": 4,
    "docs/policy.md": 0,
    "docs/ru/policy.md": 0,
    "docs/migrate.md": 0,
    "docs/ru/migrate.md": 0,
}
# The Russian pages, and the English ones that they follow; None is a page of its own.
RUSSIAN = {
    "README.ru.md": "README.md",
    "docs/ru/README.md": None,
    "docs/ru/clients.md": None,
    "docs/ru/destructive.md": "docs/destructive.md",
    "docs/ru/install.md": "docs/install.md",
    "docs/ru/keys.md": "docs/keys.md",
    "docs/ru/kubernetes.md": "docs/kubernetes.md",
    "docs/ru/migrate.md": "docs/migrate.md",
    "docs/ru/operations.md": "docs/operations.md",
    "docs/ru/policy.md": "docs/policy.md",
    "docs/ru/quickstart.md": "docs/quickstart.md",
    "docs/ru/quota.md": "docs/quota.md",
    "docs/ru/quota_store.md": "docs/quota_store.md",
    "docs/ru/reasons.md": "docs/reasons.md",
    "docs/ru/rejections.md": "docs/rejections.md",
    "docs/ru/service_accounts.md": "docs/service_accounts.md",
    "docs/ru/systemd.md": "docs/systemd.md",
    "docs/ru/tls.md": "docs/tls.md",
    "docs/ru/tokens.md": "docs/tokens.md",
}


class Wrong(Exception):
    pass


def tracked(pattern="*"):
    found = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return [file for file in found.stdout.split("\n") if file and (ROOT / file).is_file()]


def markdown():
    return tracked("*.md")


def read(file):
    return (ROOT / file).read_text()


# --- Markdown -----------------------------------------------------------------------------------------------------------
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)


class Block:
    """A code block: its kind, text, line, and the marks of the comments above it."""

    def __init__(self, page, match):
        self.kind = match["kind"]
        indent = len(match["indent"])
        self.text = "".join(line[indent:] if line.strip() else line for line in match["text"].splitlines(keepends=True))
        self.line = page.count("\n", 0, match.start()) + 1
        self.marks = {}
        above = page[: match.start()].rstrip()
        while found := re.search(r"<!-- ([a-z ]+?)(?:: ((?:(?!-->).)*))? -->$", above, re.DOTALL):
            self.marks[found[1]] = " ".join((found[2] or "").split())
            above = above[: found.start()].rstrip()


def blocks(text):
    return [Block(text, match) for match in FENCE.finditer(text)]


def without_code(text):
    """The page with its code replaced by as many empty lines."""
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


def headings(text):
    return re.findall(r"^(#{1,6}) +(.*?) *#*$", without_code(text), re.MULTILINE)


def slug(title):
    """The anchor of a heading, as GitHub makes it."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def anchors(text):
    found, seen = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)), {}
    for _, title in headings(text):
        name = slug(title)
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return found


# --- links --------------------------------------------------------------------------------------------------------------
def targets(text):
    """The targets of the links and pictures of a page, with their lines."""
    bare = re.sub(r"`[^`\n]*`", lambda match: " " * len(match[0]), without_code(text))
    for match in re.finditer(r"\]\(<?([^()\s>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\)|(?:src|srcset|href)=\"([^\"]+)\"", bare):
        yield bare.count("\n", 0, match.start()) + 1, match[1] or match[2]
    for match in re.finditer(r"^\[[^\]]+\]: +(\S+)", bare, re.MULTILINE):
        yield bare.count("\n", 0, match.start()) + 1, match[1]


def links():
    files = set(tracked())
    folders = {str(parent) for file in files for parent in pathlib.PurePath(file).parents}
    pages = {file: anchors(read(file)) for file in markdown()}
    wrong, seen, leads = [], 0, {}
    for file in pages:
        for line, target in targets(read(file)):
            if re.match(r"[a-z]+:", target):
                continue
            seen += 1
            path, _, anchor = target.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file
            leads.setdefault(file, set()).add(there)
            if there not in files and there not in folders:
                wrong.append(f"{file}:{line}: no file {there}")
            elif anchor and there in pages and anchor not in pages[there]:
                wrong.append(f"{file}:{line}: {there} has no heading #{anchor}")
    # Paths in the program, its messages and its configuration.
    for file in files - set(pages):
        if file.startswith("tests/") or not file.endswith((".rs", ".txt", ".yaml", ".service", ".sh", ".toml", ".json")):
            continue
        for path, anchor in re.findall(r"\b(docs/[\w/]+\.md)(?:#([\w-]+))?", read(file)):
            seen += 1
            if path not in pages:
                wrong.append(f"{file}: no file {path}")
            elif anchor and anchor not in pages[path]:
                wrong.append(f"{file}: {path} has no heading #{anchor}")
    reached, wait = set(), ["docs/README.md"]
    while wait:
        page = wait.pop()
        if page not in reached:
            reached.add(page)
            wait += [next_page for next_page in leads.get(page, ()) if next_page.startswith("docs/")]
    wrong += [f"docs/README.md leads nowhere to {page}" for page in sorted(pages) if page.startswith("docs/") and page not in reached]
    wrong += [f"{file} has more than 180 lines" for file in ("README.md", "README.ru.md") if read(file).count("\n") > 180]
    if seen < 200:
        raise Wrong(f"only {seen} links were found")
    if wrong:
        raise Wrong("\n".join(wrong))
    return f"{seen} links"


# --- the index of decisions ---------------------------------------------------------------------------------------------
def decisions():
    rows = []
    for file in tracked("docs/decisions/[0-9]*.md"):
        name = pathlib.PurePath(file).name
        title = re.sub(r"^#+ *(?:ADR )?[\d.: –-]*", "", read(file).splitlines()[0])
        rows.append(f"| {int(name[:4])} | [{title}]({name}) |")
    text = "# Decisions\n\nDesign decisions with their alternatives: what was chosen, what was not, and why. `UPDATE=1 tests/docs.py decisions` writes\nthis list.\n\n"
    text += "| | decision |\n|---|---|\n" + "\n".join(sorted(rows, key=lambda row: int(row.split()[1]))) + "\n"
    page = ROOT / "docs/decisions/README.md"
    if os.environ.get("UPDATE"):
        page.write_text(text)
    if not page.exists() or page.read_text() != text:
        raise Wrong("docs/decisions/README.md is not the list of decisions; UPDATE=1 tests/docs.py decisions writes it")
    return f"{len(rows)} decisions"


# --- requirements -------------------------------------------------------------------------------------------------------
def requirements():
    """Each requirement of SECURITY.md names a test that exists and has its number."""
    rows = re.findall(r"^\| (R-\d+) \|.*\| `([^`]+)` \|$", read("SECURITY.md"), re.MULTILINE)
    wrong = [f"SECURITY.md: {file} does not name {number}" for number, file in rows if not re.search(rf"\b{number}\b", read(file))]
    numbers = [number for number, _ in rows]
    if numbers != [f"R-{number}" for number in range(1, len(rows) + 1)] or len(rows) < 24:
        wrong.append(f"SECURITY.md has the requirements {numbers}")
    if wrong:
        raise Wrong("\n".join(wrong))
    return f"{len(rows)} requirements"


# --- Russian pages ------------------------------------------------------------------------------------------------------
ENGLISH_WORDS = re.compile(r"\b(the|and|with|that|this|from|which|its?|not|are|is|of|for|when|where|has|have|only|each|every)\b", re.IGNORECASE)
# Words that need ё, written with е.
WITHOUT_YO = re.compile(r"\b(счетчик|отчет|еще\b|нее\b|ее\b|причем|дает|берет|идет|ведет|придет|найдет|пройдет|живет|зачет|учет|расчет|"
                        r"надежн|определен|включен\b|трех\b|четырех|объем|приведет|остается|задает|создает|передает|выдает|узнает|"
                        r"отдает|истечет|перестает|вернет|начнет|займет|поймет|подойдет|свое\b|мое\b|твое\b|ждет|запущен\b|нем\b)", re.IGNORECASE)


def bare(text):
    """The words of a page: no code, links or names."""
    text = re.sub(r"`[^`\n]*`", "", without_code(text))
    text = re.sub(r"\]\([^)]*\)|https?://\S+|<[^>]+>", "", text)
    return text


def code(block):
    """The lines of a block without their comments, which are translated; a drawing is compared by its size alone."""
    if block.kind == "text":
        return len(block.text.splitlines())
    lines = (re.sub(r"(^|\s+)#(?!!).*", "", line).rstrip() for line in block.text.splitlines())
    return [line for line in lines if line]


def shape(text):
    """The first cell with code of each row, in order; a row whose first two cells have none is `text`."""
    rows, found = [], []
    for line in [*without_code(text).splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.split("|")[1:3]]
            rows.append(next((cell for cell in cells if re.fullmatch(r"(`[^`]*`(, )?)+", cell)), "text"))
        elif rows:
            found.append(rows)
            rows = []
    return found


def first_difference(one, other):
    return next((pair for pair in itertools.zip_longest(one, other) if pair[0] != pair[1]), None)


def russian():
    wrong = []
    if missing := {f for f in markdown() if f.startswith("docs/ru/") or f.endswith(".ru.md")} ^ set(RUSSIAN):
        raise Wrong(f"RUSSIAN and the files differ: {sorted(missing)}")
    for file, english in RUSSIAN.items():
        here = read(file)
        there = here if english is None else read(english)
        for name, of in (("headings", lambda text: [level for level, _ in headings(text)]), ("rows of tables", shape)):
            if of(here) != of(there):
                wrong.append(f"{file}: {name} differ from those of {english}: {first_difference(of(here), of(there))}")
        mine, its = blocks(here), blocks(there)
        if [block.kind for block in mine] != [block.kind for block in its]:
            wrong.append(f"{file}: other code blocks than in {english}: {len(mine)}, {len(its)}")
        else:
            for one, other in zip(mine, its):
                if code(one) != code(other):
                    wrong.append(f"{file}:{one.line}: other code than in {english}:{other.line}")
                if set(one.marks) != set(other.marks):
                    wrong.append(f"{file}:{one.line}: other marks than in {english}:{other.line}")
        for number, line in enumerate(bare(here).splitlines(), 1):
            english_words = ENGLISH_WORDS.findall(line)
            if len(english_words) >= 2:
                wrong.append(f"{file}:{number}: English: {line.strip()[:90]}")
            if '"' in line:
                wrong.append(f"{file}:{number}: quotation marks are « and »: {line.strip()[:90]}")
            if found := WITHOUT_YO.search(line):
                wrong.append(f"{file}:{number}: {found[0]} needs ё: {line.strip()[:90]}")
        letters = re.findall(r"[а-яё]", bare(here), re.IGNORECASE)
        latin = re.findall(r"[a-z]", bare(here), re.IGNORECASE)
        if len(letters) < 3 * len(latin):
            wrong.append(f"{file}: {len(letters)} Russian letters and {len(latin)} Latin ones")
    if wrong:
        raise Wrong("\n".join(wrong))
    return f"{len(RUSSIAN)} pages"


# --- examples of configuration ------------------------------------------------------------------------------------------
def top_level():
    """The keys that a configuration can have, from the reference."""
    return set(re.findall(r"^(?:# )?([a-z_]+):", read("config/reference.yaml"), re.MULTILINE))


ALL_SCOPES = ["metrika:read", "metrika:write"]
PRIVATE_FILES = {"password_file": "secret\n", "proxy_auth_file": "user:password\n", "bearer_file": "token\n"}


class Completed:
    """A fragment of a configuration as a whole one, whose files exist in a folder."""

    def __init__(self, fragment, folder):
        self.folder, self.files = folder, 0
        self.whole = fragment
        self.complete()
        self.place(self.whole, None)

    def complete(self):
        whole = self.whole
        callers = whole.get("callers") or []
        listeners = whole.setdefault("listeners", [])
        if not listeners:
            wanted = list(dict.fromkeys(caller.get("match", {}).get("listener") for caller in callers))
            for number, name in enumerate(name for name in wanted or ["app"] if name):
                by_process = any(
                    {"uid", "gid"} & set(caller.get("match", {})) for caller in callers if caller.get("match", {}).get("listener") == name
                )
                where = {"unix": {"path": f"/run/metrika-gate/{name}.sock"}} if by_process else {"address": f"127.0.0.1:{18080 + number}"}
                listeners.append({"name": name, **where})
        if not listeners:
            listeners.append({"name": "app", "address": "127.0.0.1:18080"})
        tokens = whole.setdefault("tokens", {})
        for name in [name for caller in callers for name in caller.get("tokens", [])] or ([] if tokens else ["analytics"]):
            if name not in tokens and (not tokens or "tokens" not in self.given):
                tokens[name] = {}
        for name, token in tokens.items():
            token.setdefault("file", f"/var/run/secrets/metrika/{name}")
            token.setdefault("scopes", list(ALL_SCOPES))
        if not callers:
            callers = whole["callers"] = [{"id": f"caller{n}", "match": {"listener": one["name"]}} for n, one in enumerate(listeners)]
        remote = {one["name"] for one in listeners if one.get("allow_remote")}
        for caller in callers:
            match = caller.setdefault("match", {"listener": listeners[0]["name"]})
            if match.get("listener") in remote and set(match) == {"listener"}:
                match["source"] = ["10.0.0.0/8"]
            caller.setdefault("scopes", ["metrika:read"])
            caller.setdefault("tokens", [next(iter(tokens))])

    given = ()

    def new(self, name, text, mode=0o600):
        self.files += 1
        path = self.folder / f"{self.files}-{name}"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def authority(self):
        self.files += 1
        path = self.folder / f"{self.files}-ca"
        subprocess.run([GATE, "ca", "init", path], capture_output=True, check=True)
        return path

    def place(self, value, parent):
        """Gives every file that is named a place in the folder."""
        if isinstance(value, list):
            for item in value:
                self.place(item, parent)
        if not isinstance(value, dict):
            return
        for key, inner in value.items():
            if key in PRIVATE_FILES:
                if isinstance(inner, dict):
                    inner["file"] = self.new(key, PRIVATE_FILES[key])
                else:
                    value[key] = self.new(key, PRIVATE_FILES[key])
            elif key == "authority":
                value[key] = str(self.authority())
            elif key in ("ca_file", "client_ca"):
                value[key] = str(self.authority() / "ca.pem")
            elif key == "certificate":
                folder = self.authority()
                value[key], value["key"] = str(folder / "leaf.pem"), str(folder / "leaf.key")
            elif key == "keys_file":
                ids = [caller["id"] for caller in value.get("callers", []) if caller["match"].get("key_sha256") == []]
                value[key] = self.new(key, "".join(f"{name} {number:064x}\n" for number, name in enumerate(ids, 1)))
            elif key == "key_sha256":
                value[key] = [one if re.fullmatch("[0-9a-f]{64}", one) else f"{1000 + number:064x}" for number, one in enumerate(inner)]
            elif key == "jwks_file":
                value[key] = self.new(key, read_jwks(), 0o644)
            elif key == "unix":
                inner["path"] = str(self.folder / pathlib.Path(inner["path"]).name)
            elif key == "state_dir":
                self.files += 1
                state = self.folder / f"{self.files}-state"
                state.mkdir(mode=0o700)
                value[key] = str(state)
            elif key == "key" and "certificate" in value:
                pass
            else:
                self.place(inner, key)


def read_jwks():
    """A set of one public key, of a fixed example of RFC 7517, appendix A.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93"
        "lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPk"
        "sINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    return json.dumps({"keys": [{"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "use": "sig", "kid": "2011-04-29"}]})


def examples():
    import yaml

    keys, wrong, seen, apart = top_level(), [], 0, 0
    for file in markdown():
        for block in blocks(read(file)):
            if block.kind not in ("yaml", "yml"):
                continue
            if "not a configuration" in block.marks:
                apart += 1
                if not block.marks["not a configuration"]:
                    wrong.append(f"{file}:{block.line}: `not a configuration` without a reason")
                continue
            where = f"{file}:{block.line}"
            seen += 1
            try:
                value = yaml.safe_load(block.text)
            except yaml.YAMLError as error:
                wrong.append(f"{where}: {error}")
                continue
            if isinstance(value, list):
                value = {"callers": value}
            if not isinstance(value, dict) or not set(value) <= keys:
                wrong.append(f"{where}: neither a configuration nor marked: {sorted(value)[:3] if isinstance(value, dict) else value}")
                continue
            with tempfile.TemporaryDirectory() as folder:
                Completed.given = tuple(value)
                whole = Completed(value, pathlib.Path(folder)).whole
                path = pathlib.Path(folder) / "gate.yaml"
                path.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
                check = [GATE, "check", "--without-tokens", "--format", "json", "--config", path]
                result = subprocess.run(check, capture_output=True, text=True)
                if result.returncode:
                    wrong.append(f"{where}: check ends with {result.returncode}:\n{result.stdout[:1500]}{result.stderr[:500]}")
    if seen < 15:
        raise Wrong(f"only {seen} examples were found")
    if wrong:
        raise Wrong("\n".join(wrong))
    return f"{seen} examples, {apart} of other programs"


# --- commands -----------------------------------------------------------------------------------------------------------
def commands_of(block):
    """The commands of a block, each with the output that is printed under it."""
    found, lines = [], block.text.splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("$ "):
            command = [line[2:]]
            while command[-1].endswith("\\"):
                command.append(lines.pop(0))
            found.append(("\n".join(command), []))
        elif not found:
            raise Wrong(f"line {block.line}: output before the first command")
        else:
            found[-1][1].append(line)
    return found


def pattern(line):
    return ".*".join(re.escape(part) for part in line.split("…"))


def same(expected, actual):
    """Whether lines are as printed: … in a line is any text, a line of … any lines."""
    while expected and not expected[-1].strip():
        expected = expected[:-1]
    text = "".join(r"(?:.*\n)*?" if line.strip() == "…" else pattern(line.rstrip()) + r"[ \t]*\n" for line in expected)
    return re.fullmatch(text, "".join(line.rstrip() + "\n" for line in actual)) is not None


class Page:
    """A run of the blocks of one page in an empty folder."""

    def __init__(self, file, folder):
        self.file, self.folder, self.behind = file, folder, []

    def command(self, where, command, expected, marks):
        text = ""
        if "cat >" in command and self.typed:
            text = self.typed.pop(0) + "\n"
        child = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, input=text, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        output = child.stdout.splitlines()
        while output and not output[-1].strip():
            output.pop()
        status = int(marks.get("exit", "0"))
        if child.returncode != status:
            raise Wrong(f"{where}: $ {command}\nends with {child.returncode}:\n{child.stdout[-2000:]}")
        if not same(expected, output):
            raise Wrong(f"{where}: $ {command}\nprinted:\n" + "\n".join(output) + "\nthe page has:\n" + "\n".join(expected))

    def background(self, where, command, expected):
        child = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = []
        threading.Thread(target=lambda: lines.extend(child.stdout), daemon=True).start()
        self.behind.append((child, command))
        wanted = expected or ["…started…", "…"]
        for _ in range(150):
            output = [line.rstrip("\n") for line in list(lines)]
            if same([*wanted, "…"], output) or (not expected and any(re.search(r"started|listens|Ctrl-C", line) for line in output)):
                return
            if child.poll() is not None:
                break
            time.sleep(0.1)
        raise Wrong(f"{where}: $ {command}\nprinted:\n" + "".join(lines) + "\nthe page has:\n" + "\n".join(expected))

    def stop(self, must_be_clean=True):
        for child, _ in self.behind:
            child.send_signal(signal.SIGINT)
        for child, command in self.behind:
            try:
                status = child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                raise Wrong(f"{self.file}: {command} does not end") from None
            if status and must_be_clean:
                raise Wrong(f"{self.file}: {command} ended with {status}")
        self.behind = []

    def run(self):
        ran = apart = 0
        ended = False
        try:
            for block in blocks(read(self.file)):
                if "file" in block.marks:
                    (self.folder / block.marks["file"]).write_text(block.text)
                if block.kind != "console":
                    continue
                where = f"{self.file}:{block.line}"
                if "not run" in block.marks:
                    apart += 1
                    if not block.marks["not run"]:
                        raise Wrong(f"{where}: `not run` without a reason")
                    continue
                found = commands_of(block)
                self.typed = block.marks["stdin"].split(" | ") if "stdin" in block.marks else []
                if "background" in block.marks:
                    if "alone" in block.marks:
                        self.stop()
                    for command, expected in found:
                        self.background(where, command, expected)
                else:
                    for number, (command, expected) in enumerate(found):
                        last = number == len(found) - 1
                        marks = block.marks if last else {k: v for k, v in block.marks.items() if k != "exit"}
                        self.command(where, command, expected, marks)
                ran += len(found)
            ended = True
        finally:
            self.stop(ended)
        return ran, apart


LOG_CONFIG = """
listeners:
  - {name: app, address: "127.0.0.1:8080"}
  - {name: crm, address: "127.0.0.1:8081"}
upstream: {ca_file: FOLDER/fake-ca.pem, connect_to: "127.0.0.1:8443"}
tokens:
  analytics: {file: FOLDER/analytics, scopes: [metrika:read], owner: shop}
  crm: {file: FOLDER/crm, scopes: [metrika:read, metrika:write], owner: shop}
quota: {mode: observe}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [crm]}
sandbox: false
"""
# What the requests of the access log are: listener, method, target, body.
LOG_REQUESTS = [
    (8080, "GET", "/management/v1/counters", None),
    (8080, "GET", "/stat/v1/data?ids=101&metrics=ym:s:visits", None),
    (8080, "GET", "/stat/v1/data?ids=999&metrics=ym:s:visits", None),
    (8080, "POST", "/management/v1/counter/101/goals", {"goal": {"name": "Order", "type": "url", "conditions": [{"type": "contain", "url": "x"}]}}),
    (8081, "POST", "/management/v1/counter/101/goals", {"goal": {"name": "Order", "type": "url", "conditions": [{"type": "contain", "url": "x"}]}}),
    (8081, "POST", "/management/v1/counter/101/grants", {"grant": {"user_login": "partner-login", "perm": "view"}}),
    (8081, "DELETE", "/management/v1/counter/101/goal/102", None),
    (8081, "DELETE", "/management/v1/counter/102", None),
    (8080, "GET", "/stat/v1/data?ids=101&metrics=ym:s:visits&ids[]=1", None),
]


@contextlib.contextmanager
def served(folder):
    """A gate in front of the stand-in, with an access log of some requests; a copy of its configuration is where a service has it."""
    for name, secret in (("analytics", "test-analytics-0001"), ("crm", "test-crm-00000001")):
        (folder / name).write_text(secret + "\n")
        (folder / name).chmod(0o600)
    text = LOG_CONFIG.replace("FOLDER", str(folder))
    etc = pathlib.Path("/etc/metrika-gate")
    etc.mkdir()
    for file in (folder / "gate.yaml", etc / "gate.yaml"):
        file.write_text(text)
    fake = [GATE, "fake", "--token", "test-analytics-0001=shop:read:101,102", "--token", "test-crm-00000001=shop:read,write:101,102"]
    children = []
    with open(folder / "access.log", "w") as log, open(folder / "fake.log", "w") as noise:
        try:
            children.append(subprocess.Popen(fake, cwd=folder, stdin=subprocess.DEVNULL, stdout=noise, stderr=noise))
            # It prints its address after it has written its certificate, which the gate needs to start.
            for _ in range(600):
                if "listens on" in (folder / "fake.log").read_text():
                    break
                time.sleep(0.1)
            reach(8443)
            run = [GATE, "run", "--log-format", "json", "--config", etc / "gate.yaml"]
            children.append(subprocess.Popen(run, cwd=folder, stdin=subprocess.DEVNULL, stderr=log))
            reach(8081)
            for port, method, target, body in LOG_REQUESTS:
                data = json.dumps(body).encode() if body else None
                fields = {"Content-Type": "application/json"} if data else {}
                request = urllib.request.Request(f"http://127.0.0.1:{port}{target}", data, fields, method=method)
                try:
                    urllib.request.urlopen(request, timeout=10).read()
                except urllib.error.HTTPError as error:
                    error.read()
            # A worker writes its lines when it is idle.
            for _ in range(50):
                if (folder / "access.log").read_text().count('"access"') == len(LOG_REQUESTS):
                    break
                time.sleep(0.1)
            yield
        finally:
            for child in reversed(children):
                child.send_signal(signal.SIGINT)
                child.wait(20)


def reach(port):
    for _ in range(600):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise Wrong(f"nothing listens on {port}")


def unshare():
    return ["unshare", "-nm" if os.getuid() == 0 else "-rnm"]


def can_isolate():
    return subprocess.run([*unshare(), "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True).returncode


def isolated():
    """Runs `commands` with a network, /etc, /run and /var/lib of its own, so that nothing on the machine is met or changed."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([*unshare(), sys.executable, __file__, "--inside", folder, *sys.argv[2:]]).returncode


def inside(folder):
    import fcntl
    import struct

    with socket.socket() as one:
        # SIOCSIFFLAGS: IFF_UP and IFF_RUNNING of the loopback interface.
        fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
    bin_folder, etc = folder / "bin", folder / "etc"
    bin_folder.mkdir()
    (bin_folder / "metrika-gate").symlink_to(GATE)
    sudo = bin_folder / "sudo"
    sudo.write_text('#!/bin/sh\n[ "$1" != -u ] || shift 2\nexec "$@"\n')
    sudo.chmod(0o755)
    os.environ["PATH"] = f"{bin_folder}:{os.environ['PATH']}"
    for name in [name for name in os.environ if name.startswith("METRIKA_GATE_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    # A reader sits at a terminal.
    os.environ["METRIKA_GATE_LOG_FORMAT"] = "human"
    subprocess.run(["cp", "-a", "/etc", etc], stderr=subprocess.DEVNULL)
    shutil.rmtree(etc / "metrika-gate", ignore_errors=True)
    subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    only = set(sys.argv[3:])
    total = 0
    for file, apart_expected in {**RUN, **SERVED}.items():
        if only and file not in only:
            continue
        for place in ("/run", "/var/lib"):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
        shutil.rmtree("/etc/metrika-gate", ignore_errors=True)
        work = folder / slug(file)
        work.mkdir()
        with served(work) if file in SERVED else contextlib.nullcontext():
            ran, apart = Page(file, work).run()
        if apart != apart_expected:
            raise Wrong(f"{file}: {apart} blocks are not run; the table has {apart_expected}")
        if not ran:
            raise Wrong(f"{file}: no command was found")
        print(f"        {file}: {ran} commands, not run: {apart}")
        total += ran
    if total < 1:
        raise Wrong("no command was run")


def main():
    if sys.argv[1:2] == ["--inside"]:
        try:
            inside(pathlib.Path(sys.argv[2]))
        except Wrong as error:
            print(error)
            return 1
        return 0
    if sys.argv[1:2] == ["can-isolate"]:
        return can_isolate()
    if sys.argv[1:2] == ["commands"]:
        return isolated()
    parts = {"links": links, "decisions": decisions, "requirements": requirements, "russian": russian, "examples": examples, "commands": isolated}
    failed = False
    for name in sys.argv[1:] or parts:
        try:
            result = parts[name]()
            wrong = isinstance(result, int) and result != 0
            print(f"{'FAILED' if wrong else 'ok':7} {name}: {result}")
        except Wrong as error:
            wrong = True
            print(f"FAILED {name}:\n{error}")
        failed |= wrong
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
