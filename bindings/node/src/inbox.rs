//! The inbox: the statements for a handler's transaction, the one that is kept in memory, and how long to rest.

use napi::bindgen_prelude::{Either3, Null};
use napi_derive::napi;
use tidings::Result;
use tidings::inbox::{Claim, InboxWriter, MemoryInbox, Rest, Turn};
use tidings::outbox::{Dialect, ParamStyle, Statement};

use crate::convert::duration;
use crate::error::thrown;
use crate::outbox::{OutboxRow, Rendered, Rendering, plain, rendered};
use crate::runtime;

/// What claims an event for a subscription, in the caller's transaction.
#[napi]
pub fn inbox_claim(how: Rendering, subscription: String, row: OutboxRow) -> napi::Result<Rendered> {
    let claim = || -> Result<Statement> {
        let writer = InboxWriter::new(Dialect::of_name(&how.dialect)?).table(&how.table)?;
        writer.claim(ParamStyle::of_name(&how.style)?, &subscription, &plain(row)?)
    };
    claim().map(rendered).map_err(|error| thrown(&error))
}

/// What forgets claims that are older.
#[napi]
pub fn inbox_forget(how: Rendering, age_ms: f64, limit: u32) -> napi::Result<Rendered> {
    let forget = || -> Result<Statement> {
        let writer = InboxWriter::new(Dialect::of_name(&how.dialect)?).table(&how.table)?;
        Ok(writer.forget(ParamStyle::of_name(&how.style)?, duration("ageMs", age_ms)?, limit))
    };
    forget().map(rendered).map_err(|error| thrown(&error))
}

/// How long a handler rests after its inbox has failed.
#[napi]
#[derive(Default)]
pub struct InboxRest {
    core: Rest,
}

#[napi]
impl InboxRest {
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// It failed: milliseconds to wait.
    #[napi]
    pub fn failed(&self) -> f64 {
        millis(self.core.failed())
    }

    /// It works again.
    #[napi]
    pub fn worked(&self) {
        self.core.worked();
    }
}

fn millis(length: std::time::Duration) -> f64 {
    length.as_secs_f64() * 1e3
}

/// Remembers in this process what was processed.
#[napi]
pub struct MemoryClaims {
    core: MemoryInbox,
}

#[napi]
impl MemoryClaims {
    #[napi(constructor)]
    pub fn new(keep_ms: f64, lease_ms: f64) -> napi::Result<Self> {
        let made = || -> Result<_> { Ok(MemoryInbox::new(duration("keep", keep_ms)?, duration("lease", lease_ms)?)) };
        made().map(|core| Self { core }).map_err(|error| thrown(&error))
    }

    /// Null if `subscription` has processed the event.
    #[napi]
    pub fn claim(&self, subscription: String, row: OutboxRow) -> napi::Result<Option<MemoryClaim>> {
        let claim = plain(row).and_then(|event| self.core.claim(&subscription, &event));
        claim.map(|claim| claim.map(MemoryClaim::new)).map_err(|error| thrown(&error))
    }

    /// The claim, renewed while it is held; null if it was processed; or the milliseconds after which to give it back.
    #[napi]
    pub fn turn(&self, subscription: String, row: OutboxRow) -> napi::Result<Either3<MemoryClaim, f64, Null>> {
        let turn = || -> Result<Turn> {
            let runtime = runtime::shared()?;
            let _inside = runtime.enter();
            Ok(self.core.turn(&subscription, &plain(row)?))
        };
        Ok(match turn().map_err(|error| thrown(&error))? {
            Turn::Run(claim) => Either3::A(MemoryClaim::new(claim)),
            Turn::Rest(pause) => Either3::B(millis(pause)),
            _ => Either3::C(Null),
        })
    }
}

/// An event that is ours to process. Collected without `complete`, it is released.
#[napi]
pub struct MemoryClaim {
    core: Option<Claim>,
}

impl MemoryClaim {
    fn new(core: Claim) -> Self {
        Self { core: Some(core) }
    }
}

#[napi]
impl MemoryClaim {
    /// Prolongs the lease. False: it had ended, and somebody else may have the event.
    #[napi]
    pub fn renew(&self) -> bool {
        self.core.as_ref().is_some_and(Claim::renew)
    }

    /// Remembers that the event was processed. False: the claim had ended before.
    #[napi]
    pub fn complete(&mut self) -> bool {
        self.core.take().is_some_and(Claim::complete)
    }

    /// Lets others process it.
    #[napi]
    pub fn release(&mut self) {
        drop(self.core.take());
    }
}
