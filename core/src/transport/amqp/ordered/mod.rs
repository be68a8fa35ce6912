//! Ordered subscriptions: the events of a key in order, one at a time, with any number of processes.
//!
//! ```text
//!                        ┌─ member (stands by)
//!  <name>-order ─ token ─┤
//!   journal: records     └─ owner ◄─ <name> ── keys ── next / settle ── session
//!                              │                 │ a head waits long, or is dead
//!                              └── <name>-key-… ◄┘ parked
//! ```
//!
//! With partitions a `splitter` consumes `<name>` and passes each event on to `<name>-p<i>`, by its key. Each of those has a
//! journal and an owner of its own; `balance` spreads them over the processes, `layout` knows how many there are.
//!
//! `member` joins, stands by, loads the journal and hands over; `owner` is the loop of the one that owns; `key` is one
//! of the keys, `keys` says whose turn it is; `journal` keeps the records; `settling` and `parking` write down what becomes of a head;
//! `aside` keeps a key waiting whose queue does not answer; `copied` keeps what a young queue has only been told.

mod aside;
mod balance;
mod consumer;
mod copied;
mod declaring;
mod event;
mod journal;
mod key;
mod keys;
mod layout;
mod member;
mod names;
mod owner;
mod parking;
mod settling;
mod shared;
mod source;
mod splitter;
mod survey;

pub(super) use event::identify;
pub(super) use journal::Action;
pub(super) use names::{journal, processes};
pub(super) use source::OrderedSource;
pub(super) use survey::{command, queues, survey};
