#!/usr/bin/env python3
"""Measures how directly the project writes: tests/prose.py [--list]

A sentence that begins with "What", "Of", "Which", "So", ... hides who does what, and one that "says" something where it logs, returns
or reports hides what happens. For each part of the project, the shares of such sentences are held below a limit; --list
prints them.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDIRECT = re.compile(r"(What|Who|Whoever|Of|Which|So|One|That|Where|How|None|Those|As)\b")
MEASURES = {
    "indirect": INDIRECT.match,
    "What": re.compile(r"What\b").match,
    "say": re.compile(r"\b(said|says|say)\b").search,
}

# Where, and the limits in percent in the order of MEASURES.
PARTS = [
    ("crates/strict-http/src", (3.0, 0.5, 0.5)),
    ("crates/metrica/src", (3.0, 0.5, 0.5)),
    ("crates/fake-metrica/src", (3.0, 0.5, 0.5)),
    ("src", (3.0, 0.5, 0.5)),
]
# The documents have not been rewritten yet: they may only become better.
DOCUMENTS = ("*.md", (7.0, 3.0, 8.0))


def sentences(text):
    return [s for s in re.split(r"(?<=[.!?:;])\s+", text) if len(s.split()) >= 3]


def of_rust(text):
    """The sentences of documentation comments; the numbers of rules are no part of them."""
    block, found = [], []
    for line in [*text.splitlines(), ""]:
        comment = re.match(r"//[/!]\s?(.*)", line.strip())
        if comment:
            block.append(re.sub(r"^\d+\.\s+", "", comment[1]))
        elif block:
            found += sentences(" ".join(block))
            block = []
    return found


def of_markdown(text):
    """The sentences of paragraphs and lists: no code, table, heading or quotation."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", text)
    prose = (re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", block) for block in blocks if not re.match(r"\s*[|#>]", block))
    return [s for block in prose for s in sentences(" ".join(block.split()))]


def main():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    failed = False
    parts = [(part, limits, [f for f in tracked if f.startswith(part + "/") and f.endswith(".rs")], of_rust) for part, limits in PARTS]
    parts.append((*DOCUMENTS, [f for f in tracked if f.endswith(".md")], of_markdown))
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
    return failed


if __name__ == "__main__":
    sys.exit(main())
