//! Opening a file: pragmas, schema, clock, and the thread that writes it from then on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

use super::clock::Clock;
use super::error::{Fault, Step, is_busy, typed};
use super::queue::Queue;
use super::registry::FileId;
use super::schema;
use super::store::Store;
use super::url::{Options, Synchronous};
use super::writer::Writer;
use crate::{Error, ErrorKind, Result};

/// Statements that are kept prepared: all there are, with room to spare.
const STATEMENTS: usize = 128;

/// Opens the file and starts its thread. Blocks.
pub(super) fn start(options: &Options, id: FileId) -> Result<Arc<Store>> {
    let (conn, clock) = connect(options)?;
    let queue = Arc::new(Queue::new());
    let (ended, watch) = watch::channel(false);
    let store = Arc::new(Store::new(options.path.clone(), queue.clone(), watch));
    let writer = Writer::new(conn, clock, queue, options.clone(), id, ended);
    std::thread::Builder::new().name("tidings-sqlite".to_owned()).spawn(move || writer.run()).map_err(|e| {
        Error::new(ErrorKind::ConnectionFailed, "no thread for the store could be started")
            .remedy("raise the limit of threads")
            .source(e)
    })?;
    Ok(store)
}

pub(super) fn connect(options: &Options) -> Result<(Connection, Clock)> {
    let path = &options.path;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| typed(path, e))?;
    let deadline = Instant::now() + options.busy_timeout;
    loop {
        match prepare(&conn, options) {
            Ok(clock) => return Ok((conn, clock)),
            // SQLite's own handler is not called for every kind of lock that a new file meets.
            Err(Fault::Store(error)) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_micros(fastrand::u64(500..3000)));
            }
            Err(fault) => return Err(fault.into_error(path)),
        }
    }
}

fn prepare(conn: &Connection, options: &Options) -> Step<Clock> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Waiting is done by the writer, which is fairer to other processes than SQLite's handler.
    conn.busy_timeout(Duration::ZERO)?;
    if conn.is_readonly("main")? {
        return Err(Error::new(ErrorKind::StoreReadOnly, "the file of the store is read-only")
            .field("path", options.path.display())
            .remedy("make the file and its folder writable for this user")
            .into());
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::new(
            ErrorKind::ConnectionFailed,
            format!("the file system cannot hold a store (journal mode {mode})"),
        )
        .field("path", options.path.display())
        .remedy("put the file on a local disk: several processes share memory beside it")
        .into());
    }
    synchronous(conn, options)?;
    // A checkpoint waits for the disk twice; pages that change again and again are written once between two of them.
    conn.execute_batch(
        "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8000; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let prepared = schema::migrate(conn, &options.path).and_then(|()| Clock::load(conn));
    let ended = match &prepared {
        Ok(clock) => conn.execute_batch("COMMIT").and_then(|()| lend(conn, *clock)).map_err(Fault::from),
        Err(_) => Ok(()),
    };
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    ended.and(prepared)
}

/// The store's clock as a function of SQL.
fn lend(conn: &Connection, clock: Clock) -> rusqlite::Result<()> {
    conn.create_scalar_function("tidings_now", 0, FunctionFlags::SQLITE_UTF8, move |_| Ok(clock.now()))
}

/// Sets when SQLite waits for the disk. Not inside a transaction.
pub(super) fn synchronous(conn: &Connection, options: &Options) -> Step<()> {
    let level = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    conn.execute_batch(&format!("PRAGMA synchronous = {level}"))?;
    Ok(())
}
