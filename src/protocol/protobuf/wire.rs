//! The messages of `proto/brucke/v1/`, made by the build.

#![allow(clippy::all, missing_debug_implementations, unreachable_pub)]

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/brucke.v1.rs"));

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticate(redacted)")
    }
}
