//! What happens in a run: printed when one is replayed, and summed up always, so
//! that two runs of one seed can be compared.

use std::cell::Cell;
use std::fmt;

thread_local! {
    static PRINTS: Cell<bool> = const { Cell::new(false) };
    static SUM: Cell<u64> = const { Cell::new(0) };
}

/// Begins a run on this thread.
pub(crate) fn begin(prints: bool) {
    PRINTS.set(prints);
    SUM.set(0xcbf2_9ce4_8422_2325);
}

/// Returns a number that depends on all that was heard.
pub(crate) fn sum() -> u64 {
    SUM.get()
}

/// Notes bytes that a client read.
pub(crate) fn hear(bytes: &[u8]) {
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    SUM.set(bytes.iter().fold(SUM.get(), fold));
}

/// Says what happens.
pub(crate) fn say(text: impl FnOnce() -> String) {
    if PRINTS.get() {
        println!("{}", text());
    }
}

/// Prints a value in its short form.
pub(crate) fn short(value: &dyn fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if text.len() > 300 {
        let end = (0..=300).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}
