//! The suite that every transport passes.
//!
//! A transport is reached through a [`Subject`]; [`run`] plays every [scenario](scenarios) on it and says how each
//! went: `ok`, `FAILED` with the reason, or `refused` with the capability that the transport does not declare. Nothing
//! is skipped in silence. Scenarios use names of their own and delete them afterwards, so a broker that is in use for
//! other things can be tested as well.
//!
//! To test a transport of one's own, implement [`Subject`] and run the suite in a test:
//!
//! ```
//! use tidings::testkit::{self, Subject};
//! use tidings::{Broker, Result};
//!
//! struct Mine;
//!
//! #[async_trait::async_trait]
//! impl Subject for Mine {
//!     fn name(&self) -> String {
//!         "mine".into()
//!     }
//!
//!     async fn connect(&self) -> Result<Broker> {
//!         // With a transport of one's own: Ok(Broker::with_transport(Arc::new(MyTransport::connect(…).await?)))
//!         Broker::connect("memory:testkit-example").await
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let report = testkit::run(Mine, |scenario| scenario.name() == "fan-out").await;
//! assert_eq!((report.passed(), report.failed()), (1, 0));
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Scenarios with several processes need a [child](Subject::child): a program that calls [`serve`] on the same broker.

#[macro_use]
mod macros;
mod child;
#[cfg(all(feature = "amqp", feature = "sqlite"))]
#[doc(hidden)]
pub mod fuzz;
mod report;
mod runner;
mod scenario;
mod scenarios;
mod seen;
mod serve;
mod subject;
mod victim;
mod world;

pub use report::{Report, Verdict};
pub use runner::run;
pub use scenario::{Scenario, scenarios};
pub use serve::serve;
pub use subject::Subject;
