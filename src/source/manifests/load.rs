//! Lists the folder and reads files, on as many threads as there are processors. EDGE.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::definition::Parsed;
use super::folder::Folder;
use super::parse::parse;

/// What was found under a name.
#[derive(Debug)]
pub(super) enum Found {
    /// No such file.
    Nothing,
    /// What was read last, byte for byte.
    Same,
    /// Objects.
    Good(Parsed),
    /// Something that makes no sense, or is not read, and why.
    Broken(String),
    /// A file that cannot be read just now, and why.
    Unreadable(String),
}

/// A file as it stands now.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) name: Arc<OsStr>,
    /// Hash of the content.
    pub(super) content: u64,
    pub(super) found: Found,
}

/// Whether a file of this name is looked at.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    let hidden = name.as_encoded_bytes().starts_with(b".");
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The names of the manifests in a directory.
pub(super) fn names(dir: &Path) -> io::Result<BTreeSet<Arc<OsStr>>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if is_manifest(&name) {
            names.insert(name.into());
        }
    }
    Ok(names)
}

/// Reads these files, in the order of their names.
pub(super) fn load(folder: &Folder, names: BTreeSet<Arc<OsStr>>) -> Vec<Loaded> {
    let names: Vec<_> = names.into_iter().collect();
    // asking how many processors there are means reading half a dozen files
    let threads = if names.len() > 1 { threads().min(names.len()) } else { 1 };
    if threads == 1 {
        return names.into_iter().map(|name| read(folder, name)).collect();
    }
    // a batch of names at a time: neighbours are about as heavy, so all threads end together
    let (next, step) = (AtomicUsize::new(0), 16.min(names.len().div_ceil(threads)));
    let done = Mutex::new(Vec::with_capacity(names.len().div_ceil(step)));
    let work = || {
        loop {
            let start = next.fetch_add(step, Ordering::Relaxed);
            let Some(rest) = names.get(start..).filter(|rest| !rest.is_empty()) else { return };
            let batch = rest.iter().take(step).map(|name| read(folder, Arc::clone(name)));
            let batch: Vec<_> = batch.collect();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((start, batch));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(start, _)| *start);
    done.into_iter().flat_map(|(_, batch)| batch).collect()
}

/// How many threads read and parse.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

/// A hash that is the same for the same value, within one run of the program.
pub(super) fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn read(folder: &Folder, name: Arc<OsStr>) -> Loaded {
    let path = folder.dir().join(&*name);
    let (content, found) = match read_file(&path) {
        Err(NoContent::Absent) => (0, Found::Nothing),
        Err(NoContent::Unfit(why)) => (hash(&why), Found::Broken(why)),
        Err(NoContent::Unreadable(why)) => (hash(&why), Found::Unreadable(format!("cannot be read: {why}"))),
        Ok(bytes) => {
            let content = hash(&bytes);
            if folder.content(&name) == Some(content) {
                (content, Found::Same)
            } else {
                let json = path.extension().is_some_and(|extension| extension == "json");
                let parsed = parse(&bytes, json, folder.context());
                (content, parsed.map_or_else(|broken| Found::Broken(broken.to_string()), Found::Good))
            }
        }
    };
    Loaded { name, content, found }
}

/// Larger files are not read: 256 MB of YAML take some ten seconds, during which no other change counts.
pub(super) const LARGEST: u64 = 256_000_000;

/// What a manifest cannot be in.
const NO_FILE: &str = "a socket or a device, not a file";

/// Why there is no content.
enum NoContent {
    Absent,
    /// It is not to be read.
    Unfit(String),
    /// It may be read later.
    Unreadable(String),
}

/// The content. Opening does not wait for anybody at the other end of a pipe; who waits there notices that it
/// is opened and closed.
fn read_file(path: &Path) -> Result<Vec<u8>, NoContent> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => {
                NoContent::Unreadable(format!("it is a link to {}, which does not exist", target.display()))
            }
            Err(_) => NoContent::Absent,
        },
        // how a socket answers
        _ if error.raw_os_error() == Some(Errno::ENXIO as i32) => NoContent::Unfit(format!("is {NO_FILE}")),
        _ => NoContent::Unreadable(error.to_string()),
    };
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let mut file = opened.map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory, and only what is directly in the folder is read"),
        () if kind.is_fifo() => Some("a pipe, not a file"),
        () => Some(NO_FILE),
    };
    if let Some(what) = what {
        return Err(NoContent::Unfit(format!("is {what}")));
    }
    if meta.len() > LARGEST {
        let (size, most) = (meta.len().div_ceil(1_000_000), LARGEST / 1_000_000);
        return Err(NoContent::Unfit(format!(
            "is too large with {size} MB; split it (every other change waits while a file is read, so at most \
             {most} MB are)"
        )));
    }
    let mut content = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1);
    // it may grow meanwhile
    file.by_ref().take(LARGEST).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}
