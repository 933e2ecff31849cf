#!/usr/bin/env python3
"""A listener with TLS under sslyze: Mozilla's "intermediate" recommendation holds, and no known weakness is found.

    METRIKA_GATE_BIN=target/debug/metrika-gate .tools/clients/sslyze/bin/python tests/sslyze.py

sslyze of PyPI lies beside the Python that runs this; `./test.sh clients` installs it. First the scan has to find the weaknesses of a server
of OpenSSL with RSA key exchange, so that a scan that finds nothing means something.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(os.environ.get("METRIKA_GATE_BIN") or ROOT / "target/release/metrika-gate").resolve()
SSLYZE = pathlib.Path(sys.executable).with_name("sslyze")
NAME = "api-metrika.yandex.net"
CONFIG = """
listeners: [{name: tls, address: "127.0.0.1:0", http2: true, tls: {authority: "FOLDER/ca"}}]
admin: {address: "127.0.0.1:0"}
tokens: {shop: {file: "FOLDER/shop", scopes: [metrika:read]}}
callers: [{id: app, match: {listener: tls}, scopes: [metrika:read], tokens: [shop]}]
"""
OLD = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]


def gate(folder):
    """Starts a gate; returns it, the port of its listener, and the certificate of its authority."""
    subprocess.run([PROGRAM, "ca", "init", folder / "ca"], check=True, capture_output=True)
    (folder / "gate.yaml").write_text(CONFIG.replace("FOLDER", str(folder)))
    os.close(os.open(folder / "shop", os.O_CREAT | os.O_WRONLY, 0o600))
    (folder / "shop").write_text("test-0123456789abcdef\n")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PROGRAM, "run", "--config", folder / "gate.yaml"], stdout=log, stderr=log)
    for _ in range(200):
        if found := re.search(r"https://127\.0\.0\.1:(\d+)", (folder / "log").read_text()):
            return process, int(found[1]), folder / "ca/ca.pem"
        time.sleep(0.1)
    process.kill()
    sys.exit("the gate does not listen: " + (folder / "log").read_text())


def weak(folder):
    """Starts a server of OpenSSL with RSA key exchange and another certificate; returns the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-keyout", "key.pem", "-out", "own.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", "own.pem", "-key", "key.pem", "-tls1_2", "-cipher", "AES128-SHA", "-www"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    return process, port, folder / "own.pem"


def weaknesses(folder, port, authority):
    """What sslyze finds on a port."""
    out = folder / "scan.json"
    command = [SSLYZE, "--sni", NAME, "--certinfo_ca_file", authority, "--mozilla_config", "intermediate", "--json_out", out, f"localhost:{port}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if not out.exists():
        sys.exit(f"sslyze: {done.stdout}{done.stderr}")
    [server] = json.loads(out.read_text())["server_scan_results"]
    if server["scan_status"] != "COMPLETED":
        sys.exit(f"sslyze could not scan: {server}")
    scans = {name: scan for name, scan in server["scan_result"].items() if scan["status"] != "NOT_SCHEDULED"}
    failed = [f"the scan {name} failed: {scan['error_trace']}" for name, scan in scans.items() if scan["status"] != "COMPLETED"]
    if failed:
        sys.exit("\n".join(failed))
    return list(judged(done, {name: scan["result"] for name, scan in scans.items()}))


def judged(done, found):
    """The weaknesses among the results of the scans."""
    if done.returncode:
        yield "Mozilla's intermediate configuration: " + done.stdout.split("COMPLIANCE AGAINST")[-1]
    for version in OLD:
        if found[f"{version}_cipher_suites"]["accepted_cipher_suites"]:
            yield f"{version} is accepted"
    for version in ["tls_1_2", "tls_1_3"]:
        suites = [suite["cipher_suite"]["name"] for suite in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]]
        if not suites:
            yield f"{version} is not accepted"
        # Forward secrecy, and encryption with authentication.
        yield from (f"{version}: {suite}" for suite in suites if not re.search(r"^TLS_(ECDHE_(RSA|ECDSA)_WITH_)?(AES|CHACHA20)\w*(GCM|POLY1305)", suite))
    if found["tls_compression"]["supports_compression"]:
        yield "compression"
    renegotiation = found["session_renegotiation"]
    if not renegotiation["supports_secure_renegotiation"] or renegotiation["is_vulnerable_to_client_renegotiation_dos"]:
        yield f"renegotiation: {renegotiation}"
    if found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] or found["heartbleed"]["is_vulnerable_to_heartbleed"]:
        yield "CCS injection, or Heartbleed"
    if not found["robot"]["robot_result"].startswith("NOT_VULNERABLE"):
        yield f"ROBOT: {found['robot']['robot_result']}"
    if not found["tls_extended_master_secret"]["supports_ems_extension"]:
        yield "no extended master secret"
    if not found["tls_fallback_scsv"]["supports_fallback_scsv"]:
        yield "no TLS_FALLBACK_SCSV"
    for deployment in found["certificate_info"]["certificate_deployments"]:
        trusted = [path["was_validation_successful"] for path in deployment["path_validation_results"] if "Supplied" in path["trust_store"]["name"]]
        if trusted != [True]:
            yield "the private authority does not verify the certificate"
        if not deployment["received_chain_has_valid_order"]:
            yield "the chain has another order"


def main():
    with tempfile.TemporaryDirectory() as name:
        for start, has_some in [(weak, True), (gate, False)]:
            folder = pathlib.Path(name) / start.__name__
            folder.mkdir()
            process, port, authority = start(folder)
            try:
                found = weaknesses(folder, port, authority)
            finally:
                process.terminate()
                process.wait(30)
            if bool(found) != has_some:
                sys.exit(f"{start.__name__}: " + ("\n".join(found) or "the scan finds nothing where something is"))
            print(f"ok      {start.__name__}: {len(found)} weaknesses" + ", as it has" * has_some)


if __name__ == "__main__":
    main()
