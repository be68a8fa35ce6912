//! Several processes on one `sqlite:` store.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod sqlite_support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlite_support::*;
use tidings::event::Timestamp;
use tidings::transport::{Incoming, KeyOrder, Settlement, Source, registry};

/// Another process with a source of the subscription `s`, told what to do line by line.
struct Peer {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Peer {
    fn start(folder: &Folder, lease: Duration, order: bool) -> Self {
        let mut child = child::start("peer", &[&folder.url(), &lease.as_millis().to_string(), &order.to_string()]);
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, lines };
        assert_eq!(peer.read(), "ready");
        peer
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    /// What it says next; the test harness around it says other things.
    fn read(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the peer ended");
            if let Some((_, said)) = line.trim_end().split_once("> ") {
                return said.to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.read()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended, or been killed, before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a [`Peer`] does.
#[tokio::main(flavor = "current_thread")]
async fn peer(args: &[String]) {
    let transport = registry::connect(&args[0]).await.unwrap();
    let mut spec = if args[2] == "true" { ordered("s", KeyOrder::default()) } else { spec("s", "#") };
    spec.lease = Duration::from_millis(args[1].parse().unwrap());
    let source = transport.subscribe(&spec).await.unwrap();
    println!("\n> ready");
    let mut held: Vec<Incoming> = Vec::new();
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        let told = std::mem::take(&mut line);
        let line = told.trim_end().to_owned();
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "next" => {
                held.extend(source.next(rest.parse().unwrap()).await.unwrap());
                println!("> {}", ids(&held).join(" "));
            }
            "ack" => {
                let results = source.settle(held.drain(..).map(|i| (i.token, Settlement::Ack)).collect()).await;
                let codes: Vec<_> =
                    results.iter().map(|r| r.as_ref().map_or_else(tidings::Error::code, |()| "ok")).collect();
                println!("> {}", codes.join(" "));
            }
            "begin" => println!("> {}", source.may_begin(held[0].token)),
            "publish" => {
                let batch = rest.split(' ').map(|n| message("a", n.parse().unwrap())).collect();
                let results = transport.publish(batch).await;
                println!("> {}", results.iter().filter(|r| r.is_ok()).count());
            }
            "drain" => {
                // Whoever started this process may be killed, and nobody is to be left behind.
                std::thread::spawn(|| {
                    std::io::stdin().lines().for_each(drop);
                    std::process::exit(0);
                });
                drain(&source).await;
            }
            "delete" => println!("> {}", transport.delete_subscription("s").await.unwrap()),
            _ => panic!("{line}"),
        }
    }
}

/// Settles all that comes.
async fn drain(source: &Arc<dyn Source>) {
    loop {
        let got = source.next(20).await.unwrap();
        ack(source, &got).await;
        println!("> {}", ids(&got).join(" "));
    }
}

#[tokio::test]
async fn a_publish_wakes_other_processes_within_milliseconds() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let mut peer = Peer::start(&folder, Duration::from_secs(30), false);
    let mut took = Vec::new();
    for n in 0..20 {
        peer.tell("next 1");
        // Long enough for the peer to watch at its slowest.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let started = Instant::now();
        publish(&transport, vec![message("a", n)]).await;
        assert_eq!(peer.read(), format!("id-{n}"));
        took.push(started.elapsed());
        assert_eq!(peer.ask("ack"), "ok");
    }
    took.sort();
    println!("publish to another process: p50 {:?}, max {:?}", took[10], took[19]);
    assert!(took[10] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn a_binding_of_another_process_counts_at_once() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let before = transport.publish(vec![message("a", 1)]).await.remove(0).unwrap();
    assert_eq!(before.routed, Some(false));
    let mut peer = Peer::start(&folder, Duration::from_secs(30), false);
    let after = transport.publish(vec![message("a", 2)]).await.remove(0).unwrap();
    assert_eq!(after.routed, Some(true));
    assert_eq!(peer.ask("next 5"), "id-2");
}

#[tokio::test]
async fn what_a_killed_process_held_is_taken_over_when_its_lease_ends() {
    for order in [false, true] {
        let folder = Folder::new();
        let transport = folder.connect().await;
        let lease = Duration::from_millis(600);
        let mut mine = if order { ordered("s", KeyOrder::default()) } else { spec("s", "#") };
        mine.lease = lease;
        let source = transport.subscribe(&mine).await.unwrap();
        let mut peer = Peer::start(&folder, lease, order);
        publish(&transport, (0..3).map(|n| keyed("a", n, Some("k"))).collect()).await;
        assert_eq!(peer.ask("next 3"), "id-0 id-1 id-2");
        publish(&transport, vec![keyed("a", 3, Some("k"))]).await;
        // Renewed while the process lives, although its runtime does nothing.
        tokio::time::sleep(lease * 2).await;
        let held = transport.subscriptions().await.unwrap().remove(0);
        assert_eq!(held.in_flight, Some(3));
        peer.signal("-9");
        let killed = Instant::now();
        let got = collect(&source, if order { 4 } else { 1 }).await;
        let got = if order { got } else { got.into_iter().chain(collect(&source, 3).await).collect() };
        let took = killed.elapsed();
        assert!(took < lease * 2, "{took:?}");
        let mut lost: Vec<_> = got.iter().map(|i| (&*i.message.id, i.lost_deliveries)).collect();
        if order {
            assert!(took > lease / 4, "{took:?}");
        } else {
            lost.sort_unstable();
        }
        assert_eq!(lost, [("id-0", 1), ("id-1", 1), ("id-2", 1), ("id-3", 0)], "ordered: {order}");
        ack(&source, &got).await;
    }
}

#[tokio::test]
async fn a_process_that_was_frozen_past_its_lease_settles_nothing() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let lease = Duration::from_millis(300);
    let mut mine = spec("s", "#");
    mine.lease = lease;
    let source = transport.subscribe(&mine).await.unwrap();
    let mut peer = Peer::start(&folder, lease, false);
    publish(&transport, vec![message("a", 1)]).await;
    assert_eq!(peer.ask("next 1"), "id-1");
    peer.signal("-STOP");
    let got = collect(&source, 1).await;
    assert_eq!(got[0].lost_deliveries, 1);
    peer.signal("-CONT");
    assert_eq!(peer.ask("ack"), "STALE_DELIVERY");
    ack(&source, &got).await;
    publish(&transport, vec![message("a", 2)]).await;
    source.close().await;
    assert_eq!(peer.ask("next 1"), "id-2", "it goes on with a lease of its own");
    assert_eq!(peer.ask("ack"), "ok");
}

#[tokio::test]
async fn a_key_goes_on_with_a_process_that_was_frozen_past_its_lease() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let lease = Duration::from_millis(300);
    let mut mine = ordered("s", KeyOrder::default());
    mine.lease = lease;
    let source = transport.subscribe(&mine).await.unwrap();
    let mut peer = Peer::start(&folder, lease, true);
    publish(&transport, vec![keyed("a", 1, Some("k"))]).await;
    assert_eq!(peer.ask("next 1"), "id-1");
    assert_eq!(peer.ask("begin"), "true");
    peer.signal("-STOP");
    ack(&source, &collect(&source, 1).await).await;
    source.close().await;
    peer.signal("-CONT");
    assert_eq!(peer.ask("begin"), "false", "another process may be at it");
    assert_eq!(peer.ask("ack"), "STALE_DELIVERY");
    publish(&transport, vec![keyed("a", 2, Some("k"))]).await;
    assert_eq!(peer.ask("next 1"), "id-2");
    assert_eq!(peer.ask("ack"), "ok");
    publish(&transport, vec![keyed("a", 3, Some("k"))]).await;
    let source = transport.subscribe(&mine).await.unwrap();
    assert_eq!(ids(&collect(&source, 1).await), ["id-3"], "nobody has the key");
}

#[tokio::test]
async fn many_processes_may_create_the_file_at_once() {
    for _ in 0..3 {
        let folder = Folder::new();
        let url = folder.url();
        let starting: Vec<_> = (0..6).map(|_| child::start("peer", &[&url, "30000", "false"])).collect();
        let mut peers: Vec<Peer> = starting
            .into_iter()
            .map(|mut child| Peer { lines: BufReader::new(child.stdout.take().unwrap()), child })
            .collect();
        for peer in &mut peers {
            assert_eq!(peer.read(), "ready");
        }
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.tell(&format!("publish {n}"));
        }
        for peer in &mut peers {
            assert_eq!(peer.read(), "1");
        }
        drop(peers);
        let transport = folder.connect().await;
        assert_eq!(transport.subscriptions().await.unwrap().remove(0).ready, 6);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competing_processes_share_the_work_and_never_a_delivery() {
    const EVENTS: usize = 3000;
    let folder = Folder::new();
    let transport = folder.connect().await;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut peer = Peer::start(&folder, Duration::from_secs(30), false);
            peer.tell("drain");
            peer
        })
        .collect();
    let (send, receive) = std::sync::mpsc::channel();
    for (n, mut peer) in readers.into_iter().enumerate() {
        let send = send.clone();
        std::thread::spawn(move || {
            loop {
                let line = peer.read();
                if line.split(' ').any(|id| id == "id-99999999") || send.send((n, line)).is_err() {
                    return;
                }
            }
        });
    }
    for start in (0..EVENTS).step_by(10) {
        publish(&transport, (start..start + 10).map(|n| message("a", n)).collect()).await;
    }
    let (mut seen, mut share) = (HashSet::new(), [0; 3]);
    while seen.len() < EVENTS {
        let (n, line) = receive.recv_timeout(Duration::from_secs(20)).expect("events are missing");
        for id in line.split(' ') {
            share[n] += 1;
            assert!(seen.insert(id.to_owned()), "{id} came twice");
        }
    }
    println!("shares of three processes: {share:?}");
    assert!(share.iter().all(|n| *n > 0), "{share:?}");
}

#[tokio::test]
async fn a_lock_that_another_process_keeps_is_reported_and_nothing_is_lost() {
    let folder = Folder::new();
    let transport = registry::connect(&format!("{}?busy_timeout=300", folder.url())).await.unwrap();
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    let got = collect(&source, 1).await;
    let mut holder = child::start("lock", &[&folder.path().display().to_string()]);
    let mut lines = BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("locked") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0);
    }
    let mut late = message("a", 2);
    late.deadline = Some(std::time::Instant::now() + Duration::from_millis(100));
    let error = transport.publish(vec![late]).await.remove(0).unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown()), ("TIMEOUT", false), "{error}");
    let error = transport.publish(vec![message("a", 3)]).await.remove(0).unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("STORE_BUSY", true), "{error}");
    let error = source.settle(vec![(got[0].token, Settlement::Ack)]).await.remove(0).unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("STORE_BUSY", true), "the delivery is still ours");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    ack(&source, &got).await;
    publish(&transport, vec![message("a", 4)]).await;
    assert_eq!(ids(&collect(&source, 1).await), ["id-4"]);
}

#[tokio::test]
async fn a_scheduled_event_is_routed_once_though_many_wait_for_it() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    let _peers: Vec<_> = (0..3)
        .map(|_| Peer::start(&folder, Duration::from_secs(30), false))
        .map(|mut peer| {
            // Each watches the store while it waits for more than there will be.
            peer.tell("drain");
            peer
        })
        .collect();
    let watched = transport.subscribe(&spec("copy", "#")).await.unwrap();
    let batch = (0..50)
        .map(|n| {
            let mut event = message("a", n);
            event.deliver_at = Some(Timestamp::now().after(Duration::from_millis(300)));
            event
        })
        .collect();
    publish(&transport, batch).await;
    drop(source);
    let copies = collect(&watched, 50).await;
    assert_eq!(ids(&copies).into_iter().collect::<HashSet<_>>().len(), 50);
    ack(&watched, &copies).await;
    nothing(&watched).await;
}

#[tokio::test]
async fn a_subscription_that_another_process_deletes_is_declared_again() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    let waiting = tokio::spawn({
        let source = source.clone();
        async move { next(&source, 1).await }
    });
    let mut peer = Peer::start(&folder, Duration::from_secs(30), false);
    assert_eq!(peer.ask("delete"), "true");
    publish(&transport, vec![message("a", 1)]).await;
    assert_eq!(ids(&within(waiting).await.unwrap()), ["id-1"]);
}

#[tokio::test]
async fn a_source_whose_subscription_became_another_one_ends_with_a_conflict() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let mut keeper = Peer::start(&folder, Duration::from_secs(30), false);
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    let bystander = transport.subscribe(&spec("bystander", "#")).await.unwrap();
    // The peer's own source conflicts first, in its own process; ours finds out by looking.
    source.set_flow(false).await.unwrap();
    let sql =
        "UPDATE tidings_subscription SET ordered = 1, on_retry = 'wait', on_dead = 'park', id = 99 WHERE name = 's';
               UPDATE tidings_binding_version SET version = version + 1";
    child::execute(&folder.path(), sql);
    source.set_flow(true).await.unwrap();
    let error = within(source.next(1)).await.unwrap_err();
    assert_eq!((error.code(), error.field_name()), ("SUBSCRIPTION_CONFLICT", Some("ordered")));
    assert!(!source.health().consuming);
    publish(&transport, vec![message("a", 1)]).await;
    assert_eq!(ids(&collect(&bystander, 1).await), ["id-1"], "nobody else is concerned");
    assert_eq!(keeper.ask("publish 2"), "1");
}

/// Not a test: what the children of the tests above do.
#[test]
fn child_process() {
    let Some((role, args)) = child::role() else { return };
    match role.as_str() {
        "peer" => peer(&args),
        "lock" => {
            let conn = rusqlite::Connection::open(&args[0]).unwrap();
            conn.busy_timeout(Duration::from_secs(10)).unwrap();
            conn.execute_batch("BEGIN IMMEDIATE").unwrap();
            println!("\nlocked");
            // Until the parent closes the pipe.
            std::io::stdin().lines().for_each(drop);
            conn.execute_batch("ROLLBACK").unwrap();
        }
        _ => assert!(child::common(&role, &args), "{role}"),
    }
}
