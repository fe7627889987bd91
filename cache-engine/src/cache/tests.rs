//! Step tests of the cache.
