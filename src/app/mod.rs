//! The room `app`.

pub mod tail;
