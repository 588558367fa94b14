//! How many descriptors there are, and who may have how many. EDGE: the process's limit.

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors kept for everything else: manifests, the API, HTTP.
const REST: usize = 256;

/// How much one worker may have open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// TCP connections, of two descriptors each.
    pub connections: usize,
    /// Pipes, of two descriptors each.
    pub pipes: usize,
    /// UDP flows.
    pub flows: usize,
}

/// How many files may be open; `main` has raised that as far as it goes.
#[must_use]
pub fn open_files() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(soft).unwrap_or(usize::MAX)
}

/// Whether one more socket may be opened besides so many, so that a quarter of what there is stays for connections.
#[must_use]
pub const fn admits(limit: usize, sockets: usize) -> bool {
    sockets + REST < limit / 4 * 3
}

/// What is left for each of `workers` where so many sockets are open: half of the descriptors for connections,
/// a quarter for flows, an eighth for pipes.
#[must_use]
pub fn room(limit: usize, sockets: usize, workers: usize) -> Room {
    let left = limit.saturating_sub(sockets + REST) / workers.max(1);
    Room { connections: (left / 4).max(1), pipes: left / 16, flows: (left / 4).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_never_all_given_away() {
        for (limit, sockets) in [(1024, 0), (1024, 500), (20_000, 10_000), (1 << 20, 40_000)] {
            assert!(admits(limit, sockets), "{limit} {sockets}");
            let room = room(limit, sockets, 2);
            let used = 2 * (2 * room.connections + 2 * room.pipes + room.flows);
            assert!(used + sockets + REST <= limit, "{limit} {sockets}: {room:?}");
        }
        assert!(!admits(1024, 512));
        assert_eq!(room(1024, 2000, 2), Room { connections: 1, pipes: 0, flows: 1 });
    }
}
