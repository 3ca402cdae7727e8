//! What was written for each key, so that two loads can be told apart key by key
//! without keeping a secret.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;

use crate::types::setting::Entry;
use crate::types::setting::Raw;

/// A fingerprint of the value of each key that was read, by the key's whole name;
/// of a key that names a file, also of what the file held. Equal for equal
/// values, wherever in the file they stand.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fingerprints(BTreeMap<String, u64>);

/// Keys that differ between two loads, by their whole names; a list of sections
/// has one name for all that stands in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// A running process takes these up.
    pub applied: BTreeSet<String>,
    /// These wait until the process is started anew.
    pub restart: BTreeSet<String>,
}

impl Fingerprints {
    pub(in crate::config) fn note_value(&mut self, key: &str, raw: &Raw) {
        let mut hasher = DefaultHasher::new();
        hash_value(raw, &mut hasher);
        self.note(key, hasher);
    }

    pub(in crate::config) fn note_file(&mut self, key: &str, text: &[u8]) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.note(key, hasher);
    }

    /// Adds to what is known of a key.
    fn note(&mut self, key: &str, mut hasher: DefaultHasher) {
        self.0.get(key).hash(&mut hasher);
        self.0.insert(key.to_owned(), hasher.finish());
    }

    /// Returns the keys in which `newer` differs.
    pub fn changes(&self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        let names: BTreeSet<&String> = self.0.keys().chain(newer.0.keys()).collect();
        for name in names {
            if self.0.get(name) == newer.0.get(name) {
                continue;
            }
            let (key, is_applied) = match name.find('[') {
                Some(at) => (&name[..at], APPLIED_LISTS.contains(&&name[..at])),
                None => (name.as_str(), APPLIED.contains(&name.as_str())),
            };
            let found = if is_applied { &mut changes.applied } else { &mut changes.restart };
            found.insert(key.to_owned());
        }
        changes
    }
}

/// Never printed: whoever guesses a secret could find its fingerprint.
impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprints(of {} keys)", self.0.len())
    }
}

/// Hashes a value without the lines on which it stands.
fn hash_value(raw: &Raw, hasher: &mut DefaultHasher) {
    std::mem::discriminant(raw).hash(hasher);
    match raw {
        Raw::Text(text) => text.hash(hasher),
        Raw::Integer(number) => number.hash(hasher),
        Raw::Boolean(value) => value.hash(hasher),
        Raw::List(items) => {
            items.len().hash(hasher);
            items.iter().for_each(|item| hash_value(item, hasher));
        }
        Raw::Table(entries) => {
            entries.len().hash(hasher);
            for Entry { name, value, line: _ } in entries {
                name.hash(hasher);
                hash_value(value, hasher);
            }
        }
        Raw::Other(kind) => kind.hash(hasher),
    }
}

/// Keys whose change a running process takes up.
pub(in crate::config) const APPLIED: [&str; 24] = [
    "server.allowed_origins",
    "server.allowed_hosts",
    "server.token_in_query",
    "server.connections_max",
    "server.connections_per_second",
    "server.authentication_timeout",
    "server.expiry_warning",
    "server.heartbeat_interval",
    "server.pong_timeout",
    "server.progress_interval",
    "server.unsent_bytes_max",
    "server.socket_send_buffer",
    "server.stuck_reader_timeout",
    "server.subscriptions_per_connection_max",
    "server.frames_per_second",
    "server.frames_burst",
    "server.start_timeout",
    "server.close_timeout",
    "server.drain_delay",
    "server.drain_window",
    "tenants.connections_max",
    "tenants.subscriptions_max",
    "log.level",
    "reload.watch_interval",
];

/// Lists of sections whose change it takes up as a whole.
pub(in crate::config) const APPLIED_LISTS: [&str; 3] =
    ["auth.issuers", "channels", "tenants.exceptions"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse_file;

    fn fingerprints(toml: &str) -> Fingerprints {
        let mut fingerprints = Fingerprints::default();
        for section in parse_file(toml).expect("TOML") {
            let Raw::Table(entries) = section.value else { panic!("a section") };
            for entry in entries {
                fingerprints.note_value(&format!("{}.{}", section.name, entry.name), &entry.value);
            }
        }
        fingerprints
    }

    fn check(before: &str, after: &str, applied: &[&str], restart: &[&str]) {
        let changes = fingerprints(before).changes(&fingerprints(after));
        assert!(changes.applied.iter().eq(applied), "{changes:?}");
        assert!(changes.restart.iter().eq(restart), "{changes:?}");
    }

    #[test]
    fn changes_are_told_by_key_and_not_by_line() {
        let before = "[log]\nlevel = \"info\"\n[server]\nworkers = 2\n[kafka]\n[kafka.p]\na = 1\n";
        check(before, before, &[], &[]);
        check(before, &before.replace("[server]", "# a line more\n\n[server]"), &[], &[]);
        check(before, &before.replace("info", "warn"), &["log.level"], &[]);
        check(before, &before.replace("workers = 2", ""), &[], &["server.workers"]);
        check(before, &before.replace("a = 1", "a = 2"), &[], &["kafka.p"]);
        check(before, &before.replace("a = 1", "a = \"1\""), &[], &["kafka.p"]);
    }

    #[test]
    fn a_list_of_sections_is_one_name() {
        let mut before = Fingerprints::default();
        before.note_value("channels[0].name", &Raw::Text("a".to_owned()));
        before.note_value("channels[1].name", &Raw::Text("b".to_owned()));
        let mut after = Fingerprints::default();
        after.note_value("channels[0].name", &Raw::Text("b".to_owned()));
        let changes = before.changes(&after);
        assert!(changes.applied.iter().eq(["channels"]), "{changes:?}");
        assert!(changes.restart.is_empty());
    }

    #[test]
    fn what_a_file_holds_counts_as_its_key() {
        let with_file = |text: &str| {
            let mut fingerprints = Fingerprints::default();
            fingerprints.note_value("kafka.password_file", &Raw::Text("/secret".to_owned()));
            fingerprints.note_file("kafka.password_file", text.as_bytes());
            fingerprints
        };
        assert_eq!(with_file("a"), with_file("a"));
        let changes = with_file("a").changes(&with_file("b"));
        assert!(changes.restart.iter().eq(["kafka.password_file"]), "{changes:?}");
    }

    #[test]
    fn only_keys_that_there_are_can_be_applied() {
        let sections = crate::config::catalogue::sections();
        for name in APPLIED {
            let (section, key) = name.split_once('.').expect("a whole name");
            let known = sections.iter().any(|known| {
                known.name == section && known.keys.iter().any(|known| known.key.name == key)
            });
            assert!(known, "{name} is no key");
        }
        for name in APPLIED_LISTS {
            assert!(sections.iter().any(|known| known.name == name), "{name} is no section");
        }
    }

    #[test]
    fn the_page_names_each_key_that_a_reload_applies() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let page = std::fs::read_to_string(path).expect("the page is there");
        let (_, rest) = page.split_once("\n## Reload\n").expect("it has the section");
        let (section, _) = rest.split_once("\n## ").expect("others follow");
        let (table, rest) = section.split_once("Everything else").expect("it says what waits");
        let names = |text: &str| -> BTreeSet<String> {
            let words = text.split('`').skip(1).step_by(2);
            words
                .filter(|word| word.contains('.') || *word == "channels")
                .map(str::to_owned)
                .collect()
        };
        let told = names(table);
        let is_told = |name: &&str| told.contains(*name);
        let applied = APPLIED.iter().chain(&APPLIED_LISTS);
        let missing: Vec<_> = applied.clone().filter(|name| !is_told(name)).collect();
        assert!(missing.is_empty(), "the page leaves out {missing:?}");
        let known: BTreeSet<String> = applied.map(|name| (*name).to_owned()).collect();
        assert!(told.is_subset(&known), "the page promises {:?}", told.difference(&known));
        assert!(names(rest).is_disjoint(&known), "{:?}", names(rest));
    }
}
