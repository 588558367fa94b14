//! The configuration file while shunt runs. EDGE.
//!
//! A change that makes a difference ends the loop in order, and the program starts afresh in the same
//! process: that is a restart like any other, which writes to the kernel only what the node must do
//! differently. A file that cannot be used changes nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::config::Loaded;
use crate::metrics::Metrics;
use crate::run::{Event, Events};

/// When a directory that cannot be watched is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Reads and checks the configuration; the text of the file beside what it comes to.
pub type Read = Box<dyn Fn() -> Result<(String, Loaded), String> + Send>;

/// A configuration file and what is in force.
pub struct Watched {
    /// The path, as it was given.
    pub path: PathBuf,
    /// What was read of it.
    pub text: String,
    /// What that came to.
    pub in_force: Loaded,
    /// Reads it again.
    pub read: Read,
}

/// Keeps SIGHUP waiting, which would end a program that does not listen for it yet: from here through
/// the replacement of the program until [`follow`] listens.
pub fn hold_hangup() {
    if let Err(error) = hangup_set().thread_block() {
        warn!("SIGHUP cannot be held back: {error}");
    }
}

fn hangup_set() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    set
}

/// Follows the file, if there is one, and SIGHUP, for as long as the future lives.
pub async fn follow(watched: Option<Watched>, metrics: Metrics, events: Events) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return error!("SIGHUP cannot be watched: {error}"),
    };
    if let Err(error) = hangup_set().thread_unblock() {
        warn!("SIGHUP is not heard: {error}");
    }
    let Some(mut watched) = watched else {
        while hangup.recv().await.is_some() {
            info!("SIGHUP: there is no configuration file to be read again (--config)");
        }
        return;
    };
    let (mut asked, mut blind) = (false, false);
    loop {
        // The watch comes first, so that no change is missed; links may lead elsewhere each time.
        let mut notes = match Notes::start(&watched.path) {
            Ok(notes) => {
                blind = false;
                Some(notes)
            }
            Err(error) => {
                if !std::mem::replace(&mut blind, true) {
                    warn!("{} cannot be watched for changes: {error}", watched.path.display());
                }
                None
            }
        };
        if !watched.check(asked, &metrics, &events) {
            return;
        }
        let changed = async {
            match &mut notes {
                Some(notes) => notes.changed().await,
                None => sleep(RETRY).await,
            }
        };
        asked = tokio::select! {
            received = hangup.recv() => received.is_some(),
            () = changed => false,
        };
    }
}

impl Watched {
    /// Looks whether the file has become another; `asked` if somebody wants to hear of it in any case.
    /// False when it has: the next one to look is the program that starts afresh.
    fn check(&mut self, asked: bool, metrics: &Metrics, events: &Events) -> bool {
        let path = self.path.display();
        match (self.read)() {
            Ok((text, loaded)) => {
                let differences = self.in_force.config.differences(&loaded.config);
                if !differences.is_empty() {
                    let list = differences.join(", ");
                    info!("{path} has changed: {list}; shunt starts afresh with it");
                    let _ = events.send(Event::Reload(text));
                    return false;
                }
                if asked || text != self.text {
                    info!("{path} was read again: it comes to the configuration in force");
                }
                for warning in loaded.warnings.iter().filter(|it| !self.in_force.warnings.contains(it)) {
                    warn!("configuration: {warning}");
                }
                (self.text, self.in_force) = (text, loaded);
            }
            // said once for each error: what it is remembered by is no text of a file
            Err(problem) if asked || self.text != problem => {
                error!("the configuration stays as it was: {problem}");
                metrics.config_errors.inc();
                self.text = problem;
            }
            Err(_) => {}
        }
        true
    }
}

/// Tells when the file at a path may have become another.
struct Notes {
    events: EventStream<Box<[u8]>>,
    /// The names by which it is reached, and the directories where they stand.
    names: BTreeSet<OsString>,
    directories: Vec<PathBuf>,
}

impl Notes {
    fn start(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // `..data` is the link that a ConfigMap volume swaps
        let mut names = BTreeSet::from([OsString::from("..data")]);
        let mut directories = Vec::new();
        let written = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
        let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        for link in links(path) {
            names.extend(link.file_name().map(OsStr::to_owned));
            inotify.watches().add(parent(&link), written | itself)?;
            directories.push(parent(&link));
        }
        Ok(Self { events: inotify.into_event_stream(vec![0; 4096].into())?, names, directories })
    }

    /// Returns when there was a change, or the watch has lost its directory.
    async fn changed(&mut self) {
        while let Some(Ok(event)) = self.events.next().await {
            if concerns(event.mask, event.name.as_deref(), &self.names, &self.directories) {
                return;
            }
        }
        sleep(RETRY).await;
    }
}

/// Whether an event tells of a change. A new file that is no link is still being written.
fn concerns(
    mask: EventMask,
    name: Option<&OsStr>,
    names: &BTreeSet<OsString>,
    directories: &[PathBuf],
) -> bool {
    let Some(name) = name else {
        return mask.intersects(
            EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::Q_OVERFLOW,
        );
    };
    let is_link = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let whole = || directories.iter().any(|directory| is_link(directory.join(name)));
    names.contains(name) && (!mask.contains(EventMask::CREATE) || whole())
}

/// The path and, where it is a link, the paths that it leads through.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let mut last = path.to_owned();
    // as many as the kernel follows
    while let (Ok(target), ..40) = (fs::read_link(&last), all.len()) {
        last = parent(&last).join(target);
        all.push(last.clone());
    }
    all
}

fn parent(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::process;

    use tokio::time::timeout;

    use super::*;

    type Step = fn(&Path);

    /// A ConfigMap volume as the kubelet makes it, in `kubelet/`, and a link to its file from elsewhere.
    fn volume(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("shunt-reload-{}-{name}", process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("kubelet/..1")).unwrap();
        fs::write(root.join("kubelet/..1/file"), "a").unwrap();
        symlink("..1", root.join("kubelet/..data")).unwrap();
        symlink("..data/file", root.join("kubelet/file")).unwrap();
        symlink(root.join("kubelet/file"), root.join("link")).unwrap();
        fs::write(root.join("plain"), "a").unwrap();
        root
    }

    fn swap(root: &Path) {
        fs::create_dir(root.join("kubelet/..2")).unwrap();
        fs::write(root.join("kubelet/..2/file"), "b").unwrap();
        symlink("..2", root.join("kubelet/..data_tmp")).unwrap();
        fs::rename(root.join("kubelet/..data_tmp"), root.join("kubelet/..data")).unwrap();
    }

    fn rename(root: &Path) {
        fs::write(root.join("new"), "b").unwrap();
        fs::rename(root.join("new"), root.join("plain")).unwrap();
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_noticed() {
        let table: [(&str, &str, Step); 6] = [
            ("swap", "kubelet/file", swap),
            ("swap-behind-a-link", "link", swap),
            ("rename", "plain", rename),
            ("edit", "plain", |root| fs::write(root.join("plain"), "b").unwrap()),
            ("edit-behind-links", "link", |root| fs::write(root.join("kubelet/..1/file"), "b").unwrap()),
            ("gone", "kubelet/file", |root| {
                fs::rename(root.join("kubelet"), root.join("away")).unwrap();
            }),
        ];
        for (name, file, change) in table {
            let root = volume(name);
            let mut notes = Notes::start(&root.join(file)).unwrap();
            change(&root);
            let noticed = timeout(Duration::from_secs(10), notes.changed()).await;
            assert!(noticed.is_ok(), "{name}");
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_half_written_or_another_file_is_no_change() {
        let root = volume("none");
        let mut notes = Notes::start(&root.join("plain")).unwrap();
        fs::write(root.join("other"), "b").unwrap();
        let mut open = fs::File::create(root.join("plain")).unwrap();
        open.write_all(b"half").unwrap();
        assert!(timeout(Duration::from_millis(100), notes.changed()).await.is_err());
        drop(open);
        assert!(timeout(Duration::from_secs(10), notes.changed()).await.is_ok());
        fs::remove_dir_all(&root).unwrap();
    }
}
