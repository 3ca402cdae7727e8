//! Which names may stand in metrics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Names that have a label of their own in metrics, the same in every shard:
/// the first that come, and no more than so many while the process lives. All
/// others are counted together.
#[derive(Debug, Default)]
pub struct Labels {
    max: usize,
    known: Mutex<BTreeSet<Arc<str>>>,
}

impl Labels {
    /// Returns labels for so many names; for none, nothing is told apart.
    pub fn new(max: usize) -> Self {
        Self { max, known: Mutex::default() }
    }

    /// Says whether any name is told apart.
    pub fn is_on(&self) -> bool {
        self.max > 0
    }

    /// Returns the label of a name; `None` where it is counted with others.
    pub fn of(&self, name: &str) -> Option<Arc<str>> {
        if self.max == 0 {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = known.get(name) {
            return Some(Arc::clone(label));
        }
        (known.len() < self.max).then(|| {
            let label: Arc<str> = name.into();
            known.insert(Arc::clone(&label));
            label
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_have_labels_and_keep_them() {
        let labels = Labels::new(2);
        for name in ["a", "b", "a"] {
            assert_eq!(labels.of(name).as_deref(), Some(name));
        }
        assert_eq!(labels.of("c"), None);
        assert_eq!(labels.of("b").as_deref(), Some("b"));
        assert_eq!(Labels::new(0).of("a"), None);
    }
}
