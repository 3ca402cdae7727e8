//! What befalls replicas.

use std::fs;
use std::path::PathBuf;

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::fault::value;
use crate::proxy::Mode;
use crate::proxy::Whose;
use crate::stage::REPLICAS;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "replica-killed",
        what: "a replica gets SIGKILL and starts again",
        sees: Sees::Cuts { one_in: 3 },
        metric: Metric::Grows("process_start_time_seconds"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            let replica = stage.strike_one();
            kill(stage, replica);
        },
    },
    &Fault {
        name: "replica-stopped",
        what: "a replica gets SIGSTOP, and SIGCONT after 8 s",
        sees: Sees::Cuts { one_in: 3 },
        metric: Metric::Meanwhile("`/metrics` does not answer"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            let replica = stage.strike_one();
            stage.replicas[replica].process.signal(libc::SIGSTOP);
            stage.sleep(8.0);
            if !stage.replicas[replica].metrics().is_empty() {
                stage.notes.push("a stopped replica answers".to_owned());
            }
            stage.replicas[replica].process.signal(libc::SIGCONT);
        },
    },
    &Fault {
        name: "replica-drained",
        what: "a replica gets SIGTERM, drains, and starts again",
        sees: Sees::Close { code: 1012, one_in: 3 },
        metric: Metric::Above("brucke_draining", 0),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| drain(stage),
    },
    &Fault {
        name: "clock-jumps",
        what: "a replica's clock jumps ten minutes ahead, twenty back, and home",
        sees: Sees::Cuts { one_in: 3 },
        metric: Metric::Meanwhile("`brucke_receive_latency_seconds` has more above 60 s"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| jump(stage),
    },
];

/// Kills a replica and starts it again.
pub fn kill(stage: &mut Stage, replica: usize) {
    stage.replicas[replica].process.kill();
    stage.sleep(1.0);
    stage.replicas[replica].process.restart();
}

/// Drains a replica and starts it again.
pub fn drain(stage: &mut Stage) {
    let replica = stage.strike_one();
    let status = stage.replicas[replica].process.terminate();
    if !status.success() {
        stage.notes.push(format!("a drained replica ends with {status}"));
    }
    stage.replicas[replica].process.restart();
}

/// The clock is that of a library that stands before the C library's, so that
/// the replica is started anew with it, and without it afterwards.
fn jump(stage: &mut Stage) {
    let Some(library) = faketime() else {
        stage.notes.push("libfaketime is missing: make prerequisites".to_owned());
        return;
    };
    let clock = stage.folder.join("clock");
    let set = |offset: &str| fs::write(&clock, offset).expect("a file");
    set("+0");
    let variables = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let replica = stage.strike_one();
    let restart = |stage: &mut Stage, variables| {
        let process = &mut stage.replicas[replica].process;
        process.kill();
        process.set_environment(variables);
        process.restart();
    };
    restart(stage, variables);
    stage.sleep(4.0);
    invite(stage, replica);
    let before = stage.tally.snapshot();
    for offset in [600, -600, 0] {
        set(&format!("{offset:+}"));
        stage.sleep(3.0);
        let ahead = stage.replicas[replica].clock_ahead();
        if ahead.is_none_or(|ahead| (ahead - offset).abs() > CLOCK_SLACK) {
            stage.notes.push(format!("set {offset:+} s, and the replica is {ahead:?} s ahead"));
        }
    }
    let metrics = stage.replicas[replica].insist_metrics();
    if value(&metrics, LATENCIES) <= value(&metrics, LATENCIES_OF_A_MINUTE) {
        stage.notes.push("no record is ten minutes old by a clock that is ten ahead".to_owned());
    }
    let after = stage.tally.snapshot();
    if after.disconnects > before.disconnects || after.all_errors() > before.all_errors() {
        stage.notes.push("the jumps themselves cost connections".to_owned());
    }
    restart(stage, Vec::new());
}

/// Lets clients of the other replicas come to this one: those that it had are there.
fn invite(stage: &mut Stage, replica: usize) {
    let others = || (0..REPLICAS).filter(|other| *other != replica);
    others().for_each(|other| stage.replicas[other].front.set(Mode::Reset, Whose::OneIn(2)));
    stage.sleep(3.0);
    others().for_each(|other| stage.replicas[other].front.heal());
    let connections = value(&stage.replicas[replica].insist_metrics(), "brucke_connections");
    if connections == 0.0 {
        stage.notes.push("the replica whose clock jumps has no client".to_owned());
    }
}

/// Returns the library where distributions put it, each architecture in a folder of
/// its own or in none.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let folders =
        folders.map(|folder| folder.path()).chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|file| file.exists())
}

const LATENCIES: &str = "brucke_receive_latency_seconds_count";
/// Those of a minute at most.
const LATENCIES_OF_A_MINUTE: &str = "brucke_receive_latency_seconds_bucket{le=\"60.0\"}";
/// Seconds by which a clock may be away from what was set: the head of an answer is
/// up to a second old.
const CLOCK_SLACK: i64 = 5;
