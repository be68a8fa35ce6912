//! The first program of the project's README, as it stands there.
include!(concat!(env!("OUT_DIR"), "/readme.rs"));
