use super::super::{Access, Options, Report, connect};
use super::*;
use crate::metrics::Metrics;
use crate::model::NodeName;
use crate::notices;
use crate::source::convert::Context;
use crate::source::objects::Service;
use std::sync::Mutex;

#[tokio::test]
async fn after_an_outage_history_that_has_expired_is_no_reason_to_wait_once_more() {
    let access = Access { master: Some("http://127.0.0.1:1".parse().unwrap()), ..Access::default() };
    let metrics = Metrics::default();
    let server = connect(access, metrics.clone()).await.unwrap();
    let (recorder, _notices) = notices::channel(metrics.clone());
    let context = Context::new(NodeName("here".into()), None);
    let (sink, report) = (Mutex::new(Box::new(|_| true) as crate::source::Sink), Report::default());
    let options = Options::default();
    let shared = Shared { server, context, options, metrics, recorder, sink, report };
    let mut watcher = Watcher::<Service>::new(&shared);
    let broken = || Failure::Broken("gone".to_owned());
    // after this the watch stands for a while; then the failures
    for (settled, failure, waits) in [
        (true, Failure::Expired, false),
        (false, Failure::Expired, true),
        (true, broken(), true),
        (false, broken(), true),
        (false, Failure::Expired, false),
        (false, Failure::Expired, true),
        (true, Failure::Expired, false),
        (false, Failure::Older, true),
    ] {
        if settled {
            watcher.settled();
        }
        assert_eq!(watcher.failed(&failure) > Duration::ZERO, waits, "{failure}");
    }
}
