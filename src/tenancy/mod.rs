//! Whose a record is, what a channel is, and who may read what.
//!
//! `rule` tells the tenant of a record; `principal` is who a client is; `topic`
//! turns a tenant into the name of its topic; `key_rule` narrows a channel to
//! keys that a token's claims name; `channel` joins them: what a client that
//! names a channel and keys gets to read; `quota` counts what each tenant holds
//! of the replica. This room never knows how a token was
//! verified or a file was read.
//!
//! Names are compared byte by byte and never joined, so that two tenants whose
//! names differ only by case, Unicode form or a separator never meet.

pub mod channel;
pub mod key_rule;
pub mod notice;
pub mod pointer;
pub mod principal;
pub mod quota;
pub mod revocation;
pub mod rule;
pub mod topic;
pub mod verify;
