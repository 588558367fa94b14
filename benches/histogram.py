"""Reads histograms from a page in the Prometheus text format, and quantiles from histograms."""

import math
import re


def read(page, name):
    """The cumulative buckets of histogram `name` as {upper bound: count}, over all its labels; None
    where the page has no such histogram."""
    buckets = {}
    for line in page.splitlines():
        match = re.match(rf"{re.escape(name)}_bucket\{{(.*)\}}\s+(\S+)", line)
        if match:
            bound = float(re.search(r'(?:^|,)le="([^"]+)"', match[1])[1])
            buckets[bound] = buckets.get(bound, 0) + float(match[2])
    return buckets or None


def since(before, after):
    """What was counted between two readings."""
    if after is None:
        return None
    return {bound: count - (before or {}).get(bound, 0) for bound, count in after.items()}


def quantile(buckets, q):
    """The value below which a share of `q` lies, as Prometheus' histogram_quantile estimates it: evenly
    spread inside a bucket, and the highest finite bound for what lies above it. None without data."""
    if not buckets:
        return None
    bounds = sorted(buckets)
    rank = q * buckets[bounds[-1]]
    if rank == 0:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (rank - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low
