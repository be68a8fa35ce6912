//! Servers that these cases may kill: of their own, on free ports and in a folder that goes with them. Where they cannot be had,
//! those of `tests/services`, if they are ours to disturb.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::servers::{Refused, as_user, canary, services, with_heartbeat};

const BROKER: &str = "rabbitmq3";
/// What is started, and the variable that has its URL.
const NAMES: [(&str, &str); 4] =
    [(BROKER, "AMQP_URL"), ("rabbitmq4", "AMQP4_URL"), ("postgres", "DATABASE_URL"), ("mariadb", "MYSQL_URL")];
/// Ends the servers and removes their folder as soon as nobody holds its input any more, however the rig has ended.
const KEEPER: &str = r#"cat >/dev/null; "$0" down >/dev/null; rm -rf "$TIDINGS_SERVICES_DIR""#;

/// The servers, started when they are first asked for.
pub(crate) struct Servers {
    program: PathBuf,
    started: OnceCell<Result<Started, String>>,
}

/// What the servers know us as, with a password that must not show.
const USER: &str = "tidings_rig";

struct Started {
    environment: Vec<(&'static str, String)>,
    /// Where their data are, if they are ours.
    folder: Option<PathBuf>,
    secret: String,
    urls: HashMap<&'static str, String>,
    keeper: Option<Child>,
}

impl Servers {
    pub(crate) fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), started: OnceCell::new() }
    }

    /// The broker's URL.
    pub(crate) fn broker(&self) -> Result<String, Refused> {
        self.broker_of(BROKER)
    }

    /// The URL of one of the brokers.
    pub(crate) fn broker_of(&self, name: &str) -> Result<String, Refused> {
        self.url(name).map(|url| with_heartbeat(&url))
    }

    /// `rabbitmqctl` and the like; what it wrote.
    pub(crate) fn ctl(&self, name: &str, arguments: &[&str]) -> Result<String, Refused> {
        let environment = self.started()?.environment.clone();
        services(Command::new(&self.program).args(["ctl", name]).args(arguments).envs(environment))
    }

    /// The URL of a server.
    pub(crate) fn url(&self, name: &str) -> Result<String, Refused> {
        let started = self.started()?;
        started.urls.get(name).cloned().ok_or_else(|| Refused::Skip(format!("there is no {name}")))
    }

    /// Looks for the password of our users in a folder, and in what a server of ours keeps there; the files that have it.
    pub(crate) fn leaks(&self, name: Option<&str>, folder: &Path) -> Result<Vec<String>, Refused> {
        let started = self.started()?;
        let Some(data) = &started.folder else { return Ok(Vec::new()) };
        let folders = std::iter::once(folder.to_owned()).chain(name.map(|name| data.join(name).join("data")));
        holding(&started.secret, folders)
    }

    /// Refuses where a server is not ours to disturb.
    pub(crate) fn may_disturb(&self, name: &str) -> Result<(), Refused> {
        self.control("cont", name)
    }

    pub(crate) fn restart_broker(&self) -> Result<(), Refused> {
        self.restart(BROKER)
    }

    /// `kill -9`, and starts it again; returns when it answers.
    pub(crate) fn restart(&self, name: &str) -> Result<(), Refused> {
        self.control("kill", name)?;
        self.control("start", name)
    }

    fn control(&self, verb: &str, name: &str) -> Result<(), Refused> {
        let environment = self.started()?.environment.clone();
        services(Command::new(&self.program).args([verb, name]).envs(environment)).map(drop)
    }

    fn started(&self) -> Result<&Started, Refused> {
        let started = self.started.get_or_init(|| match start(&self.program) {
            Ok(started) if started.urls.contains_key(BROKER) => Ok(started),
            Ok(_) => Ok(shared()),
            Err(Refused::Skip(why) | Refused::Failed(why)) => Err(why),
        });
        started.as_ref().map_err(|why| Refused::Failed(why.clone()))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            if let Err(error) = keeper.wait() {
                eprintln!("servers may be left behind: {error}");
            }
        }
    }
}

/// Starts servers of our own, as far as their programs are installed.
fn start(program: &Path) -> Result<Started, Refused> {
    let failed = |error: std::io::Error| Refused::Failed(error.to_string());
    // Not in a folder of root's: PostgreSQL and MariaDB run as somebody else then.
    let folder = tempfile::Builder::new()
        .prefix("tidings-faults-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in("/var/tmp")
        .map_err(failed)?;
    let ports: Vec<_> =
        NAMES.iter().map(|(name, _)| Ok(format!("{name}={}", port()?))).collect::<Result<_, Refused>>()?;
    let folder = folder.keep();
    let environment =
        vec![("TIDINGS_SERVICES_DIR", folder.display().to_string()), ("TIDINGS_SERVICES_PORTS", ports.join(" "))];
    let mut keeper = Command::new("sh");
    keeper.arg("-c").arg(KEEPER).arg(program).envs(environment.clone()).stdin(Stdio::piped()).process_group(0);
    let keeper = Some(keeper.spawn().map_err(failed)?);
    let (secret, urls) = (canary(), HashMap::new());
    let folder = Some(folder);
    let mut started = Started { environment: environment.clone(), folder, secret, urls, keeper };
    services(Command::new(program).arg("up").envs(environment.clone()))?;
    let exports = services(Command::new(program).arg("env").envs(environment))?;
    for (name, variable) in NAMES {
        let export =
            exports.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(variable)?.strip_prefix('='));
        let Some(url) = export else { continue };
        started.urls.insert(name, as_user(url, USER, &started.secret));
        for arguments in admission(name, &started.secret) {
            services(Command::new(program).args(["ctl", name]).args(arguments).envs(started.environment.clone()))?;
        }
    }
    Ok(started)
}

/// What lets our user into a server.
fn admission(name: &str, password: &str) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let role = format!("CREATE ROLE {USER} SUPERUSER LOGIN PASSWORD '{password}'");
    let user = format!("CREATE USER {USER}@'%' IDENTIFIED BY '{password}'; GRANT ALL ON tidings.* TO {USER}@'%'");
    match name {
        "postgres" => vec![words(&["-c", &role])],
        "mariadb" => vec![words(&["-e", &user])],
        _ => vec![words(&["add_user", USER, password]), words(&["set_permissions", USER, ".*", ".*", ".*"])],
    }
}

/// The files in these folders that have a text in them.
fn holding(text: &str, folders: impl Iterator<Item = PathBuf>) -> Result<Vec<String>, Refused> {
    let found = Command::new("grep").args(["-rlsF", "-e", text]).args(folders).output();
    let found = found.map_err(|e| Refused::Failed(format!("grep: {e}")))?;
    Ok(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect())
}

/// What the environment names.
fn shared() -> Started {
    let urls = NAMES.iter().filter_map(|(name, variable)| Some((*name, std::env::var(variable).ok()?)));
    let (environment, secret, urls) = (Vec::new(), String::new(), urls.collect());
    Started { environment, folder: None, secret, urls, keeper: None }
}

/// A free port. RabbitMQ takes those 10,000 and 20,000 above it for itself.
fn port() -> Result<u16, Refused> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut tries = std::iter::repeat_with(|| fastrand::u16(12_000..22_000)).take(100);
    tries
        .find(|port| [0, 10_000, 20_000].iter().all(|above| free(port + above)))
        .ok_or_else(|| Refused::Failed("no port is free".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::holding;

    #[test]
    fn a_text_is_found_in_what_is_no_text() {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let (deep, other) = (folder.path().join("data/base"), folder.path().join("other"));
        std::fs::create_dir_all(&deep).and_then(|()| std::fs::create_dir_all(&other)).unwrap_or_else(|e| panic!("{e}"));
        std::fs::write(deep.join("1"), b"\x00\xff\x01canary0\x00").unwrap_or_else(|e| panic!("{e}"));
        std::fs::write(other.join("2"), b"a bird").unwrap_or_else(|e| panic!("{e}"));
        let found = holding("canary0", [folder.path().join("data"), other].into_iter()).unwrap_or_default();
        assert_eq!(found, [deep.join("1").display().to_string()]);
    }
}
