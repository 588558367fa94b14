"""A node to measure on, and the shunt that runs on it: processes, what they use, what they say."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import cluster

CLONE_NEWNET = 0x40000000
CPUCLOCK_SCHED = 2  # linux/posix-timers.h: with ~pid above it, the CPU time of a process as a clock
METRICS = "http://127.0.0.1:10249/metrics"
START_LIMIT = 120  # seconds that a start of shunt may take
QUIET = 0.3  # seconds, in which a daemon that has started uses less than a twentieth of a CPU

_libc = ctypes.CDLL(None, use_errno=True)


def fresh_network():
    """Moves this process into a network namespace of its own, with the node's address on an interface."""
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    ip("link set lo up")
    ip("link add eth0 type veth peer name peer")
    ip(f"address add {cluster.NODE_ADDRESS}/24 dev eth0")
    ip("link set eth0 up")
    ip("link set peer up")
    ip("route add default via 192.168.1.1")


def enter_network(path):
    """Moves this process into the network namespace that is bound to `path`."""
    with open(path, "rb") as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


def ip(command):
    subprocess.run(["ip", *command.split()], check=True)


class Program:
    """Something that programs Services: what it is called, how it is started, where its log goes."""

    def __init__(self, name, command, log, limit=START_LIMIT):
        self.name, self.command, self.log, self.limit = name, command, log, limit

    def fail(self, why):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            sys.stderr.writelines(log.readlines()[-20:])
        sys.exit(f"bench: {why}; what {self.name} said stands above")


class Shunt(Program):
    """shunt itself; `source` tells it where the objects are."""

    def __init__(self, program, source, config, log):
        super().__init__("shunt", [program, "run", *source, "--config", config], log)

    def once(self):
        """Seconds from starting `shunt run --once` to its end."""
        with open(self.log, "ab") as log:
            start = time.perf_counter()
            process = subprocess.Popen([*self.command, "--once"], stdout=log, stderr=log)
            # not wait(timeout): that looks every 50 ms
            limit = threading.Timer(START_LIMIT, process.kill)
            limit.start()
            code = process.wait()
            seconds = time.perf_counter() - start
            limit.cancel()
        if code:
            self.fail(f"shunt run --once ended with exit code {code}")
        return seconds


class Daemon:
    """A running program: `with Daemon(program) as daemon`, which kills it at the end."""

    def __init__(self, program):
        self.program = program
        with open(program.log, "ab") as log:
            self.process = subprocess.Popen(program.command, stdout=log, stderr=log)

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.process.kill()
        self.process.wait()

    def settle(self):
        """Waits until it has programmed something and has nothing more to do."""
        deadline = time.perf_counter() + START_LIMIT
        while time.perf_counter() < deadline:
            if self.is_idle() and tables():
                return
        self.program.fail(f"{self.program.name} was not done within {START_LIMIT} s")

    def is_idle(self):
        """Whether it does next to nothing for a moment."""
        used = self.cpu_seconds()
        time.sleep(QUIET)
        self.must_live()
        return self.cpu_seconds() - used < QUIET / 20

    def must_live(self):
        if self.process.poll() is not None:
            self.program.fail(f"{self.program.name} ended with exit code {self.process.returncode}")

    def stop(self):
        """Ends it in order; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def memory(self):
        """Resident and peak memory in bytes."""
        self.must_live()
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}

    def cpu_seconds(self):
        """What it has used so far, and what programs that it started and that have ended have used: the
        scheduler's count for itself, the kernel's clock ticks for those."""
        try:
            own = time.clock_gettime(~self.pid << 3 | CPUCLOCK_SCHED)
        except OSError:
            self.must_live()
            raise
        with open(f"/proc/{self.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return own + sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime


def tables():
    return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout


def metrics_page():
    """What the running shunt says of itself; empty where it says nothing."""
    try:
        with urllib.request.urlopen(METRICS, timeout=2) as page:
            return page.read().decode()
    except (urllib.error.URLError, OSError):
        return ""
