//! Placeholder.
cases![];
use crate::netns::prelude::*;
