//! Where requests come from: servers that turn a client's protocol into requests to a queue.
//!
//! A frontend serves any [`block_io::BlockQueue`]; it knows nothing of caching.

pub mod nbd;
pub mod nvme;
