//! The fuzz targets of `core/fuzz`, with bytes that are made here: a bounded number, the same ones each time.
//!
//! `TIDINGS_CASES` is how many of each, `TIDINGS_SEED` where they begin. What fails is printed as the bytes of a literal.
#![cfg(all(feature = "testkit", feature = "amqp", feature = "sqlite"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;
use tidings::testkit::fuzz::{TARGETS, play};

const CASES: u64 = 4000;
/// What the grammars here are made of.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\u0000",
    "\\ud800",
    "null",
    "1e999",
    "-0",
    "9223372036854775808",
    ".",
    "*",
    "#",
    "..",
    "amqp://",
    "sqlite:",
    "@",
    "?",
    "&",
    "=",
    "%",
    "%00",
    "%ff",
    "/",
    "password=",
    "sslmode=",
    "heartbeat=",
    "$PASSWORD",
    "$Secret{A_SECRET}",
    "${none}",
    "env:",
    "\n",
    "routing_key",
    "data",
    "timestamp",
    "brokers",
    "envs",
    "topics",
    "products",
    "tag",
    "\u{0}",
    "\u{feff}",
    "ü",
    "💥",
];

/// What is known to be interesting: the vectors that all languages share, whole and each string in them.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let files = ["wire/golden.json", "wire/accepted.json", "wire/refused.json", "routing.json", "catalog.json"];
    let mut all = Vec::new();
    for file in files {
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.join(file)).unwrap()).unwrap();
        for entry in value.as_array().unwrap() {
            // An asked name and a declaration, as the catalog's target has them.
            all.push(
                format!("{}\n{}", entry["call"]["event"].as_str().unwrap_or("b:t"), entry["catalog"]).into_bytes(),
            );
            texts(entry, &mut all);
        }
    }
    all
}

fn texts(value: &serde_json::Value, all: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) => all.push(text.clone().into_bytes()),
        serde_json::Value::Array(list) => list.iter().for_each(|value| texts(value, all)),
        serde_json::Value::Object(object) => object.values().for_each(|value| texts(value, all)),
        _ => {}
    }
}

/// Bytes that are nearly something, or nothing at all.
fn bytes(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = if rng.u8(..4) == 0 { Vec::new() } else { rng.choice(corpus).cloned().unwrap_or_default() };
    for _ in 0..rng.usize(..8) {
        let (at, word) = (rng.usize(..=bytes.len()), rng.choice(WORDS).unwrap().as_bytes());
        match rng.u8(..6) {
            0 => drop(bytes.splice(at..at, word.iter().copied())),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => bytes[at] = rng.u8(..),
            3 if at < bytes.len() => drop(bytes.drain(at..(at + rng.usize(1..9)).min(bytes.len()))),
            4 => {
                let other = rng.choice(corpus).unwrap();
                bytes.splice(at..at, other[..rng.usize(..=other.len())].iter().copied());
            }
            _ => {
                let length = rng.usize(..40);
                bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(length));
            }
        }
    }
    bytes
}

#[test]
fn bytes_of_all_kinds() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, cases) = (number("TIDINGS_SEED").unwrap_or(0), number("TIDINGS_CASES").unwrap_or(CASES));
    let corpus = corpus();
    for (name, body) in TARGETS {
        for seed in first..first + cases {
            let bytes = bytes(&mut Rng::with_seed(seed), &corpus);
            let held = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
            assert!(held.is_ok(), "{name}: b\"{}\" (TIDINGS_SEED={seed} TIDINGS_CASES=1)", bytes.escape_ascii());
        }
    }
}

#[test]
fn what_was_found_stays_found() {
    for (name, bytes) in FOUND {
        play(name, bytes);
    }
}

/// What a fuzzer has found once.
const FOUND: &[(&str, &[u8])] = &[("event", b""), ("catalog", b"b:t\n{}")];
