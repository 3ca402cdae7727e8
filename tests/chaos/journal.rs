//! The logs that the checker reads.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use brucke_checker::line::TruthLine;
use serde::Serialize;

/// One file, a line a JSON object.
pub struct Journal {
    file: BufWriter<File>,
}

impl Journal {
    /// Begins a file.
    pub fn create(path: &Path) -> Self {
        let file = File::create(path).expect("a file");
        Self { file: BufWriter::with_capacity(64 << 10, file) }
    }

    pub fn write(&mut self, line: &impl Serialize) {
        serde_json::to_writer(&mut self.file, line).expect("the disk has room");
        self.file.write_all(b"\n").expect("the disk has room");
    }

    pub fn flush(&mut self) {
        self.file.flush().expect("the disk has room");
    }
}

/// What was done to Kafka; all who do something share it.
#[derive(Clone)]
pub struct TruthJournal(Arc<Mutex<Truth>>);

struct Truth {
    journal: Journal,
    /// Places of which producers were told, by the topic's id: partition, offset.
    told: HashMap<String, HashSet<(u32, u64)>>,
}

impl TruthJournal {
    /// Begins the truth's file in `folder`.
    pub fn create(folder: &Path) -> Self {
        let journal = Journal::create(&folder.join("truth.jsonl"));
        Self(Arc::new(Mutex::new(Truth { journal, told: HashMap::new() })))
    }

    pub fn write(&self, line: &TruthLine) {
        let mut truth = self.0.lock().expect("nobody panics in a journal");
        if let TruthLine::Put(put) = line {
            truth.told.entry(put.topic.clone()).or_default().insert((put.p, put.o));
        }
        truth.journal.write(line);
    }

    /// Returns the places in a topic, partition and offset, of which producers were
    /// told.
    pub fn told(&self, topic_id: &str) -> HashSet<(u32, u64)> {
        let truth = self.0.lock().expect("nobody panics in a journal");
        truth.told.get(topic_id).cloned().unwrap_or_default()
    }

    pub fn flush(&self) {
        self.0.lock().expect("nobody panics in a journal").journal.flush();
    }
}

/// Returns the file of a client's journal.
pub fn client_file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("client-{number:04}.jsonl"))
}

/// Makes the folder of a run's logs, empty.
pub fn fresh_folder(path: &Path) {
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path).expect("a folder");
}
