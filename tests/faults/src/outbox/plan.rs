//! What the outbox goes through.

use crate::clocks::Clocks;
use crate::servers::Refused;

/// Where the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Postgres,
    MariaDb,
    Sqlite,
}

impl Database {
    /// Its name in `tests/services`, where it is a server.
    pub(crate) const fn server(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("postgres"),
            Self::MariaDb => Some("mariadb"),
            Self::Sqlite => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.server().unwrap_or("sqlite")
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// `kill -9` of a writer at any moment; another one takes over its work.
    KillWriter,
    /// `kill -9` of a writer that has written and not committed.
    KillBeforeCommit,
    /// `kill -9` of a relay; another one starts a moment later.
    KillRelay,
    /// SIGSTOP of one of the relays for longer than its lease, then SIGCONT.
    FreezeRelay,
    /// `kill -9` of a process whose handlers have an inbox; another one starts a moment later.
    KillHandler,
    /// `kill -9` of the database server, then a restart.
    KillDatabase,
    /// `kill -9` of RabbitMQ, then a restart.
    KillBroker,
    /// The wall clocks of a writer, a relay and a process with handlers are set, each to an hour before or after the time.
    StepClock,
}

impl Blow {
    /// Behind it, no more arrives twice than one relay had on its way.
    pub(super) const fn is_bounded(self) -> bool {
        !matches!(self, Self::KillDatabase | Self::KillBroker)
    }
}

/// One case: a database, and what strikes, in an order that is shuffled.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) database: Database,
    pub(crate) blows: Vec<Blow>,
}

impl Plan {
    /// The plans of a profile, with their names.
    pub(crate) fn all(long: bool) -> Vec<(String, Self)> {
        use Blow::{
            FreezeRelay, KillBeforeCommit, KillBroker, KillDatabase, KillHandler, KillRelay, KillWriter, StepClock,
        };
        let mut all = Vec::new();
        for database in [Database::Postgres, Database::MariaDb, Database::Sqlite] {
            let mut add = |name: &str, blows: &[(Blow, usize)]| {
                let possible = blows.iter().filter(|(blow, _)| *blow != KillDatabase || database.server().is_some());
                let blows: Vec<_> = possible.flat_map(|(blow, times)| vec![*blow; *times]).collect();
                if !blows.is_empty() {
                    all.push((format!("{}/{name}", database.name()), Self { database, blows }));
                }
            };
            if long {
                add("kill-writer", &[(KillWriter, 10), (KillBeforeCommit, 10)]);
                add("kill-relay", &[(KillRelay, 10)]);
                add("freeze-relay", &[(FreezeRelay, 4)]);
                add("kill-handler", &[(KillHandler, 10)]);
                add("kill-database", &[(KillDatabase, 4)]);
                add("kill-broker", &[(KillBroker, 4)]);
                add("clock-step", &[(StepClock, 10)]);
            }
            if long {
                add(
                    "mixed",
                    &[KillWriter, KillBeforeCommit, FreezeRelay, KillHandler, KillDatabase, KillBroker, KillRelay]
                        .map(|blow| (blow, 2)),
                );
                continue;
            }
            // Each blow once, over one database or another; relays at ten moments over one.
            match database {
                Database::Postgres => {
                    add("mixed", &[(KillRelay, 10), (KillDatabase, 1), (KillBeforeCommit, 1)]);
                }
                Database::MariaDb => {
                    add("mixed", &[(KillDatabase, 1), (KillHandler, 1), (KillWriter, 2), (KillRelay, 2)]);
                }
                Database::Sqlite => {
                    add("mixed", &[(KillBroker, 1), (FreezeRelay, 1), (KillBeforeCommit, 1), (KillRelay, 2)]);
                }
            }
        }
        all
    }
}

/// Where SQLite's file and the clocks are.
pub(super) struct Place {
    pub(super) folder: tempfile::TempDir,
    pub(super) clocks: Option<Clocks>,
}

impl Place {
    pub(super) fn new(plan: &Plan) -> Result<Self, Refused> {
        let folder = tempfile::tempdir().map_err(|e| Refused::Failed(e.to_string()))?;
        let clocks = plan.blows.contains(&Blow::StepClock).then(|| Clocks::new(folder.path())).transpose()?;
        Ok(Self { folder, clocks })
    }
}
