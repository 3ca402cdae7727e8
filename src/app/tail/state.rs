//! The file that remembers where `brucke tail` stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use serde::Deserialize;
use serde::Serialize;

use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Reached;

/// What a state file speaks of; another subscription must not go on from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub channel: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A state file: survives the kill of the process at any moment, for it is
/// replaced as a whole. It is not forced to disk each time, so that after a
/// power failure it may be a little old: records then come again, none is lost.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    subject: Subject,
    saved: Option<Place>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(flatten)]
    subject: Subject,
    topic_id: String,
    positions: BTreeMap<u32, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    epochs: BTreeMap<u32, (u32, u64)>,
}

impl StateFile {
    /// Opens the file at `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// A file that can't be read, is no state file, or is another
    /// subscription's.
    pub fn open(path: &Path, subject: Subject) -> anyhow::Result<Self> {
        let saved = match fs::read(path) {
            Ok(text) => Some(parse(&text, &subject)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(Err(error.into())),
        };
        let saved = saved.transpose().with_context(|| format!("state file {}", path.display()))?;
        Ok(Self { path: path.to_owned(), subject, saved })
    }

    /// Returns where to go on; `None` when nothing was saved yet.
    pub fn place(&self) -> Option<&Place> {
        self.saved.as_ref()
    }

    /// Remembers `place`, once all before it has been written out.
    ///
    /// # Errors
    ///
    /// The folder can't be written to.
    pub fn save(&mut self, place: &Place) -> anyhow::Result<()> {
        if self.saved.as_ref() == Some(place) {
            return Ok(());
        }
        let positions = place.positions.iter();
        let content = Content {
            subject: self.subject.clone(),
            topic_id: place.topic_id.to_string(),
            positions: positions.map(|(p, o)| (p.as_u32(), o.as_u64())).collect(),
            epochs: place
                .epochs
                .iter()
                .map(|(p, Reached { epoch, to })| (p.as_u32(), (epoch.as_u32(), to.as_u64())))
                .collect(),
        };
        let text = serde_json::to_vec_pretty(&content).context("can't write the state")?;
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.path))
            .with_context(|| format!("can't write state file {}", self.path.display()))?;
        self.saved = Some(place.clone());
        Ok(())
    }
}

fn parse(text: &[u8], subject: &Subject) -> anyhow::Result<Place> {
    let content: Content = serde_json::from_slice(text).context("is no state of `brucke tail`")?;
    ensure!(
        content.subject == *subject,
        "is of another subscription: {:?}; name another file, or delete it to start anew",
        content.subject
    );
    let Some(topic_id) = TopicId::from_client(&content.topic_id) else {
        bail!("has no topic id: {:?}", content.topic_id);
    };
    let mut positions = BTreeMap::new();
    for (partition, offset) in content.positions {
        let pair = PartitionId::from_client(partition).zip(Offset::from_client(offset));
        let Some((partition, offset)) = pair else {
            bail!("has an impossible position {partition}:{offset}");
        };
        positions.insert(partition, offset);
    }
    let mut epochs = Epochs::new();
    for (partition, (epoch, to)) in content.epochs {
        let known = (
            PartitionId::from_client(partition),
            LeaderEpoch::from_client(epoch.into()),
            Offset::from_client(to),
        );
        let (Some(partition), Some(epoch), Some(to)) = known else {
            bail!("has an impossible leader epoch {partition}:{epoch}:{to}");
        };
        epochs.insert(partition, Reached { epoch, to });
    }
    Ok(Place { topic_id, positions, epochs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(channel: &str) -> Subject {
        Subject { channel: channel.to_owned(), keys: vec!["a".to_owned()], prefix: None }
    }

    fn place(offset: u64) -> Place {
        let offset = Offset::from_client(offset).expect("small");
        let positions = [(PartitionId::from_index(2), offset)].into_iter().collect();
        let epoch = LeaderEpoch::from_kafka(7).expect("not negative");
        let reached = Reached { epoch, to: offset };
        let epochs = [(PartitionId::from_index(2), reached)].into_iter().collect();
        Place { topic_id: TopicId::from_kafka(1, 2), positions, epochs }
    }

    #[test]
    fn what_was_saved_last_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let mut state = StateFile::open(&path, subject("orders")).expect("a new file");
        assert_eq!(state.place(), None);
        state.save(&place(7)).expect("saved");
        state.save(&place(8)).expect("saved");
        let state = StateFile::open(&path, subject("orders")).expect("the same");
        assert_eq!(state.place(), Some(&place(8)));
        let names = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(names, 1, "nothing is left beside the file");
    }

    #[test]
    fn a_file_that_is_no_state_of_this_subscription_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        StateFile::open(&path, subject("orders")).expect("new").save(&place(7)).expect("saved");
        let error = StateFile::open(&path, subject("prices")).expect_err("of orders");
        assert!(format!("{error:#}").contains("another subscription"), "{error:#}");
        fs::write(&path, "{}").expect("written");
        let error = StateFile::open(&path, subject("orders")).expect_err("empty");
        assert!(format!("{error:#}").contains("no state"), "{error:#}");
    }
}
