//! What changes in a directory, by inotify. EDGE.
//!
//! A file counts as changed when it is whole: closed after writing, renamed, linked or deleted. One that
//! is being written (modified, and not closed since) must not be read, and what was read of it meanwhile
//! is not the truth.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io, mem};

use inotify::{Event, EventMask, Inotify, WatchMask};
use mio::unix::SourceFd;

use super::load::is_manifest;

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// These files may have come, changed or gone.
    Files(BTreeSet<Arc<OsStr>>),
    /// Any file may have: events were lost, or the link of a ConfigMap volume was swapped.
    Everything,
    /// The directory itself is no longer there under its name.
    Gone,
}

/// A directory being watched, until dropped.
#[derive(Debug)]
pub(super) struct Watch {
    dir: PathBuf,
    /// Device and inode: a directory that was put in its place by way of a link or a parent is told by them.
    identity: (u64, u64),
    inotify: Inotify,
    poll: mio::Poll,
    buffer: Box<[u8]>,
    seen: Seen,
}

/// What events have told and nobody has asked for yet.
#[derive(Debug, Default)]
struct Seen {
    changed: BTreeSet<Arc<OsStr>>,
    /// Files that have been modified and not closed since.
    writing: BTreeSet<Arc<OsStr>>,
    /// Those, and the ones that were being written at some time since somebody asked.
    written: BTreeSet<Arc<OsStr>>,
    everything: bool,
    gone: bool,
}

impl Watch {
    pub(super) fn start(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let files = WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE;
        let moves = WatchMask::MOVED_FROM | WatchMask::MOVED_TO;
        let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        inotify.watches().add(dir, files | moves | itself)?;
        let poll = mio::Poll::new()?;
        let fd = inotify.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), mio::Token(0), mio::Interest::READABLE)?;
        let (identity, buffer) = (identity(dir)?, vec![0; 64 * 1024].into());
        Ok(Self { dir: dir.to_owned(), identity, inotify, poll, buffer, seen: Seen::default() })
    }

    /// Everything that has happened since the last call, waiting up to `wait` if that is nothing.
    pub(super) fn next(&mut self, wait: Duration) -> Change {
        self.collect();
        if !self.seen.any() {
            let mut ready = mio::Events::with_capacity(1);
            // interrupted by a signal is as good as nothing happened
            let _ = self.poll.poll(&mut ready, Some(wait));
            if ready.is_empty() && !self.stands() {
                return Change::Gone;
            }
            self.collect();
        }
        self.seen.take()
    }

    /// The files that somebody has been writing since [`Watch::next`] returned: what was read of them
    /// since then may be half of it. They are among the changes as soon as they are closed.
    pub(super) fn written(&mut self) -> &BTreeSet<Arc<OsStr>> {
        self.collect();
        &self.seen.written
    }

    /// Whether the directory is still the one under its name.
    pub(super) fn stands(&self) -> bool {
        identity(&self.dir).is_ok_and(|identity| identity == self.identity)
    }

    /// Takes in the events that are there.
    fn collect(&mut self) {
        loop {
            match self.inotify.read_events(&mut self.buffer) {
                Ok(events) => events.for_each(|event| self.seen.add(&event, &self.dir)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.seen.gone = true;
                    return;
                }
            }
        }
    }
}

impl Seen {
    fn any(&self) -> bool {
        self.gone || self.everything || !self.changed.is_empty()
    }

    fn take(&mut self) -> Change {
        let (gone, everything) = (mem::take(&mut self.gone), mem::take(&mut self.everything));
        let changed = mem::take(&mut self.changed);
        self.written.clone_from(&self.writing);
        match () {
            () if gone => Change::Gone,
            () if everything => Change::Everything,
            () if changed.is_empty() => Change::None,
            () => Change::Files(changed),
        }
    }

    fn add(&mut self, event: &Event<&OsStr>, dir: &Path) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            // whoever is writing may have closed meanwhile
            self.writing.clear();
            self.everything = true;
        }
        if event.mask.intersects(EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF) {
            self.gone = true;
        }
        match event.name {
            // the link that a ConfigMap volume swaps: every file is reached through it
            Some(name) if name == "..data" => self.everything = true,
            Some(name) if is_manifest(name) => self.file(event.mask, name, dir),
            _ => {}
        }
    }

    fn file(&mut self, mask: EventMask, name: &OsStr, dir: &Path) {
        if mask.contains(EventMask::MODIFY) {
            self.changed.remove(name);
            self.writing.insert(name.into());
            self.written.insert(name.into());
        } else if !mask.contains(EventMask::CREATE) || is_link(&dir.join(name)) {
            self.writing.remove(name);
            self.changed.insert(name.into());
        }
    }
}

/// Whether a new file came as a link, and so is whole: any other is still being written.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink() || meta.nlink() > 1)
}

fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(dir).map(|metadata| (metadata.dev(), metadata.ino()))
}
