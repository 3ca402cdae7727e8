//! Words of the domain: identities, offsets, records, limits.
//!
//! Every other room may use this one; it uses none of them. A raw integer or
//! string is turned into one of these types where it enters and stays one.

pub mod address;
pub mod filter;
pub mod ids;
pub mod latency;
pub mod limits;
pub mod moment;
pub mod positions;
pub mod record;
pub mod sabotage;
pub mod setting;
pub mod trace;
