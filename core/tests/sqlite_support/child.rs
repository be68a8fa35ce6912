//! Other processes: this test binary, started again with an environment variable that says what it is to do.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Name of the variable; the test `child_process` of every test file reads it.
pub(crate) const ROLE: &str = "TIDINGS_TEST_CHILD";

/// Starts this test binary as a child with `role` and `args`, its standard input and output piped.
pub(crate) fn start(role: &str, args: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env("TIDINGS_TEST_ARGS", args.join("\u{1f}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The role and arguments of this process, if it is a child.
pub(crate) fn role() -> Option<(String, Vec<String>)> {
    let role = std::env::var(ROLE).ok()?;
    let args = std::env::var("TIDINGS_TEST_ARGS").unwrap_or_default();
    Some((role, args.split('\u{1f}').map(str::to_owned).collect()))
}

/// Runs a query for one number in a child.
pub(crate) fn query(path: &Path, sql: &str) -> i64 {
    let output = start("query", &[&path.display().to_string(), sql]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(|line| line.strip_prefix("= ")).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

/// What every child can do.
pub(crate) fn common(role: &str, args: &[String]) -> bool {
    let conn = || {
        let conn = rusqlite::Connection::open(&args[0]).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        conn
    };
    match role {
        "query" => println!("\n= {}", conn().query_row(&args[1], [], |r| r.get::<_, i64>(0)).unwrap()),
        "execute" => conn().execute_batch(&args[1]).unwrap(),
        _ => return false,
    }
    true
}

/// Executes statements in a child.
pub(crate) fn execute(path: &Path, sql: &str) {
    let output = start("execute", &[&path.display().to_string(), sql]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
