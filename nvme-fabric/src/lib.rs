//! NVMe over TCP.
