//! JSON encoding.
