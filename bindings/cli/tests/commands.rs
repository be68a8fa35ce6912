//! Every command against a file and two generations of RabbitMQ.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::World;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn what_is_published_is_printed() {
    for world in World::all() {
        world.subscribe();
        let id = world.publish("placed", r#"{"n": 12345678901234567890}"#);
        let file = world.folder.path().join("data.json");
        std::fs::write(&file, "[1, 2]\n").unwrap();
        let from_file = format!("@{}", file.display());
        let options = ["--object-id", "7", "--key", "k", "--tenant", "acme", "--header", "a=b=c", "--id", "my-id"];
        world.run(&[&["publish", &world.key("placed"), &from_file], &options[..]].concat()).ok();
        world.run_with("null", &["publish", &world.key("placed"), "-"]).ok();
        let human = world.run(&["subscribe", &world.name, "--limit", "1", "--timeout", "20s"]).ok();
        assert!(human.contains(&format!("{}  {id}  {{\"n\": 12345678901234567890}}", world.key("placed"))), "{human}");
        let rest = world.run(&["subscribe", &world.name, "--limit", "2", "--timeout", "20s", "--json"]).ok();
        let [event, last] = lines(&rest).try_into().unwrap();
        assert_eq!((&event["uuid_string"], &event["domain_object_id"]), (&"my-id".into(), &"7".into()));
        assert_eq!(event["headers"]["a"], "b=c");
        assert_eq!(
            (&event["headers"]["tidings-key"], &event["headers"]["tidings-tenant"]),
            (&"k".into(), &"acme".into())
        );
        assert_eq!((&event["data"], &last["data"]), (&serde_json::json!([1, 2]), &Value::Null));
        world.run(&["subscribe", &world.name, "--limit", "1", "--timeout", "50ms"]).fails(9, "0 handled");
        assert_eq!(world.info()["ready"], 0);
        world.done();
    }
}

#[test]
fn a_batch_goes_from_one_broker_to_another() {
    for world in World::all() {
        world.subscribe();
        let key = world.key("n");
        let batch: Vec<String> = (0..1200).map(|n| format!("{{\"routing_key\":\"{key}\",\"data\":{n}}}\n")).collect();
        let batch = batch.concat();
        let ran = world.run_with(&batch, &["publish", "--batch", "-", "--header", "from=test"]);
        assert!(ran.err.contains("1,200 published, 0 failed"), "{ran:?}");
        let printed = world.run(&["subscribe", &world.name, "--limit", "1200", "--timeout", "60s", "--json"]).ok();
        let copy = World::sqlite();
        copy.run(&["subscribe", "copy", "--bind", "#", "--timeout", "1ms"]).ok();
        copy.run_with(&printed, &["publish", "--batch", "-"]).ok();
        let copied = copy.run(&["subscribe", "copy", "--limit", "1200", "--timeout", "60s", "--json"]).ok();
        let without = |text: &str| -> Vec<Value> {
            lines(text)
                .into_iter()
                .inspect(|event| assert_eq!(event["headers"]["from"], "test"))
                .map(|event| event["data"].clone())
                .collect()
        };
        assert_eq!(without(&copied), (0..1200).map(Value::from).collect::<Vec<_>>());
        world.done();
    }
}

#[test]
fn a_batch_says_which_lines_it_could_not_publish() {
    let world = World::sqlite();
    world.subscribe();
    let key = world.key("n");
    let batch =
        format!("{{\"routing_key\":\"{key}\",\"data\":1}}\n\nnonsense\n{{\"routing_key\":\"a.*\",\"data\":1}}\n");
    let ran = world.run_with(&batch, &["publish", "--batch", "-"]).fails(8, "line 3: INVALID_EVENT");
    assert!(ran.err.contains("line 4: INVALID_ROUTING_KEY") && ran.err.contains("1 published, 2 failed"), "{ran:?}");
    world.run_with("nonsense\n", &["publish", "--batch", "-"]).fails(1, "0 published, 1 failed");
    assert_eq!(world.info()["ready"], 1);
}

#[test]
fn a_delay_is_kept() {
    for world in World::all() {
        world.subscribe();
        world.run(&["publish", &world.key("later"), "1", "--delay", "1s"]).ok();
        let event = world.run(&["subscribe", &world.name, "--limit", "1", "--timeout", "30s", "--json"]).ok();
        let published = lines(&event)[0]["timestamp"].as_f64().unwrap();
        assert!(tidings::Timestamp::now().as_secs_f64() - published >= 1.0);
        world
            .run(&["publish", &world.key("later"), "1", "--delay", "1s", "--require-route"])
            .fails(2, "INVALID_OPTION");
        world.done();
    }
}

#[test]
fn nobody_wants_it() {
    for world in World::all() {
        world.run(&["publish", "nobody.asked", "1", "--require-route"]).fails(1, "UNROUTABLE");
        let receipt = world.run(&["publish", "nobody.asked", "1", "--json"]).ok();
        assert_eq!(lines(&receipt)[0]["routed"], false);
    }
}

/// The exit code of the command is the outcome.
#[test]
fn exit_codes_decide() {
    for world in World::all() {
        world.subscribe();
        for word in ["ack", "reject", "fail", "again"] {
            world.publish(word, &format!("{{\"word\": \"{word}\"}}"));
        }
        // The event is on stdin and in the environment; what asks for another try gets one, and then succeeds.
        let script = r#"
            read -r line
            case "$line" in *"\"word\": \"${TIDINGS_ROUTING_KEY##*.}\""*) ;; *) exit 99 ;; esac
            case "$TIDINGS_ROUTING_KEY.$TIDINGS_RETRIES" in
                *.reject.*) echo "no address" >&2; exit 65 ;;
                *.fail.*) exit 3 ;;
                *.again.0) exit 75 ;;
            esac"#;
        let command = ["--max-retries", "1", "--retry-delay", "10ms", "--concurrency", "2", "--timeout", "60s"];
        let command =
            [&["subscribe", &world.name, "--limit", "6"], &command[..], &["--exec", "sh", "-c", script]].concat();
        let ran = world.run(&command).fails(0, "2 handled, 2 retried, 2 dead-lettered");
        assert!(ran.err.contains("no address"), "the command's stderr is passed on");
        let mut dead = lines(&world.run(&["dead-letters", "list", &world.name, "--json"]).ok());
        dead.sort_by_key(|dead| dead["reason"].as_str().unwrap().to_owned());
        assert_eq!((&dead[0]["reason"], &dead[0]["error_type"]), (&"max-retries".into(), &"Exit3".into()));
        assert_eq!((&dead[1]["reason"], &dead[1]["error"]), (&"rejected".into(), &"no address".into()));
        world.done();
    }
}

#[test]
fn a_command_that_cannot_run_loses_nothing() {
    let world = World::sqlite();
    world.subscribe();
    world.publish("placed", "1");
    world.run(&["subscribe", &world.name, "--exec", "/nowhere/at/all"]).fails(1, "cannot be run");
    world.run(&["subscribe", &world.name, "--limit", "1", "--exec-timeout", "50ms", "--exec", "sleep", "60"]).ok();
    let dead = lines(&world.run(&["dead-letters", "list", &world.name, "--json"]).ok());
    assert_eq!((dead.len(), &dead[0]["reason"]), (1, &"timeout".into()));
}

#[test]
fn dead_letters_are_listed_replayed_and_discarded() {
    for world in World::all() {
        let name = world.name.as_str();
        world.subscribe();
        for (word, data) in [("placed", "{\"id\": 1}"), ("placed", "{\"id\": 2}"), ("paid", "{\"id\": 3}")] {
            world.publish(word, data);
        }
        world.kill(3);
        let list = |more: &[&str]| lines(&world.run(&[&["dead-letters", "list", name, "--json"], more].concat()).ok());
        let all = list(&[]);
        assert_eq!(all.len(), 3);
        let id = all[0]["id"].as_str().unwrap();
        assert_eq!(list(&["--binding", &world.key("placed")]).len(), 2);
        assert_eq!(list(&["--since", "1h"]).len(), 3);
        assert_eq!(list(&["--until", "1h", "--reason", "rejected"]).len(), 0);
        assert_eq!(list(&["--limit", "2"]).len(), 2);
        assert_eq!(list(&["--id", id])[0]["data"]["id"], 1);
        let table = world.run(&["dead-letters", "list", name]).ok();
        assert!(table.starts_with("ID") && table.contains("rejected") && table.contains("no address"), "{table}");
        let shown = world.run(&["dead-letters", "show", name, id]).ok();
        assert!(shown.contains("reason         rejected") && shown.contains("    \"id\": 1"), "{shown}");
        world.run(&["dead-letters", "show", name, "none"]).fails(4, "no dead letter with the id");
        world.run(&["dead-letters", "list", "nobody-has-this"]).fails(4, "SUBSCRIPTION_NOT_FOUND");

        world.run(&["dead-letters", "replay", name]).fails(2, "--all");
        assert_eq!(world.run(&["dead-letters", "replay", name, "--all", "--dry-run"]).ok(), "would replay 3 of 3\n");
        world.run(&["dead-letters", "discard", name, "--all"]).fails(6, "--yes");
        assert_eq!(list(&[]).len(), 3, "nothing was said to be destroyed");
        assert_eq!(world.run(&["dead-letters", "replay", name, "--id", id]).ok(), "replayed 1, 2 remain\n");
        world.run(&["dead-letters", "replay", name, "--id", id]).fails(4, "no such dead letter");
        let again = lines(&world.run(&["subscribe", name, "--limit", "1", "--timeout", "30s", "--json"]).ok());
        assert_eq!((&again[0]["data"]["id"], &again[0]["retries"]), (&1.into(), &0.into()));
        let placed = world.key("placed");
        let discarded = world.run(&["dead-letters", "discard", name, "-b", &placed, "--rate", "50", "--yes"]).ok();
        assert_eq!(discarded, "discarded 1, 1 remain\n");
        assert_eq!(list(&[])[0]["data"]["id"], 3);
        world.done();
    }
}

#[test]
fn subscriptions_tell_who_runs_an_ordered_one_and_which_keys_wait() {
    for world in World::all().into_iter().filter(|world| world.url.starts_with("amqp")) {
        let bound = world.key("#");
        let ordered = ["subscribe", &world.name, "--bind", &bound, "--ordered", "--partitions", "2"];
        world.run(&[&ordered[..], &["--timeout", "1ms"]].concat()).ok();
        world.run(&["publish", &world.key("a"), "1", "--key", "k"]).ok();
        world.run(&[&ordered[..], &["--limit", "1", "--exec", "sh", "-c", "exit 65"]].concat()).ok();
        // Nothing where whoever has just ended is still asked.
        let mut asked = std::iter::repeat_with(|| world.info()["order"].clone()).take(20);
        let order = asked.find(|order| order["owners"] == serde_json::json!([])).expect("nobody consumes it");
        assert_eq!(
            (&order["parked_keys"], &order["dead_keys"], &order["waiting_keys"]),
            (&1.into(), &1.into(), &0.into())
        );
        assert!(order["oldest_waiting_seconds"].as_f64().is_some_and(|age| age >= 0.0), "{order}");
        let table = world.run(&["subscriptions", &world.name]).ok();
        assert!(table.contains("OLDEST HEAD") && table.contains("nobody"), "{table}");
        world.run(&["subscribe", &world.name, "--partitions", "2", "--timeout", "1ms"]).fails(2, "partitions");
        world.done();
    }
}

#[test]
fn subscriptions_tell_what_waits() {
    for world in World::all() {
        world.subscribe();
        world.publish("a", "1");
        let info = world.info();
        assert_eq!((&info["ready"], &info["dead"]), (&1.into(), &0.into()));
        let table = world.run(&["subscriptions", &world.name]).ok();
        assert!(table.starts_with("SUBSCRIPTION") && table.contains(&world.name), "{table}");
        world.run(&["subscriptions", "nobody-has-this"]).fails(4, "no subscription");
        if world.url.starts_with("amqp") {
            world.run(&["subscriptions"]).fails(2, "--rabbitmqctl");
        } else {
            assert!(info["lag_seconds"].as_f64().unwrap() >= 0.0);
            assert!(world.run(&["subscriptions"]).ok().contains(&world.name));
        }
        world.done();
    }
}

#[test]
fn looking_makes_no_file() {
    let world = World::sqlite();
    for command in [&["subscriptions"][..], &["dead-letters", "list", "a"], &["dead-letters", "replay", "a", "--all"]] {
        world.run(command).fails(3, "there is no store of this name");
    }
    world.run(&["doctor"]).fails(7, "problems: 1");
    assert_eq!(std::fs::read_dir(world.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_bench_leaves_nothing() {
    for world in World::all() {
        let measured = lines(&world.run(&["bench", "--events", "500", "--batch", "100", "--json"]).ok());
        assert!(measured[0]["publish_per_second"].as_u64().unwrap() > 0);
        assert!(measured[0]["consume_per_second"].as_u64().unwrap() > 0);
        if world.url.starts_with("sqlite") {
            assert_eq!(world.run(&["subscriptions", "--json"]).ok(), "");
        }
    }
}
