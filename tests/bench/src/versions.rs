//! What was measured with what: the servers as they answer, the libraries as they are pinned, the interpreters as they say.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

/// Versions by name.
pub(crate) type Versions = BTreeMap<String, String>;

const LOCK: &str = include_str!("../../../Cargo.lock");
const PYTHON: &str = include_str!("../python/requirements.txt");
const NODE: &str = include_str!("../node/package.json");
/// Of all that the workspace is locked to, what is measured.
const CRATES: [&str; 4] = ["tidings", "lapin", "rusqlite", "tokio-postgres"];
const PATIENCE: Duration = Duration::from_secs(5);

/// All there are on this machine. A server that does not answer is left out.
pub(crate) fn all() -> Versions {
    let mut all = Versions::new();
    let mut add = |name: &str, version: Option<String>| {
        if let Some(version) = version {
            all.insert(name.to_owned(), version);
        }
    };
    for (name, variable) in [("RabbitMQ (rabbitmq3)", "AMQP_URL"), ("RabbitMQ (rabbitmq4)", "AMQP4_URL")] {
        add(name, url(variable).and_then(|url| rabbitmq(&address(&url, 5672)?)));
    }
    add("PostgreSQL", url("DATABASE_URL").and_then(|url| postgres(&url)));
    add("MariaDB", url("MYSQL_URL").and_then(|url| mariadb(&address(&url, 3306)?)));
    add("SQLite", Some(rusqlite::version().to_owned()));
    for (name, program) in [("rustc", "rustc"), ("Python", "python3"), ("Node", "node")] {
        add(name, said(program));
    }
    for name in CRATES {
        add(name, locked(name));
    }
    for line in PYTHON.lines() {
        if let Some((name, version)) = line.split_once("==") {
            add(name, Some(version.to_owned()));
        }
    }
    for (name, version) in packages() {
        add(&name, Some(version));
    }
    all
}

fn url(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

/// Host and port of a URL.
fn address(url: &str, usual: u16) -> Option<String> {
    let host = url.split_once("//")?.1.split(['/', '?']).next()?.rsplit('@').next()?;
    Some(if host.contains(':') { host.to_owned() } else { format!("{host}:{usual}") })
}

/// What a server says first, to those who say `hello`.
fn greeting(address: &str, hello: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(hello).ok()?;
    let mut said = vec![0; 4096];
    let count = stream.read(&mut said).ok()?;
    said.truncate(count);
    Some(said)
}

/// From the table of properties with which it starts every connection.
fn rabbitmq(address: &str) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let said = greeting(address, b"AMQP\x00\x00\x09\x01")?;
    let at = said.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
    let length = u32::from_be_bytes(said.get(at..at + 4)?.try_into().ok()?);
    let text = said.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// From its first packet: length, number and protocol, then a text that ends with a zero.
fn mariadb(address: &str) -> Option<String> {
    let said = greeting(address, b"")?;
    let text = said.get(5..)?.split(|byte| *byte == 0).next()?;
    // What clients of old want to see in front.
    Some(String::from_utf8_lossy(text).trim_start_matches("5.5.5-").to_owned())
}

fn postgres(url: &str) -> Option<String> {
    let asked = async {
        let client = crate::outbox::connect(url).await.ok()?;
        client.query_one("SHOW server_version", &[]).await.ok()?.try_get(0).ok()
    };
    tokio::runtime::Runtime::new().ok()?.block_on(asked)
}

/// The version in what `program --version` says.
fn said(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    version.into_iter().find(|word| word.starts_with(|first: char| first.is_ascii_digit())).map(str::to_owned)
}

fn locked(name: &str) -> Option<String> {
    let (_, package) = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    package.split('"').next().map(str::to_owned)
}

fn packages() -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Package {
        dependencies: BTreeMap<String, String>,
    }
    serde_json::from_str(NODE).map_or_else(|_| BTreeMap::new(), |package: Package| package.dependencies)
}

#[cfg(test)]
mod tests {
    use super::{CRATES, address, locked, packages};

    #[test]
    fn what_is_pinned_has_a_version() {
        for name in CRATES {
            assert!(locked(name).is_some_and(|version| version.contains('.')), "{name}");
        }
        assert!(packages().contains_key("amqplib"));
        assert_eq!(address("amqp://me:x@host/v?a=b", 5672).as_deref(), Some("host:5672"));
        assert_eq!(address("amqp://host:7/v", 5672).as_deref(), Some("host:7"));
    }
}
