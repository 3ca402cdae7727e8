//! The room `kafka`.
