//! The room `resume`.
