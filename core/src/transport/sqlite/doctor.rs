//! What `tidings doctor` looks at in a file.

use std::sync::Arc;
use std::time::Duration;

use super::schema::BROKER;
use super::store::Store;
use crate::Result;
use crate::doctor::{Check, Examination, Finding, Level};
use crate::event::Timestamp;

/// How far the wall clock may have moved since the store took its time from it.
const SKEW: Duration = Duration::from_secs(2);

/// Everything that can be seen in the file and of it.
pub(super) async fn examine(store: Arc<Store>, _about: &Examination) -> Result<Vec<Finding>> {
    let path = store.path.display().to_string();
    let (versions, now) = store
        .call(0, |tx| {
            let mut statement = tx.conn.prepare("SELECT component, version FROM tidings_schema ORDER BY component")?;
            let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok((rows.collect::<Result<Vec<(String, i64)>, _>>()?, tx.clock.now()))
        })
        .await?;
    let mut findings = vec![clock(&path, now)];
    findings.extend(mode(&store.path, &path));
    for (component, version) in versions {
        let known = if component == "broker" { format!(", this build knows {}", BROKER.len()) } else { String::new() };
        findings.push(Finding::ok(Check::Schema, &path, format!("{component} has version {version}{known}")));
    }
    Ok(findings)
}

fn clock(path: &str, store: i64) -> Finding {
    let skew = Duration::from_micros(store.abs_diff(Timestamp::now().as_micros()));
    if skew <= SKEW {
        return Finding::ok(Check::Clock, path, "the store's clock agrees with the host's");
    }
    let message =
        format!("the host's clock was set since the store took its time from it, {:.0} s apart", skew.as_secs_f64());
    Finding::new(Check::Clock, Level::Note, path, message)
        .remedy("delays and leases are right all the same; the next boot brings both together")
}

#[cfg(unix)]
fn mode(file: &std::path::Path, path: &str) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
    Some(if mode.trailing_zeros() >= 6 {
        Finding::ok(Check::Security, path, "only its owner can read it")
    } else {
        Finding::new(
            Check::Security,
            Level::Warning,
            path,
            format!("others than its owner can open it (mode {mode:o})"),
        )
        .remedy(format!("chmod 600 {path} (and its -wal and -shm)"))
    })
}

#[cfg(not(unix))]
fn mode(_file: &std::path::Path, _path: &str) -> Option<Finding> {
    None
}
