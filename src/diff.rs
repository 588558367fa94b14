//! The difference between two states: one merge for a changed Service, a relist, a restart and a
//! repair. PURE.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::desired::{Owner, Row};
use crate::model::Family;

/// Merges two sequences sorted by `key`, without duplicate keys, and reports each key at which they
/// differ: what stood before and what stands after. At least one of the two is there.
pub fn merge<T: Eq, K: Ord>(
    before: impl IntoIterator<Item = T>,
    after: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
    mut differs: impl FnMut(Option<T>, Option<T>),
) {
    let (mut old, mut new) = (before.into_iter().peekable(), after.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => key(old).cmp(&key(new)),
        };
        match order {
            Ordering::Less => differs(old.next(), None),
            Ordering::Greater => differs(None, new.next()),
            Ordering::Equal => {
                let (old, new) = (old.next(), new.next());
                if old != new {
                    differs(old, new);
                }
            }
        }
    }
}

/// A row of a list of rows that is shared with the ledger: a plan for a whole cluster copies none.
#[derive(Clone)]
pub struct RowRef {
    rows: Arc<[Row]>,
    at: usize,
}

impl RowRef {
    /// Every row of a list.
    pub fn all(rows: &Arc<[Row]>) -> impl Iterator<Item = Self> + '_ {
        (0..rows.len()).map(|at| Self { rows: rows.clone(), at })
    }
}

impl From<Row> for RowRef {
    fn from(row: Row) -> Self {
        Self { rows: Arc::new([row]), at: 0 }
    }
}

impl Deref for RowRef {
    type Target = Row;

    fn deref(&self) -> &Row {
        &self.rows[self.at]
    }
}

impl PartialEq for RowRef {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for RowRef {}

impl fmt::Debug for RowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// One row that has to change, on behalf of the owner that has it afterwards, or had it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose row it is.
    pub owner: Owner,
    /// The row as installed; `None` where there is none.
    pub before: Option<RowRef>,
    /// The row as wanted; `None` where there is to be none. Same key as `before`.
    pub after: Option<RowRef>,
}

/// What has to change in one family: sorted by owner, so that it can be cut between Services.
///
/// Prints as lines: `+` a new row, `-` a row that goes, `~` a row with other content (before, then
/// after).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The family.
    pub family: Family,
    /// The changes.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whose rows change, in a few words: `Service shop/api, Service shop/web and 7 others`.
    #[must_use]
    pub fn summary(&self) -> String {
        let owners: BTreeSet<&Owner> = self.changes.iter().map(|change| &change.owner).collect();
        let named: Vec<String> = owners.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        match owners.len() - named.len() {
            0 => named.join(", "),
            1 => format!("{} and 1 other", named.join(", ")),
            others => format!("{} and {others} others", named.join(", ")),
        }
    }
}

/// How many owners a summary names.
const MOST_NAMED: usize = 5;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            match (&change.before, &change.after) {
                (None, Some(after)) => writeln!(f, "+ {}", **after)?,
                (Some(before), None) => writeln!(f, "- {}", **before)?,
                (Some(before), Some(after)) => writeln!(f, "~ {}\n    => {}", **before, **after)?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectName;

    #[test]
    fn a_summary_names_each_owner_once_and_not_too_many() {
        let change = |n: usize| Change {
            owner: Owner::Service(ObjectName::new("shop", &format!("s{n}"))),
            before: None,
            after: None,
        };
        let table: [(&[usize], &str); 4] = [
            (&[], ""),
            (&[2, 1, 2], "Service shop/s1, Service shop/s2"),
            (
                &[1, 2, 3, 4, 5, 6],
                "Service shop/s1, Service shop/s2, Service shop/s3, Service shop/s4, Service shop/s5 and 1 other",
            ),
            (
                &[1, 2, 3, 4, 5, 6, 7],
                "Service shop/s1, Service shop/s2, Service shop/s3, Service shop/s4, Service shop/s5 and 2 others",
            ),
        ];
        for (numbers, expected) in table {
            let changes = numbers.iter().map(|n| change(*n)).collect();
            assert_eq!(Plan { family: Family::V4, changes }.summary(), expected);
        }
    }

    #[test]
    fn merge_reports_exactly_the_differences() {
        let table = [
            ("", "", ""),
            ("", "a1 b1", "+a1 +b1"),
            ("a1 b1", "", "-a1 -b1"),
            ("a1 b1 c1", "a1 b1 c1", ""),
            ("a1 b1 c1", "a1 b2 d1", "~b1b2 -c1 +d1"),
            ("b1", "a1 c1", "+a1 -b1 +c1"),
        ];
        for (before, after, expected) in table {
            let [before, after] = [before, after].map(|text| text.split_whitespace().collect::<Vec<_>>());
            let mut lines = Vec::new();
            merge(
                &before,
                &after,
                |item| item.as_bytes()[0],
                |old, new| {
                    lines.push(match (old, new) {
                        (Some(old), Some(new)) => format!("~{old}{new}"),
                        (Some(old), None) => format!("-{old}"),
                        (None, Some(new)) => format!("+{new}"),
                        (None, None) => unreachable!(),
                    });
                },
            );
            assert_eq!(lines.join(" "), expected);
        }
    }
}
