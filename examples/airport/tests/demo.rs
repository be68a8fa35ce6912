//! Plays the whole day the way `make demo` does, and the ways in which it must fail. What needs the services in Python and
//! Node runs in `examples/airport/play test`, which prepares them and sets `TIDINGS_DEMO`.

use std::process::{Command, Output};

fn prepared() -> bool {
    let prepared = std::env::var_os("TIDINGS_DEMO").is_some();
    if !prepared {
        println!("skipped: examples/airport/play test runs it");
    }
    prepared
}

fn airport(broker: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_airport"));
    command.env_remove("BROKER").env_remove("KEEP").envs(broker.map(|url| ("BROKER", url)));
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_day_ends_well_on_a_file() {
    if !prepared() {
        return;
    }
    let output = airport(None).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2,318 events, 0 lost, 0 out of order;"), "{said}");
    for service in ["relay", "aircraft log", "notifier"] {
        assert!(said.contains(&format!("kill -9 of the {service}")), "{said}");
    }
    assert!(
        said.contains("the gateway is repaired") && said.contains("322 dead letters, reason \"no-tail-number\""),
        "{said}"
    );
    assert!(!said.contains("DIFFERS"), "{said}");
}

/// On RabbitMQ, where one is named.
#[test]
fn the_day_ends_well_on_rabbitmq() {
    if !prepared() {
        return;
    }
    let Ok(url) = std::env::var("AMQP_URL") else {
        println!("skipped: AMQP_URL is not set (make services)");
        return;
    };
    let output = airport(Some(&url)).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2,318 events, 0 lost") && !said.contains("DIFFERS"), "{said}");
}

#[test]
fn a_broker_that_cannot_be_used_is_explained() {
    for (url, code) in [
        ("amqp://guest:secret@127.0.0.1:1", "CONNECTION_FAILED"),
        ("gopher://host", "UNSUPPORTED_TRANSPORT"),
        ("sqlite:/nowhere/at/all.db", "create /nowhere/at"),
        ("memory:", "lives inside one process"),
    ] {
        let output = airport(Some(url)).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{url}: {said}");
        assert!(said.contains(code) && !said.contains("secret"), "{url}: {said}");
    }
}

/// Ctrl-C, a polite and the hard end of the director: no service outlives it.
#[cfg(target_os = "linux")]
#[test]
fn no_service_outlives_the_director() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    if !prepared() {
        return;
    }
    // What a killed director could not remove.
    let temp = tempfile::tempdir().unwrap();
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(130)), ("-KILL", None)] {
        let mut director =
            airport(None).env("TMPDIR", temp.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let pid = director.id().to_string();
        let mut lines = BufReader::new(director.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("kill -9")), "the story did not get that far");
        let services = children(&pid);
        assert!(!services.is_empty());
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        // Its output ends with it: the services have pipes of their own.
        let _rest = lines.by_ref().count();
        assert_eq!(director.wait().unwrap().code(), code);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while services.iter().any(|service| lives(service)) {
            assert!(std::time::Instant::now() < deadline, "{signal}: a service lives on");
            std::thread::yield_now();
        }
    }
}

#[cfg(target_os = "linux")]
fn children(pid: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let of_thread = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    let all = threads.filter_map(|task| of_thread(task.ok()?).ok()).collect::<Vec<_>>().join(" ");
    all.split_whitespace().map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
