//! Whether this kernel has what the nftables mode needs, found out by trying. EDGE.
//!
//! The whole of our static rules, hooks included, goes out as one transaction whose last operation cannot
//! succeed: the kernel checks every operation and takes all of them back. Nothing takes effect, not for a
//! moment, and a table that stands already stays as it is.

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

/// A chain that nobody has.
const NOBODYS: &str = "probe-there-is-no-such-chain";

/// Tries; `Err` says in words what is missing.
///
/// # Errors
/// What stands in the way of the nftables mode.
pub fn probe(config: &Config) -> Result<(), String> {
    let mut connection = Connection::open().map_err(|error| open_error(error).to_string())?;
    connection.generation().map_err(|error| open_error(error).to_string())?;
    let transaction = attempt(config);
    let refusal = connection.commit(&Batch::encode(&transaction)).err();
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

/// What a refusal means: the last operation has to be the first that the kernel complains about.
fn judge(transaction: &Transaction, refusal: Option<Refusal>) -> Result<(), String> {
    let Some(Refusal { errno, op, .. }) = refusal else {
        return Err("it accepts what no kernel should: deleting a chain that is not there".into());
    };
    let last = transaction.ops.len() - 1;
    match op {
        Some(op) if op == last => Ok(()),
        _ if errno.raw_os_error() == Some(nix::libc::EPERM) => {
            // A table of a living shunt, which only that one may change, is a table all the same.
            let owned = BackendError::Privilege(NO_PRIVILEGE.into());
            if op.is_some_and(|op| op > 0) { Ok(()) } else { Err(owned.to_string()) }
        }
        Some(op) => Err(format!("it refuses `{}`: {errno}", transaction.op_text(op))),
        None => Err(format!("it refuses our rules as a whole: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_the_kernel_says_and_what_it_means() {
        let transaction = attempt(&Config::default());
        let last = transaction.ops.len() - 1;
        let nat = transaction.ops.iter().position(
            |op| matches!(op, Op::AddChain(chain) if chain.name == "nat-prerouting" && chain.base.is_some()),
        );
        assert!(nat.is_some(), "the NAT hooks are tried");
        let table = [
            (Some(last), nix::libc::ENOENT, Ok(())),
            (nat, nix::libc::ENOENT, Err("it refuses `add chain ip shunt nat-prerouting")),
            (Some(0), nix::libc::EPERM, Err("no permission")),
            (None, nix::libc::EPERM, Err("no permission")),
            (None, nix::libc::EOPNOTSUPP, Err("it refuses our rules as a whole")),
        ];
        for (op, errno, expected) in table {
            let refusal = Refusal { errno: io::Error::from_raw_os_error(errno), op, message: None };
            let said = judge(&transaction, Some(refusal));
            match expected {
                Ok(()) => assert_eq!(said, Ok(()), "{op:?}"),
                Err(start) => assert!(said.as_ref().is_err_and(|why| why.starts_with(start)), "{said:?}"),
            }
        }
        assert!(judge(&transaction, None).is_err());
    }
}
