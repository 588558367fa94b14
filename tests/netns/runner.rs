//! Runs the cases, some at a time, each in a lab of its own, and reports.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::lab::Lab;
use super::mode::Mode;

/// A named test. `cases!` makes them.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&mut Lab),
    pub mode: Mode,
}

/// `cases![first, second]`: the functions of a module as its list of cases.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The cases of this file.
        pub const CASES: &[$crate::netns::runner::Case] = &[
            $($crate::netns::runner::Case {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: $name,
                mode: $crate::netns::mode::Mode::Nftables,
            }),*
        ];
    };
}

/// Cases mostly wait for packets, so more of them than cores run at a time.
const JOBS: usize = 4;
/// Nothing takes that long: something hangs.
const TOO_LONG: Duration = Duration::from_secs(900);
/// How much of a failed case's log is shown.
const LOG_LINES: usize = 100;

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the cases whose name contains an argument (all without one) and returns the exit code.
pub fn run(all: &[Case]) -> i32 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen =
        |case: &&Case| filters.is_empty() || filters.iter().any(|filter| full_name(case).contains(*filter));
    let cases: Vec<Case> = all.iter().filter(chosen).copied().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for case in cases {
            println!("{}: test", full_name(&case));
        }
        return 0;
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        PLACE.with_borrow_mut(|last| *last = place);
    }));
    std::thread::spawn(|| {
        std::thread::sleep(TOO_LONG);
        println!("packet tests: not done after {TOO_LONG:?}");
        std::process::exit(1);
    });
    let started = Instant::now();
    let failed = run_in_parallel(&cases);
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{} passed, {} failed ({:.1?})", cases.len() - failed.len(), failed.len(), started.elapsed());
    i32::from(!failed.is_empty())
}

fn run_in_parallel(cases: &[Case]) -> Vec<String> {
    let jobs = std::env::var("SHUNT_NETNS_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(JOBS);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !run_one(case) {
                        failed.lock().expect("no panic while held").push(full_name(case));
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no panic while held")
}

/// The name with the mode, where that is not nftables.
fn full_name(case: &Case) -> String {
    match case.mode {
        Mode::Nftables => case.name.to_owned(),
        Mode::Userspace => format!("userspace::{}", case.name),
    }
}

/// Whether it passed.
fn run_one(case: &Case) -> bool {
    static LABS: AtomicUsize = AtomicUsize::new(0);
    let started = Instant::now();
    let prefix = format!("lab{}", LABS.fetch_add(1, Ordering::Relaxed));
    let mut log = String::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut lab = Lab::new(&prefix, case.mode);
        let result = catch_unwind(AssertUnwindSafe(|| (case.run)(&mut lab)));
        if result.is_err() {
            log = evidence(&lab);
        }
        drop(lab);
        result
    }));
    let name = full_name(case);
    match result.and_then(|result| result) {
        Ok(()) => {
            println!("test {name} ... ok ({:.2?})", started.elapsed());
            true
        }
        Err(panic) => {
            let place = PLACE.take();
            println!(
                "test {name} ... FAILED ({:.2?})\n{place}: {}\n{log}",
                started.elapsed(),
                message(&*panic)
            );
            false
        }
    }
}

/// What a person needs to understand a failure: the daemon's log and, if asked for, the node's rules.
fn evidence(lab: &Lab) -> String {
    let log = std::fs::read_to_string(lab.log_file()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let mut text = format!("--- the daemon's log ({} lines)\n", lines.len());
    text += &lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    if std::env::var_os("SHUNT_NETNS_RULES").is_some() {
        text += "\n--- the rules\n";
        text += &lab.list_ruleset();
    }
    text
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
