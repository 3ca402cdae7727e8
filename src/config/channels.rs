//! The `[[channels]]` of a configuration.

use crate::config::loader::Loader;
use crate::config::loader::SectionReader;
use crate::config::values::TenantSetting;
use crate::tenancy::channel::Channel;
use crate::tenancy::channel::ChannelSource;
use crate::tenancy::channel::Channels;
use crate::tenancy::channel::SourceKey;
use crate::tenancy::key_rule::KeyRule;
use crate::tenancy::pointer::POINTER_DEPTH_MAX;
use crate::tenancy::pointer::is_pointer;
use crate::tenancy::rule::TenancyRule;
use crate::tenancy::topic::PLACE;
use crate::tenancy::topic::TopicTemplate;
use crate::tenancy::topic::parse_topic;
use crate::types::ids::ChannelName;
use crate::types::ids::TenantId;
use crate::types::limits::CHANNEL_BYTES_MAX;
use crate::types::setting::required;
use crate::types::setting::settings;
use crate::types::setting::suggested;
use crate::types::setting::unset;

settings! {
    /// A channel: what clients name, the topic behind it, and whose each record
    /// is. One `[[channels]]` for each.
    pub struct ChannelSection {
        /// What clients call it.
        pub name: String = required("orders"),
        /// The topic. With `{tenant}` in it each tenant has a topic of its own, and
        /// only tenants named with `a-z`, `A-Z`, `0-9`, `_` and `-` can have one.
        pub topic: String = required("orders"),
        /// Whose each record is: `{ header = "tenant-id" }` names a header,
        /// `{ key_prefix = ":" }` what stands between the tenant and the rest of
        /// the key (clients see and name the rest), `{ value = "/tenant" }` is a
        /// JSON pointer into the value, and `"shared"` shows every record to every
        /// tenant. Absent only when the topic has `{tenant}`. A record whose tenant
        /// can't be told goes to nobody and is counted.
        pub tenant: Option<TenantSetting> = suggested("{ header = \"tenant-id\" }"),
        /// The one key that a client may read, with claims of its token in braces.
        /// A client must then name its key.
        pub key: Option<String> = unset("{sub}"),
        /// The prefix of the keys that a client may read, with claims in braces; it
        /// ends in text that no claim may hold. A client must then name keys or a
        /// prefix within it.
        pub key_prefix: Option<String> = unset("{sub}:"),
        /// The tenants that may read it. Absent: every tenant.
        pub tenants: Option<Vec<TenantId>> = unset("[\"acme\", \"blub\"]"),
    }
}

/// Reads all channels.
pub(crate) fn read(loader: &mut Loader) -> Option<Channels> {
    let channels = loader.sections("channels", |reader| {
        let section = reader.read::<ChannelSection>()?;
        channel(reader, section)
    })?;
    if channels.is_empty() {
        loader
            .refuse("channels", "is empty, so that nobody could read anything; add `[[channels]]`");
        return None;
    }
    match Channels::new(channels) {
        Ok(channels) => Some(channels),
        Err(conflicts) => {
            for conflict in conflicts {
                loader.refuse("channels", format!("contradict each other: {conflict}"));
            }
            None
        }
    }
}

fn channel(reader: &mut SectionReader<'_>, section: ChannelSection) -> Option<Channel> {
    let name = name(reader, &section.name);
    let source = source(reader, &section.topic, section.tenant);
    let keys = keys(reader, section.key.as_deref(), section.key_prefix.as_deref());
    let tenants = match section.tenants {
        Some(tenants) if tenants.is_empty() => {
            reader
                .refuse("tenants", "is empty, so that nobody may read; name some or leave it out");
            None
        }
        tenants => Some(tenants.map(Vec::into_boxed_slice)),
    };
    Some(Channel { name: name?, source: source?, keys: keys?, tenants: tenants? })
}

fn name(reader: &mut SectionReader<'_>, name: &str) -> Option<ChannelName> {
    if name.len() > CHANNEL_BYTES_MAX || name.chars().any(char::is_control) {
        let text = format!("must have at most {CHANNEL_BYTES_MAX} bytes, all of them printable");
        reader.refuse("name", text);
        return None;
    }
    Some(ChannelName::new(name))
}

fn source(
    reader: &mut SectionReader<'_>,
    topic: &str,
    tenant: Option<TenantSetting>,
) -> Option<ChannelSource> {
    if let Some(place) = strange_place(topic) {
        let text = format!("has `{place}`, which stands for nothing; did you mean `{PLACE}`?");
        reader.refuse("topic", text);
        return None;
    }
    let template = match TopicTemplate::parse(topic).transpose() {
        Ok(template) => template,
        Err(error) => {
            reader.refuse("topic", format!("is {topic:?}: {error}"));
            return None;
        }
    };
    match (template, tenant) {
        (Some(template), None) => Some(ChannelSource::TopicPerTenant(template)),
        (Some(_), Some(_)) => {
            reader.refuse("tenant", "contradicts `{tenant}` in the topic; keep one of the two");
            None
        }
        (None, None) => {
            let text = "is missing: whose are the records of this topic? To show all of them to \
                        every tenant, write `tenant = \"shared\"`";
            reader.refuse("tenant", text);
            None
        }
        (None, Some(tenant)) => {
            let topic = parse_topic(topic)
                .map_err(|error| reader.refuse("topic", format!("is {topic:?}: {error}")));
            let rule = rule(reader, tenant);
            Some(ChannelSource::Topic(SourceKey { topic: topic.ok()?, rule: rule? }))
        }
    }
}

/// Returns what stands in braces and is not the tenant's place.
fn strange_place(topic: &str) -> Option<&str> {
    let starts = topic.match_indices('{').map(|(start, _)| &topic[start..]);
    let mut places = starts.filter_map(|rest| rest.split_inclusive('}').next());
    places.find(|place| place.ends_with('}') && *place != PLACE)
}

fn rule(reader: &mut SectionReader<'_>, tenant: TenantSetting) -> Option<TenancyRule> {
    match tenant {
        TenantSetting::Shared => Some(TenancyRule::Shared),
        TenantSetting::Header(name) => Some(TenancyRule::Header(name.into())),
        TenantSetting::KeyPrefix(separator) => Some(TenancyRule::KeyPrefix(separator.into())),
        TenantSetting::Value(pointer) if is_pointer(&pointer) => {
            Some(TenancyRule::Value(pointer.into()))
        }
        TenantSetting::Value(pointer) => {
            let text = format!(
                "has the value {pointer:?}, which is no JSON pointer; write `/` before each of at \
                 most {POINTER_DEPTH_MAX} names, such as `\"/meta/tenant\"`",
            );
            reader.refuse("tenant", text);
            None
        }
    }
}

fn keys(
    reader: &mut SectionReader<'_>,
    key: Option<&str>,
    prefix: Option<&str>,
) -> Option<Option<KeyRule>> {
    let (name, text, rule) = match (key, prefix) {
        (None, None) => return Some(None),
        (Some(text), None) => ("key", text, KeyRule::key(text)),
        (None, Some(text)) => ("key_prefix", text, KeyRule::prefix(text)),
        (Some(_), Some(_)) => {
            reader.refuse("key", "contradicts `key_prefix`; keep one of the two");
            return None;
        }
    };
    match rule {
        Ok(rule) => Some(Some(rule)),
        Err(error) => {
            reader.refuse(name, format!("is {text:?}: {error}"));
            None
        }
    }
}
