"""The same cluster from an API server: shunt and, beside it, another program that is started like kube-proxy.

The server is a real one (outside.py made a place on it) or our own (api.py). Both programs get the same file of
configuration and the same objects by way of the same server, never at the same time, each on a node of its own:
cold starts in turn, then all changes of one and all changes of the other.
"""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import time

import access
import api
import changes
import cluster
import nftnews
import node
import remote
import tunnel

PORT = 6443  # where the server is found in each network namespace that is measured
OWN = "bench"  # the namespace object on our own server
QUIET = 0.3  # seconds without a commit, after which what there is is looked at
SILENT = 5  # seconds without a commit, after which a start is over even if the program goes on with something
SOME = 100  # 1% of so many objects is one

KUBE_PROXYS_LIMIT = 1800  # seconds for a start: a chain for each endpoint takes its time

CONFIG = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {name}
detectLocalMode: ClusterCIDR
clusterCIDR: {pods}
clientConnection:
  kubeconfig: {kubeconfig}
metricsBindAddress: 127.0.0.1:10249
healthzBindAddress: 127.0.0.1:10256
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
"""

# A server to measure with: how it is reached, and what our namespace and node are called there.
Place = collections.namedtuple("Place", "access name node tunnel")


def real(folder):
    """The place that outside.py has made; `folder` is where it says so."""
    with open(os.path.join(folder, "access.json"), encoding="utf-8") as file:
        found = json.load(file)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(os.path.join(folder, "outside"))
    return Place(access.Access(**found["access"]), found["name"], found["name"], tunnel.Tunnel(control))


class Live:
    """All of it, for one size of cluster. `place` is None for a server of our own."""

    def __init__(self, place, options, work, services, endpoints, say):
        self.options, self.work, self.say, self.own = options, work, say, None
        if place:
            self.place = place
            self.remote = self.on(place, services, endpoints)
        else:
            self.start_own(services, endpoints)
        self.config, self.kubeconfig = os.path.join(work, "live.yaml"), os.path.join(work, "kubeconfig")
        cluster.put(self.kubeconfig, json.dumps(self.place.access.kubeconfig(PORT)))
        cluster.put(self.config, CONFIG.format(name=self.place.node, pods=remote.PODS, kubeconfig=self.kubeconfig))

    def on(self, place, services, endpoints):
        return remote.Remote(
            services, endpoints, place.name, lambda: access.Client(place.access, place.tunnel.connect)
        )

    def start_own(self, services, endpoints):
        node.fresh_network()
        self.remote = remote.Remote(services, endpoints, OWN, None)
        port, self.own = api.start(*self.remote.objects())
        found = access.Access(f"http://127.0.0.1:{port}")
        self.place = Place(found, OWN, cluster.NODE, tunnel.beside((found.host, found.port)))
        self.remote.connect = lambda: access.Client(found, self.place.tunnel.connect)

    def programs(self):
        options, config = self.options, ["--config", self.config]
        found = [node.Program("shunt", [options.shunt, "run", *config], self.log("shunt"))]
        if options.peer:
            command = [options.peer, *config]
            found.append(node.Program("kube-proxy", command, self.log("peer"), KUBE_PROXYS_LIMIT))
        return found

    def log(self, name):
        path = os.path.join(self.work, f"live-{name}.log")
        cluster.put(path, "")
        return path

    def run(self):
        programs, rounds = self.programs(), self.options.rounds
        result = {"server": self.place.access.server if not self.own else "our own", "programs": {}}
        try:
            if not self.own:
                self.say("  filling the server")
                result["fill_s"] = self.remote.fill(self.options.changes + changes.TRACED)
            found = {program.name: {"cold": []} for program in programs}
            self.say("  cold starts")
            for number in range(rounds):
                # nobody is always the one behind whom the server is warm
                for program in programs[:: 1 - 2 * (number % 2)]:
                    found[program.name]["cold"].append(self.cold(program))
            for program in programs:
                self.say(f"  {program.name}")
                found[program.name] |= self.restarts(program)
                found[program.name] |= self.running(program)
                self.remote.restore()
            if not self.own:
                self.remote.empty()  # for the next size; what is left after a failure is removed by outside.py
            return result | {"programs": found}
        finally:
            if self.own:
                os.kill(self.own, signal.SIGKILL)
                os.waitpid(self.own, 0)
                self.place.tunnel.close()

    def fresh_network(self):
        node.fresh_network()
        self.place.tunnel.listen(PORT)

    # --- starts ----------------------------------------------------------------------------------------

    def cold(self, program):
        """One start on an empty node."""
        self.fresh_network()
        commits, begun = nftnews.Commits(), time.perf_counter()
        with node.Daemon(program) as daemon:
            done = self.complete(daemon, commits)
            came = [when for when in self.place.tunnel.much_came() if when <= done]
            memory = daemon.memory()
        commits.close()
        return {"from_start_s": done - begun, "from_last_item_s": done - came[-1] if came else None, "memory": memory}

    def complete(self, daemon, commits):
        """When the commit was heard of after which every endpoint was in the kernel: looked at in a pause."""
        limit, last = daemon.program.limit, None
        deadline = time.perf_counter() + limit
        while time.perf_counter() < deadline:
            daemon.must_live()
            if heard := commits.next(QUIET):
                last = heard
            elif last:
                if self.all_there():
                    return last
                last = None  # the next commit shows more
        daemon.program.fail(f"{daemon.program.name} had not all endpoints in the kernel after {limit} s")

    def all_there(self):
        ruleset = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        return self.remote.pods() <= set(re.findall(r"\b24\d(?:\.\d+){3}\b", ruleset))

    def restarts(self, program):
        """Starts with everything in place: nothing changed, then 1% of the Services."""
        self.fresh_network()
        commits = nftnews.Commits()
        with node.Daemon(program) as daemon:
            self.complete(daemon, commits)
            daemon.stop()
        made_up, rounds = self.remote.made_up, self.options.rounds
        nothing = [self.restart(program, commits) for _ in range(rounds)]
        result = {"restart": {"seconds": nothing, "written": self.written(program)}}
        some, seconds = range(0, made_up.services, SOME), []
        for number in range(rounds):
            self.remote.replace_some(some, number * made_up.services)
            seconds.append(self.restart(program, commits))
        self.remote.replace_some(some, rounds * made_up.services)
        commits.close()
        return result | {"restart_1_percent": {"seconds": seconds, "written": self.written(program)}}

    def restart(self, program, commits):
        """Seconds from the process's start to its last commit, before it had nothing more to do; None without any."""
        while commits.next(0):
            pass
        begun = time.perf_counter()
        with node.Daemon(program) as daemon:
            last = self.last_commit(daemon, commits.next)
            daemon.stop()
        return last - begun if last else None

    def last_commit(self, daemon, next_commit):
        """When the last commit of a start was heard of: then it is idle, or at least silent for some time."""
        begun = quiet_since = time.perf_counter()
        last = None
        while True:
            while heard := next_commit(QUIET):
                last = quiet_since = heard
            now = time.perf_counter()
            # who has nothing to write is idle too, but not at once
            done = now - quiet_since > SILENT or (last and daemon.is_idle())
            if (done and self.all_there()) or now - begun > daemon.program.limit:
                return last

    def written(self, program):
        """What one more such start writes; apart from the others, since listening to all of it slows it down."""
        news = nftnews.News()
        with node.Daemon(program) as daemon:
            counts = collections.Counter()

            def next_commit(timeout):
                time.sleep(timeout)
                counts.update(found := news.so_far())
                return time.perf_counter() if found else None

            self.last_commit(daemon, next_commit)
            daemon.stop()
        news.close()
        return changes.written(counts)

    # --- a running program -----------------------------------------------------------------------------

    def running(self, program):
        self.fresh_network()
        commits = nftnews.Commits()
        with node.Daemon(program) as daemon:
            self.complete(daemon, commits)
            commits.close()
            result = {"start": daemon.memory()}
            writes = remote.Writes(program, self.remote)
            pace = self.options.pace if self.options.peer else changes.PACE  # the same for both
            changer = changes.Changer(daemon, writes, pace, self.options.seconds)
            trace_path = os.path.join(self.work, "trace")
            made_up, count = self.remote.made_up, self.options.changes
            result["changes"] = changer.all(made_up, count, trace_path, lambda what: self.say(f"  {what}"))
            writes.close()
            result["after_changes"] = daemon.memory()
            self.say("    doing nothing")
            used = daemon.cpu_seconds()
            time.sleep(self.options.seconds)
            result["idle_cpu_share"] = (daemon.cpu_seconds() - used) / self.options.seconds
            daemon.stop()
        return result
