//! YAML files: cut into documents, which are read on all processors.

use std::ops::Range;
use std::thread;

use serde::de::DeserializeSeed;

use super::definition::Parsed;
use super::load::threads;
use super::parse::{Broken, Document, json_values};
use crate::source::convert::Context;

/// Files below this size are read on one thread.
const LARGE: usize = 512 * 1024;

/// Reads every document of a file.
pub(super) fn documents(bytes: &[u8], context: &Context) -> Result<Parsed, Broken> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (line, column) = place(&String::from_utf8_lossy(&bytes[..error.valid_up_to()]));
            return Err(Broken { line, column, message: "not UTF-8 text".into() });
        }
    };
    let documents = split(text);
    if text.len() < LARGE {
        return read(text, &documents, context);
    }
    let parts: Vec<_> = documents.chunks(documents.len().div_ceil(threads()).max(1)).collect();
    let results = thread::scope(|scope| {
        let started: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || read(text, part, context))).collect();
        let died = || Broken { line: 0, column: 0, message: "the YAML reader failed".into() };
        started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(died()))).collect::<Vec<_>>()
    });
    let mut parsed = Parsed::default();
    for result in results {
        parsed.append(result?);
    }
    Ok(parsed)
}

/// Where the documents are: each begins at a line `---`, which nothing inside a document can look like.
fn split(text: &str) -> Vec<Range<usize>> {
    let marker = |at: &usize| {
        let rest = &text.as_bytes()[at + 3..];
        rest.first().is_none_or(u8::is_ascii_whitespace)
    };
    let starts = text.match_indices("\n---").map(|(at, _)| at + 1).filter(marker);
    let mut documents = Vec::new();
    let mut start = 0;
    for end in starts.chain([text.len()]) {
        if !blank(&text[start..end]) {
            documents.push(start..end);
        }
        start = end;
    }
    documents
}

/// Whether there are only comments, directives and markers.
fn blank(document: &str) -> bool {
    document
        .lines()
        .map(|line| line.trim_start_matches('\u{feff}').trim())
        .all(|line| line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "...")
}

fn read(text: &str, documents: &[Range<usize>], context: &Context) -> Result<Parsed, Broken> {
    let mut parsed = Parsed::default();
    for range in documents {
        let document = &text[range.clone()];
        if document.trim_start().starts_with('{')
            && let Ok(more) = json_values(document.as_bytes(), context)
        {
            parsed.append(more);
            continue;
        }
        let seed = Document { context, parsed: &mut parsed, list: None };
        serde_saphyr::with_deserializer_from_str_with_options(document, options(), |reader| {
            seed.deserialize(reader)
        })
        .map_err(|error| broken(text, range.start, &error))?;
    }
    Ok(parsed)
}

/// Manifests have no limit on their size; `yes` and `no` are names, not truth values.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
        },
    }
}

fn broken(text: &str, start: usize, error: &serde_saphyr::Error) -> Broken {
    let (before, _) = place(&text[..start]);
    let error = error.without_snippet();
    let number = |number: u64| usize::try_from(number).unwrap_or_default();
    let (line, column) = error.location().map_or((1, 1), |at| (number(at.line()), number(at.column())));
    let full = error.to_string();
    // the place in the message is that within the document
    let message = full.lines().next().and_then(|line| line.split(" at line ").next()).unwrap_or_default();
    Broken { line: before - 1 + line.max(1), column: column.max(1), message: message.to_owned() }
}

/// Line and column of the end of a text.
fn place(text: &str) -> (usize, usize) {
    let last = text.rsplit('\n').next().unwrap_or_default();
    (text.bytes().filter(|byte| *byte == b'\n').count() + 1, last.chars().count() + 1)
}
