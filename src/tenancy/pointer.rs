//! Finds one text in a JSON document by a JSON pointer (RFC 6901), in one pass
//! and without building the document in memory.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Levels that a pointer may have.
pub const POINTER_DEPTH_MAX: usize = 32;

/// Returns the text that `pointer` leads to in `json`.
///
/// `None` when `json` is not one whole document, when there is nothing or
/// something other than text, and when a member on the way stands twice and the
/// two lead to different ends: parsers disagree about which of them counts.
pub fn find_text<'a>(json: &'a str, pointer: &str) -> Option<Cow<'a, str>> {
    if !is_pointer(pointer) {
        return None;
    }
    let mut document = serde_json::Deserializer::from_str(json);
    let found = Step { pointer }.deserialize(&mut document).ok()?;
    document.end().ok()?;
    match found {
        Found::Text(text) => Some(text),
        Found::Nothing => None,
    }
}

/// Says whether `text` is a JSON pointer that [`find_text`] follows: empty for
/// the whole document, or up to [`POINTER_DEPTH_MAX`] names, each after a `/`.
pub fn is_pointer(text: &str) -> bool {
    let depth = text.matches('/').count();
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && depth <= POINTER_DEPTH_MAX && escapes
}

#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    Text(Cow<'a, str>),
    Nothing,
}

/// What of the pointer is still to be walked, from the value at hand on.
#[derive(Clone, Copy)]
struct Step<'p> {
    pointer: &'p str,
}

impl<'p> Step<'p> {
    /// Returns the next name, still escaped, and the step after it; `None` when
    /// the value at hand is the one looked for.
    fn next(self) -> Option<(&'p str, Step<'p>)> {
        let rest = self.pointer.strip_prefix('/')?;
        let end = rest.find('/').unwrap_or(rest.len());
        Some((&rest[..end], Step { pointer: &rest[end..] }))
    }

    fn text<'a>(self, text: Cow<'a, str>) -> Found<'a> {
        match self.next() {
            None => Found::Text(text),
            Some(_) => Found::Nothing,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Found<'de>, E> {
        Ok(Found::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Found<'de>, E> {
        Ok(Found::Nothing)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Found<'de>, E> {
        Ok(Found::Nothing)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Found<'de>, E> {
        Ok(Found::Nothing)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Found<'de>, E> {
        Ok(Found::Nothing)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Found<'de>, E> {
        Ok(self.text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Found<'de>, E> {
        Ok(self.text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found<'de>, A::Error> {
        let Some((name, step)) = self.next() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Found::Nothing);
        };
        let wanted = index(name);
        let mut found = Found::Nothing;
        for at in 0.. {
            if wanted == Some(at) {
                let Some(item) = items.next_element_seed(step)? else { break };
                found = item;
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found<'de>, A::Error> {
        let Some((name, step)) = self.next() else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Found::Nothing);
        };
        let mut found = None;
        while let Some(is_wanted) = members.next_key_seed(Name(name))? {
            if !is_wanted {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let member = members.next_value_seed(step)?;
            found = Some(match found {
                None => member,
                Some(earlier) if earlier == member => member,
                Some(_) => Found::Nothing,
            });
        }
        Ok(found.unwrap_or(Found::Nothing))
    }
}

/// Compares a member's name with an escaped name of the pointer.
struct Name<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        if !self.0.contains('~') {
            return Ok(self.0 == name);
        }
        // In this order: `~01` stands for `~1`, not for `/`.
        Ok(self.0.replace("~1", "/").replace("~0", "~") == name)
    }
}

/// Reads the place of an item in a list; RFC 6901 forbids leading zeros.
fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || name.starts_with(|c: char| ('1'..='9').contains(&c));
    if !plain {
        return None;
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, pointer: &str, expected: Option<&str>) {
        assert_eq!(find_text(json, pointer).as_deref(), expected, "{pointer:?} in {json}");
    }

    #[test]
    fn pointers_lead_where_rfc_6901_says() {
        check(r#"{"a":{"b":"x"}}"#, "/a/b", Some("x"));
        check(r#"{"a":["x","y"]}"#, "/a/1", Some("y"));
        check(r#"{"a":["x","y"]}"#, "/a/01", None);
        check(r#"{"a":["x","y"]}"#, "/a/-", None);
        check(r#"{"a":["x","y"]}"#, "/a/2", None);
        check(r#"{"a/b":"x","m~n":"y","":"z"}"#, "/a~1b", Some("x"));
        check(r#"{"a/b":"x","m~n":"y","":"z"}"#, "/m~0n", Some("y"));
        check(r#"{"~1":"x","/":"y"}"#, "/~01", Some("x"));
        check(r#"{"a/b":"x","m~n":"y","":"z"}"#, "/", Some("z"));
        check(r#""x""#, "", Some("x"));
        check(r#"{"a":"x"}"#, "", None);
        check(r#"{"a":"x"}"#, "a", None);
        check(r#"{"a":"x"}"#, "/a/b", None);
        check(r#"{"a~2":"x"}"#, "/a~2", None);
    }

    #[test]
    fn a_member_twice_at_any_level_leads_nowhere() {
        // The one that agrees with an earlier one must not undo a disagreement.
        check(r#"{"a":"x","a":"y","a":"y"}"#, "/a", None);
        check(r#"{"a":"x","a":"y","a":"x"}"#, "/a", None);
        check(r#"{"a":{"b":"x"},"a":{"b":"x"}}"#, "/a/b", Some("x"));
    }

    #[test]
    fn depth_is_bounded_in_pointer_and_document() {
        let pointer = "/a".repeat(POINTER_DEPTH_MAX);
        assert!(is_pointer(&pointer));
        assert!(!is_pointer(&(pointer + "/a")));
        let deep = format!(r#"{{"x":{}{},"a":"y"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(find_text(&deep, "/a").as_deref(), None | Some("y")));
    }
}
