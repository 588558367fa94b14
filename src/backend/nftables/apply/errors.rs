//! What the kernel says, as the errors of a backend. PURE but for the name of a process.

use std::io;

use super::super::connection::Refusal;
use super::super::owner;
use super::super::steps::Step;
use crate::backend::BackendError;
use crate::model::Family;

pub(super) fn busy(family: Family, port: u32) -> BackendError {
    let (ip, table) = (super::super::names::family_word(family), super::super::names::TABLE);
    let owner = owner::describe(port);
    BackendError::Busy(format!("the nftables table {ip} {table} belongs to {owner}; stop it first"))
}

/// A table has our name and was not made by shunt.
pub(super) fn not_ours(family: Family, comment: &str) -> BackendError {
    let (ip, table) = (super::super::names::family_word(family), super::super::names::TABLE);
    let what = made_by(comment);
    BackendError::Busy(format!(
        "there is an nftables table {ip} {table} that {what}: it is left as it is. If nobody needs it, delete it \
         (nft delete table {ip} {table}); else rename it, since shunt needs that name"
    ))
}

/// Who made a table with this comment, as far as it tells.
pub(super) fn made_by(comment: &str) -> String {
    match comment {
        "" => "shunt has not made (it has no comment)".into(),
        comment => format!("shunt has not made (its comment is \"{comment}\")"),
    }
}

/// Whether the kernel does not know the flags of an owned table.
pub(super) fn is_unknown_flag(error: &BackendError) -> bool {
    match error {
        BackendError::Refused { operation, errno, .. } => {
            operation.starts_with("add table")
                && matches!(errno.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EINVAL))
        }
        _ => false,
    }
}

/// Whether the kernel does not know an expression or chain type that our static rules need.
pub(super) fn is_unknown_construct(error: &BackendError) -> bool {
    match error {
        BackendError::Refused { operation, errno, .. } => {
            let makes_static_parts =
                ["add chain", "add set", "add map"].iter().any(|op| operation.starts_with(op));
            let unknown = [nix::libc::ENOENT, nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT];
            makes_static_parts && errno.raw_os_error().is_some_and(|errno| unknown.contains(&errno))
        }
        _ => false,
    }
}

/// What an operator can do about it.
pub(super) fn unsupported(family: Family, error: &BackendError) -> BackendError {
    BackendError::Unsupported(format!(
        "this kernel does not offer what shunt needs of nf_tables for {family}: {error}; load the modules \
         (modprobe -a nft_chain_nat nft_nat nft_masq nft_reject_inet nft_ct nft_fib_inet nft_numgen)"
    ))
}

/// Whether a set is full.
pub(super) fn is_full(error: &BackendError) -> bool {
    matches!(error, BackendError::Refused { errno, .. } if errno.raw_os_error() == Some(nix::libc::ENFILE))
}

pub(super) fn refused(step: &Step, refusal: Refusal, bytes: usize) -> BackendError {
    let Refusal { errno, op, message } = refusal;
    match errno.raw_os_error() {
        Some(nix::libc::EPERM) => return BackendError::Privilege(NO_PRIVILEGE.into()),
        Some(nix::libc::ENOBUFS) => {
            let operations = step.transaction.ops.len();
            let action = format!(
                "handing the kernel a batch of {operations} operations ({bytes} bytes), for which it has no memory \
                 or no room in the socket's queue,"
            );
            return BackendError::Io { action, source: errno };
        }
        _ => {}
    }
    let operation = op.map_or_else(|| "the batch as a whole".into(), |op| step.transaction.op_text(op));
    let owner = op.and_then(|op| step.owner(op)).cloned();
    BackendError::Refused { family: step.transaction.family, operation, owner, errno, message }
}

/// What an operator is told who has no right to change rules.
pub const NO_PRIVILEGE: &str =
    "no permission to change nftables: run shunt as root, or give it CAP_NET_ADMIN";

/// Why no conversation about nf_tables could begin.
pub fn open_error(error: io::Error) -> BackendError {
    match error.raw_os_error() {
        Some(nix::libc::EPERM | nix::libc::EACCES) => BackendError::Privilege(NO_PRIVILEGE.into()),
        Some(
            nix::libc::EPROTONOSUPPORT | nix::libc::EAFNOSUPPORT | nix::libc::EINVAL | nix::libc::EOPNOTSUPP,
        ) => BackendError::Unsupported(format!(
            "this kernel offers no nf_tables ({error}): load the module (modprobe nf_tables), or run a \
                 kernel that has CONFIG_NF_TABLES"
        )),
        _ => read_error(error),
    }
}

pub(super) fn read_error(source: io::Error) -> BackendError {
    if source.raw_os_error() == Some(nix::libc::EPERM) {
        return BackendError::Privilege(NO_PRIVILEGE.into());
    }
    BackendError::Io { action: "reading nftables from the kernel".into(), source }
}
