//! One replica: what all its threads share, its shards and its Kafka side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use brucke::delivery::connection::Opening;
use brucke::delivery::settings::FrameLimits;
use brucke::delivery::settings::Settings;
use brucke::delivery::shard::Shard;
use brucke::log::budget::Budget;
use brucke::log::budget::Kind as Memory;
use brucke::protocol::frame::Encoding;
use brucke::protocol::frame::Token;
use brucke::registry::directory::Directory;
use brucke::registry::intake::Intake;
use brucke::registry::intake::IntakeSettings;
use brucke::tenancy::principal::ChannelAccess;
use brucke::tenancy::principal::Principal;
use brucke::tenancy::verify::Refusal;
use brucke::tenancy::verify::Verify;
use brucke::types::ids::ShardId;
use brucke::types::ids::TenantId;
use brucke::types::ids::Timestamp;

use crate::channels::Kind;
use crate::channels::configuration;
use crate::channels::configuration_without;
use crate::channels::tenants;
use crate::room::Room;

/// A replica, from its start to its end.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) directory: Arc<Directory>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) room: Room,
    pub(crate) shards: Vec<Shard>,
    /// What the largest outbox may hold: the largest that any settings allowed.
    pub(crate) unsent_bytes_max: usize,
    /// Channels that its configuration does not have now.
    pub(crate) withdrawn: BTreeSet<Kind>,
}

impl Replica {
    /// Starts a replica whose memory is small, so that much of it is given up.
    pub(crate) fn start(rng: &mut fastrand::Rng) -> Self {
        let shards = rng.u16(1..=3);
        let directory = Arc::new(Directory::new(shards));
        let budget = Budget::new(rng.u64(6_000..30_000), rng.u64(10_000..30_000));
        let history_readers = rng.usize(1..=2);
        let intake = IntakeSettings {
            refresh_interval: Duration::from_millis(rng.u64(300..1_500)),
            linger: Duration::from_millis(rng.u64(0..2_000)),
            retry_interval: Duration::from_millis(rng.u64(50..300)),
            history_readers,
            watched: Vec::new(),
        };
        let intake = Intake::new(intake, Arc::clone(&directory), Arc::clone(&budget));
        let room = Room::new(intake, Arc::clone(&directory), history_readers, rng.usize(4..=16));
        let settings = settings(rng);
        let channels = configuration();
        let shard = |index: u16| {
            let (settings, directory) = (settings.clone(), Arc::clone(&directory));
            let verifier: Arc<dyn Verify> = Arc::new(Verifier);
            let channels = Arc::clone(&channels);
            Shard::new(ShardId::new(index), settings, directory, channels, verifier, rng.u64(..))
        };
        let shards = (0..shards).map(shard).collect();
        let (unsent_bytes_max, withdrawn) = (settings.unsent_bytes_max, BTreeSet::new());
        Self { directory, budget, room, shards, unsent_bytes_max, withdrawn }
    }

    /// Takes the configuration without some channels, and with other limits.
    pub(crate) fn reload(&mut self, withdrawn: BTreeSet<Kind>, rng: &mut fastrand::Rng) {
        let settings = settings(rng);
        self.unsent_bytes_max = self.unsent_bytes_max.max(settings.unsent_bytes_max);
        let channels = configuration_without(&withdrawn);
        for shard in &mut self.shards {
            shard.handle_config(Arc::clone(&channels), settings.clone());
        }
        self.withdrawn = withdrawn;
    }

    /// Says whether the records in memory stay within their bound.
    pub(crate) fn check_memory(&self) -> Result<(), String> {
        for kind in [Memory::Tail, Memory::History] {
            let (bytes, bytes_max) = (self.budget.bytes(kind), self.budget.bytes_max(kind));
            if bytes > bytes_max {
                return Err(format!("{bytes} bytes of {kind:?}, and {bytes_max} are allowed"));
            }
        }
        Ok(())
    }
}

fn settings(rng: &mut fastrand::Rng) -> Settings {
    Settings {
        authentication_timeout: Duration::from_secs(5),
        unsent_bytes_max: rng.usize(1_000..20_000),
        frame: FrameLimits { bytes: rng.usize(100..4_000), records: rng.usize(1..12) },
        stuck_reader_timeout: Duration::from_secs(8),
        heartbeat_interval: Duration::from_secs(3),
        pong_timeout: Duration::from_secs(6),
        progress_interval: Duration::from_millis(rng.u64(300..1_500)),
        subscriptions_per_connection_max: 10,
        connections_max: 100,
        frames_per_second: 1_000,
        frames_burst: 10_000,
        expiry_warning: Duration::from_secs(2),
        start_timeout: Duration::from_secs(8),
        close_timeout: Duration::from_secs(2),
    }
}

/// Reads tokens that say in clear text whose they are.
#[derive(Debug)]
pub(crate) struct Verifier;

/// Returns a token of this tenant's, good until `expires_at`.
pub(crate) fn token(tenant: &TenantId, expires_at: Timestamp) -> Token {
    Token::new(format!("{tenant}|{}", expires_at.as_millis()))
}

/// Returns a client of this tenant's that may read everything, for ever.
pub(crate) fn principal(tenant: &TenantId) -> Principal {
    Principal {
        tenant: tenant.clone(),
        subject: None,
        channels: ChannelAccess::All,
        claims: std::collections::BTreeMap::new(),
        expires_at: None,
        token_id: None,
        issued_at: None,
    }
}

/// Opens a connection of the first tenant's that speaks JSON.
pub(crate) fn opening() -> Opening {
    let principal = Some(Arc::new(principal(&tenants()[0])));
    Opening { encoding: Encoding::Json, principal, user_agent: None, address: None, trace: None }
}

impl Verify for Verifier {
    fn verify(&self, token: &Token, now: Timestamp) -> Result<Principal, Refusal> {
        let refusal = |reason| Refusal { reason, message: format!("the token is {reason}") };
        let (tenant, millis) = token.secret().split_once('|').ok_or(refusal("malformed"))?;
        let millis = millis.parse().map_err(|_| refusal("malformed"))?;
        if millis <= now.as_millis() {
            return Err(refusal("expired"));
        }
        let expires_at = Some(Timestamp::from_millis(millis));
        Ok(Principal { expires_at, ..principal(&TenantId::new(tenant)) })
    }
}
