//! What is wrong with a configuration: where, which key, and the remedy.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Everything that was found wrong, one problem a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    /// The key's whole name, such as `server.listen`; empty for the whole file.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Absent(None) => {}
            origin => write!(f, "{origin}: ")?,
        }
        match self.key.as_str() {
            "" => write!(f, "{}", self.text),
            key => write!(f, "{key} {}", self.text),
        }
    }
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file, at a line counted from one.
    File { path: PathBuf, line: usize },
    /// In this environment variable.
    Variable(String),
    /// Nowhere: the key is absent, also from this file.
    Absent(Option<PathBuf>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Absent(Some(path)) => path.display().fmt(f),
            Self::Absent(None) => f.write_str("not set"),
        }
    }
}
