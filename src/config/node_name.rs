//! Which node this is: `hostnameOverride`, which flags may give, else the host name.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Config;
use crate::model::name::NodeName;

/// Where the kernel tells the host name of this UTS namespace.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// The longest name that an object of Kubernetes can have.
const LONGEST: usize = 253;

/// Why the node has no usable name. Naming it with `--node-name` is the way out of both.
#[derive(Debug, thiserror::Error)]
pub enum NodeNameError {
    /// The host name cannot be read.
    #[error("cannot read the host name from {HOST_NAME_FILE}: {0}; name the node with --node-name")]
    Read(io::Error),
    /// The host name cannot be the name of a node.
    #[error("the host name {0}; name the node with --node-name")]
    Unusable(String),
}

/// Chooses the name of this node and reads the host name if `config` has none.
///
/// # Errors
/// A host name that is needed and cannot be read, or cannot be a node's name.
pub fn choose(config: &Config) -> Result<NodeName, NodeNameError> {
    choose_with(config, || std::fs::read_to_string(Path::new(HOST_NAME_FILE)))
}

/// [`choose`] with the host name as an argument. PURE.
fn choose_with(
    config: &Config,
    host_name: impl FnOnce() -> io::Result<String>,
) -> Result<NodeName, NodeNameError> {
    if let Some(name) = &config.node_name {
        return Ok(NodeName(Arc::from(name.as_str())));
    }
    let name = host_name().map_err(NodeNameError::Read)?;
    parse(&name).map_err(NodeNameError::Unusable)
}

/// Makes a node's name of what a user or the kernel wrote: trimmed and in lower case, as kube-proxy
/// and the kubelet do it.
///
/// # Errors
/// The rest of a sentence that says why it cannot be the name of a Node object.
pub fn parse(text: &str) -> Result<NodeName, String> {
    let name = text.trim().to_lowercase();
    if name.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if name.len() > LONGEST {
        return Err(format!("must have at most {LONGEST} characters, not {}", name.len()));
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(format!("must be the name of a Node, without spaces and slashes, not `{name}`"));
    }
    Ok(NodeName(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins_over_the_host() {
        let named = Config { node_name: Some("file".to_owned()), ..Config::default() };
        for (config, expected) in [(&named, "file"), (&Config::default(), "host-1")] {
            let name = choose_with(config, || Ok("Host-1\n".to_owned()));
            assert_eq!(name.unwrap(), NodeName(expected.into()));
        }
    }

    #[test]
    fn a_host_name_that_cannot_be_used_says_the_way_out() {
        for (host_name, said) in [
            (Ok("\n".to_owned()), "must not be empty"),
            (Ok("a b".to_owned()), "without spaces"),
            (Ok("x".repeat(254)), "at most 253"),
            (Err(io::Error::from(io::ErrorKind::NotFound)), "cannot read the host name"),
        ] {
            let message = choose_with(&Config::default(), || host_name).unwrap_err().to_string();
            assert!(message.contains(said) && message.ends_with("--node-name"), "{message}");
        }
    }
}
