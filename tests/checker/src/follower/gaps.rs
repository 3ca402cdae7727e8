//! What a client was told to be gone: whether it was, and whether it was told in
//! time.

use std::collections::BTreeSet;

use crate::findings::Kind;
use crate::follower::Follower;
use crate::follower::Renewal;
use crate::follower::Told;
use crate::line::ClientLine;
use crate::line::GapReason;
use crate::truth::Topic;

impl Follower<'_> {
    /// Takes what a client was told to be gone.
    pub(in crate::follower) fn handle_gap(
        &mut self,
        told: &Told,
        why: GapReason,
        topic: Option<String>,
    ) {
        if why == GapReason::TopicRecreated {
            return self.handle_recreated(told, topic);
        }
        let &Told { at, p, from, to } = told;
        self.check_announced("a gap");
        let position = self.position(p);
        // What lies below has reached the application, and is not gone for it.
        if from != position {
            self.accuse(Kind::Unjoined, || format!("{p}: gap from {from}, stood at {position}"));
        }
        match why {
            GapReason::Retention if to >= from => self.handle_retention(told),
            GapReason::Truncated if to <= from => self.handle_truncation(told),
            GapReason::Skipped => {
                self.accuse(Kind::FalseGap, || format!("{p}: {from} to {to} were skipped"));
                self.advance(p, to, at);
            }
            _ => self.accuse(Kind::Unjoined, || format!("{p}: {why:?} from {from} to {to}")),
        }
    }

    fn handle_recreated(&mut self, told: &Told, named: Option<String>) {
        let &Told { at, p, from, to } = told;
        let named = named.or(self.announced.take()).or(self.topic.clone());
        let mut doubt = None;
        if named != self.topic {
            doubt = named.as_deref().and_then(|id| self.doubt(id));
            self.settle();
            let positions = self.places.iter().map(|(p, place)| (*p, place.position)).collect();
            self.places.clear();
            self.topic = named;
            self.renewed = Some(Renewal { told: BTreeSet::new(), positions });
        }
        let first = self.renewed.as_mut().and_then(|renewal| {
            let stood = renewal.positions.get(&p).copied().unwrap_or(0);
            renewal.told.insert(p).then_some(stood)
        });
        match first {
            Some(stood) if from > stood => {
                self.accuse(Kind::Unjoined, || format!("{p}: gap from {from}, stood at {stood}"));
            }
            Some(_) => {}
            None => doubt = Some("the subscription has that topic already".to_owned()),
        }
        if doubt.is_none() && to > self.start_after(p, at) {
            doubt = Some(format!("the new topic has less than {to}"));
        }
        match doubt {
            Some(doubt) => self.accuse(Kind::FalseGap, || format!("{p}: {from} to {to}: {doubt}")),
            None => {
                let topic = self.topic.as_deref().and_then(|id| self.truth.topic(id));
                let refresh = self.limits.refresh;
                let known = topic.and_then(Topic::known_at).map(|at| at + refresh);
                self.check_promptness(told, known);
            }
        }
        let place = self.places.entry(p).or_default();
        place.gone.push((0, to));
        (place.position, place.reached_at) = (to, at);
    }

    /// Returns why a topic can't be the one that was made again after the
    /// subscription's own.
    fn doubt(&self, id: &str) -> Option<String> {
        let Some(next) = self.truth.topic(id) else {
            return Some(format!("there never was a topic {id}"));
        };
        let own = self.topic.as_deref().and_then(|id| self.truth.topic(id))?;
        if next.name != own.name {
            return Some(format!("topic {id} is {:?}, not {:?}", next.name, own.name));
        }
        let is_older = next.known_at().zip(own.known_at()).is_some_and(|(next, own)| next < own);
        is_older.then(|| format!("topic {id} was there before"))
    }

    fn handle_retention(&mut self, told: &Told) {
        let &Told { at, p, from, to } = told;
        if to > self.start_after(p, at) {
            let start = self.start_after(p, at);
            self.accuse(Kind::FalseGap, || {
                format!("{p}: told {from} to {to} at {at}, and {start} was still there")
            });
        }
        let known = self.partition(p).and_then(|partition| partition.passed(from));
        self.check_promptness(told, known);
        let position = self.position(p);
        self.places.entry(p).or_default().gone.push((position, to));
        self.advance(p, to, at);
    }

    fn handle_truncation(&mut self, told: &Told) {
        let &Told { at, p, from, to } = told;
        let cuts = self.partition(p).map_or(&[][..], |partition| &partition.cuts);
        let cut = cuts.iter().find(|cut| cut.end == to && cut.at <= at + BOUNDS_SLACK);
        match cut {
            Some(cut) => self.check_promptness(told, Some(cut.at)),
            None => self.accuse(Kind::FalseGap, || {
                format!("{p}: truncated from {from} to {to}, cut were {cuts:?}")
            }),
        }
        let place = self.places.entry(p).or_default();
        (place.position, place.floor, place.reached_at) = (to, to, at);
        place.stuck_at = None;
    }

    /// A gap must be told soon after Kafka knew of it, the client had come so
    /// far and was there to hear of it.
    fn check_promptness(&mut self, told: &Told, known: Option<u64>) {
        let &Told { at, p, from, to } = told;
        let Some(known) = known else { return };
        let reached = self.places.get(&p).map_or(0, |place| place.reached_at);
        let known = known.max(reached).max(self.reads_since.unwrap_or(at));
        let known = self.truth.excused_until(known, self.limits.gap, self.replica);
        if at > known + self.limits.gap {
            self.accuse(Kind::LateGap, || {
                format!("{p}: {from} to {to} told at {at}, known at {known}")
            });
        }
    }
}

/// Says whether a line stands for another frame of the subscription than the gaps
/// that tell of a topic made again: none may come between them.
pub(in crate::follower) fn ends_renewal(line: &ClientLine) -> bool {
    match line {
        ClientLine::Gap { why, .. } => *why != GapReason::TopicRecreated,
        ClientLine::Subscribed { .. }
        | ClientLine::Records { .. }
        | ClientLine::Progress { .. }
        | ClientLine::Live { .. }
        | ClientLine::Error { .. }
        | ClientLine::Disconnect { .. } => true,
        ClientLine::Client { .. }
        | ClientLine::Connect { .. }
        | ClientLine::Ask { .. }
        | ClientLine::Closing { .. }
        | ClientLine::Asleep { .. }
        | ClientLine::Awake { .. } => false,
    }
}

/// How much earlier than the stage a client may learn of a cut.
const BOUNDS_SLACK: u64 = 1_000;
