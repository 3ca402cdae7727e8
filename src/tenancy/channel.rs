//! What a client that names a channel and keys gets to read.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use thiserror::Error;

use crate::tenancy::key_rule::KeyRule;
use crate::tenancy::principal::ChannelAccess;
use crate::tenancy::principal::Principal;
use crate::tenancy::rule::TenancyRule;
use crate::tenancy::topic::TopicTemplate;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::TenantId;
use crate::types::ids::TopicName;
use crate::types::limits::CHANNELS_MAX;

/// A topic read under one tenancy rule: what a replica reads once, however many
/// channels and clients follow it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceKey {
    pub topic: TopicName,
    pub rule: TenancyRule,
}

/// Leave to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub source: SourceKey,
    /// Whose records; `None` only where the channel is shared by all tenants.
    pub tenant: Option<TenantId>,
}

/// Why leave to read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Denied {
    /// No such channel, or not for this client: told alike.
    #[error("no such channel, or this client may not read it")]
    Channel,
    /// The channel, but not these keys.
    #[error(
        "this client may read only some keys of the channel; name keys or a prefix within them"
    )]
    Key,
}

/// Which rule refused leave to read: for operators, not for clients.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeniedBy {
    #[error("the token's list of channels does not name it")]
    ChannelsClaim,
    #[error("the configuration has no such channel")]
    NoSuchChannel,
    #[error("the channel's `tenants` do not name the token's tenant")]
    Tenants,
    #[error("the tenant's name can't stand in the topic's name, or holds the separator of keys")]
    TenantName,
    #[error("the channel's key rule does not cover these keys for the token's claims")]
    KeyRule {
        /// The claims that the rule speaks of.
        claims: Vec<Box<str>>,
    },
}

impl DeniedBy {
    /// Returns what a client is told of it.
    pub fn told(&self) -> Denied {
        match self {
            Self::ChannelsClaim | Self::NoSuchChannel | Self::Tenants | Self::TenantName => {
                Denied::Channel
            }
            Self::KeyRule { .. } => Denied::Key,
        }
    }

    /// Returns the claims on which it depends.
    pub fn claims(&self) -> Vec<&str> {
        match self {
            Self::ChannelsClaim => vec!["channels"],
            Self::NoSuchChannel => Vec::new(),
            Self::Tenants | Self::TenantName => vec!["tenant"],
            Self::KeyRule { claims } => claims.iter().map(|claim| &**claim).collect(),
        }
    }
}

/// What clients name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    pub name: ChannelName,
    pub source: ChannelSource,
    /// Narrows each client to keys that its claims name.
    pub keys: Option<KeyRule>,
    /// The tenants that may read it; `None` for every tenant.
    pub tenants: Option<Box<[TenantId]>>,
}

/// Where a channel's records are and how they are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelSource {
    /// Each tenant has a topic of its own.
    TopicPerTenant(TopicTemplate),
    /// All are in one topic, and the rule tells whose each record is.
    Topic(SourceKey),
}

impl ChannelSource {
    /// Says whether some client of the channel may read this topic.
    pub fn may_be(&self, topic: &TopicName) -> bool {
        match self {
            Self::TopicPerTenant(template) => template.may_name(topic),
            Self::Topic(source) => source.topic == *topic,
        }
    }
}

/// Why channels can't stand in one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChannelConflict {
    #[error("more than {CHANNELS_MAX} channels")]
    TooMany,
    #[error("two channels are named `{0}`; rename one")]
    Repeated(ChannelName),
    #[error(
        "channels `{first}` and `{second}` can come to the same topic for different tenants; \
         set their topics apart by a part between dots"
    )]
    SharedTopic { first: ChannelName, second: ChannelName },
}

/// All channels of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels {
    by_name: BTreeMap<ChannelName, Channel>,
}

impl Channels {
    /// Takes the channels of a configuration.
    ///
    /// # Errors
    ///
    /// Every [`ChannelConflict`] among them.
    pub fn new(channels: Vec<Channel>) -> Result<Self, Vec<ChannelConflict>> {
        if channels.len() > CHANNELS_MAX {
            return Err(vec![ChannelConflict::TooMany]);
        }
        let mut conflicts = Vec::new();
        for (index, second) in channels.iter().enumerate() {
            let met = channels[..index].iter().filter_map(|first| conflict(first, second));
            conflicts.extend(met);
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let by_name = channels.into_iter().map(|channel| (channel.name.clone(), channel));
        Ok(Self { by_name: by_name.collect() })
    }

    /// Says what `principal` reads when it names `channel` and `filter`.
    ///
    /// # Errors
    ///
    /// [`Denied`], which tells unknown and forbidden channels alike. A channel is
    /// forbidden also to a tenant that can have no records in it: one whose name
    /// can't stand in the topic's, or holds the separator of the keys.
    pub fn grant(
        &self,
        principal: &Principal,
        channel: &ChannelName,
        filter: &KeyFilter,
    ) -> Result<Grant, Denied> {
        self.judge(principal, channel, filter).map_err(|reason| reason.told())
    }

    /// Says the same, with the reason as the operator may know it.
    ///
    /// # Errors
    ///
    /// [`DeniedBy`] for the first rule that says no.
    pub fn judge(
        &self,
        principal: &Principal,
        channel: &ChannelName,
        filter: &KeyFilter,
    ) -> Result<Grant, DeniedBy> {
        if !principal.channels.has(channel) {
            return Err(DeniedBy::ChannelsClaim);
        }
        let channel = self.by_name.get(channel).ok_or(DeniedBy::NoSuchChannel)?;
        if !channel.is_open_to(&principal.tenant) {
            return Err(DeniedBy::Tenants);
        }
        let grant = channel.source.grant(&principal.tenant).ok_or(DeniedBy::TenantName)?;
        match &channel.keys {
            Some(rule) if !rule.covers(principal, filter) => {
                let claims = rule.claims().map(Into::into).collect();
                Err(DeniedBy::KeyRule { claims })
            }
            _ => Ok(grant),
        }
    }

    /// Returns the names of the channels that `newer` has no longer, or has
    /// otherwise.
    pub fn changed_in(&self, newer: &Self) -> BTreeSet<ChannelName> {
        let same = |channel: &Channel| newer.by_name.get(&channel.name) == Some(channel);
        self.iter().filter(|channel| !same(channel)).map(|channel| channel.name.clone()).collect()
    }

    /// Returns the channels, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.by_name.values()
    }

    /// Returns the topics that are known without a tenant.
    pub fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.iter().filter_map(|channel| match &channel.source {
            ChannelSource::Topic(source) => Some(&source.topic),
            ChannelSource::TopicPerTenant(_) => None,
        })
    }

    /// Returns the claims that key rules speak of: those a principal must carry.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.iter().filter_map(|channel| channel.keys.as_ref()).flat_map(KeyRule::claims)
    }
}

impl Channel {
    fn is_open_to(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }
}

impl ChannelSource {
    fn grant(&self, tenant: &TenantId) -> Option<Grant> {
        let source = match self {
            Self::TopicPerTenant(template) => SourceKey {
                topic: template.topic_of(tenant)?,
                rule: TenancyRule::Topic(tenant.clone()),
            },
            Self::Topic(source) => source.clone(),
        };
        let may_own = match &source.rule {
            TenancyRule::Shared => return Some(Grant { source, tenant: None }),
            TenancyRule::Topic(owner) => owner == tenant,
            TenancyRule::KeyPrefix(separator) => may_stand_before(tenant, separator),
            TenancyRule::Header(_) | TenancyRule::Value(_) => true,
        };
        may_own.then(|| Grant { source, tenant: Some(tenant.clone()) })
    }

    /// Says whether both can come to one topic, for different tenants and without
    /// a rule that tells their records apart.
    fn meets(&self, other: &ChannelSource) -> bool {
        match (self, other) {
            (Self::TopicPerTenant(a), Self::TopicPerTenant(b)) => a.meets(b),
            (Self::TopicPerTenant(template), Self::Topic(source))
            | (Self::Topic(source), Self::TopicPerTenant(template)) => {
                template.may_name(&source.topic)
            }
            (Self::Topic(_), Self::Topic(_)) => false,
        }
    }
}

fn conflict(first: &Channel, second: &Channel) -> Option<ChannelConflict> {
    if first.name == second.name {
        return Some(ChannelConflict::Repeated(first.name.clone()));
    }
    first.source.meets(&second.source).then(|| ChannelConflict::SharedTopic {
        first: first.name.clone(),
        second: second.name.clone(),
    })
}

/// Says whether a key that starts with this tenant and the separator is split
/// just there, and not within the tenant's name.
fn may_stand_before(tenant: &TenantId, separator: &str) -> bool {
    format!("{tenant}{separator}").find(separator) == Some(tenant.as_str().len())
}

impl ChannelAccess {
    /// Says whether the token names this channel.
    fn has(&self, channel: &ChannelName) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| **name == *channel.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::ids::Offset;
    use crate::types::ids::Timestamp;
    use crate::types::record::RawRecord;

    fn per_tenant(name: &str, template: &str) -> Channel {
        let template = TopicTemplate::parse(template).expect("has a tenant").expect("a template");
        channel(name, ChannelSource::TopicPerTenant(template))
    }

    fn of_topic(name: &str, topic: &str, rule: TenancyRule) -> Channel {
        channel(name, ChannelSource::Topic(SourceKey { topic: TopicName::new(topic), rule }))
    }

    fn channel(name: &str, source: ChannelSource) -> Channel {
        Channel { name: ChannelName::new(name), source, keys: None, tenants: None }
    }

    fn shop() -> Channels {
        let header = TenancyRule::Header("tenant-id".into());
        let key = TenancyRule::KeyPrefix(":".into());
        let mut mine = of_topic("mine", "orders", header.clone());
        mine.keys = Some(KeyRule::key("{sub}").expect("a rule"));
        let mut partners = of_topic("partners", "prices", TenancyRule::Shared);
        partners.tenants = Some([TenantId::new("blub")].into());
        Channels::new(vec![
            per_tenant("invoices", "{tenant}.invoices"),
            of_topic("orders", "orders", header),
            of_topic("couriers", "couriers", key),
            of_topic("prices", "prices", TenancyRule::Shared),
            of_topic("own", "acme-only", TenancyRule::Topic(TenantId::new("acme"))),
            mine,
            partners,
        ])
        .expect("no conflict")
    }

    fn client(tenant: &str, channels: ChannelAccess) -> Principal {
        Principal {
            tenant: TenantId::new(tenant),
            subject: Some("u1".into()),
            channels,
            claims: BTreeMap::new(),
            expires_at: None,
            token_id: None,
            issued_at: None,
        }
    }

    fn check(tenant: &str, channel: &str, expected: Result<(&str, Option<&str>), Denied>) {
        let client = client(tenant, ChannelAccess::All);
        let granted = shop().grant(&client, &ChannelName::new(channel), &KeyFilter::All);
        let told = granted.map(|grant| {
            let tenant = grant.tenant.map(|tenant| tenant.to_string());
            (grant.source.topic.to_string(), tenant)
        });
        let expected = expected.map(|(topic, owner)| (topic.into(), owner.map(Into::into)));
        assert_eq!(told, expected, "{tenant} {channel}");
    }

    #[test]
    fn a_client_reads_its_tenants_records_of_the_channels_topic() {
        check("acme", "invoices", Ok(("acme.invoices", Some("acme"))));
        check("acme", "orders", Ok(("orders", Some("acme"))));
        check("acme", "couriers", Ok(("couriers", Some("acme"))));
        check("acme", "prices", Ok(("prices", None)));
        check("acme", "own", Ok(("acme-only", Some("acme"))));
    }

    #[test]
    fn unknown_and_forbidden_channels_are_told_alike() {
        check("acme", "nothing", Err(Denied::Channel));
        check("acme", "Orders", Err(Denied::Channel));
        check("acme", "orders\0", Err(Denied::Channel));
        check("acme", "", Err(Denied::Channel));
        check("acme", "partners", Err(Denied::Channel));
        check("blub", "partners", Ok(("prices", None)));
        check("blub", "own", Err(Denied::Channel));
        let only = ChannelAccess::Only(["prices".into()].into());
        let client = client("acme", only);
        let ask = |name: &str| shop().grant(&client, &ChannelName::new(name), &KeyFilter::All);
        assert!(ask("prices").is_ok());
        assert_eq!(ask("orders"), ask("nothing"));
        assert_eq!(ask("orders"), Err(Denied::Channel));
    }

    #[test]
    fn a_channel_that_is_only_added_changes_no_other() {
        let two = |second: Channel| {
            let first = of_topic("a", "t", TenancyRule::Shared);
            Channels::new(vec![first, second]).expect("no conflict")
        };
        let before = two(of_topic("b", "t", TenancyRule::Shared));
        let check = |newer: Channels, changed: &[&str]| {
            let names = before.changed_in(&newer);
            assert!(names.iter().map(ChannelName::as_str).eq(changed.iter().copied()), "{names:?}");
        };
        check(before.clone(), &[]);
        let more = before.iter().cloned().chain([of_topic("c", "t", TenancyRule::Shared)]);
        check(Channels::new(more.collect()).expect("no conflict"), &[]);
        check(two(of_topic("b", "u", TenancyRule::Shared)), &["b"]);
        check(two(of_topic("b", "t", TenancyRule::Header("h".into()))), &["b"]);
        check(two(of_topic("c", "t", TenancyRule::Shared)), &["b"]);
    }

    #[test]
    fn tenants_that_can_have_no_records_are_refused() {
        check("acme.eu", "invoices", Err(Denied::Channel));
        check("..", "invoices", Err(Denied::Channel));
        check("acme:eu", "couriers", Err(Denied::Channel));
        check("acme:eu", "orders", Ok(("orders", Some("acme:eu"))));
    }

    #[test]
    fn a_key_rule_bounds_the_filter() {
        let client = client("acme", ChannelAccess::All);
        let mine = ChannelName::new("mine");
        let ask = |filter: &KeyFilter| shop().grant(&client, &mine, filter).map(|_| ());
        assert_eq!(ask(&KeyFilter::All), Err(Denied::Key));
        assert_eq!(ask(&KeyFilter::keys([Bytes::from("u2")])), Err(Denied::Key));
        assert_eq!(ask(&KeyFilter::keys([Bytes::from("u1")])), Ok(()));
        assert_eq!(shop().claims().collect::<Vec<_>>(), ["sub"]);
    }

    fn check_conflict(channels: Vec<Channel>, expected: Result<(), &str>) {
        let told =
            Channels::new(channels).map(|_| ()).map_err(|conflicts| conflicts[0].to_string());
        match expected {
            Ok(()) => assert_eq!(told, Ok(())),
            Err(part) => assert!(told.as_ref().is_err_and(|text| text.contains(part)), "{told:?}"),
        }
    }

    #[test]
    fn channels_that_could_mix_tenants_are_refused() {
        let orders = || per_tenant("a", "{tenant}.orders");
        check_conflict(vec![orders(), per_tenant("b", "{tenant}.orders")], Ok(()));
        check_conflict(vec![orders(), per_tenant("b", "{tenant}.big.orders")], Ok(()));
        check_conflict(vec![orders(), per_tenant("b", "x-{tenant}.orders")], Err("`a` and `b`"));
        check_conflict(vec![orders(), per_tenant("a", "{tenant}.x")], Err("named `a`"));
        let shared = |topic| of_topic("b", topic, TenancyRule::Shared);
        check_conflict(vec![orders(), shared("acme.orders")], Err("`a` and `b`"));
        check_conflict(vec![shared("acme.orders"), orders()], Err("`b` and `a`"));
        check_conflict(vec![orders(), shared("orders")], Ok(()));
        let header = of_topic("a", "orders", TenancyRule::Header("t".into()));
        check_conflict(vec![header, shared("orders")], Ok(()));
    }

    #[test]
    fn two_rules_on_one_topic_are_two_sources() {
        let header = of_topic("a", "orders", TenancyRule::Header("t".into()));
        let channels = Channels::new(vec![header, of_topic("b", "orders", TenancyRule::Shared)]);
        let channels = channels.expect("no conflict");
        let client = client("acme", ChannelAccess::All);
        let source = |name: &str| {
            let grant = channels.grant(&client, &ChannelName::new(name), &KeyFilter::All);
            grant.expect("may read").source
        };
        assert_ne!(source("a"), source("b"));
    }

    /// Tenants that a careless comparison would take for one another.
    const LOOKALIKES: [&str; 9] =
        ["acme", "ACME", "acme:", "acme.", "acme\0", "..", "acme/x", "caf\u{e9}", "cafe\u{301}"];

    #[test]
    fn lookalike_tenants_never_meet() {
        let channels = shop();
        for (own, other) in LOOKALIKES.iter().flat_map(|a| LOOKALIKES.map(|b| (*a, b))) {
            let key = format!("{other}:k");
            let headers = [("tenant-id", Some(other.as_bytes()))];
            let record = RawRecord {
                offset: Offset::ZERO,
                timestamp: Timestamp::from_millis(0),
                key: Some(key.as_bytes()),
                value: None,
                headers: &headers,
            };
            // A key can't say `acme:` before a `:`, it says `acme`; so such a tenant
            // can have no records there, and producers must not write any.
            let sayable = may_stand_before(&TenantId::new(other), ":");
            let channels_of_other = if sayable { &["orders", "couriers"][..] } else { &["orders"] };
            for &channel in channels_of_other {
                let client = client(own, ChannelAccess::All);
                let grant = channels.grant(&client, &ChannelName::new(channel), &KeyFilter::All);
                let Ok(grant) = grant else { continue };
                let classified = grant.source.rule.classify(&record);
                let seen = classified.is_some_and(|classified| {
                    classified.tenant.as_deref() == grant.tenant.as_ref().map(TenantId::as_str)
                });
                assert!(!seen || own == other, "{own:?} sees {other:?} in {channel}");
            }
        }
    }
}
