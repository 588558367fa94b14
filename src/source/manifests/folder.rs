//! Which file defines what, and what follows when files change.
//!
//! An object in force is in the store; other files that define it as well stand back with a copy of their
//! own, so that one of them can take over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::definition::{Definition, Item, ItemKey, NOT_OURS, Parsed};
use super::load::{Found, Loaded, hash};
use crate::metrics::Metrics;
use crate::model::Update;
use crate::source::convert::{Context, Problem};
use crate::source::pods::StandIn;

const SETTLE_GONE: Duration = Duration::from_millis(10);
const SETTLE_EMPTY: Duration = Duration::from_millis(100);

type FileName = Arc<OsStr>;

/// The folder as it was last read.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    context: Context,
    metrics: Metrics,
    files: HashMap<FileName, File>,
    /// Those that could not be read.
    unreadable: BTreeSet<FileName>,
    objects: HashMap<ItemKey, Claim>,
    spares: Spares,
    /// Hashes of what has been said about files, few of which have given cause.
    said: HashMap<FileName, Box<[u64]>>,
    stand_in: StandIn,
}

/// What is remembered of a file. There may be a hundred thousand of them.
#[derive(Debug, Default)]
struct File {
    /// Hash of the content that was read last, good or bad.
    content: u64,
    /// Whether that one could be used.
    state: State,
    /// Whether there is a good state in force.
    good: bool,
    /// What it defines.
    keys: Box<[ItemKey]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Good,
    Broken,
    Unreadable,
}

/// Who defines an object.
#[derive(Debug, Default)]
struct Claim {
    /// Whose definition is in force.
    owner: Option<FileName>,
    /// Hash of what the store has; [`NOT_OURS`] for nothing.
    stored: u64,
}

impl Folder {
    pub(super) fn new(dir: PathBuf, context: Context, metrics: Metrics) -> Self {
        let (files, unreadable, objects, spares, said, stand_in) = Default::default();
        Self { dir, context, metrics, files, unreadable, objects, spares, said, stand_in }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) const fn context(&self) -> &Context {
        &self.context
    }

    /// Hash of the content that this file was last read with.
    pub(super) fn content(&self, name: &OsStr) -> Option<u64> {
        self.files.get(name).map(|file| file.content)
    }

    /// These names, and those of the files that are known: what must be looked at to learn what is gone.
    pub(super) fn with_known(&self, mut names: BTreeSet<FileName>) -> BTreeSet<FileName> {
        names.extend(self.files.keys().cloned());
        names
    }

    /// The files that could not be read: nothing tells when they can be.
    pub(super) fn unreadable(&self) -> BTreeSet<FileName> {
        self.unreadable.clone()
    }

    /// How long to wait before this is believed: a file that defined something is gone or empty. What is
    /// gone may be its folder being deleted, which must not take the node's Services down, or it may have
    /// been renamed, or be a link that goes next; what is empty may be about to be written again, which ext4 shows a good while before
    /// it tells.
    pub(super) fn doubt(&self, loaded: &[Loaded]) -> Option<Duration> {
        let known = |name: &FileName| self.files.get(name).is_some_and(|file| !file.keys.is_empty());
        let doubts = loaded.iter().filter_map(|Loaded { name, found, .. }| match found {
            Found::Nothing | Found::Unreadable(_) if known(name) => Some(SETTLE_GONE),
            Found::Good(parsed) if parsed.definitions.is_empty() && known(name) => Some(SETTLE_EMPTY),
            _ => None,
        });
        doubts.max()
    }

    /// Takes in files as they stand now, in the order of their names, and returns what changes for the
    /// store. An object that looks as before is not among it.
    pub(super) fn apply(&mut self, loaded: Vec<Loaded>) -> Vec<Update> {
        let mut updates = self.take_in(loaded);
        updates.append(&mut self.settle());
        updates
    }

    /// The same in parts: what Pods make for Services comes with [`Folder::settle`] at the end.
    pub(super) fn take_in(&mut self, loaded: Vec<Loaded>) -> Vec<Update> {
        let mut updates = Vec::with_capacity(loaded.len());
        let mut fresh = Vec::with_capacity(loaded.len());
        let mut released = Vec::new();
        for Loaded { name, content, found } in loaded {
            match found {
                Found::Same => {}
                Found::Unreadable(_) => _ = self.unreadable.insert(Arc::clone(&name)),
                _ => _ = self.unreadable.remove(&name),
            }
            match found {
                Found::Same => {}
                Found::Nothing => {
                    self.said.remove(&name);
                    if let Some(file) = self.files.remove(&name) {
                        self.release(&name, &file.keys, &HashSet::new(), &mut released);
                    }
                }
                Found::Unreadable(message) => self.keep(&name, content, State::Unreadable, &message),
                Found::Broken(message) => self.keep(&name, content, State::Broken, &message),
                Found::Good(parsed) => {
                    self.take(&name, content, &parsed, &mut released);
                    fresh.push((name, parsed.definitions));
                }
            }
        }
        for (name, definitions) in fresh {
            for definition in definitions {
                self.claim(&name, definition, &mut updates);
            }
        }
        for key in released {
            self.succeed(key, &mut updates);
        }
        updates
    }

    /// What Pods make for Services, as far as that has changed.
    pub(super) fn settle(&mut self) -> Vec<Update> {
        self.stand_in.settle()
    }

    /// Remembers what a file defines now, and releases what it no longer does.
    fn take(&mut self, name: &FileName, content: u64, parsed: &Parsed, released: &mut Vec<ItemKey>) {
        let keys: Box<[ItemKey]> =
            parsed.definitions.iter().map(|definition| definition.key.clone()).collect();
        let mut file = self.files.remove(name).unwrap_or_default();
        if !file.keys.is_empty() {
            let now: HashSet<&ItemKey> = keys.iter().collect();
            self.release(name, &file.keys, &now, released);
        }
        if file.state != State::Good {
            info!("manifest {}: can be used again", shown(&self.dir, name));
        }
        self.say(name, parsed);
        (file.content, file.state, file.good, file.keys) = (content, State::Good, true, keys);
        self.files.insert(Arc::clone(name), file);
    }

    /// Leaves the last good state of a file in force.
    fn keep(&mut self, name: &FileName, content: u64, state: State, message: &str) {
        let file = self.files.entry(Arc::clone(name)).or_default();
        let known = file.state == state && file.content == content;
        (file.content, file.state) = (content, state);
        if known {
            return;
        }
        self.metrics.manifest_errors.inc();
        let consequence = if file.good { "its last good state stays in force" } else { "it is left out" };
        warn!("manifest {}: {}: {consequence}", shown(&self.dir, name), one_line(message));
    }

    /// Takes the name of a file off everything that it no longer defines.
    fn release(
        &mut self,
        name: &FileName,
        before: &[ItemKey],
        now: &HashSet<&ItemKey>,
        released: &mut Vec<ItemKey>,
    ) {
        for key in before.iter().filter(|key| !now.contains(key)) {
            let Some(claim) = self.objects.get_mut(key) else { continue };
            if claim.owner.as_ref() == Some(name) {
                claim.owner = None;
                released.push(key.clone());
            } else {
                self.spares.remove(key, name);
            }
        }
    }

    /// Puts a definition in force, or to stand back behind that of another file.
    fn claim(&mut self, name: &FileName, definition: Definition, updates: &mut Vec<Update>) {
        let claim = self.objects.entry(definition.key.clone()).or_default();
        match &claim.owner {
            Some(owner) if owner != name => {
                if !self.spares.has(&definition.key, name) {
                    self.metrics.manifest_errors.inc();
                    let (key, owner, rival) =
                        (&definition.key, shown(&self.dir, owner), shown(&self.dir, name));
                    warn!("{key} is defined in {owner} and in {rival}: the first one stays in force");
                }
                self.spares.insert(name, definition);
            }
            _ => {
                claim.owner = Some(Arc::clone(name));
                // it may have stood back until now
                self.spares.remove(&definition.key, name);
                updates.extend(store(claim, definition, &mut self.stand_in));
            }
        }
    }

    /// Lets the next file in, if there is one, where the owner has gone.
    fn succeed(&mut self, key: ItemKey, updates: &mut Vec<Update>) {
        let Some(claim) = self.objects.get_mut(&key) else { return };
        if claim.owner.is_some() {
            return;
        }
        let Some((heir, definition)) = self.spares.take_first(&key) else {
            let stored = self.objects.remove(&key).is_some_and(|claim| claim.stored != NOT_OURS);
            updates.extend(if stored { tell(key, None, &mut self.stand_in) } else { None });
            return;
        };
        info!("{key} is taken from {} now", shown(&self.dir, &heir));
        claim.owner = Some(heir);
        updates.extend(store(claim, definition, &mut self.stand_in));
    }

    /// Warns of what cannot be used, once.
    fn say(&mut self, name: &FileName, parsed: &Parsed) {
        let said = self.said.remove(name).unwrap_or_default();
        if parsed.skipped.is_empty() && parsed.problems.is_empty() && parsed.twice.is_empty() {
            return;
        }
        let path = shown(&self.dir, name);
        for kind in &parsed.skipped {
            debug!("manifest {path}: objects of kind {kind} mean nothing to shunt");
        }
        let mut hashes = Vec::with_capacity(parsed.problems.len() + parsed.twice.len());
        for problem in &parsed.problems {
            let Problem { kind, object, field, what } = problem;
            hashes.push(hash(problem));
            if !said.contains(&hash(problem)) {
                self.metrics.left_out(kind, field);
                warn!("manifest {path}: {}", one_line(&format!("{kind} {object}: {field} {what}")));
            }
        }
        for key in &parsed.twice {
            hashes.push(hash(key));
            if !said.contains(&hash(key)) {
                self.metrics.manifest_errors.inc();
                warn!("{key} is defined twice in {path}: the first one counts");
            }
        }
        if !hashes.is_empty() {
            self.said.insert(Arc::clone(name), hashes.into());
        }
    }
}

/// The path of a file, whatever its name is made of.
fn shown(dir: &Path, name: &OsStr) -> String {
    one_line(&dir.join(name).to_string_lossy())
}

/// A text in which nothing can be taken for the next line of the log.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

/// What files define that another one has in force. Few files do.
#[derive(Debug, Default)]
struct Spares(BTreeMap<ItemKey, BTreeMap<FileName, Definition>>);

impl Spares {
    fn has(&self, key: &ItemKey, file: &FileName) -> bool {
        self.0.get(key).is_some_and(|files| files.contains_key(file))
    }

    fn insert(&mut self, file: &FileName, definition: Definition) {
        self.0.entry(definition.key.clone()).or_default().insert(Arc::clone(file), definition);
    }

    fn remove(&mut self, key: &ItemKey, file: &FileName) {
        self.take(key, |files| files.remove_entry(file));
    }

    /// Takes out the one whose turn it is when the object's owner goes.
    fn take_first(&mut self, key: &ItemKey) -> Option<(FileName, Definition)> {
        self.take(key, BTreeMap::pop_first)
    }

    fn take<T>(
        &mut self,
        key: &ItemKey,
        take: impl FnOnce(&mut BTreeMap<FileName, Definition>) -> Option<T>,
    ) -> Option<T> {
        let files = self.0.get_mut(key)?;
        let taken = take(files);
        if files.is_empty() {
            self.0.remove(key);
        }
        taken
    }
}

/// Puts a definition in force; the update that tells the store what it does not know yet.
fn store(claim: &mut Claim, definition: Definition, stand_in: &mut StandIn) -> Option<Update> {
    if claim.stored == definition.hash {
        return None;
    }
    claim.stored = definition.hash;
    tell(definition.key, definition.item, stand_in)
}

/// Tells of an item: `None` if it is not there. Pods are not for the store.
fn tell(key: ItemKey, item: Option<Item>, stand_in: &mut StandIn) -> Option<Update> {
    match (item, key) {
        (Some(Item::Object(object, selection)), _) => {
            stand_in.set(&object, selection);
            return Some(Update::Set(object));
        }
        (Some(Item::Pod(name, pod)), _) => stand_in.set_pod(name, pod),
        (None, ItemKey::Object(key)) => {
            stand_in.delete(&key);
            return Some(Update::Delete(key));
        }
        (None, ItemKey::Pod(name)) => stand_in.delete_pod(&name),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_lines_of_the_log() {
        let path = shown(Path::new("/m"), OsStr::new("a\nWARN b\u{1b}[0m.yaml"));
        assert_eq!(path, r"/m/a\nWARN b\u{1b}[0m.yaml");
    }
}
