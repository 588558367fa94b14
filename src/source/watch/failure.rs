//! What can go wrong between us and the API server. PURE.

use std::error::Error as _;
use std::time::Duration;

use kube::core::Status;

use crate::model::Kind;

/// Why a list or watch ended. Every variant but `Closed` is tried again; nothing that was delivered
/// before is taken back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection, no TLS session, or credentials that cannot be read.
    #[error("cannot reach the API server at {url}: {why}")]
    Unreachable { url: String, why: String },
    /// A status that is not success.
    #[error("the API server refuses to {verb} {resource}: {}", describe(status))]
    Refused { verb: &'static str, resource: String, status: Box<Status>, retry_after: Option<Duration> },
    /// The resource version, or the token for the next page, is too old: list again.
    #[error("the API server no longer has the changes since our last one: listing again")]
    Expired,
    /// What the server has is older than what we have seen of it.
    #[error(
        "the API server has older data than it had before, as when etcd is restored from a backup: listing again"
    )]
    Older,
    /// The connection broke in the middle.
    #[error("the connection to the API server broke: {0}")]
    Broken(String),
    /// Nothing came for longer than can be.
    #[error("the API server has been silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// A streamed list or a watch ended too early.
    #[error("the API server ends a {0}")]
    Short(&'static str),
    /// What came is not what the API sends.
    #[error("what the API server sends cannot be read: {0}")]
    Unreadable(String),
    /// A watch reports a failure, as the text of a `Status`.
    #[error("the API server ends the watch: {0}")]
    Told(String),
    /// Nobody listens to us any more.
    #[error("nobody listens any more")]
    Closed,
}

/// What kinds that fail may have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The server, or the way to it: the same for all kinds.
    Outage,
    /// The server does not know us.
    Credentials,
    /// The server knows us, and does not allow this.
    Forbidden(String),
    /// Something of this kind alone.
    Other(Kind),
}

impl Failure {
    /// What else fails, if this does.
    pub(super) fn cause(&self, kind: Kind) -> Cause {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) | Self::Silent(_) | Self::Short(_) => Cause::Outage,
            Self::Refused { verb, resource, status, .. } => match status.code {
                401 => Cause::Credentials,
                403 => Cause::Forbidden(format!("{verb} {resource}")),
                404 | 408 | 429 | 500.. => Cause::Outage,
                _ => Cause::Other(kind),
            },
            Self::Expired | Self::Older | Self::Unreadable(_) | Self::Told(_) | Self::Closed => {
                Cause::Other(kind)
            }
        }
    }

    /// Whether a connection ended that had worked: the next try tells whether that means anything.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Silent(_) | Self::Short(_))
    }

    /// Whether we lack the right to ask.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code == 403)
    }

    /// Whether the server does not have this API at all.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code == 404)
    }

    /// Whether the server does not know `sendInitialEvents`, or has it switched off.
    pub(super) fn is_no_stream(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.code, 400 | 422))
    }

    /// The shortest pause that the server asks for.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// A request that found no answer.
    pub(super) fn unreachable(url: &str, error: &kube::Error) -> Self {
        let mut parts = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            parts.push(error.to_string());
            cause = error.source();
        }
        // the outer errors repeat the inner ones, or say no more than "client error"
        let said = |part: &String| !part.is_empty() && *part != parts[0];
        let why = parts.iter().rfind(|part| said(part)).unwrap_or(&parts[0]).clone();
        Self::Unreachable { url: url.to_string(), why }
    }
}

/// A refusal in words, with the way out where there is one.
fn describe(status: &Status) -> String {
    let Status { code, message, .. } = status;
    match code {
        401 => format!(
            "it does not accept our credentials (401 {message}): renew those in the kubeconfig, or the service account's token"
        ),
        403 => format!(
            "we lack the right (403 {message}): bind our user or service account to a role with the verbs list and \
             watch on it, such as ClusterRole shunt of deploy/daemonset.yaml or system:node-proxier"
        ),
        404 => format!("404 {message}: is this the address of a Kubernetes API server?"),
        _ => format!("{code} {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_verb_resource_and_way_out() {
        let refused = |code: u16| {
            let status = Status::failure("no", "").with_code(code).boxed();
            Failure::Refused { verb: "list", resource: "services".into(), status, retry_after: None }
                .to_string()
        };
        assert!(
            refused(403)
                .starts_with("the API server refuses to list services: we lack the right (403 no): bind")
        );
        assert!(refused(401).contains("renew those in the kubeconfig"));
        assert_eq!(refused(500), "the API server refuses to list services: 500 no");
        assert!(refused(404).ends_with("404 no: is this the address of a Kubernetes API server?"));
    }
}
