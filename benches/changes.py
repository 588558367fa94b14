"""Single changes of a cluster, and how long the kernel waits for what follows from each. Whose hand makes them
is another matter: `Files` here renames manifests, remote.py writes to an API server."""

import collections
import os
import time

import cluster
import histogram
import node
import nftnews
import trace

CHANGE_LIMIT = 5  # seconds until one change of a file has to be in the kernel
PACE = 0.003  # seconds between one commit and the next change: each is the first of a quiet time
TRACED = 40  # changes of each kind under strace, apart from those that are timed
EVENTS = "shunt_event_to_commit_seconds"

ROLLED_PODS, ROLLED_AT_ONCE = 50, 13  # a Deployment with the default maxSurge of 25%

SLICE, SERVICE, GONE = "another slice", "a Service and its slice", "no Service"

# What becomes of Service `number`: the text of its slice, and the addresses that are new in it.
Change = collections.namedtuple("Change", "what number slice addresses")
# How long the kernel's news of a commit came after what was done (and, with a server, after it was asked
# for it), and what was committed, as {"+element": 1, ...}.
Made = collections.namedtuple("Made", "seconds counts since_asked", defaults=[None])


class Kind:
    """One kind of change: a name, change number i, and the name of another kind that it takes back."""

    def __init__(self, name, change, undoes=None):
        self.name, self.change, self.undoes = name, change, undoes


def kinds(made_up):
    """All kinds, in an order in which each finds what it needs."""
    middle = made_up.services // 2
    added_name = "one Service added"

    def replaced(i):
        address = made_up.replacement_address(i)
        return Change(SLICE, middle, made_up.endpoint_slice(middle, address, version=2 + i), [address])

    def added(i):
        # one more for each Service in turn: a Service that grew for ever would not be the size that is measured
        number, more = i % made_up.services, 1 + i // made_up.services
        text = made_up.endpoint_slice(number, version=2 + i, more=more)
        return Change(SLICE, number, text, [made_up.more_address(number, more - 1)])

    def service_added(i):
        number = cluster.ADDED + i
        addresses = [made_up.pod_address(number, index) for index in range(made_up.endpoints)]
        return Change(SERVICE, number, made_up.endpoint_slice(number), addresses)

    def service_removed(i):
        return Change(GONE, cluster.ADDED + i, None, [])

    def pods_rolled(i):
        return rolled(made_up, (i + 1) * ROLLED_AT_ONCE)

    return [
        Kind("one endpoint replaced", replaced),
        Kind("one endpoint added", added),
        Kind(added_name, service_added),
        Kind("one Service removed", service_removed, undoes=added_name),
        Kind(f"{ROLLED_AT_ONCE} of {ROLLED_PODS} pods rolled", pods_rolled),
    ]


def rolled(made_up, pods):
    """The Service whose pods are rolled, after so many of them were replaced."""
    addresses = made_up.rolled_addresses(ROLLED_PODS, pods)
    new = set(addresses) - set(made_up.rolled_addresses(ROLLED_PODS, pods - ROLLED_AT_ONCE))
    return Change(SLICE, cluster.ROLLED, made_up.slice_of(cluster.ROLLED, addresses, version=1 + pods), list(new))


def write_rolled(made_up):
    """That Service as files, which stand beside the others."""
    cluster.put(made_up.service_path(cluster.ROLLED), made_up.service(cluster.ROLLED))
    cluster.put(made_up.slice_path(cluster.ROLLED), rolled(made_up, 0).slice)


class Changer:
    """Makes changes by somebody's hand, each as the first of a quiet time, for at most `limit` seconds of a kind."""

    def __init__(self, daemon, hand, pace=PACE, limit=float("inf")):
        self.daemon, self.hand, self.pace, self.limit = daemon, hand, pace, limit
        self.made = {}  # how many of each kind, timed and traced

    def all(self, made_up, count, path, say):
        """Changes of every kind: figures by name of the kind. `path` is for strace."""
        found = {}
        for kind in kinds(made_up):
            say(f"  {kind.name}")
            timed, traced = self.made.get(kind.undoes, (count, TRACED))
            found[kind.name] = self.measure(kind, range(timed))
            found[kind.name] |= self.trace(kind, range(count, count + traced), path)
            self.made[kind.name] = found[kind.name]["changes"], found[kind.name]["traced"]
        return found

    def measure(self, kind, numbers):
        """Makes the changes `numbers`, one after the other, as long as there is time."""
        latencies, since_asked, operations = [], [], collections.Counter()
        before, used = node.metrics_page(), self.daemon.cpu_seconds()
        for made in self.one_by_one(kind, numbers, self.limit):
            latencies.append(made.seconds)
            if made.since_asked is not None:
                since_asked.append(made.since_asked)
            operations[written(made.counts)] += 1
        used, after = self.daemon.cpu_seconds() - used, node.metrics_page()
        seen = histogram.since(histogram.read(before, EVENTS), histogram.read(after, EVENTS))
        return {
            "changes": len(latencies),
            "latency_s": latencies,
            "since_asked_s": since_asked,
            "operations": dict(operations),
            "cpu_s_per_1000": used * 1000 / len(latencies),
            "own_p50_s": histogram.quantile(seen, 0.5),
            "own_p99_s": histogram.quantile(seen, 0.99),
        }

    def trace(self, kind, numbers, path):
        """System calls and bytes for the kernel of each of these changes, on average."""
        with trace.Attached(self.daemon.pid, path) as traced:
            count = len(list(self.one_by_one(kind, numbers, self.limit / 4)))
        calls = {name: number / count for name, number in traced.calls.most_common()}
        return {
            "traced": count,
            "calls": sum(calls.values()),
            "calls_by_name": calls,
            "bytes": sum(traced.batches) / count,
        }

    def one_by_one(self, kind, numbers, limit):
        # what a kind takes back it takes back whole
        end = time.perf_counter() + (float("inf") if kind.undoes else limit)
        for number in numbers:
            yield self.hand.make(kind.change(number))
            time.sleep(self.pace)
            if time.perf_counter() > end:
                return


class Files:
    """Changes as renames of manifests."""

    def __init__(self, program, made_up):
        self.program, self.made_up = program, made_up
        self.spare, self.news = os.path.join(made_up.folder, "new"), nftnews.News()

    def close(self):
        self.news.close()

    def make(self, change):
        """One rename, of one file; the next commit is what follows from it."""
        path, text = self.file(change)
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
            self.program.fail(f"{change.what}, {path}: not in the kernel after {CHANGE_LIMIT} s")
        return Made(heard - start, counts)

    def file(self, change):
        made_up, number = self.made_up, change.number
        if change.what == SLICE:
            return made_up.slice_path(number), change.slice
        if change.what == GONE:
            return made_up.service_path(number), None
        return made_up.service_path(number), made_up.style.together([made_up.service(number), change.slice])


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
        address = made_up.steady_address(number)
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
