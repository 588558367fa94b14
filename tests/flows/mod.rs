//! All tables.

mod harness;

use crate::netns::runner::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    harness::CASES.to_vec()
}
