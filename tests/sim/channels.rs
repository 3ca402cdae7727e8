//! The channels of the simulated configuration: one for each tenancy rule, and
//! one that reads a topic under another rule.

use std::collections::BTreeSet;
use std::sync::Arc;

use brucke::tenancy::channel::Channel;
use brucke::tenancy::channel::ChannelSource;
use brucke::tenancy::channel::Channels;
use brucke::tenancy::channel::SourceKey;
use brucke::tenancy::rule::TenancyRule;
use brucke::tenancy::topic::TopicTemplate;
use brucke::types::ids::ChannelName;
use brucke::types::ids::TenantId;
use brucke::types::ids::TopicName;

/// A channel, named for the rule by which its records are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    PerTenant,
    Header,
    KeyPrefix,
    Value,
    Shared,
    /// The topic of `Header`, open to every tenant.
    Audit,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] =
        [Self::PerTenant, Self::Header, Self::KeyPrefix, Self::Value, Self::Shared, Self::Audit];

    pub(crate) fn channel(self) -> ChannelName {
        ChannelName::new(match self {
            Self::PerTenant => "orders",
            Self::Header => "headers",
            Self::KeyPrefix => "prefixed",
            Self::Value => "valued",
            Self::Shared => "open",
            Self::Audit => "audit",
        })
    }

    /// Returns the topic that a tenant's subscription reads.
    pub(crate) fn topic(self, tenant: &TenantId) -> TopicName {
        match self {
            Self::PerTenant => TopicName::new(format!("{tenant}.orders")),
            Self::Header | Self::Audit => TopicName::new("headers"),
            Self::KeyPrefix => TopicName::new("prefixed"),
            Self::Value => TopicName::new("valued"),
            Self::Shared => TopicName::new("open"),
        }
    }

    fn source(self) -> ChannelSource {
        let rule = match self {
            Self::PerTenant => {
                let template = TopicTemplate::parse("{tenant}.orders");
                let template = template.expect("it has a tenant").expect("it is a template");
                return ChannelSource::TopicPerTenant(template);
            }
            Self::Header => TenancyRule::Header("tenant-id".into()),
            Self::KeyPrefix => TenancyRule::KeyPrefix(":".into()),
            Self::Value => TenancyRule::Value("/tenant".into()),
            Self::Shared | Self::Audit => TenancyRule::Shared,
        };
        let topic = self.topic(&tenants()[0]);
        ChannelSource::Topic(SourceKey { topic, rule })
    }
}

/// The tenants of the simulation: names that a careless comparison would take
/// for one another.
pub(crate) fn tenants() -> [TenantId; 3] {
    ["acme", "Acme", "acme-"].map(TenantId::new)
}

/// Returns the configuration that every replica begins with.
pub(crate) fn configuration() -> Arc<Channels> {
    configuration_without(&BTreeSet::new())
}

/// Returns the configuration without some channels.
pub(crate) fn configuration_without(withdrawn: &BTreeSet<Kind>) -> Arc<Channels> {
    let channel = |kind: Kind| Channel {
        name: kind.channel(),
        source: kind.source(),
        keys: None,
        tenants: None,
    };
    let there = Kind::ALL.into_iter().filter(|kind| !withdrawn.contains(kind));
    let channels = Channels::new(there.map(channel).collect());
    Arc::new(channels.expect("the channels do not meet"))
}
