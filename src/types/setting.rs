//! What an operator may set: how a key is declared and how its value is read.
//!
//! A part declares its keys once, with [`settings!`]; `config` reads them from
//! the file and the environment, and writes the template and the documentation
//! from the same declaration.

use std::cmp::Ordering;
use std::time::Duration;

use thiserror::Error;

/// A value as it stands in the file or the environment.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Raw>),
    Table(Vec<Entry>),
    /// A kind that no key takes, by its name.
    Other(&'static str),
}

/// One key of a table and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String,
    /// Counted from one.
    pub line: usize,
    pub value: Raw,
}

impl Raw {
    /// Returns the kind of value, for messages. Never the value itself, which may
    /// be a secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a bare number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }

    /// Reads one of a few words.
    ///
    /// # Errors
    ///
    /// [`Refusal`], which names the words there are.
    pub fn choose<T: Copy>(&self, form: &Form, choices: &[(&str, T)]) -> Result<T, Refusal> {
        let Self::Text(text) = self else { return Err(Refusal::of_kind(self, form)) };
        let choice = choices.iter().find(|(word, _)| word == text);
        choice
            .map(|(_, choice)| *choice)
            .ok_or_else(|| Refusal(format!("is {text:?}; write {}", form.text)))
    }
}

/// Why a value is refused: what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Refusal {
    /// Refuses a value for its kind.
    pub fn of_kind(raw: &Raw, form: &Form) -> Self {
        Self(format!("is {}; write {}", raw.kind(), form.text))
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// For messages and documentation: ``a duration, such as `"25s"` ``.
    pub text: &'static str,
    pub written: Written,
}

/// How a value is written in TOML, and so in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// In quotes; in the environment without them.
    Text,
    /// As TOML has it.
    Bare,
    /// A TOML array; in the environment also as items between commas.
    List,
}

/// A type that the configuration can hold. A value that reads is valid.
pub trait Setting: Sized {
    const FORM: Form;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`Refusal`], which says what to write instead.
    fn read(raw: Raw) -> Result<Self, Refusal>;

    /// Returns what stands for an absent key; `None` where a key needs a value.
    fn unset() -> Option<Self> {
        None
    }

    /// Compares with a bound of its key; `None` for types that have no order.
    fn compare(&self, bound: &Self) -> Option<Ordering> {
        let _ = bound;
        None
    }
}

/// The declaration of one key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    /// Meaning, unit, and cost of changing it, by line.
    pub docs: &'static [&'static str],
    pub preset: Preset,
}

/// What stands for an absent key, and the bounds of a present one.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    pub absent: Absent,
    pub within: Option<(&'static str, &'static str)>,
}

/// What stands for an absent key. Values are written as in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// This.
    Default(&'static str),
    /// Nothing; the example is for the template.
    Unset { example: &'static str },
    /// Nothing; but the template sets it, for something of its kind is needed.
    Suggested { example: &'static str },
    /// The key must be set; the example is for the template.
    Refused { example: &'static str },
}

/// Declares a key that has a default.
pub const fn default(value: &'static str) -> Preset {
    Preset { absent: Absent::Default(value), within: None }
}

/// Declares a key that may be absent.
pub const fn unset(example: &'static str) -> Preset {
    Preset { absent: Absent::Unset { example }, within: None }
}

/// Declares a key that may be absent and that the template sets.
pub const fn suggested(example: &'static str) -> Preset {
    Preset { absent: Absent::Suggested { example }, within: None }
}

/// Declares a key that must be set.
pub const fn required(example: &'static str) -> Preset {
    Preset { absent: Absent::Refused { example }, within: None }
}

impl Preset {
    /// Bounds the value; both ends are allowed.
    pub const fn within(self, least: &'static str, most: &'static str) -> Self {
        Self { absent: self.absent, within: Some((least, most)) }
    }
}

/// Where values come from.
pub trait Reader {
    /// Returns the value of `key`; `None` when it is refused, which the reader
    /// remembers and reports.
    fn value<T: Setting>(&mut self, key: &Key) -> Option<T>;
}

/// Keys that stand together under one name.
pub trait Section: Sized {
    /// What the section is for, by line.
    const ABOUT: &'static [&'static str];

    /// Reads every key, also after one was refused; `None` when any was.
    fn read<R: Reader>(reader: &mut R) -> Option<Self>;
}

/// Declares a section: a struct whose fields are keys. The comments of its
/// fields are the documentation of the keys.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $section:ident {
            $(
                $(#[doc = $doc:literal])+
                pub $key:ident: $type:ty = $preset:expr,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $section {
            $(
                $(#[doc = $doc])+
                pub $key: $type,
            )+
        }

        impl $crate::types::setting::Section for $section {
            const ABOUT: &'static [&'static str] = &[$($about),+];

            fn read<R: $crate::types::setting::Reader>(reader: &mut R) -> Option<Self> {
                $(
                    let $key = reader.value::<$type>(&$crate::types::setting::Key {
                        name: stringify!($key),
                        docs: &[$($doc),+],
                        preset: $preset,
                    });
                )+
                Some(Self { $($key: $key?,)+ })
            }
        }
    };
}
pub(crate) use settings;

/// A number of bytes, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Returns the number where memory is addressed by `usize`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for ByteSize {
    const FORM: Form =
        Form { text: "a size with its unit, such as `\"256MiB\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        with_unit(&raw, &Self::FORM, &units).map(Self)
    }

    fn compare(&self, bound: &Self) -> Option<Ordering> {
        self.partial_cmp(bound)
    }
}

impl Setting for Duration {
    const FORM: Form = Form {
        text: "a duration with its unit, such as `\"25s\"` (ms, s, m, h or d)",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        with_unit(&raw, &Self::FORM, &units).map(Self::from_millis)
    }

    fn compare(&self, bound: &Self) -> Option<Ordering> {
        self.partial_cmp(bound)
    }
}

impl Setting for u32 {
    const FORM: Form = Form { text: "a number, such as `100`", written: Written::Bare };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let Raw::Integer(number) = raw else { return Err(Refusal::of_kind(&raw, &Self::FORM)) };
        Self::try_from(number)
            .map_err(|_| Refusal(format!("is {number}; write a number from 0 to {}", Self::MAX)))
    }

    fn compare(&self, bound: &Self) -> Option<Ordering> {
        self.partial_cmp(bound)
    }
}

impl Setting for bool {
    const FORM: Form = Form { text: "`true` or `false`", written: Written::Bare };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Boolean(value) => Ok(value),
            other => Err(Refusal::of_kind(&other, &Self::FORM)),
        }
    }
}

impl Setting for String {
    const FORM: Form = Form { text: "text", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Text(text) if !text.is_empty() => Ok(text),
            Raw::Text(_) => Err(Refusal("is empty; write text or leave the key out".to_owned())),
            other => Err(Refusal::of_kind(&other, &Self::FORM)),
        }
    }
}

impl<T: Setting> Setting for Option<T> {
    const FORM: Form = T::FORM;

    fn read(raw: Raw) -> Result<Self, Refusal> {
        T::read(raw).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }

    fn compare(&self, bound: &Self) -> Option<Ordering> {
        self.as_ref()?.compare(bound.as_ref()?)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const FORM: Form = Form { text: "a list, such as `[\"a\", \"b\"]`", written: Written::List };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::List(items) => items.into_iter().map(T::read).collect(),
            other => Err(Refusal::of_kind(&other, &Self::FORM)),
        }
    }
}

/// Reads a number and its unit; the result is in the least unit.
fn with_unit(raw: &Raw, form: &Form, units: &[(&str, u64)]) -> Result<u64, Refusal> {
    let text = match raw {
        Raw::Text(text) => text,
        Raw::Integer(number) => {
            return Err(Refusal(format!("is {number} without a unit; write {}", form.text)));
        }
        other => return Err(Refusal::of_kind(other, form)),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text[digits..].trim_start();
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let number: Option<u64> = text[..digits].parse().ok();
    match (number, scale) {
        (Some(number), Some(scale)) => number
            .checked_mul(scale)
            .ok_or_else(|| Refusal(format!("is {text:?}, which is too large"))),
        (Some(_), None) if unit.is_empty() => {
            Err(Refusal(format!("is {text:?} without a unit; write {}", form.text)))
        }
        (Some(_), None) => {
            Err(Refusal(format!("has the unknown unit {unit:?}; write {}", form.text)))
        }
        (None, _) => Err(Refusal(format!("is {text:?}; write {}", form.text))),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<T: Setting + PartialEq + Debug>(raw: Raw, expected: Result<T, &str>) {
        let read = T::read(raw.clone());
        match (&read, &expected) {
            (Err(Refusal(text)), Err(part)) => assert!(text.contains(part), "{raw:?}: {text}"),
            (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{raw:?}"),
            _ => panic!("{raw:?} gave {read:?}"),
        }
    }

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn durations_need_a_unit() {
        check(text("25s"), Ok(Duration::from_secs(25)));
        check(text("250ms"), Ok(Duration::from_millis(250)));
        check(text("15 m"), Ok(Duration::from_secs(900)));
        check(text("0s"), Ok(Duration::ZERO));
        check::<Duration>(Raw::Integer(25), Err("is 25 without a unit; write a duration"));
        check::<Duration>(text("25"), Err("without a unit"));
        check::<Duration>(text("25 seconds"), Err("unknown unit \"seconds\""));
        check::<Duration>(text("-1s"), Err("write a duration"));
        check::<Duration>(text("99999999999999999999s"), Err("write a duration"));
        check::<Duration>(text("9999999999999999d"), Err("too large"));
        check::<Duration>(Raw::Boolean(true), Err("is true or false; write a duration"));
    }

    #[test]
    fn sizes_need_a_binary_unit() {
        check(text("256MiB"), Ok(ByteSize(256 << 20)));
        check(text("1 B"), Ok(ByteSize(1)));
        check::<ByteSize>(text("256MB"), Err("unknown unit \"MB\"; write a size"));
        check::<ByteSize>(Raw::Integer(5), Err("without a unit; write a size"));
    }

    #[test]
    fn other_kinds_are_read_or_refused() {
        check(Raw::Integer(7), Ok(7_u32));
        check::<u32>(Raw::Integer(-7), Err("is -7; write a number from 0"));
        check::<u32>(text("7"), Err("is text; write a number"));
        check(Raw::Boolean(true), Ok(true));
        check::<String>(text(""), Err("is empty"));
        check(Raw::List(vec![text("a")]), Ok(vec!["a".to_owned()]));
        check::<Vec<String>>(text("a"), Err("is text; write a list"));
        check(text("a"), Ok(Some("a".to_owned())));
    }
}
