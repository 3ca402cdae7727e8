//! Replicas are replaced behind a proxy while records flow: each client is told,
//! moves no more often than it must, and loses nothing.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use brucke::server::system;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::checker::Acknowledged;
use crate::client::Flow;
use crate::mover;
use crate::mover::Journey;
use crate::opened;
use crate::opened::Burst;
use crate::opened::Watch;
use crate::produce;
use crate::proxy::Kind;
use crate::proxy::Proxy;
use crate::scenario::CHANNELS;
use crate::scenario::PARTITIONS;
use crate::scenario::Scale;
use crate::scenario::wanted;
use crate::start_replicas;
use crate::support::brucke::Brucke;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;

/// How replicas are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// New ones beside all old ones, which then end together.
    Surge,
    /// One after the other, in its place.
    InTurn,
    /// As in turn, and killed instead of asked.
    Killed,
}

#[test]
fn with_a_surge_behind_haproxy_each_client_moves_once() {
    check(Kind::HaProxy, Way::Surge);
}

#[test]
fn with_a_surge_behind_nginx_each_client_moves_once() {
    check(Kind::Nginx, Way::Surge);
}

#[test]
fn in_turn_behind_haproxy_each_client_moves_once_for_each_replica_it_was_on() {
    check(Kind::HaProxy, Way::InTurn);
}

#[test]
fn in_turn_behind_nginx_each_client_moves_once_for_each_replica_it_was_on() {
    check(Kind::Nginx, Way::InTurn);
}

#[test]
fn killed_in_turn_behind_haproxy_each_client_gets_all_once() {
    check(Kind::HaProxy, Way::Killed);
}

#[test]
fn killed_in_turn_behind_nginx_each_client_gets_all_once() {
    check(Kind::Nginx, Way::Killed);
}

fn check(kind: Kind, way: Way) {
    let _alone = crate::ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    system::raise_descriptor_limit();
    let run = Run::new(kind, way);
    let cluster = KafkaCluster::shared();
    let topics = CHANNELS.map(|(channel, _)| fresh_topic(channel));
    for topic in &topics {
        cluster.admin().create_topic(topic, i32::try_from(PARTITIONS).expect("few"), &[]);
    }
    let (mut replicas, proxy) = run.start(&cluster.bootstrap_servers(), &topics);
    let flow = Arc::new(watch::Sender::new(Flow::default()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let watched = || Watch::start(replicas.iter().map(Brucke::admin_address));
    let arrivals = (way == Way::Killed).then(watched);
    let clients = run.send_clients(&runtime, &proxy, &flow);

    let (step, steps) = mpsc::sync_channel(0);
    let producer = thread::spawn({
        let (flow, scale) = (Arc::clone(&flow), run.scale);
        move || produce(cluster, &topics, scale, &flow, &step)
    });
    let mut ends = Vec::new();
    for (turn, ()) in steps.into_iter().enumerate() {
        if turn < way.turns() {
            ends.extend(run.replace(turn, &mut replicas, &proxy));
        }
    }
    let log = producer.join().expect("records are produced");
    let journeys: Vec<Journey> = clients
        .into_iter()
        .map(|client| runtime.block_on(client).expect("a client does not panic"))
        .collect();
    let bursts = arrivals.map(Watch::end).unwrap_or_default();
    if journeys.iter().any(|journey| !journey.failed_attempts.is_empty()) {
        println!("{kind:?} says:\n{}", proxy.complaints());
    }
    run.judge(&log, &journeys, &ends, &bursts);
}

impl Way {
    /// Returns how often something is replaced.
    fn turns(self) -> usize {
        match self {
            Self::Surge => 1,
            Self::InTurn | Self::Killed => REPLICAS,
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
struct Run {
    kind: Kind,
    way: Way,
    scale: Scale,
    window: Duration,
    /// Connections that each replica lets in in a second; 0 for any number.
    rate: u64,
}

impl Run {
    /// Reads the scale from `ROLLING_CLIENTS`, `ROLLING_RECORDS`, `ROLLING_WINDOW` and
    /// `ROLLING_RATE`.
    fn new(kind: Kind, way: Way) -> Self {
        let number = |name: &str, default: u64| {
            let text = env::var(name).ok();
            text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        let window = Duration::from_secs(number("ROLLING_WINDOW", 3));
        // The last one replaces nothing: records still come after all is done.
        let kills = way.turns() + 1;
        // Records flow before, between and after, and as long as anybody leaves.
        let leaving = if way == Way::Killed { Duration::ZERO } else { DELAY + window };
        let part = leaving + REPLACING;
        let scale = Scale {
            clients: usize::try_from(number("ROLLING_CLIENTS", 180)).expect("few"),
            records: number("ROLLING_RECORDS", 6_000),
            kills,
            flow: part * u32::try_from(kills + 1).expect("few"),
        };
        // Replicas that drain give out times themselves; who lost one comes at any time.
        let rate = if way == Way::Killed { number("ROLLING_RATE", 10) } else { 0 };
        Self { kind, way, scale, window, rate }
    }

    /// Starts the replicas that are to go, with a proxy before them, and finds
    /// addresses for those that will come.
    fn start(self, servers: &str, topics: &[String; CHANNELS.len()]) -> (Vec<Brucke>, Proxy) {
        let server = format!(
            "progress_interval = \"500ms\"\nconnections_max = 20000\nworkers = 2\n\
             drain_delay = \"{}s\"\ndrain_window = \"{}s\"\nconnections_per_second = {}",
            DELAY.as_secs(),
            self.window.as_secs(),
            self.rate
        );
        let count = if self.way == Way::Surge { 2 * REPLICAS } else { REPLICAS };
        let mut replicas = start_replicas(count, servers, &server, topics);
        replicas[REPLICAS..].iter_mut().for_each(Brucke::kill);
        // HAProxy finds out who is there; nginx is told.
        let known = if self.kind == Kind::HaProxy { count } else { REPLICAS };
        let proxy = Proxy::start(self.kind, &replicas[..known], self.scale.clients);
        if self.kind == Kind::HaProxy {
            proxy.turn_to(&replicas[..REPLICAS], REPLICAS);
        }
        (replicas, proxy)
    }

    /// Sends all clients, and waits until each is subscribed.
    fn send_clients(
        self,
        runtime: &Runtime,
        proxy: &Proxy,
        flow: &watch::Sender<Flow>,
    ) -> Vec<JoinHandle<Journey>> {
        let (joined, mut joins) = tokio::sync::mpsc::channel(self.scale.clients);
        let clients = (0..self.scale.clients).map(|number| {
            let (flow, joined) = (flow.subscribe(), joined.clone());
            runtime.spawn(mover::travel(wanted(number), proxy.url(), flow, joined, PATIENCE))
        });
        let clients = clients.collect();
        runtime.block_on(async {
            for _ in 0..self.scale.clients {
                let join = tokio::time::timeout(PATIENCE, joins.recv()).await;
                join.expect("all clients join").expect("a client is there").expect("it may join");
            }
        });
        clients
    }

    /// Replaces what it is the turn of.
    fn replace(self, turn: usize, replicas: &mut [Brucke], proxy: &Proxy) -> Vec<End> {
        match self.way {
            Way::Surge => {
                let (old, new) = replicas.split_at_mut(REPLICAS);
                new.iter_mut().for_each(Brucke::restart);
                proxy.turn_to(new, 2 * REPLICAS);
                end_together(old)
            }
            Way::InTurn => {
                let ends = end_together(&mut replicas[turn..=turn]);
                replicas[turn].restart();
                // nginx knows the address already.
                if self.kind == Kind::HaProxy {
                    proxy.turn_to(replicas, REPLICAS);
                }
                ends
            }
            Way::Killed => {
                replicas[turn].kill();
                replicas[turn].restart();
                Vec::new()
            }
        }
    }

    fn judge(self, log: &Acknowledged, journeys: &[Journey], ends: &[End], bursts: &[Burst]) {
        let mut faults = Vec::new();
        for (number, journey) in journeys.iter().enumerate() {
            let findings = log.check(&wanted(number), &journey.seen);
            let is_well = findings.are_clean() && journey.fault.is_none();
            if !is_well || !is_as_promised(self.way, journey) {
                let Journey { moves, due, drained, cuts, fault, .. } = journey;
                faults.push(format!(
                    "client {number}: {findings:?}, {} moves, {} closing frames, \
                     {drained} Close frames, cuts {cuts:?}, {fault:?}",
                    moves.len(),
                    due.len()
                ));
            }
        }
        let summary = summary(self.kind, self.way, journeys, ends);
        println!("{summary}");
        assert!(faults.is_empty(), "{summary}\n{} clients:\n{}", faults.len(), faults.join("\n"));
        for end in ends {
            assert_eq!(end.code, Some(0), "{summary}");
            assert!(end.took < DELAY + self.window + MARGIN, "{summary}");
            assert!(end.said_so, "readiness and the count of closes show the drain: {summary}");
        }
        // Where few come in a second, a few that come together weigh much.
        let bound = |even: f64, max: f64| even * max + 2.0 * even.sqrt();
        let most = |pick| most_in_a_second(&times(journeys, pick)) as f64;
        if self.way == Way::Killed {
            // By the replicas' own count: clients hear it late, and at once, on full cores.
            let may =
                |burst: &Burst| bound(self.rate as f64 * burst.span.as_secs_f64(), LET_IN_MAX);
            let too_many = |burst: &&Burst| burst.opened as f64 > may(burst);
            let found: Vec<&Burst> = bursts.iter().filter(too_many).collect();
            assert!(!bursts.is_empty(), "no replica was asked: {summary}");
            assert!(found.is_empty(), "{found:?} of {} a second: {summary}", self.rate);
            println!("a replica let in at most {:.1} a second", busiest(bursts));
        } else {
            // How many are on the replicas that end at once, by how long that
            // takes. The clients of the first that ended are on the others.
            let share = if self.way == Way::Surge { 1 } else { REPLICAS - 1 };
            let slope = self.scale.clients as f64 / share as f64 / self.window.as_secs_f64();
            let told = most(|journey| &journey.told);
            assert!(told <= bound(slope, TOLD_MAX), "{told} told, {slope} even: {summary}");
            let due = most(|journey| &journey.due);
            assert!(due <= bound(slope, DUE_MAX), "{due} due, {slope} even: {summary}");
            let came = most(|journey| &journey.moves);
            assert!(came <= bound(slope, CAME_MAX), "{came} came, {slope} even: {summary}");
        }
    }
}

/// What the end of a client's connections must look like.
fn is_as_promised(way: Way, journey: &Journey) -> bool {
    let moves = journey.moves.len();
    match way {
        Way::Surge => {
            moves == 1 && journey.due.len() == 1 && journey.drained == 1 && journey.cuts.is_empty()
        }
        Way::InTurn => {
            (1..=REPLICAS).contains(&moves)
                && journey.due.len() == moves
                && journey.drained == moves
                && journey.cuts.is_empty()
        }
        Way::Killed => (1..=REPLICAS).contains(&moves) && journey.due.is_empty(),
    }
}

/// How a replica ended.
#[derive(Debug)]
struct End {
    code: Option<i32>,
    took: Duration,
    /// Whether its metrics told of the drain while it went on.
    said_so: bool,
}

/// Asks replicas to end, all at once, and waits until they have.
fn end_together(replicas: &mut [Brucke]) -> Vec<End> {
    thread::scope(|scope| {
        let ends: Vec<_> = replicas
            .iter_mut()
            .map(|replica| {
                scope.spawn(move || {
                    let admin = replica.admin_address();
                    let watcher = thread::spawn(move || says_that_it_drains(admin));
                    let began = Instant::now();
                    let status = replica.terminate();
                    let took = began.elapsed();
                    let said_so = watcher.join().expect("it only reads");
                    End { code: status.code(), took, said_so }
                })
            })
            .collect();
        ends.into_iter().map(|end| end.join().expect("it ends")).collect()
    })
}

/// Reads metrics until they tell of the drain; `false` when the process was gone
/// before they did.
fn says_that_it_drains(admin: std::net::SocketAddr) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let Ok(page) = opened::metrics(admin) else { return false };
        let is_unready = page.lines().any(|line| line == "brucke_ready 0");
        let closes =
            page.lines().any(|line| line.starts_with("brucke_closes_total{code=\"draining\"}"));
        if is_unready && closes {
            return true;
        }
        thread::sleep(Duration::from_millis(100));
    }
    false
}

/// Returns the most that a replica let in for a second or longer, by the second.
fn busiest(bursts: &[Burst]) -> f64 {
    let long = bursts.iter().filter(|burst| burst.span >= Duration::from_secs(1));
    long.map(|burst| burst.opened as f64 / burst.span.as_secs_f64()).fold(0.0, f64::max)
}

/// Returns the times that `pick` names of all clients, sorted.
fn times(journeys: &[Journey], pick: fn(&Journey) -> &[Instant]) -> Vec<Instant> {
    let mut times: Vec<_> = journeys.iter().flat_map(pick).copied().collect();
    times.sort_unstable();
    times
}

/// Returns how many lie in each second since the first.
fn by_second(sorted: &[Instant]) -> Vec<usize> {
    let Some(first) = sorted.first() else { return Vec::new() };
    let mut seconds = Vec::new();
    for at in sorted {
        let second = at.duration_since(*first).as_secs() as usize;
        seconds.resize(second + 1, 0);
        seconds[second] += 1;
    }
    seconds
}

/// Returns the most within any second.
fn most_in_a_second(sorted: &[Instant]) -> usize {
    let until = |at: &Instant| sorted.partition_point(|m| *m < *at + Duration::from_secs(1));
    sorted.iter().enumerate().map(|(index, at)| until(at) - index).max().unwrap_or(0)
}

fn summary(kind: Kind, way: Way, journeys: &[Journey], ends: &[End]) -> String {
    let mut failures = BTreeMap::<&str, usize>::new();
    for failure in journeys.iter().flat_map(|journey| &journey.failed_attempts) {
        *failures.entry(failure).or_default() += 1;
    }
    let [let_in, told, due, moves]: [fn(&Journey) -> &[Instant]; 4] = [
        |journey| &journey.let_in,
        |journey| &journey.told,
        |journey| &journey.due,
        |journey| &journey.moves,
    ];
    let by_second = |pick| {
        let times = times(journeys, pick);
        format!("{} of {:?}", most_in_a_second(&times), by_second(&times))
    };
    let sum = |pick: fn(&Journey) -> usize| journeys.iter().map(pick).sum::<usize>();
    format!(
        "{kind:?}, {way:?}: {} clients, {} records delivered, {} moves, at most {} of one client; \
         {} closing frames, {} Close frames, {} cuts, {} refused for now, {} failed attempts {failures:?}; \
         most in a second: let in {}; told {}; due {}; came {}; ends {ends:?}",
        journeys.len(),
        sum(|journey| journey.seen.len()),
        sum(|journey| journey.moves.len()),
        journeys.iter().map(|journey| journey.moves.len()).max().unwrap_or(0),
        sum(|journey| journey.due.len()),
        sum(|journey| journey.drained),
        sum(|journey| journey.cuts.len()),
        sum(|journey| journey.refused),
        failures.values().sum::<usize>(),
        by_second(let_in),
        by_second(told),
        by_second(due),
        by_second(moves),
    )
}

/// Replicas that serve at once.
const REPLICAS: usize = 3;
/// How long a replica still lets clients in: HAProxy needs a second to notice.
const DELAY: Duration = Duration::from_secs(2);
/// How long new replicas take to be there and known, once the old ones are gone.
const REPLACING: Duration = Duration::from_secs(3);
/// What the end of a process may take beyond delay and window: that of the chart.
const MARGIN: Duration = Duration::from_secs(15);
/// How long a client may hear nothing before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How far the busiest second may be above the even spread, by when clients are to
/// come. A replica gives each its time; what is above comes of when they read it.
const DUE_MAX: f64 = 1.25;
/// How far a replica may be above what it may let in: those who wait are let in a
/// little late, where cores are full.
const LET_IN_MAX: f64 = 1.05;
/// The same by when they were told. Clients, proxy, replicas and Kafka share the cores:
/// after each pause of one of them those come together that had to wait.
const TOLD_MAX: f64 = 2.0;
/// The same by when their subscriptions began, in which all of them have a part.
const CAME_MAX: f64 = 2.0;
