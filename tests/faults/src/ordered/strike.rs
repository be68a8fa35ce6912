//! What is done to the members, to what lies between them and the broker, and to the broker.

use std::time::{Duration, Instant};

use super::diary::now_us;
use super::plan::Disturbance;
use super::{ANSWER, OrderedRun, STUCK};
use crate::proxy::{Proxy, Weather};
use crate::servers::Refused;

/// Longer than RabbitMQ waits for a heartbeat of 2 s.
const FREEZE: Duration = Duration::from_millis(6500);
/// RabbitMQ writes its directory of quorum queues every five seconds.
const DIRECTORY_SAVED: Duration = Duration::from_secs(6);
/// In which queues elect their leaders, those that do.
const ELECTED: Duration = Duration::from_secs(2);

impl OrderedRun<'_> {
    /// The member that owns the subscription, most of the time; some other one else.
    fn victim(&mut self) -> usize {
        let owner = self.crew.subscribers.iter().position(|member| Some(member.client.number) == self.owner);
        let any = self.rng.usize(..self.crew.subscribers.len());
        owner.filter(|_| self.rng.u8(..8) > 0).unwrap_or(any)
    }

    /// Helps quorum queues that have no leader since a kill of the broker.
    pub(super) fn help_queues(&mut self) -> Result<(), Refused> {
        let leaderless = self.place.elect_leaders()?;
        self.diary.note(format!("{leaderless} queues without a leader"));
        self.leaderless += leaderless;
        Ok(())
    }

    pub(super) fn disturb(&mut self, disturbance: Disturbance) -> Result<(), Refused> {
        self.disturbed += 1;
        match disturbance {
            Disturbance::Kill => {
                let victim = self.victim();
                let mut dead = self.crew.subscribers.swap_remove(victim);
                self.diary.note(format!("kills {}", dead.client.number));
                dead.client.kill();
                self.kills += 1;
                // Where several own a part, whoever begins next need not be the one who took over.
                if Some(dead.client.number) == self.owner && self.plan.one_owner(self.place) {
                    self.killed = Some((Instant::now(), dead.client.number));
                }
                self.join().map_err(Refused::Failed)
            }
            Disturbance::Freeze => {
                let victim = self.victim();
                let from = now_us();
                self.crew.subscribers[victim].client.signal("STOP").map_err(Refused::Failed)?;
                let listened = self.listen_for(FREEZE);
                let client = &self.crew.subscribers[victim].client;
                client.signal("CONT").map_err(Refused::Failed)?;
                self.diary.frozen(client.number, from, now_us());
                listened.map_err(Refused::Failed)
            }
            Disturbance::Cut => self.place.close_connections(),
            Disturbance::Reset => self.place.proxy().map(Proxy::reset),
            Disturbance::Silence => {
                self.place.proxy()?.weather(Weather::Silent);
                let listened = self.listen_for(FREEZE);
                self.place.proxy()?.weather(Weather::Fair);
                listened.map_err(Refused::Failed)
            }
            Disturbance::Deploy => {
                for _ in 0..self.crew.subscribers.len() {
                    let old = self.crew.subscribers.remove(0);
                    old.client.finish(ANSWER).map_err(Refused::Failed)?;
                    self.join().map_err(Refused::Failed)?;
                    self.listen_for(Duration::from_millis(200)).map_err(Refused::Failed)?;
                }
                Ok(())
            }
            Disturbance::Scale(members) => {
                while self.crew.subscribers.len() > members {
                    let old = self.crew.subscribers.remove(0);
                    old.client.finish(ANSWER).map_err(Refused::Failed)?;
                }
                while self.crew.subscribers.len() < members {
                    self.join().map_err(Refused::Failed)?;
                }
                // They have to find their shares before the next one strikes.
                self.listen_for(Duration::from_secs(2)).map_err(Refused::Failed)
            }
            Disturbance::KillBroker => {
                // RabbitMQ may bring a quorum queue that is seconds old back with no leader, for good. Those of keys that
                // are parked meanwhile are: somebody has to help them.
                self.listen_for(DIRECTORY_SAVED).map_err(Refused::Failed)?;
                self.place.restart_broker()?;
                self.broker_kills += 1;
                self.listen_for(ELECTED).map_err(Refused::Failed)?;
                self.help_queues()?;
                // The next one strikes when somebody has handled something again.
                let back = Instant::now();
                while self.progress < back && self.ledger.missing > 0 && back.elapsed() < STUCK {
                    self.listen_for(Duration::from_millis(100)).map_err(Refused::Failed)?;
                }
                Ok(())
            }
        }
    }
}
