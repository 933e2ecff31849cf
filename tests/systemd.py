#!/usr/bin/env python3
"""The units of deploy/systemd agree with each other, with the program's configuration and with docs/systemd.md.

systemd-analyze, which tests/deploy.sh calls, reads each unit by itself and knows none of this.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNITS = ROOT / "deploy/systemd"


def settings(name):
    """The settings of a unit: each with all of its values, in the order of the file."""
    found = {}
    for line in (UNITS / name).read_text().splitlines():
        if match := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def comment(name):
    """The comment lines of a unit, as the text that they are."""
    lines = (UNITS / name).read_text().splitlines()
    return "\n".join(line[1:].removeprefix(" ") for line in lines if line.startswith("#"))


def main():
    gate, refresh = settings("metrika-gate.service"), settings("metrika-gate-refresh.service")
    page = (ROOT / "docs/systemd.md").read_text()

    # A restart that refuses no connection needs all of these.
    assert gate["Type"] == ["notify"], "the manager has to know when the gate serves"
    assert int(gate["FileDescriptorStoreMax"][0]) >= 16, "the sockets survive a restart in the store"
    assert gate["RuntimeDirectoryPreserve"] == ["restart"], "the files of unix sockets survive a restart"
    assert gate["WatchdogSec"], "a stall ends in a restart"
    assert gate["Restart"] == ["on-failure"] and gate["RestartPreventExitStatus"] == ["77 78"], "exit codes"
    assert "HUP" in gate["ExecReload"][0], "reload"

    # One user owns what the gate reads and the refresh writes.
    users = re.findall(r"^u (\S+)", (UNITS / "metrika-gate.sysusers").read_text(), re.MULTILINE)
    assert users == gate["User"] == refresh["User"] == gate["Group"] == refresh["Group"], users
    written = set(refresh["StateDirectory"][0].split())
    assert written <= set(gate["StateDirectory"][0].split()), "the gate reads what the refresh writes"
    for unit in gate, refresh:
        assert unit["StateDirectoryMode"] == ["0700"] and unit["UMask"] == ["0077"], "secrets of one user"
        assert unit["ProtectSystem"] == ["strict"] and unit["CapabilityBoundingSet"] == [""], "confinement"
        assert unit["LimitCORE"] == ["0"], "a core file would hold the tokens"
    folders = set(re.findall(r"/var/(lib/metrika-gate/\w+)", comment("metrika-gate.service") + page))
    made = {f"lib/{folder}" for folder in gate["StateDirectory"][0].split()}
    # The folder of an authority is made by `ca init`.
    assert folders - made <= {"lib/metrika-gate/ca"}, f"no unit makes {folders - made}"
    writable = "lib/metrika-gate/"
    assert all(folder.startswith(writable) for folder in folders)

    # A socket unit has the name and the address of a listener.
    socket, text = settings("metrika-gate.socket"), comment("metrika-gate.socket")
    name, address = re.search(r'\{name: (\w+), address: "([^"]+)"\}', text).groups()
    assert socket["FileDescriptorName"] == [name] and socket["ListenStream"] == [address], "the listener"
    assert "Accept" not in socket, "the gate accepts"
    shipped = (ROOT / "config/gate.yaml").read_text()
    assert f'{{name: {name}, address: "{address}"}}' in shipped, "init writes this listener"

    # A credential has the path that systemd gives it.
    text = comment("credentials.conf")
    path, alias = re.search(r"file: (/run/credentials/metrika-gate\.service/(\w+))", text).groups()
    loaded = [value.split(":")[0] for value in settings("credentials.conf")["LoadCredential"]]
    assert loaded == [alias], loaded
    assert path in page, "the page names it"

    for file in sorted(UNITS.iterdir()):
        assert f"`{file.name}`" in page or f"`{file.suffix}`" in page, f"docs/systemd.md does not name {file.name}"


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"tests/systemd.py: {error}")
