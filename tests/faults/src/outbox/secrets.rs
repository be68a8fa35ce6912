//! What an outbox must not keep, and nobody may say: the passwords of the URLs that everybody was given.

use tidings_test_client::protocol::Command;

use super::OutboxRun;
use crate::crew::ANSWER;
use crate::servers::Refused;

impl OutboxRun<'_> {
    /// Whether no password of a URL is where the database keeps what it is told. A store that is not there is talked about, too.
    pub(super) fn keeps_secrets(&mut self) -> Result<(), String> {
        if self.database.server().is_some() {
            let mut client = self.crew.client()?;
            for url in [format!("{}-none", self.store), format!("x{}", self.store)] {
                let store = Command::Store { url, table: self.table.clone(), install: true };
                if client.ask(store, ANSWER).is_ok() {
                    return Err("a store's URL that is wrong was good enough".to_owned());
                }
            }
            client.finish(ANSWER)?;
        }
        let leaks = self.servers.leaks(self.database.server(), self.place.folder.path());
        match leaks.map_err(|(Refused::Failed(why) | Refused::Skip(why))| why)? {
            files if files.is_empty() => Ok(()),
            files => Err(format!("the password is kept in {}", files.join(" "))),
        }
    }
}
