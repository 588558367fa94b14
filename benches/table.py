"""The table that scripts/bench prints."""

import statistics


def show(results, options):
    rows = [("Services x endpoints", [title((r["services"], r["endpoints"])) for r in results])]

    def row(name, cell):
        rows.append((name, [cell(result) for result in results]))

    row("cold start, run --once, start to exit", lambda r: spread(r["cold_start_s"]))
    row("  batches, operations (shunt's own words)", lambda r: "{batches}, {operations}".format(**r["programmed"]))
    row("  longest commit (shunt's own words)", lambda r: r["programmed"]["longest"])
    row("restart, nothing changed", lambda r: spread(r["restart"]["seconds"]))
    row("  written by it", lambda r: r["restart"]["written"])
    row("restart, 1% of the Services changed", lambda r: spread(r["restart_1_percent"]["seconds"]))
    row("  written by it", lambda r: r["restart_1_percent"]["written"])
    row("resident memory of the daemon", lambda r: megabytes(r["start"]["VmRSS"]))
    row("  peak", lambda r: megabytes(r["start"]["VmHWM"]))
    row("  resident after all changes", lambda r: megabytes(r["after_changes"]["VmRSS"]))
    for kind in results[0]["changes"]:
        of_kind(row, kind)
    steady = results[0]["steady"]["rate"]
    row(f"{steady:.0f} endpoints replaced a second, lag p50", lambda r: millis(percentile(r["steady"]["lag_s"], 50)))
    row("  p99", lambda r: millis(percentile(r["steady"]["lag_s"], 99)))
    row("  never seen in the kernel", lambda r: str(r["steady"]["unseen"]))
    row("  CPU", lambda r: f"{r['steady']['cpu_share']:.1%} of a core")
    row("CPU while nothing happens", lambda r: f"{r['idle_cpu_share']:.3%} of a core")
    row("from an API server: last object to commit (shunt's own words)", lambda r: spread(api(r, "from_last_object_s")))
    row("  process start to commit", lambda r: spread(api(r, "from_start_s")))
    row("  resident memory", lambda r: megabytes(r["api"]["start"]["VmRSS"]))
    row("  peak", lambda r: megabytes(r["api"]["start"]["VmHWM"]))
    row("  one endpoint replaced, event to commit, p50", lambda r: millis(percentile(r["api"]["event_s"], 50)))
    row("  p99", lambda r: millis(percentile(r["api"]["event_s"], 99)))
    for shape in results[0]["connect"]:
        of_shape(row, shape)
    print_rows(rows)
    print(f"\n{options.rounds} rounds: median (fastest - slowest); {options.changes} changes of each kind")


def of_kind(row, kind):
    def cell(show_cell):
        return lambda result: show_cell(result["changes"][kind])

    row(f"{kind}, rename to commit, p50", cell(lambda c: millis(percentile(c["latency_s"], 50))))
    row("  p99", cell(lambda c: millis(percentile(c["latency_s"], 99))))
    row("  from shunt's own event to commit, p50", cell(lambda c: millis(c["own_p50_s"])))
    row("  p99", cell(lambda c: millis(c["own_p99_s"])))
    row("  written by each", cell(lambda c: most_often(c["operations"])))
    row("  bytes for the kernel, system calls", cell(lambda c: f"{c['bytes']:.0f}, {c['calls']:.1f}"))
    row("  CPU for 1,000", cell(lambda c: f"{c['cpu_s_per_1000']:.2f} s"))


def of_shape(row, shape):
    def cell(show_cell):
        return lambda result: show_cell(result["connect"][shape]) if shape in result["connect"] else "-"

    row(f"TCP connect, {shape}, p50", cell(lambda c: f"{micros(c['p50_s'])} ({c['ratio']:.3f})"))
    row("  p99", cell(lambda c: micros(c["p99_s"])))
    row("  connections a second", cell(lambda c: f"{c['per_second']:,.0f}"))


def api(result, what):
    return [one[what] for one in result["api"]["cold"]]


def print_rows(rows):
    columns = len(rows[0][1])
    widths = [max(len(row[1][i]) for row in rows) for i in range(columns)]
    first = max(len(name) for name, _ in rows)
    for index, (name, cells) in enumerate(rows):
        print(name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths)), sep="   ")
        if index == 0:
            print("-" * (first + sum(width + 3 for width in widths)))


def title(size):
    return f"{size[0]:,} x {size[1]}"


def most_often(operations):
    first = max(operations, key=operations.get)
    times, all_times = operations[first], sum(operations.values())
    return first if times == all_times else f"{first} ({times} of {all_times} times)"


def spread(seconds):
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} - {max(seconds):.3f})"


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else None


def millis(seconds):
    return "n/a" if seconds is None else f"{seconds * 1000:.2f} ms"


def micros(seconds):
    return f"{seconds * 1e6:.1f} us"


def megabytes(count):
    return f"{count / 1e6:.1f} MB"
