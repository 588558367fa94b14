//! What a Service selects, and the ports it leads to. PURE.

use std::fmt::Write;

use crate::model::{Family, Port, Protocol};

/// `spec.selector` of a Service and what else of it makes endpoints out of Pods. One text, since a folder
/// without Pods has ten thousand of them for nothing: a line of flags, then a line for each label and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection(Box<str>);

/// A port of a Service, and where it leads in a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPort<'a> {
    /// `name` of the Service's port.
    pub name: &'a str,
    /// `protocol`.
    pub protocol: Protocol,
    /// `targetPort`.
    pub target: Target<'a>,
}

/// Which port of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// This one.
    Number(Port),
    /// The container port of this name.
    Name(&'a str),
}

impl<'a> Target<'a> {
    /// A number or a name as manifests have them; `None` for what can be neither.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().and_then(Port::new).map(Self::Number);
        }
        let name = text.bytes().all(|byte| byte.is_ascii_graphic());
        name.then_some(Self::Name(text))
    }
}

/// Begins the line of a label.
const LABEL: char = '=';
/// The flag of `publishNotReadyAddresses`.
const NOT_READY_TOO: char = '!';

const fn flag(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

impl Selection {
    /// Pods with all of these labels, each `key=value` in one line; endpoints of these families.
    #[must_use]
    pub fn new<'a>(
        labels: impl IntoIterator<Item = &'a str>,
        ports: impl IntoIterator<Item = TargetPort<'a>>,
        families: impl IntoIterator<Item = Family>,
        publish_not_ready: bool,
    ) -> Self {
        let mut text: String = families.into_iter().map(flag).collect();
        text.extend(publish_not_ready.then_some(NOT_READY_TOO));
        for label in labels {
            text.extend(["\n=", label]);
        }
        for TargetPort { name, protocol, target } in ports {
            let protocol = protocol.number();
            // writing to a text cannot fail
            let _ = match target {
                Target::Number(port) => write!(text, "\n{protocol} {port} {name}"),
                Target::Name(port) => write!(text, "\n{protocol} {port} {name}"),
            };
        }
        Self(text.into())
    }

    /// The labels, each as `key=value`.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.lines().skip(1).filter_map(|line| line.strip_prefix(LABEL))
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = TargetPort<'_>> {
        self.0.lines().skip(1).filter(|line| !line.starts_with(LABEL)).filter_map(|line| {
            let mut parts = line.splitn(3, ' ');
            let protocol = parts.next()?.parse().ok().and_then(Protocol::from_number)?;
            let target = Target::parse(parts.next()?)?;
            Some(TargetPort { name: parts.next()?, protocol, target })
        })
    }

    /// Whether the Service has addresses of this family.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        self.flags().contains(flag(family))
    }

    /// `publishNotReadyAddresses`: every endpoint counts as ready.
    #[must_use]
    pub fn publishes_not_ready(&self) -> bool {
        self.flags().contains(NOT_READY_TOO)
    }

    fn flags(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }
}
