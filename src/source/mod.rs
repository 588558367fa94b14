//! Sources: where objects come from. EDGE, except for `convert`.
//!
//! Each source turns what it sees into [`crate::model::Update`]s and hands them to the engine in
//! batches that take effect together.
