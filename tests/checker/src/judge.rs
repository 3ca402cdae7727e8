//! Reads the logs of a run and judges every client.

use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use crate::follower::Follower;
use crate::follower::Limits;
use crate::line::ClientLine;
use crate::line::TruthLine;
use crate::truth::Truth;
use crate::verdict::Verdict;

/// What clients saw under an offset that no producer was told: partition by
/// topic id and number, then the offset.
pub type Sightings = HashMap<(String, u32, u64), u32>;

/// Judges all that a folder holds: `truth*.jsonl` and `client*.jsonl`. One
/// client is in memory at a time.
///
/// # Errors
///
/// A file or a line that can't be read; a folder without a client, or whose truth does
/// not say when the run was over: nobody could be accused.
pub fn judge(folder: &Path, limits: Limits) -> io::Result<Verdict> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    let named = |prefix: &'static str| {
        files.iter().filter(move |file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".jsonl")
        })
    };
    let mut truth = Truth::default();
    for file in named("truth") {
        read(file, |line: TruthLine| truth.handle_line(line))?;
    }
    truth.finish();
    let mut verdict = Verdict { findings: truth.findings.clone(), ..Verdict::default() };
    let mut sightings = Sightings::new();
    for file in named("client") {
        let mut follower = Follower::new(&truth, limits, &mut sightings);
        read(file, |line: ClientLine| follower.handle_line(line))?;
        verdict += follower.finish();
    }
    let lacks = match (verdict.clients, truth.over()) {
        (0, _) => "no client*.jsonl",
        (_, None) => "no line that says when the run was over",
        _ => return Ok(verdict),
    };
    let text = format!("{}: {lacks}", folder.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Judges one client's lines against the truth; for tests and small runs.
pub fn judge_lines(truth: &[TruthLine], client: &[ClientLine], limits: Limits) -> Verdict {
    let mut known = Truth::default();
    truth.iter().cloned().for_each(|line| known.handle_line(line));
    known.finish();
    let mut sightings = Sightings::new();
    let mut follower = Follower::new(&known, limits, &mut sightings);
    client.iter().cloned().for_each(|line| follower.handle_line(line));
    let mut verdict = follower.finish();
    verdict.findings += known.findings.clone();
    verdict
}

fn read<T: DeserializeOwned>(file: &Path, mut take: impl FnMut(T)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut line = String::new();
    let mut number = 0;
    while reader.read_line(&mut line)? > 0 {
        number += 1;
        let parsed = serde_json::from_str(&line).map_err(|error| {
            let text = format!("{}, line {number}: {error}", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        take(parsed);
        line.clear();
    }
    Ok(())
}
