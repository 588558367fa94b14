//! A backend in memory that can fail.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use ipnet::IpNet;

use crate::backend::{Backend, BackendError, Drift, Receipt};
use crate::desired::{Owner, Row, RowKey};
use crate::diff::Plan;
use crate::model::Family;

/// What the fake kernel holds and does; shared with the test that looks at it.
#[derive(Debug, Default)]
pub struct Kernel {
    /// The rows that are installed.
    pub rows: BTreeMap<RowKey, (Owner, Row)>,
    /// Every plan that was carried out, as lines.
    pub plans: Vec<String>,
    /// How often everything was read.
    pub reads: usize,
    /// Failures to come, each for the next plan of its family, in this order.
    pub failures: VecDeque<(Family, BackendError)>,
    /// What the Node object says of its pods.
    pub node_cidrs: Vec<IpNet>,
    /// A Service whose rows are always refused.
    pub refuses: Option<Owner>,
    /// What others have done to each family and [`Backend::check`] has not told yet.
    pub drifts: BTreeMap<Family, Drift>,
    /// It can be told that nobody has changed a family since it was read.
    pub as_read: BTreeSet<Family>,
}

/// A handle to a fake kernel.
#[derive(Clone, Debug, Default)]
pub struct FakeBackend(pub Rc<RefCell<Kernel>>);

/// The kernel's refusal of a family's transaction.
pub fn refusal(family: Family, errno: i32, owner: Option<Owner>) -> BackendError {
    let errno = io::Error::from_raw_os_error(errno);
    BackendError::Refused { family, operation: "add element".into(), owner, errno, message: None }
}

impl Backend for FakeBackend {
    fn set_node_cidrs(&mut self, cidrs: &[IpNet]) {
        self.0.borrow_mut().node_cidrs = cidrs.into();
    }

    fn read(&mut self, family: Family) -> Result<Vec<(Owner, Row)>, BackendError> {
        let mut kernel = self.0.borrow_mut();
        kernel.reads += 1;
        Ok(kernel.rows.values().filter(|(_, row)| row.family() == family).cloned().collect())
    }

    fn apply(&mut self, plan: &Plan) -> Result<Receipt, BackendError> {
        let mut kernel = self.0.borrow_mut();
        let next = kernel.failures.iter().position(|(family, _)| *family == plan.family);
        if let Some((_, failure)) = next.and_then(|next| kernel.failures.remove(next)) {
            return Err(failure);
        }
        let refused = plan.changes.iter().find(|change| kernel.refuses.as_ref() == Some(&change.owner));
        if let Some(change) = refused {
            return Err(refusal(plan.family, nix::libc::EINVAL, Some(change.owner.clone())));
        }
        for change in &plan.changes {
            if let Some(before) = &change.before {
                let held = kernel.rows.remove(&before.key()).map(|(_, row)| row);
                assert_eq!(held.as_ref(), Some(&**before), "the plan believes what is not so");
            }
            if let Some(after) = &change.after {
                let old = kernel.rows.insert(after.key(), (change.owner.clone(), (**after).clone()));
                assert_eq!(old, None, "the plan adds what is there already");
            }
        }
        if !plan.is_empty() {
            kernel.plans.push(plan.to_string());
        }
        Ok(Receipt { operations: plan.changes.len(), ..Receipt::default() })
    }

    fn check(&mut self, family: Family) -> Result<Option<Drift>, BackendError> {
        Ok(self.0.borrow_mut().drifts.remove(&family))
    }

    fn is_as_read(&mut self, family: Family) -> bool {
        self.0.borrow().as_read.contains(&family)
    }

    fn cleanup(&mut self, family: Family) -> Result<bool, BackendError> {
        let mut kernel = self.0.borrow_mut();
        let before = kernel.rows.len();
        kernel.rows.retain(|key, _| key_family(key) != family);
        Ok(kernel.rows.len() < before)
    }
}

/// The family of what a key is about.
pub fn key_family(key: &RowKey) -> Family {
    match key {
        RowKey::NodePortAddress(ip) | RowKey::ClusterIp(ip) | RowKey::Hairpin(ip) => Family::of(ip),
        RowKey::ServiceCidr(net) => Family::of_net(net),
        RowKey::Frontend(frontend) => frontend.family(),
    }
}
