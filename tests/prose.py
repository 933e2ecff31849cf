#!/usr/bin/env python3
"""Measures how directly the project writes: tests/prose.py [--list]

A sentence that begins with "What", "Of", "Which", "So", ... hides who does what, and one that "says" something where it logs, returns
or reports hides what happens. For each part of the project, the shares of such sentences are held below a limit; --list
prints them. The texts that a user sees (messages in string literals, help texts, configuration files, alerts) must have no
private word at all.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDIRECT = re.compile(r"(What|Who|Whoever|Of|Which|So|One|That|Where|How|None|Those|As)\b")
# A sentence of more words is read twice.
LONG = 40
MEASURES = {
    "indirect": INDIRECT.match,
    "What": re.compile(r"What\b").match,
    "say": re.compile(r"\b(said|says|say)\b").search,
    "long": lambda sentence: len(sentence.split()) > LONG,
}

# Where, and the limits in percent in the order of MEASURES; the length counts in documents alone.
PARTS = [
    ("crates/strict-http/src", (3.0, 0.5, 0.5)),
    ("crates/metrica/src", (3.0, 0.5, 0.5)),
    ("crates/fake-metrica/src", (3.0, 0.5, 0.5)),
    ("src", (3.0, 0.5, 0.5)),
]
# The texts that a user sees have none of these words.
PRIVATE = re.compile(
    r"\b(parked|packed|unpacked|said|says?|is none|none is|tak(?:es?|en) for|does not take|mend(?:s|ed)?|crew|anew|for ever|of it|stands?(?!-)|"
    r"is there|broke off|breaks? off|gives? up|given up|used up|let through|whoever|under way|anybody's|answer(?:s|ed)?|asked for|"
    r"goes first|has to|have to)\b",
    re.IGNORECASE,
)
MESSAGES = ("src/", "crates/strict-http/src/", "crates/metrica/src/", "crates/fake-metrica/src/")
# Metrica's own messages.
FOREIGN = "crates/fake-metrica/src/refusal.rs"
TEXTS = ("config/", "deploy/kubernetes/", "deploy/systemd/", "deploy/prometheus/rules.yaml", "deploy/prometheus/scrape.yaml")

# A file of its own may be stilted while its part is not: so many indirect sentences in one file are too many.
MOST_IN_A_FILE = 3
# Documentation comments have none of these words.
PRIVATE_IN_DOCS = re.compile(r"\b(mend(?:s|ed)?|crew|anew|for ever|for granted)\b|\b(\w+ \w+) \2\b", re.IGNORECASE)
# All comments of tests count, those inside of functions too.
TESTS = ("tests", (1.0, 0.3, 0.4), re.compile(r"(crates/[^/]+/)?tests/.+\.rs"))

# The documents in English. Decisions keep the words of their time.
RUSSIAN = re.compile(r"docs/ru/|.*\.ru\.md")
DECISIONS = ("docs/decisions", (8.0, 3.0, 4.0, 0.5))
DOCUMENTS = ("documents", (3.5, 1.0, 2.0, 0.2))
# No document for readers has one of these words.
PRIVATE_IN_DOCUMENTS = re.compile(r"\b(mend(?:s|ed)?|anew|for ever|tak(?:es|en) for|crew)\b", re.IGNORECASE)


def sentences(text):
    return [s for s in re.split(r"(?<=[.!?:;])\s+", text) if len(s.split()) >= 3]


def of_rust(text, comments=r"//[/!]\s?(.*)"):
    """The sentences of documentation comments; the numbers of rules are no part of them."""
    block, found = [], []
    for line in [*text.splitlines(), ""]:
        comment = re.match(comments, line.strip())
        if comment:
            block.append(re.sub(r"^\d+\.\s+", "", comment[1]))
        elif block:
            found += sentences(" ".join(block))
            block = []
    return found


def of_tests(text):
    """The sentences of all comments that have lines of their own."""
    return of_rust(text, r"//[/!]?\s?(.*)")


def of_markdown(text):
    """The sentences of paragraphs and lists: no code, table, heading or quotation."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", text)
    prose = (re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", block) for block in blocks if not re.match(r"\s*[|#>]", block))
    return [s for block in prose for s in sentences(" ".join(block.split()))]


LITERAL = re.compile(
    r'//[^\n]*|(?P<reason>reason = |expect\()?(?:r#"(?P<raw>.*?)"#|"(?P<text>(?:\\.|[^"\\])*)")|b?\'(?:\\[^\']+|[^\'\\])\'', re.DOTALL
)


def messages(text):
    """The string literals of a Rust file that read as a message, without placeholders; tests and lint reasons are no part of them."""
    text = re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", text)[0]
    for literal in LITERAL.finditer(text):
        message = re.sub(r"\\\n\s*", "", literal["raw"] or literal["text"] or "")
        message = re.sub(r"\{[^{}]*\}", "{}", message)
        if not literal["reason"] and len(re.findall(r"[A-Za-z]{2,}", message)) >= 3 and " " in message:
            yield message


def helps(text):
    """The documentation of flags and commands, which clap prints as help."""
    return re.findall(r"///\s?(.*)\n(?=(?:\s*///.*\n)*\s*(?:#\[arg|\w+\(\w+::\w+Args\)))", text)


def private_words(tracked):
    """Prints the texts with a private word, and returns how many texts there are and how many have one."""
    seen, bad = 0, 0
    for file in tracked:
        text = (ROOT / file).read_text() if file.startswith(MESSAGES + TEXTS) else ""
        if file.endswith(".rs") and not file.endswith("tests.rs") and file != FOREIGN:
            texts = [*messages(text), *(helps(text) if file.startswith("src/cli") else [])]
        else:
            texts = re.findall(r"(?:#|\w: |^ {8,})\s*(.*)", text, re.MULTILINE) if file.endswith((".yaml", ".service")) else []
        seen += len(texts)
        for shown in texts:
            if word := PRIVATE.search(shown):
                bad += 1
                print(f"          {file}: '{word[0]}' in: {shown[:110]}")
    return seen, bad


def stilted_files(tracked):
    """Prints the files with too many indirect sentences, and the sentences with a private word or a phrase that stands twice."""
    bad = 0
    for file in (file for file in tracked if file.endswith(".rs") and file.startswith(MESSAGES)):
        found = of_rust((ROOT / file).read_text())
        indirect = [sentence for sentence in found if INDIRECT.match(sentence)]
        if len(indirect) > MOST_IN_A_FILE:
            bad += 1
            print(f"          {file}: {len(indirect)} indirect sentences, such as: {indirect[0][:90]}")
        for sentence in found:
            if word := PRIVATE_IN_DOCS.search(sentence):
                bad += 1
                print(f"          {file}: '{word[0]}' in: {sentence[:110]}")
    return bad


def private_in_documents(documents):
    """Prints the sentences of documents with a private word, and returns their number."""
    bad = 0
    for file in documents:
        for sentence in of_markdown((ROOT / file).read_text()):
            if word := PRIVATE_IN_DOCUMENTS.search(sentence):
                bad += 1
                print(f"          {file}: '{word[0]}' in: {sentence[:110]}")
    return bad


def main():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    failed = False
    parts = [(part, limits, [f for f in tracked if f.startswith(part + "/") and f.endswith(".rs")], of_rust) for part, limits in PARTS]
    name, limits, pattern = TESTS
    parts.append((name, limits, [f for f in tracked if pattern.fullmatch(f)], of_tests))
    english = [f for f in tracked if f.endswith(".md") and not RUSSIAN.match(f)]
    documents = [f for f in english if not f.startswith(DECISIONS[0])]
    parts.append((*DECISIONS, [f for f in english if f.startswith(DECISIONS[0])], of_markdown))
    parts.append((*DOCUMENTS, documents, of_markdown))
    for part, limits, files, read in parts:
        found = [(file, sentence) for file in files for sentence in read((ROOT / file).read_text())]
        assert len(found) > 30, f"{part}: almost no sentences were found"
        for (name, matches), limit in zip(MEASURES.items(), limits):
            bad = [(file, sentence) for file, sentence in found if matches(sentence)]
            share = 100 * len(bad) / len(found)
            too_many = share >= limit
            failed |= too_many
            print(f"{'FAILED' if too_many else 'ok':7} {part}: {name} {share:.1f} % of {len(found)} sentences; the limit is {limit} %")
            if too_many or "--list" in sys.argv:
                for file, sentence in bad if "--list" in sys.argv else bad[:5]:
                    print(f"          {file}: {sentence[:110]}")
    stilted = stilted_files(tracked)
    failed |= stilted > 0
    print(f"{'FAILED' if stilted else 'ok':7} files: {stilted} have stilted comments")
    private = private_in_documents(documents)
    failed |= private > 0
    print(f"{'FAILED' if private else 'ok':7} documents: {private} sentences have a private word")
    seen, bad = private_words(tracked)
    assert seen > 800, "almost no messages were found"
    failed |= bad > 0
    print(f"{'FAILED' if bad else 'ok':7} texts for users: {bad} of {seen} have a private word")
    return failed


if __name__ == "__main__":
    sys.exit(main())
