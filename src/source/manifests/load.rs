//! Lists the folder and reads files, on as many threads as there are processors. EDGE.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, thread};

use super::definition::Parsed;
use super::folder::Folder;
use super::parse::parse;

/// What was found under a name.
#[derive(Debug)]
pub(super) enum Found {
    /// No such file, or something that is not a file.
    Nothing,
    /// What was read last, byte for byte.
    Same,
    /// Objects.
    Good(Parsed),
    /// Something that makes no sense, and why.
    Broken(String),
    /// A file that cannot be read, and why.
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
    let threads = threads().min(names.len());
    if threads <= 1 {
        return names.into_iter().map(|name| read(folder, name)).collect();
    }
    // a batch of names at a time: neighbours are about as heavy, so all threads end together
    let (next, step) = (AtomicUsize::new(0), 64.min(names.len().div_ceil(threads)));
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
        Ok(None) => (0, Found::Nothing),
        Err(error) => (hash(&error.to_string()), Found::Unreadable(format!("cannot be read: {error}"))),
        Ok(Some(bytes)) => {
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

/// The content; `None` if there is no such file. What is not a file is not opened: a pipe would block.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::metadata(path).and_then(|meta| if meta.is_file() { fs::read(path).map(Some) } else { Ok(None) })
    {
        Err(error) if absent(&error) => Ok(None),
        result => result,
    }
}
