//! JSON text as a tree of values that are taken out one by one, so that what
//! is left over is known to be too much.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::protocol::decode_error::DecodeError;

/// One JSON value. It has no `Debug`, for it may hold a token.
pub(crate) enum Node {
    Null,
    Bool,
    /// A number without sign, fraction or exponent, below 2^64.
    Whole(u64),
    /// Any other number.
    Number,
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads a whole text, at most 128 levels deep.
    pub(crate) fn parse(text: &str) -> Result<Self, DecodeError> {
        serde_json::from_str(text).map_err(|error| {
            // The parser is asked for no type, so its sentence is of syntax
            // only and repeats nothing of the text.
            DecodeError::bad_frame(format!("the message is not JSON: {error}"))
        })
    }

    /// Says what the value is, in an error's sentence.
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Whole(_) | Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Returns the error for a value that is not `wanted`.
    pub(crate) fn is_not(&self, name: &str, wanted: &str) -> DecodeError {
        DecodeError::bad_frame(format!("`{name}` must be {wanted}, not {}", self.kind()))
    }

    pub(crate) fn into_text(self, name: &str) -> Result<String, DecodeError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.is_not(name, "a string")),
        }
    }

    pub(crate) fn into_whole(self, name: &str) -> Result<u64, DecodeError> {
        match self {
            Self::Whole(number) => Ok(number),
            Self::Number => Err(DecodeError::bad_frame(format!(
                "`{name}` must be a whole number, not negative and below 2^64"
            ))),
            other => Err(other.is_not(name, "a number")),
        }
    }

    pub(crate) fn into_whole_pair(self, name: &str) -> Result<(u64, u64), DecodeError> {
        let wanted = "an array of two numbers: leader epoch and offset";
        match self {
            Self::List(nodes) => match <[Node; 2]>::try_from(nodes) {
                Ok([first, second]) => Ok((first.into_whole(name)?, second.into_whole(name)?)),
                Err(nodes) => Err(Self::List(nodes).is_not(name, wanted)),
            },
            other => Err(other.is_not(name, wanted)),
        }
    }

    pub(crate) fn into_entries(self, name: &str) -> Result<Vec<(String, Node)>, DecodeError> {
        match self {
            Self::Object(entries) => Ok(entries),
            other => Err(other.is_not(name, "an object")),
        }
    }
}

/// The fields of one object, taken out one by one.
pub(crate) struct Fields {
    /// What the object is, in an error's sentence.
    what: &'static str,
    entries: Vec<(String, Node)>,
}

impl Fields {
    pub(crate) fn new(what: &'static str, entries: Vec<(String, Node)>) -> Self {
        Self { what, entries }
    }

    /// Calls the object by its type, now that this is known.
    pub(crate) fn rename(&mut self, what: &'static str) {
        self.what = what;
    }

    /// Returns a field without taking it.
    pub(crate) fn peek(&self, name: &str) -> Option<&Node> {
        self.entries.iter().find(|(field, _)| field == name).map(|(_, node)| node)
    }

    /// Takes a field that may be absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(field, _)| field == name)?;
        Some(self.entries.swap_remove(index).1)
    }

    /// Takes a field that must be there.
    pub(crate) fn require(&mut self, name: &str) -> Result<Node, DecodeError> {
        self.take(name)
            .ok_or_else(|| DecodeError::bad_frame(format!("`{name}` is missing in {}", self.what)))
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String, DecodeError> {
        self.require(name)?.into_text(name)
    }

    pub(crate) fn whole(&mut self, name: &str) -> Result<u64, DecodeError> {
        self.require(name)?.into_whole(name)
    }

    /// Ends the object: a field that is left is unknown or stands twice.
    pub(crate) fn finish(self, known: &str) -> Result<(), DecodeError> {
        let Some((name, _)) = self.entries.first() else { return Ok(()) };
        let what = self.what;
        Err(DecodeError::bad_frame(match printable(name) {
            Some(name) if known.split(", ").any(|field| field == name) => {
                format!("`{name}` stands more than once in {what}")
            }
            Some(name) => format!("unknown field `{name}` in {what}, which has only: {known}"),
            None => format!("unknown field in {what}, which has only: {known}"),
        }))
    }
}

/// Returns a client's text when it looks like a mistyped name of the protocol.
/// Anything else might be a token or a key in the wrong place and is not
/// repeated.
pub(crate) fn printable(name: &str) -> Option<&str> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (plain && (1..=24).contains(&name.len())).then_some(name)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }
}
