"""The part of tests/deploy.sh and tests/image.sh about deploy/compose and the `docker run` line of docs/install.md.

    compose.py static              compares compose.yaml, gate.yaml, the Dockerfile and the documentation with each other
    compose.py run GATE            runs the configuration with the program GATE and mounts as Docker makes them; needs root
    compose.py podman WORK         runs compose.yaml with podman-compose, and the `docker run` line with podman, each with the
                                   image localhost/metrika-gate and a stand-in for Metrica beside it; files go to WORK
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

import kubernetes as k

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "deploy/compose"
UPSTREAM_TOKEN = f"{k.SECRET}=shop:read,write:12345678"

# The keys of the Compose specification that compose.yaml uses, with their types.
SERVICE = {
    "image": str, "restart": str, "user": str, "read_only": bool, "cap_drop": [str], "security_opt": [str], "volumes": [str],
    "secrets": [str], "networks": [str], "stop_grace_period": k.DURATION, "command": [str], "environment": k.TEXTS,
    "depends_on": {"gate": {"condition": str}},
}
SHAPE = {
    "name": str, "services": {"gate": SERVICE, "app": SERVICE}, "secrets": {"analytics": {"file": str}},
    "networks": {"callers": {"internal": bool}, "internet": {}},
}


def files():
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    config = yaml.safe_load((COMPOSE / "config/gate.yaml").read_text())
    return compose, config


def docker_run():
    """The `docker run` line of the documentation, as words."""
    text = (ROOT / "docs/install.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^\$ (docker run .*)$", text, re.MULTILINE)
    assert len(lines) == 1, f"docs/install.md has {len(lines)} lines `docker run`"
    return shlex.split(lines[0])


def static():
    """compose.yaml has keys that Compose has, and agrees with gate.yaml, the image and the line in the documentation."""
    compose, config = files()
    k.fits(compose, SHAPE, "compose.yaml")
    gate, app = compose["services"]["gate"], compose["services"]["app"]
    (listener,), (caller,) = config["listeners"], config["callers"]
    port = listener["address"].rsplit(":", 1)[1]

    # The way from the other container.
    assert listener["address"].startswith("0.0.0.0:") and listener["allow_remote"], "loopback of the container reaches nobody"
    assert listener["hosts"] == ["gate"], f"hosts {listener['hosts']}"
    for text in (app["environment"]["METRIKA_API_URL"], app["command"][-1]):
        assert text.startswith(f"http://gate:{port}"), f"the application calls {text}"
    shared = set(gate["networks"]) & set(app["networks"])
    assert shared == {"callers"} and compose["networks"]["callers"] == {"internal": True}, "the application has another way out"
    assert app["depends_on"]["gate"]["condition"] == "service_healthy", "the application starts before the gate"

    # The secret: only the gate has it, and it is read as it is mounted.
    assert "secrets" not in app and list(compose["secrets"]) == gate["secrets"], "the application has the token"
    (token,) = config["tokens"].values()
    assert token["file"] == f"/run/secrets/{gate['secrets'][0]}" and token.get("allow_mode") == "0444", f"token {token}"
    assert f"chmod 0444 {compose['secrets']['analytics']['file'].removeprefix('./')}" in (COMPOSE / "compose.yaml").read_text(), "mode"

    # The container.
    assert gate["user"] == f"{k.GATE_USER}:{k.GATE_USER}" and gate["read_only"] is True and gate["cap_drop"] == ["ALL"], "confined"
    assert gate["security_opt"] == ["no-new-privileges:true"], "security_opt"
    shutdown = config["shutdown"]
    assert k.seconds(gate["stop_grace_period"]) > k.seconds(shutdown["delay"]) + k.seconds(shutdown["timeout"]), "stop_grace_period"
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    # podman-compose would need a shell for one of compose.yaml.
    assert re.search(r'^HEALTHCHECK .* CMD \["/usr/local/bin/metrika-gate", "healthcheck"\]$', dockerfile, re.MULTILINE), "no health check"
    assert f"USER {gate['user']}" in dockerfile, "the image has another user"
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert gate["image"] == f"metrika-gate:{version}", f"image {gate['image']}"

    # The line does the same.
    line = docker_run()
    for option in ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--publish=127.0.0.1:8080:{port}",
                   "--volume=$PWD/config:/etc/metrika-gate:ro", "--volume=$PWD/secrets/analytics:/run/secrets/analytics:ro", f"--stop-timeout={k.seconds(gate['stop_grace_period'])}"):
        assert option in line, f"docker run lacks {option}"
    assert line[-1] == gate["image"], f"docker run runs {line[-1]}"


# --- with the program alone -------------------------------------------------------------------------------------------
ADDRESS = "172.18.0.2"


def run(gate):
    spaces = ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    subprocess.run([*spaces, sys.executable, __file__, "inside", os.path.abspath(gate)], check=False).check_returncode()


def with_stand_in(text, place):
    """The configuration with a stand-in for Metrica."""
    assert "upstream:" not in text, "gate.yaml has an upstream"
    return text + f"upstream: {{ca_file: /etc/metrika-gate/ca.pem, connect_to: '{place}'}}\n"


def secret_file(folder):
    """The token as the documentation makes it: a folder of one user, with a file that all may read."""
    folder.mkdir(mode=0o700)
    file = folder / "analytics"
    file.write_text(k.SECRET + "\n")
    file.chmod(0o444)
    os.chown(folder, 1000, 1000)
    os.chown(file, 1000, 1000)
    return file


def loaded():
    """When the gate began to use the token, by its metrics."""
    _, page = k.curl("http://127.0.0.1:9090/metrics")
    return re.findall(r'^metrika_gate_token_loaded_timestamp_seconds\{token="analytics"\} (.*)$', page, re.MULTILINE)


def replace_token(file):
    """A new token that is written into the same file is used within ten seconds, as the documentation says."""
    before, start = loaded(), time.monotonic()
    assert before, "no time at which the token was loaded"
    file.write_text("test-analytics-0002\n")
    while loaded() == before:
        assert time.monotonic() < start + 12, "the new token is not used"
        time.sleep(0.2)


def inside(gate):
    """The configuration is accepted with the mounts of Docker, and serves another container by the service's name."""
    root = pathlib.Path(tempfile.mkdtemp())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "addr", "add", ADDRESS, "dev", "lo"], check=True)
    k.system(root, gate)
    config, secrets = root / "etc/metrika-gate", root / "var/run/secrets"
    (root / "run").symlink_to("var/run")
    host = pathlib.Path(tempfile.mkdtemp())
    (host / "config").mkdir()
    (host / "config/gate.yaml").write_text(with_stand_in((COMPOSE / "config/gate.yaml").read_text(), "127.0.0.1:8443"))
    fake = subprocess.Popen([gate, "fake", "--token", UPSTREAM_TOKEN, "--ca-out", host / "config/ca.pem"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (host / "config/ca.pem").exists():
        assert fake.poll() is None, "the stand-in does not start"
        time.sleep(0.05)
    config.mkdir()
    secrets.mkdir()
    (secrets / "analytics").touch()
    for source, target in ((host / "config", config), (secret_file(host / "secrets"), secrets / "analytics")):
        subprocess.run(["mount", "--bind", source, target], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
    command = ["/opt/metrika-gate", "check", "--config", "/etc/metrika-gate/gate.yaml"]
    checked = k.as_user(root, None, command)
    said, _ = checked.communicate(timeout=30)
    assert checked.returncode == 0, f"check ends with {checked.returncode}:\n{said}"
    running = k.as_user(root, None, ["/opt/metrika-gate", "run"], {"METRIKA_GATE_CONFIG": "/etc/metrika-gate/gate.yaml"})
    try:
        health = lambda: k.as_user(root, None, ["/opt/metrika-gate", "healthcheck"], {"METRIKA_GATE_CONFIG": "/etc/metrika-gate/gate.yaml"})
        end = time.monotonic() + 20
        while health().wait() != 0:
            assert time.monotonic() < end, "the health check fails"
            time.sleep(0.2)
        path = "/management/v1/counters"
        other = ("--interface", ADDRESS, "--connect-to", f"gate:8080:{ADDRESS}:8080", f"http://gate:8080{path}")
        body = k.until("another container", lambda: k.curl(*other), 30)
        assert '"id":12345678' in body, body
        status, body = k.curl("--interface", ADDRESS, f"http://{ADDRESS}:9090/metrics")
        assert status == "000", f"the admin listener answers other containers: {status}"
        replace_token(host / "secrets/analytics")
    except AssertionError as problem:
        running.kill()
        log, _ = running.communicate()
        raise AssertionError(f"{problem}\n{log[-4000:]}") from problem
    running.terminate()
    log, _ = running.communicate(timeout=45)
    assert running.returncode == 0, f"ended with {running.returncode}:\n{log[-4000:]}"
    fake.terminate()


# --- with podman ------------------------------------------------------------------------------------------------------
IMAGE = "localhost/metrika-gate"
# A stand-in for Metrica, as a service beside the others; the application becomes the program of the image, which can do what curl does.
OVERRIDE = f"""
services:
  fake:
    image: {IMAGE}
    user: "0:0"
    command: [fake, --allow-remote, --address, "0.0.0.0:8443", --ca-out, /ca/ca.pem, --token, "{UPSTREAM_TOKEN}"]
    volumes: ["./config:/ca"]
    networks: [internet]
  gate: {{image: {IMAGE}}}
  app: {{image: {IMAGE}}}
"""


def command(*words, folder=None, expect=0):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert expect is None or done.returncode == expect, f"{' '.join(map(str, words))} ends with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def exit_code(said):
    """The exit code of the last command of podman-compose, which itself ends with 0."""
    return re.findall(r"^exit code: (\d+)$", said, re.MULTILINE)[-1]


def inspected(container, form):
    return command("podman", "inspect", "--format", form, container).strip()


def is_confined(container):
    """The running process has no rights and cannot get any."""
    pid = inspected(container, "{{.State.Pid}}")
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    for key, value in (("Uid", "\t".join(["65532"] * 4)), ("CapEff", "0" * 16), ("CapBnd", "0" * 16), ("NoNewPrivs", "1")):
        assert status[key] == value, f"{container}: {key} is {status[key]}"
    mounts = pathlib.Path(f"/proc/{pid}/mountinfo").read_text()
    options = {line.split()[4]: line.split()[5].split(",") for line in mounts.splitlines()}
    for place in ("/", "/etc/metrika-gate"):
        assert "ro" in options[place], f"{container}: {place} is writable"


def prepared(folder, place):
    (folder / "config").mkdir(parents=True)
    (folder / "config/gate.yaml").write_text(with_stand_in((COMPOSE / "config/gate.yaml").read_text(), place))
    secret_file(folder / "secrets")


def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} does not appear"
        time.sleep(0.1)


def ended(container):
    command("podman", "stop", container)
    code = inspected(container, "{{.State.ExitCode}}")
    assert code == "0", f"{container} ended with {code}: {command('podman', 'logs', container)[-2000:]}"


def healthy(container):
    end = time.monotonic() + 30
    while subprocess.run(["podman", "healthcheck", "run", container], capture_output=True, check=False).returncode:
        assert time.monotonic() < end, f"{container} is not healthy: {command('podman', 'logs', container)[-2000:]}"
        time.sleep(0.3)


def podman(work):
    by_compose(pathlib.Path(work) / "compose")
    by_run(pathlib.Path(work) / "run")


def by_compose(folder):
    prepared(folder, "fake:8443")
    shutil.copy(COMPOSE / "compose.yaml", folder)
    (folder / "test.yaml").write_text(OVERRIDE)
    compose = ["podman-compose", "--no-ansi", "-p", "metrika", "-f", "compose.yaml", "-f", "test.yaml"]
    try:
        command(*compose, "up", "--detach", "fake", folder=folder)
        wait_for(folder / "config/ca.pem")
        command(*compose, "up", "--detach", "gate", folder=folder)
        healthy("metrika_gate_1")
        is_confined("metrika_gate_1")
        url = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["app"]["command"][-1]
        served = command(*compose, "run", "--rm", "app", "healthcheck", "--wait", "30s", "--url", url, folder=folder)
        assert exit_code(served) == "0", f"the application is not served: {served}"
        # The network of the application leads to the gate alone.
        other = command(*compose, "run", "--rm", "app", "healthcheck", "--url", "http://fake:8443/", folder=folder)
        assert exit_code(other) == "1" and "failed to lookup" in other, f"the application reaches others than the gate: {other}"
        ended("metrika_gate_1")
    finally:
        command(*compose, "down", "--timeout", "1", folder=folder, expect=None)


def by_run(folder):
    prepared(folder, "ADDRESS:8443")
    config = folder / "config/gate.yaml"
    fake = ["podman", "run", "--detach", "--name=fake", "--user=0:0", f"--volume={folder}/config:/ca", IMAGE, "fake", "--allow-remote",
            "--address", "0.0.0.0:8443", "--ca-out", "/ca/ca.pem", "--token", UPSTREAM_TOKEN]
    try:
        command(*fake)
        wait_for(folder / "config/ca.pem")
        address = inspected("fake", "{{.NetworkSettings.IPAddress}}")
        config.write_text(config.read_text().replace("ADDRESS", address))
        line = [word.replace("$PWD", str(folder)) for word in docker_run()]
        command("podman", *line[1:-1], IMAGE, folder=folder)
        healthy("metrika-gate")
        is_confined("metrika-gate")
        body = k.until("the published port", lambda: k.curl("http://127.0.0.1:8080/management/v1/counters"), 10)
        assert '"id":12345678' in body, body
        ended("metrika-gate")
    finally:
        command("podman", "rm", "--force", "--time", "1", "metrika-gate", "fake", expect=None)


CHECKS = {f.__name__: f for f in (static, run, inside, podman)}

if __name__ == "__main__":
    try:
        CHECKS[sys.argv[1]](*sys.argv[2:])
    except (AssertionError, subprocess.CalledProcessError) as problem:
        sys.exit(str(problem))
