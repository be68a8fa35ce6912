//! The way of answers back to JavaScript.
//!
//! An answer is put into a queue; only the first one of a batch wakes the event loop, which then takes all there are
//! (at most [`MOST`] a turn, so that timers and sockets get their turn as well). Nothing in Rust ever calls a user's
//! function.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use napi::bindgen_prelude::{Array, Env, Function, Null};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use parking_lot::Mutex;
use serde_json::Value;
use tidings::{Delivery, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::delivery::{Hand, events};
use crate::error::to_json;
use crate::log;

/// Answers that are handed over in one turn of the event loop.
const MOST: usize = 512;

/// Answers that may wait before log lines are left out.
const MOST_LOGGED: usize = 10_000;

/// Wakes the event loop. Weak: what keeps the process alive is decided in TypeScript.
type Wake = ThreadsafeFunction<(), (), (), napi::Status, false, true>;

/// What an operation came to.
pub(crate) enum Answer {
    /// Done.
    Nothing,
    /// A number.
    Number(f64),
    /// A publish: the event's id, and whether a subscription wanted it.
    Receipt(Arc<str>, Option<bool>),
    /// JSON, to be parsed there.
    Json(String),
    /// Events for handlers, kept in the hand until they are settled.
    Events(Arc<Hand>, Vec<Delivery>),
}

/// One environment's queue of answers (the main thread and each worker thread have their own).
#[napi]
pub struct Bridge {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    done: Mutex<VecDeque<(u32, Result<Answer>)>>,
    wake: Wake,
    /// The environment is gone, and with it everybody who could want an answer.
    gone: watch::Sender<bool>,
}

#[napi]
impl Bridge {
    /// `wake` is called on the event loop whenever there are answers to be drained.
    /// Op 0 is a log line, as JSON.
    #[napi(constructor)]
    pub fn new(wake: Function<'_, (), ()>) -> napi::Result<Self> {
        let wake = wake.build_threadsafe_function::<()>().callee_handled::<false>().weak::<true>().build()?;
        let shared = Arc::new(Shared { done: Mutex::default(), wake, gone: watch::Sender::new(false) });
        log::listen(&shared);
        Ok(Self { shared })
    }

    /// The answers so far: `[receipts, op, value, op, value, …]`. A negative `op` failed, and its value is the error as JSON.
    /// The receipts are `[op, id, routed, op, id, routed, …]` as JSON, which costs a tenth of making so many values here;
    /// `null` if there are none.
    #[napi]
    pub fn drain<'env>(&self, env: &'env Env) -> napi::Result<Array<'env>> {
        let (answers, more) = {
            let mut done = self.shared.done.lock();
            let count = done.len().min(MOST);
            let answers: Vec<_> = done.drain(..count).collect();
            (answers, !done.is_empty())
        };
        if more {
            self.shared.wake();
        }
        let mut receipts = String::new();
        let mut array = env.create_array(1)?;
        let mut at = 1;
        for (op, result) in answers {
            match result {
                Ok(Answer::Receipt(id, routed)) => {
                    add_receipt(&mut receipts, op, &id, routed);
                    continue;
                }
                Ok(answer) => {
                    array.set(at, op)?;
                    match answer {
                        Answer::Nothing | Answer::Receipt(..) => array.set(at + 1, Null)?,
                        Answer::Number(number) => array.set(at + 1, number)?,
                        Answer::Json(text) => array.set(at + 1, text)?,
                        Answer::Events(hand, deliveries) => array.set(at + 1, events(env, &hand, deliveries)?)?,
                    }
                }
                Err(error) => {
                    array.set(at, -i64::from(op))?;
                    array.set(at + 1, to_json(&error))?;
                }
            }
            at += 2;
        }
        if receipts.is_empty() {
            array.set(0, Null)?;
        } else {
            receipts.push(']');
            array.set(0, receipts)?;
        }
        Ok(array)
    }

    /// Answers everything under way with nothing more; what it held is released.
    #[napi]
    pub fn end(&self) {
        self.shared.end();
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    /// Runs `work` and answers `op` with what it came to. Ends early, unanswered, with the environment.
    pub(crate) fn run<F>(self: &Arc<Self>, handle: &Handle, op: u32, work: F)
    where
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        let shared = self.clone();
        handle.spawn(self.while_wanted(async move { shared.answer(op, work.await) }));
    }

    /// `work`, as long as the environment lives.
    pub(crate) fn while_wanted<F>(&self, work: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut gone = self.gone.subscribe();
        async move {
            tokio::select! {
                () = work => {}
                _ = gone.wait_for(|gone| *gone) => {}
            }
        }
    }

    /// Queues an answer.
    pub(crate) fn answer(&self, op: u32, result: Result<Answer>) {
        self.answer_all([(op, result)]);
    }

    /// Queues answers.
    pub(crate) fn answer_all(&self, answers: impl IntoIterator<Item = (u32, Result<Answer>)>) {
        let first = {
            let mut done = self.done.lock();
            let idle = done.is_empty();
            done.extend(answers);
            idle && !done.is_empty()
        };
        if first {
            self.wake();
        }
    }

    /// Queues a log line, unless the event loop has been too busy to take those before it.
    pub(crate) fn log(&self, line: String) {
        if self.done.lock().len() < MOST_LOGGED {
            self.answer(0, Ok(Answer::Json(line)));
        }
    }

    fn wake(&self) {
        // If the environment is closing there is nobody left to wake.
        let _status = self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }

    fn end(&self) {
        self.gone.send_replace(true);
        self.done.lock().clear();
    }
}

/// Appends to the JSON of the receipts.
fn add_receipt(json: &mut String, op: u32, id: &str, routed: Option<bool>) {
    json.push(if json.is_empty() { '[' } else { ',' });
    json.push_str(&op.to_string());
    json.push(',');
    json.push_str(&Value::from(id).to_string());
    json.push_str(match routed {
        Some(true) => ",true",
        Some(false) => ",false",
        None => ",null",
    });
}
