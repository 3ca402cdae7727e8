//! Every key that there is, collected from the declarations.

use crate::admin::config::AdminConfig;
use crate::config::auth::AuthSection;
use crate::config::auth::IssuerSection;
use crate::config::channels::ChannelSection;
use crate::config::kafka::KafkaSection;
use crate::config::reload::ReloadConfig;
use crate::config::tenants::ExceptionSection;
use crate::config::tenants::TenantsSection;
use crate::server::config::ServerConfig;
use crate::telemetry::config::LogConfig;
use crate::telemetry::config::MetricsConfig;
use crate::telemetry::traces::config::TracingConfig;
use crate::types::setting::Form;
use crate::types::setting::Key;
use crate::types::setting::Reader;
use crate::types::setting::Section;
use crate::types::setting::Setting;

/// A section and its keys.
#[derive(Debug)]
pub(crate) struct SectionDoc {
    /// The section's whole name, such as `auth.issuers`.
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) about: &'static [&'static str],
    pub(crate) keys: Vec<KeyDoc>,
}

/// How often a section stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Once: `[server]`.
    Table,
    /// As often as is needed: `[[channels]]`.
    List,
}

/// A key and how its value is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyDoc {
    pub(crate) key: Key,
    pub(crate) form: Form,
}

/// Returns all sections, in the order in which a file has them.
pub(crate) fn sections() -> Vec<SectionDoc> {
    vec![
        section::<ServerConfig>("server", Shape::Table),
        section::<AdminConfig>("admin", Shape::Table),
        section::<KafkaSection>("kafka", Shape::Table),
        section::<AuthSection>("auth", Shape::Table),
        section::<IssuerSection>("auth.issuers", Shape::List),
        section::<ChannelSection>("channels", Shape::List),
        section::<TenantsSection>("tenants", Shape::Table),
        section::<ExceptionSection>("tenants.exceptions", Shape::List),
        section::<LogConfig>("log", Shape::Table),
        section::<MetricsConfig>("metrics", Shape::Table),
        section::<TracingConfig>("tracing", Shape::Table),
        section::<ReloadConfig>("reload", Shape::Table),
    ]
}

fn section<S: Section>(name: &'static str, shape: Shape) -> SectionDoc {
    let mut collector = Collector { keys: Vec::new() };
    S::read(&mut collector);
    SectionDoc { name, shape, about: S::ABOUT, keys: collector.keys }
}

/// A reader that has no values and remembers what it was asked for.
struct Collector {
    keys: Vec<KeyDoc>,
}

impl Reader for Collector {
    fn value<T: Setting>(&mut self, key: &Key) -> Option<T> {
        self.keys.push(KeyDoc { key: *key, form: T::FORM });
        None
    }
}
