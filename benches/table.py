"""The tables that scripts/bench prints."""

import statistics


def show(results, options):
    if "cold_start_s" in results[0]:
        show_manifests(results)
        print()
    show_api(results)
    print(f"\n{options.rounds} rounds: median (fastest - slowest); {options.changes} changes of each kind", end="")
    print(", or as many as fit, as it says there" if any(fewer(results, options.changes)) else "")


class Rows:
    """Rows of a table, with a column for each of `results`."""

    def __init__(self, results, head):
        self.results, self.rows = results, [head]

    def add(self, name, cell, value=None):
        """A row of `cell(result)`; `value` tells the number behind it, where columns can be compared."""
        self.rows.append((name, [cell(result) for result in self.results], value and list(map(value, self.results))))

    def seconds(self, name, values):
        """A row of several rounds; a round without a figure is None."""

        def there(result):
            return [value for value in values(result) if value is not None]

        def median(result):
            return statistics.median(there(result)) if there(result) else None

        self.add(name, lambda result: spread(there(result)) if there(result) else "n/a", median)

    def number(self, name, show_number, value):
        self.add(name, lambda result: show_number(value(result)), value)


def show_manifests(results):
    head = ("from manifests, Services x endpoints", [title((r["services"], r["endpoints"])) for r in results], None)
    rows = Rows(results, head)
    rows.seconds("cold start, run --once, start to exit", lambda r: r["cold_start_s"])
    rows.add("  batches, operations (shunt's own words)", lambda r: "{batches}, {operations}".format(**r["programmed"]))
    rows.add("  longest commit (shunt's own words)", lambda r: r["programmed"]["longest"])
    of_restarts(rows)
    of_memory(rows)
    for kind in results[0]["changes"]:
        of_kind(rows, kind, "rename to commit")
    steady = results[0]["steady"]["rate"]
    rows.add(f"{steady:.0f} endpoints replaced a second, lag p50", lambda r: millis(percentile(r["steady"]["lag_s"], 50)))
    rows.add("  p99", lambda r: millis(percentile(r["steady"]["lag_s"], 99)))
    rows.add("  never seen in the kernel", lambda r: str(r["steady"]["unseen"]))
    rows.add("  CPU", lambda r: f"{r['steady']['cpu_share']:.1%} of a core")
    of_idle(rows)
    for shape in results[0]["connect"]:
        of_shape(rows, shape)
    print_rows([row[:2] for row in rows.rows])


def show_api(results):
    """A column for each program and size; where there are two programs, the quotient stands behind them."""
    names = list(results[0]["api"]["programs"])
    titles = [title((r["services"], r["endpoints"])) for r in results for _ in names]
    head = f"from an API server ({results[0]['api']['server']})"
    rows = Rows([r["api"]["programs"][name] for r in results for name in names], (head, titles, None))
    if len(names) > 1:
        rows.rows.append(("", names * len(results), None))
    filled = [r["api"].get("fill_s") for r in results for _ in names]
    if filled[0] is not None:
        rows.rows.append(("filling it", [f"{seconds:.1f} s" for seconds in filled], None))
    rows.seconds("cold start, process start to commit", lambda p: [one["from_start_s"] for one in p["cold"]])
    rows.seconds("  last of the lists to commit", lambda p: [one["from_last_item_s"] for one in p["cold"]])
    of_restarts(rows)
    of_memory(rows)
    for kind in rows.results[0]["changes"]:
        of_kind(rows, kind, "answer to commit")
    of_idle(rows)
    print_rows([(name, with_quotients(cells, values, names)) for name, cells, values in rows.rows])


def with_quotients(cells, values, names):
    """Behind each pair of columns how many times as much the second one has."""
    if len(names) == 1:
        return cells
    found = []
    for at in range(0, len(cells), 2):
        one, other = values[at : at + 2] if values else (None, None)
        comparable = one is not None and other is not None and one > 0
        quotient = names[1] + " / " + names[0] if cells[at : at + 2] == names else ""
        found += [*cells[at : at + 2], f"{other / one:.2f}" if comparable else quotient]
    return found


def of_restarts(rows):
    for name, of in (("nothing changed", "restart"), ("1% of the Services changed", "restart_1_percent")):
        rows.seconds(f"restart, {name}", lambda r, of=of: r[of]["seconds"])
        rows.add("  written by it", lambda r, of=of: in_short(r[of]["written"]))


def of_memory(rows):
    rows.number("resident memory of the daemon", megabytes, lambda r: r["start"]["VmRSS"])
    rows.number("  peak", megabytes, lambda r: r["start"]["VmHWM"])
    rows.number("  resident after all changes", megabytes, lambda r: r["after_changes"]["VmRSS"])


def of_idle(rows):
    rows.number("CPU while nothing happens", "{:.3%} of a core".format, lambda r: r["idle_cpu_share"])


def of_kind(rows, kind, what):
    def of(field):
        return lambda result: result["changes"][kind][field]

    def p(field, percent):
        return lambda result: percentile(of(field)(result), percent)

    rows.number(f"{kind}, {what}, p50", millis, p("latency_s", 50))
    rows.number("  p99", millis, p("latency_s", 99))
    if rows.results[0]["changes"][kind]["since_asked_s"]:
        rows.number("  request to commit, p50", millis, p("since_asked_s", 50))
        rows.number("  p99", millis, p("since_asked_s", 99))
    rows.add("  from shunt's own event to commit, p50", lambda r: millis(of("own_p50_s")(r)))
    rows.add("  p99", lambda r: millis(of("own_p99_s")(r)))
    rows.add("  written by each", lambda r: most_often(of("operations")(r)))
    rows.number("  bytes for the kernel", "{:,.0f}".format, of("bytes"))
    rows.number("  system calls", "{:,.1f}".format, of("calls"))
    rows.number("  CPU for 1,000", "{:.2f} s".format, of("cpu_s_per_1000"))
    if len({of("changes")(result) for result in rows.results}) > 1:
        rows.add("  changes", lambda r: str(of("changes")(r)))


def of_shape(rows, shape):
    def cell(show_cell):
        return lambda result: show_cell(result["connect"][shape]) if shape in result["connect"] else "-"

    rows.add(f"TCP connect, {shape}, p50", cell(lambda c: micros(c["p50_s"])))
    ratios = cell(lambda c: "{:.3f} ({:.3f} - {:.3f})".format(c["ratio"], *c["ratios"]))
    rows.add("  times as long as without Services", ratios)
    rows.add("  p99", cell(lambda c: micros(c["p99_s"])))
    rows.add("  connections a second", cell(lambda c: f"{c['per_second']:,.0f}"))


def fewer(results, count):
    """For each kind of change whether less than `count` were made."""
    for result in results:
        for program in result["api"]["programs"].values():
            yield from (kind["changes"] < count for kind in program["changes"].values())


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
    text = in_short(first)
    return text if times == all_times else f"{text} ({times} of {all_times} times)"


def in_short(written):
    """What was written; only how much, where that is of many kinds (the JSON file has it all)."""
    parts = written.split(", ")
    if len(parts) <= 3:
        return written
    sums = {"+": 0, "-": 0}
    for part in parts:
        kind, number = part.rsplit(" ", 1)
        sums[kind[0] if kind[0] in sums else "+"] += int(number)
    return f"{sums['+']:,} objects added, {sums['-']:,} removed"


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
