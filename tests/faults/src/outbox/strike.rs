//! What is done to the processes and the servers.

use std::time::{Duration, Instant};

use tidings_test_client::process::Client;
use tidings_test_client::protocol::Command;

use super::OutboxRun;
use super::plan::Blow;
use crate::crew::ANSWER;
use crate::servers::Refused;

/// Longer than a lease, and than RabbitMQ waits for a heartbeat of 2 s.
const FREEZE: Duration = Duration::from_millis(5500);
/// How far a clock is set, in seconds.
const HOUR: i64 = 3600;

impl OutboxRun<'_> {
    /// Does it, and hears meanwhile what the others say.
    pub(super) fn strike(&mut self, blow: Blow) -> Result<(), String> {
        self.struck.push((self.started.elapsed(), blow));
        self.duplicated_before.push(self.ledger.duplicated);
        match blow {
            Blow::KillWriter => self.kill_writer()?,
            Blow::KillBeforeCommit => self.kill_before_commit()?,
            Blow::KillRelay => {
                self.any_relay().kill();
                self.relay()?;
            }
            Blow::FreezeRelay => {
                let relay = self.any_relay();
                relay.signal("STOP")?;
                self.listen_for(FREEZE)?;
                relay.signal("CONT")?;
                self.relays.push(relay);
            }
            Blow::KillHandler => {
                // The first one sees the order.
                let victim = self.rng.usize(1..self.crew.subscribers.len());
                self.crew.subscribers.remove(victim).client.kill();
                self.subscribe_with_inbox()?;
            }
            Blow::KillDatabase => said(self.servers.restart(self.database.name()))?,
            Blow::KillBroker => said(self.servers.restart_broker())?,
            Blow::StepClock => self.step_clocks()?,
        }
        (self.healed, self.progress) = (Some(Instant::now()), Instant::now());
        Ok(())
    }

    fn any_relay(&mut self) -> Client {
        let victim = self.rng.usize(..self.relays.len());
        self.relays.swap_remove(victim)
    }

    /// Of one process of each kind.
    fn step_clocks(&mut self) -> Result<(), String> {
        let clocks = self.clocks.ok_or("there are no clocks")?;
        let writers = self.crew.publishers.iter().map(|p| p.client.number).collect::<Vec<_>>();
        let relays = self.relays.iter().map(|relay| relay.number).collect();
        // The first one sees the order.
        let handlers = self.crew.subscribers.iter().skip(1).map(|s| s.client.number).collect();
        for all in [writers, relays, handlers] {
            let Some(victim) = self.rng.choice(all) else { continue };
            let step = if self.rng.bool() { HOUR } else { -HOUR };
            clocks.set(victim, step).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn kill_writer(&mut self) -> Result<(), String> {
        if self.crew.publishers.is_empty() {
            return Ok(());
        }
        let victim = self.rng.usize(..self.crew.publishers.len());
        let mut dead = self.crew.publishers.swap_remove(victim);
        dead.client.kill();
        // Everything that it said before it died is still in the pipe.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let Some(said) = self.crew.listen(Duration::from_millis(20)) else { continue };
            let end = said.client == dead.client.number && said.line.is_none();
            self.note(&said)?;
            if end {
                break;
            }
        }
        self.write(dead.count - self.ledger.told_of(&dead.prefix))
    }

    /// Nothing of what it has written may ever be seen.
    fn kill_before_commit(&mut self) -> Result<(), String> {
        let mut client = self.client(false)?;
        let work = self.work(50, true);
        let (prefix, count) = (work.events.prefix.clone(), work.events.count);
        client.send(Command::Write(work))?;
        let deadline = Instant::now() + ANSWER;
        while self.written.as_ref() != Some(&prefix) {
            if Instant::now() > deadline {
                return Err("a writer did not come to its commit".to_owned());
            }
            self.listen()?;
        }
        client.kill();
        (0..count).for_each(|seq| self.ledger.forbid(&format!("{prefix}{seq}")));
        Ok(())
    }
}

fn said(done: Result<(), Refused>) -> Result<(), String> {
    done.map_err(|(Refused::Failed(why) | Refused::Skip(why))| why)
}
