//! The cache engine and its frontends.

pub mod frontend;
