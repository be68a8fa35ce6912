//! What the doctor finds, on real brokers.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::World;

struct Findings(Vec<Value>);

impl Findings {
    fn of(world: &World, arguments: &[&str], code: i32) -> Self {
        let ran = world.run(&[&["doctor", "--json"], arguments].concat());
        assert_eq!(ran.code, Some(code), "{ran:?}");
        Self(ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// The message of the finding of this check and level about this subject.
    fn says(&self, check: &str, level: &str, subject: &str) -> &str {
        let found = self.0.iter().find(|finding| {
            finding["check"] == check
                && finding["level"] == level
                && finding["subject"].as_str().unwrap().contains(subject)
        });
        found.unwrap_or_else(|| panic!("no {level} of {check} about {subject:?} in {:#?}", self.0))["message"]
            .as_str()
            .unwrap()
    }
}

#[test]
fn a_file_is_looked_at() {
    let world = World::sqlite();
    world.subscribe();
    world.publish("a", "1");
    world.kill(1);
    let found = Findings::of(&world, &[], 0);
    for check in ["broker", "clock", "security", "schema"] {
        found.says(check, "ok", "events.db");
    }
    assert!(found.says("dead-letters", "note", &world.name).contains("1 dead letters"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let file = world.folder.path().join("events.db");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let found = Findings::of(&world, &["--strict"], 7);
        assert!(found.says("security", "warning", "events.db").contains("mode 644"));
    }
}

#[test]
fn rabbitmq_is_looked_at() {
    for world in World::all().into_iter().filter(|world| world.url.starts_with("amqp")) {
        world.subscribe();
        // The delays are there once something was delayed.
        world.run(&["publish", &world.key("a"), "1", "--delay", "100ms"]).ok();
        let found = Findings::of(&world, &[&world.name], 0);
        found.says("permissions", "ok", "");
        found.says("queue-arguments", "ok", &world.name);
        assert!(found.says("delays", "ok", "lattice").contains("arrive"));
        found.says("policies", "unchecked", "");
        let missing = Findings::of(&world, &["nobody-has-this"], 7);
        missing.says("consumers", "problem", "nobody-has-this");
        world.done();
    }
}

/// A virtual host of its own, where `tests/services` started the server.
struct Host {
    service: &'static str,
    name: String,
}

impl Host {
    fn ctl(&self, arguments: &[&str]) -> bool {
        Command::new(Self::script())
            .args(["ctl", self.service])
            .args(arguments)
            .output()
            .is_ok_and(|o| o.status.success())
    }

    fn script() -> String {
        std::env::var("TIDINGS_SERVICES")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/services").to_owned())
    }

    fn make(service: &'static str) -> Option<Self> {
        let host = Self { service, name: format!("cli-{}", tidings::event::new_id()) };
        let made = host.ctl(&["add_vhost", &host.name])
            && host.ctl(&["set_permissions", "--vhost", &host.name, "guest", ".*", ".*", ".*"]);
        if !made {
            println!("SKIPPED: {service} has no rabbitmqctl here");
        }
        made.then_some(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.ctl(&["delete_vhost", &self.name]);
    }
}

/// Policies that harm are found through rabbitmqctl, and the user's missing permissions without it.
#[test]
fn policies_and_permissions_are_looked_at() {
    for (service, port) in [("rabbitmq3", 5672), ("rabbitmq4", 5674)] {
        let Some(host) = Host::make(service) else { continue };
        let world = World::at(&format!("amqp://guest:guest@127.0.0.1:{port}/{}", host.name));
        let ctl = format!("{} ctl {service}", Host::script());
        world.subscribe();
        let found = Findings::of(&world, &["--rabbitmqctl", &ctl], 0);
        found.says("policies", "ok", "");
        found.says("clock", "ok", "broker");
        found.says("leaders", "ok", "quorum queues");
        found.says("queue-arguments", "ok", &world.name);
        assert!(world.run(&["subscriptions", "--rabbitmqctl", &ctl]).ok().contains(&world.name));

        let set = |name: &str, pattern: &str, definition: &str, more: &[&str]| {
            let arguments = [&["set_policy", "--vhost", &host.name], more, &[name, pattern, definition]].concat();
            assert!(host.ctl(&arguments), "{definition}");
        };
        set("short", &format!("^{}$", world.name), r#"{"message-ttl": 60000, "delivery-limit": 5}"#, &[]);
        assert!(host.ctl(&["set_operator_policy", "--vhost", &host.name, "small", "dl$", r#"{"max-length": 10}"#]));
        // The server applies a policy in its own time.
        let started = std::time::Instant::now();
        let found = loop {
            let ran = world.run(&["doctor", "--json", "--rabbitmqctl", &ctl]);
            if ran.code == Some(7) {
                break Findings(ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
            }
            assert!(started.elapsed().as_secs() < 60, "{ran:?}");
        };
        assert!(found.says("policies", "problem", &world.name).contains("60000 ms"));
        assert!(found.says("delivery-limit", "warning", &world.name).contains("to 5"));
        let dead = format!("{}-dl", world.name);
        assert!(found.says("policies", "warning", &dead).contains("operator policy \"small\" sets max-length 10"));
        world.run(&["doctor", "--rabbitmqctl", "false"]).fails(2, "INVALID_OPTION");

        assert!(host.ctl(&["set_permissions", "--vhost", &host.name, "guest", "^none$", ".*", ".*"]));
        let found = Findings::of(&world, &[], 7);
        assert!(found.says("permissions", "problem", "").contains("ACCESS_REFUSED"));
        assert!(host.ctl(&["set_permissions", "--vhost", &host.name, "guest", ".*", ".*", ".*"]));
    }
}

/// A quorum queue that nobody leads is named, with what brings it back.
#[test]
fn a_queue_without_a_leader_is_named() {
    for (service, port) in [("rabbitmq3", 5672), ("rabbitmq4", 5674)] {
        let Some(host) = Host::make(service) else { continue };
        let world = World::at(&format!("amqp://guest:guest@127.0.0.1:{port}/{}", host.name));
        let ctl = format!("{} ctl {service}", Host::script());
        world.subscribe();
        let dead = format!("{}-dl", world.name);
        let server = format!("{{list_to_atom(\"{}_{dead}\"), node()}}", host.name);
        assert!(host.ctl(&["eval", &format!("ra:stop_server(quorum_queues, {server}).")]));
        let found = Findings::of(&world, &["--rabbitmqctl", &ctl], 7);
        assert!(found.says("leaders", "problem", &dead).contains("no leader"));
        assert!(host.ctl(&["eval", &format!("ra:restart_server(quorum_queues, {server}).")]));
    }
}
