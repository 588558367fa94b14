//! docs/configuration.md names every field and flag, and no others.

use std::collections::BTreeSet;

use clap::{Args as _, Command};

use crate::cli::Run;
use crate::config::decode;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The fields that files can have; sections are none.
fn fields() -> BTreeSet<String> {
    let paths = decode(None, Vec::new()).unwrap().1.paths;
    let is_section = |path: &&String| !paths.iter().any(|other| other.starts_with(&format!("{path}.")));
    paths.iter().filter(is_section).cloned().collect()
}

/// The words in backquotes of the first cell of every row whose heading is `heading`.
fn rows(heading: &str) -> BTreeSet<String> {
    let table = PAGE.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let first = |line: &str| line.split('`').nth(1).map(str::to_owned);
    table.take_while(|line| line.starts_with('|')).filter_map(first).collect()
}

#[test]
fn every_field_has_a_row_and_every_row_is_a_field() {
    assert_eq!(rows("| field |"), fields());
}

#[test]
fn every_flag_is_named() {
    let command = Run::augment_args(Command::new("run"));
    let missing: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(|long| format!("`--{long}`")))
        .filter(|flag| !PAGE.contains(flag))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
