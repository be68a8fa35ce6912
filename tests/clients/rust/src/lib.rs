//! What the rigs and the Rust client share: the line protocol's types, and the rigs' end of the pipe.
//!
//! `tests/clients/PROTOCOL.md` is the protocol; other languages implement it from there.

pub mod process;
pub mod protocol;
pub mod usage;
