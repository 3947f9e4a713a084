//! Crate documentation follows with the code.
