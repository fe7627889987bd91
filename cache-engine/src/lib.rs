//! The cache engine.

pub mod backend;
