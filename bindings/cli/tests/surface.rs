//! What others rely on: help texts, exit codes, completions.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;

use serde::Deserialize;
use support::{World, snapshot};
use tidings_cli::{Exit, HandlerExit};

/// Every command with the words that lead to it.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        all.push(path.to_vec());
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            walk(sub, &[path, &[sub.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    walk(&tidings_cli::command(), &[], &mut all);
    all
}

#[test]
fn help_texts() {
    let world = World::sqlite();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let mut expected = Vec::new();
    for words in commands() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = world.run(&arguments).ok();
        assert!(help.contains("--broker") && help.lines().all(|line| line.chars().count() <= 120), "{help}");
        let name = if words.is_empty() { "tidings".to_owned() } else { words.join("-") };
        snapshot(&folder.join(format!("{name}.txt")), &help);
        expected.push(format!("{name}.txt"));
    }
    let mut found: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "a help text of a command that is gone");
}

#[test]
fn exit_codes_are_those_of_the_table() {
    #[derive(Deserialize)]
    struct Row {
        of: String,
        code: u8,
        name: String,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/exit-codes.json");
    let rows: Vec<Row> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let table: Vec<_> = rows.iter().map(|row| (row.of.as_str(), row.code, row.name.as_str())).collect();
    let ours: Vec<_> = Exit::ALL
        .iter()
        .map(|exit| ("command", exit.code(), exit.name()))
        .chain(HandlerExit::ALL.iter().map(|exit| ("handler", exit.code(), exit.name())))
        .collect();
    assert_eq!(ours, table, "codes are only ever added: extend the table");
}

#[test]
fn every_shell_gets_completions() {
    let world = World::sqlite();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = world.run(&["completions", shell]).ok();
        assert!(script.contains("dead-letters") && script.contains("rabbitmqctl"), "{shell}");
    }
    world.run(&["completions", "csh"]).fails(2, "invalid value 'csh'");
}

#[test]
fn workers_belong_to_the_packages() {
    World::sqlite().run(&["run", "shop:app", "--reload"]).fails(2, "pip install tidings, then `tidings run shop:app`");
}
