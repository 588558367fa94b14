//! Sources: where objects come from. EDGE, except for `objects`, `convert` and `pods`.
//!
//! Each source turns what it sees into [`Update`]s of the model's own types and hands them to the
//! engine in batches; a batch takes effect together.

pub mod addresses;
pub mod convert;
pub mod field;
pub mod manifests;
mod metadata;
pub mod objects;
pub mod pods;
pub mod watch;

use crate::model::Update;

/// Where a source puts its updates. Returns false when nobody listens any more: the source then ends.
pub type Sink = Box<dyn FnMut(Vec<Update>) -> bool + Send>;
