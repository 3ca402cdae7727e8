//! What topics there are, what is produced to them and who follows them.

use brucke_checker::line::Cleanup;
use brucke_checker::line::Filter;
use brucke_checker::line::Start;
use brucke_checker::line::Tenant;

/// A topic and the channel that shows it; both have one name.
#[derive(Debug)]
pub struct Plan {
    pub name: &'static str,
    pub rule: Rule,
    pub partitions: u32,
    pub cleanup: Cleanup,
    pub config: &'static [(&'static str, &'static str)],
    /// Brokers that hold it; all but one may be lost without a loss.
    pub replicas: i32,
    /// Records a second.
    pub rate: u32,
}

/// How the tenant of a record is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Shared,
    Header,
    KeyPrefix,
}

impl Rule {
    /// Returns the rule as the configuration has it.
    pub fn config(self) -> &'static str {
        match self {
            Self::Shared => "\"shared\"",
            Self::Header => "{ header = \"tenant-id\" }",
            Self::KeyPrefix => "{ key_prefix = \":\" }",
        }
    }
}

pub const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub const HEADER: &str = "tenant-id";

/// The places of topics in [`PLANS`] that faults name.
pub const ORDERS: usize = 0;
pub const PRICES: usize = 1;
pub const FLEETING: usize = 3;
pub const AGAIN: usize = 4;
pub const GROWING: usize = 5;
pub const SHAKY: usize = 6;
pub const LEDGER: usize = 7;
pub const PAYMENTS: usize = 8;
pub const GUARDED: usize = 9;

/// All topics. The first three carry the load, the others are what single
/// faults break.
pub const PLANS: [Plan; 10] = [
    plan("orders", Rule::Header, 6, 150),
    plan("prices", Rule::Shared, 6, 150),
    plan("couriers", Rule::KeyPrefix, 3, 60),
    plan("fleeting", Rule::Shared, 2, 20),
    plan("again", Rule::Shared, 2, 20),
    plan("growing", Rule::Header, 2, 20),
    Plan {
        replicas: 2,
        config: &[("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")],
        ..plan("shaky", Rule::Shared, 1, 20)
    },
    Plan {
        cleanup: Cleanup::Compact,
        config: &[
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("segment.ms", "2000"),
            ("delete.retention.ms", "0"),
            ("max.compaction.lag.ms", "3000"),
        ],
        ..plan("ledger", Rule::KeyPrefix, 1, 20)
    },
    plan("payments", Rule::Shared, 2, 20),
    plan("guarded", Rule::Shared, 1, 20),
];

const fn plan(name: &'static str, rule: Rule, partitions: u32, rate: u32) -> Plan {
    let config = &[("min.insync.replicas", "1"), ("max.message.bytes", "8000000")];
    Plan { name, rule, partitions, cleanup: Cleanup::Delete, config, replicas: 3, rate }
}

/// One record to produce.
#[derive(Debug, Clone)]
pub struct Draft {
    pub partition: u32,
    /// As Kafka has it.
    pub kafka_key: Option<Vec<u8>>,
    /// As clients see it.
    pub key: Option<String>,
    pub tenant: Tenant,
    pub value: Option<Vec<u8>>,
    pub header: Option<&'static str>,
}

const REGIONS: [&str; 3] = ["eu", "us", "ap"];
const KEYS_PER_REGION: u64 = 20;

fn key(region: usize, number: u64) -> String {
    format!("{}-{number:02}", REGIONS[region])
}

/// Draws the next record of a topic; the value names tenant, topic, key and
/// number, so that no two are alike.
pub fn draft(
    topic: usize,
    partitions: u32,
    number: u64,
    pad: usize,
    random: &mut fastrand::Rng,
) -> Draft {
    let plan = &PLANS[topic];
    let name = TENANTS[random.usize(..TENANTS.len())];
    let key = key(random.usize(..REGIONS.len()), random.u64(..KEYS_PER_REGION));
    let tenant = match plan.rule {
        Rule::Shared => Tenant::Shared,
        Rule::Header | Rule::KeyPrefix => Tenant::One(name.to_owned()),
    };
    let kafka_key = match plan.rule {
        Rule::KeyPrefix => format!("{name}:{key}"),
        Rule::Shared | Rule::Header => key.clone(),
    };
    let fill = "x".repeat(pad);
    let value = format!(
        r#"{{"topic":"{}","tenant":"{name}","key":"{key}","number":{number},"fill":"{fill}"}}"#,
        plan.name
    );
    Draft {
        partition: random.u32(..partitions),
        kafka_key: Some(kafka_key.into_bytes()),
        key: Some(key),
        tenant,
        value: Some(value.into_bytes()),
        header: (plan.rule == Rule::Header).then_some(name),
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub topic: usize,
    pub tenant: &'static str,
    pub filter: Filter,
    pub start: Start,
}

/// Returns what the client of this number asks for. Most follow the topic that
/// everybody may read: that is where the deliveries come from.
pub fn wanted(number: usize) -> Wanted {
    let topic = match number % 4 {
        0 | 1 => PRICES,
        2 => [ORDERS, ORDERS, 2, LEDGER][number / 4 % 4],
        _ => [FLEETING, AGAIN, GROWING, SHAKY, PAYMENTS, GUARDED][number / 4 % 6],
    };
    let tenant = TENANTS[number / 3 % TENANTS.len()];
    let round = number / 24;
    let region = number % REGIONS.len();
    let filter = match (topic, round % 4) {
        // So that there is much to check.
        (PRICES, _) if !number.is_multiple_of(5) => Filter::All,
        (_, 0) => Filter::All,
        (_, 1) => Filter::Keys(vec![key(region, 3)]),
        (_, 2) => Filter::Keys((0..7).map(|n| key(region, n)).collect()),
        _ => Filter::Prefix(format!("{}-", REGIONS[region])),
    };
    let start = if number % 7 == 3 { Start::Latest } else { Start::Earliest };
    Wanted { topic, tenant, filter, start }
}
