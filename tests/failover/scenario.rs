//! What is produced, who follows it, and how much of both.

use std::env;
use std::time::Duration;

use crate::checker::Entry;
use crate::checker::Filter;
use crate::checker::Wanted;
use crate::checker::checksum;

/// How large a run is. The defaults are those of the short run.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub clients: usize,
    pub records: u64,
    /// Replicas killed while records flow.
    pub kills: usize,
    /// How long records flow.
    pub flow: Duration,
}

impl Scale {
    /// Reads the scale from `FAILOVER_CLIENTS`, `FAILOVER_RECORDS`,
    /// `FAILOVER_KILLS` and `FAILOVER_SECONDS`.
    pub fn from_environment() -> Self {
        let number = |name: &str, default: u64| {
            let text = env::var(name).ok();
            text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        let small = |name: &str, default| usize::try_from(number(name, default)).expect("small");
        Self {
            clients: small("FAILOVER_CLIENTS", 20),
            records: number("FAILOVER_RECORDS", 10_000),
            kills: small("FAILOVER_KILLS", 2),
            flow: Duration::from_secs(number("FAILOVER_SECONDS", 6)),
        }
    }
}

/// The channels, and how the tenant of a record is told in each.
pub const CHANNELS: [(&str, &str); 2] =
    [("orders", "{ header = \"tenant-id\" }"), ("prices", "{ key_prefix = \":\" }")];
/// The tenants.
pub const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Partitions of each topic.
pub const PARTITIONS: u32 = 6;

const REGIONS: [&str; 3] = ["eu", "us", "ap"];
const KEYS_PER_REGION: u64 = 20;

/// One record to produce.
#[derive(Debug)]
pub struct Planned {
    /// Place of its channel in [`CHANNELS`].
    pub topic: usize,
    pub partition: u32,
    /// The key as Kafka has it.
    pub key: String,
    pub value: String,
    /// What the log then holds.
    pub entry: Entry,
}

/// Returns the record of this number; the same for the same number.
pub fn plan(number: u64) -> Planned {
    let mut random = fastrand::Rng::with_seed(number);
    let topic = random.usize(..CHANNELS.len());
    let tenant = random.usize(..TENANTS.len());
    let key = key(random.usize(..REGIONS.len()), random.u64(..KEYS_PER_REGION));
    let name = TENANTS[tenant];
    let (partition, kafka_key) = match topic {
        // A key lives in one partition of the one, and in all of the other.
        0 => (u32::try_from(checksum(key.as_bytes()) % u64::from(PARTITIONS)), key.clone()),
        _ => (Ok(random.u32(..PARTITIONS)), format!("{name}:{key}")),
    };
    let value = format!(r#"{{"tenant":"{name}","key":"{key}","number":{number}}}"#);
    let entry = Entry { tenant, key, checksum: checksum(value.as_bytes()) };
    Planned { topic, partition: partition.expect("few"), key: kafka_key, value, entry }
}

/// Returns what the client of this number asks for: each combination of
/// channel, tenant and kind of filter in turn.
pub fn wanted(client: usize) -> Wanted {
    let topic = client % CHANNELS.len();
    let tenant = client / CHANNELS.len() % TENANTS.len();
    let round = client / (CHANNELS.len() * TENANTS.len());
    let region = round % REGIONS.len();
    let keys = |count: u64| (0..count).map(|n| key(region, n + round as u64 % 5)).collect();
    let filter = match round % FILTERS.len() {
        0 => Filter::All,
        1 => Filter::Keys(keys(1)),
        2 => Filter::Keys(keys(7)),
        _ => Filter::Prefix(format!("{}-", REGIONS[region])),
    };
    Wanted { topic, tenant, filter }
}

/// The kinds of filter, as the table names them.
pub const FILTERS: [&str; 4] = ["all keys", "one key", "seven keys", "prefix"];

/// Returns the place of a filter's kind in [`FILTERS`].
pub fn kind(filter: &Filter) -> usize {
    match filter {
        Filter::All => 0,
        Filter::Keys(keys) if keys.len() == 1 => 1,
        Filter::Keys(_) => 2,
        Filter::Prefix(_) => 3,
    }
}

fn key(region: usize, number: u64) -> String {
    format!("{}-{number:02}", REGIONS[region])
}
