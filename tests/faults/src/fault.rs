//! What goes wrong.

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of a publisher; another one takes over its work.
    KillPublisher,
    /// `kill -9` of a subscriber; another one starts a moment later.
    KillSubscriber,
    /// SIGSTOP of a subscriber for longer than its lease or heartbeat, then SIGCONT.
    FreezeSubscriber,
    /// SIGSTOP of a publisher for longer than its heartbeat, then SIGCONT.
    FreezePublisher,
    /// `kill -9` of the broker, then a restart.
    KillBroker,
    /// The broker closes all connections.
    CloseConnections,
    /// The broker deletes the queue that is being consumed, and what is in it.
    DeleteQueue,
    /// The broker has no memory left for a while, and blocks who publishes.
    MemoryAlarm,
    /// The proxy closes every connection.
    Cut,
    /// The proxy holds everything up for a while.
    Delay,
    /// The proxy lets through half of what it did so far.
    Halve,
    /// The proxy passes nothing on for longer than a heartbeat, and tells nobody.
    BlackHole,
    /// The proxy resets every connection in the middle of a frame.
    Reset,
    /// The disk is full for a while.
    FillDisk,
    /// Everybody is killed, and finds a file that nobody may write to; then it may be written to again.
    ReadOnly,
    /// The wall clock of a process is set, by up to a day in either direction.
    StepClock,
}

impl Fault {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KillPublisher => "kill-publisher",
            Self::KillSubscriber => "kill-subscriber",
            Self::FreezeSubscriber => "freeze-subscriber",
            Self::FreezePublisher => "freeze-publisher",
            Self::KillBroker => "kill-broker",
            Self::CloseConnections => "close-connections",
            Self::DeleteQueue => "delete-queue",
            Self::MemoryAlarm => "memory-alarm",
            Self::Cut => "cut",
            Self::Delay => "delay",
            Self::Halve => "halve",
            Self::BlackHole => "black-hole",
            Self::Reset => "reset",
            Self::FillDisk => "full-disk",
            Self::ReadOnly => "read-only",
            Self::StepClock => "clock-step",
        }
    }
}
