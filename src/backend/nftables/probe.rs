//! Whether this kernel has what the nftables mode needs, found out by trying. EDGE.
//!
//! The whole of our static rules, hooks included, goes out as one transaction whose last operation cannot
//! succeed: the kernel checks every operation and takes all of them back. Nothing takes effect, not for a
//! moment. The table has a name of its own: what stands under ours, and whose that is, does not matter.

use std::io;

use nix::libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP, EPERM, EPROTONOSUPPORT};

use super::apply::errors::{NO_PRIVILEGE, open_error};
use super::connection::{Connection, Refusal};
use super::encode::Batch;
use super::ruleset::Settings;
use super::steps::{hook_ops, skeleton};
use super::transaction::{Op, Transaction};
use crate::backend::BackendError;
use crate::config::Config;
use crate::diff::Plan;
use crate::model::Family;

/// The table that is tried, which never comes to be.
const TABLE: &str = "shunt-probe";
/// A chain that nobody has.
const NOBODYS: &str = "probe-there-is-no-such-chain";

/// What trying says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel takes our rules.
    Works,
    /// It does not offer what the mode needs, or not to us: this is missing.
    Lacks(String),
    /// This went wrong, which says nothing about what the kernel offers.
    Unclear(String),
}

/// Tries.
#[must_use]
pub fn probe(config: &Config) -> Verdict {
    let opened = Connection::open().and_then(|mut connection| {
        connection.generation()?;
        Ok(connection)
    });
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => return judge_opening(error),
    };
    let transaction = attempt(config);
    let refusal = connection.commit(&Batch::encode_for(TABLE, &transaction)).err();
    if refusal.is_none() {
        // It should not be there. If this fails, too, there is nothing more that could be done.
        let _ = connection.commit(&Batch::table_removal(transaction.family, TABLE));
    }
    judge(&transaction, refusal)
}

fn attempt(config: &Config) -> Transaction {
    let family = Family::V4;
    let settings = Settings::new(config, family);
    let mut ops = skeleton(&settings, &Plan { family, changes: Vec::new() }, false).ops;
    ops.extend(hook_ops(&settings));
    ops.push(Op::DeleteChain(NOBODYS.into()));
    Transaction { family, ops }
}

/// What it means that the conversation cannot begin.
fn judge_opening(error: io::Error) -> Verdict {
    let error = open_error(error);
    let why = error.to_string();
    match error {
        BackendError::Privilege(_) | BackendError::Unsupported(_) => Verdict::Lacks(why),
        _ => Verdict::Unclear(why),
    }
}

/// What a refusal means: the last operation has to be the first that the kernel complains about.
fn judge(transaction: &Transaction, refusal: Option<Refusal>) -> Verdict {
    let Some(Refusal { errno, op, .. }) = refusal else {
        return Verdict::Lacks("it accepts what no kernel should: deleting a chain that is not there".into());
    };
    let last = transaction.ops.len() - 1;
    let why = match op {
        Some(op) => format!("it refuses `{}`: {errno}", transaction.op_text(op)),
        None => format!("it refuses our rules as a whole: {errno}"),
    };
    match (op, errno.raw_os_error()) {
        (Some(op), Some(ENOENT)) if op == last => Verdict::Works,
        // A right that is missing is missing from the start.
        (None, Some(EPERM)) => Verdict::Lacks(NO_PRIVILEGE.into()),
        (_, Some(EOPNOTSUPP | ENOENT | EAFNOSUPPORT | EPROTONOSUPPORT)) => Verdict::Lacks(why),
        _ => Verdict::Unclear(why),
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::{EACCES, EBUSY, EEXIST, EINTR, EINVAL, ENOBUFS, ENOMEM};

    use super::*;

    fn told(verdict: Verdict) -> (&'static str, String) {
        match verdict {
            Verdict::Works => ("works", String::new()),
            Verdict::Lacks(why) => ("lacks", why),
            Verdict::Unclear(why) => ("unclear", why),
        }
    }

    #[test]
    fn what_the_kernel_says_and_what_it_means() {
        let transaction = attempt(&Config::default());
        let last = transaction.ops.len() - 1;
        let nat = transaction.ops.iter().position(
            |op| matches!(op, Op::AddChain(chain) if chain.name == "nat-prerouting" && chain.base.is_some()),
        );
        assert!(nat.is_some(), "the NAT hooks are tried");
        let table = [
            (Some(last), ENOENT, "works", ""),
            (nat, ENOENT, "lacks", "it refuses `add chain ip shunt nat-prerouting"),
            (nat, EOPNOTSUPP, "lacks", "it refuses `add chain ip shunt nat-prerouting"),
            (None, EPERM, "lacks", "no permission"),
            (None, EOPNOTSUPP, "lacks", "it refuses our rules as a whole"),
            (None, EAFNOSUPPORT, "lacks", "it refuses our rules as a whole"),
            // somebody else's table of the name that is tried
            (Some(0), EPERM, "unclear", "it refuses `add table"),
            (Some(0), EEXIST, "unclear", "it refuses `add table"),
            (nat, ENOMEM, "unclear", "it refuses `add chain ip shunt nat-prerouting"),
            (nat, EBUSY, "unclear", "it refuses `add chain ip shunt nat-prerouting"),
            (Some(last), ENOMEM, "unclear", "it refuses `delete chain"),
            (None, ENOMEM, "unclear", "it refuses our rules as a whole"),
            (None, ENOBUFS, "unclear", "it refuses our rules as a whole"),
            (None, EINTR, "unclear", "it refuses our rules as a whole"),
        ];
        for (op, errno, verdict, start) in table {
            let refusal = Refusal { errno: io::Error::from_raw_os_error(errno), op, message: None };
            let (said, why) = told(judge(&transaction, Some(refusal)));
            assert_eq!(said, verdict, "{op:?} {errno}: {why}");
            assert!(why.starts_with(start), "{op:?} {errno}: {why}");
        }
        assert_eq!(told(judge(&transaction, None)).0, "lacks");
    }

    #[test]
    fn what_it_means_that_nothing_can_be_asked() {
        let table = [
            (EPROTONOSUPPORT, "lacks"),
            (EAFNOSUPPORT, "lacks"),
            // what nfnetlink says where nf_tables is not there
            (EINVAL, "lacks"),
            (EPERM, "lacks"),
            (EACCES, "lacks"),
            (ENOMEM, "unclear"),
            (ENOBUFS, "unclear"),
            (EINTR, "unclear"),
        ];
        for (errno, verdict) in table {
            let (said, why) = told(judge_opening(io::Error::from_raw_os_error(errno)));
            assert_eq!(said, verdict, "{errno}: {why}");
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn what_is_tried_names_no_table_but_its_own() {
        let transaction = attempt(&Config::default());
        let has = |batch: &Batch, name: &str| {
            let name = [name.as_bytes(), &[0]].concat();
            batch.bytes().windows(name.len()).filter(|bytes| *bytes == name).count()
        };
        let batch = Batch::encode_for(TABLE, &transaction);
        assert_eq!(has(&batch, super::super::names::TABLE), 0);
        assert_eq!(has(&batch, TABLE), has(&Batch::encode(&transaction), super::super::names::TABLE));
    }
}
