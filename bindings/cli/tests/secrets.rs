//! No command prints a password, whatever goes wrong.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::{CANARY, World};

/// Every command, with arguments that make it go as far as it can.
const COMMANDS: &[&[&str]] = &[
    &["publish", "a.b", "1"],
    &["publish", "--batch", "/nowhere"],
    &["subscribe", "s", "--timeout", "10ms"],
    &["subscribe", "s", "--timeout", "10ms", "--exec", "true"],
    &["dead-letters", "list", "s"],
    &["dead-letters", "show", "s", "id"],
    &["dead-letters", "replay", "s", "--all"],
    &["dead-letters", "discard", "s", "--all", "--yes"],
    &["subscriptions"],
    &["doctor"],
    &["doctor", "--rabbitmqctl", "false"],
    &["bench", "--events", "1"],
    &["completions", "bash"],
    &["run", "x"],
    &["--help"],
    &["--version"],
    &["nonsense"],
];

/// `Ran` itself looks for the canary in everything that a command prints.
#[test]
fn passwords_are_never_printed() {
    let urls = [
        format!("amqp://guest:{CANARY}@127.0.0.1:1"),
        format!("amqp://guest:{CANARY}@127.0.0.1:5672"),
        format!("amqps://guest:{CANARY}@127.0.0.1:1/v?cacertfile=/nowhere"),
        format!("amqp://guest:{CANARY}@127.0.0.1/a/b"),
        format!("amqp://guest:{CANARY}@127.0.0.1?frobnicate=1&password={CANARY}"),
        format!("guest:{CANARY}@127.0.0.1"),
        format!("gopher://guest:{CANARY}@127.0.0.1"),
        format!("amqp:guest:{CANARY}@127.0.0.1"),
    ];
    for url in &urls {
        let world = World::at(url);
        for command in COMMANDS {
            for more in [&[][..], &["--json"], &["-vv"], &["--broker", url], &["--bogus", url], &[url]] {
                world.run(&[command, more].concat());
            }
        }
    }
}

#[test]
fn an_event_cannot_take_over_the_terminal() {
    let world = World::sqlite();
    world.subscribe();
    let escape = "\u{1b}[2J\u{1b}]0;owned\u{7}";
    let data = serde_json::to_string(escape).unwrap().replace("\\u001b", "\u{9b}");
    world.run(&["publish", &world.key("a"), &data, "--object-id", escape, "--header", &format!("h={escape}")]).ok();
    let script = r"printf '\033[31mred' >&2; exit 65";
    world.run(&["subscribe", &world.name, "--limit", "1", "--exec", "sh", "-c", script]).ok();
    let id = world.run(&["dead-letters", "list", &world.name, "--json"]).ok();
    let id = serde_json::from_str::<serde_json::Value>(&id).unwrap()["id"].as_str().unwrap().to_owned();
    for command in [&["dead-letters", "list", &world.name][..], &["dead-letters", "show", &world.name, &id]] {
        let shown = world.run(command).ok();
        assert!(shown.contains("red") && !shown.contains(['\u{1b}', '\u{9b}', '\u{7}']), "{shown:?}");
    }
    world.run(&["dead-letters", "replay", &world.name, "--all"]).ok();
    let shown = world.run(&["subscribe", &world.name, "--limit", "1"]).ok();
    assert!(shown.contains("owned") && !shown.contains(['\u{1b}', '\u{9b}', '\u{7}']), "{shown:?}");
}
