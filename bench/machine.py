"""What the comparison needs of the machine: two cores, free ports, processes that end, and the time they took."""

import glob
import os
import re
import resource
import signal
import socket
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# The signals that end a run, and with it all that it started.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Problem(Exception):
    """Something the user has to know; the text says what to do about it."""


# --- cores ------------------------------------------------------------------------------------------------------------
def siblings(core):
    """The logical cores that share one physical core with `core`."""
    try:
        with open(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") as file:
            text = file.read().strip()
    except OSError:
        return {core}
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def two_cores(wanted=None):
    """The core of the proxy and that of everything else: those that were asked for, or two that share nothing."""
    allowed = sorted(os.sched_getaffinity(0))
    if wanted:
        missing = set(wanted) - set(allowed)
        if missing or len(set(wanted)) != 2:
            raise Problem(f"--cores wants two different cores of {allowed}")
        return tuple(wanted)
    if len(allowed) < 2:
        raise Problem(
            "two cores are needed, one for the proxy and one for the upstream and the load: this process "
            f"may use only core {allowed[0]} (bench/run --check works with one)"
        )
    apart = [core for core in allowed[1:] if core not in siblings(allowed[0])]
    return allowed[0], (apart or allowed[1:])[0]


def description():
    """The processor, the number of cores and the kernel."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*:\s*(.+)", file.read())
    return {
        "processor": model.group(1).strip() if model else os.uname().machine,
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "system": system_name(),
    }


def system_name():
    try:
        with open("/etc/os-release") as file:
            return re.search(r'^PRETTY_NAME="?([^"\n]*)', file.read(), re.MULTILINE).group(1)
    except (OSError, AttributeError):
        return os.uname().sysname


def raise_file_limit():
    """As many open files as the system grants without root; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# --- ports ------------------------------------------------------------------------------------------------------------
def free_ports(count):
    """Ports that nobody listens on; all are held until the last is found, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


# --- processes --------------------------------------------------------------------------------------------------------
class Child:
    """A process that was started here, with all that it started."""

    def __init__(self, name, command, core, log):
        self.name, self.log = name, log
        with open(log, "wb") as output:

            def pin():
                os.sched_setaffinity(0, {core})
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)

            # A session of its own: Ctrl-C reaches this program, which ends its children in order.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pin,
            )

    def family(self):
        """Its process id and those of its descendants."""
        found, todo = [], [self.process.pid]
        while todo:
            found.append(todo.pop())
            for path in glob.glob(f"/proc/{found[-1]}/task/*/children"):
                todo += [int(word) for word in read(path).split()]
        return found

    def wait_for_port(self, port, seconds=15):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise Problem(f"{self.name} did not start: {self.last_words()}")

    def last_words(self):
        with open(self.log, errors="replace") as file:
            return " / ".join(file.read().strip().splitlines()[-5:]) or "it said nothing"

    def stop(self):
        family = self.family() if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        end = time.monotonic() + 2
        for pid in family[1:]:
            while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
                time.sleep(0.01)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Children:
    """All processes of a run. Leaving the block ends them, whatever the reason."""

    def __init__(self):
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave half of them behind.
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self.running):
            child.stop()

    def start(self, name, command, core, log):
        # Interrupted between its start and this list, it would be left behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        try:
            child = Child(name, command, core, log)
            self.running.append(child)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
        return child

    def stop(self, child):
        child.stop()
        self.running.remove(child)


# --- accounting -------------------------------------------------------------------------------------------------------
def read(path):
    """A file of /proc, or nothing when its process is gone."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def processor_seconds(pids):
    """Time on a core of all threads of these processes, as the scheduler counts it, in nanoseconds."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            total += int((read(path).split() or ["0"])[0])
    return total / 1e9


def require_accounting():
    if not processor_seconds([os.getpid()]):
        raise Problem("/proc/<pid>/task/*/schedstat is missing: this kernel is built without CONFIG_SCHED_INFO")


def forget_peak_memory(pids):
    for pid in pids:
        try:
            with open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            # A worker under another user: its peak is then that since its start.
            pass


def peak_memory(pids):
    """The largest resident memory since `forget_peak_memory`, in bytes, summed over the processes."""
    peaks = [re.search(r"VmHWM:\s+(\d+) kB", read(f"/proc/{pid}/status")) for pid in pids]
    return sum(int(peak.group(1)) * 1024 for peak in peaks if peak)


def resident_memory(pids):
    """The resident memory now, in bytes, summed over the processes."""
    sizes = [re.search(r"VmRSS:\s+(\d+) kB", read(f"/proc/{pid}/status")) for pid in pids]
    return sum(int(size.group(1)) * 1024 for size in sizes if size)


def busy_seconds(cores):
    """Time that these cores were not idle, whoever used it."""
    total = 0
    for line in read("/proc/stat").splitlines():
        name, *fields = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _idle, _wait, interrupt, soft, stolen = map(int, fields[:8])
            total += user + nice + system + interrupt + soft + stolen
    return total / TICKS_PER_SECOND


def own_seconds():
    """What this program and the children it has waited for took."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
