//! What an idle subscriber costs: the Rust client process, subscribed and with nothing to do.

use std::sync::mpsc::channel;
use std::time::Duration;

use tidings_test_client::process::{Client, rust_client};
use tidings_test_client::protocol::{Command, Subscribe};

use crate::measure::BoxError;
use crate::results::Results;

/// Most that it may take, in MiB.
const LIMIT: f64 = 15.0;
const ANSWER: Duration = Duration::from_secs(30);

/// Measures on the embedded file and on every RabbitMQ.
pub(crate) fn run(results: &mut Results) -> Result<(), BoxError> {
    let program = rust_client()?;
    let folder = tempfile::tempdir()?;
    let embedded = ("sqlite".to_owned(), format!("sqlite:{}", folder.path().join("idle.db").display()));
    let servers = crate::amqp::servers().into_iter().map(|server| (server.name.to_owned(), server.url));
    for (name, url) in std::iter::once(embedded).chain(servers) {
        let (speak, _heard) = channel();
        let mut client = Client::start(&program, 1, speak)?;
        client.ask(Command::Connect { url }, ANSWER)?;
        let subscription = format!("bench-idle-{}", std::process::id());
        client.ask(Command::Subscribe(Subscribe::new(&subscription, "bench-idle.#")), ANSWER)?;
        client.ask(Command::Health, ANSWER)?;
        // What it needed to get going is given back, if it is.
        std::thread::sleep(Duration::from_secs(1));
        let rss = client.ask(Command::Stats, ANSWER)?.rest["rss_bytes"].as_f64();
        client.ask(Command::Stop, ANSWER)?;
        client.ask(Command::Delete { name: subscription }, ANSWER)?;
        client.finish(ANSWER)?;
        if let Some(rss) = rss {
            results.limit(&format!("idle subscriber on {name}"), "MiB RSS", rss / 1_048_576.0, LIMIT);
        }
    }
    Ok(())
}
