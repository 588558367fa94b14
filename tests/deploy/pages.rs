//! The pages of the manual lead to each other, and to files that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::documents::{file, text};

/// The anchors that GitHub and its like make of a page's headings.
pub fn anchors(page: &Path) -> BTreeSet<String> {
    let text = text(page);
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|next| next.is_alphanumeric() || *next == '-' || *next == '_').collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<_> = fs::read_dir(file("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(file));
    let (mut links, mut broken) = (0, Vec::new());
    for page in pages {
        let text = text(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            links += 1;
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            if !target.exists() || !anchor.is_empty() && !anchors(&target).contains(anchor) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links > 20 && broken.is_empty(), "{links} links, and of these broken: {broken:#?}");
}

#[test]
fn the_index_names_every_page() {
    let index = text(&file("docs/README.md"));
    for entry in fs::read_dir(file("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || index.contains(&format!("]({name})")),
            "docs/README.md does not name {name}"
        );
    }
}
