//! Reads sections from the environment before the file, and remembers
//! everything that is wrong.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::config::document::parse_file;
use crate::config::document::parse_variable;
use crate::config::fingerprints::Fingerprints;
use crate::config::problem::ConfigErrors;
use crate::config::problem::Origin;
use crate::config::problem::Problem;
use crate::types::setting::Absent;
use crate::types::setting::Entry;
use crate::types::setting::Key;
use crate::types::setting::Raw;
use crate::types::setting::Reader;
use crate::types::setting::Section;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// What all variables begin with.
pub(crate) const VARIABLE_PREFIX: &str = "BRUCKE_";

/// The file and the environment, as far as they are not read yet.
#[derive(Debug)]
pub(crate) struct Loader {
    path: Option<PathBuf>,
    file: Vec<Entry>,
    variables: BTreeMap<String, String>,
    /// Variables that a key asked for, or that a key's value names.
    known_variables: BTreeSet<String>,
    /// Where each key that was read stands, by its whole name.
    origins: BTreeMap<String, Origin>,
    /// What each key that was read says.
    fingerprints: Fingerprints,
    problems: Vec<Problem>,
}

/// One section while it is read.
#[derive(Debug)]
pub(crate) struct SectionReader<'l> {
    loader: &'l mut Loader,
    /// The section's whole name, such as `auth.issuers[0]`.
    name: String,
    place: Place,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
}

/// What the entries of a section were read from.
#[derive(Debug, Clone)]
enum Place {
    /// The file, where the section begins at this line, and a variable of its own
    /// for each key.
    Layers { line: Option<usize> },
    /// An item of a list that stands in the file, from this line on.
    ItemInFile { line: usize },
    /// An item of a list that stands in this variable.
    ItemInVariable(String),
}

impl Loader {
    /// Reads the file, if there is one. A variable that is empty counts as not set.
    pub(crate) fn new(
        path: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Ok(Self {
            path: path.map(Path::to_owned),
            file: path.map(read_file).transpose()?.unwrap_or_default(),
            variables: variables.filter(|(_, value)| !value.is_empty()).collect(),
            known_variables: BTreeSet::new(),
            origins: BTreeMap::new(),
            fingerprints: Fingerprints::default(),
            problems: Vec::new(),
        })
    }

    /// Begins to read a section; end it with [`SectionReader::finish`].
    pub(crate) fn section(&mut self, name: &'static str) -> SectionReader<'_> {
        let entry = take(&mut self.file, name);
        let line = entry.as_ref().map(|entry| entry.line);
        let entries = match entry.map(|entry| entry.value) {
            None => Vec::new(),
            Some(Raw::Table(entries)) => entries,
            Some(value) => {
                let text = format!("is {}; it is a section: write `[{name}]`", value.kind());
                let origin = self.in_file(line.expect("the value stands somewhere"));
                self.problems.push(Problem { origin, key: name.to_owned(), text });
                Vec::new()
            }
        };
        let (name, place) = (name.to_owned(), Place::Layers { line });
        SectionReader { loader: self, name, place, entries, known: Vec::new() }
    }

    /// Reads a list of sections that stands at the top of the file.
    pub(crate) fn sections<T>(
        &mut self,
        name: &'static str,
        read: impl FnMut(&mut SectionReader<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let entry = take(&mut self.file, name);
        self.items(name, entry, read)
    }

    /// Remembers that the value of `key`, by its whole name, can't be used.
    pub(crate) fn refuse(&mut self, key: &str, text: impl Into<String>) {
        let absent = || Origin::Absent(self.path.clone());
        let origin = self.origins.get(key).cloned().unwrap_or_else(absent);
        self.problems.push(Problem { origin, key: key.to_owned(), text: text.into() });
    }

    /// Returns what each key that was read says.
    pub(crate) fn fingerprints(&self) -> Fingerprints {
        self.fingerprints.clone()
    }

    /// Returns what was composed, unless anything was wrong.
    pub(crate) fn finish<T>(mut self, composed: Option<T>) -> Result<T, ConfigErrors> {
        for entry in std::mem::take(&mut self.file) {
            let origin = self.in_file(entry.line);
            let text = unknown_key(&entry.name, SECTIONS.iter().copied());
            self.problems.push(Problem { origin, key: entry.name, text });
        }
        self.refuse_unknown_variables();
        // By place: files by line, then variables, then what is absent.
        self.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        self.problems.dedup();
        match composed {
            Some(composed) if self.problems.is_empty() => Ok(composed),
            _ => Err(ConfigErrors(self.problems)),
        }
    }

    fn items<T>(
        &mut self,
        name: &str,
        entry: Option<Entry>,
        mut read: impl FnMut(&mut SectionReader<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let variable = variable_of(name);
        let from_variable = self.take_variable(&variable);
        let (origin, value) = match (from_variable, entry) {
            (Some(text), _) => {
                let value = parse_variable(&text, Written::Bare).unwrap_or(Raw::Text(text));
                (Origin::Variable(variable), value)
            }
            (None, Some(entry)) => (self.in_file(entry.line), entry.value),
            (None, None) => return Some(Vec::new()),
        };
        self.origins.insert(name.to_owned(), origin.clone());
        let Raw::List(items) = value else {
            let text = format!("is {}; write a list of tables: `[[{name}]]`", value.kind());
            self.refuse(name, text);
            return None;
        };
        let mut all = Some(Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            let name = format!("{name}[{index}]");
            let Raw::Table(entries) = item else {
                let text = format!("is {}; write a table", item.kind());
                self.problems.push(Problem { origin: origin.clone(), key: name, text });
                all = None;
                continue;
            };
            let place = match &origin {
                Origin::Variable(variable) => Place::ItemInVariable(variable.clone()),
                Origin::File { line, .. } => {
                    let line = entries.iter().map(|entry| entry.line).min().unwrap_or(*line);
                    Place::ItemInFile { line }
                }
                Origin::Absent(_) => unreachable!("the list was found somewhere"),
            };
            let known = Vec::new();
            let mut reader = SectionReader { loader: self, name, place, entries, known };
            let item = read(&mut reader);
            reader.finish();
            match (&mut all, item) {
                (Some(all), Some(item)) => all.push(item),
                _ => all = None,
            }
        }
        all
    }

    fn take_variable(&mut self, variable: &str) -> Option<String> {
        self.known_variables.insert(variable.to_owned());
        self.variables.remove(variable)
    }

    fn in_file(&self, line: usize) -> Origin {
        let path = self.path.clone().expect("a file was read, so it has a path");
        Origin::File { path, line }
    }

    fn refuse_unknown_variables(&mut self) {
        let variables = std::mem::take(&mut self.variables);
        for variable in variables.into_keys() {
            let ours = variable.starts_with(VARIABLE_PREFIX) && !is_of_kubernetes(&variable);
            if !ours || self.known_variables.contains(&variable) {
                continue;
            }
            let of_section = SECTIONS.iter().any(|section| {
                let prefix = variable_of(section);
                variable.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('_'))
            });
            let nearest = nearest(&variable, self.known_variables.iter().map(String::as_str));
            let text = match nearest {
                Some(nearest) => format!("is no key of Brücke's; did you mean `{nearest}`?"),
                None if of_section => {
                    "is no key of Brücke's; `brucke config-template` lists all".to_owned()
                }
                None => continue,
            };
            let origin = Origin::Variable(variable);
            self.problems.push(Problem { origin, key: String::new(), text });
        }
    }
}

impl SectionReader<'_> {
    /// Reads all keys of a section.
    pub(crate) fn read<S: Section>(&mut self) -> Option<S> {
        S::read(self)
    }

    /// Reads a list of sections within this one.
    pub(crate) fn sections<T>(
        &mut self,
        name: &'static str,
        read: impl FnMut(&mut SectionReader<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.known.push(name);
        let entry = take(&mut self.entries, name);
        let name = format!("{}.{name}", self.name);
        self.loader.items(&name, entry, read)
    }

    /// Remembers that the value of `key` can't be used, and why.
    pub(crate) fn refuse(&mut self, key: &str, text: impl Into<String>) {
        let whole = self.whole(key);
        if !self.loader.origins.contains_key(&whole) {
            let origin = self.absent();
            self.loader.origins.insert(whole.clone(), origin);
        }
        self.loader.refuse(&whole, text);
    }

    /// Remembers what the file that `key` names holds.
    pub(crate) fn note_file(&mut self, key: &str, text: &[u8]) {
        let whole = self.whole(key);
        self.loader.fingerprints.note_file(&whole, text);
    }

    /// Returns the path that `key` names: one that stands in the file starts from
    /// the file's folder.
    pub(crate) fn resolve(&self, key: &str, path: &Path) -> PathBuf {
        let in_file = match self.loader.origins.get(&self.whole(key)) {
            Some(Origin::File { path, .. }) => path.parent(),
            _ => None,
        };
        in_file.map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    /// Returns the value of a variable that the configuration names.
    pub(crate) fn named_variable(&mut self, variable: &str) -> Option<String> {
        self.loader.known_variables.insert(variable.to_owned());
        self.loader.variables.get(variable).cloned()
    }

    /// Ends the section: keys that nobody read are unknown.
    pub(crate) fn finish(self) {
        for entry in &self.entries {
            let text = unknown_key(&entry.name, self.known.iter().copied());
            let origin = match &self.place {
                Place::ItemInVariable(variable) => Origin::Variable(variable.clone()),
                _ => self.loader.in_file(entry.line),
            };
            let key = self.whole(&entry.name);
            self.loader.problems.push(Problem { origin, key, text });
        }
    }

    /// Returns the value of `key` and where it stands, unless it is absent.
    fn take(&mut self, key: &Key, written: Written) -> Option<(Origin, Raw)> {
        if let Place::Layers { .. } = self.place {
            let variable = variable_of(&self.whole(key.name));
            if let Some(text) = self.loader.take_variable(&variable) {
                // What is no TOML is refused for its kind, as text.
                let raw = parse_variable(&text, written).unwrap_or(Raw::Text(text));
                take(&mut self.entries, key.name);
                return Some((Origin::Variable(variable), raw));
            }
        }
        let entry = take(&mut self.entries, key.name)?;
        let origin = match &self.place {
            Place::ItemInVariable(variable) => Origin::Variable(variable.clone()),
            _ => self.loader.in_file(entry.line),
        };
        Some((origin, entry.value))
    }

    fn whole(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// Where to point for a key that is absent: to its section.
    fn absent(&self) -> Origin {
        match &self.place {
            Place::ItemInFile { line } => self.loader.in_file(*line),
            Place::ItemInVariable(variable) => Origin::Variable(variable.clone()),
            Place::Layers { line: Some(line) } => self.loader.in_file(*line),
            Place::Layers { line: None } => Origin::Absent(self.loader.path.clone()),
        }
    }
}

impl Reader for SectionReader<'_> {
    fn value<T: Setting>(&mut self, key: &Key) -> Option<T> {
        self.known.push(key.name);
        let (origin, raw) = match (self.take(key, T::FORM.written), key.preset.absent) {
            (Some(found), _) => found,
            (None, Absent::Default(text)) => (self.absent(), preset(text, T::FORM.written)),
            (None, Absent::Unset { .. } | Absent::Suggested { .. }) => {
                return Some(T::unset().expect("a key without a value is an `Option`"));
            }
            (None, Absent::Refused { .. }) => {
                self.refuse(key.name, format!("is missing; write {}", T::FORM.text));
                return None;
            }
        };
        let whole = self.whole(key.name);
        self.loader.fingerprints.note_value(&whole, &raw);
        self.loader.origins.insert(whole, origin);
        match read_within::<T>(raw, key) {
            Ok(value) => Some(value),
            Err(text) => {
                self.refuse(key.name, text);
                None
            }
        }
    }
}

/// What may stand at the top of a file.
const SECTIONS: [&str; 10] = [
    "server", "admin", "kafka", "auth", "channels", "tenants", "log", "metrics", "tracing",
    "reload",
];

fn read_file(path: &Path) -> Result<Vec<Entry>, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let origin = Origin::Absent(Some(path.to_owned()));
        let text = format!("can't be read: {error}");
        ConfigErrors(vec![Problem { origin, key: String::new(), text }])
    })?;
    parse_file(&text).map_err(|errors| {
        let problems = errors.into_iter().map(|error| Problem {
            origin: Origin::File { path: path.to_owned(), line: error.line },
            key: String::new(),
            text: format!("not TOML: {}; is there text without quotes?", error.reason),
        });
        ConfigErrors(problems.collect())
    })
}

fn read_within<T: Setting>(raw: Raw, key: &Key) -> Result<T, String> {
    let value = T::read(raw).map_err(|refusal| refusal.0)?;
    let Some((least, most)) = key.preset.within else { return Ok(value) };
    let bound = |text| {
        T::read(preset(text, T::FORM.written)).expect("the bounds of a key are values of its kind")
    };
    if value.compare(&bound(least)) == Some(Ordering::Less) {
        return Err(format!("is too small; write {least} to {most}"));
    }
    if value.compare(&bound(most)) == Some(Ordering::Greater) {
        return Err(format!("is too large; write {least} to {most}"));
    }
    Ok(value)
}

fn preset(text: &str, written: Written) -> Raw {
    parse_variable(text, written).expect("presets are written as in the environment")
}

fn take(entries: &mut Vec<Entry>, name: &str) -> Option<Entry> {
    let at = entries.iter().position(|entry| entry.name == name)?;
    Some(entries.swap_remove(at))
}

/// Returns the variable of a key, by its whole name.
pub(crate) fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn unknown_key<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(nearest) => format!("is no key; did you mean `{nearest}`?"),
        None => format!("is no key; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, known)| *distance <= 2 && distance * 2 <= known.len())
        .min()
        .map(|(_, known)| known)
}

/// Says whether Kubernetes sets this variable, for a service that happens to
/// have a name like ours.
fn is_of_kubernetes(variable: &str) -> bool {
    let of_port = variable.rsplit_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty()
            || rest.starts_with('_') && rest[1..].starts_with(|c: char| c.is_ascii_digit())
    });
    variable.ends_with("_SERVICE_HOST") || variable.contains("_SERVICE_PORT") || of_port
}
