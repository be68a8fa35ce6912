//! Signals, readers that go away, and a terminal.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Ran, World};

/// Longest that a test waits for something that should happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Waits until the file holds so many lines.
fn until_lines(path: &std::path::Path, count: usize) {
    let started = Instant::now();
    while std::fs::read_to_string(path).unwrap_or_default().lines().count() < count {
        assert!(started.elapsed() < PATIENCE, "{} has not {count} lines", path.display());
        std::thread::yield_now();
    }
}

/// The first signal lets the command that runs finish; what waits stays where it is.
#[test]
fn the_first_signal_drains() {
    for world in World::all() {
        for asked in [Signal::INT, Signal::TERM] {
            world.subscribe();
            world.publish("a", "1");
            world.publish("b", "2");
            let begun = world.folder.path().join("begun");
            let go_on = world.folder.path().join("go-on");
            let script = "echo x >> begun; while [ ! -e go-on ]; do sleep 0.05; done";
            let child = world.command(&["subscribe", &world.name, "--exec", "sh", "-c", script]).spawn().unwrap();
            until_lines(&begun, 1);
            signal(&child, asked);
            std::fs::write(&go_on, "").unwrap();
            let ran = Ran::of(&["subscribe"], child.wait_with_output().unwrap()).fails(0, "1 handled");
            assert_eq!(ran.out, "");
            assert_eq!(world.info()["ready"], 1, "the other one was not touched");
            world.run(&["subscribe", &world.name, "--limit", "1", "--timeout", "60s"]).ok();
            std::fs::remove_file(&begun).unwrap();
            std::fs::remove_file(&go_on).unwrap();
        }
        world.done();
    }
}

/// The second one ends the command, with all that it has started, and gives its event back.
#[test]
fn the_second_signal_insists() {
    let world = World::sqlite();
    world.subscribe();
    world.publish("a", "1");
    let script = "sleep 1000 & echo $! > grandchild; wait";
    let child = world.command(&["subscribe", &world.name, "--exec", "sh", "-c", script]).spawn().unwrap();
    let file = world.folder.path().join("grandchild");
    until_lines(&file, 1);
    signal(&child, Signal::INT);
    // The signals of one moment may become one.
    let mut child = child;
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE);
        signal(&child, Signal::INT);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ran::of(&["subscribe"], child.wait_with_output().unwrap()).fails(130, "0 handled");
    let grandchild = format!("/proc/{}/stat", std::fs::read_to_string(file).unwrap().trim());
    let started = Instant::now();
    while std::fs::read_to_string(&grandchild).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(started.elapsed() < PATIENCE, "what the command had started lives on");
        std::thread::yield_now();
    }
    let info = world.info();
    assert_eq!((&info["ready"], &info["dead"]), (&1.into(), &0.into()));
}

/// `tidings subscribe | head -1`: one event is taken, none is lost, and the command ends by itself.
#[test]
fn a_reader_that_goes_away_takes_only_what_it_read() {
    for world in World::all() {
        world.subscribe();
        for n in 0..50 {
            world.publish("n", &n.to_string());
        }
        let mut taken = std::collections::HashSet::new();
        while taken.len() < 5 {
            let mut child = world.command(&["subscribe", &world.name, "--json"]).spawn().unwrap();
            let head = std::process::Command::new("head")
                .arg("-1")
                .stdin(Stdio::from(child.stdout.take().unwrap()))
                .output()
                .unwrap();
            let line: serde_json::Value = serde_json::from_slice(&head.stdout).unwrap();
            assert!(taken.insert(line["data"].as_u64().unwrap()), "an event that was read came again");
            Ran::of(&["subscribe"], child.wait_with_output().unwrap()).ok();
        }
        assert_eq!(world.info()["ready"], 45);
        world.done();
    }
}

/// Results that nobody reads stop nothing.
#[test]
fn every_command_survives_a_closed_pipe() {
    let world = World::sqlite();
    world.subscribe();
    world.publish("a", "1");
    world.kill(1);
    for arguments in [
        &["--help"][..],
        &["subscriptions"],
        &["dead-letters", "list", &world.name],
        &["doctor", "--json"],
        &["completions", "bash"],
        &["publish", &world.key("b"), "2"],
    ] {
        let mut child = world.command(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::of(arguments, child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    }
}

/// A pseudo-terminal with the command on it.
struct Terminal {
    child: Child,
    screen: BufReader<std::fs::File>,
    keyboard: std::fs::File,
}

impl Terminal {
    fn open(world: &World, arguments: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let end = || -> OwnedFd {
            std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into()
        };
        let mut command = world.command(arguments);
        let child = command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm").spawn().unwrap();
        let keyboard = std::fs::File::from(master.try_clone().unwrap());
        Self { child, screen: BufReader::new(std::fs::File::from(master)), keyboard }
    }

    /// Reads until `text` is on the screen.
    fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert!(
                self.screen.read(&mut byte).is_ok_and(|read| read == 1),
                "{text:?} is not in {}",
                String::from_utf8_lossy(&seen)
            );
            seen.push(byte[0]);
        }
        String::from_utf8(seen).unwrap()
    }

    fn answer(&mut self, text: &str) {
        writeln!(self.keyboard, "{text}").unwrap();
    }

    fn end(mut self) -> i32 {
        // The terminal is closed with an error when the last process has left it.
        let _rest = self.screen.lines().map_while(Result::ok).count();
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn dead_letters_are_asked_about_one_by_one() {
    for world in World::all() {
        world.subscribe();
        let ids: Vec<String> =
            (1..=4).map(|n| world.publish("order", &format!("{{\"z\": {n}, \"a\": {n}}}"))).collect();
        world.kill(4);
        let mut terminal = Terminal::open(&world, &["dead-letters", "replay", &world.name, "--interactive"]);
        let shown = terminal.until("[q]uit? ");
        assert!(shown.contains("1 of 4") && shown.contains(&ids[0]) && shown.contains("rejected"), "{shown}");
        let (first, second) = (shown.find("    \"a\": 1").unwrap(), shown.find("    \"z\": 1").unwrap());
        assert!(first < second, "keys are sorted");
        terminal.answer("what?");
        terminal.until("[q]uit? ");
        terminal.answer("r");
        terminal.until("[q]uit? ");
        // Done before the next question.
        assert_eq!(world.info()["ready"], 1);
        terminal.answer("leave");
        terminal.until("[q]uit? ");
        terminal.answer("D");
        terminal.until("[q]uit? ");
        terminal.answer("q");
        terminal.until("replayed 1, discarded 1, left 2");
        assert_eq!(terminal.end(), 0);
        let rest = world.run(&["dead-letters", "list", &world.name]).ok();
        assert!(rest.contains(&ids[1]) && rest.contains(&ids[3]) && !rest.contains(&ids[2]), "{rest}");
        // Answers may come through a pipe too; its end leaves the rest.
        let ran = world.run_with("d\n", &["dead-letters", "discard", &world.name, "--interactive", "--json"]);
        assert!(ran.ok().contains(r#""discarded":1,"left":0,"not_asked":1"#));
        world.done();
    }
}

#[test]
fn what_destroys_asks_first() {
    let world = World::sqlite();
    world.subscribe();
    world.publish("a", "1");
    world.kill(1);
    for (answer, code, left) in [("n", 6, 1), ("", 6, 1), ("y", 0, 0)] {
        let mut terminal = Terminal::open(&world, &["dead-letters", "discard", &world.name, "--all"]);
        terminal.until("Remove 1 dead letters");
        terminal.answer(answer);
        assert_eq!(terminal.end(), code, "{answer:?}");
        assert_eq!(world.info()["dead"], left, "{answer:?}");
    }
}
