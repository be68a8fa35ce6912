//! Takes the first program of the project's README out of it, so that it can be run as it stands there.
#![allow(clippy::expect_used)]

use std::path::Path;

const README: &str = "../../README.md";

fn main() {
    println!("cargo::rerun-if-changed={README}");
    let readme = std::fs::read_to_string(README).expect("the README lies in the project's folder");
    let (_, rest) = readme.split_once("```rust,no_run\n").expect("the README begins with a program");
    let (program, _) = rest.split_once("```").expect("the program ends");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("readme.rs"), program).expect("the folder can be written");
}
