//! The brokers that cases run on, and `tests/services`, which disturbs those that are ours.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Why something could not be done.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The server is not ours to disturb, or is not there.
    Skip(String),
    /// It should have worked.
    Failed(String),
}

/// One broker to run cases on.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Name in `tests/services`, or `sqlite`.
    pub(crate) name: &'static str,
    /// Environment variable with its URL.
    variable: &'static str,
    services: PathBuf,
}

impl Server {
    /// The brokers of the rig.
    pub(crate) fn all(services: &Path) -> Vec<Self> {
        [("sqlite", ""), ("rabbitmq3", "AMQP_URL"), ("rabbitmq4", "AMQP4_URL")]
            .map(|(name, variable)| Self { name, variable, services: services.to_owned() })
            .into()
    }

    /// The RabbitMQ that there is everywhere.
    pub(crate) fn rabbitmq(services: &Path) -> Self {
        Self { name: "rabbitmq3", variable: "AMQP_URL", services: services.to_owned() }
    }

    /// Whether it is a server of its own, which can be killed.
    pub(crate) fn is_rabbitmq(&self) -> bool {
        !self.variable.is_empty()
    }

    /// A virtual host of its own for a case: its URL and its name. The name is missing where the server is not ours.
    ///
    /// Delays are shared by all subscriptions of one, and a queue that somebody left there and that refuses what comes due
    /// would hold them up.
    pub(crate) fn vhost(&self) -> Result<(String, Option<String>), Refused> {
        let given = self.url()?;
        let name = format!("tidings-faults-{}", std::process::id());
        match self.ctl(&["add_vhost", &name]) {
            Ok(()) => {}
            Err(Refused::Skip(_)) => return Ok((given, None)),
            Err(failed) => return Err(failed),
        }
        let password = canary();
        self.ctl(&["add_user", &name, &password])?;
        self.ctl(&["set_permissions", "-p", &name, &name, ".*", ".*", ".*"])?;
        let (base, query) = given.split_once('?').unwrap_or((&given, ""));
        let host = as_user(base, &name, &password);
        let host = host.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        Ok((format!("{host}/{name}?{query}"), Some(name)))
    }

    fn url(&self) -> Result<String, Refused> {
        let url = std::env::var(self.variable)
            .map_err(|_| Refused::Skip(format!("{} is not set (eval \"$(tests/services env)\")", self.variable)))?;
        Ok(with_heartbeat(&url))
    }

    /// `rabbitmqctl`.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Result<(), Refused> {
        services(Command::new(&self.services).args(["ctl", self.name]).args(arguments)).map(drop)
    }
}

/// A password that is looked for in everything that clients print, and in what databases keep.
pub(crate) fn canary() -> String {
    format!("canary{:016x}", fastrand::u64(..))
}

/// The URL with another user.
pub(crate) fn as_user(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("//").unwrap_or(("amqp:", url));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}//{user}:{password}@{host}/{path}")
}

/// A frozen client is given up on within seconds, so that it has to recover.
pub(crate) fn with_heartbeat(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    if url.contains("heartbeat=") { url.to_owned() } else { format!("{url}{separator}heartbeat=2") }
}

/// Runs `tests/services`, and returns what it wrote.
pub(crate) fn services(command: &mut Command) -> Result<String, Refused> {
    let output = command.output().map_err(|e| Refused::Failed(format!("{command:?}: {e}")))?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(3) => Err(Refused::Skip(text)),
        _ => Err(Refused::Failed(format!("{command:?}: {text}"))),
    }
}
