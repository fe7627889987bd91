//! Forebay's block cache: a fast local device in front of a slow origin, seen as one device.
//!
//! ```text
//!   frontend (NBD, …) ──▶ volume ──▶ cache (decides) ──▶ outbox ──▶ origin queue
//!                                                              └──▶ cache device queue
//! ```
//! Top to bottom is the way of a request: [`volume`] runs the state machine [`cache`] over two
//! [`block_io::BlockQueue`]s and is one itself.

pub mod cache;
pub mod volume;
