#!/usr/bin/env python3
"""The figures of scripts/bench. Started by it, as root of namespaces that nobody else uses.

Every figure is taken from outside of shunt: the wall clock around a process, /proc, and the kernel's
own news of each commit. shunt's histograms are shown beside them where it has some.
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cluster
import histogram
import nftnews

WORK = "/run/shunt-bench"  # a tmpfs of our own: disks are not what is measured
METRICS = "http://127.0.0.1:10249/metrics"
CLONE_NEWNET = 0x40000000
START_LIMIT = 120  # seconds that any start may take
CHANGE_LIMIT = 5  # seconds until one change has to be in the kernel
QUIET = 0.3  # seconds, in which a daemon that has started uses less than a twentieth of a CPU
PACE = 0.003  # seconds between one commit and the next change: each is the first of a quiet time


def main():
    options = parse()
    os.makedirs(WORK)
    results = []
    for size in options.sizes:
        print(f"measuring {title(size)}", file=sys.stderr, flush=True)
        results.append(Bench(options, *size).run())
    print_table(results, options)
    if options.json:
        report = {
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "arch": platform.machine()},
            "rounds": options.rounds,
            "changes": options.changes,
            "commit": options.commit,
            "results": results,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)
            file.write("\n")


def parse():
    parser = argparse.ArgumentParser(prog="spine.py", description=__doc__)
    parser.add_argument("--shunt", required=True)
    parser.add_argument("--commit", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--json")
    parser.add_argument("sizes", nargs="+", type=parse_size)
    return parser.parse_args()


def parse_size(text):
    services, _, endpoints = text.partition("x")
    return int(services), int(endpoints)


class Bench:
    """One size of cluster."""

    def __init__(self, options, services, endpoints):
        self.options, self.services, self.endpoints = options, services, endpoints
        self.manifests = os.path.join(WORK, "manifests")
        self.config = os.path.join(WORK, "config.yaml")
        self.log = os.path.join(WORK, "shunt.log")

    def run(self):
        size = cluster.write(self.manifests, self.services, self.endpoints)
        cluster.put(self.config, cluster.CONFIG)
        try:
            result = {"services": self.services, "endpoints": self.endpoints, "manifest_bytes": size}
            result["cold_start_s"] = [self.cold_start() for _ in range(self.options.rounds)]
            # the rules of the last round stand: what follows starts with all of it in place
            result |= self.restarts()
            fresh_network()
            result |= self.daemon()
            return result
        finally:
            shutil.rmtree(self.manifests)

    def command(self, *more):
        return [self.options.shunt, "run", "--manifests", self.manifests, "--config", self.config, *more]

    def once(self):
        """Seconds from starting `shunt run --once` to its end."""
        with open(self.log, "ab") as log:
            start = time.perf_counter()
            code = subprocess.run(self.command("--once"), stdout=log, stderr=log, timeout=START_LIMIT).returncode
            seconds = time.perf_counter() - start
        if code:
            self.fail(f"shunt run --once ended with exit code {code}")
        return seconds

    def cold_start(self):
        fresh_network()
        return self.once()

    def restarts(self):
        """Starting again with everything in place: how long, and what was written."""
        news = nftnews.News()
        seconds, written = [], []
        for _ in range(self.options.rounds):
            seconds.append(self.once())
            written.append(dict(news.so_far()))
        news.close()
        return {"restart_s": seconds, "restart_written": written[-1]}

    def daemon(self):
        """A running shunt: its memory, and single changes while it runs."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        try:
            self.wait_until_started(process)
            result = {"start": memory(process.pid)}
            result |= self.changes(process)
            result["after_changes"] = memory(process.pid)
            process.send_signal(signal.SIGTERM)
            result["exit_code"] = process.wait(timeout=30)
            return result
        finally:
            process.kill()
            process.wait()

    def wait_until_started(self, process):
        """Until the rules are there and the daemon has nothing more to do."""
        deadline = time.perf_counter() + START_LIMIT
        while time.perf_counter() < deadline:
            used = cpu_seconds(process.pid)
            time.sleep(QUIET)
            if process.poll() is not None:
                self.fail(f"shunt ended with exit code {process.returncode}")
            if cpu_seconds(process.pid) - used < QUIET / 20 and tables():
                return
        self.fail(f"shunt was not done within {START_LIMIT} s")

    def changes(self, process):
        """One endpoint replaced, again and again: rename a new slice over the old one, wait for the
        kernel to say that something was committed."""
        news = nftnews.News()
        path = cluster.slice_path(self.manifests, self.services // 2)
        latencies, operations = [], {}
        syncs, events, used = histograms("shunt_sync_duration_seconds"), histograms(EVENTS), cpu_seconds(process.pid)
        for change in range(self.options.changes):
            address = cluster.replacement_address(change)
            cluster.put(
                path + ".new", cluster.endpoint_slice(self.services // 2, self.endpoints, address, 2 + change)
            )
            news.so_far()  # what followed the last commit is not an answer to this change
            start = time.perf_counter()
            os.rename(path + ".new", path)
            try:
                heard, counts = news.until_commit(CHANGE_LIMIT)
            except TimeoutError:
                self.fail(f"change {change} was not in the kernel after {CHANGE_LIMIT} s")
            latencies.append(heard - start)
            key = written(counts)
            operations[key] = operations.get(key, 0) + 1
            time.sleep(PACE)
        used = cpu_seconds(process.pid) - used
        news.close()
        return {
            "change_s": latencies,
            "change_operations": operations,
            "cpu_s_per_1000_changes": used * 1000 / self.options.changes,
            "sync_duration": quantiles(syncs, histograms("shunt_sync_duration_seconds")),
            "event_to_commit": quantiles(events, histograms(EVENTS)),
        }

    def fail(self, why):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            sys.stderr.writelines(log.readlines()[-20:])
        sys.exit(f"bench: {title((self.services, self.endpoints))}: {why}; what shunt said stands above")


EVENTS = "shunt_event_to_commit_seconds"


def fresh_network():
    """Moves this process into a network namespace of its own, with the node's address on an interface."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in (
        "link set lo up",
        "link add eth0 type veth peer name peer",
        f"address add {cluster.NODE_ADDRESS}/24 dev eth0",
        "link set eth0 up",
        "link set peer up",
        "route add default via 192.168.1.1",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def tables():
    return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout


def memory(pid):
    """Resident and peak memory in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}


def cpu_seconds(pid):
    """What all threads of a process have used so far, with the scheduler's resolution."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        except FileNotFoundError:
            pass  # a thread that has just ended
    return total / 1e9


def histograms(name):
    try:
        with urllib.request.urlopen(METRICS, timeout=2) as page:
            return histogram.read(page.read().decode(), name)
    except (urllib.error.URLError, OSError):
        return None


def quantiles(before, after):
    seen = histogram.since(before, after)
    return {"p50": histogram.quantile(seen, 0.5), "p99": histogram.quantile(seen, 0.99)}


# --- the table ------------------------------------------------------------------------------------


def title(size):
    return f"{size[0]:,} x {size[1]}"


def written(counts):
    """What was written, for people: "+element 1, -element 1"."""
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()) if name != "commit") or "nothing"


def most_often(operations):
    first = max(operations, key=operations.get)
    times, all_times = operations[first], sum(operations.values())
    return first if times == all_times else f"{first} ({times} of {all_times} times)"


def print_table(results, options):
    rows = [
        ("Services x endpoints", [title((r["services"], r["endpoints"])) for r in results]),
        ("cold start, run --once, start to exit", [spread(r["cold_start_s"]) for r in results]),
        ("restart, nothing changed", [spread(r["restart_s"]) for r in results]),
        ("  written by it", [written(r["restart_written"]) for r in results]),
        ("resident memory of the daemon", [megabytes(r["start"]["VmRSS"]) for r in results]),
        ("  peak", [megabytes(r["start"]["VmHWM"]) for r in results]),
        (f"  resident after {options.changes:,} changes", [megabytes(r["after_changes"]["VmRSS"]) for r in results]),
        ("one endpoint replaced, rename to commit, p50", [millis(percentile(r["change_s"], 50)) for r in results]),
        ("  p99", [millis(percentile(r["change_s"], 99)) for r in results]),
        ("  worst", [millis(max(r["change_s"])) for r in results]),
        ("  written by each", [most_often(r["change_operations"]) for r in results]),
        ("  CPU for 1,000", [f"{r['cpu_s_per_1000_changes']:.2f} s" for r in results]),
        ("  shunt's own event to commit, p50", [millis(r["event_to_commit"]["p50"]) for r in results]),
        ("  p99", [millis(r["event_to_commit"]["p99"]) for r in results]),
        ("  shunt's own sync duration, p50", [millis(r["sync_duration"]["p50"]) for r in results]),
        ("  p99", [millis(r["sync_duration"]["p99"]) for r in results]),
    ]
    widths = [max(len(row[1][i]) for row in rows) for i in range(len(results))]
    first = max(len(name) for name, _ in rows)
    for index, (name, cells) in enumerate(rows):
        print(name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths)), sep="   ")
        if index == 0:
            print("-" * (first + sum(width + 3 for width in widths)))
    print(f"\n{options.rounds} rounds: median (fastest - slowest); n/a: shunt does not say")


def spread(seconds):
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} - {max(seconds):.3f})"


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def millis(seconds):
    return "n/a" if seconds is None else f"{seconds * 1000:.2f} ms"


def megabytes(count):
    return f"{count / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
