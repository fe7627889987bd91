//! Forebay's block cache: a fast local device in front of a slow origin, seen as one device.
//!
//! ```text
//!   frontend (NBD, …) ──▶ volume ──▶ cache (decides) ──▶ outbox ──▶ origin queue
//!                                                              └──▶ cache device queue
//! ```
//! Top to bottom is the way of a request: a [`frontend`] takes it from a client, [`volume`] runs
//! the state machine [`cache`] over two [`block_io::BlockQueue`]s and is one itself, and at both
//! ends are devices, which [`backend`] opens. Beside it stands [`advice`]: what a cache would
//! have done for a trace; and `control`, how people change and look at one that runs.

pub mod advice;
pub mod backend;
pub mod cache;
#[cfg(feature = "control")]
pub mod control;
pub mod frontend;
pub mod volume;
