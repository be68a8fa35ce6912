//! The Rust client of the rigs: does what the lines on stdin say and says what it did. `tests/clients/PROTOCOL.md`.

#[path = "../../../conformance/outbox/connection.rs"]
mod connection;
mod handler;
mod output;
mod publish;
mod session;
mod store;
mod write;

use tidings_test_client::protocol::Request;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use output::{say, say_error};
use session::Session;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut session = Session::default();
    while let Some(line) = lines.next_line().await? {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Request>(&line) {
            Ok(Request { n, command }) => session.run(n, command).await,
            Err(error) => {
                let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let n = value["n"].as_u64().unwrap_or(0);
                say_error(value["do"].as_str().unwrap_or("?"), n, "BAD_COMMAND", &error.to_string());
            }
        }
    }
    session.end().await?;
    say("end", 0, serde_json::json!({}));
    Ok(())
}
