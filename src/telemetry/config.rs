//! What an operator may set about logs.

use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;
use crate::types::setting::default;
use crate::types::setting::settings;

settings! {
    /// Logs, on standard error. No token, password or record key is ever in them.
    pub struct LogConfig {
        /// `"text"` for people, `"json"` for machines: one object a line.
        pub format: LogFormat = default("text"),
        /// The least that is logged: `"error"`, `"warn"`, `"info"`, `"debug"` or
        /// `"trace"`. The last two write for each connection, and are not for
        /// production.
        pub level: LogLevel = default("info"),
    }
}

settings! {
    /// Metrics. How many series there are is bounded by these numbers; what is beyond
    /// them is counted together, as `other`.
    pub struct MetricsConfig {
        /// Tenants that metrics tell apart: the first that connect. 0: none, and no
        /// metric names a tenant. Each costs five series.
        pub tenants_max: u32 = default("0").within("0", "10000"),
        /// Channels that metrics tell apart. 0: none. Each costs four series.
        pub channels_max: u32 = default("100").within("0", "1000"),
        /// Partitions whose reader's lag is told apart, by the names of their topics,
        /// which hold the tenant where each tenant has a topic of its own. 0: all
        /// together. Each costs two series.
        pub partitions_max: u32 = default("200").within("0", "100000"),
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The least that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Returns the level of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::read(Raw::Text(name.to_owned())).ok()
    }
}

impl Setting for LogFormat {
    const FORM: Form = Form { text: "`\"text\"` or `\"json\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        raw.choose(&Self::FORM, &[("text", Self::Text), ("json", Self::Json)])
    }
}

impl Setting for LogLevel {
    const FORM: Form = Form {
        text: "`\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"` or `\"trace\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let choices = [
            ("error", Self::Error),
            ("warn", Self::Warn),
            ("info", Self::Info),
            ("debug", Self::Debug),
            ("trace", Self::Trace),
        ];
        raw.choose(&Self::FORM, &choices)
    }
}
