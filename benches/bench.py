#!/usr/bin/env python3
"""The figures of scripts/bench. Started by it, as root of namespaces that nobody else uses.

Every figure is taken from outside of shunt: the wall clock around a process, /proc, strace, and the
kernel's own news of each commit. Where shunt's own words are shown, the row says so.
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
import time

import access
import changes
import cluster
import connect
import live
import nftnews
import node
import table

WORK = "/run/shunt-bench"  # a tmpfs of our own: disks are not what is measured
SOME = 100  # 1% of so many objects is one


def main():
    options = parse()
    os.makedirs(WORK)
    node.ip("link set lo up")
    place = live.real(options.outside) if options.outside else None
    results = []
    try:
        for size in options.sizes:
            say(f"measuring {table.title(size)}")
            result = {"services": size[0], "endpoints": size[1]}
            if not (place or options.peer):
                result |= Bench(options, *size).run()
            say("  from an API server")
            result["api"] = live.Live(place, options, WORK, *size, say).run()
            results.append(result)
    except (access.Refused, ConnectionError) as error:
        sys.exit(f"bench: the API server: {error}")
    table.show(results, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report(results, options), file, indent=2)
            file.write("\n")


def report(results, options):
    return {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "arch": platform.machine()},
        "commit": options.commit,
        "rounds": options.rounds,
        "changes": options.changes,
        "seconds": options.seconds,
        "style": options.style,
        "results": results,
    }


def parse():
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument("--shunt", required=True)
    parser.add_argument("--commit", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60, help="of steady load, and of doing nothing")
    parser.add_argument("--connects", type=int, default=20_000)
    parser.add_argument("--style", choices=cluster.STYLES, default="yaml", help="of the manifests")
    parser.add_argument("--outside", help="where the process stands that leads to a real API server")
    parser.add_argument("--peer", help="a kube-proxy to measure beside shunt")
    parser.add_argument("--pace", type=float, default=1.2, help="seconds from a commit to the next change beside a peer")
    parser.add_argument("--json")
    parser.add_argument("sizes", nargs="+", type=parse_size)
    return parser.parse_args()


def parse_size(text):
    services, _, endpoints = text.partition("x")
    return int(services), int(endpoints)


def say(what):
    print(what, file=sys.stderr, flush=True)


class Bench:
    """One size of cluster, from manifests, and the packets through what they become."""

    def __init__(self, options, services, endpoints):
        self.options = options
        folder = os.path.join(WORK, "manifests")
        self.cluster = cluster.Cluster(folder, services, endpoints, cluster.STYLES[options.style])
        config, log = os.path.join(WORK, "config.yaml"), os.path.join(WORK, "shunt.log")
        cluster.put(config, cluster.CONFIG)
        self.shunt = node.Shunt(options.shunt, ["--manifests", folder], config, log)

    def run(self):
        made_up = self.cluster
        size = made_up.write()
        changes.write_rolled(made_up)
        try:
            result = {"manifest_bytes": size}
            result["cold_start_s"] = [self.cold_start() for _ in range(self.options.rounds)]
            result["programmed"] = self.programmed()
            # the rules of the last round stand: what follows starts with all of it in place
            result["restart"] = self.restarts(lambda _: None)
            result["restart_1_percent"] = self.restarts(self.replace_some)
            node.fresh_network()
            result |= self.daemon()
            say("  connections")
            rounds, connects = self.options.rounds, self.options.connects
            result["connect"] = connect.measure(self.shunt, made_up, WORK, rounds, connects)
            return result
        finally:
            shutil.rmtree(made_up.folder)

    def cold_start(self):
        node.fresh_network()
        return self.shunt.once()

    def programmed(self):
        """What shunt says of the last cold start: batches, operations, the longest commit."""
        with open(self.shunt.log, encoding="utf-8") as log:
            lines = [line for line in log if "programmed" in line and "IPv4" in line]
        fields = dict(re.findall(r"(\w+)=(\S+)", lines[-1])) if lines else {}
        return {name: fields.get(name) for name in ("batches", "operations", "longest")}

    def restarts(self, prepare):
        """Starting again with everything in place: how long, and what was written."""
        news = nftnews.News()
        seconds, written = [], []
        for number in range(self.options.rounds):
            prepare(number)
            seconds.append(self.shunt.once())
            written.append(dict(news.so_far()))
        news.close()
        return {"seconds": seconds, "written": changes.written(written[-1])}

    def replace_some(self, round_number):
        """Another endpoint in 1% of the Services, as if shunt had not been there for a while."""
        made_up = self.cluster
        for number in range(0, made_up.services, SOME):
            address = made_up.replacement_address(round_number * made_up.services // SOME + number)
            text = made_up.endpoint_slice(number, address, version=2 + round_number)
            cluster.put(made_up.slice_path(number), text)

    def daemon(self):
        """A running shunt: its memory, what it uses while nothing happens, and changes."""
        with node.Daemon(self.shunt) as daemon:
            daemon.settle()
            result = {"start": daemon.memory()}
            result["changes"] = self.changes(daemon)
            result["after_changes"] = daemon.memory()
            say("  steady load")
            rate, seconds = 1000, self.options.seconds
            result["steady"] = changes.steadily(daemon, self.cluster, rate, seconds)
            say("  doing nothing")
            used = daemon.cpu_seconds()
            time.sleep(seconds)
            result["idle_cpu_share"] = (daemon.cpu_seconds() - used) / seconds
            result["exit_code"] = daemon.stop()
        return result

    def changes(self, daemon):
        files = changes.Files(self.shunt, self.cluster)
        changer = changes.Changer(daemon, files)
        found = changer.all(self.cluster, self.options.changes, os.path.join(WORK, "trace"), say)
        files.close()
        return found


if __name__ == "__main__":
    main()
