"""Single changes of a cluster of manifests, each one rename of one file, and how long the kernel waits for
what follows from it."""

import collections
import os
import time

import cluster
import histogram
import node
import nftnews
import trace

CHANGE_LIMIT = 5  # seconds until one change has to be in the kernel
PACE = 0.003  # seconds between one commit and the next change: each is the first of a quiet time
TRACED = 40  # changes of each kind under strace, apart from those that are timed
EVENTS = "shunt_event_to_commit_seconds"

ROLLED_PODS, ROLLED_AT_ONCE = 50, 13  # a Deployment with the default maxSurge of 25%


class Kind:
    """One kind of change: a name, and what change number i renames to where."""

    def __init__(self, name, change):
        self.name, self.change = name, change


def kinds(made_up):
    """All kinds, in an order in which each finds what it needs."""
    middle = made_up.services // 2

    def replaced(i):
        text = made_up.endpoint_slice(middle, cluster.replacement_address(i), version=2 + i)
        return made_up.slice_path(middle), text

    def added(i):
        # one more for each Service in turn: a Service that grew for ever would not be the size that is measured
        number, more = i % made_up.services, 1 + i // made_up.services
        return made_up.slice_path(number), made_up.endpoint_slice(number, version=2 + i, more=more)

    def service_added(i):
        number = cluster.ADDED + i
        return made_up.service_path(number), made_up.added_service(number)

    def service_removed(i):
        return made_up.service_path(cluster.ADDED + i), None

    def pods_rolled(i):
        text = made_up.rolled_slice(ROLLED_PODS, (i + 1) * ROLLED_AT_ONCE, version=2 + i)
        return made_up.slice_path(cluster.ROLLED), text

    return [
        Kind("one endpoint replaced", replaced),
        Kind("one endpoint added", added),
        Kind("one Service added", service_added),
        Kind("one Service removed", service_removed),
        Kind(f"{ROLLED_AT_ONCE} of {ROLLED_PODS} pods rolled", pods_rolled),
    ]


def write_rolled(made_up):
    """The Service whose pods are rolled, which stands beside the others."""
    cluster.put(made_up.service_path(cluster.ROLLED), made_up.service(cluster.ROLLED))
    cluster.put(made_up.slice_path(cluster.ROLLED), made_up.rolled_slice(ROLLED_PODS, 0, version=1))


class Changer:
    """Makes changes and waits for each."""

    def __init__(self, daemon, folder):
        self.daemon, self.spare, self.news = daemon, os.path.join(folder, "new"), nftnews.News()

    def close(self):
        self.news.close()

    def measure(self, kind, numbers):
        """Makes the changes `numbers`, one after the other, each as the first of a quiet time."""
        latencies, operations = [], collections.Counter()
        before, used = node.metrics_page(), self.daemon.cpu_seconds()
        for number in numbers:
            seconds, counts = self.make(kind, number)
            latencies.append(seconds)
            operations[written(counts)] += 1
            time.sleep(PACE)
        used, after = self.daemon.cpu_seconds() - used, node.metrics_page()
        seen = histogram.since(histogram.read(before, EVENTS), histogram.read(after, EVENTS))
        return {
            "latency_s": latencies,
            "operations": dict(operations),
            "cpu_s_per_1000": used * 1000 / len(latencies),
            "own_p50_s": histogram.quantile(seen, 0.5),
            "own_p99_s": histogram.quantile(seen, 0.99),
        }

    def trace(self, kind, numbers, path):
        """System calls and bytes for the kernel of each of these changes, on average."""
        with trace.Attached(self.daemon.pid, path) as traced:
            for number in numbers:
                self.make(kind, number)
                time.sleep(PACE)
        calls = {name: count / len(numbers) for name, count in traced.calls.most_common()}
        return {"calls": sum(calls.values()), "calls_by_name": calls, "bytes": sum(traced.batches) / len(numbers)}

    def make(self, kind, number):
        """One change: seconds from the rename until the kernel says that something was committed, and what."""
        path, text = kind.change(number)
        if text is not None:
            cluster.put(self.spare, text)
        self.news.so_far()  # what followed the last commit is not an answer to this change
        start = time.perf_counter()
        if text is None:
            os.unlink(path)
        else:
            os.rename(self.spare, path)
        try:
            heard, counts = self.news.until_commit(CHANGE_LIMIT)
        except TimeoutError:
            self.daemon.shunt.fail(f"{kind.name}, {path}: not in the kernel after {CHANGE_LIMIT} s")
        return heard - start, counts


def steadily(daemon, made_up, rate, seconds):
    """So many endpoints replaced each second, in one Service after the other: how long each one's address
    takes from the rename into the kernel, and what the daemon uses meanwhile."""
    news, spare = nftnews.News(), os.path.join(made_up.folder, "new")
    renamed, lags = {}, []

    def listen(until):
        for heard, address in news.addresses(until):
            if address in renamed:
                lags.append(heard - renamed.pop(address))

    start, used = time.perf_counter(), daemon.cpu_seconds()
    count = rate * seconds
    for number in range(count):
        address = cluster.steady_address(number)
        service = number % made_up.services
        cluster.put(spare, made_up.endpoint_slice(service, address, version=10_000 + number))
        listen(start + number / rate)
        renamed[address.packed] = time.perf_counter()
        os.rename(spare, made_up.slice_path(service))
    took = time.perf_counter() - start
    used = daemon.cpu_seconds() - used
    listen(time.perf_counter() + CHANGE_LIMIT)
    news.close()
    return {"rate": count / took, "lag_s": lags, "unseen": len(renamed), "cpu_share": used / took}


def written(counts):
    """What was written, for people: "+element 1, -element 1"."""
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()) if name != "commit") or "nothing"
