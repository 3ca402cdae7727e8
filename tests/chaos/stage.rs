//! Everything that plays: brokers, replicas, proxies, producers and clients.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use brucke_checker::line::TruthLine;
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::client::Order;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::fault::Outage;
use crate::journal::TruthJournal;
use crate::journal::fresh_folder;
use crate::observer::Bounds;
use crate::observer::Eye;
use crate::observer::Observer;
use crate::plan::PLANS;
use crate::plan::wanted;
use crate::producers::Acks;
use crate::producers::Loader;
use crate::replica::KAFKA_PASSWORD;
use crate::replica::KAFKA_USER;
use crate::replica::Metrics;
use crate::replica::Replica;
use crate::replica::Way;
use crate::support::kafka_cluster::Detour;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::KafkaOptions;
use crate::tally::Tally;
use crate::topics;
use crate::topics::Known;
use crate::topics::Topics;

/// All that a fault may break.
pub struct Stage {
    pub runtime: Runtime,
    pub clock: Clock,
    pub folder: PathBuf,
    pub truth: TruthJournal,
    pub tally: Arc<Tally>,
    pub acks: Acks,
    pub topics: Arc<Topics>,
    pub eye: Eye,
    pub loader: Loader,
    pub clients: Vec<Client>,
    pub replicas: Vec<Replica>,
    /// What a fault found not to be as expected while it lasted.
    pub notes: Vec<String>,
    /// How far the present fault reaches, where that is less than the most.
    reach: Reach,
    /// Since when a fault has the first record watched for, if it does.
    watched: Option<u64>,
    observer: Observer,
    pub cluster: KafkaCluster,
}

/// How far a fault reaches: as far as it lasts, and to all, or less.
#[derive(Debug, Default)]
struct Reach {
    replica: Option<usize>,
    mended: Option<u64>,
}

impl Stage {
    /// Sets everything up and lets it play.
    pub fn set_up(folder: &Path, clients: usize, seed: u64) -> Self {
        fresh_folder(folder);
        let clock = Clock::start();
        let truth = TruthJournal::create(folder);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        let ways: Vec<Way> = (0..REPLICAS).map(|n| Way::lay(&handle, n, BROKERS)).collect();
        let cluster = start_cluster(&ways);
        for (detour, way) in ways.iter().enumerate() {
            (0..BROKERS).for_each(|b| way.lead(b, cluster.detour_port(b, detour)));
        }
        let topics = Arc::new(Topics::unknown(PLANS.len()));
        let servers = cluster.bootstrap_servers();
        let tally = Arc::<Tally>::default();
        let acks = Acks::new(clock, truth.clone(), Arc::clone(&tally));
        let eye = || Eye::new(&servers, clock, truth.clone());
        let mut stage = Self {
            clock,
            folder: folder.to_owned(),
            tally,
            loader: Loader::start(servers.clone(), acks.clone(), Arc::clone(&topics), seed),
            acks,
            eye: eye(),
            observer: Observer::start(eye(), Arc::clone(&topics)),
            topics,
            clients: Vec::new(),
            replicas: Vec::new(),
            notes: Vec::new(),
            reach: Reach::default(),
            watched: None,
            truth,
            cluster,
            runtime,
        };
        for (topic, plan) in PLANS.iter().enumerate() {
            stage.make_topic(topic, plan.partitions);
        }
        stage.replicas = ways.into_iter().map(|way| Replica::start(&handle, way)).collect();
        stage.start_clients(clients);
        stage
    }

    fn start_clients(&mut self, count: usize) {
        let ports: Vec<u16> = self.replicas.iter().map(|replica| replica.front.port).collect();
        let _inside = self.runtime.enter();
        self.clients = (0..count)
            .map(|number| {
                let ports = ports.clone();
                Client::start(number, wanted(number), ports, &self.folder, self.clock, &self.tally)
            })
            .collect();
    }

    /// Makes a topic as planned, or anew, with so many partitions.
    pub fn make_topic(&self, topic: usize, partitions: u32) {
        let plan = &PLANS[topic];
        let count = i32::try_from(partitions).expect("few");
        self.cluster.admin().create_replicated_topic(plan.name, count, plan.replicas, plan.config);
        let id = topics::topic_id(&self.cluster, BROKERS, plan.name);
        self.truth.write(&TruthLine::Topic {
            topic: id.clone(),
            name: plan.name.to_owned(),
            cleanup: plan.cleanup,
            at: Some(self.clock.now()),
        });
        self.topics.know(topic, Some(Known { id, partitions }));
    }

    /// Returns the replica with the most clients, and notes that the present fault concerns
    /// only those.
    pub fn strike_one(&mut self) -> usize {
        let replica = self.crowded();
        self.reach.replica = Some(replica);
        replica
    }

    /// Says that the present fault is mended, whatever is yet to be cleared up after it.
    pub fn mend(&mut self) {
        self.reach.mended = Some(self.clock.now());
    }

    /// Ends a fault. Where it was an outage, nobody whom it concerned could be served from
    /// a moment on until it was mended, or until another moment.
    pub fn end_fault(&mut self, fault: &Fault, from: u64, to: u64) {
        // Whatever the fault was: the next one reaches as far as it says itself.
        let Reach { replica, mended } = std::mem::take(&mut self.reach);
        if fault.outage == Outage::Some {
            let (to, why) = (mended.unwrap_or(to), fault.name.to_owned());
            self.truth.write(&TruthLine::Excuse { from, to, why, replica });
        }
    }

    /// Waits so long for every client to have what the log has now. Returns how
    /// long it took, or who is missing.
    pub fn catch_up(&self, limit: Duration) -> Result<Duration, String> {
        let began = self.clock.now();
        let ends: Vec<Vec<Bounds>> =
            (0..PLANS.len()).map(|topic| self.eye.insist(&self.topics, topic)).collect();
        let asked = self.clock.since(began);
        loop {
            let missing = self.clients.iter().enumerate().find_map(|(number, client)| {
                let what = missing(client, &self.topics, &ends[client.wanted.topic])?;
                Some(format!("client {number} of {}: {what}", PLANS[client.wanted.topic].name))
            });
            match missing {
                None => return Ok(self.clock.since(began)),
                Some(text) if self.clock.since(began) > limit.max(asked + LOOK_MIN) => {
                    return Err(text);
                }
                Some(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Returns the sum of all replicas' metrics. One that was left out would look like
    /// counts that fell, and grow afterwards.
    pub fn metrics(&self) -> Metrics {
        let mut sums = BTreeMap::new();
        for (name, value) in self.replicas.iter().flat_map(Replica::insist_metrics) {
            *sums.entry(name).or_default() += value;
        }
        sums
    }

    /// Returns the replica with the most clients: after others all may be at one.
    pub fn crowded(&self) -> usize {
        let connections =
            |replica: &Replica| replica.metrics().get("brucke_connections").copied().unwrap_or(0.0);
        let counts: Vec<f64> = self.replicas.iter().map(connections).collect();
        let most = (0..counts.len()).max_by(|one, other| counts[*one].total_cmp(&counts[*other]));
        most.expect("there are replicas")
    }

    /// Notes the first acknowledgement from now on, and the first delivery after it.
    /// A fault calls it where that may come before it has ended.
    pub fn watch(&mut self) {
        let now = self.clock.now();
        self.watched = Some(now);
        self.acks.watch(now);
    }

    /// The same, once a fault has ended that did not.
    pub fn watch_if_not_yet(&mut self) {
        if self.watched.is_none() {
            self.watch();
        }
        self.watched = None;
    }

    /// Returns how long after the first acknowledgement the first record was
    /// delivered.
    pub fn first_record(&self) -> Option<Duration> {
        let (ack, delivery) = self.acks.first().zip(self.tally.first_delivery())?;
        Some(Duration::from_millis(delivery.saturating_sub(ack)))
    }

    /// Tells some clients what to do: of a topic or of all, each one in so many.
    pub fn tell(&self, topic: Option<usize>, one_in: usize, order: Order) {
        let ours = |client: &&Client| topic.is_none_or(|topic| client.wanted.topic == topic);
        self.clients.iter().filter(ours).step_by(one_in).for_each(|client| client.tell(order));
    }

    pub fn sleep(&self, seconds: f64) {
        thread::sleep(Duration::from_secs_f64(seconds));
    }

    /// Lets nothing new come, waits until all have everything, and ends.
    pub fn strike(mut self) -> Result<Duration, String> {
        self.loader.finish();
        self.observer.finish();
        self.truth.write(&TruthLine::Over { at: self.clock.now() });
        let caught_up = self.catch_up(CATCH_UP_MAX);
        for topic in 0..PLANS.len() {
            self.eye.insist(&self.topics, topic);
            self.eye.search(&self.topics, topic);
        }
        self.clients.iter().for_each(|client| client.tell(Order::Stop));
        for client in std::mem::take(&mut self.clients) {
            self.runtime.block_on(client.finish());
        }
        self.truth.flush();
        caught_up
    }
}

/// Says what a client lacks of the log up to these ends.
fn missing(client: &Client, topics: &Topics, ends: &[Bounds]) -> Option<String> {
    let id = topics.id(client.wanted.topic)?;
    let Some((topic, positions)) = client.place() else { return Some("not begun".to_owned()) };
    if topic != id {
        return Some(format!("at topic {topic}, now {id}"));
    }
    (0..).zip(ends).find_map(|(p, (_, end))| {
        let position = positions.get(&p).copied().unwrap_or(0);
        (position < *end).then(|| format!("{p} at {position} of {end}"))
    })
}

fn start_cluster(ways: &[Way]) -> KafkaCluster {
    let detour = |(n, way): (usize, &Way)| Detour {
        name: format!("VIA{n}"),
        user: (KAFKA_USER.to_owned(), KAFKA_PASSWORD.to_owned()),
        told: way.named_ports(),
    };
    let properties = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        // Brokers and producers; replicas are known by a name.
        ("super.users", "User:ANONYMOUS"),
        ("allow.everyone.if.no.acl.found", "true"),
        ("unclean.leader.election.interval.ms", "500"),
        ("replica.lag.time.max.ms", "2000"),
        ("replica.fetch.wait.max.ms", "100"),
        ("message.max.bytes", "8000000"),
        ("replica.fetch.max.bytes", "8000000"),
    ];
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    KafkaCluster::start_with(
        BROKERS,
        &KafkaOptions {
            properties: properties.map(own).into(),
            detours: ways.iter().enumerate().map(detour).collect(),
            ..KafkaOptions::default()
        },
    )
}

pub const BROKERS: usize = 3;
pub const REPLICAS: usize = 2;
/// How long clients have at least, where Kafka said late what they should have.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// How long the last records may take.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
