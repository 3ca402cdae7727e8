//! Says in the log which topics can't be read, once for each topic and failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::registry::directory::Directory;
use crate::registry::message::SourceFailure;
use crate::telemetry::events::TopicFailed;
use crate::types::ids::TopicName;
use crate::types::limits::PARTITIONS_MAX;

/// What to do about a topic that is not there.
pub(in crate::app) const MISSING: &str = "does not exist: create it, or take the channel out";
/// What to do about a topic that Kafka hides.
pub(in crate::app) const HIDDEN: &str =
    "may not be described by this principal: give it DESCRIBE and READ";

/// Looks at the topics that fail, for as long as the process serves.
pub(in crate::app) async fn watch(directory: Arc<Directory>) {
    let mut told = Told::default();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (topic, problem) in told.take(&directory.failures()) {
            TopicFailed { topic: &topic, problem: &problem }.emit();
        }
    }
}

/// What was said of topics that fail still.
#[derive(Debug, Default)]
struct Told(BTreeMap<TopicName, String>);

impl Told {
    /// Takes what fails now; returns what was not said yet. A topic that was well
    /// again meanwhile, or wanted by nobody, is said again.
    fn take(&mut self, failures: &BTreeMap<TopicName, SourceFailure>) -> Vec<(TopicName, String)> {
        self.0.retain(|topic, _| failures.contains_key(topic));
        let mut news = Vec::new();
        for (topic, failure) in failures {
            let Some(problem) = problem(failure) else { continue };
            if self.0.get(topic) != Some(&problem) {
                self.0.insert(topic.clone(), problem.clone());
                news.push((topic.clone(), problem));
            }
        }
        news
    }
}

/// Returns what is wrong with the topic itself, and the remedy.
fn problem(failure: &SourceFailure) -> Option<String> {
    match failure {
        SourceFailure::UnknownTopic(_) => Some(MISSING.to_owned()),
        SourceFailure::Forbidden(_) => Some(HIDDEN.to_owned()),
        SourceFailure::TooManyPartitions { count, .. } => {
            Some(format!("has {count} partitions, and at most {PARTITIONS_MAX} can be followed"))
        }
        // Then all topics fail, through no fault of theirs: the brokers' is said.
        SourceFailure::Unreachable { .. } => None,
    }
}

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_once_until_it_passes_or_becomes_another() {
        let topic = TopicName::new("acme.orders");
        let mut told = Told::default();
        let mut check = |failure: Option<SourceFailure>, expected: &[&str]| {
            let failures = failure.into_iter().map(|failure| (topic.clone(), failure)).collect();
            let news = told.take(&failures);
            let news: Vec<&str> = news.iter().map(|(_, problem)| problem.as_str()).collect();
            assert_eq!(news, expected, "{failures:?}");
        };
        let missing = || Some(SourceFailure::UnknownTopic(topic.clone()));
        let reason = "timed out".to_owned();
        let unreachable = SourceFailure::Unreachable { topic: topic.clone(), reason };
        check(missing(), &[MISSING]);
        check(missing(), &[]);
        check(Some(unreachable), &[]);
        check(missing(), &[]);
        check(Some(SourceFailure::Forbidden(topic.clone())), &[HIDDEN]);
        check(None, &[]);
        check(missing(), &[MISSING]);
    }
}
