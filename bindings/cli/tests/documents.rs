//! `core/docs/cli.md` is one session: every command in it is run, and prints what it says there.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::path::Path;
use std::process::Command;

use support::snapshot;

/// What differs from run to run, by what stands for it.
fn general(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let inner = word.trim_matches(['(', ')', ':']);
        let named = if inner.len() == 36 && inner.bytes().filter(|b| *b == b'-').count() == 4 {
            "[id]"
        } else if inner.len() == 20 && inner.ends_with('Z') && inner.as_bytes()[10] == b'T' {
            "[time]"
        } else if inner.starts_with('/') && inner.contains("shop.db") {
            "[path]"
        } else if word.starts_with('(') && inner.ends_with('s') && inner.as_bytes()[0].is_ascii_digit() {
            "[duration]"
        } else {
            return word.to_owned();
        };
        word.replace(inner, named)
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_session_is_as_the_page_has_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/docs/cli.md");
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidings"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut written = String::new();
    let mut in_session = false;
    for line in std::fs::read_to_string(&page).unwrap().lines() {
        let fence = line.starts_with("```");
        let command = line.strip_prefix("$ ").filter(|_| in_session);
        if !in_session || fence || command.is_some() {
            written.push_str(line);
            written.push('\n');
        }
        in_session = if fence { line == "```console" } else { in_session };
        let Some(command) = command else { continue };
        let script = format!("set -o pipefail; exec 2>&1; {command}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("TIDINGS_BROKER_URL", "sqlite:shop.db")
            .output()
            .unwrap();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            written.push_str(&general(line));
            written.push('\n');
        }
        if let Some(code @ 1..) = output.status.code() {
            written.extend(["[exit code ", &code.to_string(), "]\n"]);
        }
    }
    snapshot(&page, &written);
}

#[test]
fn exit_codes_are_listed() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/docs/cli.md")).unwrap();
    for exit in tidings_cli::Exit::ALL {
        assert!(page.contains(&format!("| {} | {} | ", exit.code(), exit.name())), "{}", exit.name());
    }
}
