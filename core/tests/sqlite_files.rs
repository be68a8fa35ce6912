//! Files that a store cannot be in, and what is said about them.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod sqlite_support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlite_support::*;
use tidings::transport::registry;

async fn refused(path: &Path) -> tidings::Error {
    let error = registry::connect(&url(path)).await.err().unwrap();
    assert_eq!(error.field_name(), Some("path"), "{error}");
    assert!(error.remedy_text().is_some(), "{error}");
    error
}

#[tokio::test]
async fn a_url_that_cannot_be_understood() {
    for (bad, part) in
        [("sqlite:", "empty"), ("sqlite:x.db?journal=off", "journal"), ("sqlite:x.db?busy_timeout=x", "busy_timeout")]
    {
        let error = registry::connect(bad).await.err().unwrap();
        assert_eq!(error.code(), "INVALID_URL");
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!Path::new("x.db").exists());
}

#[tokio::test]
async fn a_folder_that_does_not_exist_and_a_path_that_is_a_folder() {
    let folder = Folder::new();
    let error = refused(&folder.path().join("no/such.db")).await;
    assert_eq!(error.code(), "CONNECTION_FAILED");
    assert!(error.to_string().contains("create"), "{error}");
    assert_eq!(refused(folder.path().parent().unwrap()).await.code(), "CONNECTION_FAILED");
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let transport = folder.connect().await;
    let _source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", folder.path().display());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let folder = Folder::new();
    fs::write(folder.path(), "this is a text of some length, and certainly not a database at all\n".repeat(100))
        .unwrap();
    assert_eq!(refused(&folder.path()).await.code(), "STORE_CORRUPT");
}

#[tokio::test]
async fn a_damaged_store() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let _source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, (0..500).map(|n| message("a", n)).collect()).await;
    transport.close().await.unwrap();
    let mut bytes = fs::read(folder.path()).unwrap();
    bytes[100..].fill(0x5a);
    fs::write(folder.path(), bytes).unwrap();
    assert_eq!(refused(&folder.path()).await.code(), "STORE_CORRUPT");
}

#[tokio::test]
async fn a_newer_schema() {
    let folder = Folder::new();
    folder.connect().await.close().await.unwrap();
    child::execute(&folder.path(), "UPDATE tidings_schema SET version = 99 WHERE component = 'broker'");
    let error = refused(&folder.path()).await;
    assert_eq!(error.code(), "SCHEMA_TOO_NEW");
    assert!(error.to_string().contains("99"), "{error}");
    assert_eq!(child::query(&folder.path(), "SELECT version FROM tidings_schema"), 99, "nothing was changed");
}

#[tokio::test]
async fn a_database_of_somebody_else_is_shared_peacefully() {
    let folder = Folder::new();
    child::execute(&folder.path(), "CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (7)");
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    assert_eq!(collect(&source, 1).await.len(), 1);
    assert_eq!(child::query(&folder.path(), "SELECT id FROM orders"), 7);
}

/// Runs `command`; whether it worked.
fn run(command: &str, args: &[&str]) -> bool {
    Command::new(command).args(args).output().is_ok_and(|output| output.status.success())
}

struct Mount(std::path::PathBuf);

impl Mount {
    /// A file system of `size` in memory, if this user may mount one.
    fn new(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[tokio::test]
async fn a_read_only_file_or_folder() {
    let folder = Folder::new();
    let at = folder.path().with_file_name("mount");
    let Some(mount) = Mount::new(&at, "8m") else {
        println!("SKIPPED: this user may not mount a file system (for the superuser nothing else is read-only)");
        return;
    };
    let path = at.join("tidings.db");
    let transport = registry::connect(&url(&path)).await.unwrap();
    transport.close().await.unwrap();
    // A child that another test is just starting holds a copy of every open file until it is what it is to become.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !run("mount", &["-o", "remount,ro", mount.0.to_str().unwrap()]) {
        assert!(Instant::now() < deadline, "the file is still open");
        tokio::task::yield_now().await;
    }
    assert_eq!(refused(&path).await.code(), "STORE_READ_ONLY");
    assert_eq!(refused(&at.join("new.db")).await.code(), "STORE_READ_ONLY");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_the_store_goes_on() {
    let folder = Folder::new();
    let at = folder.path().with_file_name("mount");
    let Some(_mount) = Mount::new(&at, "4m") else {
        println!("SKIPPED: this user may not mount a file system of a small size");
        return;
    };
    let path = at.join("tidings.db");
    let transport = registry::connect(&url(&path)).await.unwrap();
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    let ballast = at.join("ballast");
    fs::write(&ballast, vec![0u8; 1024 * 1024]).unwrap();
    let mut stored = 0;
    let error = loop {
        assert!(stored < 10_000);
        let mut event = message("a", stored);
        event.body = vec![b'x'; 20_000].into();
        match transport.publish(vec![event]).await.remove(0) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "STORE_FULL", "{error}");
    assert!(error.retryable());
    assert!(error.remedy_text().is_some());
    fs::remove_file(&ballast).unwrap();
    eventually("the store works again", || async {
        transport.publish(vec![message("a", 99_999)]).await.remove(0).is_ok()
    })
    .await;
    let mut all = collect(&source, stored).await;
    ack(&source, &all).await;
    all.extend(collect(&source, 1).await);
    for (n, incoming) in all[..stored].iter().enumerate() {
        assert_eq!(*incoming.message.id, *format!("id-{n}"));
    }
    assert_eq!(&*all[stored].message.id, "id-99999");
}

#[tokio::test]
async fn one_file_is_one_store_in_a_process() {
    let folder = Folder::new();
    let link = folder.path().with_file_name("link.db");
    let first = folder.connect().await;
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    #[cfg(not(unix))]
    let link = folder.path();
    let second = registry::connect(&url(&link)).await.unwrap();
    let source = first.subscribe(&spec("s", "#")).await.unwrap();
    publish(&second, vec![message("a", 1)]).await;
    assert_eq!(collect(&source, 1).await.len(), 1);
    #[cfg(target_os = "linux")]
    {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        assert_eq!(open.filter(|file| *file == folder.path()).count(), 1);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_the_host_has_open_is_refused() {
    let folder = Folder::new();
    // Stands for the host's own copy of SQLite.
    let host = fs::File::create(folder.path()).unwrap();
    assert_eq!(refused(&folder.path()).await.code(), "STORE_SHARED_IN_PROCESS");
    drop(host);
    folder.connect().await.ping().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_moved_away_takes_no_events() {
    let folder = Folder::new();
    let transport = folder.connect().await;
    let source = transport.subscribe(&spec("s", "#")).await.unwrap();
    publish(&transport, vec![message("a", 1)]).await;
    let aside = folder.path().with_file_name("aside.db");
    fs::rename(folder.path(), &aside).unwrap();
    let error = transport.publish(vec![message("a", 2)]).await.remove(0).unwrap_err();
    assert_eq!(error.code(), "CONNECTION_FAILED", "{error}");
    fs::rename(&aside, folder.path()).unwrap();
    publish(&transport, vec![message("a", 3)]).await;
    assert_eq!(ids(&collect(&source, 2).await), ["id-1", "id-3"]);
}

#[tokio::test]
async fn opening_and_closing_again_and_again() {
    let folder = Folder::new();
    for n in 0..30 {
        let transport = folder.connect().await;
        let source = transport.subscribe(&spec("s", "#")).await.unwrap();
        publish(&transport, vec![message("a", n)]).await;
        let got = collect(&source, 1).await;
        ack(&source, &got).await;
        if n % 2 == 0 {
            transport.close().await.unwrap();
        }
    }
}

/// Not a test: what the children of the tests above do.
#[test]
fn child_process() {
    if let Some((role, args)) = child::role() {
        assert!(child::common(&role, &args), "{role}");
    }
}
