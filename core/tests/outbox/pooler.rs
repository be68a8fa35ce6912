//! PostgreSQL behind `PgBouncer` in transaction mode: each transaction may be on another connection of the server.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidings::Broker;
use tidings::outbox::ParamStyle;

use crate::connection::Connection;
use crate::database::{Database, postgres_url};
use crate::relays::{event, start, subscribed, take_more, until};

const WRITERS: usize = 4;
const ROUNDS: usize = 15;

/// A pooler, and the URL of the database behind it.
struct Pooler {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            let _reaped = self.process.wait();
        }
    }
}

impl Pooler {
    /// Starts one with few connections, so that transactions take turns on them. `Err`: why there is none.
    async fn start() -> Result<Self, String> {
        let target = postgres_url();
        let config: tokio_postgres::Config =
            target.parse().map_err(|_| "DATABASE_URL is of another kind".to_owned())?;
        let Some(tokio_postgres::config::Host::Tcp(host)) = config.get_hosts().first() else {
            return Err("the database has no address".to_owned());
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (name, user) = (config.get_dbname().unwrap_or("tidings"), config.get_user().unwrap_or("tidings"));
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
        let behind = config.get_ports().first().copied().unwrap_or(5432);
        let settings = format!(
            "[databases]\n{name} = host={host} port={behind} dbname={name} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 3\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let program = program().ok_or("it is not installed")?;
        let mut command = Command::new(program);
        // It refuses to be root, and `nobody` must be able to read its settings.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        if std::fs::metadata(&file).unwrap().uid() == 0 {
            command.args(["-u", "nobody"]);
        }
        let command = command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(|e| e.to_string())?;
        let url = format!("postgres://{user}@127.0.0.1:{port}/{name}");
        let mut pooler = Self { process, url, _folder: folder };
        until("the pooler answers", async || {
            assert!(pooler.process.try_wait().unwrap().is_none(), "PgBouncer ended by itself");
            Connection::open(&pooler.url).await.is_ok()
        })
        .await;
        Ok(pooler)
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/opt/homebrew/bin".into()]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}

/// A database behind a pooler, or a skip that says why not.
async fn behind_a_pooler() -> Option<(Pooler, Database)> {
    match Database::postgres().await {
        Ok(database) => database.remove().await,
        Err(why) => {
            println!("SKIPPED: no PostgreSQL: {why}");
            return None;
        }
    }
    match Pooler::start().await {
        Ok(pooler) => {
            let database = Database::postgres_at(&pooler.url).await.unwrap();
            Some((pooler, database))
        }
        Err(why) => {
            println!("SKIPPED: no PgBouncer: {why}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_relays_work_behind_a_pooler_in_transaction_mode() {
    let Some((_pooler, database)) = behind_a_pooler().await else { return };
    let broker = Broker::connect("memory:").await.unwrap();
    let deliveries = subscribed(&broker).await;
    let first = start(&database, &broker, Duration::from_secs(5)).await;
    let second = start(&database, &broker, Duration::from_secs(5)).await;
    let writing = futures_util::future::join_all((0..WRITERS).map(async |writer| {
        let connection = Connection::open(&database.url).await.unwrap();
        let rows = database.writer().serialize(true);
        for number in 0..ROUNDS {
            let events: Vec<_> = (0..3).map(|key| event(&format!("{writer}.{key}"), number)).collect();
            connection.sql("BEGIN").await.unwrap();
            // What is rolled back is on a connection that somebody else gets next.
            let lost = rows.insert(ParamStyle::Dollar, &[event("rolled back", number)]).unwrap();
            connection.run(&lost).await.unwrap();
            connection.sql("ROLLBACK; BEGIN").await.unwrap();
            connection.run(&rows.insert(ParamStyle::Dollar, &events).unwrap()).await.unwrap();
            connection.sql("COMMIT").await.unwrap();
        }
    }));
    let mut last = HashMap::new();
    tokio::join!(writing, take_more(&deliveries, WRITERS * 3 * ROUNDS, &mut last));
    assert!(!last.contains_key("rolled back"));
    assert_eq!(first.health().parts + second.health().parts, 256);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    assert_eq!(database.outbox.status().await.unwrap().pending, 0);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_hears_nothing_polls() {
    let Some((_pooler, database)) = behind_a_pooler().await else { return };
    let broker = Broker::connect("memory:").await.unwrap();
    let deliveries = subscribed(&broker).await;
    // Who listens behind a pooler hears nothing, and looks by itself only when it renews its lease, every four seconds.
    let relay = database.another().await.relay(&broker).listen(true).poll_interval(Duration::from_secs(60));
    let relay = relay.lease(Duration::from_secs(12)).publish_timeout(Duration::from_secs(5)).start().await.unwrap();
    let polls = || relay.metrics().iter().find(|m| m.name == "tidings_outbox_polls_total").unwrap().value;
    until("it has looked", async || polls() >= 1.0).await;
    let (mut last, mut number, before) = (HashMap::new(), 0, polls());
    until("it polls", async || {
        database.outbox.publish([event("k", number)]).await.unwrap();
        take_more(&deliveries, 1, &mut last).await;
        number += 1;
        polls() >= before + 10.0
    })
    .await;
    relay.stop().await.unwrap();
    database.remove().await;
}
