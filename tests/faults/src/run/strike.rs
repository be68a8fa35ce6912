//! What is done to the processes, the broker and what lies between them.

use std::time::{Duration, Instant};

use super::Run;
use crate::crew::subscription;
use crate::fault::Fault;
use crate::proxy::Weather;
use crate::servers::Refused;

/// How long weather lasts that does not end connections.
const SPELL: Duration = Duration::from_secs(2);
/// Longer than the heartbeat of 2 s is waited for.
const SILENCE: Duration = Duration::from_secs(5);
/// A clock is set by at most a day.
const DAY: i64 = 86_400;

impl Run<'_> {
    /// Does it, and hears meanwhile what the others say.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<(), Refused> {
        self.crew.subscribers.iter_mut().for_each(|s| s.frozen = false);
        let place = self.place;
        match fault {
            Fault::KillPublisher => self.kill_publisher()?,
            Fault::KillSubscriber => {
                let victim = self.rng.usize(..self.crew.subscribers.len());
                self.crew.subscribers.swap_remove(victim).client.kill();
                let what = subscription(&self.name, self.case.classic, self.long);
                self.crew.subscribe(&what).map_err(Refused::Failed)?;
            }
            Fault::FreezeSubscriber => {
                let victim = self.rng.usize(..self.crew.subscribers.len());
                let client = &self.crew.subscribers[victim].client;
                client.signal("STOP").map_err(Refused::Failed)?;
                // Longer than the lease (1.5 s), and than RabbitMQ waits for a heartbeat of 2 s.
                self.listen_for(if self.case.server.is_rabbitmq() { SILENCE } else { SILENCE / 2 })?;
                let subscriber = &mut self.crew.subscribers[victim];
                subscriber.client.signal("CONT").map_err(Refused::Failed)?;
                subscriber.frozen = true;
            }
            Fault::FreezePublisher => self.freeze_publisher()?,
            Fault::KillBroker => place.restart_broker()?,
            Fault::CloseConnections => place.close_connections()?,
            Fault::DeleteQueue => place.delete_queue(&self.name)?,
            Fault::MemoryAlarm => {
                place.alarm(true)?;
                self.listen_for(SPELL)?;
                place.alarm(false)?;
            }
            Fault::FillDisk => {
                place.fill(true)?;
                self.listen_for(SPELL)?;
                place.fill(false)?;
            }
            Fault::Cut | Fault::Delay | Fault::Halve | Fault::BlackHole | Fault::Reset => self.disturb_lines(fault)?,
            Fault::ReadOnly => self.forbid_writing()?,
            Fault::StepClock => self.step_clock()?,
        }
        self.struck += 1;
        self.healed = Some(Instant::now());
        self.progress = Instant::now();
        Ok(())
    }

    fn disturb_lines(&mut self, fault: Fault) -> Result<(), Refused> {
        let proxy = self.place.proxy()?;
        let (weather, time) = match fault {
            Fault::Delay => (Weather::Slow(Duration::from_millis(self.rng.u64(50..400))), SPELL),
            Fault::Halve => (proxy.half(), SPELL),
            Fault::BlackHole => (Weather::Silent, SILENCE),
            Fault::Reset => {
                proxy.reset();
                return Ok(());
            }
            _ => {
                proxy.cut();
                return Ok(());
            }
        };
        proxy.weather(weather);
        self.listen_for(time)?;
        proxy.weather(Weather::Fair);
        Ok(())
    }

    /// Sets the clock of one publisher and of one subscriber.
    fn step_clock(&mut self) -> Result<(), Refused> {
        let clocks = self.place.clocks.as_ref().ok_or_else(|| Refused::Failed("there are no clocks".to_owned()))?;
        let publishers = self.crew.publishers.iter().map(|p| p.client.number);
        let subscribers = self.crew.subscribers.iter().map(|s| s.client.number);
        for all in [publishers.collect::<Vec<_>>(), subscribers.collect()] {
            let Some(victim) = (!all.is_empty()).then(|| self.rng.choice(all)).flatten() else { continue };
            let step = self.rng.i64(-DAY..=DAY);
            clocks.set(victim, step).map_err(|e| Refused::Failed(e.to_string()))?;
        }
        Ok(())
    }

    fn freeze_publisher(&mut self) -> Result<(), Refused> {
        if self.crew.publishers.is_empty() {
            return Ok(());
        }
        let victim = self.rng.usize(..self.crew.publishers.len());
        self.crew.publishers[victim].client.signal("STOP").map_err(Refused::Failed)?;
        self.listen_for(SILENCE)?;
        self.crew.publishers[victim].client.signal("CONT").map_err(Refused::Failed)
    }

    fn kill_publisher(&mut self) -> Result<(), Refused> {
        if self.crew.publishers.is_empty() {
            return Ok(());
        }
        let victim = self.rng.usize(..self.crew.publishers.len());
        let left = self.end_publisher(victim)?;
        self.publish(left)
    }

    /// `kill -9` of a publisher; how much of its work is left.
    fn end_publisher(&mut self, victim: usize) -> Result<u64, Refused> {
        let mut dead = self.crew.publishers.swap_remove(victim);
        dead.client.kill();
        // Everything that it said before it died is still in the pipe.
        let number = dead.client.number;
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let Some(said) = self.crew.listen(Duration::from_millis(20)) else { continue };
            let end = said.client == number && said.line.is_none();
            self.note(said)?;
            if end {
                break;
            }
        }
        Ok(dead.count - self.ledger.confirmed_of(&dead.prefix))
    }

    /// A file that somebody has open to write cannot be taken from them: everybody is killed first.
    fn forbid_writing(&mut self) -> Result<(), Refused> {
        let mut left = Vec::new();
        while !self.crew.publishers.is_empty() {
            left.push(self.end_publisher(0)?);
        }
        let members = self.crew.subscribers.len();
        self.crew.subscribers.drain(..).for_each(|mut member| member.client.kill());
        self.place.read_only(true)?;
        let refused = self.crew.client();
        self.place.read_only(false)?;
        match refused {
            Err(why) if why.contains("STORE_READ_ONLY") => {}
            Err(why) => return Err(Refused::Failed(format!("a read-only file is refused with {why}"))),
            Ok(_) => return Err(Refused::Failed("a read-only file is good enough".to_owned())),
        }
        let what = subscription(&self.name, self.case.classic, self.long);
        for _ in 0..members {
            self.crew.subscribe(&what).map_err(Refused::Failed)?;
        }
        left.into_iter().try_for_each(|count| self.publish(count))
    }

    pub(super) fn listen_for(&mut self, time: Duration) -> Result<(), Refused> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if let Some(said) = self.crew.listen(Duration::from_millis(20)) {
                self.note(said)?;
            }
        }
        Ok(())
    }
}
