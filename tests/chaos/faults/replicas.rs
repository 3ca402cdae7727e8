//! What befalls replicas.

use std::path::Path;

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "replica-killed",
        what: "a replica gets SIGKILL and starts again",
        sees: Sees::Cuts,
        metric: Metric::None,
        outage: Outage::Some,
        within: seconds(10),
        act: |stage, random| {
            let replica = stage.crowded(random);
            stage.replicas[replica].process.kill();
            stage.sleep(1.0);
            stage.replicas[replica].process.restart();
        },
    },
    &Fault {
        name: "replica-stopped",
        what: "a replica gets SIGSTOP, and SIGCONT after 8 s",
        sees: Sees::Cuts,
        metric: Metric::None,
        outage: Outage::Some,
        within: seconds(10),
        act: |stage, random| {
            let replica = stage.crowded(random);
            stage.replicas[replica].process.signal(libc::SIGSTOP);
            stage.sleep(8.0);
            stage.replicas[replica].process.signal(libc::SIGCONT);
        },
    },
    &Fault {
        name: "replica-drained",
        what: "a replica gets SIGTERM, drains, and starts again",
        sees: Sees::Close(1012),
        metric: Metric::None,
        outage: Outage::Some,
        within: seconds(10),
        act: |stage, random| {
            let replica = stage.crowded(random);
            let status = stage.replicas[replica].process.terminate();
            if !status.success() {
                stage.notes.push(format!("a drained replica ends with {status}"));
            }
            stage.replicas[replica].process.restart();
        },
    },
    &Fault {
        name: "clock-jumps",
        what: "a replica's clock jumps ten minutes ahead, twenty back, and home",
        sees: Sees::Cuts,
        metric: Metric::None,
        outage: Outage::Some,
        within: seconds(10),
        act: |stage, random| jump(stage, random),
    },
];

/// The clock is that of a library that stands before the C library's, so that
/// the replica is started anew with it, and without it afterwards.
fn jump(stage: &mut Stage, random: &mut fastrand::Rng) {
    if !Path::new(FAKETIME).exists() {
        stage.notes.push(format!("{FAKETIME} is missing: apt-get install libfaketime"));
        return;
    }
    let clock = stage.folder.join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).expect("a file");
    set("+0");
    let variables = [
        ("LD_PRELOAD", FAKETIME.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let replica = stage.crowded(random);
    let restart = |stage: &mut Stage, variables| {
        let process = &mut stage.replicas[replica].process;
        process.kill();
        process.set_environment(variables);
        process.restart();
    };
    restart(stage, variables);
    stage.sleep(4.0);
    let before = stage.tally.snapshot();
    for offset in ["+600", "-600", "+0"] {
        set(offset);
        stage.sleep(3.0);
    }
    let after = stage.tally.snapshot();
    if after.disconnects > before.disconnects || after.all_errors() > before.all_errors() {
        stage.notes.push("the jumps themselves cost connections".to_owned());
    }
    restart(stage, Vec::new());
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
