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
METRICS = "http://127.0.0.1:10249/metrics"
START_LIMIT = 120  # seconds that any start may take
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


class Shunt:
    """The program and what it is started with; `source` tells it where the objects are."""

    def __init__(self, program, source, config, log):
        self.program, self.source, self.config, self.log = program, source, config, log

    def command(self, *more):
        return [self.program, "run", *self.source, "--config", self.config, *more]

    def once(self):
        """Seconds from starting `shunt run --once` to its end."""
        with open(self.log, "ab") as log:
            start = time.perf_counter()
            process = subprocess.Popen(self.command("--once"), stdout=log, stderr=log)
            # not wait(timeout): that looks every 50 ms
            limit = threading.Timer(START_LIMIT, process.kill)
            limit.start()
            code = process.wait()
            seconds = time.perf_counter() - start
            limit.cancel()
        if code:
            self.fail(f"shunt run --once ended with exit code {code}")
        return seconds

    def fail(self, why):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            sys.stderr.writelines(log.readlines()[-20:])
        sys.exit(f"bench: {why}; what shunt said stands above")


class Daemon:
    """A running shunt: `with Daemon(shunt) as daemon`. It has programmed everything when the block begins."""

    def __init__(self, shunt):
        self.shunt = shunt
        with open(shunt.log, "ab") as log:
            self.process = subprocess.Popen(shunt.command(), stdout=log, stderr=log)

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        deadline = time.perf_counter() + START_LIMIT
        while time.perf_counter() < deadline:
            used = self.cpu_seconds()
            time.sleep(QUIET)
            if self.process.poll() is not None:
                self.shunt.fail(f"shunt ended with exit code {self.process.returncode}")
            if self.cpu_seconds() - used < QUIET / 20 and tables():
                return self
        self.shunt.fail(f"shunt was not done within {START_LIMIT} s")

    def __exit__(self, kind, value, traceback):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends it in order; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def memory(self):
        """Resident and peak memory in bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}

    def cpu_seconds(self):
        """What all threads have used so far, with the scheduler's resolution."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/schedstat", encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except FileNotFoundError:
                pass  # a thread that has just ended
        return total / 1e9


def tables():
    return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout


def metrics_page():
    """What the running shunt says of itself; empty where it says nothing."""
    try:
        with urllib.request.urlopen(METRICS, timeout=2) as page:
            return page.read().decode()
    except (urllib.error.URLError, OSError):
        return ""

