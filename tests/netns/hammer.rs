//! Connections opened one after the other while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::lab::Lab;
use super::names::{Family, Name};
use super::probe::{self, Outcome, Patience};

/// Shorter than the second after which a lost SYN is repeated: a stalled connect shows as silence.
const NO_STALL: Patience = Patience { wait: Duration::from_millis(900), tries: 1 };

/// A client that never rests.
pub struct Hammer {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Outcome>>>,
}

impl Hammer {
    pub fn start(lab: &Lab, from: Name, to: Name, port: u16, family: Family) -> Self {
        let handle = lab.topology.handle(from.namespace().expect("a source that exists"));
        let (source, to, ports) = (from.ip(family), to.at(port, family), Arc::clone(&lab.ports));
        let done = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let done = Arc::clone(&done);
            move || {
                setns(handle, CloneFlags::CLONE_NEWNET).expect("entering a namespace");
                let mut outcomes = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    outcomes.push(probe::tcp(Some(source), to, &ports, NO_STALL));
                }
                outcomes
            }
        });
        Self { done, thread: Some(thread) }
    }

    /// What became of all its connections.
    pub fn stop(mut self) -> Vec<Outcome> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().expect("a hammer")).unwrap_or_default()
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
