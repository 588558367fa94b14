//! The configuration file changes while the daemon runs.

use super::restart::assert_nothing_written;
use super::{on, on_port, web, web_slice};
use crate::netns::prelude::*;

cases![
    a_changed_configuration_takes_effect,
    a_broken_configuration_changes_nothing,
    nothing_is_written_where_the_rules_stay_the_same,
    changes_in_quick_succession,
    edited_and_told,
];

/// The new program says this when it begins.
pub(super) const AFRESH: &str = "INFO shunt: shunt ";
const REFUSED: &str = "the configuration stays as it was";

fn masquerade(all: bool) -> String {
    config(&json!({ "nftables": { "masqueradeAll": all } })).to_string()
}

fn broken(value: &str) -> String {
    config(&json!({ "nftables": { "masqueradeAll": value } })).to_string()
}

fn flows(kept: bool) -> Vec<Flow> {
    let reaches = on(Pod3, Cluster(80), |row| row.reaches(on_port([Pod1])));
    reaches.into_iter().map(|flow| if kept { flow.kept() } else { flow.rewritten() }).collect()
}

fn started(lab: &mut Lab) {
    lab.apply(&[web().into(), web_slice([Pod1]).into()]);
    lab.start(&config(&json!({})));
    lab.check(&flows(true));
}

fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.log_file()).expect("a log")
}

fn a_changed_configuration_takes_effect(lab: &mut Lab) {
    started(lab);
    for all in [true, false] {
        lab.reconfigure_until(&masquerade(all), AFRESH);
        lab.check(&flows(!all));
    }
    assert!(log(lab).contains("nftables.masqueradeAll: false -> true"), "{}", log(lab));
    assert!(lab.stop().success(), "it is the same process all along");
}

fn a_broken_configuration_changes_nothing(lab: &mut Lab) {
    started(lab);
    let mut monitor = lab.monitor();
    lab.reconfigure_until(&broken("perhaps"), REFUSED);
    lab.check(&flows(true));
    let said = "`nftables.masqueradeAll` must be true or false, not `perhaps`";
    assert!(log(lab).contains(said), "{}", log(lab));
    // mended, and the same as before: nothing happens but that it is said
    lab.reconfigure_until(&masquerade(false), "it comes to the configuration in force");
    assert_nothing_but_the_sentinel(lab.writes(&mut monitor));
    lab.reconfigure_until(&masquerade(true), AFRESH);
    lab.check(&flows(false));
}

fn nothing_is_written_where_the_rules_stay_the_same(lab: &mut Lab) {
    started(lab);
    let mut monitor = lab.monitor();
    lab.reconfigure_until(&config(&json!({ "logging": { "verbosity": 1 } })).to_string(), AFRESH);
    assert_nothing_but_the_sentinel(lab.writes(&mut monitor));
    lab.check(&flows(true));
}

/// `reconfigure_until` changes a Service of its own.
pub(super) fn assert_nothing_but_the_sentinel(mut lines: Vec<String>) {
    let sentinel = BOTH.map(|family| Sentinel.ip(family).to_string());
    lines.retain(|line| !sentinel.iter().any(|address| line.contains(address)));
    assert_nothing_written(lines);
}

/// What was found good is in force, though it is broken by the time that the program starts afresh.
fn changes_in_quick_succession(lab: &mut Lab) {
    started(lab);
    for round in 0..10 {
        lab.reconfigure(&masquerade(round % 2 == 0));
        std::thread::sleep(std::time::Duration::from_millis(5 * round));
        // an error that was said already is not said again
        lab.reconfigure_until(&broken(&round.to_string()), REFUSED);
    }
    let good = config(&json!({ "nftables": { "masqueradeAll": true }, "logging": { "verbosity": 1 } }));
    lab.reconfigure_until(&good.to_string(), AFRESH);
    lab.check(&flows(false));
}

/// SIGHUP at any moment, also while the program is being replaced.
fn edited_and_told(lab: &mut Lab) {
    started(lab);
    for round in 0..6 {
        lab.reconfigure(&masquerade(round % 2 == 0));
        for _ in 0..60 {
            lab.hang_up();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    let good = config(&json!({ "nftables": { "masqueradeAll": true }, "logging": { "verbosity": 1 } }));
    lab.reconfigure_until(&good.to_string(), "logging.verbosity: 0 -> 1");
    lab.hang_up();
    lab.reconfigure_until(&format!("{good}\n"), "it comes to the configuration in force");
    lab.check(&flows(false));
}
