//! TOML text as raw values that know their lines.

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::types::setting::Entry;
use crate::types::setting::Raw;
use crate::types::setting::Written;

/// A piece of text that is no TOML: line and reason. The text itself is not
/// repeated, for it may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// Reads a whole file.
pub(crate) fn parse_file(text: &str) -> Result<Vec<Entry>, Vec<SyntaxError>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(entries(table.get_ref(), &lines));
    }
    let errors = errors.iter().map(|error| SyntaxError {
        line: error.span().map_or(1, |span| lines.at(span.start)),
        reason: error.message().lines().collect::<Vec<_>>().join(", "),
    });
    Err(errors.collect())
}

/// Reads a value as it stands in the environment; `None` when it should be TOML
/// and is not.
pub(crate) fn parse_variable(text: &str, written: Written) -> Option<Raw> {
    match written {
        Written::Text => Some(Raw::Text(text.to_owned())),
        Written::List if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Raw::List(items.map(|item| Raw::Text(item.to_owned())).collect()))
        }
        Written::Bare | Written::List => {
            let parsed = DeValue::parse(text.trim()).ok()?;
            Some(raw(parsed.get_ref(), &Lines::of(text)))
        }
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines) -> Vec<Entry> {
    let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| -> Entry {
        let name: &Spanned<std::borrow::Cow<'_, str>> = name;
        Entry {
            name: name.get_ref().to_string(),
            line: lines.at(name.span().start),
            value: raw(value.get_ref(), lines),
        }
    };
    table.iter().map(entry).collect()
}

fn raw(value: &DeValue<'_>, lines: &Lines) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Raw::Integer(integer),
            Err(_) => Raw::Other("a number beyond 64 bits"),
        },
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| raw(item.get_ref(), lines)).collect())
        }
        DeValue::Table(table) => Raw::Table(entries(table, lines)),
    }
}

/// Where the lines of a text start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect())
    }

    /// Returns the line of a byte, counted from one.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|start| *start <= byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_know_their_lines() {
        let parsed = parse_file("a = 1\n[b]\nc = \"x\"\n\n[[d]]\ne = true\n[[d]]\n").expect("TOML");
        let line = |name: &str| parsed.iter().find(|entry| entry.name == name).map(|e| e.line);
        assert_eq!((line("a"), line("b"), line("d")), (Some(1), Some(2), Some(5)));
        let Raw::Table(inner) = &parsed[1].value else { panic!("a table") };
        assert_eq!((inner[0].name.as_str(), inner[0].line), ("c", 3));
    }

    #[test]
    fn syntax_errors_name_their_lines_and_no_values() {
        let errors = parse_file("a = 1\npassword = canary\nb = 2\nb = 3\n").expect_err("no TOML");
        assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 4]);
        assert!(!format!("{errors:?}").contains("canary"));
    }

    #[test]
    fn variables_are_read_as_their_key_is_written() {
        let read = parse_variable;
        assert_eq!(read("25s", Written::Text), Some(Raw::Text("25s".to_owned())));
        assert_eq!(read("25", Written::Bare), Some(Raw::Integer(25)));
        assert_eq!(read("x y", Written::Bare), None);
        let items = Raw::List(vec![Raw::Text("a".to_owned()), Raw::Text("b".to_owned())]);
        assert_eq!(read("a, b", Written::List), Some(items.clone()));
        assert_eq!(read("[\"a\", \"b\"]", Written::List), Some(items));
        assert_eq!(read("", Written::List), Some(Raw::List(vec![])));
    }
}
