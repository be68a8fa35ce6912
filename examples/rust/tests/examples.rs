//! Runs every example on the embedded default and compares what it prints.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The examples that are built, with their binaries.
fn examples() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("01-publish", env!("CARGO_BIN_EXE_01-publish")),
        ("02-subscribe", env!("CARGO_BIN_EXE_02-subscribe")),
        ("03-wildcards", env!("CARGO_BIN_EXE_03-wildcards")),
        ("04-retry", env!("CARGO_BIN_EXE_04-retry")),
        ("05-dead-letter-and-replay", env!("CARGO_BIN_EXE_05-dead-letter-and-replay")),
        ("06-ordered-keys", env!("CARGO_BIN_EXE_06-ordered-keys")),
        ("07-outbox", env!("CARGO_BIN_EXE_07-outbox")),
        ("08-inbox", env!("CARGO_BIN_EXE_08-inbox")),
        ("09-testing-without-a-broker", env!("CARGO_BIN_EXE_09-testing-without-a-broker")),
        ("10-graceful-shutdown", env!("CARGO_BIN_EXE_10-graceful-shutdown")),
    ])
}

#[test]
fn every_example_prints_what_is_expected() {
    for (name, binary) in examples() {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(binary)
            .current_dir(folder.path())
            .env_remove("TIDINGS_BROKER_URL")
            .env_remove("TIDINGS_REQUIRE_BROKER")
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let expected = std::fs::read_to_string(here().join(format!("../expected/{name}.txt"))).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{name}");
    }
}

/// It runs until Ctrl-C.
#[cfg(unix)]
#[test]
fn the_program_of_the_readme_handles_its_event_and_stops() {
    use std::io::{BufRead as _, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_readme")).current_dir(folder.path()).stdout(Stdio::piped()).spawn();
    let mut program = program.unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "billing 7\n");
    let signalled = Command::new("kill").args(["-INT", &program.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert!(program.wait().unwrap().success());
}

/// What lies in the folder, what is expected and what the list says belong together.
#[test]
fn none_is_forgotten() {
    let names = |folder: &str, suffix: &str| {
        let entries = std::fs::read_dir(here().join(folder)).unwrap();
        let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = files.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect();
        names.sort();
        names
    };
    let run: Vec<_> = examples().into_keys().collect();
    assert_eq!(names(".", ".rs"), run);
    assert_eq!(names("../expected", ".txt"), run);
    let list = std::fs::read_to_string(here().join("../README.md")).unwrap();
    for name in run {
        assert!(list.contains(&format!("| {name} | ")), "{name} is not in examples/README.md");
    }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
