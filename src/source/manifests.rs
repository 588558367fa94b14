//! A folder of manifests as a source. EDGE.
//!
//! Every `.yaml`, `.yml` and `.json` file in the folder (not below it, not hidden) holds objects as
//! `kubectl` takes them; the folder is watched, and the store kept in step:
//!
//! - A file that cannot be read or parsed leaves its last good state in force; at the start it is left
//!   out. One warning for each distinct content names the file and the place in it.
//! - What is no file or too large is said and left out; a link to nothing keeps what it led to. A file
//!   that is deleted is meant to be: only the folder as a whole may go without consequences.
//! - An object that two files define is taken from the first by name at the start, later from the one
//!   already in force; when that one goes away, the other takes over.
//! - A file is read when its writer closes it, or when it is renamed or linked into place, never between
//!   two writes. What one burst of events brings is one batch, so a bundle takes effect as a whole.
//!
//! - Pods take the place of the endpoint controller for the Services that have neither slices nor Endpoints
//!   in the folder: see `pods`, which is beside this module.
//!
//! Memory holds the names of the objects, not the objects, save for Pods and for those that stand back
//! behind another file's.
//!
//! `parse` reads one file, `fields` one object, `definition` is what comes of it, `folder` remembers which
//! file defines what and works out the difference, `watch` tells what changed.

mod definition;
mod fields;
mod folder;
mod load;
mod parse;
#[cfg(test)]
mod tests;
mod watch;
mod yaml;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use thiserror::Error;
use tracing::{info, warn};

use self::folder::Folder;
use self::load::{Loaded, load, names};
use self::watch::{Change, Watch};
use super::Sink;
use super::convert::Context;
use crate::metrics::Metrics;
use crate::model::{Kind, Object, Update};

/// How often a folder that is there is checked to be the same one.
const LOOK: Duration = Duration::from_secs(1);
/// How many files are read before what they hold is taken in, so that little memory is in use at a time
/// that is not kept.
const PART: usize = 1024;
/// How often a folder that has gone away is looked for.
const LOOK_FOR: Duration = Duration::from_millis(200);

/// Why a folder cannot be used. All of them call for a person, before the start.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such directory.
    #[error("there is no directory {0}: create it, or name another one with --manifests")]
    Missing(PathBuf),
    /// It is a file or the like.
    #[error("{0} is not a directory: --manifests takes the directory that holds the manifests")]
    NotADirectory(PathBuf),
    /// It cannot be listed.
    #[error("no permission to list {0}: run shunt as a user that may read it, or chmod it")]
    Forbidden(PathBuf),
    /// The system hands out no more watches.
    #[error("no inotify watch left for {0}: raise sysctl fs.inotify.max_user_instances and max_user_watches")]
    NoWatchLeft(PathBuf),
    /// Anything else.
    #[error("cannot read the directory {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

impl Error {
    fn new(dir: &Path, error: io::Error) -> Self {
        const ENOSPC: i32 = 28;
        const EMFILE: i32 = 24;
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => Self::Missing(dir.into()),
            (io::ErrorKind::NotADirectory, _) => Self::NotADirectory(dir.into()),
            (io::ErrorKind::PermissionDenied, _) => Self::Forbidden(dir.into()),
            (_, Some(ENOSPC | EMFILE)) => Self::NoWatchLeft(dir.into()),
            _ => Self::Io(dir.into(), error),
        }
    }
}

/// A folder of manifests that is being watched.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
    folder: Folder,
    /// `None` while the folder is gone.
    watch: Option<Watch>,
    /// Whether that has been said.
    lost: bool,
}

impl Manifests {
    /// Starts watching `dir`; nothing is read yet, so nothing that changes from now on is missed.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or it cannot be listed or watched.
    pub fn open(dir: &Path, context: Context, metrics: Metrics) -> Result<Self, Error> {
        let watch = Watch::start(dir).map_err(|error| Error::new(dir, error))?;
        names(dir).map_err(|error| Error::new(dir, error))?;
        let folder = Folder::new(dir.to_owned(), context, metrics);
        Ok(Self { dir: dir.to_owned(), folder, watch: Some(watch), lost: false })
    }

    /// Everything in the folder: one [`Update::Reset`] for each kind.
    ///
    /// # Errors
    ///
    /// If the directory cannot be listed. A file that cannot be used is no error.
    pub fn initial(&mut self) -> Result<Vec<Update>, Error> {
        let mut names = names(&self.dir).map_err(|error| Error::new(&self.dir, error))?.into_iter();
        let mut lists: [Vec<Object>; Kind::ALL.len()] = Default::default();
        let mut list = |updates: Vec<Update>| {
            for update in updates {
                if let Update::Set(object) = update {
                    lists[place(definition::kind(&definition::key(&object)))].push(object);
                }
            }
        };
        loop {
            let part: BTreeSet<_> = names.by_ref().take(PART).collect();
            if part.is_empty() {
                break;
            }
            let loaded = self.load(part);
            list(self.folder.take_in(loaded));
        }
        list(self.folder.settle());
        let list = |kind| Update::Reset(kind, mem::take(&mut lists[place(kind)]));
        Ok(Kind::ALL.map(list).into())
    }

    /// Hands over everything in the folder and follows it, on a thread of its own that ends when the
    /// sink takes no more.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn follow(mut self, mut sink: Sink) -> Result<JoinHandle<()>, Error> {
        let dir = self.dir.clone();
        let run = move || {
            if self.begin(&mut sink) {
                while self.step(&mut sink) {}
            }
        };
        let thread = std::thread::Builder::new().name("manifests".into()).spawn(run);
        thread.map_err(|error| Error::Io(dir, error))
    }

    /// Hands over everything in the folder, as soon as it can be listed; false when the sink takes no more.
    fn begin(&mut self, sink: &mut Sink) -> bool {
        loop {
            match self.initial() {
                Ok(updates) => return sink(updates),
                Err(error) => {
                    if !mem::replace(&mut self.lost, true) {
                        warn!("{error}; nothing is programmed before it can be listed");
                    }
                }
            }
            std::thread::sleep(LOOK_FOR);
            // Another directory may have come in its place; the list that follows is all of it.
            _ = self.rewatch();
        }
    }

    /// Waits for changes and hands them over; false when the sink takes no more.
    fn step(&mut self, sink: &mut Sink) -> bool {
        let Some(mut files) = self.changed(LOOK) else { return true };
        let mut loaded = self.load(files.clone());
        if let Some(time) = self.folder.doubt(&loaded) {
            std::thread::sleep(time);
            files.extend(self.changed(Duration::ZERO).unwrap_or_default());
            if self.watch.is_none() {
                return true;
            }
            loaded = self.load(files);
        }
        let updates = self.folder.apply(loaded);
        updates.is_empty() || sink(updates)
    }

    /// Reads files, but for those that somebody is writing meanwhile: they come again when they are closed.
    fn load(&mut self, files: BTreeSet<Arc<OsStr>>) -> Vec<Loaded> {
        let mut loaded = load(&self.folder, files);
        if let Some(watch) = &mut self.watch {
            let written = watch.written();
            loaded.retain(|file| !written.contains(&file.name));
        }
        loaded
    }

    /// Waits for changes; the files to look at.
    fn changed(&mut self, wait: Duration) -> Option<BTreeSet<Arc<OsStr>>> {
        let change = if let Some(watch) = &mut self.watch {
            watch.next(wait)
        } else {
            std::thread::sleep(LOOK_FOR);
            Change::Gone
        };
        // it may have been replaced already, and then there is nothing to wait for
        let change = if change == Change::Gone { self.rewatch() } else { change };
        match change {
            Change::None => return Some(self.folder.unreadable()).filter(|files| !files.is_empty()),
            Change::Files(files) => return Some(files),
            Change::Everything => {
                if let Ok(files) = names(&self.dir) {
                    return Some(self.folder.with_known(files));
                }
            }
            Change::Gone => {}
        }
        self.lose();
        None
    }

    /// The folder is gone: say so once, and look for it from now on.
    fn lose(&mut self) {
        self.watch = None;
        if !mem::replace(&mut self.lost, true) {
            let dir = self.dir.display();
            warn!("the manifest directory {dir} is gone: what it held stays in force until it is back");
        }
    }

    fn rewatch(&mut self) -> Change {
        self.watch = None;
        let Ok(watch) = Watch::start(&self.dir) else { return Change::Gone };
        if names(&self.dir).is_err() {
            return Change::Gone;
        }
        self.lost = false;
        info!("watching the manifest directory {} again", self.dir.display());
        self.watch = Some(watch);
        Change::Everything
    }
}

/// Where a kind stands in [`Kind::ALL`].
fn place(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default()
}
