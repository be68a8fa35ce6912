//! What must hold for any bytes: the bodies of the fuzz targets in `core/fuzz`, which `core/tests/fuzz.rs` plays too, with
//! fewer bytes.
//!
//! A body panics where something is wrong.
#![allow(clippy::panic, reason = "so that a fuzzer notices")]

mod bytes;
mod headers;
mod routing;
mod text;

use crate::event::{decode, encode};
use crate::{Headers, Payload};

/// What is played with some bytes.
pub type Body = fn(&[u8]);

/// All bodies, with their names.
pub const TARGETS: &[(&str, Body)] = &[
    ("event", event),
    ("headers", headers::headers),
    ("routing", routing::routing),
    ("urls", text::urls),
    #[cfg(feature = "catalog")]
    ("catalog", text::catalog),
];

/// Plays the body of this name.
///
/// # Panics
/// Where what must hold does not, and if there is no such body.
pub fn play(name: &str, bytes: &[u8]) {
    let Some((_, body)) = TARGETS.iter().find(|(target, _)| *target == name) else {
        panic!("there is no fuzz target {name}")
    };
    body(bytes);
}

/// The wire: what can be read is written so that it reads the same, and then no byte changes any more.
fn event(bytes: &[u8]) {
    let Ok(event) = decode(&Payload::from(bytes.to_vec()), Headers::new()) else { return };
    let written = encode(&event);
    let again = decode(&written, Headers::new()).unwrap_or_else(|(error, _)| panic!("{error:?}: {written:?}"));
    assert_eq!(again, event, "another event was written");
    assert_eq!(encode(&again), written, "the golden form is not stable");
}
