//! A byte that turns over on a broker's disk.

use std::fs;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crate::client::Order;
use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::plan;
use crate::plan::GUARDED;
use crate::plan::PLANS;
use crate::producers::Pen;
use crate::stage::REPLICAS;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[&Fault {
    name: "record-corrupt",
    what: "a byte of a record is another on the leader's disk for some seconds, and replicas read it anew",
    sees: Sees::Cuts { one_in: 2 },
    metric: Metric::Meanwhile("`brucke_kafka_read_stops_total{reason=\"failed\"}` is above 0"),
    outage: Outage::Some,
    within: seconds(10),
    first_record: None,
    act: |stage, random| corrupt(stage, random),
}];

fn corrupt(stage: &mut Stage, random: &mut fastrand::Rng) {
    stage.tell(Some(GUARDED), 1, Order::BeAway);
    stage.loader.pause(GUARDED);
    // Whoever is still there would get the record now, and not want it again.
    stage.sleep(1.0);
    let pen = Pen::new(&stage.cluster.bootstrap_servers(), &stage.acks);
    let id = stage.topics.id(GUARDED).expect("it is there");
    let number = stage.loader.next_number(GUARDED);
    let draft = plan::draft(GUARDED, PLANS[GUARDED].partitions, number, 60, random);
    pen.write(GUARDED, &id, &draft, None);
    pen.drain();
    let leader = stage.eye.insist_replicas(GUARDED, 0)[0];
    let leader = usize::try_from(leader).expect("not negative") - 1;
    let folder = stage.cluster.partition_folder(leader, PLANS[GUARDED].name, 0);
    let value = draft.value.expect("a value");
    let (file, at) = find(&folder, &value);
    // The last of the fill before the closing quote.
    let at = at + value.len() - 3;
    overwrite(&file, at, b'y');
    // What they have of it in memory is right.
    for replica in 0..REPLICAS {
        stage.replicas[replica].process.kill();
        stage.replicas[replica].process.restart();
    }
    stage.tell(Some(GUARDED), 1, Order::Follow);
    stage.sleep(6.0);
    let stops = |metrics: crate::replica::Metrics| metrics.get(READ_STOPS).copied().unwrap_or(0.0);
    let is_felt =
        |stage: &Stage| stage.replicas.iter().any(|replica| stops(replica.metrics()) > 0.0);
    let begun = Instant::now();
    while !is_felt(stage) && begun.elapsed() < FELT_MAX {
        stage.sleep(0.5);
    }
    if !is_felt(stage) {
        stage.notes.push(format!("{READ_STOPS} is 0 with a record that can't be read"));
    }
    overwrite(&file, at, b'x');
    stage.loader.resume(GUARDED);
}

/// How long a replica may take to start and to read as far.
const FELT_MAX: Duration = Duration::from_secs(15);
const READ_STOPS: &str = "brucke_kafka_read_stops_total{reason=\"failed\"}";

/// Returns the segment and the place where a value stands.
fn find(folder: &Path, value: &[u8]) -> (PathBuf, usize) {
    let files = fs::read_dir(folder).expect("the partition's folder");
    let segments = files.filter_map(|file| Some(file.ok()?.path()));
    let mut segments = segments.filter(|file| file.extension().is_some_and(|e| e == "log"));
    let found = segments.find_map(|file| {
        let bytes = fs::read(&file).ok()?;
        let at = bytes.windows(value.len()).position(|window| window == value)?;
        Some((file, at))
    });
    found.expect("what was acknowledged stands in a segment")
}

fn overwrite(file: &Path, at: usize, byte: u8) {
    let mut file = fs::OpenOptions::new().write(true).open(file).expect("the segment");
    file.seek(SeekFrom::Start(at as u64)).expect("within the segment");
    file.write_all(&[byte]).expect("it is written");
}
