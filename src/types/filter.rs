//! Which keys a subscription wants.

use bytes::Bytes;

/// The keys of its tenant that a subscription wants.
///
/// Equal filters share a feed, so each has one form: keys are sorted and stand
/// once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyFilter {
    /// Every record, also those without a key.
    All,
    /// Records with one of these keys; see [`KeyFilter::keys`].
    Keys(Box<[Bytes]>),
    /// Records whose key starts with these bytes, which are not empty.
    Prefix(Bytes),
}

impl KeyFilter {
    /// Returns the filter for these keys, in any order and with repeats.
    pub fn keys(keys: impl IntoIterator<Item = Bytes>) -> Self {
        let mut keys: Vec<Bytes> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self::Keys(keys.into_boxed_slice())
    }

    /// Says whether a record with this key is wanted.
    pub fn matches(&self, key: Option<&[u8]>) -> bool {
        match (self, key) {
            (Self::All, _) => true,
            (_, None) => false,
            (Self::Keys(keys), Some(key)) => {
                keys.binary_search_by(|probe| probe.as_ref().cmp(key)).is_ok()
            }
            (Self::Prefix(prefix), Some(key)) => key.starts_with(prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &KeyFilter, key: Option<&str>, wanted: bool) {
        assert_eq!(filter.matches(key.map(str::as_bytes)), wanted, "{filter:?} {key:?}");
    }

    #[test]
    fn a_filter_wants_its_keys_and_no_others() {
        let keys = KeyFilter::keys(["b", "a", "b"].map(Bytes::from));
        assert_eq!(keys, KeyFilter::keys(["a", "b"].map(Bytes::from)));
        check(&keys, Some("a"), true);
        check(&keys, Some("ab"), false);
        check(&keys, None, false);
        let prefix = KeyFilter::Prefix(Bytes::from("eu-"));
        check(&prefix, Some("eu-1"), true);
        check(&prefix, Some("eu"), false);
        check(&prefix, None, false);
        check(&KeyFilter::All, None, true);
    }
}
